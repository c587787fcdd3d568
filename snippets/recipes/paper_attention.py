"""Multi-head attention the way the paper writes it: one head after another, each with matrices of its own.

`multi_head_attention_forward` stands in for torch.nn.functional's function of that name (PyTorch 2.13): the same
signature, results, gradients and types of errors. paper_layout.py makes a model's own layers run on it, paper_module.py
is a layer whose parameters are the paper's matrices. Needs attention_inputs.py beside it.
Source: "Attention Is All You Need", equation 1 and section 3.2.2.

Letters: B batch, L queries, S keys, H heads, E embed_dim, D = E // H; d_k and d_v widths of one head. Attention weights
and masks have no unit; scores are dot products over sqrt(d_k). A matrix is (in, out): a projection is x @ W.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from attention_inputs import check_heads, check_matrices, prepare, soft_rows
from torch import Tensor


# --8<-- [start:matrices]
class Matrices(NamedTuple):
    """The paper's matrices, head by head; a bias may be None."""

    W_q: Tensor  # (H, E, d_k)
    W_k: Tensor  # (H, kdim, d_k)
    W_v: Tensor  # (H, vdim, d_v)
    W_o: Tensor  # (H, d_v, E): the rows of W^O that meet head i
    b_q: Tensor | None = None  # (H, d_k)
    b_k: Tensor | None = None  # (H, d_k)
    b_v: Tensor | None = None  # (H, d_v)
    b_o: Tensor | None = None  # (E,)
    bias_k: Tensor | None = None  # (H, d_k): one more key
    bias_v: Tensor | None = None  # (H, d_v): one more value
# --8<-- [end:matrices]


def cut(packed: Tensor, H: int) -> Tensor:
    """PyTorch's (H * D, in), a row for each output -> (H, in, D)."""
    return packed.unflatten(0, (H, -1)).mT


def cut_output(weight: Tensor, H: int) -> Tensor:
    """PyTorch's out_proj.weight (E, H * D) -> (H, D, E)."""
    return weight.T.unflatten(0, (H, -1))


def cut_bias(packed: Tensor | None, H: int) -> Tensor | None:
    """PyTorch's (H * D,) or (1, 1, H * D) -> (H, D)."""
    return None if packed is None else packed.reshape(H, -1)


# --8<-- [start:from_packed]
def from_packed(H, W_q, W_k, W_v, in_bias, bias_k, bias_v, W_o, b_o):
    """PyTorch's tensors as Matrices.

    W_q, W_k, W_v (E, in): the three row blocks of in_proj_weight, or
    three separate matrices; in_bias (3E,); bias_k, bias_v (1, 1, E).
    """
    parts = (None,) * 3 if in_bias is None else in_bias.chunk(3)
    return Matrices(
        *(cut(W, H) for W in (W_q, W_k, W_v)),  # each (H, in, D)
        cut_output(W_o, H),  # (H, D, E)
        *(cut_bias(b, H) for b in parts),  # each (H, D)
        b_o,  # (E,)
        *(cut_bias(b, H) for b in (bias_k, bias_v)),  # each (H, D)
    )
# --8<-- [end:from_packed]


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, keep: Tensor | None, static_k: Tensor | None,
    static_v: Tensor | None, m: Matrices, add_zero_attn: bool, zero_where_nothing: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_H) W^O of section 3.2.2, each head by equation 1.

    query (B, L, E), key (B, S, kdim), value (B, S, vdim). mask (B, H, L, S) or None is added to the scores; keep of the
    same shape or None multiplies the weights (dropout); both have a column more for each key that is added.
    static_k, static_v (B, H, S, D) or None stand in for projected keys and values. zero_where_nothing: see soft_rows.
    Returns the output (B, L, E) and the attention weights (B, H, L, S).
    """
    outputs, maps = [], []
    # --8<-- [start:loop]
    for i in range(m.W_q.shape[0]):
        q = project(query, m.W_q, m.b_q, i)  # (B, L, d_k)
        k = project(key, m.W_k, m.b_k, i)  # (B, S, d_k)
        v = project(value, m.W_v, m.b_v, i)  # (B, S, d_v)
        k = k if static_k is None else static_k[:, i]  # (B, S, d_k)
        v = v if static_v is None else static_v[:, i]  # (B, S, d_v)
        k, v = add_keys(k, v, m, i, add_zero_attn)  # S: all keys
        scores = q @ k.mT / math.sqrt(q.shape[-1])  # (B, L, S)
        if mask is not None:
            scores = scores + mask[:, i]  # (B, L, S)
        weights = soft_rows(scores, zero_where_nothing)  # (B, L, S)
        if keep is not None:
            weights = weights * keep[:, i]  # (B, L, S)
        outputs.append(weights @ v)  # (B, L, d_v)
        maps.append(weights)
    heads = torch.cat(outputs, -1)  # (B, L, H * d_v)
    output = heads @ m.W_o.flatten(0, 1)  # (B, L, E)
    # --8<-- [end:loop]
    return output if m.b_o is None else output + m.b_o, torch.stack(maps, 1)


# --8<-- [start:one_head]
def project(x: Tensor, W: Tensor, b: Tensor | None, i: int) -> Tensor:
    """x (B, N, in) through head i's matrix (in, D) -> (B, N, D)."""
    return x @ W[i] if b is None else x @ W[i] + b[i]


