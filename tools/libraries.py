"""Compare capture.py with what libraries return when asked for their weights, and write snippets/libraries.json: `make libraries`.

Each model of tools/architectures.py, its parameters redrawn so that no map is flat, runs plain, on the kernel that it takes
itself, and while capture.py records, in training and in evaluation; then it is asked for its weights. Outputs have to be the
same bit for bit (within rounding where PyTorch fuses nn.MultiheadAttention for inference), and every map that the library
gives has to be there under its module's name, and equal within rounding. What differs is told, and nothing is written.
"""

import argparse
import datetime
import importlib.metadata
import json
import sys
import warnings
from fnmatch import fnmatch
from pathlib import Path

import torch
from capture import attention_weights
from torch import Tensor, nn

from builder.scripts import recorded

ROOT = Path(__file__).parents[1]
DATA = ROOT / "snippets" / "libraries.json"
MADE_OF = ["snippets/recipes/capture.py", "tools/libraries.py", "tools/architectures.py", "requirements-libraries.txt"]
ROUNDING = 1e-5  # float32, several layers deep


def redrawn(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def tensors(output) -> list[Tensor]:
    """All that a model returned, whatever it is wrapped in."""
    if isinstance(output, Tensor):
        return [output]
    inside = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else []
    return [tensor for part in inside for tensor in tensors(part)]


def same(first, second) -> bool:
    """Bit for bit; at least one tensor."""
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    return bool(pairs) and all(torch.equal(a, b) for a, b in pairs)


def run(model: nn.Module, call, record: bool) -> tuple:
    """The output, and the maps if they are recorded; dropout draws the same numbers each time."""
    torch.manual_seed(2)
    if not record:
        return call(model), None
    with attention_weights(model) as maps:
        return call(model), maps


def unchanged(model: nn.Module, call) -> tuple:
    """The maps of a run in evaluation, and how far its output is from the plain one's: 0, but for fused inference."""
    if not same(run(model.train(), call, False)[0], run(model, call, True)[0]):
        raise AssertionError("in training, the output is another one while capture.py records")
    plain, _ = run(model.eval(), call, False)
    output, maps = run(model, call, True)
    if same(plain, output):
        return maps, 0.0
    # what nn.MultiheadAttention takes without gradients keeps no weights
    torch.backends.mha.set_fastpath_enabled(False)
    slow, _ = run(model, call, False)
    torch.backends.mha.set_fastpath_enabled(True)
    if not same(slow, output):
        raise AssertionError("the output is another one while capture.py records")
    return maps, max((a - b).abs().max().item() for a, b in zip(tensors(plain), tensors(output), strict=True))


def compared(maps, own, left: list[str]) -> tuple[float, float]:
    """The greatest difference of a map from the library's, and the least of two neighbouring heads of it from each other.

    left: the modules of which the library gives maps.
    """
    errors, between = [], []
    for pattern, theirs in own:
        names = [name for name in left if fnmatch(name, pattern)]
        ours = [weights for name in names for weights in maps.calls(name)]
        if len(ours) != len(theirs):
            raise AssertionError(
                f"{pattern}: expected {len(theirs)} maps, as the library gives, got {len(ours)}: {names}"
            )
        left = [name for name in left if name not in names]
        for mine, other in zip(ours, theirs, strict=True):
            if mine.shape[-2:] != other.shape[-2:] or mine.numel() != other.numel():
                raise AssertionError(f"{names}: expected the shape {tuple(other.shape)}, got {tuple(mine.shape)}")
            other = other.reshape(mine.shape).float()
            errors.append((mine - other).abs().max().item())
            if not errors[-1] <= ROUNDING:
                raise AssertionError(f"a map differs by {errors[-1]:.1e}, rounding is at most {ROUNDING:.0e}")
            between.append((mine - other.roll(1, -3)).abs().max().item())
    if left:
        raise AssertionError(f"the library gives no map of {left}")
    return max(errors), min(between)


def kind_of(answer) -> str:
    """What a library gives when asked on its own kernel."""
    if not isinstance(answer, list | tuple):
        return ""
    return "weights" if any(isinstance(part, Tensor) for part in answer) else repr(tuple(answer))


def verify(one) -> dict:
    """One architecture, as the record keeps it."""
    model = redrawn(one.model()).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing may be left out
        maps, output_error = unchanged(model, one.call)
    with torch.no_grad():
        try:
            answer = kind_of(one.asked(model))
        except Exception as error:
            answer = type(error).__name__
        beyond = [name for name in maps if one.beyond and fnmatch(name, one.beyond)]
        error, between = compared(maps, one.own(model), [name for name in maps if name not in beyond])
    if not output_error <= ROUNDING:
        raise AssertionError(f"the output differs by {output_error:.1e}, rounding is at most {ROUNDING:.0e}")
    if between < 100 * ROUNDING:
        raise AssertionError(f"heads differ by {between:.1e} only: flat maps prove nothing")
    calls = [weights for name in maps for weights in maps.calls(name)]
    return {
        "library": one.library,
        "version": importlib.metadata.version(one.library),
        "architecture": one.name,
        "class": type(model).__name__,
        "kernel": sorted({seen.rpartition(": ")[2] for seen in maps.seen}),
        "modules": len(maps),
        "calls": len(calls),
        "beyond": len(beyond),
        "heads": sorted({weights.shape[-3] for weights in calls}),
        "greatest_error": float(f"{error:.1e}"),
        "output_error": float(f"{output_error:.1e}"),
        "asked_as_it_is": answer,
        "reference": one.reference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument(
        "names", nargs="*", help="only architectures whose name has this in it; then nothing is written"
    )
    names = parser.parse_args().names
    from tools.architectures import ARCHITECTURES  # the libraries: the rest of this file runs without them

    torch.set_num_threads(1)
    found, failed = [], 0
    for one in ARCHITECTURES:
        if names and not any(name in one.name for name in names):
            continue
        title = f"{one.library:16} {one.name:38}"
        try:
            record = verify(one)
        except Exception as error:
            failed += 1
            print(f"{title} FAILED {type(error).__name__}: {error}")
            continue
        found.append(record)
        errors = f"maps {record['greatest_error']:7.1e}  output {record['output_error']:7.1e}"
        print(f"{title} {record['calls']:2} {errors}  {', '.join(record['kernel'])}", flush=True)
    print(f"{len(found)} passed, {failed} failed")
    if failed:
        sys.exit(1)
    if names:
        return
    record = {
        "made": recorded.made("make libraries", MADE_OF),
        "day": datetime.date.today().isoformat(),
        "torch": torch.__version__.split("+")[0],
        "python": sys.version.split()[0],
        "rounding": ROUNDING,
        "architectures": found,
    }
    DATA.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {DATA.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
