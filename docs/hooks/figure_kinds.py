"""The six kinds of figure, drawn. Knows tensors and labels, nothing of MkDocs or of pages.

A function that draws a kind takes (tensors, labels, texts): tensors {name: Array}, labels as the script gave them,
texts in the page's language. It returns panels: small pictures that stand side by side and wrap on a narrow screen.
It raises Refused where the picture would not be honest.
"""

import math
from dataclasses import dataclass

from drawing import (
    MATH,
    SMALL,
    TEXT,
    Axis,
    Panel,
    Refused,
    arrow,
    clean,
    compact,
    flat,
    number,
    trim,
    width_of,
    written,
)

ROLES = ("q", "k", "v", "o", "x")
PLOT = 384  # width of curves and bars: at 13 px it may shrink to a phone and still be read


def opacity(share):
    return f' fill-opacity="{round(share, 2):g}"'


# Groups: which rows and columns belong to which matrix and head


@dataclass
class Block:
    rows: tuple[int, int]
    columns: tuple[int, int]
    role: str
    head: int | None
    text: str
    opacity: float = 0.2


def blocks_of(name, shape, groups, heads):
    """The groups of one matrix, checked: half-open ranges inside its shape, a role that has a colour."""
    rows, columns = shape
    found = []
    for group in groups:
        unknown = set(group) - {"rows", "columns", "role", "head", "text"}
        if unknown:
            raise Refused(f"a group of {name!r} has an unknown key {sorted(unknown)[0]!r}")
        role = group.get("role", "x")
        if role not in ROLES:
            raise Refused(f"a group of {name!r} has role {role!r}, known are {', '.join(ROLES)}")
        spans = []
        for axis, size in (("rows", rows), ("columns", columns)):
            span = group.get(axis) or [0, size]
            if len(span) != 2 or not 0 <= span[0] < span[1] <= size:
                raise Refused(f"a group of {name!r} has {axis} {span}, not a range inside 0:{size}")
            spans.append(tuple(span))
        head = group.get("head")
        # Heads differ by lightness; a group without a head stands in the middle.
        step = 0.5 if head is None or heads < 2 else head / (heads - 1)
        found.append(
            Block(*spans, role, head, group.get("text", ""), 0.1 if role == "x" else round(0.13 + 0.29 * step, 2))
        )
    return found


def groups_of(tensors, labels):
    """{tensor name: [Block]} for every tensor, an empty list where the labels name none."""
    groups = labels.get("groups", {})
    missing(groups, tensors, "groups")
    heads = 1 + max((g["head"] for gs in groups.values() for g in gs if g.get("head") is not None), default=0)
    return {name: blocks_of(name, two_axes(name, t), groups.get(name, ()), heads) for name, t in tensors.items()}


def missing(named, known, what, by="script"):
    for name in named:
        if name not in known:
            raise Refused(f"{what} names {name!r}, but the figure has {', '.join(map(repr, known)) or 'nothing'}", by)


def two_axes(name, tensor):
    """(rows, columns); a vector is one column, as a bias stands beside its matrix."""
    if len(tensor.shape) == 1:
        return tensor.shape[0], 1
    if len(tensor.shape) != 2:
        raise Refused(f"tensor {name!r} has shape {tensor.shape}, a picture of it needs one or two axes")
    return tensor.shape


def axis_text(texts, axis, name, first):
    """The name of a matrix' rows or columns: one text is for the first matrix, a map names each."""
    given = texts.get(axis, "")
    if isinstance(given, dict):
        return given.get(name, "")
    return given if first else ""


# matrix


def matrix(tensors, labels, texts):
    """Matrices with their numbers, left to right, with operators between them."""
    operators = labels.get("operators", [])
    if operators and len(operators) != len(tensors) - 1:
        raise Refused(f"{len(operators)} operators between {len(tensors)} matrices: give one less than matrices")
    for key in ("rows", "columns", "mark"):
        missing(labels.get(key, {}), tensors, key)
    groups = groups_of(tensors, labels)
    column_ticks = any(labels.get("columns", {}).values()) or any(
        b.text and b.rows == (0, two_axes(n, tensors[n])[0]) for n, bs in groups.items() for b in bs
    )
    axis = bool(texts.get("columns") or texts.get("rows"))
    top = 28 + 22 * bool(column_ticks) + 18 * axis
    return [
        one_matrix(name, tensors[name], groups[name], labels, texts, top, sign, not i)
        for i, (name, sign) in enumerate(zip(tensors, ["", *(operators or [""] * len(tensors))], strict=False))
    ]


