"""Which of PyTorch's two fused kernels for inference a call reaches: whether a layer takes the fast path.

    fused_calls(lambda: layer(x))    # Fused(attention=1, encoder_layer=0)

Needs PyTorch 2.13 alone. Counts calls from Python: what `torch.compile` has compiled is not seen.
"""

from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import torch


class Fused(NamedTuple):
    """Calls of the kernels behind the fast path."""

    attention: int  # of nn.MultiheadAttention
    encoder_layer: int  # of nn.TransformerEncoderLayer


def fused_calls(call: Callable[[], object]) -> Fused:
    """Make the call, and count. Raises what the call raises."""
    attention = torch._native_multi_head_attention
    encoder_layer = torch._transformer_encoder_layer_fwd
    with (
        mock.patch.object(torch, attention.__name__, wraps=attention) as one,
        mock.patch.object(torch, encoder_layer.__name__, wraps=encoder_layer) as two,
    ):
        call()
    return Fused(one.call_count, two.call_count)
