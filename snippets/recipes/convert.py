"""Attention weights from one library's layout into another's, by way of the paper's matrices.

    paper = to_paper(state, "BERT", num_heads=12, prefix="encoder.layer.0.attention.")
    state = from_paper(paper, "torch")  # what nn.MultiheadAttention loads
    state = convert(state, "BERT", "torch", num_heads=12)  # every layer of a state dict

A layout is a name of atlas.layouts(), or a Layout of your own. What stays as it is comes back bit for bit. Nothing is made up: a bias
that was not there is zero, one that is there and not in the layout is refused, and one that the target has no place for is folded
into another, has no effect, or is refused.
As a program: python convert.py model.safetensors --to torch --heads 12 -o out.safetensors (with convert_file.py beside it).
Letters: H heads of queries, K of keys and values, E embed_dim, D head_dim. Needs paper_heads.py, atlas.py and layouts_*.py beside it.
"""

from dataclasses import replace

import torch
from atlas import Layout, axes_of, bias_of, layouts, slots_of
from paper_heads import Paper
from torch import Tensor

State = dict[str, Tensor]


def known(layout) -> Layout:
    """The layout of that name. Raises ValueError with the names that are alike."""
    if isinstance(layout, Layout):
        return layout
    there = layouts()
    if layout not in there:
        alike = [name for name in there if str(layout).lower() in name.lower()] or sorted(there)
        raise ValueError(f"layout: expected a name of atlas.layouts(), got {layout!r}; there are {', '.join(alike)}")
    return there[layout]


