"""A layer whose parameters are the paper's matrices, and the way to and from nn.MultiheadAttention.

Needs paper_attention.py and attention_inputs.py beside it. Written for PyTorch 2.13.
Source: "Attention Is All You Need", section 3.2.2; torch/nn/modules/activation.py for the initialisation.
"""

import math

import torch
from attention_inputs import require
from paper_attention import Matrices, from_packed, run
from torch import Tensor, nn


class PaperMultiheadAttention(nn.Module):
    """nn.MultiheadAttention with the paper's matrices for parameters, and a free choice of d_k and d_v.

    W_q (H, E, d_k), W_k (H, kdim, d_k), W_v (H, vdim, d_v), W_o (H, d_v, E); b_q, b_k (H, d_k), b_v (H, d_v), b_o (E,);
    bias_k (H, d_k), bias_v (H, d_v). Arguments as for nn.MultiheadAttention; d_k and d_v default to embed_dim //
    num_heads. init="xavier": each of W^Q, W^K, W^V, W^O as one matrix (in, H * d) by Xavier; init="torch": the
    distributions of nn.MultiheadAttention, where W^Q, W^K, W^V are Xavier of one (3E, E) matrix unless kdim or vdim
    differ, and W^O is uniform within 1 / sqrt(fan_in).

    It may stand in the place of self_attn in PyTorch's layers, which then take no fast path; of an nn.TransformerEncoder that
    is built already, set use_nested_tensor = False. It is no nn.MultiheadAttention: code that asks isinstance does not know it.

    Raises ValueError for sizes that are not positive, unknown init; AssertionError if H must divide E and does not.
    """

    # where PyTorch's layers look whether their fast path may be taken
    in_proj_bias, _qkv_same_embed_dim = None, False

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
        add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
        device=None, dtype=None, *, d_k: int | None = None, d_v: int | None = None, init: str = "xavier",
    ) -> None:  # fmt: skip
        super().__init__()
        given = {"embed_dim": embed_dim, "num_heads": num_heads, "kdim": kdim, "vdim": vdim, "d_k": d_k, "d_v": d_v}
        for name, size in given.items():
            require(size is None or size > 0, ValueError, name, "a positive number", size)
        free = d_k is not None and d_v is not None
        wanted = f"a divisor of embed_dim {embed_dim}, d_k and d_v not both being given"
        require(free or embed_dim % num_heads == 0, AssertionError, "num_heads", wanted, num_heads)
        require(init in ("xavier", "torch"), ValueError, "init", "'xavier' or 'torch'", repr(init))
        E, H = self.embed_dim, self.num_heads = embed_dim, num_heads
        self.kdim, self.vdim = kdim or E, vdim or E
        self.d_k, self.d_v = d_k or E // H, d_v or E // H
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn
        # --8<-- [start:parameters]
        shapes = {
            "W_q": (H, E, self.d_k),
            "W_k": (H, self.kdim, self.d_k),
            "W_v": (H, self.vdim, self.d_v),
            "W_o": (H, self.d_v, E),
            "b_q": (H, self.d_k) if bias else None,
            "b_k": (H, self.d_k) if bias else None,
            "b_v": (H, self.d_v) if bias else None,
            "b_o": (E,) if bias else None,
            "bias_k": (H, self.d_k) if add_bias_kv else None,
            "bias_v": (H, self.d_v) if add_bias_kv else None,
        }
        for name, shape in shapes.items():
            parameter = None
            if shape is not None:
                values = torch.empty(shape, device=device, dtype=dtype)
                parameter = nn.Parameter(values)
            self.register_parameter(name, parameter)
        # --8<-- [end:parameters]
        self.reset_parameters(init)

    # --8<-- [start:initialise]
    @torch.no_grad()
    def reset_parameters(self, init: str = "xavier") -> None:
        """Draw anew: every matrix from U(-bound, bound)."""
        projections = (self.W_q, self.W_k, self.W_v)  # (H, in, d)
        widths = [W.shape[0] * W.shape[2] for W in projections]
        one_width = self.kdim == self.vdim == self.embed_dim
        packed = init == "torch" and one_width
        for W, width in zip(projections, widths, strict=True):
            outputs = sum(widths) if packed else width
            bound = math.sqrt(6 / (W.shape[1] + outputs))
            W.uniform_(-bound, bound)
        inputs = widths[2]  # H * d_v
        bound = math.sqrt(6 / (inputs + self.embed_dim))
        if init == "torch":
            bound = 1 / math.sqrt(inputs)
        self.W_o.uniform_(-bound, bound)
        # --8<-- [end:initialise]
        for b in (self.b_q, self.b_k, self.b_v, self.b_o):
            if b is not None:
                b.zero_()
        for b in (self.bias_k, self.bias_v):
            if b is not None:
                b.normal_(std=1 / math.sqrt(b.numel()))  # Xavier of (1, 1, H * d)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """As nn.MultiheadAttention: query (L, E), (L, B, E), or (B, L, E) with batch_first; returns output and weights.

        Raises what `multi_head_attention_forward` raises.
        """
        swap = self.batch_first and query.dim() == 3
        if swap:
            query, key, value = (x.transpose(0, 1) if x.dim() == 3 else x for x in (query, key, value))
        output, weights = run(
            self.matrices(), query, key, value, average_attn_weights, self.add_zero_attn, need_weights,
            separate=not self.kdim == self.vdim == self.embed_dim, training=self.training, dropout_p=self.dropout,
            attn_mask=attn_mask, key_padding_mask=key_padding_mask, is_causal=is_causal,
        )  # fmt: skip
        return output.transpose(0, 1) if swap else output, weights

    def matrices(self) -> Matrices:
        return Matrices(**{name: getattr(self, name) for name in Matrices._fields})

    # --8<-- [start:from_torch]
    @classmethod
    @torch.no_grad()
    def from_torch(cls, mha: nn.MultiheadAttention):
        """The same function: every entry is one of mha's."""
        W_o = mha.out_proj.weight
        options = _options(mha, mha.in_proj_bias)
        made = cls(**options, device=W_o.device, dtype=W_o.dtype)
        W = (mha.q_proj_weight, mha.k_proj_weight, mha.v_proj_weight)
        if mha.in_proj_weight is not None:
            W = mha.in_proj_weight.chunk(3)  # each (E, E)
        biases = (mha.in_proj_bias, mha.bias_k, mha.bias_v)
        out = (W_o, mha.out_proj.bias)
        m = from_packed(mha.num_heads, *W, *biases, *out)
        for name, values in m._asdict().items():
            if values is not None:
                getattr(made, name).copy_(values)
        return made.train(mha.training)
    # --8<-- [end:from_torch]

    @torch.no_grad()
    def to_torch(self) -> nn.MultiheadAttention:
        """The way back, exact. Raises ValueError unless d_k and d_v are embed_dim / num_heads."""
        for name in ("d_k", "d_v"):
            d, width = getattr(self, name), self.embed_dim / self.num_heads
            require(d == width, ValueError, name, f"embed_dim / num_heads = {width:g}, since PyTorch has no other", d)
        # --8<-- [start:to_torch]
        options = _options(self, self.b_q)
        W = (self.W_q, self.W_k, self.W_v)
        kind = {"device": self.W_q.device, "dtype": self.W_q.dtype}
        made = nn.MultiheadAttention(**options, **kind)
        rows = [one.mT.flatten(0, 1) for one in W]  # each (E, in)
        state = {"out_proj.weight": self.W_o.flatten(0, 1).T}  # (E, E)
        if made.in_proj_weight is None:
            names = (f"{letter}_proj_weight" for letter in "qkv")
            state |= zip(names, rows, strict=True)
        else:
            state["in_proj_weight"] = torch.cat(rows)  # (3E, E)
        if self.b_q is not None:
            biases = [self.b_q, self.b_k, self.b_v]  # each (H, D)
            state["in_proj_bias"] = torch.cat(biases).flatten()  # (3E,)
            state["out_proj.bias"] = self.b_o  # (E,)
        if self.bias_k is not None:
            state["bias_k"] = self.bias_k.reshape(1, 1, -1)  # (1, 1, E)
            state["bias_v"] = self.bias_v.reshape(1, 1, -1)  # (1, 1, E)
        made.load_state_dict(state)
        # --8<-- [end:to_torch]
        return made.train(self.training)


def _options(module: nn.Module, bias: Tensor | None) -> dict:
    """The constructor's arguments that `module` and its twin share."""
    names = ("embed_dim", "num_heads", "dropout", "add_zero_attn", "kdim", "vdim", "batch_first")
    options = {name: getattr(module, name) for name in names}
    return options | {"bias": bias is not None, "add_bias_kv": module.bias_k is not None}
