"""Where the heads lie in other libraries' attention: one declaration a layout, one file a library.

    layouts()["GPT-NeoX"].tensors  # {"query_key_value.weight": Part("qkv", "(n d) e"), ...}

A tensor's axes are written as in einops, with these letters: e the width of the layer's input (or output), n the heads that
lie in it one after the other, d the numbers of a head. Which head of which role is the first, the second, ... is the
layout's `order`, a function of H heads of queries and K heads of keys and values.

To add a library: a file layouts_NAME.py beside this one, with LAYOUTS, a list. Needs nothing but Python.
"""

import hashlib
import importlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Slots = list[tuple[str, int]]  # (role, head), in the order of the rows


@dataclass(frozen=True)
class Part:
    """What one tensor holds: the roles (q, k, v, o) of its heads, and its axes."""

    roles: str
    axes: str


@dataclass(frozen=True)
class Layout:
    """One library's attention layer. tensors: name -> Part; what is not among them (norms, sinks, positions) stays as it is."""

    name: str
    library: str
    tensors: dict[str, Part]
    order: Callable[[int, int], Slots]
    version: str = ""
    grouped: bool = False  # keys and values may have fewer heads than queries
    one: bool = False  # and always have one
    tiled: bool = False  # query head h reads head h % K of the keys, not h // (H / K)
    scale: str = "1/sqrt(d)"  # of the scores
    rotary: str = ""  # "half" or "interleaved": which numbers of a head turn together
    # what else the layer has: "norms", "sinks", "softcap", "positions", "scale" (one of its own), "scales" (of heads)
    beside: tuple[str, ...] = ()
    misread: dict = field(default_factory=dict)  # fields of the reading that these names and shapes are most often taken for
    mask: str = ""  # what True in a mask says
    asks: str = ""  # how the library is asked for the weights
    models: tuple[str, ...] = ()  # what config.json calls models that have it; "gguf/...", what a GGUF file does
    signs: tuple[str, ...] = ()  # tensors beside these that no other layout of the same names has

    @property
    def matrices(self) -> dict[str, Part]:
        """Those of its tensors that have heads and a width; the others are biases."""
        return {name: part for name, part in self.tensors.items() if "n" in part.axes and "e" in part.axes}


# Orders


def blocks(roles="qkv"):
    """All heads of one role, then all of the next: torch, GPT-2."""

    def order(H, K):
        return [(role, h) for role in roles for h in range(H if role == "q" else K)]

    order.__name__ = f"blocks {roles}"
    return order


def groups(H, K):
    """Each head of keys behind the queries that read it, its values behind it: Falcon-40B; with K = H NeoX, BLOOM."""
    r = H // K
    return [slot for k in range(K) for slot in [*(("q", k * r + j) for j in range(r)), ("k", k), ("v", k)]]


