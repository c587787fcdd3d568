"""What recording every head's weights costs beside a model's own attention: the part "recording" of `make bench`.

A model of six layers that call F.scaled_dot_product_attention (E 512, H 8, B 8, L 128, an MLP in each), one thread, CPU seconds
of a forward pass: as it is, with its maps recorded, and with the weights written out (eager), each in turn in one run. The
memory is the highest that PyTorch's allocator stood at above what the pass began with, no gradients.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from capture import attention_weights
from torch import Tensor, nn

from tests.support.memory import peak

LAYERS, B, L, E, H = 6, 8, 128, 512, 8
ROUNDS = 15


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(E, 3 * E), nn.Linear(E, E)
        self.before, self.between = nn.LayerNorm(E), nn.LayerNorm(E)
        self.mlp = nn.Sequential(nn.Linear(E, 4 * E), nn.GELU(), nn.Linear(4 * E, E))
        self.eager = False

    def forward(self, x: Tensor) -> Tensor:
        # each (B, H, L, D)
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
        if self.eager:
            heads = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
        else:
            heads = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(heads.transpose(1, 2).flatten(2))
        return x + self.mlp(self.between(x))


def ways() -> dict[str, Callable[[], None]]:
    """Name -> a forward pass of one and the same model."""
    model, x = nn.Sequential(*(Layer() for _ in range(LAYERS))).eval(), torch.randn(B, L, E)

    def run(eager: bool, record: bool) -> None:
        for layer in model:
            layer.eager = eager
        with attention_weights(model) if record else nullcontext():
            model(x)

    return {
        "as it is": lambda: run(eager=False, record=False),
        "recorded": lambda: run(eager=False, record=True),
        "eager": lambda: run(eager=True, record=False),
    }


def seconds(forward: Callable[[], None]) -> float:
    began = time.process_time()
    forward()
    return time.process_time() - began


def rows() -> list[tuple]:
    """Name, milliseconds with and without gradients, what they are to eager's in the same round, MB at the highest."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    every, table = ways(), []
    times = {}
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            for forward in every.values():
                forward()
            rounds = [{name: seconds(forward) for name, forward in every.items()} for _ in range(ROUNDS)]
        for name in every:
            middle = statistics.median(1000 * taken[name] for taken in rounds)
            times[name, grad] = middle, statistics.median(taken[name] / taken["eager"] for taken in rounds)
    for name, forward in every.items():
        cells = [
            f"{number:.{digits}f}"
            for grad in (False, True)
            for number, digits in zip(times[name, grad], (0, 2), strict=True)
        ]
        with torch.no_grad():
            table.append((name, *cells, f"{peak(forward) / 1e6:.1f}"))
    torch.set_num_threads(threads)
    return table


HEADS = ("attention of six layers", "ms", "to eager", "ms, gradients", "to eager", "memory, MB")
MAPS = LAYERS * B * H * L * L * 4 / 1e6
