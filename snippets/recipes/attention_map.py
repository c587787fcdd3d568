"""Draw attention weights with matplotlib: rows are queries, columns are keys, and what is no attention map is refused.

    attention_map(weights, tokens).savefig("heads.png")  # weights (H, L, S) or (L, S)
    attention_map(weights[:, query], grid=(h, w), extra=1).savefig("image.png")  # one query over a picture's patches
    attention_overview(maps, tokens).savefig("model.png")  # what capture.py recorded, one sample, without its padding

All panels of a figure share one scale, from 0 to the greatest weight in it, so that they can be compared. The colours grow
in lightness only, so they hold for colour-blind eyes and in grey. Returns matplotlib.figure.Figure, without pyplot: nothing
stays open, no window appears, a notebook shows it.
Letters: H heads, L queries, S keys, h x w patches. Needs matplotlib 3.8 or newer.
"""

import math
import warnings

import torch
from matplotlib import font_manager, rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PAPER = {"light": ("white", "#1a1a1a", "Blues"), "dark": ("#14171f", "#e8e8e8", "Blues_r")}
CJK_FONTS = [
    "Noto Sans CJK JP", "Noto Sans JP", "Hiragino Sans", "Yu Gothic", "Meiryo", "IPAexGothic", "IPAGothic",
    "MS Gothic", "TakaoGothic", "VL Gothic", "Source Han Sans JP", "Noto Sans CJK SC", "PingFang SC",
    "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "Apple SD Gothic Neo", "Malgun Gothic", "Arial Unicode MS",
]  # fmt: skip
MOST_LABELS = 40  # more of them overlap
MOST_MEASURED = 16  # panels whose labels are measured for the layout: with 12 x 12 that takes a minute


def attention_map(
    weights, queries=None, keys=None, *,
    heads=None, title=None, dark=False, grid=None, extra=0,
) -> Figure:  # fmt: skip
    """A heat map of one head, or one panel for each.

    weights (L, S) or (H, L, S); queries: L tokens; keys: S tokens, the
    queries' where L = S; heads: names of the H panels.
    grid (h, w): weights are one query's, (S,) or (H, S), over patches
    numbered row by row, behind `extra` other keys (class token, ...).
    Raises ValueError if rows do not sum to 1 or labels do not fit.
    """
    share = None
    if grid is not None:
        panels, share = over_a_grid(weights, grid, extra)
    else:
        weights = checked(weights)
        panels = weights[None] if weights.dim() == 2 else weights
    H, L, S = panels.shape
    if keys is None and L == S and grid is None:
        keys = queries
    queries, keys = labels_that_fit(queries, keys, L, S)
    if heads is None:
        heads = [f"head {i}" for i in range(H)] if H > 1 else [""]
    elif len(heads) != H:
        raise ValueError(f"heads: expected {H} names, got {len(heads)}")
    columns = min(H, 4)
    places = [list(range(H))[i : i + columns] for i in range(0, H, columns)]
    return draw(panels, places, heads, queries, keys, title, dark, share)


def over_a_grid(weights, grid, extra):
    """(panels (H, h, w), what of each the extra keys take (H,))."""
    (h, w), rows = grid, torch.as_tensor(weights)
    if rows.dim() not in (1, 2):
        wanted = "one query's weights, (S,) or (H, S)"
        raise ValueError(
            f"weights: expected {wanted}, got {tuple(rows.shape)}"
        )
    rows = checked(rows.reshape(-1, rows.shape[-1]))  # (H, S)
    if rows.shape[-1] != extra + h * w:
        raise ValueError(
            f"grid: expected h * w = {rows.shape[-1] - extra}, the keys "
            f"less {extra} extra, got {h} * {w} (height before width)"
        )
    return rows[:, extra:].unflatten(-1, (h, w)), rows[:, :extra].sum(-1)


def attention_overview(
    maps, tokens=None, *, sample=0, title=None, dark=False
) -> Figure:
    """Every head of every layer: a row for each layer.

    maps: name -> weights (H, L, S) or (B, H, L, S), of which `sample` is
    drawn; lengths may differ between layers. tokens: those of the sample,
    which all layers attend among, None for padding on the left; rows and
    columns of padding are cut off.
    """
    layers = {}
    kept = [] if tokens is None else [i for i, token in enumerate(tokens) if token is not None]
    labels = None if tokens is None else [str(tokens[i]) for i in kept]
    for name, weights in maps.items():
        if isinstance(weights, list):
            calls = f"{len(weights)} calls of {name!r}"
            raise ValueError(f"maps: expected one map a layer, got {calls}")
        chosen = weights[sample] if weights.dim() == 4 else weights
        if tokens is not None:
            n, shape = len(tokens), tuple(chosen.shape[-2:])
            if shape[0] != shape[1] or shape[0] < n:
                raise ValueError(f"maps[{name!r}]: expected a square of {n} tokens or more, got {shape[0]} by {shape[1]}")
            chosen = chosen[..., kept, :][..., kept]
        layers[name] = checked(chosen, f"maps[{name!r}]")
    if not layers:
        raise ValueError("maps: expected at least one layer, got none")
    panels, places, names = [], [], []
    for name, heads in layers.items():
        first = len(panels)
        panels += list(heads)
        places.append(list(range(first, len(panels))))
        names += [f"{name}  {i}" if i == 0 else f"{i}" for i in range(len(heads))]
    return draw(panels, places, names, labels, labels, title, dark)


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
    where, row = off.nonzero()[0].tolist(), rows[off][0]
    why = why_not_one(rows, off)
    return f"row {where} sums to {row:.3g}, not to 1 ({why})"
