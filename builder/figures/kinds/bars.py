"""Horizontal bars, with whiskers where an interval is known."""

import math
from collections.abc import Iterator

from builder.figures.drawing import TEXT, Axis, Panel, Refused, compact, number, trim, width_of, written
from builder.figures.kinds.common import PLOT, Tensors, colour, finite, missing, opacity
from builder.figures.tables import few, table


def check(tensors: Tensors, labels: dict, texts: dict) -> tuple[list[str], list[str], str | None, str | None]:
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


def panels(tensors: Tensors, labels: dict, texts: dict, checked: tuple) -> list[Panel]:
    """Horizontal bars: long names of categories stay readable, on a phone too."""
    categories, names, low, high = checked
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


def tables(tensors: Tensors, labels: dict, texts: dict, words: dict[str, str], checked: tuple) -> Iterator[str]:
    """One table: a row a category, a column a series."""
    categories, *_ = checked
    said = texts.get("series", {})
    lines = [[c, *(compact(t.data[i]) for t in tensors.values())] for i, c in enumerate(categories)]
    lines, caption = few(lines, words, texts.get("x", ""))
    yield table(caption, [words["category"], *(said.get(name, name) for name in tensors)], lines)
