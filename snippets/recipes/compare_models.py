"""Do two models put out the same, and if not, at which layer do they part?

    check(mine, theirs, x)  # the whole
    check(mine, theirs, x, layers=("layers.?", "encoder.layer.?"))  # and layer by layer

Compares outputs, never the shapes of weights. Needs PyTorch alone.
"""

from fnmatch import fnmatch
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor


class Report(NamedTuple):
    same: bool
    error: float  # the greatest difference of the outputs
    parts_at: str  # the first layer that differs, "" where none does

    def __bool__(self):
        return self.same


def check(model_a, model_b, *inputs, layers=("", ""), tolerance=1e-5) -> Report:
    """Do two models put out the same? Compares outputs, never shapes of weights.

    All tensors of the outputs, in their order; the first alone where the models put out different numbers of them. Each
    may differ by tolerance times its largest entry, or 1.
    layers: a pattern of the names of the modules of each, compared in the order of their calls.
    """
    (one, heard_a), (two, heard_b) = (heard(m, pattern, inputs) for m, pattern in zip((model_a, model_b), layers, strict=True))
    parts_at = ""
    for a, b in zip_longest(heard_a, heard_b):
        if a is None or b is None or not close(a[1], b[1], tolerance):
            parts_at = " and ".join(name for name, _ in filter(None, (a, b)))
            break
    return Report(close(one, two, tolerance) and not parts_at, max(map(difference, *paired(one, two))), parts_at)


def heard(model, pattern, inputs):
    """(output, [(name, output) of the modules that the pattern names, in the order of their calls])."""
    calls, handles = [], []
    for name, module in model.named_modules():
        if pattern and fnmatch(name, pattern):
            handles.append(module.register_forward_hook(lambda m, i, output, name=name: calls.append((name, tensors_of(output)))))
    try:
        with torch.no_grad():
            return tensors_of(model(*inputs)), calls
    finally:
        for handle in handles:
            handle.remove()


def tensors_of(output) -> list[Tensor]:
    """The tensors of an output, however deep in tuples, lists and dicts. Raises ValueError if there is none."""

    def walk(part):
        if isinstance(part, Tensor):
            yield part.double()
        elif isinstance(part, dict | list | tuple):
            for one in part.values() if isinstance(part, dict) else part:
                yield from walk(one)

    found = [tensor for tensor in walk(output) if tensor.numel()]
    if not found:
        raise ValueError(f"output: expected a tensor, or tuples and dicts of tensors, got {type(output).__name__}")
    return found


def paired(a, b) -> tuple[list, list]:
    return (a, b) if len(a) == len(b) else (a[:1], b[:1])


def difference(a, b) -> float:
    """Of two tensors, NaN beside NaN being none."""
    if a.shape != b.shape:
        return float("inf")
    return (a - b).masked_fill((a == b) | (a.isnan() & b.isnan()), 0).abs().nan_to_num(float("inf")).max().item()


def close(a, b, tolerance) -> bool:
    """Whether all tensors of two outputs are the same."""
    pairs = zip(*paired(a, b), strict=True)
    return all(difference(x, y) <= tolerance * max(1.0, y.abs().nan_to_num(0, 0, 0).max().item()) for x, y in pairs)
