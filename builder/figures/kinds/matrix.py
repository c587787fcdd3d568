"""Matrices with their numbers in the cells."""

import math
from collections.abc import Iterator

from builder.figures.drawing import MATH, SMALL, TEXT, Array, Panel, Refused, flat, number, trim, width_of
from builder.figures.kinds.common import Block, Tensors, axis_text, groups_of, missing, opacity, two_axes
from builder.figures.tables import few, shortened, table


def check(tensors: Tensors, labels: dict, texts: dict) -> dict[str, list[Block]]:
    """{matrix: the blocks that colour it}; raises Refused where a label names what is not there."""
    return groups_of(tensors, labels)


def panels(tensors: Tensors, labels: dict, texts: dict, checked: dict[str, list[Block]]) -> list[Panel]:
    """Matrices with their numbers, left to right, with operators between them."""
    operators = labels.get("operators", [])
    if operators and len(operators) != len(tensors) - 1:
        raise Refused(f"{len(operators)} operators between {len(tensors)} matrices: give one less than matrices")
    for key in ("rows", "columns", "mark"):
        missing(labels.get(key, {}), tensors, key)
    groups = checked
    column_ticks = any(labels.get("columns", {}).values()) or any(
        b.text and b.rows == (0, two_axes(n, tensors[n])[0]) for n, bs in groups.items() for b in bs
    )
    axis = bool(texts.get("columns") or texts.get("rows"))
    top = 28 + 22 * bool(column_ticks) + 18 * axis
    return [
        one_matrix(name, tensors[name], groups[name], labels, texts, top, sign, not i)
        for i, (name, sign) in enumerate(zip(tensors, ["", *(operators or [""] * len(tensors))], strict=False))
    ]


def one_matrix(
    name: str, tensor: Array, blocks: list[Block], labels: dict, texts: dict, top: float, operator: str, first: bool
) -> Panel:
    """One matrix with its numbers, behind its operator; `top` is where its cells begin."""
    rows, columns = two_axes(name, tensor)
    data = tensor.data if len(tensor.shape) == 2 else [[v] for v in tensor.data]
    digits = labels.get("digits", 2)
    whole = all(isinstance(v, (int, bool)) or not math.isfinite(v) or v == int(v) for v in flat(data))
    cells = [[number(v, 0 if whole and "digits" not in labels else digits) for v in row] for row in data]
    row_ticks, column_ticks = (labels.get(axis, {}).get(name) for axis in ("rows", "columns"))
    for axis, ticks, size in (("rows", row_ticks, rows), ("columns", column_ticks, columns)):
        if ticks is not None and len(ticks) != size:
            raise Refused(f"{name!r} has {size} {axis}, but {len(ticks)} labels for them")
    w = max(30, math.ceil(max(width_of(c, SMALL) for row in cells for c in row) + 12))
    if column_ticks:
        w = max(w, math.ceil(max(width_of(t, SMALL) for t in column_ticks)) + 8)
    h = 26
    panel = Panel(label=name)
    row_axis, column_axis = (axis_text(texts, axis, name, first) for axis in ("rows", "columns"))
    left = (30 if operator else 0) + 8
    if row_ticks or row_axis:
        left += max(width_of(t, SMALL) for t in [*(row_ticks or []), f"{row_axis} ↓" if row_axis else ""]) + 8
    right, bottom = left + columns * w, top + rows * h
    middle = top + rows * h / 2
    if operator:
        panel.text(12, middle + 6, {"@": "@", "*": "×"}.get(operator, operator), "m op", 13)
    title_width = width_of(name, TEXT, code=not MATH.search(name))
    # At the left edge where the middle would hang over, or be out of sight in a box that scrolls.
    if title_width < columns * w < 300:
        panel.text((left + right) / 2, 16, name, "m h", code=not MATH.search(name))
    else:
        panel.text(left, 16, name, "h", code=not MATH.search(name))
    if column_axis:
        panel.text(left, 34, f"{column_axis} →", "a", SMALL)
    if row_axis:
        panel.text(left - 10, top - 6, f"{row_axis} ↓", "e a", SMALL)
    side = 0.0
    for block in blocks:
        (a, b), (c, d) = block.rows, block.columns
        colours = (f"f r-{block.role}", opacity(block.opacity))
        panel.rect(left + c * w, top + a * h, (d - c) * w, (b - a) * h, *colours)
        if block.text and (c, d) == (0, columns) and rows > b - a:
            panel.text(right + 12, top + (a + b) / 2 * h + 4.5, block.text, f"t r-{block.role}")
            side = max(side, 12 + width_of(block.text))
        elif block.text and (a, b) == (0, rows) and columns > d - c and not column_ticks:
            panel.text(left + (c + d) / 2 * w, top - 8, block.text, f"m t r-{block.role}")
    for j, tick in enumerate(column_ticks or []):
        panel.text(left + (j + 0.5) * w, top - 8, tick, "m a", SMALL)
    for i, tick in enumerate(row_ticks or []):
        panel.text(left - 10, top + i * h + 17.5, tick, "e a", SMALL)
    down = rows * h + 4
    panel.path(f"M{trim(left + 2)} {top - 2}h-5v{down}h5M{trim(right - 2)} {top - 2}h5v{down}h-5", "b")
    panel.add('<g class="n z m">')
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            panel.add(f'<text x="{trim(left + (j + 0.5) * w)}" y="{trim(top + i * h + 17.5)}">{cell}</text>')
    panel.add("</g>")
    panel.least = SMALL
    for a, b, c, d in marked_areas(name, tensor, labels.get("mark", {}).get(name, [])):
        panel.rect(left + c * w + 1.5, top + a * h + 1.5, (d - c) * w - 3, (b - a) * h - 3, "k", ' rx="3"')
    panel.width = max(right + side, left + title_width) + 8
    panel.height = bottom + 10
    return panel


def marked_areas(name: str, tensor: Array, cells: list[list[int]]) -> list[tuple[int, int, int, int]]:
    """(first row, end, first column, end) of each outline: one around cells that fill a rectangle, else one a cell."""
    rows, columns = two_axes(name, tensor)
    for i, j in cells:
        if not (0 <= i < rows and 0 <= j < columns):
            raise Refused(f"mark names cell {[i, j]} of {name!r}, whose shape is {tensor.shape}")
    if not cells:
        return []
    a, c = (min(cell[axis] for cell in cells) for axis in (0, 1))
    b, d = (max(cell[axis] for cell in cells) + 1 for axis in (0, 1))
    if len({tuple(cell) for cell in cells}) == (b - a) * (d - c):
        return [(a, b, c, d)]
    return [(i, i + 1, j, j + 1) for i, j in cells]


def tables(
    tensors: Tensors, labels: dict, texts: dict, words: dict[str, str], checked: dict[str, list[Block]]
) -> Iterator[str]:
    """A table a matrix."""
    for name, tensor in tensors.items():
        rows, columns = two_axes(name, tensor)
        data = tensor.data if len(tensor.shape) == 2 else [[value] for value in tensor.data]
        row_names = labels.get("rows", {}).get(name) or range(rows)
        column_names = labels.get("columns", {}).get(name) or range(columns)
        digits = max(labels.get("digits", 0), 4)
        lines = [[str(r), *(shortened(v, digits) for v in line)] for r, line in zip(row_names, data, strict=True)]
        lines, caption = few(lines, words, f"{name} {tensor.shape}")
        yield table(caption, ["", *map(str, column_names)], lines)