# --8<-- [end:checked]


def why_not_one(rows, off):
    """What may be the matter where rows (L,) or (H, L) sum to something else."""
    if not rows[off].any():
        return "padding: cut it off"
    if (rows > 1.02).any():
        return "dropout: record before it"
    if (rows.sum(-1) <= 1.02).all():  # all entries together
        return "one query over an image: give its row, and grid=(h, w)"
    return "keys cut off, or a sink that takes the rest"


def labels_that_fit(queries, keys, L, S):
    given = {"queries": (queries, L), "keys": (keys, S)}
    lengths = {name: len(labels) for name, (labels, _) in given.items() if labels is not None}
    swapped = L != S and lengths == {"queries": S, "keys": L}
    for name, (labels, size) in given.items():
        if labels is not None and len(labels) != size:
            hint = ": swapped? Rows are queries, columns are keys" if swapped else ""
            raise ValueError(f"{name}: expected {size} labels, got {len(labels)}{hint}")
    return tuple(None if labels is None else [str(label) for label in labels] for labels, _ in given.values())


def draw(panels, places, names, queries, keys, title, dark, share=None) -> Figure:
    """panels: [(L, S)]; places: rows of numbers of panels; share: of a picture, what of each panel lies outside it."""
    paper, ink, colours = PAPER["dark" if dark else "light"]
    across = max(map(len, places))
    labelled = queries is not None or keys is not None
    side = max(2.4, 0.3 * max(panels[0].shape)) if labelled else 2.2
    words = [*names, title or "", *(queries or []), *(keys or [])]
    fonts = fonts_for("".join(words))
    few = len(panels) <= MOST_MEASURED
    long = 0 if few else 0.08 * max(map(len, [*(queries or []), *(keys or [])]), default=0)  # labels, which are not measured then
    wide, high = size = (side + long) * across + 1.4, (side + long + 0.4) * len(places) + 0.8  # inches
    with rc_context({"font.family": fonts, "text.color": ink}):
        figure = Figure(size, layout="constrained" if few else None, facecolor=paper)
        axes = figure.subplots(len(places), across, squeeze=False)
        top = max(float(panel.max()) for panel in panels)
        for row, line in zip(places, axes, strict=True):
            for axis in line[len(row) :]:
                axis.set_visible(False)
            for axis, number in zip(line, row, strict=False):
                image = axis.imshow(panels[number].numpy(), cmap=colours, vmin=0, vmax=top, interpolation="nearest")
                axis.set_title(names[number], fontsize=9, color=ink, parse_math=False)
                finish(axis, ink, fonts, queries, keys)
                down, right = ("query", "key") if share is None else ("row", "column")
                if share is not None and share[number] > 0:
                    right += f" ({share[number]:.2f} outside)"
                if few or row is places[-1]:
                    axis.set_xlabel(right, color=ink, fontsize=9)
                if number == row[0]:
                    axis.set_ylabel(down, color=ink, fontsize=9)
        if few:
            bar = figure.colorbar(image, ax=axes, shrink=0.8)
        else:
            edges = {"left": (0.6 + long) / wide, "right": 1 - 1.1 / wide, "bottom": (0.5 + long) / high, "top": 1 - 0.7 / high}
            figure.subplots_adjust(**edges, hspace=0.35 + long / side, wspace=0.2 + long / side)
            beside = figure.add_axes((1 - 0.8 / wide, 0.25, 0.15 / wide, 0.5), label="<colorbar>")
            bar = figure.colorbar(image, cax=beside)
        bar.ax.tick_params(colors=ink, labelfontfamily=fonts)
        bar.set_label("weight", color=ink)
        figure.suptitle(title or "", color=ink, wrap=True, parse_math=False)
    return figure


def finish(axis, ink, fonts, queries, keys):
    """Ticks of the axes: queries down, keys across; where they have no names, their positions."""
    axis.set_facecolor("none")
    axis.tick_params(colors=ink, labelsize=8, length=2, labelfontfamily=fonts)
    for edge in axis.spines.values():
        edge.set_edgecolor(ink)
    for of, labels in ((axis.yaxis, queries), (axis.xaxis, keys)):
        if labels is None:
            of.set_major_locator(MaxNLocator(5, integer=True))
        else:
            step = math.ceil(len(labels) / MOST_LABELS)
            of.set_ticks(range(0, len(labels), step), labels[::step], parse_math=False)
    if keys is not None and max(map(len, keys), default=0) > 2:
        axis.tick_params(axis="x", rotation=90)


def fonts_for(text) -> list[str]:
    """Font families that together can write the text."""
    families = ["DejaVu Sans"]
    missing = {c for c in text if c.isprintable()} - letters_of(families[0])
    if missing:
        # the last resort draws what each letter's kind is, and matplotlib reads a hyphen in a name as something else
        installed = {name for name in font_manager.get_font_names() if "-" not in name}
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
