"""SVG for the six kinds of figure. Knows tensors and labels, nothing of MkDocs or of pages.

Every function that draws a kind takes (tensors, labels, texts): tensors {name: Array}, labels as the script gave them,
texts in the page's language. It returns panels: small pictures that stand side by side and wrap on a narrow screen.
Colours are classes (figures.css); a strict Content-Security-Policy leaves no room for style attributes.
"""

import math
import re
import unicodedata
from dataclasses import dataclass, field
from html import escape

ROLES = ("q", "k", "v", "o", "x")
TEXT = 13  # px, of every label
SMALL = 12  # px, of ticks and of numbers in cells
LEAST = 11  # px, the smallest text a phone may show
PHONE = 328  # px left for a figure on a screen 360 wide
PLOT = 384  # width of curves and bars: at 13 px it may shrink to a phone and still be read


class Refused(ValueError):
    """The figure cannot be drawn honestly. `by` says whose line must change: "script" or "page"."""

    def __init__(self, message, by="script"):
        super().__init__(message)
        self.by = by


@dataclass
class Array:
    """A tensor as a script kept it: shape, and nested lists (None where only the shape is known)."""

    shape: tuple[int, ...]
    data: list | float | None = None

    @classmethod
    def of(cls, stored):
        return cls(tuple(stored["shape"]), floats(stored.get("data")))


def floats(value):
    """Nested lists with null read as NaN; integers stay integers, so that a count is printed as one."""
    if isinstance(value, list):
        return [math.nan if item is None else floats(item) for item in value]
    return value


# Text


MATH = re.compile(
    r"(?<![A-Za-z0-9_])([A-Za-zα-ωΑ-Ω]|10)(?=[_^])(?:_(\{[^{}]*\}|[A-Za-z0-9]+))?(?:\^(\{[^{}]*\}|-?[A-Za-z0-9⊤]+))?"
    r"(?![A-Za-z0-9_^])"
)
NARROW = {**dict.fromkeys("iljI.,:;'|!", 0.27), **dict.fromkeys("frt()[]{}/-* \"", 0.34)}
NARROW |= {**dict.fromkeys("mwMW@%", 0.88), **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ", 0.7)}


def clean(text):
    """`text` escaped for HTML, without the control characters that HTML forbids."""
    return escape("".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in str(text)))


def width_of(text, size=TEXT, code=False):
    """About how wide `text` is set, in px: the reader's font is not known here, so a little on the wide side."""

    def em(char):
        if unicodedata.combining(char):
            return 0
        if unicodedata.east_asian_width(char) in "WFA":
            return 1
        return 0.62 if code else NARROW.get(char, 0.57)

    plain = str(text)
    if not code:
        plain = MATH.sub(lambda m: m[1] + max((m[2] or "").strip("{}"), (m[3] or "").strip("{}"), key=len)[:99], plain)
    return size * sum(map(em, plain))


def typeset(text, size=TEXT):
    """`W_1^Q` and `d_k` with true subscripts and superscripts; in_proj_weight and other names stay as they are.

    The shifts are written as dy, because Firefox does not know baseline-shift.
    """
    out, end, pending = [], 0, (0.0, 0.0)  # pending: (dx, dy) that brings the pen back

    def span(content, dx, dy, small=False):
        moves = (f' dx="{trim(dx)}"' if dx else "") + (f' dy="{trim(dy)}"' if dy else "")
        kind = ' class="s"' if small else ' class="i"' if content.isalpha() else ""
        out.append(f"<tspan{kind}{moves}>{clean(content)}</tspan>")

    for match in MATH.finditer(str(text)):
        before = text[end : match.start()]
        if before:
            if any(pending):
                out.append(f'<tspan dx="{trim(pending[0])}" dy="{trim(pending[1])}">{clean(before)}</tspan>')
                pending = (0, 0)
            else:
                out.append(clean(before))
        span(match[1], *pending)
        low, high = ((part or "").strip("{}") for part in match.group(2, 3))
        low_width, high_width = (width_of(part, 0.72 * size) for part in (low, high))
        down, up = 0.22 * size, -0.38 * size
        if low:
            span(low, 0.04 * size, down, small=True)
        if high:
            span(high, -low_width if low else 0.08 * size, up - (down if low else 0), small=True)
        pending = (max(0, low_width - high_width) if low and high else 0, -(up if high else down))
        end = match.end()
    rest = text[end:]
    if rest and any(pending):
        rest = f'<tspan dx="{trim(pending[0])}" dy="{trim(pending[1])}">{clean(rest)}</tspan>'
    else:
        rest = clean(rest)
    return "".join(out) + rest


