"""Compare each layout's declaration with the library's own module, and write snippets/atlas/compared.json: `make libraries`.

The module's parameters are redrawn, its state dict is read by the declaration, and the paper's formula has to give its output
and, where the library gives them, its weights; the reading that these names and shapes are most often taken for has not.
A layout whose declaration changes afterwards counts as not compared: its row keeps a digest of it.
"""

import argparse
import datetime
import importlib.metadata
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from atlas import declared, layouts, slots_of
from convert import to_paper

from tools import compared

ROOT = Path(__file__).parents[1]
DATA = ROOT / "snippets" / "atlas" / "compared.json"


def run(name: str) -> dict:
    """One layout's record. Raises AssertionError if the library's layer is another than the declaration says."""
    layout = layouts()[name]
    package, make = compared.CASES[name]
    with torch.no_grad():
        case = make()
        state = {key: compared.as_tensor(one) for key, one in case.state.items()}
        sizes = (case.heads, case.keys or case.heads)
        output, weights = compared.formula(to_paper(state, layout, *sizes), case)
        weights = weights[:, [head for _, head in slots_of(layout, "o", *sizes)]]  # in the library's order of heads
        given = compared.as_tensor(case.output)
        size = given.abs().max().item()
        error = (output - given).abs().max().item() / size
        between = None if case.weights is None else (weights - compared.as_tensor(case.weights)).abs().max().item()
        wrong = None
        if layout.misread:
            misread, _ = compared.formula(to_paper(state, replace(layout, **layout.misread), *sizes), case)
            wrong = (misread - given).abs().max().item() / size
    if not error <= case.bound or not (between or 0) <= max(case.bound, 1e-6):
        raise AssertionError(
            f"output off by {error:.1e} of {size:.0f}, weights by {between}; the bound is {case.bound:.0e}"
        )
    if wrong is not None and wrong < 0.01:
        raise AssertionError(f"the wrong reading differs by {wrong:.1e} only")
    return {
        "package": package, "version": importlib.metadata.version(package).partition("+")[0],
        "output": float(f"{error:.0e}"), "weights": None if between is None else float(f"{between:.0e}"),
        "wrong": None if wrong is None else float(f"{wrong:.2f}"), "bound": case.bound, "how": case.note,
        "of": declared(layout),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("names", nargs="*", help="only layouts whose name has this in it; then nothing is written")
    names = parser.parse_args().names
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found, failed = {}, 0
    for name in compared.every():
        if names and not any(one in name for one in names):
            continue
        try:
            torch.set_default_dtype(torch.float64)
            found[name] = run(name)
            weights = found[name]["weights"]
            print(
                f"{name:42} output {found[name]['output']:7.0e}  weights {'' if weights is None else f'{weights:7.0e}'}",
                flush=True,
            )
        except Exception as error:
            failed += 1
            print(f"{name:42} FAILED {type(error).__name__}: {error}", flush=True)
        finally:
            torch.set_default_dtype(torch.float32)
    print(
        f"{len(found)} compared, {failed} failed; not compared: {', '.join(layouts().keys() - compared.CASES.keys())}"
    )
    if failed:
        sys.exit(1)
    if not names:
        record = {
            "day": datetime.date.today().isoformat(),
            "torch": torch.__version__.partition("+")[0],
            "layouts": found,
        }
        DATA.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {DATA.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
