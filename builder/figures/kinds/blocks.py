"""Matrices to scale, cut into coloured blocks: only shapes are drawn."""

from collections.abc import Iterable, Iterator

from builder.figures.drawing import MATH, SMALL, TEXT, Array, Panel, Refused, clean, trim, width_of
from builder.figures.kinds.common import Block, Tensors, axis_text, groups_of, missing, opacity, two_axes
from builder.figures.tables import few, table


def check(tensors: Tensors, labels: dict, texts: dict) -> dict[str, list[Block]]:
    """{matrix: its blocks}; raises Refused where the labels have none."""
    if "groups" not in labels:
        raise Refused("blocks need labels={'groups': ...}: which rows and columns belong to what")
    return groups_of(tensors, labels)


def panels(tensors: Tensors, labels: dict, texts: dict, checked: dict[str, list[Block]]) -> list[Panel]:
    """Matrices to one scale, cut into coloured blocks; only shapes are drawn."""
    groups = checked
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


def is_whole(name: str, tensor: Array, found: list[Block]) -> bool:
    """Whether a matrix is one block of its own name: it needs no marks, its shape says where it ends."""
    rows, columns = two_axes(name, tensor)
    return len(found) == 1 and found[0].text == name and found[0].rows == (0, rows) and found[0].columns == (0, columns)


def one_plan(
    name: str,
    tensor: Array,
    found: list[Block],
    code: dict[str, str],
    scale: float,
    axes: str,
    cluster: str,
    top: float,
) -> Panel:
    """One matrix and its blocks; `scale` in px a row, `top` where it begins below its name."""
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


def spaced(marks: Iterable[int], size: int, extent: float, least: float) -> list[int]:
    """Those of `marks` that can be labelled at least `least` px apart; both ends always."""
    kept = [0]
    for mark in sorted(marks):
        if (mark - kept[-1]) * extent / size >= least and (mark == size or (size - mark) * extent / size >= least):
            kept.append(mark)
    return kept if kept[-1] == size or size * extent / size < least else [*kept, size]


def tables(
    tensors: Tensors, labels: dict, texts: dict, words: dict[str, str], checked: dict[str, list[Block]]
) -> Iterator[str]:
    """One table: a row a block, with its ranges and its line of code."""
    code = labels.get("code", {})
    lines = []
    for name, found in checked.items():
        for block in found:
            ranges = ("{}:{}".format(*span) for span in (block.rows, block.columns))
            lines.append([block.text, name, *ranges, code.get(block.text, "")])
    lines, caption = few(lines, words, ", ".join(f"{name} {tensor.shape}" for name, tensor in tensors.items()))
    header = [words["block"], words["matrix"], words["row range"], words["column range"], words["code"]]
    if not code:
        header, lines = header[:-1], [line[:-1] for line in lines]
    yield table(caption, header, lines)
