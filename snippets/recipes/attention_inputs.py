"""What enters attention: masks made one, and inputs checked. paper_attention.py needs it beside it.

Bad input gets an error of the type that torch.nn.functional.multi_head_attention_forward of PyTorch 2.13 raises for it,
with a message that names the argument, what was expected and what came.

Letters: B batch, L queries, S keys, H heads, E embed_dim. Masks have no unit: they are added to scores.
"""

import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NEGATIVE_INFINITY = float("-inf")


# --8<-- [start:masks]
def to_float(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """True becomes -inf, False 0; a float mask stays as it is."""
    if mask.is_floating_point():
        return mask
    zeros = torch.zeros_like(mask, dtype=dtype)
    return zeros.masked_fill(mask, NEGATIVE_INFINITY)


def merge(attn_mask, key_padding_mask, H, dtype) -> Tensor | None:
    """(L, S) or (B * H, L, S), and (B, S): their sum (B, H, L, S)."""
    total = None
    if attn_mask is not None:
        total = to_float(attn_mask, dtype)
        heads = H if total.dim() == 3 else 1
        total = total.reshape(-1, heads, *total.shape[-2:])
    if key_padding_mask is not None:
        columns = to_float(key_padding_mask, dtype)[:, None, None]
        total = columns if total is None else total + columns
    return total
# --8<-- [end:masks]


# --8<-- [start:soft_rows]
def soft_rows(scores: Tensor, zero_where_nothing: bool) -> Tensor:
    """Softmax of scores (B, L, S) over the keys.

    A row that may see no key is NaN, or zeros on request. It is
    taken out before the softmax: after it, gradients are NaN.
    """
    if not zero_where_nothing:
        return scores.softmax(-1)
    nothing = (scores == NEGATIVE_INFINITY).all(-1, keepdim=True)
    weights = scores.masked_fill(nothing, 0).softmax(-1)
    return weights.masked_fill(nothing, 0)
# --8<-- [end:soft_rows]


def require(holds: bool, error: type[Exception], argument: str, expected: object, got: object) -> None:
    """Raise `error` with a message that names the argument, what was expected and what came."""
    if not holds:
        raise error(f"{argument}: expected {expected}, got {got}")


def check_dims(query, key, value, key_padding_mask, attn_mask, num_heads) -> None:
    """Raise AssertionError unless all are batched (3-D, masks 2-D) or all unbatched (2-D, mask 1-D)."""
    dims = query.dim()
    require(dims in (2, 3), AssertionError, "query", "2-D (unbatched) or 3-D (batched)", f"{dims}-D")
    for name, x in {"key": key, "value": value}.items():
        require(x.dim() == dims, AssertionError, name, f"{dims}-D as query", f"{x.dim()}-D")
    if key_padding_mask is not None:
        found = key_padding_mask.dim()
        require(found == dims - 1, AssertionError, "key_padding_mask", f"{dims - 1}-D", f"{found}-D")
    if attn_mask is not None:
        require(attn_mask.dim() in (2, 3), AssertionError, "attn_mask", "2-D or 3-D", f"{attn_mask.dim()}-D")
        if dims == 2 and attn_mask.dim() == 3:
            expected = (num_heads, query.shape[0], key.shape[0])
            require(attn_mask.shape == expected, AssertionError, "attn_mask", expected, tuple(attn_mask.shape))


def check_mask_types(key_padding_mask, attn_mask, is_causal: bool, need_weights: bool) -> None:
    """Raise AssertionError for integer masks, RuntimeError for a causal hint without a mask; warn of mixed types."""
    for name, mask in {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask}.items():
        ignored = name == "attn_mask" and is_causal and key_padding_mask is None and not need_weights
        if mask is not None and not ignored:
            fine = mask.dtype == torch.bool or mask.is_floating_point()
            require(fine, AssertionError, name, "bool or floating", mask.dtype)
    both = key_padding_mask is not None and attn_mask is not None
    if both and key_padding_mask.dtype != attn_mask.dtype:
        got = f"got {key_padding_mask.dtype} and {attn_mask.dtype}, which PyTorch deprecates"
        warnings.warn(f"key_padding_mask and attn_mask: expected one type for both, {got}", stacklevel=4)
    hinted = not (is_causal and attn_mask is None)
    require(hinted, RuntimeError, "is_causal", "attn_mask beside it, since it is a hint", "attn_mask None")


def check_sizes(query, key, value, widths, separate: bool, dtype: torch.dtype) -> None:
    """Raise AssertionError or RuntimeError unless (L, B, width) inputs agree with each other and with the matrices.

    widths are those of query, key and value; `separate` says that key and value may differ in width (kdim, vdim).
    """
    found = query.shape[-1]
    require(found == widths[0], AssertionError, "query", f"width {widths[0]} (embed_dim)", f"width {found}")
    same = key.shape[:2] == value.shape[:2] if separate else key.shape == value.shape
    wanted = f"{tuple(key.shape[:2])} in length and batch as key" if separate else f"{tuple(key.shape)} as key"
    require(same, AssertionError, "value", wanted, tuple(value.shape))
    error = AssertionError if separate else RuntimeError
    for name, x, width in zip(("key", "value"), (key, value), widths[1:], strict=True):
        require(x.shape[-1] == width, error, name, f"width {width}", f"width {x.shape[-1]}")
    require(key.shape[1] == query.shape[1], RuntimeError, "key", f"batch of {query.shape[1]} as query", key.shape[1])
    if not torch.is_autocast_enabled(query.device.type):
        for name, x in {"query": query, "key": key, "value": value}.items():
            require(x.dtype == dtype, RuntimeError, name, f"{dtype} as the matrices", x.dtype)


def check_masks(key_padding_mask, attn_mask, B: int, H: int, L: int, S: int) -> None:
    """Raise RuntimeError or AssertionError unless attn_mask is (L, S) or (B * H, L, S), key_padding_mask (B, S)."""
    if attn_mask is not None:
        expected = (L, S) if attn_mask.dim() == 2 else (B * H, L, S)
        require(attn_mask.shape == expected, RuntimeError, "attn_mask", expected, tuple(attn_mask.shape))
    if key_padding_mask is not None:
        found = tuple(key_padding_mask.shape)
        require(found == (B, S), AssertionError, "key_padding_mask", (B, S), found)


def check_static(static_k, static_v, B: int, H: int, widths: tuple[int, int], S: int) -> int:
    """Raise AssertionError unless static_k and static_v are (B * H, S, D), RuntimeError if their S differ; return S."""
    lengths = []
    for name, x, D in zip(("static_k", "static_v"), (static_k, static_v), widths, strict=True):
        if x is not None:
            fine = x.dim() == 3 and (x.shape[0], x.shape[2]) == (B * H, D)
            require(fine, AssertionError, name, f"({B * H}, S, {D})", tuple(x.shape))
        lengths.append(S if x is None else x.shape[1])
    require(lengths[0] == lengths[1], RuntimeError, "static_v", f"{lengths[0]} keys as static_k or key", lengths[1])
    return lengths[0]


def check_dropout(dropout_p: float, need_weights: bool) -> None:
    """Raise ValueError (RuntimeError without weights) unless dropout_p is a probability.

    A negative one is let through where weights are asked for, and drops nothing: so does PyTorch.
    """
    low = float("-inf") if need_weights else 0
    error = ValueError if need_weights else RuntimeError
    require(low <= dropout_p <= 1, error, "dropout_p", "a probability between 0 and 1", dropout_p)


def check_heads(query: Tensor, E: int, H: int) -> None:
    """Raise AssertionError unless E is the width of query and H divides it, another error unless H is positive."""
    width = tuple(query.shape[-1:])
    require(width == (E,), AssertionError, "query", f"width ({E},), which embed_dim_to_check says", width)
    require(H != 0, ZeroDivisionError, "num_heads", "a positive number", H)
    require(E % H == 0, AssertionError, "num_heads", f"a divisor of embed_dim {E}", H)
    require(H > 0, RuntimeError, "num_heads", "a positive number", H)


def check_matrices(
    E: int, separate: bool, in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, in_proj_bias, out_proj_weight,
    bias_k, bias_v, static_k, static_v,
) -> None:  # fmt: skip
    """Raise AssertionError or RuntimeError unless the matrices that `separate` asks for are there and fit embed_dim."""
    packed = {"in_proj_weight": in_proj_weight}
    apart = {"q_proj_weight": q_proj_weight, "k_proj_weight": k_proj_weight, "v_proj_weight": v_proj_weight}
    for name, weight in (apart if separate else packed).items():
        require(weight is not None, AssertionError, name, f"a matrix, use_separate_proj_weight being {separate}", None)
        rows = E if separate else 3 * E
        error = AssertionError if separate else RuntimeError
        require(weight.shape[0] == rows, error, name, f"{rows} rows", tuple(weight.shape))
    if in_proj_bias is not None:
        error = AssertionError if separate else RuntimeError
        require(in_proj_bias.shape == (3 * E,), error, "in_proj_bias", (3 * E,), tuple(in_proj_bias.shape))
    found = tuple(out_proj_weight.shape)
    require(found[1] == E, RuntimeError, "out_proj_weight", f"{E} columns", found)
    for name, one, other in (("bias_v", bias_k, bias_v), ("bias_k", bias_v, bias_k)):
        require(one is None or other is not None, AssertionError, name, "both bias_k and bias_v, or neither", None)
    for name, bias, static in (("static_k", bias_k, static_k), ("static_v", bias_v, static_v)):
        require(bias is None or static is None, AssertionError, name, "None beside bias_k and bias_v", "a tensor")


class Inputs(NamedTuple):
    """What a head needs besides its matrices; what is not there is None."""

    query: Tensor  # (B, L, E)
    key: Tensor  # (B, S, kdim)
    value: Tensor  # (B, S, vdim)
    mask: Tensor | None  # (B, H, L, S + added), added to the scores
    keep: Tensor | None  # (B, H, L, S + added): 0 or 1 / (1 - p)
    static_k: Tensor | None  # (B, H, S, d_k)
    static_v: Tensor | None  # (B, H, S, d_v)


def prepare(
    query: Tensor, key: Tensor, value: Tensor, H: int, widths, dtype: torch.dtype, added: int, need_weights: bool,
    static: tuple[Tensor | None, Tensor | None], *, separate: bool, training: bool, dropout_p: float,
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, is_causal: bool,
) -> Inputs:  # fmt: skip
    """Check inputs (L, B, width) or (L, width); turn them batch first; merge the masks; draw dropout for all heads.

    widths: those of query, key and value, then (d_k, d_v); added: how many keys come behind the S given ones.
    Raises AssertionError, RuntimeError or ValueError as the functions above say.
    """
    check_dims(query, key, value, key_padding_mask, attn_mask, H)
    check_mask_types(key_padding_mask, attn_mask, is_causal, need_weights)
    if query.dim() == 2:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    check_sizes(query, key, value, widths[0], separate, dtype)
    L, B, _ = query.shape
    S = check_static(*static, B, H, widths[1], key.shape[0])
    shape, mask, keep = (B, H, L, S + added), None, None
    if is_causal and key_padding_mask is None and not need_weights:
        # PyTorch trusts the hint here: it never looks at attn_mask, and the added keys count as future ones
        mask = to_float(torch.ones(L, S + added, dtype=torch.bool, device=query.device).triu(1), query.dtype)
    elif attn_mask is not None or key_padding_mask is not None:
        check_masks(key_padding_mask, attn_mask, B, H, L, S)
        mask = F.pad(merge(attn_mask, key_padding_mask, H, query.dtype), (0, added))
    if training:
        check_dropout(dropout_p, need_weights)
        keep = F.dropout(query.new_ones(shape), dropout_p) if dropout_p > 0 else None
    return Inputs(
        *(x.transpose(0, 1) for x in (query, key, value)),
        None if mask is None else mask.expand(shape),
        keep,
        *(None if x is None else x.unflatten(0, (B, H)) for x in static),
    )