def trim(value):
    """A coordinate in as few letters as a tenth of a pixel needs."""
    return f"{round(value, 1) + 0:.1f}".rstrip("0").rstrip(".")


def number(value, digits):
    """A number with a fixed count of decimals and a true minus sign."""
    if isinstance(value, bool):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return re.sub(r"^-(?=0\.?0*$)", "", f"{value:.{digits}f}").replace("-", "−")


def compact(value):
    """A number with four digits that count, as short as it can be read."""
    if isinstance(value, bool) or not math.isfinite(value):
        return number(value, 0)
    if value == int(value) and abs(value) < 1e6:
        return number(value, 0)
    return re.sub(r"e([+-])0*(\d)", r"e\1\2", f"{value:.4g}").replace("e+", "e").replace("-", "−")


def flat(value):
    """Every number of nested lists, in order."""
    if isinstance(value, list):
        for item in value:
            yield from flat(item)
    else:
        yield value


# A panel


@dataclass
class Panel:
    """One picture: draws into `parts`, remembers its smallest text."""

    width: float = 0
    height: float = 0
    label: str = ""  # what the picture is, when a figure has several
    legend: bool = False
    least: float = TEXT
    parts: list[str] = field(default_factory=list)

    def add(self, markup):
        self.parts.append(markup)

    def text(self, x, y, content, classes="", size=TEXT, code=False, extra=""):
        """Text whose baseline is at y; classes m and e set it around or before x."""
        self.least = min(self.least, size)
        classes = " ".join(filter(None, (classes, "z" if size == SMALL else "", "c" if code else "")))
        body = clean(content) if code else typeset(str(content), size)
        kind = f' class="{classes}"' if classes else ""
        self.add(f'<text{kind} x="{trim(x)}" y="{trim(y)}"{extra}>{body}</text>')

    def rect(self, x, y, w, h, classes="", extra=""):
        kind = f' class="{classes}"' if classes else ""
        self.add(f'<rect{kind} x="{trim(x)}" y="{trim(y)}" width="{trim(w)}" height="{trim(h)}"{extra}/>')

    def path(self, d, classes="", extra=""):
        kind = f' class="{classes}"' if classes else ""
        self.add(f'<path{kind} d="{d}"{extra}/>')

    @property
    def fits_phone(self):
        """Whether it may shrink to a phone's width and its smallest text still be at least 11 px."""
        return self.width * LEAST / self.least <= PHONE

    def svg(self, naming):
        width, height = math.ceil(self.width), math.ceil(self.height)
        return (
            f'<svg {naming} width="{width}" height="{height}" viewBox="0 0 {width} {height}">' + "".join(self.parts) + "</svg>"
        )