def one_matrix(name, tensor, blocks, labels, texts, top, operator, first):
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


def marked_areas(name, tensor, cells):
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


# blocks


def blocks(tensors, labels, texts):
    """Matrices to one scale, cut into coloured blocks; only shapes are drawn."""
    if "groups" not in labels:
        raise Refused("blocks need labels={'groups': ...}: which rows and columns belong to what")
    groups = groups_of(tensors, labels)
    code = labels.get("code", {})
    missing(code, {b.text for bs in groups.values() for b in bs}, "code")
    longest = max(max(two_axes(n, t)) for n, t in tensors.items())
    scale = min(400 / longest, 8)
    names = list(tensors)
    whole = [is_whole(name, tensors[name], groups[name]) for name in names]
    roles = [groups[name][0].role if known else "" for name, known in zip(names, whole, strict=True)]
    # Two or more of one role in a row are a cluster; the others begin at one height.
    clusters = [
        role if role and role in (roles[i - 1 : i] + roles[i + 1 : i + 2]) else "" for i, role in enumerate(roles)
    ]
    alone = [name for name, cluster in zip(names, clusters, strict=True) if not cluster]
    axes = {
        name: "\u2003".join(
            f"{sign} {text}"
            for sign, axis in (("↓", "rows"), ("→", "columns"))
            if (text := axis_text(texts, axis, name, not i))
        )
        for i, name in enumerate(names)
    }
    inner = 40 + 18 * any(axes[name] for name in names if name not in alone)
    outer = 40 + 18 * any(axes[name] for name in alone) + 16 * (not all(whole))
    return [
        one_plan(name, tensors[name], groups[name], code, scale, axes[name], cluster, inner if cluster else outer)
        for name, cluster in zip(names, clusters, strict=True)
    ]


def is_whole(name, tensor, found):
    """Whether a matrix is one block of its own name: it needs no marks, its shape says where it ends."""
    rows, columns = two_axes(name, tensor)
    return len(found) == 1 and found[0].text == name and found[0].rows == (0, rows) and found[0].columns == (0, columns)


def one_plan(name, tensor, found, code, scale, axes, cluster, top):
    rows, columns = two_axes(name, tensor)
    w, h = max(3, columns * scale), max(3, rows * scale)
    whole = is_whole(name, tensor, found)
    panel = Panel(label=name, cluster=cluster)
    row_ticks = [] if whole else spaced({0, rows, *(e for b in found for e in b.rows)}, rows, h, 14)
    column_ticks = [] if whole else spaced({0, columns, *(e for b in found for e in b.columns)}, columns, w, 18)
    left = max([width_of(t, SMALL) + 8 for t in row_ticks], default=1)
    role = f" t r-{found[0].role}" if whole else ""
    panel.text(left, 16, name, f"h{role}", code=not MATH.search(name))
    shape = f"({', '.join(map(str, tensor.shape))})"
    panel.text(left, 32, shape, "a", SMALL, code=True)
    if axes:
        panel.text(left, 51, axes, "a", SMALL)
    for tick in row_ticks:
        panel.text(left - 6, top + tick * scale + 4, tick, "e a", SMALL)
    for tick in column_ticks:
        panel.text(left + tick * scale, top - 6, tick, "m a", SMALL)
    if not whole:
        panel.rect(left, top, w, h, "b")
    for block in found:
        (a, b), (c, d) = block.rows, block.columns
        data = {"matrix": name, "role": block.role, "head": block.head, "rows": f"{a}:{b}", "columns": f"{c}:{d}"}
        data |= {"text": block.text, "code": code.get(block.text)}
        attributes = "".join(f' data-{key}="{clean(value)}"' for key, value in data.items() if value not in (None, ""))
        panel.add(f'<g class="block r-{block.role}"{attributes}>')
        x, y, bw, bh = left + c * scale, top + a * scale, max(3, (d - c) * scale), max(3, (b - a) * scale)
        gap = 0.75 if min(bw, bh) > 8 else 0.25
        panel.rect(x + gap, y + gap, bw - 2 * gap, bh - 2 * gap, "f l", opacity(block.opacity))
        long = width_of(block.text)
        if block.text and not whole:
            if long <= bw - 4 and bh >= 16:
                panel.text(x + bw / 2, y + bh / 2 + 4.5, block.text, "m")
            elif long <= bh - 4 and bw >= 16:
                cx, cy = trim(x + bw / 2 + 4.5), trim(y + bh / 2)
                panel.text(x + bw / 2 + 4.5, y + bh / 2, block.text, "m", extra=f' transform="rotate(-90 {cx} {cy})"')
        panel.add("</g>")
    title = width_of(name, TEXT, code=not MATH.search(name))
    beside = w + (10 if column_ticks else 0)
    panel.width = left + max(beside, title + 4, width_of(shape, SMALL, code=True), width_of(axes, SMALL)) + 2
    panel.height = top + h + 8
    return panel


