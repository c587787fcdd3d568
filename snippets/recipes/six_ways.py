"""Self-attention in six ways with the parameters of one nn.MultiheadAttention: all compute the same output.

Each function takes (mha, x), a layer made with batch_first=True, bias=True and dropout 0 and its input (B, L, E), and
returns the output (B, L, E). fast_path needs an even H and a layer in evaluation; the others work anywhere.
Letters: B samples, L tokens, E embed_dim, H heads, D = E // H. Needs paper_layout.py and what that needs. PyTorch 2.13.
"""

import math

import torch
import torch.nn.functional as F
from paper_layout import paper_layout
from torch import Tensor


# --8<-- [start:split]
def split(x: Tensor, H: int) -> Tensor:
    """(B, L, E) -> (B, H, L, D)"""
    return x.unflatten(-1, (H, -1)).transpose(1, 2)


def finish(mha, heads: Tensor) -> Tensor:
    """(B, H, L, D) -> (B, L, E), through W^O."""
    return mha.out_proj(heads.transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 1: heads (B, H, L, D) and weights (B, H, L, L)."""
    weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
    return weights @ v, weights
# --8<-- [end:split]


# --8<-- [start:paper]
def loop(mha, x):
    """Head by head, each with its own matrices."""
    with paper_layout():
        return mha(x, x, x, need_weights=False)[0]


def per_matrix(mha, x):
    """Three products, one each for W^Q, W^K, W^V; heads at once."""
    matrices = mha.in_proj_weight.chunk(3)  # each (E, E)
    biases = mha.in_proj_bias.chunk(3)  # each (E,)
    qkv = [F.linear(x, *p) for p in zip(matrices, biases, strict=True)]
    q, k, v = (split(y, mha.num_heads) for y in qkv)
    return finish(mha, attend(q, k, v)[0])
# --8<-- [end:paper]


# --8<-- [start:packed]
def qkv_of(mha, x):
    """One product with in_proj_weight, cut into q, k, v."""
    qkv = F.linear(x, mha.in_proj_weight, mha.in_proj_bias)
    return [split(y, mha.num_heads) for y in qkv.chunk(3, -1)]


def packed(mha, x):
    """One product; the softmax written out."""
    return finish(mha, attend(*qkv_of(mha, x))[0])


def sdpa(mha, x):
    """One product; PyTorch's fused attention."""
    heads = F.scaled_dot_product_attention(*qkv_of(mha, x))
    return finish(mha, heads)
# --8<-- [end:packed]


# --8<-- [start:torch]
def with_weights(mha, x):
    """PyTorch's slow path, which returns every head's weights."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return mha(x, x, x, average_attn_weights=False)[0]
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def fast_path(mha, x):
    """PyTorch's fused kernel for the whole layer, without grad."""
    with torch.no_grad():
        return mha(x, x, x, need_weights=False)[0]


WAYS = [loop, per_matrix, packed, with_weights, sdpa, fast_path]
# --8<-- [end:torch]