def add_keys(k: Tensor, v: Tensor, m: Matrices, i: int, zero: bool):
    """Head i's (B, S, D), and behind them bias_k, then zeros."""
    if m.bias_k is not None:
        key, value = m.bias_k[i], m.bias_v[i]  # (d_k,), (d_v,)
        k = torch.cat([k, key.expand(len(k), 1, -1)], 1)
        v = torch.cat([v, value.expand(len(v), 1, -1)], 1)
    if zero:
        k = F.pad(k, (0, 0, 0, 1))
        v = F.pad(v, (0, 0, 0, 1))
    return k, v
# --8<-- [end:one_head]


def run(
    m: Matrices, query: Tensor, key: Tensor, value: Tensor, average_attn_weights: bool, add_zero_attn: bool,
    need_weights: bool, static: tuple[Tensor | None, Tensor | None] = (None, None), **others,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Inputs in PyTorch's layout, (L, B, width) or (L, width), through `attend` and back; others: see `prepare`."""
    added = (m.bias_k is not None) + add_zero_attn
    widths = [W.shape[1] for W in m[:3]], [W.shape[2] for W in m[1:3]]
    inputs = prepare(
        query, key, value, len(m.W_q), widths, m.W_q.dtype, added,
        need_weights, static, **others,
    )  # fmt: skip
    output, weights = attend(
        *inputs, m, add_zero_attn, zero_where_nothing=not need_weights
    )
    batched = query.dim() == 3
    # (L, B, E) in PyTorch's order in memory: a dropout behind draws in it
    output = output.transpose(0, 1).contiguous()
    output = output if batched else output.squeeze(1)  # (L, E)
    if not need_weights:
        return output, None
    if average_attn_weights:
        weights = weights.mean(1)  # (B, L, S)
    return output, weights if batched else weights.squeeze(0)


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None, training: bool = True,
    key_padding_mask: Tensor | None = None, need_weights: bool = True, attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None, static_k: Tensor | None = None, static_v: Tensor | None = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """torch.nn.functional.multi_head_attention_forward, head by head.

    query (L, B, E) or (L, E), key (S, B, kdim), value (S, B, vdim); in_proj_weight (3E, E), or three separate matrices
    (E, E), (E, kdim), (E, vdim); in_proj_bias (3E,); bias_k, bias_v (1, 1, E); static_k, static_v (B * H, S, D);
    out_proj_weight (E, E). Masks: True hides, a float is added; attn_mask (L, S) or (B * H, L, S), key_padding_mask
    (B, S) or (S,). Returns the output, shaped as query, and the weights (B, L, S), per head (B, H, L, S), or None.
    Raises AssertionError, RuntimeError or ValueError where PyTorch does.
    """
    E, H = embed_dim_to_check, num_heads
    check_heads(query, E, H)
    check_matrices(
        E, use_separate_proj_weight, in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, in_proj_bias,
        out_proj_weight, bias_k, bias_v, static_k, static_v,
    )  # fmt: skip
    W = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else in_proj_weight.chunk(3)
    m = from_packed(H, *W, in_proj_bias, bias_k, bias_v, out_proj_weight, out_proj_bias)
    return run(
        m, query, key, value, average_attn_weights, add_zero_attn, need_weights, (static_k, static_v),
        separate=use_separate_proj_weight, training=training, dropout_p=dropout_p, attn_mask=attn_mask,
        key_padding_mask=key_padding_mask, is_causal=is_causal,
    )  # fmt: skip