def spaced(marks, size, extent, least):
    """Those of `marks` that can be labelled at least `least` px apart; both ends always."""
    kept = [0]
    for mark in sorted(marks):
        if (mark - kept[-1]) * extent / size >= least and (mark == size or (size - mark) * extent / size >= least):
            kept.append(mark)
    return kept if kept[-1] == size or size * extent / size < least else [*kept, size]


# attention


SCALES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# Opacity from which a cell is too strong for light text in the dark scheme, and for dark text in the light one.
DARK_TURNS, LIGHT_TURNS = 0.48, 0.68
MOST_NUMBERS = 256


def are_few(maps):
    """Whether the weights of all heads are few enough to be read as numbers: four heads of eight by eight."""
    return sum(len(row) for one in maps for row in one) <= MOST_NUMBERS


def attention(tensors, labels, texts):
    """Heat maps, rows queries and columns keys, one panel a head, and a scale for all."""
    _, maps, queries, keys, heads = attention_maps(tensors, labels, texts)
    greatest = max((v for v in flat(maps) if not math.isnan(v)), default=1)
    top = next(s for s in SCALES if greatest <= s * 1.0001)
    values = are_few(maps)
    panels = [one_map(m, queries, keys, head, texts, top, values) for m, head in zip(maps, heads, strict=True)]
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


def attention_maps(tensors, labels, texts):
    """(name, maps (H, L, S), queries, keys, heads), checked: rows sum to 1, every label has its place."""
    if len(tensors) != 1:
        raise Refused(f"an attention map shows one tensor, not {len(tensors)}")
    ((name, tensor),) = tensors.items()
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
    return name, maps, [str(q) for q in queries], [str(k) for k in keys], [str(h) for h in heads]


