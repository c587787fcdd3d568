"""Lines, points and bands over one x."""

import math
from collections.abc import Container, Iterator

from builder.figures.drawing import TEXT, Axis, Panel, Refused, compact, trim, width_of
from builder.figures.kinds.common import PLOT, Tensors, colour, finite, missing, opacity
from builder.figures.tables import few, table

Spot = tuple[float, float]  # px
Series = dict[str, tuple[list[float], list[float]]]  # {name: (xs, ys)}
DASHES = ("", "7 4", "2 3.5", "9 3 2 3", "14 4")


def check(tensors: Tensors, labels: dict, texts: dict) -> Series:
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


def panels(tensors: Tensors, labels: dict, texts: dict, checked: Series) -> list[Panel]:
    """Lines, points and bands over one x, with a legend when there is more than one."""
    series = checked
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


def usable(x: float, y: float, log: Container[str]) -> bool:
    """Whether a point can be drawn; `log` names the axes that are logarithmic."""
    return math.isfinite(x) and math.isfinite(y) and ("x" not in log or x > 0) and ("y" not in log or y > 0)


def dash(i: int) -> str:
    """The attribute that tells the i-th line from the others without colour."""
    pattern = DASHES[i % len(DASHES)]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def marker(i: int, x: float, y: float) -> str:
    """Circle, square, triangle, diamond: series differ by form too."""
    r = 3.2
    shapes = (
        f"M{trim(x - r)} {trim(y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 -{2 * r} 0z",
        f"M{trim(x - 2.9)} {trim(y - 2.9)}h5.8v5.8h-5.8z",
        f"M{trim(x)} {trim(y - 3.8)}l3.8 6.6h-7.6z",
        f"M{trim(x)} {trim(y - 4)}l4 4l-4 4l-4 -4z",
    )
    return shapes[i % 4]


def line(spots: list[Spot | None]) -> str:
    """A path through the spots, broken where one is missing, without spots that lie on the line anyway."""
    runs, run = [], []
    for spot in [*spots, None]:
        if spot:
            run.append(spot)
        elif run:
            runs.append(run)
            run = []
    return "".join("M" + "L".join(f"{trim(x)} {trim(y)}" for x, y in thinned(run)) for run in runs)


def thinned(run: list[Spot], tolerance: float = 0.2) -> list[Spot]:
    """The points of a line without those that lie on it anyway, to `tolerance` px (Ramer, Douglas, Peucker)."""
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


def strip(series: Series, pair: tuple[str, str], x_axis: Axis, y_axis: Axis) -> str:
    """The path of a band, there along its low side and back along its high one."""
    low, high = (series[name] for name in pair)
    there = [(x_axis(x), y_axis(y)) for x, y in zip(*low, strict=True) if usable(x, y, ["y"] * y_axis.log)]
    back = [(x_axis(x), y_axis(y)) for x, y in zip(*high, strict=True) if usable(x, y, ["y"] * y_axis.log)]
    return "M" + "L".join(f"{trim(x)} {trim(y)}" for x, y in [*thinned(there), *reversed(thinned(back))]) + "z"


def tables(tensors: Tensors, labels: dict, texts: dict, words: dict[str, str], checked: Series) -> Iterator[str]:
    """A table for each x: a row a point, a column a series."""
    series = checked
    own = labels.get("x", {})
    said = texts.get("series", {})
    for key in dict.fromkeys(own.get(name, "x") for name in series):
        names = [name for name in series if own.get(name, "x") == key]
        lines = [
            [compact(x), *(compact(series[name][1][i]) for name in names)] for i, x in enumerate(tensors[key].data)
        ]
        lines, caption = few(lines, words, texts.get("y", ""))
        axis = texts.get("x", "x") if key == "x" else said.get(key, texts.get("x", key))
        yield table(caption, [axis, *(said.get(name, name) for name in names)], lines)