def dealt(H, K):
    """Query head h reads key head h % K: x-transformers. The paper's heads stand beside those they share keys with."""
    r = H // K
    return [("q", (h % K) * r + h // K) for h in range(H)] + [(role, k) for role in "kv" for k in range(K)]


def shards(number, roles="qkv"):
    """As many parts, in each some heads of every role: CodeGen, for tensor parallelism."""

    def order(H, K):
        each = {"q": H // number, "k": K // number, "v": K // number}
        return [
            (role, part * each[role] + h) for part in range(number) for role in roles for h in range(each[role])
        ]

    order.__name__ = f"shards {number} {roles}"
    return order


# Heads of a tensor


def slots_of(layout: Layout, roles: str, H: int, K: int) -> Slots:
    """(role, head) of the heads in a tensor, in their order."""
    if roles == "o":
        queries = [h for role, h in layout.order(H, K) if role == "q"]
        return [("o", h) for h in (queries if layout.tiled else range(H))]
    return [slot for slot in layout.order(H, K) if slot[0] in roles]


def axes_of(axes: str) -> list[list[str]]:
    """'(n d) e' -> [['n', 'd'], ['e']]"""
    return [(inside or alone).split() for inside, alone in re.findall(r"\(([^)]*)\)|(\S+)", axes)]


def bias_of(name: str) -> str:
    """What the bias beside a matrix is called: in_proj_weight -> in_proj_bias, query.kernel -> query.bias, query/w -> query/b."""
    return re.sub(r"(weight|kernel|w)$", lambda end: "b" if end[1] == "w" else "bias", name)


def shapes_of(layout: Layout, E: int, H: int, K: int | None = None, D: int | None = None) -> dict[str, tuple[int, ...]]:
    """The shapes of its tensors at those sizes: E embed_dim, H heads of queries, K of keys and values, D head_dim."""
    sizes, K = {"e": E, "d": D or E // H}, K or H

    def shape(part):
        n = sum(H if role in "qo" else K for role in part.roles)
        return tuple(math.prod((sizes | {"n": n})[letter] for letter in axis) for axis in axes_of(part.axes))

    return {name: shape(part) for name, part in layout.tensors.items()}


def places(layout: Layout, name: str, shape: tuple[int, ...], H: int, K: int | None = None) -> list[dict]:
    """The heads in a weight as blocks of a matrix, to draw it: {"rows": [first, end], "role", "head", "text"} each.

    "columns" instead where heads lie along the last axis. A weight of three axes is meant as the matrix that comes of joining
    the heads with the axis behind them: (E, H, D) as (E, H * D). Raises ValueError where the heads do not divide the axis.
    """
    part = layout.tensors[name]
    if name not in layout.matrices:
        raise ValueError(f"name: expected a weight with heads, got {name} with the axes {part.axes}")
    slots = slots_of(layout, part.roles, H, K or H)
    axis = "columns" if part.axes.startswith("e") else "rows"
    first = int(axis == "columns")
    length = math.prod(shape[first : first + 1 if "(" in part.axes else first + 2])
    if length % len(slots):
        raise ValueError(f"{name}: expected {len(slots)} heads of one width, got {tuple(shape)}")
    width = length // len(slots)
    return [
        {axis: [i * width, (i + 1) * width], "role": role, "head": head, "text": f"{role}{head}"}
        for i, (role, head) in enumerate(slots)
    ]


# Names


def linear(name, roles):
    """nn.Linear: weight (out, in)."""
    return {f"{name}.weight": Part(roles, "(n d) e"), f"{name}.bias": Part(roles, "(n d)")}


def turned(name, roles):
    """Conv1D, Paddle's Linear, Haiku: weight (in, out)."""
    return {f"{name}.weight": Part(roles, "e (n d)"), f"{name}.bias": Part(roles, "(n d)")}


def kernel(name, roles):
    """Keras, Flax: kernel (in, heads, head_dim)."""
    return {f"{name}/kernel": Part(roles, "e n d"), f"{name}/bias": Part(roles, "n d")}


def out(name):
    """nn.Linear behind the heads: weight (out, in)."""
    return {f"{name}.weight": Part("o", "e (n d)"), f"{name}.bias": Part("o", "e")}


def out_turned(name):
    """The same as (in, out)."""
    return {f"{name}.weight": Part("o", "(n d) e"), f"{name}.bias": Part("o", "e")}


def out_kernel(name):
    """Keras, Flax: kernel (heads, head_dim, out)."""
    return {f"{name}/kernel": Part("o", "n d e"), f"{name}/bias": Part("o", "e")}


def apart(q, k, v, o, of=linear, end=out, without=""):
    """Four projections of their own; without: the letters of those that have no bias."""
    tensors = of(q, "q") | of(k, "k") | of(v, "v") | end(o)
    return {n: p for n, p in tensors.items() if not (n.endswith("bias") and p.roles in without)}


def fused(qkv, o, of=linear, end=out, bias=True):
    """One projection of all three and one behind the heads."""
    tensors = of(qkv, "qkv") | end(o)
    return tensors if bias else {n: p for n, p in tensors.items() if not n.endswith("bias")}


def declared(layout: Layout) -> str:
    """A digest of what a layout says of its tensors: another one once that is another."""
    tensors = [(name, part.roles, part.axes) for name, part in layout.tensors.items()]
    said = [tensors, layout.order.__name__, layout.grouped, layout.tiled, layout.scale, layout.rotary]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def layouts() -> dict[str, Layout]:
    """Every layout of every file layouts_NAME.py beside this one, by name."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("layouts_*.py")):
        for layout in importlib.import_module(path.stem).LAYOUTS:
            if layout.name in found:
                raise ValueError(f"{path.name}: {layout.name!r} is there twice")
            found[layout.name] = layout
    return found
