"""The same attention in another shape: four nn.Linear, one rank's heads, every head twice, columns left out, LoRA split and fused.

Letters: H heads of queries, K of keys and values, E embed_dim, D head_dim, r the rank of a LoRA. Needs convert.py and what that
needs beside it.
"""

from dataclasses import replace

import torch
from atlas import slots_of
from convert import cells, known, tensor_of
from paper_heads import Paper
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

KEYS = ("W_k", "W_v", "b_k", "b_v")
QUERIES = ("W_q", "W_o", "b_q")


class FourLinears(nn.Module):
    """nn.MultiheadAttention as four nn.Linear, where tools find them.

    Called like it, batch first; masks: True hides. Returns the output
    and, if asked, A (B, H, L, S).
    """

    def __init__(self, mha: nn.MultiheadAttention):
        super().__init__()
        if mha.bias_k is not None or mha.add_zero_attn:
            raise ValueError("mha: expected no added keys, got some")
        self.num_heads, bias = mha.num_heads, mha.in_proj_bias
        weights = (
            mha.in_proj_weight.chunk(3) if mha._qkv_same_embed_dim
            else (mha.q_proj_weight, mha.k_proj_weight, mha.v_proj_weight)
        )  # fmt: skip
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        for name, weight, b in zip("qkv", weights, biases, strict=True):
            self.add_module(f"{name}_proj", linear(weight, b))
        self.out_proj = linear(mha.out_proj.weight, mha.out_proj.bias)

    def forward(
        self, query, key, value, key_padding_mask=None,
        need_weights=False, attn_mask=None,
    ):  # fmt: skip
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project, x in (
                (self.q_proj, query), (self.k_proj, key),
                (self.v_proj, value))
        )  # fmt: skip
        mask = merged(attn_mask, key_padding_mask)
        z = scaled_dot_product_attention(q, k, v, mask)
        output = self.out_proj(z.transpose(1, 2).flatten(2))
        if not need_weights:
            return output, None
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return output, scores.softmax(-1)


def linear(weight: Tensor, bias) -> nn.Linear:
    """An nn.Linear with copies of these."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, weight.device, weight.dtype)
    made.load_state_dict({"weight": weight.detach()} | ({} if bias is None else {"bias": bias.detach()}))
    return made


def merged(attn_mask, key_padding_mask):
    """What may be seen, (B or 1, H or 1, L or 1, S), or None. Raises TypeError for masks that are no truth values."""
    seen = None
    for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", key_padding_mask)):
        if mask is None:
            continue
        if mask.dtype != torch.bool:
            raise TypeError(f"{name}: expected True where hidden, got {mask.dtype}")
        shown = ~mask if mask.dim() == 2 and name == "attn_mask" else ~mask[:, None, None]
        seen = shown if seen is None else seen & shown
    return seen


def clone_heads(paper: Paper, times=2) -> Paper:
    """Every head of queries several times, its share of the output the less.

    Copies stand beside each other, so that each reads the keys it read.
    """
    more = {name: getattr(paper, name).repeat_interleave(times, 0) for name in QUERIES}
    more["W_o"] = more["W_o"] / times
    return replace(paper, **more)


# --8<-- [start:shard]
def shard(paper: Paper, rank: int, ranks: int) -> Paper:
    """One rank's heads; the ranks' outputs add up to the layer's.

    With more ranks than heads of keys, neighbours share one.
    """
    H, K = len(paper.W_q), len(paper.W_k)
    if H % ranks or (K % ranks and ranks % K):
        wanted = "a divisor of H, and of K or a multiple of it"
        raise ValueError(f"ranks: expected {wanted}, got {ranks}")
    own = slice(rank * H // ranks, (rank + 1) * H // ranks)
    first = rank * K // ranks
    read = slice(first, first + max(1, K // ranks))
    return replace(
        paper,
        **{name: getattr(paper, name)[own] for name in QUERIES},
        **{name: getattr(paper, name)[read] for name in KEYS},
        b_o=paper.b_o if rank == 0 else torch.zeros_like(paper.b_o),
    )
# --8<-- [end:shard]


class NarrowHeads(nn.Module):
    """Heads of different widths: of head i the columns kept[i] are left.

    Scores are scaled as before: what was left out was 0 to them.
    """

    def __init__(self, paper: Paper, kept: dict[int, list[int]]):
        super().__init__()
        self.scale, self.b_o = paper.scale, nn.Parameter(paper.b_o.clone())
        self.heads = nn.ModuleList()
        group = len(paper.W_q) // len(paper.W_k)
        for i, columns in kept.items():
            k = i // group
            head = nn.ModuleList([
                linear(paper.W_q[i][:, columns].T, paper.b_q[i, columns]),
                linear(paper.W_k[k][:, columns].T, paper.b_k[k, columns]),
                linear(paper.W_v[k][:, columns].T, paper.b_v[k, columns]),
                linear(paper.W_o[i][columns].T, None),
            ])
            self.heads.append(head)

    def forward(self, x):  # (B, L, E)
        output = self.b_o
        for query, key, value, out in self.heads:
            scores = query(x) @ key(x).mT * self.scale
            output = output + out(scores.softmax(-1) @ value(x))
        return output


# --8<-- [start:split_lora]
def split_lora(A, B, layout, num_heads, num_key_value_heads=None):
    """A LoRA of one fused tensor as one of each: {"q": (A, B), ...}.

    A (r, E), B (rows, r); alpha and the rank stay.
    """
    order = slots(layout, num_heads, num_key_value_heads)
    rows = {}
    for (role, head), part in zip(
        order, cells("B", B, "(n d) e", len(order)), strict=True
    ):  # fmt: skip
        rows.setdefault(role, {})[head] = part.mT  # (D, r)
    return {
        role: (A, torch.cat([heads[h] for h in sorted(heads)]))
        for role, heads in rows.items()
    }  # fmt: skip
# --8<-- [end:split_lora]


# --8<-- [start:fuse_lora]
def fuse_lora(pairs, layout, num_heads, num_key_value_heads=None):
    """The way back, of {"q": (A, B), ...}: (A, B, factor of alpha).

    The rank is the sum of the ranks, so alpha has to grow with it.
    """
    order = slots(layout, num_heads, num_key_value_heads)
    D = len(pairs["q"][1]) // num_heads
    ranks = [len(A) for A, _ in pairs.values()]
    if len(set(ranks)) > 1:
        raise ValueError(f"pairs: expected one rank, got {ranks}")
    ends = dict(zip(pairs, torch.tensor(ranks).cumsum(0), strict=True))
    rows = []
    for role, head in order:
        A, B = pairs[role]
        row = B.new_zeros(sum(ranks), D)  # of the others it reads none
        own = slice(ends[role] - len(A), ends[role])
        row[own] = B[head * D : head * D + D].mT
        rows.append(row)
    A = torch.cat([A for A, _ in pairs.values()])
    B = tensor_of(torch.stack(rows), "(n d) e")
    return A, B, len(pairs)
# --8<-- [end:fuse_lora]


def slots(layout, H, K):
    """The heads of a layout's fused tensor, in their order."""
    return slots_of(known(layout), "qkv", H, K or H)