def one_map(weights, queries, keys, head, texts, top_value, values):
    rows, columns = len(queries), len(keys)
    longest = max(rows, columns)
    values = values and longest <= 8
    cell = 34 if values else 22 if longest <= 16 else 14 if longest <= 32 else max(3, 448 // longest)
    widest_key = max(width_of(k, SMALL) for k in keys)
    step = math.ceil(15 / cell)
    slanted = widest_key > cell * step - 3
    panel = Panel(label=head or texts["weight"], least=SMALL)
    rows_title, columns_title = f"{texts['rows']} ↓", f"{texts['columns']} →"
    left = max([width_of(q, SMALL) for q in queries] + [width_of(rows_title, SMALL)]) + 10
    top = (24 if head else 0) + 20 + (widest_key * 0.71 + 14 if slanted else 20)
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
    gap = 1 if cell >= 14 else 0
    shades, crossed, numbers = {}, [], {"": [], "y": [], "u": []}
    for i, row in enumerate(weights):
        for j, value in enumerate(row):
            x, y = trim(left + j * cell + gap / 2), trim(top + i * cell + gap / 2)
            side = trim(cell - gap)
            if math.isnan(value):
                crossed.append(f"M{x} {trim(top + (i + 1) * cell - gap)}l{side} -{side}")
                continue
            # 50 steps are finer than an eye can tell, and cells of one step share a path.
            shade = round(value / top_value * 50) / 50
            if shade:
                shades.setdefault(shade, []).append(f"M{x} {y}h{side}v{side}h-{side}z")
            if values:
                written = "0" if value == 0 else "1" if value == 1 else number(value, 2)
                turn = "" if shade <= DARK_TURNS else "y" if shade <= LIGHT_TURNS else "u"
                at = f'x="{trim(left + (j + 0.5) * cell)}" y="{trim(top + (i + 0.5) * cell + 4.3)}"'
                numbers[turn].append(f"<text {at}>{written}</text>")
    panel.add('<g class="w">')
    for shade in sorted(shades):
        panel.path("".join(shades[shade]), extra=opacity(shade))
    panel.add("</g>")
    panel.rect(left, top, columns * cell, rows * cell, "b")
    if crossed:
        panel.path("".join(crossed), "e")
    for turn, cells in numbers.items():
        if cells:
            panel.add(f'<g class="{f"n z m {turn}".strip()}">' + "".join(cells) + "</g>")
    panel.width = left + max(columns * cell + max(2, overhang), width_of(head), width_of(columns_title, SMALL)) + 2
    panel.height = top + rows * cell + 6
    return panel


# curves


DASHES = ("", "7 4", "2 3.5", "9 3 2 3", "14 4")


def series_of(tensors, labels, texts):
    """{name: (xs, ys)} of everything in a figure of curves, in the script's order."""
    own = labels.get("x", {})
    missing(own, tensors, "x")
    missing(own.values(), tensors, "x")
    axes = {"x", *own.values()}
    series = {}
    for name, tensor in tensors.items():
        if len(tensor.shape) != 1 or not tensor.shape[0]:
            raise Refused(f"curve {name!r} has shape {tensor.shape}, needed is (N,) with N at least 1")
        if name in axes:
            continue
        key = own.get(name, "x")
        if key not in tensors:
            raise Refused(f"curve {name!r} has no x: give a tensor 'x', or labels={{'x': {{{name!r}: ...}}}}")
        if tensors[key].shape != tensor.shape:
            raise Refused(f"curve {name!r} has {tensor.shape[0]} values for {tensors[key].shape[0]} of {key!r}")
        series[name] = (tensors[key].data, tensor.data)
    if not series:
        raise Refused("there is no curve beside x")
    missing(labels.get("points", []), series, "points")
    missing(labels.get("band", {}), series, "band")
    missing([n for pair in labels.get("band", {}).values() for n in pair], series, "band")
    for axis in labels.get("log", []):
        if axis not in ("x", "y"):
            raise Refused(f"log names axis {axis!r}, known are 'x' and 'y'")
    missing(texts.get("series", {}), tensors, "series", by="page")
    return series


def finite(values, positive=False):
    found = [v for v in values if math.isfinite(v) and (v > 0 or not positive)]
    if not found:
        raise Refused("there is no finite number to draw" + (" on a logarithmic axis" if positive else ""))
    return found


def curves(tensors, labels, texts):
    """Lines, points and bands over one x, with a legend when there is more than one."""
    series = series_of(tensors, labels, texts)
    band = labels.get("band", {})
    inside = {n for pair in band.values() for n in pair}
    log = labels.get("log", [])
    xs = finite([x for x, _ in series.values() for x in x], "x" in log)
    ys = finite([y for _, y in series.values() for y in y], "y" in log)
    panel = Panel(PLOT, 0, texts.get("y", ""), least=TEXT)
    top, bottom = 16 + 22 * bool(texts.get("y")), 244
    y_axis = Axis(min(ys), max(ys), bottom, top, "y" in log).rounded(5)
    y_ticks = y_axis.ticks(5)
    y_names = y_axis.names(y_ticks)
    left = max(map(width_of, y_names.values()), default=0) + 10
    x_axis = Axis(min(xs), max(xs), left + 6, PLOT - 14, "x" in log)
    if texts.get("y"):
        panel.text(0, 14, texts["y"], "a")
    panel.path("".join(f"M{trim(left)} {trim(y_axis(t))}H{PLOT - 4}" for t in y_ticks), "g")
    for tick in y_ticks:
        panel.text(left - 8, y_axis(tick) + 4.5, y_names[tick], "e a")
    last = -99.0
    marks = []
    for tick, name in x_axis.names(x_axis.ticks()).items():
        half = width_of(name) / 2
        x = min(x_axis(tick), PLOT - half)
        if x - half < last + 8:
            continue
        marks.append(x_axis(tick))
        panel.text(x, bottom + 22, name, "m a")
        last = x + half
    panel.path(f"M{trim(left)} {bottom}H{PLOT - 4}" + "".join(f"M{trim(x)} {bottom}v5" for x in marks), "b")
    panel.height = bottom + 30
    if texts.get("x"):
        panel.text(PLOT - 4, bottom + 44, texts["x"], "e a")
        panel.height = bottom + 52
    shown = [name for name in series if name not in inside]
    for i, name in enumerate(shown):
        if name in band:
            panel.path(strip(series, band[name], x_axis, y_axis), f"f {colour(name, i)}", opacity(0.16))
    for i, name in enumerate(shown):
        spots = [(x_axis(x), y_axis(y)) if usable(x, y, log) else None for x, y in zip(*series[name], strict=True)]
        if name in labels.get("points", []):
            panel.path("".join(marker(i, *spot) for spot in spots if spot), f"p {colour(name, i)}")
        else:
            panel.path(line(spots), f"v {colour(name, i)}", dash(i))
    if len(shown) < 2 and not band:
        return [panel]
    key = Panel(legend=True, least=TEXT)
    for i, name in enumerate(shown):
        y = 16 + 24 * i
        if name in band:
            key.rect(0, y - 11, 30, 14, f"f {colour(name, i)}", opacity(0.16))
        if name in labels.get("points", []):
            key.path(marker(i, 15, y - 4), f"p {colour(name, i)}")
        else:
            key.path(f"M0 {y - 4}h30", f"v {colour(name, i)}", dash(i))
        said = texts.get("series", {}).get(name, name)
        key.text(40, y + 0.5, said)
        key.width = max(key.width, 44 + width_of(said))
    key.height = 24 * len(shown) + 4
    return [panel, key]


def usable(x, y, log):
    return math.isfinite(x) and math.isfinite(y) and ("x" not in log or x > 0) and ("y" not in log or y > 0)


def colour(name, i):
    """A series named for a role has that role's colour; the others go through five that are no role's."""
    return f"r-{name.lower()}" if name.lower() in ("q", "k", "v", "o") else f"s-{i % 5 + 1}"


def dash(i):
    pattern = DASHES[i % len(DASHES)]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def marker(i, x, y):
    """Circle, square, triangle, diamond: series differ by form too."""
    r = 3.2
    shapes = (
        f"M{trim(x - r)} {trim(y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 -{2 * r} 0z",
        f"M{trim(x - 2.9)} {trim(y - 2.9)}h5.8v5.8h-5.8z",
        f"M{trim(x)} {trim(y - 3.8)}l3.8 6.6h-7.6z",
        f"M{trim(x)} {trim(y - 4)}l4 4l-4 4l-4 -4z",
    )
    return shapes[i % 4]


def line(spots):
    """A path through the spots, broken where one is missing, without spots that lie on the line anyway."""
    runs, run = [], []
    for spot in [*spots, None]:
        if spot:
            run.append(spot)
        elif run:
            runs.append(run)
            run = []
    return "".join("M" + "L".join(f"{trim(x)} {trim(y)}" for x, y in thinned(run)) for run in runs)


def thinned(run, tolerance=0.2):
    kept = {0, len(run) - 1}
    stack = [(0, len(run) - 1)]
    while stack:
        a, b = stack.pop()
        (x0, y0), (x1, y1) = run[a], run[b]
        length = math.hypot(x1 - x0, y1 - y0) or 1
        far, at = 0, None
        for i in range(a + 1, b):
            x, y = run[i]
            off = abs((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length
            off = math.hypot(x - x0, y - y0) if (x0, y0) == (x1, y1) else off
            if off > far:
                far, at = off, i
        if far > tolerance:
            kept.add(at)
            stack += [(a, at), (at, b)]
    return [run[i] for i in sorted(kept)]


def strip(series, pair, x_axis, y_axis):
    low, high = (series[name] for name in pair)
    there = [(x_axis(x), y_axis(y)) for x, y in zip(*low, strict=True) if usable(x, y, ["y"] * y_axis.log)]
    back = [(x_axis(x), y_axis(y)) for x, y in zip(*high, strict=True) if usable(x, y, ["y"] * y_axis.log)]
    return "M" + "L".join(f"{trim(x)} {trim(y)}" for x, y in [*thinned(there), *reversed(thinned(back))]) + "z"


# bars


def bar_series(tensors, labels, texts):
    """(categories, names drawn as bars, low name, high name), checked."""
    categories = labels.get("categories")
    if not categories:
        raise Refused("bars need labels={'categories': [...]}")
    for name, tensor in tensors.items():
        if tensor.shape != (len(categories),):
            raise Refused(f"bars {name!r} have shape {tensor.shape} for {len(categories)} categories")
    low, high = labels.get("low"), labels.get("high")
    missing([n for n in (low, high) if n], tensors, "low or high")
    missing(texts.get("series", {}), tensors, "series", by="page")
    names = [name for name in tensors if name not in (low, high)]
    if (low or high) and len(names) != 1:
        raise Refused(f"low and high belong to one series of bars, the figure has {len(names)}")
    return [str(c) for c in categories], names, low, high


def bars(tensors, labels, texts):
    """Horizontal bars: long names of categories stay readable, on a phone too."""
    categories, names, low, high = bar_series(tensors, labels, texts)
    log = bool(labels.get("log"))
    every = finite([v for t in tensors.values() for v in t.data], log)
    start, end = (min(every), max(every)) if log else (min(0, *every), max(0, *every))
    if log:
        # Bars on a logarithmic axis start a whole decade below the least, never at a chosen height.
        start = 10.0 ** math.floor(math.log10(start) - 1e-9)
    room = max(width_of(written(v)) for n in names for v in tensors[n].data)
    widest = max(map(width_of, categories))
    above = widest > 130
    left = 2 if above else 1.1 * widest + 12  # DejaVu Sans is wider than most
    thick, gap = (16, 4) if len(names) == 1 else (13, 2)
    axis = Axis(start, end, left, PLOT - room - 10, log)
    if any(v < 0 for name in names for v in tensors[name].data):
        axis.start += room + 6
    panel = Panel(PLOT, 0, texts.get("x", ""), least=TEXT)
    top = 8
    each = (22 if above else 0) + len(names) * (thick + gap) + 12
    bottom = top + each * len(categories)
    ticks = axis.ticks(4)
    panel.path("".join(f"M{trim(axis(t))} {top}V{trim(bottom)}" for t in ticks), "g")
    zero = axis(axis.low if log else 0)
    faded = opacity(0.5) if low or high else ""  # so that both ends of a whisker are seen
    for c, category in enumerate(categories):
        y = top + each * c + 4
        if above:
            panel.text(2, y + 13, category, "hl")
            y += 22
        else:
            panel.text(left - 10, y + (len(names) * (thick + gap) - gap) / 2 + 4.5, category, "e")
        for i, name in enumerate(names):
            value, by = tensors[name].data[c], y + i * (thick + gap)
            if not math.isfinite(value) or (log and value <= 0):
                panel.text(zero + 6, by + thick / 2 + 4.5, number(value, 0) if not math.isfinite(value) else "0", "a")
                continue
            x = axis(value)
            panel.rect(min(zero, x), by, max(0.5, abs(x - zero)), thick, f"d {colour(name, i)}", faded)
            edge = max(x, axis(tensors[high].data[c])) if high else x
            if value < 0:  # its number stands on the other side, past the whisker
                edge = min(x, axis(tensors[low].data[c])) if low else x
            if low or high:
                a, b = (axis(tensors[n].data[c]) if n else x for n in (low, high))
                mid = trim(by + thick / 2)
                caps = "".join(f"M{trim(end)} {by + 4}v{thick - 8}" for end in (a, b))
                panel.path(f"M{trim(a)} {mid}H{trim(b)}{caps}", "wh")
            side = "e " if value < 0 else ""
            panel.text(edge + (-6 if value < 0 else 6), by + thick / 2 + 4.5, written(value), f"{side}n hl")
    panel.path(f"M{trim(zero)} {top}V{trim(bottom)}", "b")
    last = -99.0
    for tick, name in axis.names(ticks).items():
        half = width_of(name) / 2
        x = max(axis(tick), half)
        if x - half > last + 10:
            panel.text(x, bottom + 20, name, "m a")
            last = x + half
    panel.height = bottom + 28
    if texts.get("x"):
        panel.text(PLOT - 4, bottom + 42, texts["x"], "e a")
        panel.height = bottom + 50
    if len(names) < 2:
        return [panel]
    key = Panel(legend=True, least=TEXT)
    for i, name in enumerate(names):
        said = texts.get("series", {}).get(name, name)
        key.rect(0, 6 + 24 * i, 22, 12, f"d {colour(name, i)}")
        key.text(32, 16.5 + 24 * i, said)
        key.width = max(key.width, 36 + width_of(said))
    key.height = 24 * len(names) + 4
    return [panel, key]


# flow


@dataclass
class Node:
    id: str
    lines: list[str]
    shape: str
    column: int
    row: int
    role: str
    x: float = 0
    y: float = 0
    w: float = 0
    h: float = 0


def flow_nodes(labels, texts):
    """({id: Node}, [(from, to)]), checked: places are free, edges lead to known boxes, downwards or sideways."""
    said = texts.get("nodes", {})
    nodes, places = {}, {}
    for entry in labels.get("nodes", []):
        lacking = {"id", "column", "row"} - set(entry)
        if lacking:
            raise Refused(f"a node of the flow lacks {sorted(lacking)[0]!r}: {entry}")
        role = entry.get("role") or "x"
        if role not in ROLES:
            raise Refused(f"node {entry['id']!r} has role {role!r}, known are {', '.join(ROLES)}")
        text = str(said.get(entry["id"], entry.get("text", entry["id"])))
        node = Node(entry["id"], text.split("\n"), shape_text(entry.get("shape")), entry["column"], entry["row"], role)
        if node.id in nodes or (node.column, node.row) in places:
            raise Refused(f"node {node.id!r} has the id or the place of another node")
        nodes[node.id] = places[node.column, node.row] = node
    if not nodes:
        raise Refused("a flow needs labels={'nodes': [...], 'edges': [...]}")
    missing(said, nodes, "nodes", by="page")
    edges = [tuple(edge) for edge in labels.get("edges", [])]
    for a, b in edges:
        missing([a, b], nodes, "edges")
        if nodes[b].row < nodes[a].row or a == b:
            raise Refused(f"the edge from {a!r} to {b!r} does not lead downwards")
    return nodes, edges


def shape_text(shape):
    if shape is None:
        return ""
    return shape if isinstance(shape, str) else f"({', '.join(map(str, shape))})"


def flow(tensors, labels, texts):
    """Boxes on a grid of columns and rows, joined by arrows that run only down and across."""
    nodes, edges = flow_nodes(labels, texts)
    for node in nodes.values():
        node.w = max([width_of(t) for t in node.lines] + [width_of(node.shape, SMALL, code=True)]) + 24
        node.h = 18 * len(node.lines) + (17 if node.shape else 0) + 14
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
        panel.path(rounded(points), "e")
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0) or 1
        panel.path(arrow(x1, y1, (x1 - x0) / length, (y1 - y0) / length, 4.5), "e")
    for node in nodes.values():
        form = f' rx="4"{opacity(0.06 if node.role == "x" else 0.16)}'
        panel.rect(node.x, node.y, node.w, node.h, f"f l r-{node.role}", form)
        y = node.y + (node.h - 18 * len(node.lines) - (17 if node.shape else 0)) / 2
        for i, text in enumerate(node.lines):
            panel.text(node.x + node.w / 2, y + 14 + 18 * i, text, "m")
        if node.shape:
            panel.text(node.x + node.w / 2, y + 18 * len(node.lines) + 12.5, node.shape, "m a2", SMALL, code=True)
    if left < 0:
        panel.add("</g>")
    panel.width = right - left
    return [panel]


def entry_ports(nodes, edges):
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

    def blocked(self, x, first, last):
        """Whether a box of a row between the two covers x."""
        return any(first < n.row < last and n.x - 6 < x < n.x + n.w + 6 for n in self.nodes.values())

    def route(self, a, b, port):
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


def rounded(points, radius=5):
    """An orthogonal path with its corners taken off."""
    out = [f"M{trim(points[0][0])} {trim(points[0][1])}"]
    for (x0, y0), (x1, y1), (x2, y2) in zip(points, points[1:], points[2:], strict=False):
        r = min(radius, math.hypot(x1 - x0, y1 - y0) / 2, math.hypot(x2 - x1, y2 - y1) / 2)
        before, after = toward(x1, y1, x0, y0, r), toward(x1, y1, x2, y2, r)
        out.append(f"L{trim(before[0])} {trim(before[1])}Q{trim(x1)} {trim(y1)} {trim(after[0])} {trim(after[1])}")
    return "".join(out) + f"L{trim(points[-1][0])} {trim(points[-1][1])}"


def toward(x, y, to_x, to_y, distance):
    length = math.hypot(to_x - x, to_y - y) or 1
    return x + (to_x - x) / length * distance, y + (to_y - y) / length * distance


KINDS = {"matrix": matrix, "blocks": blocks, "attention": attention, "curves": curves, "bars": bars, "flow": flow}
