"""Draw attention weights with matplotlib: rows are queries, columns are keys, and what is no attention map is refused.

    attention_map(weights, tokens).savefig("heads.png")  # weights (H, L, S) or (L, S)
    attention_overview(maps).savefig("model.png")  # what capture.py recorded

All panels of a figure share one scale, from 0 to the greatest weight in it, so that they can be compared. The colours grow
in lightness only, so they hold for colour-blind eyes and in grey. Returns matplotlib.figure.Figure, without pyplot: nothing
stays open, no window appears, a notebook shows it.
Letters: H heads, L queries, S keys. Needs matplotlib 3.8 or newer.
"""

import math
import warnings

import torch
from matplotlib import font_manager, rc_context
from matplotlib.figure import Figure

PAPER = {"light": ("white", "#1a1a1a", "Blues"), "dark": ("#14171f", "#e8e8e8", "Blues_r")}
CJK_FONTS = [
    "Noto Sans CJK JP", "Noto Sans JP", "Hiragino Sans", "Yu Gothic", "Meiryo", "IPAexGothic", "IPAGothic",
    "MS Gothic", "TakaoGothic", "VL Gothic", "Source Han Sans JP", "Noto Sans CJK SC", "PingFang SC",
    "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "Apple SD Gothic Neo", "Malgun Gothic", "Arial Unicode MS",
]  # fmt: skip
MOST_LABELS = 40  # more of them overlap


def attention_map(
    weights, queries=None, keys=None, *,
    heads=None, title=None, dark=False,
) -> Figure:  # fmt: skip
    """A heat map of one head, or one panel for each.

    weights (L, S) or (H, L, S); queries: L tokens; keys: S tokens, the
    queries' where L = S; heads: names of the H panels.
    Raises ValueError if rows do not sum to 1 or labels do not fit.
    """
    weights = checked(weights)
    panels = weights[None] if weights.dim() == 2 else weights
    H, L, S = panels.shape
    if keys is None and L == S:
        keys = queries
    queries, keys = labels_that_fit(queries, keys, L, S)
    if heads is None:
        heads = [f"head {i}" for i in range(H)] if H > 1 else [""]
    elif len(heads) != H:
        raise ValueError(f"heads: expected {H} names, got {len(heads)}")
    columns = min(H, 4)
    grid = [list(range(H))[i : i + columns] for i in range(0, H, columns)]
    return draw(panels, grid, heads, queries, keys, title, dark)


def attention_overview(
    maps, *, sample=0, title=None, dark=False
) -> Figure:
    """Every head of every layer: a row for each layer.

    maps: name -> weights (H, L, S) or (B, H, L, S), of which `sample` is
    drawn; lengths may differ between layers.
    """
    layers = {}
    for name, weights in maps.items():
        if isinstance(weights, list):
            calls = f"{len(weights)} calls of {name!r}"
            raise ValueError(f"maps: expected one map a layer, got {calls}")
        chosen = weights[sample] if weights.dim() == 4 else weights
        layers[name] = checked(chosen, f"maps[{name!r}]")
    if not layers:
        raise ValueError("maps: expected at least one layer, got none")
    panels, grid, names = [], [], []
    for name, heads in layers.items():
        first = len(panels)
        panels += list(heads)
        grid.append(list(range(first, len(panels))))
        names += [f"{name}  {i}" if i == 0 else f"{i}" for i in range(len(heads))]
    return draw(panels, grid, names, None, None, title, dark)


# --8<-- [start:checked]
def checked(weights, name="weights"):
    """The weights, on the CPU, if each row is a distribution."""
    weights = torch.as_tensor(weights).detach().cpu().double()
    if wrong := what_is_wrong(weights):
        raise ValueError(f"{name}: {wrong}")
    return weights


