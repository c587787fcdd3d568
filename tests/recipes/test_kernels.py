"""kernels.py: counts what a call reaches, and leaves PyTorch as it was."""

import pytest
import torch
from kernels import Fused, fused_calls
from torch import nn

NAMES = ("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
E, H = 24, 4


def x():
    return torch.randn(2, 5, E)


@pytest.mark.parametrize(
    ("make", "inputs", "expected"),
    [
        (nn.MultiheadAttention, 3, Fused(1, 0)),
        (lambda E, H, **o: nn.TransformerEncoderLayer(E, H, 20, **o), 1, Fused(0, 1)),
        # self-attention of the decoder takes the attention's own path; the layer has none, and cross-attention cannot
        (lambda E, H, **o: nn.TransformerDecoderLayer(E, H, 20, **o), 2, Fused(1, 0)),
    ],
)
def test_kernels_are_counted(make, inputs, expected):
    layer = make(E, H, batch_first=True).eval()
    given = [x()] * inputs if inputs == 3 else [x() for _ in range(inputs)]
    with torch.no_grad():
        assert fused_calls(lambda: layer(*given)) == expected
        assert fused_calls(lambda: [layer(*given) for _ in range(3)]) == Fused(*(3 * n for n in expected))
    assert fused_calls(lambda: layer(*given)) == Fused(0, 0)


def test_torch_is_left_as_it_was_also_after_an_exception():
    before = [getattr(torch, name) for name in NAMES]
    with pytest.raises(ZeroDivisionError):
        fused_calls(lambda: 1 / 0)
    assert [getattr(torch, name) for name in NAMES] == before
