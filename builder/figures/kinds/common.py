"""What several kinds of figure share: roles and their blocks, axes of a matrix, series, and what is asked of each."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from builder.figures.drawing import Array, Refused

Tensors = dict[str, Array]
ROLES = ("q", "k", "v", "o", "x")
PLOT = 384  # width of curves and bars: at 13 px it may shrink to a phone and still be read


def opacity(share: float) -> str:
    """The attribute for a colour of which `share` covers what is below."""
    return f' fill-opacity="{round(share, 2):g}"'


def missing(named: Iterable[str], known: Iterable[str], what: str, by: str = "script") -> None:
    """Raise Refused where one of `named` is not among the known; `what` says where it is named."""
    for name in named:
        if name not in known:
            raise Refused(f"{what} names {name!r}, but the figure has {', '.join(map(repr, known)) or 'nothing'}", by)


def two_axes(name: str, tensor: Array) -> tuple[int, int]:
    """(rows, columns); a vector is one column, as a bias stands beside its matrix."""
    if len(tensor.shape) == 1:
        return tensor.shape[0], 1
    if len(tensor.shape) != 2:
        raise Refused(f"tensor {name!r} has shape {tensor.shape}, a picture of it needs one or two axes")
    return tensor.shape


def axis_text(texts: dict, axis: str, name: str, first: bool) -> str:
    """The name of a matrix' rows or columns: one text is for the first matrix, a map names each."""
    given = texts.get(axis, "")
    if isinstance(given, dict):
        return given.get(name, "")
    return given if first else ""


@dataclass
class Block:
    rows: tuple[int, int]
    columns: tuple[int, int]
    role: str
    head: int | None
    text: str
    opacity: float = 0.2


def blocks_of(name: str, shape: tuple[int, int], groups: Iterable[dict], heads: int) -> list[Block]:
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


def groups_of(tensors: Tensors, labels: dict) -> dict[str, list[Block]]:
    """{tensor name: [Block]} for every tensor, an empty list where the labels name none."""
    groups = labels.get("groups", {})
    missing(groups, tensors, "groups")
    heads = 1 + max((g["head"] for gs in groups.values() for g in gs if g.get("head") is not None), default=0)
    return {name: blocks_of(name, two_axes(name, t), groups.get(name, ()), heads) for name, t in tensors.items()}


def finite(values: Iterable[float], positive: bool = False) -> list[float]:
    """Those of the values that can be drawn. Raises Refused where there is none."""
    found = [v for v in values if math.isfinite(v) and (v > 0 or not positive)]
    if not found:
        raise Refused("there is no finite number to draw" + (" on a logarithmic axis" if positive else ""))
    return found


def colour(name: str, i: int) -> str:
    """A series named for a role has that role's colour; the others go through five that are no role's."""
    return f"r-{name.lower()}" if name.lower() in ("q", "k", "v", "o") else f"s-{i % 5 + 1}"
