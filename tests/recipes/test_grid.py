"""The whole product of the options of nn.MultiheadAttention: the paper's layout against PyTorch, cell by cell."""

import functools
import random
import warnings

import pytest
import torch
from kernels import fused_calls
from option_grid import BOUNDS, OPTIONS, cells, excluded, fast_path, index, inputs, layer, masks, outcome, scaled, seed
from paper_layout import paper_layout


@functools.cache
def grid():
    torch.set_num_threads(1)
    return cells()


@functools.cache
def made(cell):
    return layer(cell)


def drawn(cell):
    """A layer with the cell's options, its parameters drawn anew: making one takes longer than running it."""
    mha = made(cell._replace(mask="none", mode="train", batched=True, self_attention=True, need_weights="mean"))
    with torch.no_grad():
        for parameter in mha.parameters():
            parameter.normal_(std=0.5)
    return mha.train(cell.mode == "train")


def out_of_bounds(cell, context):
    """What of the cell is out of bounds: "values" with their error, "gradients" with theirs.

    As `compare` would find it, which divides by what is at least 1: what is within the bound before is so afterwards.
    """
    seed(index(cell))
    mha, given, options = drawn(cell), inputs(cell), masks(cell)
    with warnings.catch_warnings(action="ignore"):  # of masks of two types
        with context():
            mine = outcome(cell, mha, given, options)
        theirs = outcome(cell, mha, given, options)
    found = {}
    for name, m, t, bound in zip(("values", "gradients"), mine, theirs, BOUNDS[cell.dtype], strict=True):
        assert [x.shape for x in m] == [x.shape for x in t], cell
        if t and not torch.allclose(flat(m), flat(t), rtol=0, atol=bound, equal_nan=True):
            m, t = scaled(m, t), scaled(t, t)
            error = (m - t).abs().masked_fill(m.isnan() & t.isnan(), 0).nan_to_num(nan=torch.inf).max()
            if not error <= bound:
                found[name] = error.item()
    return found


def flat(tensors):
    return torch.cat([x.detach().flatten() for x in tensors])


@pytest.mark.ci  # the build runs the page's sample
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
