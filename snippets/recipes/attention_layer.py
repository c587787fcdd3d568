"""An attention layer of a file as the detective finds it: its tensors, the ways to read them, and where a head lies in each.

Letters: H heads of queries, K of keys and values, D head_dim. Needs atlas.py, and nothing but Python.
"""

from dataclasses import dataclass, field

from atlas import Layout, Part, axes_of, slots_of

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Reading:
    """One way to read a layer's matrices, and the names of the layouts that read so; none: no layout has these names."""

    layout: Layout
    base: str  # what the full names have before the layout's own
    layouts: tuple[str, ...] = ()

    def part(self, name: str) -> Part:
        return self.layout.tensors[name.removeprefix(self.base)]


@dataclass
class Layer:
    """Layers of one kind; the names are those of the first."""

    prefix: str
    names: dict[str, str]  # roles ("q", "qkv", "o", ...) -> full name
    shapes: Shapes
    readings: list[Reading] = field(default_factory=list)
    num_heads: int | None = None
    alike: list[dict[str, str]] = field(default_factory=list)  # the names of each such layer, the first among them

    @property
    def number(self) -> int:
        return len(self.alike)

    @property
    def sure(self) -> bool:
        return len(self.readings) == 1

    def size(self, reading: Reading, roles: str, letter: str) -> int:
        """Of the tensor of these roles: "e", the width of the layer, or "nd", the numbers of all its heads."""
        name = self.names[roles]
        return sizes(reading.part(name).axes, self.shapes[name])[letter]

    def heads_of_keys(self, reading: Reading, num_heads: int) -> tuple[int, int]:
        """K and D. Raises ValueError if the shapes are not those of so many heads."""
        role = next(role for role in ("k", "kv", "qkv") if role in self.names)
        width = next((self.size(reading, one, "nd") for one in "qo" if one in self.names), None)
        D, rest = divmod(self.size(reading, "qkv", "e") if width is None else width, num_heads)
        rows = self.size(reading, role, "nd") / D if D else 0
        K = {"k": rows, "kv": rows / 2, "qkv": (rows - num_heads) / 2}[role]
        if rest or K < 1 or num_heads % K:
            name = self.names[role]
            raise ValueError(f"num_heads: expected heads that fit {name} {self.shapes[name]}, got {num_heads}")
        return int(K), D

    def where(self, role: str, head: int, num_heads: int, reading: Reading | None = None) -> str:
        """W_i of a role (q, k, v, o) in the paper's orientation, as an expression."""
        reading = reading or self.readings[0]
        K, D = self.heads_of_keys(reading, num_heads)
        name = next((name for roles, name in self.names.items() if role in roles), None)
        if name is None:
            raise ValueError(f"role: expected one of {', '.join(self.names)}, got {role}")
        part = reading.part(name)
        n = slots_of(reading.layout, part.roles, num_heads, K).index((role, head))
        rows = f"{n * D}:{n * D + D}"
        cut = {
            "(n d) e": rows, "e (n d)": f":, {rows}", "e n d": f":, {n}", "n e d": n, "n d e": n,
        }[part.axes]  # fmt: skip
        turned = {"(n d) e": role != "o", "e (n d)": role == "o", "e n d": role == "o"}
        return f'state["{name}"][{cut}]{".T" if turned.get(part.axes) else ""}'


def sizes(axes: str, shape) -> dict[str, int]:
    """{"e": E, "nd": the numbers of all heads}"""
    found = {"e": 1, "nd": 1}
    for axis, size in zip(axes_of(axes), shape, strict=True):
        found["e" if axis == ["e"] else "nd"] *= size
    return found
