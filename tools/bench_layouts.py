"""Measure six ways to compute one attention layer and write the times to snippets/layouts/cost.json: `make bench-layouts`.

Every way's output, and its gradients where it has them, are compared with PyTorch's before anything is timed. Then all
ways take turns, so that what disturbs the machine disturbs them alike: one warm-up each, then a round at a time. The clock
is processor time on one thread, which does not run while other programs have the processor. Kept are the quartiles of the
time, and those of its ratio to PyTorch's slow path in the same round.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
from six_ways import WAYS, fast_path, with_weights
from torch import nn

DATA = Path(__file__).parents[1] / "snippets" / "layouts" / "cost.json"
REFERENCE = {"B": 8, "L": 128, "E": 512, "H": 8}
HEADS = [1, 2, 4, 8, 16, 32, 64]
LENGTHS = [16, 32, 64, 128, 256, 512, 1024]
OVER_LENGTHS = {"B": 2, "E": 512, "H": 8}


def processor():
    """The processor's name as Linux tells it, else as Python knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def layer(B, L, E, H):
    """A layer in evaluation with parameters redrawn, and its input (B, L, E)."""
    torch.manual_seed(0)
    mha = nn.MultiheadAttention(E, H, batch_first=True).eval()
    for parameter in mha.parameters():
        nn.init.normal_(parameter, std=E**-0.5)
    return mha, torch.randn(B, L, E)


def forward(way, mha, x):
    with torch.no_grad():
        return way(mha, x)


def both(way, mha, x):
    """Forward and backward: gradients of every parameter and of x."""
    y = x.clone().requires_grad_()
    return torch.autograd.grad(way(mha, y).square().sum(), [y, *mha.parameters()])


def same(mha, x):
    """Raise AssertionError unless all ways agree with PyTorch's slow path within float32's rounding."""
    output, gradients = forward(with_weights, mha, x), both(with_weights, mha, x)
    for way in WAYS:
        pairs = [(forward(way, mha, x), output)]
        if way is not fast_path:
            pairs += zip(both(way, mha, x), gradients, strict=True)
        for mine, theirs in pairs:
            size = max(1.0, theirs.abs().max().item())
            torch.testing.assert_close(
                mine, theirs, rtol=0, atol=1e-4 * size, msg=lambda m, w=way: f"{w.__name__}: {m}"
            )


def quartiles(values):
    return [float(f"{q:.4g}") for q in statistics.quantiles(values, n=4, method="inclusive")]


def measure(sizes, what, rounds):
    """{way: {"ms": quartiles, "ratio": quartiles of time / with_weights' time of the same round}} for one size."""
    mha, x = layer(**sizes)
    same(mha, x)
    ways = [way for way in WAYS if what is forward or way is not fast_path]
    started = time.process_time()
    what(with_weights, mha, x)
    calls = max(1, round(0.01 / (time.process_time() - started)))  # a turn of a hundredth of a second or longer
    times = {way.__name__: [] for way in ways}
    for turn in range(rounds + 1):
        for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:  # nobody is always behind the same neighbour
            started = time.process_time()
            for _ in range(calls):
                what(way, mha, x)
            if turn:  # the first is the warm-up
                times[way.__name__].append((time.process_time() - started) / calls * 1e3)
    slow = times["with_weights"]
    return {
        name: {"ms": quartiles(own), "ratio": quartiles([a / b for a, b in zip(own, slow, strict=True)])}
        for name, own in times.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each way that are counted")
    parser.add_argument("--out", type=Path, default=DATA)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "system": platform.system(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "date": datetime.date.today().isoformat(),
            "rounds": arguments.rounds,
        },
        "reference": {"sizes": REFERENCE},
        "heads": {"sizes": {k: v for k, v in REFERENCE.items() if k != "H"}, "H": HEADS},
        "lengths": {"sizes": OVER_LENGTHS, "L": LENGTHS},
    }
    for name, what in (("forward", forward), ("forward_backward", both)):
        found["reference"][name] = measure(REFERENCE, what, arguments.rounds)
        for part, letter in (("heads", "H"), ("lengths", "L")):
            found[part][name] = []
            for size in found[part][letter]:
                found[part][name].append(measure({**found[part]["sizes"], letter: size}, what, arguments.rounds))
                medians = {way: own["ms"][1] for way, own in found[part][name][-1].items()}
                print(name, f"{letter}={size}", medians, flush=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(arguments.out)


if __name__ == "__main__":
    main()
