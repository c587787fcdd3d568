"""A library's own attention against its layout's declaration: one function a layout, in one file a library or several.

    @compared("GPT-2", package="transformers")
    def gpt_2():
        module = redrawn(GPT2Attention(config, layer_idx=0))
        output, weights = module(x, attention_mask=causal)
        return Case(module.state_dict(), output, weights, add=causal)

The declaration reads the state dict into the paper's matrices, and the formula below computes output and weights, head by
head, in float64. What the layer has beside them (norms, positions, a cap) the case says. Files are found by looking.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from paper_heads import Paper, turn
from torch import Tensor

B, L, S, E, H, D = 2, 5, 7, 24, 4, 6


@dataclass
class Case:
    """What a library's layer was given and what it gave, as float64."""

    state: dict  # names as the layout has them
    output: Tensor | None  # (B, L, E)
    weights: Tensor | None = None  # (B, H, L, S), if the library gives them
    x: Tensor | None = None  # (B, L, E) if it is another than `data()`
    y: Tensor | None = None  # keys and values, if they are not x
    values: Tensor | None = None  # if they are not y
    heads: int = H
    keys: int | None = None  # heads of keys, if fewer
    add: Tensor | None = None  # to the scores
    scale: float | None = None  # of the layer's own
    turns: int | None = None  # how many numbers of a head are rotated, if not all
    before: Callable | None = None  # (vectors, "q" or "k", head) -> vectors: a norm
    after: Callable | None = None  # (z of a head, head) -> z
    cap: float | None = None
    sinks: Tensor | None = None  # (H,)
    bound: float = 1e-12  # of the output, relative to its greatest number
    note: str = ""  # what was set or left out


CASES: dict[str, tuple[str, Callable[[], Case]]] = {}


def compared(name: str, package: str):
    """Of the layout of that name, with the module of that package."""

    def registered(function):
        if name in CASES:
            raise ValueError(f"{name}: is compared twice")
        CASES[name] = (package, function)
        return function

    return registered


def every() -> dict[str, tuple[str, Callable[[], Case]]]:
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        importlib.import_module(f"tools.compared.{path.stem}")
    return CASES


def as_tensor(values) -> Tensor:
    """Whatever a library calls a tensor, in float64."""
    if isinstance(values, Tensor):
        return values.detach().double()
    return torch.from_numpy(np.array(values, dtype=np.float64))


def data(*shape: int, seed=1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape or (B, L, E)))


def redrawn(module, std=0.5):
    """Every parameter, biases too, in evaluation and float64."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std
        parameter.data = drawn.to(parameter.dtype)
    return module.double().eval()


def causal(length=L) -> Tensor:
    """(1, 1, L, L): what is added to the scores."""
    return torch.full((length, length), -1e300, dtype=torch.float64).triu(1)[None, None]


def formula(paper: Paper, case: Case) -> tuple[Tensor, Tensor]:
    """Output (B, L, E) and weights (B, H, L, S) as the paper writes them, with what the case says that the layer has beside."""
    x = data() if case.x is None else as_tensor(case.x)
    y = x if case.y is None else as_tensor(case.y)
    values = y if case.values is None else as_tensor(case.values)
    output, maps = paper.b_o, []
    for h in range(len(paper.W_q)):
        k = h // (len(paper.W_q) // len(paper.W_k))
        query, key = x @ paper.W_q[h] + paper.b_q[h], y @ paper.W_k[k] + paper.b_k[k]
        if case.before:
            query, key = case.before(query, "q", h), case.before(key, "k", k)
        if paper.rotary:
            cut = case.turns or query.shape[-1]
            query, key = (torch.cat([turn(one[..., :cut], paper.rotary), one[..., cut:]], -1) for one in (query, key))
        scores = query @ key.mT * (case.scale or paper.scale)
        if case.cap:
            scores = case.cap * (scores / case.cap).tanh()
        if case.add is not None:
            add = as_tensor(case.add)
            scores = scores + add.expand(len(x), len(paper.W_q), *add.shape[2:])[:, h]
        if case.sinks is not None:
            sink = as_tensor(case.sinks)[h].expand(*scores.shape[:-1], 1)
            weights = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        z = weights @ (values @ paper.W_v[k] + paper.b_v[k])
        output = output + (case.after(z, h) if case.after else z) @ paper.W_o[h]
        maps.append(weights)
    return output, torch.stack(maps, 1)