def what_is_wrong(weights):
    """Why these are no attention weights, or None."""
    shape = tuple(weights.shape)
    if weights.dim() not in (2, 3) or not weights.numel():
        return f"expected (L, S) or (H, L, S), got {shape}"
    if not weights.isfinite().all():
        why = "is a row fully masked?"
        return f"expected finite numbers, got NaN or inf: {why}"
    if (weights < 0).any():
        low, why = weights.min(), "are these scores?"
        return f"expected weights of at least 0, got {low:.3g}: {why}"
    rows, columns = weights.sum(-1), weights.sum(-2)
    off = (rows - 1).abs() > 0.02  # bfloat16 is within 0.02
    if not off.any():
        return None
    if ((columns - 1).abs() <= 0.02).all():
        why = "transposed? Rows are queries"
        return f"the columns sum to 1 and the rows do not: {why}"
    where, none = off.nonzero()[0].tolist(), not rows[off].any()
    why = "padding: cut it off" if none else "dropout: record before it"
    return f"row {where} sums to {rows[off][0]:.3g}, not to 1 ({why})"
# --8<-- [end:checked]


def labels_that_fit(queries, keys, L, S):
    given = {"queries": (queries, L), "keys": (keys, S)}
    lengths = {name: len(labels) for name, (labels, _) in given.items() if labels is not None}
    swapped = L != S and lengths == {"queries": S, "keys": L}
    for name, (labels, size) in given.items():
        if labels is not None and len(labels) != size:
            hint = ": swapped? Rows are queries, columns are keys" if swapped else ""
            raise ValueError(f"{name}: expected {size} labels, got {len(labels)}{hint}")
    return tuple(None if labels is None else [str(label) for label in labels] for labels, _ in given.values())


def draw(panels, grid, names, queries, keys, title, dark) -> Figure:
    """panels: [(L, S)]; grid: rows of numbers of panels."""
    paper, ink, colours = PAPER["dark" if dark else "light"]
    across = max(map(len, grid))
    side = 2.2 if queries is None and keys is None else max(2.4, 0.3 * max(panels[0].shape))
    words = [*names, title or "", *(queries or []), *(keys or [])]
    with rc_context({"font.family": fonts_for("".join(words)), "text.color": ink, "axes.unicode_minus": False}):
        figure = Figure((side * across + 1.4, (side + 0.4) * len(grid) + 0.4), layout="constrained", facecolor=paper)
        axes = figure.subplots(len(grid), across, squeeze=False)
        top = max(float(panel.max()) for panel in panels)
        for axis, number in zip(axes.flat, (n for row in grid for n in row + [None] * (across - len(row))), strict=True):
            if number is None:
                axis.set_visible(False)
                continue
            image = axis.imshow(panels[number].numpy(), cmap=colours, vmin=0, vmax=top, interpolation="nearest")
            axis.set_title(names[number], fontsize=9, color=ink)
            finish(axis, ink, queries, keys, left=number in [row[0] for row in grid])
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.ax.tick_params(colors=ink)
        bar.set_label("weight", color=ink)
        figure.suptitle(title or "", color=ink)
        figure.draw_without_rendering()  # while the font is set
    return figure


def finish(axis, ink, queries, keys, left):
    """Ticks and names of the axes: queries down, keys across."""
    axis.set_facecolor("none")
    axis.tick_params(colors=ink, labelsize=8, length=2)
    for edge in axis.spines.values():
        edge.set_edgecolor(ink)
    for of, labels in ((axis.yaxis, queries), (axis.xaxis, keys)):
        if labels is not None:
            step = math.ceil(len(labels) / MOST_LABELS)
            of.set_ticks(range(0, len(labels), step), labels[::step])
    if keys is not None and max(map(len, keys), default=0) > 2:
        axis.tick_params(axis="x", rotation=90)
    axis.set_xlabel("key", color=ink, fontsize=9)
    if left:
        axis.set_ylabel("query", color=ink, fontsize=9)


def fonts_for(text) -> list[str]:
    """Font families that together can write the text."""
    families = ["DejaVu Sans"]
    missing = {c for c in text if c.isprintable()} - letters_of(families[0])
    if missing:
        installed = set(font_manager.get_font_names())
        ranked = [f for f in CJK_FONTS if f in installed] + sorted(installed - set(CJK_FONTS))
        for family in ranked:
            found = missing & letters_of(family)
            if found:
                families.append(family)
                missing -= found
            if not missing:
                return families
        warnings.warn(f"no installed font has {''.join(sorted(missing))!r}; it is drawn as boxes", stacklevel=4)
    return families


def letters_of(family) -> set[str]:
    """The characters that a font can draw."""
    path = font_manager.findfont(family, fallback_to_default=False)
    return set(map(chr, font_manager.get_font(path).get_charmap()))
