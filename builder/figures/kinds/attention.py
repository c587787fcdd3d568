"""Heat maps of attention weights, a panel a head, and the masks that they come of."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from builder.figures.drawing import SMALL, Array, Panel, Refused, compact, flat, number, trim, width_of
from builder.figures.kinds.common import Tensors, opacity
from builder.figures.tables import few, shortened, table

SCALES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# Opacity from which a cell is too strong for light text in the dark scheme, and for dark text in the light one.
DARK_TURNS, LIGHT_TURNS = 0.48, 0.68
MOST_NUMBERS = 256
WITH_NUMBERS = 34  # px, a cell that a number has room in
MOST_COLUMNS = 24


def are_few(maps: list) -> bool:
    """Whether the weights of all heads are few enough to be read as numbers: four heads of eight by eight."""
    return sum(len(row) for one in maps for row in one) <= MOST_NUMBERS


def panels(tensors: Tensors, labels: dict, texts: dict, checked: tuple) -> list[Panel]:
    """Heat maps, rows queries and columns keys, one panel a head, and a scale for all; a mask stands before its map."""
    _, maps, queries, keys, heads, notes, masks = checked
    greatest = max((v for v in flat(maps) if not math.isnan(v)), default=1)
    top = next(s for s in SCALES if greatest <= s * 1.0001)
    values = are_few(maps)
    panels = [
        one_map(weights, queries, keys, head, note, texts, top, values)
        for weights, head, note in zip(maps, heads, notes, strict=True)
    ]
    before = [one_mask(mask, queries, keys, name, texts, values) for name, mask in masks.items()]
    if len(before) == len(panels):
        panels = [panel for pair in zip(before, panels, strict=True) for panel in pair]
    else:
        panels = before + panels
    legend = Panel(legend=True, least=SMALL)
    legend.text(0, 13, texts["weight"], "a", SMALL)
    x = width_of(texts["weight"], SMALL) + 16
    for i in range(10):
        legend.rect(x + 14 * i, 3, 14, 12, "w", opacity(i / 9))
    legend.rect(x, 3, 140, 12, "b")
    for share, anchor in ((0, ""), (0.5, "m "), (1, "e ")):
        legend.text(x + 140 * share, 30, compact(top * share), f"{anchor}a", SMALL)
    legend.width, legend.height = x + 142, 34
    if any(math.isnan(v) for v in flat(maps)):
        legend.rect(legend.width + 22, 3, 12, 12, "b")
        legend.path(f"M{trim(legend.width + 22)} 15l12 -12", "e")
        legend.text(legend.width + 40, 13, "NaN", "a", SMALL)
        legend.width += 72
    return [*panels, legend]


def check(tensors: Tensors, labels: dict, texts: dict) -> tuple:
    """(name, maps (H, L, S), queries, keys, heads, notes below the maps, masks), checked: rows sum to 1, labels have their place.

    With a grid [h, w] the tensor is (H, S), one row of each head, and its maps are (H, h, w). Tensors of True and False are
    masks {name: (L, S)}.
    """
    masks = {
        name: mask
        for name, mask in tensors.items()
        if all(value is True or value is False for value in flat(mask.data))
    }
    given = {name: tensor for name, tensor in tensors.items() if name not in masks}
    if len(given) != 1:
        raise Refused(f"an attention map shows one tensor, not {len(given)}")
    ((name, tensor),) = given.items()
    if len(tensor.shape) not in (2, 3) or 0 in tensor.shape:
        raise Refused(f"attention weights {name!r} have shape {tensor.shape}, needed is (H, L, S) or (L, S)")
    maps = tensor.data if len(tensor.shape) == 3 else [tensor.data]
    rows, columns = tensor.shape[-2:]
    for h, one in enumerate(maps):
        for i, row in enumerate(one):
            total = math.fsum(row)
            if labels.get("masked") and (all(map(math.isnan, row)) or total == 0):
                continue
            where = f"row {i}" + (f" of head {h}" if len(tensor.shape) == 3 else "")
            if not abs(total - 1) <= 1e-4:
                raise Refused(
                    f"attention weights {name!r}: {where} sums to {total:.6g}, not 1 (rows are queries, columns keys; "
                    "labels={'masked': True} allows rows of zeros or NaN)"
                )
            if min(row) < 0:
                raise Refused(f"attention weights {name!r}: {where} has a weight below 0 ({min(row):.3g})")
    notes = [""] * len(maps)
    if "grid" in labels:
        maps, shares = over_a_grid(name, tensor, labels)
        rows, columns = labels["grid"]
        notes = [texts["others"].format(number(share, 2)) if labels.get("extra") else "" for share in shares]
    elif "extra" in labels:
        raise Refused("'extra' says how many keys stand before those of a grid, and there is no 'grid'")
    for mask, drawn in masks.items():
        if drawn.shape != (rows, columns):
            raise Refused(f"mask {mask!r} has shape {drawn.shape}, its maps have {(rows, columns)}")
    queries = labels.get("queries", list(range(rows)))
    keys = labels.get("keys", list(range(columns)))
    heads, by = labels.get("heads"), "script"
    if texts.get("heads") is not None:
        heads, by = texts["heads"], "page"
    if heads is None:
        heads = [texts["head"].format(h) for h in range(len(maps))] if len(maps) > 1 else [""]
    for what, given, size, who in (
        ("queries", queries, rows, "script"),
        ("keys", keys, columns, "script"),
        ("heads", heads, len(maps), by),
    ):
        if len(given) != size:
            weights = f"attention weights {name!r} of shape {tensor.shape}"
            raise Refused(f"{weights} have {size} {what}, but {len(given)} labels", who)
    told = ([str(label) for label in given] for given in (queries, keys, heads))
    return name, maps, *told, notes, {mask: drawn.data for mask, drawn in masks.items()}


def over_a_grid(name: str, tensor: Array, labels: dict) -> tuple[list, list[float]]:
    """(a map (h, w) for each row of weights (H, S), what each row leaves to the `extra` keys before those of the grid)."""
    grid, extra = labels["grid"], labels.get("extra", 0)
    sizes = grid if isinstance(grid, list) and len(grid) == 2 else [0]
    if not (all(isinstance(n, int) and n > 0 for n in sizes) and isinstance(extra, int) and extra >= 0):
        raise Refused(f"a grid is [h, w], both at least 1, and extra at least 0: not {grid} and {extra}")
    h, w = grid
    if len(tensor.shape) != 2:
        raise Refused(
            f"attention weights {name!r} over a grid have shape {tensor.shape}, needed is (H, S): one row a head"
        )
    if extra + h * w != tensor.shape[1]:
        keys = f"{tensor.shape[1]} keys, and {extra} extra and a grid of {h} by {w} are {extra + h * w}"
        raise Refused(f"attention weights {name!r} have {keys}")
    maps = [[row[extra + i * w : extra + (i + 1) * w] for i in range(h)] for row in tensor.data]
    return maps, [math.fsum(row[:extra]) for row in tensor.data]


@dataclass
class Frame:
    """A panel with its titles and labels; cells begin at left and top, `gap` apart."""

    panel: Panel
    left: int
    top: int
    cell: int
    gap: int


def framed(queries: list[str], keys: list[str], head: str, texts: dict, values: bool) -> Frame:
    """The labels around the cells of one map; cells have room for `values` if they are few."""
    rows, columns = len(queries), len(keys)
    longest = max(rows, columns)
    cell = (
        WITH_NUMBERS
        if values and longest <= 8
        else 22
        if longest <= 16
        else 14
        if longest <= 32
        else max(3, 448 // longest)
    )
    widest_key = max(width_of(k, SMALL) for k in keys)
    step = math.ceil(15 / cell)
    slanted = widest_key > cell * step - 3
    panel = Panel(label=head or texts["weight"], least=SMALL)
    rows_title, columns_title = f"{texts['rows']} ↓", f"{texts['columns']} →"
    left = math.ceil(max([width_of(q, SMALL) for q in queries] + [width_of(rows_title, SMALL)])) + 10
    top = (24 if head else 0) + 20 + (math.ceil(widest_key * 0.71) + 14 if slanted else 20)
    if head:
        panel.text(left, 14, head, "h")
    panel.text(left, (24 if head else 0) + 12, columns_title, "a", SMALL)
    panel.text(left - 8, top - 7, rows_title, "e a", SMALL)
    overhang = 0.0
    for j in range(0, columns, step):
        x = left + (j + 0.5) * cell
        if slanted:
            panel.text(x, top - 6, keys[j], "", SMALL, extra=f' transform="rotate(-45 {trim(x)} {trim(top - 6)})"')
            overhang = max(overhang, x + 4 + width_of(keys[j], SMALL) * 0.71 - left - columns * cell)
        else:
            panel.text(x, top - 7, keys[j], "m", SMALL)
    for i in range(0, rows, step):
        panel.text(left - 8, top + (i + 0.5) * cell + 4.3, queries[i], "e", SMALL)
    panel.width = left + max(columns * cell + max(2, overhang), width_of(head), width_of(columns_title, SMALL)) + 2
    panel.height = top + rows * cell + 6
    return Frame(panel, left, top, cell, 1 if cell >= 14 else 0)


def one_mask(
    mask: list[list[bool]], queries: list[str], keys: list[str], name: str, texts: dict, values: bool
) -> Panel:
    """A mask (L, S), where it is True, in cells as large as those of its maps."""
    frame = framed(queries, keys, name, texts, values)
    panel, left, top, cell, gap = frame.panel, frame.left, frame.top, frame.cell, frame.gap
    places = [(i, j) for i, row in enumerate(mask) for j, value in enumerate(row) if value]
    side = trim(cell - gap)
    corners = (f"M{trim(left + j * cell + gap / 2)} {trim(top + i * cell + gap / 2)}" for i, j in places)
    panel.path("".join(f"{corner}h{side}v{side}h-{side}z" for corner in corners), "tr")
    panel.rect(left, top, len(keys) * cell, len(queries) * cell, "b")
    if cell == WITH_NUMBERS:
        for i, j in places:
            panel.text(left + (j + 0.5) * cell, top + (i + 0.5) * cell + 4.3, "True", "z m", SMALL)
    return panel


def one_map(
    weights: list[list[float]],
    queries: list[str],
    keys: list[str],
    head: str,
    note: str,
    texts: dict,
    top_value: float,
    values: bool,
) -> Panel:
    """One head's weights (L, S), `top_value` in full colour; with their numbers if `values`, where cells have room.

    Below them stands a note.
    """
    frame = framed(queries, keys, head, texts, values)
    panel, left, top, cell, gap = frame.panel, frame.left, frame.top, frame.cell, frame.gap
    values = cell == WITH_NUMBERS
    shades, crossed, numbers = {}, [], {"": [], "y": [], "u": []}
    for i, row in enumerate(weights):
        for j, value in enumerate(row):
            x, y = trim(j * cell), trim(i * cell)
            side = trim(cell - gap)
            if math.isnan(value):
                crossed.append(f"M{trim(left + j * cell + gap / 2)} {trim(top + (i + 1) * cell - gap)}l{side} -{side}")
                continue
            # 50 steps are finer than an eye can tell, and cells of one step share a path.
            shade = round(value / top_value * 50) / 50
            if shade:
                shades.setdefault(shade, []).append(f"M{x} {y}h{side}v{side}h-{side}z")
            if values:
                written = "0" if value == 0 else "1" if value == 1 else number(value, 2)
                turn = "" if shade <= DARK_TURNS else "y" if shade <= LIGHT_TURNS else "u"
                at = "".join(f' {axis}="{trim(place * cell)}"' for axis, place in (("x", j), ("y", i)) if place)
                numbers[turn].append(f"<text{at}>{written}</text>")
    # From corners of their own, so that the cells of all maps are written alike, and packed they weigh little.
    panel.add(f'<g class="w" transform="translate({trim(left + gap / 2)} {trim(top + gap / 2)})">')
    for shade in sorted(shades):
        panel.path("".join(shades[shade]), extra=opacity(shade))
    panel.add("</g>")
    panel.rect(left, top, len(keys) * cell, len(queries) * cell, "b")
    if crossed:
        panel.path("".join(crossed), "e")
    for turn, cells in numbers.items():
        if cells:
            at = f' transform="translate({trim(left + cell / 2)} {trim(top + cell / 2 + 4.3)})"'
            panel.add(f'<g class="{f"n z m {turn}".strip()}"{at}>' + "".join(cells) + "</g>")
    if note:
        panel.text(left, panel.height + 12, note, "a", SMALL)
        panel.width = max(panel.width, left + width_of(note, SMALL) + 2)
        panel.height += 18
    return panel


def tables(tensors: Tensors, labels: dict, texts: dict, words: dict[str, str], checked: tuple) -> Iterator[str]:
    """A table a head; of many weights one table of the keys that each query attends to most."""
    _, maps, queries, keys, heads, notes, masks = checked
    corner = words["corner"].format(rows=texts["rows"], columns=texts["columns"])
    for name, mask in masks.items():
        lines = [[q, *map(str, row)] for q, row in zip(queries, mask, strict=True)]
        yield table(f"{name}{words['colon']}{corner}", ["", *keys], lines)
    small = len(keys) <= MOST_COLUMNS and are_few(maps)
    if small:
        for head, weights, note in zip(heads, maps, notes, strict=True):
            lines = [[q, *(shortened(v, 4) for v in row)] for q, row in zip(queries, weights, strict=True)]
            caption = f"{head}{words['colon']}{corner}" if head else corner
            yield table(f"{caption}{words['aside'].format(note)}" if note else caption, ["", *keys], lines)
        return
    # Too many numbers to read: of every query the keys that it attends to most.
    lines = []
    for head, weights in zip(heads, maps, strict=True):
        for i, row in enumerate(weights):
            best = sorted((j for j in range(len(row)) if row[j] > 0), key=lambda j: -row[j])[:3]
            said = ", ".join(f"{keys[j]} {shortened(row[j], 4)}" for j in best)
            lines.append([f"{head} {queries[i]}".strip(), said or "–"])
    lines, caption = few(
        lines, words, f"{texts['rows']}{words['colon']}{words['strongest']}{words['aside'].format(texts['columns'])}"
    )
    others = [[head or texts["weight"], note] for head, note in zip(heads, notes, strict=True) if note]
    yield table(caption, [texts["rows"], words["strongest"]], others + lines)