def arrow(x, y, dx, dy, size=4):
    """Path of an arrow head whose tip is (x, y), flying along (dx, dy)."""
    return (
        f"M{trim(x - size * dx - size * dy * 0.8)} {trim(y - size * dy - size * dx * 0.8)}"
        f"L{trim(x)} {trim(y)}L{trim(x - size * dx + size * dy * 0.8)} {trim(y - size * dy + size * dx * 0.8)}"
    )


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
        found.append(Block(*spans, role, head, group.get("text", ""), round(0.13 + 0.29 * step, 2)))
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
    top = 26 + 18 * bool(column_ticks) + 18 * axis
    return [
        one_matrix(name, tensors[name], groups[name], labels, texts, top, operators[i - 1] if i and operators else "", not i)
        for i, name in enumerate(tensors)
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
        left += max([width_of(t, SMALL) for t in row_ticks or []] + [width_of(f"{row_axis} ↓", SMALL) if row_axis else 0]) + 8
    right, bottom = left + columns * w, top + rows * h
    middle = top + rows * h / 2
    if operator:
        panel.text(12, middle + 6, {"@": "@", "*": "×"}.get(operator, operator), "m op", 13)
    title_width = width_of(name, TEXT, code=not MATH.search(name))
    # A name wider than its matrix starts at the left edge instead of hanging out on both sides.
    if title_width < columns * w:
        panel.text((left + right) / 2, 14, name, "m h", code=not MATH.search(name))
    else:
        panel.text(left, 14, name, "h", code=not MATH.search(name))
    if column_axis:
        panel.text(left, 32, f"{column_axis} →", "a", SMALL)
    if row_axis:
        panel.text(left - 10, top - 6, f"{row_axis} ↓", "e a", SMALL)
    side = 0.0
    for block in blocks:
        (a, b), (c, d) = block.rows, block.columns
        panel.rect(left + c * w, top + a * h, (d - c) * w, (b - a) * h, f"f r-{block.role}", f' fill-opacity="{block.opacity}"')
        if block.text and (c, d) == (0, columns) and rows > b - a:
            panel.text(right + 12, top + (a + b) / 2 * h + 4.5, block.text, f"t r-{block.role}")
            side = max(side, 12 + width_of(block.text))
        elif block.text and (a, b) == (0, rows) and columns > d - c and not column_ticks:
            panel.text(left + (c + d) / 2 * w, top - 8, block.text, f"m t r-{block.role}")
    for j, tick in enumerate(column_ticks or []):
        panel.text(left + (j + 0.5) * w, top - 8, tick, "m a", SMALL)
    for i, tick in enumerate(row_ticks or []):
        panel.text(left - 10, top + i * h + 17.5, tick, "e a", SMALL)
    panel.path(
        f"M{trim(left + 2)} {trim(top - 2)}h-5v{rows * h + 4}h5M{trim(right - 2)} {trim(top - 2)}h5v{rows * h + 4}h-5", "b"
    )
    panel.add('<g class="n z m">')
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            panel.add(f'<text x="{trim(left + (j + 0.5) * w)}" y="{trim(top + i * h + 17.5)}">{cell}</text>')
    panel.add("</g>")
    panel.least = SMALL
    for i, j in labels.get("mark", {}).get(name, []):
        if not (0 <= i < rows and 0 <= j < columns):
            raise Refused(f"mark names cell {[i, j]} of {name!r}, whose shape is {tensor.shape}")
        panel.rect(left + j * w + 1.5, top + i * h + 1.5, w - 3, h - 3, "k", ' rx="3"')
    panel.width = max(right + side, left + title_width) + 8
    panel.height = bottom + 10
    return panel


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
    return [one_plan(name, t, groups[name], code, texts, scale, not i) for i, (name, t) in enumerate(tensors.items())]


def one_plan(name, tensor, found, code, texts, scale, first):
    rows, columns = two_axes(name, tensor)
    w, h = max(3, columns * scale), max(3, rows * scale)
    panel = Panel(label=name)
    row_ticks = spaced({0, rows, *(e for b in found for e in b.rows)}, rows, h, 14)
    column_ticks = spaced({0, columns, *(e for b in found for e in b.columns)}, columns, w, 18)
    row_axis, column_axis = (axis_text(texts, axis, name, first) for axis in ("rows", "columns"))
    left = max([width_of(t, SMALL) for t in row_ticks] + [width_of(f"{row_axis} ↓", SMALL) - 4 if row_axis else 0]) + 8
    top = 52 + 18 * bool(row_axis or column_axis)
    whole = len(found) == 1 and found[0].text == name
    role = f" t r-{found[0].role}" if whole else ""
    panel.text(left, 14, name, f"h{role}", code=not MATH.search(name))
    shape = f"({', '.join(map(str, tensor.shape))})"
    panel.text(left, 30, shape, "a", SMALL, code=True)
    if column_axis:
        panel.text(left, 50, f"{column_axis} →", "a", SMALL)
    if row_axis:
        panel.text(left - 6, 50, f"{row_axis} ↓", "e a", SMALL)
    panel.least = SMALL
    panel.add('<g class="a z e">')
    for tick in row_ticks:
        panel.add(f'<text x="{trim(left - 6)}" y="{trim(top + tick * scale + 4)}">{tick}</text>')
    panel.add('</g><g class="a z m">')
    for tick in column_ticks:
        panel.add(f'<text x="{trim(left + tick * scale)}" y="{top - 6}">{tick}</text>')
    panel.add("</g>")
    panel.rect(left, top, w, h, "b")
    for block in found:
        (a, b), (c, d) = block.rows, block.columns
        data = {"matrix": name, "role": block.role, "head": block.head, "rows": f"{a}:{b}", "columns": f"{c}:{d}"}
        data |= {"text": block.text, "code": code.get(block.text)}
        attributes = "".join(f' data-{key}="{clean(value)}"' for key, value in data.items() if value not in (None, ""))
        panel.add(f'<g class="block r-{block.role}"{attributes}>')
        x, y, bw, bh = left + c * scale, top + a * scale, max(3, (d - c) * scale), max(3, (b - a) * scale)
        gap = 0.75 if min(bw, bh) > 8 else 0.25
        panel.rect(x + gap, y + gap, bw - 2 * gap, bh - 2 * gap, "f l", f' fill-opacity="{block.opacity}"')
        long = width_of(block.text)
        if block.text and not whole:
            if long <= bw - 4 and bh >= 16:
                panel.text(x + bw / 2, y + bh / 2 + 4.5, block.text, "m")
            elif long <= bh - 4 and bw >= 16:
                cx, cy = trim(x + bw / 2 + 4.5), trim(y + bh / 2)
                panel.text(x + bw / 2 + 4.5, y + bh / 2, block.text, "m", extra=f' transform="rotate(-90 {cx} {cy})"')
        panel.add("</g>")
    title = width_of(name, TEXT, code=not MATH.search(name))
    axis = width_of(f"{column_axis} →", SMALL) if column_axis else 0
    panel.width = left + max(w + 10, title + 4, width_of(shape, SMALL, code=True), axis) + 2
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
DARK_TURNS, LIGHT_TURNS = 0.46, 0.68


def attention(tensors, labels, texts):
    """Heat maps, rows queries and columns keys, one panel a head, and a scale for all."""
    _, maps, queries, keys, heads = attention_maps(tensors, labels, texts)
    greatest = max((v for v in flat(maps) if not math.isnan(v)), default=1)
    top = next(s for s in SCALES if greatest <= s * 1.0001)
    panels = [one_map(m, queries, keys, head, texts, top) for m, head in zip(maps, heads, strict=True)]
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
        legend.path(f"M{trim(legend.width + 22)} 15l12 -12", "b")
        legend.text(legend.width + 40, 13, "NaN", "a", SMALL)
        legend.width += 72
    return [*panels, legend]


def opacity(share):
    return f' fill-opacity="{round(share, 2):g}"'


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
        heads = [texts["head"].format(h + 1) for h in range(len(maps))] if len(maps) > 1 else [""]
    for what, given, size, who in (
        ("queries", queries, rows, "script"),
        ("keys", keys, columns, "script"),
        ("heads", heads, len(maps), by),
    ):
        if len(given) != size:
            raise Refused(f"attention weights {name!r} of shape {tensor.shape} have {size} {what}, but {len(given)} labels", who)
    return name, maps, [str(q) for q in queries], [str(k) for k in keys], [str(h) for h in heads]


def one_map(weights, queries, keys, head, texts, top_value):
    rows, columns = len(queries), len(keys)
    longest = max(rows, columns)
    values = longest <= 8
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
        panel.path("".join(crossed), "b")
    for turn, cells in numbers.items():
        if cells:
            panel.add(f'<g class="{f"n z m {turn}".strip()}">' + "".join(cells) + "</g>")
    panel.width = left + max(columns * cell + max(2, overhang), width_of(head), width_of(columns_title, SMALL)) + 2
    panel.height = top + rows * cell + 6
    return panel


# curves


DASHES = ("", "7 4", "2 3.5", "9 3 2 3", "14 4")
EXPONENTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass
class Axis:
    """A scale from numbers to pixels, with ticks at round numbers."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __post_init__(self):
        if self.log and self.low <= 0:
            raise Refused(f"a logarithmic axis cannot show {self.low:g}")
        if not self.low < self.high:
            self.low, self.high = (self.low / 2, self.high * 2) if self.log else (self.low - 0.5, self.high + 0.5)

    def __call__(self, value):
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, most=6):
        if self.log:
            first, last = math.floor(math.log10(self.low) + 1e-9), math.ceil(math.log10(self.high) - 1e-9)
            step = max(1, math.ceil((last - first) / most))
            factors = (1,) if last - first > 3 else (1, 2, 5) if last - first > 1 else (1, 2, 3, 5, 7)
            marks = [f * 10.0**e for e in range(first, last + 1, step) for f in factors]
        else:
            raw = (self.high - self.low) / most
            power = 10.0 ** math.floor(math.log10(raw))
            step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)
            marks = [k * step for k in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]
        return [m for m in marks if self.low * (1 - 1e-9) - 1e-12 * (not self.log) <= m <= self.high + abs(self.high) * 1e-9]

    def written(self, value):
        if value and not 1e-3 <= abs(value) < 1e5:
            exponent = math.floor(math.log10(abs(value)) + 1e-9)
            factor = value / 10.0**exponent
            lead = "" if math.isclose(factor, 1) else f"{number(factor, 0 if math.isclose(factor, round(factor)) else 1)}·"
            return f"{lead}10{str(exponent).translate(EXPONENTS)}"
        return f"{value:.10g}".replace("-", "−")

    def rounded(self, room):
        """The same axis widened to the next ticks, so that the first and last grid lines close the picture."""
        if not self.log:
            marks = self.ticks(room)
            step = marks[1] - marks[0] if len(marks) > 1 else 1
            self.low, self.high = math.floor(self.low / step + 1e-9) * step, math.ceil(self.high / step - 1e-9) * step
        return self


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
    left = max(width_of(y_axis.written(t)) for t in y_ticks) + 10 if y_ticks else 10
    x_axis = Axis(min(xs), max(xs), left + 6, PLOT - 14, "x" in log)
    if texts.get("y"):
        panel.text(0, 14, texts["y"], "a")
    panel.path("".join(f"M{trim(left)} {trim(y_axis(t))}H{PLOT - 4}" for t in y_ticks), "g")
    for tick in y_ticks:
        panel.text(left - 8, y_axis(tick) + 4.5, y_axis.written(tick), "e a")
    last = -99.0
    marks = []
    for tick in x_axis.ticks():
        half = width_of(x_axis.written(tick)) / 2
        x = min(x_axis(tick), PLOT - half)
        if x - half < last + 8:
            continue
        marks.append(x_axis(tick))
        panel.text(x, bottom + 22, x_axis.written(tick), "m a")
        last = x + half
    panel.path(f"M{trim(left)} {bottom}H{PLOT - 4}" + "".join(f"M{trim(x)} {bottom}v5" for x in marks), "b")
    panel.height = bottom + 30
    if texts.get("x"):
        panel.text(PLOT - 4, bottom + 44, texts["x"], "e a")
        panel.height = bottom + 52
    shown = [name for name in series if name not in inside]
    for i, name in enumerate(shown):
        if name in band:
            panel.path(strip(series, band[name], x_axis, y_axis), f"f {colour(name, i)}", ' fill-opacity=".16"')
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
            key.rect(0, y - 11, 30, 14, f"f {colour(name, i)}", ' fill-opacity=".16"')
        if name in labels.get("points", []):
            key.path(marker(i, 15, y - 4), f"p {colour(name, i)}")
        else:
            key.path(f"M0 {y - 4}h30", f"v {colour(name, i)}", dash(i))
        written = texts.get("series", {}).get(name, name)
        key.text(40, y + 0.5, written)
        key.width = max(key.width, 44 + width_of(written))
    key.height = 24 * len(shown) + 4
    return [panel, key]


def usable(x, y, log):
    return math.isfinite(x) and math.isfinite(y) and ("x" not in log or x > 0) and ("y" not in log or y > 0)


def colour(name, i):
    """A series named for a role has that role's colour; the others go through four that are no role's."""
    return f"r-{name.lower()}" if name.lower() in ("q", "k", "v", "o") else f"s-{i % 4 + 1}"


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
    """A path through the spots, broken where one is missing; spots within a fifth of a pixel of the line are left out."""
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
            off = abs((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length if length > 1e-9 else math.hypot(x - x0, y - y0)
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
    ends = [v for name in ([high] if high else names) for v in tensors[name].data if math.isfinite(v)]
    written = max(width_of(compact(v)) for n in names for v in tensors[n].data)
    widest = max(map(width_of, categories))
    above = widest > 130
    left = 2 if above else widest + 12
    thick, gap = (16, 4) if len(names) == 1 else (13, 2)
    axis = Axis(start, end, left, PLOT - written - 10, log)
    if min(ends, default=0) < 0:
        axis.start += written + 6
    panel = Panel(PLOT, 0, texts.get("x", ""), least=TEXT)
    top = 8
    each = (22 if above else 0) + len(names) * (thick + gap) + 12
    bottom = top + each * len(categories)
    ticks = axis.ticks(4)
    panel.path("".join(f"M{trim(axis(t))} {top}V{trim(bottom)}" for t in ticks), "g")
    zero = axis(axis.low if log else 0)
    for c, category in enumerate(categories):
        y = top + each * c + 4
        if above:
            panel.text(2, y + 13, category)
            y += 22
        else:
            panel.text(left - 10, y + (len(names) * (thick + gap) - gap) / 2 + 4.5, category, "e")
        for i, name in enumerate(names):
            value, by = tensors[name].data[c], y + i * (thick + gap)
            if not math.isfinite(value) or (log and value <= 0):
                panel.text(zero + 6, by + thick / 2 + 4.5, number(value, 0) if not math.isfinite(value) else "0", "a")
                continue
            x = axis(value)
            panel.rect(min(zero, x), by, max(0.5, abs(x - zero)), thick, f"d {colour(name, i)}")
            edge = max(x, axis(tensors[high].data[c])) if high else x
            if low or high:
                a, b = (axis(tensors[n].data[c]) if n else x for n in (low, high))
                mid = trim(by + thick / 2)
                panel.path(f"M{trim(a)} {mid}H{trim(b)}M{trim(a)} {by + 4}v{thick - 8}M{trim(b)} {by + 4}v{thick - 8}", "wh")
            side = "e " if value < 0 else ""
            panel.text(edge + (-6 if value < 0 else 6), by + thick / 2 + 4.5, compact(value), f"{side}n")
    panel.path(f"M{trim(zero)} {top}V{trim(bottom)}", "b")
    last = -99.0
    for tick in ticks:
        half = width_of(axis.written(tick)) / 2
        x = max(axis(tick), half)
        if x - half > last + 10:
            panel.text(x, bottom + 20, axis.written(tick), "m a")
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
    columns = sorted({n.column for n in nodes.values()})
    rows = sorted({n.row for n in nodes.values()})
    # One column may hold a wide box that stands alone in its row: it then reaches over its neighbours.
    crowded = {r for r in rows if sum(n.row == r for n in nodes.values()) > 1}
    wide = {c: max([n.w for n in nodes.values() if n.column == c and n.row in crowded], default=64) for c in columns}
    if not crowded:
        wide = {c: max(n.w for n in nodes.values() if n.column == c) for c in columns}
    centre, x = {}, 0.0
    gutter = 28
    for c in columns:
        centre[c] = x + wide[c] / 2
        x += wide[c] + gutter
    low = min(centre[n.column] - n.w / 2 for n in nodes.values())
    high = max(centre[n.column] + n.w / 2 for n in nodes.values())
    tall = {r: max(n.h for n in nodes.values() if n.row == r) for r in rows}
    # A gap in which several boxes are entered from the side holds a track for each.
    tracks = {r: [] for r in rows}
    for a, b in edges:
        if nodes[a].column != nodes[b].column and nodes[a].row != nodes[b].row and b not in tracks[nodes[b].row]:
            tracks[nodes[b].row].append(b)
    top, y = {}, 1.0
    for i, r in enumerate(rows):
        y += 0 if not i else 30 + 8 * max(0, len(tracks[r]) - 1)
        top[r] = y
        y += tall[r]
    for node in nodes.values():
        node.x = centre[node.column] - node.w / 2 - low + 1
        node.y = top[node.row] + (tall[node.row] - node.h) / 2
    taken = {(n.column, n.row) for n in nodes.values()}
    ports = entry_ports(nodes, edges)
    router = Router(nodes, rows, columns, tall, top, tracks, taken, gutter)
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
        panel.rect(node.x, node.y, node.w, node.h, f"f l r-{node.role}", f' rx="4"{opacity(0.16 if node.role != "x" else 0.06)}')
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
    rows: list
    columns: list
    tall: dict
    top: dict
    tracks: dict
    taken: set
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
        track = self.tracks[b.row].index(b.id) if b.id in self.tracks[b.row] else 0
        turn = self.top[b.row] - 14 - 8 * (len(self.tracks[b.row]) - 1 - track if self.tracks[b.row] else 0)
        leave = self.top[a.row] + self.tall[a.row] + 10
        foot = a.y + a.h
        if not self.blocked(start, a.row, b.row):
            if abs(start - port) < 0.5:
                return [(start, foot), (start, b.y)]
            return [(start, foot), (start, turn), (port, turn), (port, b.y)]
        lanes = [port] + sorted(
            (edge for n in self.nodes.values() for edge in (n.x - self.gutter / 2, n.x + n.w + self.gutter / 2)),
            key=lambda x: abs(x - start) + abs(x - port),
        )
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
