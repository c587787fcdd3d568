"""The six ways give one output, each by the road that it is named for: what is timed is what is said."""

from unittest import mock

import paper_layout
import pytest
import torch
import torch.nn.functional as F
from six_ways import WAYS, fast_path, loop, packed, per_matrix, sdpa, with_weights
from torch import nn

B, L, E, H = 2, 5, 24, 4


def layer(H=H):
    """A layer in evaluation, parameters redrawn, and its input (B, L, E)."""
    torch.manual_seed(0)
    mha = nn.MultiheadAttention(E, H, batch_first=True, dtype=torch.float64).eval()
    for parameter in mha.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mha, torch.randn(B, L, E, dtype=torch.float64)


def calls(way, module, name, H=H):
    """The calls of one function while a way runs, as mock has them."""
    mha, x = layer(H)
    with mock.patch.object(module, name, wraps=getattr(module, name)) as function, torch.no_grad():
        way(mha, x)
    return function.call_args_list


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_gives_the_same_output(way):
    mha, x = layer()
    torch.testing.assert_close(way(mha, x), mha(x, x, x)[0])


@pytest.mark.parametrize("way", [way for way in WAYS if way is not fast_path], ids=lambda way: way.__name__)
def test_every_way_but_the_fast_path_gives_the_same_gradients(way):
    mha, x = layer()
    x.requires_grad_()
    wanted, found = (
        torch.autograd.grad(y.square().sum(), [x, *mha.parameters()]) for y in (mha(x, x, x)[0], way(mha, x))
    )
    torch.testing.assert_close(found, wanted)


def test_the_fast_path_is_one_fused_call_that_keeps_no_weights():
    assert [way for way in WAYS if calls(way, torch, "_native_multi_head_attention")] == [fast_path]
    (call,) = calls(fast_path, torch, "_native_multi_head_attention")
    need_weights = call.args[10]
    assert need_weights is False


def test_the_fast_path_needs_an_even_number_of_heads():
    assert not calls(fast_path, torch, "_native_multi_head_attention", H=3)


def test_the_loop_is_the_paper_s_computation_and_keeps_no_weights():
    name = "multi_head_attention_forward"
    assert [way for way in WAYS if calls(way, paper_layout, name)] == [loop]
    (call,) = calls(loop, paper_layout, name)
    assert call.kwargs["need_weights"] is False


def test_one_way_returns_weights_of_every_head():
    (call,) = calls(with_weights, F, "multi_head_attention_forward")
    assert call.kwargs["need_weights"] is True
    assert call.kwargs["average_attn_weights"] is False


def test_one_way_calls_fused_attention():
    assert [way for way in WAYS if calls(way, F, "scaled_dot_product_attention")] == [sdpa]


def test_the_matrices_are_one_product_or_three():
    assert len(calls(per_matrix, F, "linear")) == 3 + 1  # and out_proj
    assert len(calls(packed, F, "linear")) == len(calls(sdpa, F, "linear")) == 1 + 1


def test_the_slow_path_leaves_the_fast_path_on():
    mha, x = layer()
    with pytest.raises(AssertionError):
        with_weights(mha, x[..., :-1])
    assert torch.backends.mha.get_fastpath_enabled()
    with_weights(mha, x)
    assert torch.backends.mha.get_fastpath_enabled()