# --8<-- [start:cells]
def cells(name: str, tensor: Tensor, axes: str, n: int) -> Tensor:
    """A tensor as its n heads: (n, E, D) or (n, D)."""
    groups, letters, sizes = axes_of(axes), [], []
    if tensor.dim() != len(groups):
        refuse(name, f"{len(groups)} axes, {axes}", tensor)
    for group, length in zip(groups, tensor.shape, strict=True):
        letters += group
        heads = length if group == ["n"] else n
        if group[0] == "n" and (length % n or heads != n):
            refuse(name, f"{n} heads of one width", tensor)
        sizes += [length] if len(group) == 1 else [n, length // n]
    have = [letter for letter in "ned" if letter in letters]
    order = [letters.index(letter) for letter in have]
    return tensor.reshape(sizes).permute(order)


def tensor_of(heads: Tensor, axes: str) -> Tensor:
    """The way back: (n, E, D) -> a tensor with those axes."""
    groups = axes_of(axes)
    letters = [letter for group in groups for letter in group]
    have = [letter for letter in "ned" if letter in letters]
    split = heads.permute([have.index(letter) for letter in letters])
    for axis, group in enumerate(groups):
        split = split.flatten(axis, axis + len(group) - 1)
    return split.contiguous()
# --8<-- [end:cells]


def refuse(name, expected, tensor):
    raise ValueError(f"{name}: expected {expected}, got {tuple(tensor.shape)}")


def fitting(state: State, H: int, K: int, prefix="") -> list[str]:
    """The layouts whose weights are all there under the prefix, in shapes that H and K heads can have."""
    found = []
    for name, layout in layouts().items():
        try:
            to_paper(state, layout, H, K, prefix, hint=False)
        except ValueError:
            continue
        found.append(name)
    return found


def first_weight(layout: Layout) -> str:
    return next(iter(layout.matrices))


def layers_of(state: State, layout: Layout, within="") -> list[str]:
    """What the names of each layer's tensors begin with, where they begin with `within`."""
    first = first_weight(layout)
    found = [name.removesuffix(first) for name in state if name.startswith(within) and name.endswith(first)]
    return [layer for layer in found if not layer or layer[-1] in "./"]


def likely(state: State, H: int, K: int) -> str:
    """The end of an error: layouts that some layer of the state dict could have."""
    prefixes = {layer for layout in layouts().values() for layer in layers_of(state, layout)}
    found = sorted({name for prefix in sorted(prefixes)[:4] for name in fitting(state, H, K, prefix)})
    return f"; names and shapes are those of {', '.join(found[:6])}" if found else ""


def to_paper(state: State, layout, num_heads, num_key_value_heads=None, prefix="", hint=True) -> Paper:
    """The paper's matrices of the layer whose tensors' names begin with the prefix.

    Raises ValueError naming the tensor, what was expected and what came, and the layouts that would fit.
    """
    layout, H, K = known(layout), num_heads, num_key_value_heads or num_heads
    if H % K or (K != H and not layout.grouped):
        raise ValueError(f"num_key_value_heads: expected {f'a divisor of {H}' if layout.grouped else H}, got {K}")
    found: dict[str, dict[int, Tensor]] = {}
    try:
        for name, part in layout.tensors.items():
            tensor, bias = state.get(prefix + name), "e" not in part.axes or part.axes == "e"
            if tensor is None and not bias:
                there = [key.removeprefix(prefix) for key in state if key.startswith(prefix)]
                raise ValueError(f"{prefix}{name}: expected, and not among {', '.join(there[:12]) or 'no names'}")
            if tensor is None:
                continue
            if not bias and (left := bias_of(name)) not in layout.tensors and prefix + left in state:
                raise ValueError(f"{prefix}{left}: it is there, and the layout has no axes for it")
            if part.axes == "e":
                found["b_o"] = {0: tensor}
                continue
            slots = slots_of(layout, part.roles, H, K)
            for (role, head), one in zip(slots, cells(prefix + name, tensor, part.axes, len(slots)), strict=True):
                found.setdefault(f"{'b' if bias else 'W'}_{role}", {})[head] = one
        matrices = {name: torch.stack([heads[h] for h in sorted(heads)]) for name, heads in found.items()}
        return completed(matrices, layout, H, K, prefix)
    except ValueError as error:
        others = [name for name in fitting(state, H, K, prefix) if name != layout.name] if hint else []
        if not others:
            raise
        raise ValueError(f"{error}; names and shapes are those of {', '.join(others[:6])}") from None


def completed(found, layout, H, K, prefix) -> Paper:
    """With the biases that were not there, and W_o (H, E, D) turned to (H, D, E)."""
    W_q, W_o = found["W_q"], found["W_o"].mT
    E, D = W_q.shape[1:]
    for name, role, wanted in (("W_k", "key", (K, D)), ("W_v", "value", (K, W_o.shape[1]))):
        if (found[name].shape[0], found[name].shape[2]) != wanted:
            refuse(f"{prefix}{role}", f"{wanted[0]} heads of {wanted[1]}", found[name])
    zero = {
        "b_q": (H, D), "b_k": (K, D), "b_v": (K, W_o.shape[1]), "b_o": (1, W_o.shape[2]),
    }  # fmt: skip
    for name, shape in zero.items():
        if name in found and found[name].shape != shape:
            refuse(f"{prefix}{name}", f"biases {shape}", found[name])
    biases = {name: found.get(name, W_q.new_zeros(shape)) for name, shape in zero.items()}
    biases["b_o"] = biases["b_o"][0]
    return Paper(W_q, found["W_k"], found["W_v"], W_o, **biases, scale=scale_of(layout, E, D), rotary=layout.rotary)


def scale_of(layout: Layout, E: int, D: int) -> float:
    return {"1/sqrt(d)": D**-0.5, "1/sqrt(e)": E**-0.5, "1": 1.0}[layout.scale]


# --8<-- [start:from_paper]
def from_paper(paper: Paper, layout) -> State:
    """The tensors of a layout. Raises ValueError if it has no place."""
    layout = known(layout)
    paper = fitted(paper, layout)
    H, K = len(paper.W_q), len(paper.W_k)
    state = {}
    for name, part in layout.tensors.items():
        if part.axes == "e":
            state[name] = paper.b_o.clone()
            continue
        kind = "W" if "e" in part.axes else "b"
        heads = torch.stack([
            getattr(paper, f"{kind}_{role}")[head]
            for role, head in slots_of(layout, part.roles, H, K)
        ])
        if part.roles == "o":
            heads = heads.mT  # (H, D, E) -> (H, E, D)
        state[name] = tensor_of(heads, part.axes)
    return state
# --8<-- [end:from_paper]


def fitted(paper: Paper, layout: Layout) -> Paper:
    """The same function in the terms of a layout: its scale, its pairs, its heads of keys, its biases."""
    H, K, D, E = len(paper.W_q), len(paper.W_k), paper.W_q.shape[2], paper.W_q.shape[1]
    if paper.rotary != layout.rotary:
        if not (paper.rotary and layout.rotary):
            has, lacks = (paper.rotary, layout.name) if paper.rotary else (layout.rotary, "the source")
            raise ValueError(f"layout: expected rotary positions ({has}) on both sides, {lacks} has none")
        turned = {name: repaired(getattr(paper, name), layout.rotary) for name in ("W_q", "W_k", "b_q", "b_k")}
        paper = replace(paper, rotary=layout.rotary, **turned)
    if (factor := paper.scale / scale_of(layout, E, D)) != 1:
        paper = replace(paper, W_q=paper.W_q * factor, b_q=paper.b_q * factor, scale=scale_of(layout, E, D))
    if K < H and not layout.grouped:
        paper = replace(paper, **{name: getattr(paper, name).repeat_interleave(H // K, 0) for name in ("W_k", "W_v", "b_k", "b_v")})
    places = {role for part in layout.tensors.values() if "e" not in part.axes for role in part.roles}
    has_b_o = any(part.axes == "e" for part in layout.tensors.values())
    if "v" not in places and paper.b_v.any() and has_b_o:  # weights sum to 1: what every value has, every output has
        each = paper.b_v.repeat_interleave(H // len(paper.b_v), 0)
        paper = replace(paper, b_v=torch.zeros_like(paper.b_v), b_o=paper.b_o + torch.einsum("hd,hde->e", each, paper.W_o))
    if "k" not in places and not paper.rotary:  # it adds the same to all scores of a query
        paper = replace(paper, b_k=torch.zeros_like(paper.b_k))
    for name, there in (("b_q", "q" in places), ("b_k", "k" in places), ("b_v", "v" in places), ("b_o", has_b_o)):
        if not there and getattr(paper, name).any():
            most = getattr(paper, name).abs().max()
            raise ValueError(f"{name}: expected zeros, for {layout.name} has no place for it, got up to {most:.2g}")
    return paper


def repaired(heads: Tensor, rotary: str) -> Tensor:
    """The numbers of a head in the order in which those that turn together lie as the target wants them: (..., D)."""
    halves = heads.unflatten(-1, (2, -1) if rotary == "interleaved" else (-1, 2))
    return halves.mT.flatten(-2)


def convert(
    state: State, source, target, num_heads,
    num_key_value_heads=None, prefix="",
) -> State:  # fmt: skip
    """A whole state dict: every layer in the target's names, the rest kept.

    prefix: only layers whose names begin with it. Raises ValueError if
    there is none, or if one has what the target lacks.
    """
    source, target = known(source), known(target)
    if lacking := set(source.beside) - set(target.beside):
        has = f"{source.name} has {', '.join(sorted(lacking))}"
        raise ValueError(f"target: {has}, {target.name} has not")
    layers = layers_of(state, source, prefix)
    if not layers:
        first = first_weight(source)
        some = ", ".join(list(state)[:12])
        hint = likely(state, num_heads, num_key_value_heads or num_heads)
        raise ValueError(f"state: expected {prefix}...{first}, got {some}{hint}")
    converted = {}  # what the first tensor of a layer becomes; the others become nothing more
    for layer in layers:
        paper = to_paper(state, source, num_heads, num_key_value_heads, layer)
        tensors = {layer + name: tensor for name, tensor in from_paper(paper, target).items()}
        for name in tensors:
            if name in state and name.removeprefix(layer) not in source.tensors:
                raise ValueError(f"{name}: {target.name} has this name, and the file has another tensor under it")
        converted |= {layer + name: {} for name in source.tensors} | {layer + first_weight(source): tensors}
    made = {}
    for name, tensor in state.items():
        made |= converted.get(name, {name: tensor})
    return made


if __name__ == "__main__":
    from convert_file import main

    main()
