"""The whole product of the options of nn.MultiheadAttention: the paper's layout against PyTorch, cell by cell."""

import functools
import random
import warnings

import pytest
import torch
from kernels import fused_calls
from option_grid import BOUNDS, OPTIONS, cells, compare, excluded, fast_path, index, inputs, layer, masks
from paper_layout import paper_layout


@functools.cache
def grid():
    torch.set_num_threads(1)
    return cells()


def out_of_bounds(cell, context):
    """What of the cell is out of bounds: "values" with their error, "gradients" with theirs."""
    found = {}
    names = ("values", "gradients")
    for name, pair, bound in zip(names, compare(cell, context), BOUNDS[cell.dtype], strict=True):
        if pair is not None:
            mine, theirs = pair
            error = (mine - theirs).abs().masked_fill(mine.isnan() & theirs.isnan(), 0).nan_to_num(nan=torch.inf).max()
            if not error <= bound:
                found[name] = error.item()
    return found


@pytest.mark.parametrize("dtype", OPTIONS["dtype"])
@pytest.mark.parametrize("mask", OPTIONS["mask"])
def test_every_cell(mask, dtype):
    here = [c for c in grid() if (c.mask, c.dtype) == (mask, dtype) and not excluded(c)]
    assert len(here) >= 1150
    faults = {c: found for c in here if (found := out_of_bounds(c, paper_layout))}
    assert not faults, f"{len(faults)} of {len(here)}, the first {next(iter(faults.items()))}"


def test_excluded_cells_are_those_in_which_pytorchs_paths_disagree():
    class slow_path:
        def __enter__(self):
            torch.backends.mha.set_fastpath_enabled(False)

        def __exit__(self, *_):
            torch.backends.mha.set_fastpath_enabled(True)

    fast = [c for c in grid() if fast_path(c)]
    assert {c for c in fast if out_of_bounds(c, slow_path)} == {c for c in fast if excluded(c)}


def test_fast_path_is_known():
    drawn = random.Random(3).sample(grid(), 400) + [c for c in grid() if fast_path(c)]
    for cell in drawn:
        mha, given, options = layer(cell), inputs(cell), masks(cell)
        options["need_weights"] = cell.need_weights != "no"
        with (
            torch.set_grad_enabled(cell.mode != "eval no_grad"),
            warnings.catch_warnings(action="ignore"),  # of masks of two types
        ):
            calls = fused_calls(functools.partial(mha, *given, **options))
        assert calls.attention == fast_path(cell), cell


def test_a_cell_is_its_index():
    assert [index(c) for c in grid()] == list(range(len(grid())))
    assert all(c._fields == tuple(OPTIONS) for c in grid()[:1])
