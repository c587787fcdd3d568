"""A diagram of a computation, from top to bottom."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from builder.figures.drawing import SMALL, Array, Panel, Refused, arrow, flat, trim, width_of
from builder.figures.kinds import matrix
from builder.figures.kinds.common import ROLES, Tensors, missing, opacity, two_axes
from builder.figures.tables import table

Spot = tuple[float, float]  # px
Edge = tuple[str, str]  # from, to
CELL = 9  # px, of one number of a matrix in a box
MOST_CELLS = 16  # to a side
SHADES = 10  # told apart by eye, and each is a path to fetch


@dataclass
class Node:
    id: str
    lines: list[str]
    shape: str
    column: int
    row: int
    role: str
    cells: str = ""  # the tensor that is drawn in the box
    x: float = 0
    y: float = 0
    w: float = 0
    h: float = 0


def check(tensors: Tensors, labels: dict, texts: dict) -> tuple[dict[str, Node], list[Edge]]:
    """({id: Node}, [(from, to)]), checked: places are free, edges lead to known boxes, downwards or sideways."""
    said = texts.get("nodes", {})
    nodes, places, drawn = {}, {}, set()
    for entry in labels.get("nodes", []):
        lacking = {"id", "column", "row"} - set(entry)
        if lacking:
            raise Refused(f"a node of the flow lacks {sorted(lacking)[0]!r}: {entry}")
        role = entry.get("role") or "x"
        if role not in ROLES:
            raise Refused(f"node {entry['id']!r} has role {role!r}, known are {', '.join(ROLES)}")
        text = str(said.get(entry["id"], entry.get("text", entry["id"])))
        cells, shape = entry.get("cells", ""), entry.get("shape")
        if cells:
            missing([cells], tensors, "cells")
            if max(two_axes(cells, tensors[cells])) > MOST_CELLS:
                raise Refused(
                    f"{cells!r} of shape {tensors[cells].shape} is too large for a box: at most {MOST_CELLS} a side"
                )
            if not all(map(math.isfinite, flat(tensors[cells].data))):
                raise Refused(f"{cells!r} holds a number that is not finite, which no shade shows")
            shape = tensors[cells].shape if shape is None else shape
            drawn.add(cells)
        place = entry["column"], entry["row"]
        node = Node(entry["id"], text.split("\n"), shape_text(shape), *place, role, cells)
        if node.id in nodes or (node.column, node.row) in places:
            raise Refused(f"node {node.id!r} has the id or the place of another node")
        nodes[node.id] = places[node.column, node.row] = node
    if not nodes:
        raise Refused("a flow needs labels={'nodes': [...], 'edges': [...]}")
    missing(said, nodes, "nodes", by="page")
    missing(tensors, sorted(drawn), "tensors")
    edges = [tuple(edge) for edge in labels.get("edges", [])]
    for a, b in edges:
        missing([a, b], nodes, "edges")
        if nodes[b].row < nodes[a].row or a == b:
            raise Refused(f"the edge from {a!r} to {b!r} does not lead downwards")
    return nodes, edges


def shape_text(shape: list | str | None) -> str:
    """A shape as code writes it; one that is a text already stays."""
    if shape is None:
        return ""
    return shape if isinstance(shape, str) else f"({', '.join(map(str, shape))})"


def panels(tensors: Tensors, labels: dict, texts: dict, checked: tuple[dict[str, Node], list[Edge]]) -> list[Panel]:
    """Boxes on a grid of columns and rows, joined by arrows that run only down and across."""
    nodes, edges = checked
    for node in nodes.values():
        rows, across = two_axes(node.cells, tensors[node.cells]) if node.cells else (0, 0)
        widest = [*(width_of(t) for t in node.lines), width_of(node.shape, SMALL, code=True), across * CELL]
        node.w = max(widest) + (12 if rows else 24)
        node.h = 18 * len(node.lines) + (rows * CELL + 8 if rows else 0) + (17 if node.shape else 0) + 14
    columns = [n.column for n in nodes.values()]
    columns = range(math.floor(min(columns)), math.ceil(max(columns)) + 1)
    rows = sorted({n.row for n in nodes.values()})
    # A wide box that stands alone in its row may reach over its neighbours' columns.
    alone = {r for r in rows if sum(n.row == r for n in nodes.values()) == 1} if len(columns) > 1 else set()
    wide = {c: max([n.w for n in nodes.values() if n.column == c and n.row not in alone], default=64) for c in columns}
    middles, x, gutter = {}, 0.0, 28
    for c in columns:
        middles[c] = x + wide[c] / 2
        x += wide[c] + gutter
    # Half a column stands between two.
    centre = {}
    for c in {n.column for n in nodes.values()}:
        a, b = math.floor(c), math.ceil(c)
        centre[c] = middles[a] + (middles[b] - middles[a]) * (c - a)
    low = min(centre[n.column] - n.w / 2 for n in nodes.values())
    high = max(centre[n.column] + n.w / 2 for n in nodes.values())
    tall = {r: max(n.h for n in nodes.values() if n.row == r) for r in rows}
    # Lines that cross a gap share a track if they leave one box, else those that enter one box do.
    tracks = {}
    for r in rows:
        across = [(a, b) for a, b in edges if nodes[b].row == r > nodes[a].row and nodes[a].column != nodes[b].column]
        by = 0 if len({a for a, _ in across}) == 1 else 1
        keys = list(dict.fromkeys(edge[by] for edge in across))
        tracks[r] = {edge: (keys.index(edge[by]), len(keys)) for edge in across}
    top, y = {}, 1.0
    for i, r in enumerate(rows):
        y += 0 if not i else 30 + 8 * max(0, max((many for _, many in tracks[r].values()), default=1) - 1)
        top[r] = y
        y += tall[r]
    for node in nodes.values():
        node.x = centre[node.column] - node.w / 2 - low + 1
        node.y = top[node.row] + (tall[node.row] - node.h) / 2
    for a in nodes.values():
        for b in nodes.values():
            if a.row == b.row and a.x < b.x < a.x + a.w + 6:
                raise Refused(f"the boxes {a.id!r} and {b.id!r} overlap: give them columns further apart")
    ports = entry_ports(nodes, edges)
    router = Router(nodes, tall, top, tracks, gutter)
    panel = Panel(high - low + 2, y + 1, "", least=SMALL)
    drawn = [router.route(nodes[a], nodes[b], ports[a, b]) for a, b in edges]
    right = max([panel.width, *(x + 6 for points in drawn for x, _ in points)])
    left = min([0.0, *(x - 6 for points in drawn for x, _ in points)])
    if left < 0:
        panel.add(f'<g transform="translate({trim(-left)})">')
    for points in drawn:
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0) or 1
        panel.path(rounded(points) + arrow(x1, y1, (x1 - x0) / length, (y1 - y0) / length, 4.5), "e")
    for node in nodes.values():
        form = f' rx="4"{opacity(0.06 if node.role == "x" else 0.16)}'
        panel.rect(node.x, node.y, node.w, node.h, f"f l r-{node.role}", form)
        y = node.y + 7
        for i, text in enumerate(node.lines):
            panel.text(node.x + node.w / 2, y + 14 + 18 * i, text, "m")
        y += 18 * len(node.lines)
        if node.cells:
            y += 4
            rows, across = two_axes(node.cells, tensors[node.cells])
            put_cells(panel, tensors[node.cells], node.x + (node.w - across * CELL) / 2, y, node.role)
            y += rows * CELL + 4
        if node.shape:
            panel.text(node.x + node.w / 2, y + 12.5, node.shape, "m a2", SMALL, code=True)
    if left < 0:
        panel.add("</g>")
    panel.width = right - left
    return [panel]


def put_cells(panel: Panel, tensor: Array, left: float, top: float, role: str) -> None:
    """A matrix as squares, the stronger the larger the number is in size; one below 0 is hollow. A weight has its own colour."""
    data = tensor.data if len(tensor.shape) == 2 else [[value] for value in tensor.data]
    greatest = max(abs(value) for value in flat(data)) or 1
    shades, side = {}, CELL - 1
    for i, row in enumerate(data):
        for j, value in enumerate(row):
            square = f"M{j * CELL} {i * CELL}h{side}v{side}h-{side}z"
            if value < 0:
                square += f"m2 2v{side - 4}h{side - 4}v-{side - 4}z"
            shades.setdefault(round(abs(value) / greatest * SHADES) / SHADES, []).append(square)
    rows, columns = len(data), len(data[0])
    panel.rect(left, top, columns * CELL, rows * CELL, "b")
    # From a corner of its own, so that the squares of all matrices are written alike, and packed they weigh little.
    move = f' transform="translate({trim(left + 0.5)} {trim(top + 0.5)})"'
    panel.add(f'<g class="{"w" if role == "x" else f"f r-{role}"}"{move}>')
    for shade in sorted(shades):
        if shade:
            panel.path("".join(shades[shade]), extra=opacity(shade))
    panel.add("</g>")


def entry_ports(nodes: dict[str, Node], edges: list[Edge]) -> dict[Edge, float]:
    """{edge: x of its arrow's tip}: edges from the left enter left of the middle, from the right to the right."""
    ports = {}
    for target in nodes.values():
        incoming = [a for a, b in edges if b == target.id and nodes[a].row < target.row]
        middle = target.x + target.w / 2
        sides = {
            -1: sorted((a for a in incoming if nodes[a].column < target.column), key=lambda a: -nodes[a].column),
            0: [a for a in incoming if nodes[a].column == target.column],
            1: sorted((a for a in incoming if nodes[a].column > target.column), key=lambda a: nodes[a].column),
        }
        straight = bool(sides[0])
        alone = not straight and len(incoming) == 1
        for sign, names in sides.items():
            for i, a in enumerate(names):
                if sign == 0 or alone:
                    ports[a, target.id] = middle + 10 * i
                else:
                    step = target.w * 0.5 / (len(names) + 1)
                    ports[a, target.id] = middle + sign * step * (i + (1 if straight or len(names) > 1 else 0.7))
    for a, b in edges:
        ports.setdefault((a, b), nodes[b].x + nodes[b].w / 2)
    return ports


@dataclass
class Router:
    """Finds a way down and across for an edge, around the boxes in between."""

    nodes: dict
    tall: dict
    top: dict
    tracks: dict
    gutter: float

    def blocked(self, x: float, first: int, last: int) -> bool:
        """Whether a box of a row between the two covers x."""
        return any(first < n.row < last and n.x - 6 < x < n.x + n.w + 6 for n in self.nodes.values())

    def route(self, a: Node, b: Node, port: float) -> list[Spot]:
        """The corners of the way from a to b, whose arrow's tip is at x = port."""
        start = a.x + a.w / 2
        if a.row == b.row:
            left, right = (a, b) if a.x < b.x else (b, a)
            y = self.top[a.row] + self.tall[a.row] / 2
            tip = b.x if b is right else b.x + b.w
            return [((a.x + a.w) if a is left else a.x, y), (tip, y)]
        track, many = self.tracks[b.row].get((a.id, b.id), (0, 1))
        turn = self.top[b.row] - 14 - 8 * (many - 1 - track)
        leave = self.top[a.row] + self.tall[a.row] + 10
        foot = a.y + a.h
        if not self.blocked(start, a.row, b.row):
            if abs(start - port) < 0.5:
                return [(start, foot), (start, b.y)]
            return [(start, foot), (start, turn), (port, turn), (port, b.y)]
        edges = [x for n in self.nodes.values() for x in (n.x - self.gutter / 2, n.x + n.w + self.gutter / 2)]
        lanes = [port, *sorted(edges, key=lambda x: abs(x - start) + abs(x - port))]
        lane = next(x for x in lanes if not self.blocked(x, a.row, b.row))
        way = [(start, foot), (start, leave), (lane, leave)]
        return [*way, (port, b.y)] if abs(lane - port) < 0.5 else [*way, (lane, turn), (port, turn), (port, b.y)]


def rounded(points: list[Spot], radius: float = 5) -> str:
    """An orthogonal path with its corners taken off."""
    out = [f"M{trim(points[0][0])} {trim(points[0][1])}"]
    for (x0, y0), (x1, y1), (x2, y2) in zip(points, points[1:], points[2:], strict=False):
        r = min(radius, math.hypot(x1 - x0, y1 - y0) / 2, math.hypot(x2 - x1, y2 - y1) / 2)
        before, after = toward(x1, y1, x0, y0, r), toward(x1, y1, x2, y2, r)
        out.append(f"L{trim(before[0])} {trim(before[1])}Q{trim(x1)} {trim(y1)} {trim(after[0])} {trim(after[1])}")
    return "".join(out) + f"L{trim(points[-1][0])} {trim(points[-1][1])}"


def toward(x: float, y: float, to_x: float, to_y: float, distance: float) -> Spot:
    """The point at a distance from (x, y) on the way to another."""
    length = math.hypot(to_x - x, to_y - y) or 1
    return x + (to_x - x) / length * distance, y + (to_y - y) / length * distance


def tables(
    tensors: Tensors, labels: dict, texts: dict, words: dict[str, str], checked: tuple[dict[str, Node], list[Edge]]
) -> Iterator[str]:
    """One table: a row a box, with its shape and where it leads; then the numbers of what is drawn in boxes."""
    nodes, edges = checked
    lines = []
    for node in sorted(nodes.values(), key=lambda n: (n.row, n.column)):
        onward = ", ".join(" ".join(nodes[b].lines) for a, b in edges if a == node.id)
        lines.append([" ".join(node.lines), node.shape, onward or "–"])
    yield table("", [words["box"], words["shape"], words["leads to"]], lines)
    yield from matrix.tables(tensors, {}, texts, words, {})
