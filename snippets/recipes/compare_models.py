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

    layers: a pattern of the names of the modules of each, compared in the order of their calls.
    """
    (one, heard_a), (two, heard_b) = (heard(m, pattern, inputs) for m, pattern in zip((model_a, model_b), layers, strict=True))
    parts_at = ""
    for a, b in zip_longest(heard_a, heard_b):
        if a is None or b is None or not close(a[1], b[1], tolerance):
            parts_at = " and ".join(name for name, _ in filter(None, (a, b)))
            break
    return Report(close(one, two, tolerance) and not parts_at, difference(one, two), parts_at)


def heard(model, pattern, inputs):
    """(output, [(name, output) of the modules that the pattern names, in the order of their calls])."""
    calls, handles = [], []
    for name, module in model.named_modules():
        if pattern and fnmatch(name, pattern):
            handles.append(module.register_forward_hook(lambda m, i, output, name=name: calls.append((name, first_of(output)))))
    try:
        with torch.no_grad():
            return first_of(model(*inputs)), calls
    finally:
        for handle in handles:
            handle.remove()


def first_of(output) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output


def difference(a, b) -> float:
    return (a - b).abs().max().item() if a.shape == b.shape else float("inf")


def close(a, b, tolerance) -> bool:
    return difference(a, b) <= tolerance * max(1.0, b.abs().max().item())
