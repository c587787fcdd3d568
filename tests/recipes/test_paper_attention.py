"""The paper's layout, as a function and as a layer, against PyTorch's: every option, gradients, errors."""

import inspect
import itertools
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_attention import multi_head_attention_forward
from paper_module import PaperMultiheadAttention
from torch import nn

B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H
BOUND = {torch.float32: (2e-5, 1e-4), torch.float64: (1e-12, 1e-10)}  # outputs and weights, gradients
MASKS = [
    "none",
    "bool 2-D",
    "float 2-D",
    "bool 3-D",
    "float 3-D",
    "bool padding",
    "float padding",
    "both bool",
    "both float",
    "mixed",
]


@pytest.fixture(autouse=True)
def slow_path():
    """PyTorch's own slow path: the fused one is compared elsewhere."""
    torch.backends.mha.set_fastpath_enabled(False)
    torch.manual_seed(0)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def redrawn(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def arguments(mha, **changes):
    """The arguments with which `mha` would call the functional form, in its order, by name."""
    separate = mha.in_proj_weight is None
    names = {
        "embed_dim_to_check": mha.embed_dim,
        "num_heads": mha.num_heads,
        "in_proj_weight": mha.in_proj_weight,
        "in_proj_bias": mha.in_proj_bias,
        "bias_k": mha.bias_k,
        "bias_v": mha.bias_v,
        "add_zero_attn": mha.add_zero_attn,
        "dropout_p": mha.dropout,
        "out_proj_weight": mha.out_proj.weight,
        "out_proj_bias": mha.out_proj.bias,
        "training": mha.training,
        "use_separate_proj_weight": separate,
    }
    if separate:
        names |= {f"{letter}_proj_weight": getattr(mha, f"{letter}_proj_weight") for letter in "qkv"}
    return names | changes


def masks(kind, batch, heads, queries, keys, dtype, unbatched=False):
    """Masks that leave every query a key to see: attn_mask and key_padding_mask by name."""
    if kind == "none":
        return {}
    bools = torch.rand(queries, keys) < 0.4
    if "3-D" in kind:
        bools = torch.rand(batch * heads, queries, keys) < 0.4
    padding = torch.rand(batch, keys) < 0.4
    bools[..., 0] = padding[:, 0] = False
    padding = padding[0] if unbatched else padding

    def as_float(mask):
        return torch.randn(mask.shape, dtype=dtype).masked_fill(mask, -math.inf)

    attn = as_float(bools) if "float" in kind else bools
    pad = as_float(padding) if "float" in kind or kind == "mixed" else padding
    chosen = {}
    if "padding" not in kind:
        chosen["attn_mask"] = attn
    if "padding" in kind or "both" in kind or kind == "mixed":
        chosen["key_padding_mask"] = pad
    return chosen


def results(function, inputs, given, leaves):
    """Output, weights, and the gradients of a random sum of both."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of masks of two types
        output, weights = function(*inputs, **given)
    generator = torch.Generator().manual_seed(1)
    total = sum((x * torch.randn(x.shape, generator=generator)).sum() for x in (output, weights) if x is not None)
    return output, weights, torch.autograd.grad(total, leaves, allow_unused=True)


def close(left, right, bound):
    assert (left is None) == (right is None)
    if left is None:
        return
    assert left.shape == right.shape
    assert left.dtype == right.dtype
    torch.testing.assert_close(
        left, right, rtol=0, atol=bound * max(1.0, right.detach().abs().nan_to_num().max().item()), equal_nan=True
    )


def compare(mha, inputs, given):
    """The recipe against PyTorch on the same arguments."""
    inputs = [x.requires_grad_() for x in inputs]
    leaves = [*inputs, *mha.parameters()]
    mine = results(multi_head_attention_forward, inputs, given, leaves)
    theirs = results(F.multi_head_attention_forward, inputs, given, leaves)
    value, gradient = BOUND[inputs[0].dtype]
    close(mine[0], theirs[0], value)
    close(mine[1], theirs[1], value)
    for leaf, left, right in zip(leaves, mine[2], theirs[2], strict=True):
        # a matrix that a static key replaces has no gradient here and zeros there
        none = torch.zeros_like(leaf)
        close(none if left is None else left, none if right is None else right, gradient)


def layer(dtype=torch.float64, **options):
    return redrawn(nn.MultiheadAttention(E, H, dtype=dtype, **options))


def data(mha, batch=B, queries=L, keys=S, unbatched=False):
    dtype = mha.out_proj.weight.dtype
    widths = (mha.embed_dim, mha.kdim, mha.vdim)
    lengths = (queries, keys, keys)
    drawn = [torch.randn(n, batch, width, dtype=dtype) for n, width in zip(lengths, widths, strict=True)]
    return [x[:, 0].clone() for x in drawn] if unbatched else drawn


def test_signature_is_pytorchs():
    assert list(inspect.signature(multi_head_attention_forward).parameters.items()) == list(
        inspect.signature(F.multi_head_attention_forward).parameters.items()
    )


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_option(kind, dtype):
    for bias, bias_kv, zero, widths, need, average, unbatched in itertools.product(
        [True, False],
        [True, False],
        [True, False],
        [{}, {"kdim": 9, "vdim": 11}],
        [True, False],
        [True, False],
        [True, False],
    ):
        if average and not need:
            continue
        mha = layer(dtype, bias=bias, add_bias_kv=bias_kv, add_zero_attn=zero, **widths)
        given = arguments(mha, need_weights=need, average_attn_weights=average)
        given |= masks(kind, 1 if unbatched else B, H, L, S, dtype, unbatched)
        compare(mha, data(mha, unbatched=unbatched), given)


@pytest.mark.parametrize(
    "options",
    [{}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"add_bias_kv": True, "add_zero_attn": True}],
    ids=str,
)
@pytest.mark.parametrize("need", [True, False])
@pytest.mark.parametrize("padding", [True, False])
def test_causal_hint(options, need, padding):
    # the mask is not causal: the hint and the mask disagree, and it shows which of them is obeyed
    mha = layer(**options)
    mask = torch.rand(L, S) < 0.4
    mask[:, 0] = False
    given = arguments(mha, is_causal=True, attn_mask=mask, need_weights=need)
    if padding:
        given |= masks("bool padding", B, H, L, S, torch.float64)
    compare(mha, data(mha), given)


@pytest.mark.parametrize("need", [True, False])
def test_rows_that_see_nothing(need):
    mha = layer()
    mask = torch.zeros(L, S, dtype=torch.bool)
    mask[2] = True
    inputs = [x.requires_grad_() for x in data(mha)]
    given = arguments(mha, attn_mask=mask, need_weights=need)
    mine = results(multi_head_attention_forward, inputs, given, inputs)
    theirs = results(F.multi_head_attention_forward, inputs, given, inputs)
    assert mine[0][2].isnan().all() == need
    for left, right in zip([mine[0], *mine[2]], [theirs[0], *theirs[2]], strict=True):
        close(left, right, 1e-10)


@pytest.mark.parametrize("statics", [("static_k",), ("static_v",), ("static_k", "static_v")])
@pytest.mark.parametrize("zero", [True, False])
def test_static_keys_and_values(statics, zero):
    mha = layer(add_zero_attn=zero)
    given = arguments(mha) | {name: torch.randn(B * H, S, D, dtype=torch.float64) for name in statics}
    compare(mha, data(mha), given)


@pytest.mark.parametrize("need", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True, "add_zero_attn": True}], ids=str)
def test_one_draw_of_dropout_is_pytorchs(need, dtype, options):
    mha = layer(dtype, dropout=0.3, **options)
    inputs = data(mha)
    given = arguments(mha, need_weights=need, average_attn_weights=False)

    def run(function, seed):
        torch.manual_seed(seed)
        return function(*inputs, **given)

    for left, right in zip(run(multi_head_attention_forward, 1), run(F.multi_head_attention_forward, 1), strict=True):
        close(left, right, BOUND[dtype][0])
    assert not torch.allclose(run(multi_head_attention_forward, 1)[0], run(multi_head_attention_forward, 2)[0])


def test_self_attention_of_one_tensor():
    # PyTorch projects query, key and value at once when they are one tensor, key and value when these are one
    mha = layer()
    x, y = data(mha)[:2]
    for inputs in ((x, x, x), (x, y, y)):
        for left, right in zip(
            multi_head_attention_forward(*inputs, **arguments(mha)),
            F.multi_head_attention_forward(*inputs, **arguments(mha)),
            strict=True,
        ):
            close(left, right, 1e-12)


SIZES = {
    "batch": st.integers(1, 3),
    "queries": st.integers(1, 9),
    "keys": st.integers(1, 40),
    "heads": st.integers(1, 5),
    "width": st.integers(1, 8),
}


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    **SIZES,
    kind=st.sampled_from(MASKS),
    need=st.booleans(),
    bias_kv=st.booleans(),
    zero=st.booleans(),
    kdim=st.sampled_from([None, 3]),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1.0, 1.0, 10.0, 1e-3]),
)
def test_any_size_and_mask(batch, queries, keys, heads, width, kind, need, bias_kv, zero, kdim, seed, scale):
    torch.manual_seed(seed)
    mha = redrawn(
        nn.MultiheadAttention(
            heads * width, heads, add_bias_kv=bias_kv, add_zero_attn=zero, kdim=kdim, dtype=torch.float64
        )
    )
    inputs = [scale * x for x in data(mha, batch, queries, keys)]
    given = arguments(mha, need_weights=need, average_attn_weights=False) | masks(
        kind, batch, heads, queries, keys, torch.float64
    )
    compare(mha, inputs, given)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    magnitude=st.floats(10, 1e4),
    keys=st.integers(2, 700),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_extreme_scores_and_long_rows(magnitude, keys, seed, dtype):
    torch.manual_seed(seed)
    mha = redrawn(nn.MultiheadAttention(E, H, bias=False, dtype=dtype))
    inputs = data(mha, keys=keys)
    with torch.no_grad():
        q, k = (inputs[n] @ mha.in_proj_weight[n * E : n * E + E].T for n in (0, 1))
        scores = torch.einsum("lbhd,sbhd->bhls", q.unflatten(-1, (H, D)), k.unflatten(-1, (H, D))) / math.sqrt(D)
        inputs[0] *= magnitude / scores.abs().max()
    (_, mine), (_, theirs) = (
        f(*inputs, **arguments(mha, average_attn_weights=False))
        for f in (multi_head_attention_forward, F.multi_head_attention_forward)
    )
    # a score of size m is known to within m eps, and a weight moves no faster than its score
    bound = 4 * torch.finfo(dtype).eps * magnitude
    torch.testing.assert_close(mine, theirs, rtol=0, atol=max(bound, 4 * torch.finfo(dtype).eps))


def bad_calls():
    """Name -> a change to good arguments, and the words that the message must hold."""
    x, y, ones = torch.randn(L, B, E), torch.randn(S, B, E), torch.ones
    return {
        "query 4-D": ({"query": x[None]}, ["query", "4-D"]),
        "query 1-D": ({"query": x[0, 0]}, ["query", "1-D"]),
        "key 2-D": ({"key": y[:, 0]}, ["key", "2-D"]),
        "value 2-D": ({"value": y[:, 0]}, ["value", "2-D"]),
        "padding 1-D": ({"key_padding_mask": ones(S).bool()}, ["key_padding_mask", "1-D"]),
        "padding shape": (
            {"key_padding_mask": ones(B, S + 1).bool()},
            ["key_padding_mask", f"({B}, {S})", f"({B}, {S + 1})"],
        ),
        "padding batch": ({"key_padding_mask": ones(B + 1, S).bool()}, ["key_padding_mask", f"({B + 1}, {S})"]),
        "padding integers": ({"key_padding_mask": ones(B, S).long()}, ["key_padding_mask", "int64"]),
        "mask 1-D": ({"attn_mask": ones(S).bool()}, ["attn_mask", "1-D"]),
        "mask 4-D": ({"attn_mask": ones(B, H, L, S).bool()}, ["attn_mask", "4-D"]),
        "mask transposed": ({"attn_mask": ones(S, L).bool()}, ["attn_mask", f"({L}, {S})", f"({S}, {L})"]),
        "mask per sample": (
            {"attn_mask": ones(B, L, S).bool()},
            ["attn_mask", f"({B * H}, {L}, {S})", f"({B}, {L}, {S})"],
        ),
        "mask integers": ({"attn_mask": ones(L, S).int()}, ["attn_mask", "int32"]),
        "hint alone": ({"is_causal": True}, ["is_causal", "attn_mask"]),
        "embed_dim": ({"embed_dim_to_check": E + H}, ["query", str(E + H), str(E)]),
        "heads do not divide": ({"num_heads": 5}, ["num_heads", "24", "5"]),
        "no head": ({"num_heads": 0}, ["num_heads", "0"]),
        "negative heads": ({"num_heads": -4}, ["num_heads", "-4"]),
        "value longer": ({"value": torch.randn(S + 1, B, E)}, ["value", str((S, B, E)), str((S + 1, B, E))]),
        "key wider": ({"key": torch.randn(S, B, E + 1), "value": torch.randn(S, B, E + 1)}, ["key", str(E + 1)]),
        "key batch": (
            {"key": torch.randn(S, B + 1, E), "value": torch.randn(S, B + 1, E)},
            ["key", "batch", str(B + 1)],
        ),
        "no packed weight": ({"in_proj_weight": None}, ["in_proj_weight", "None"]),
        "no separate weight": ({"use_separate_proj_weight": True}, ["q_proj_weight", "None"]),
        "packed rows": ({"in_proj_weight": torch.randn(2 * E, E)}, ["in_proj_weight", str(3 * E)]),
        "bias length": ({"in_proj_bias": torch.randn(E)}, ["in_proj_bias", str((3 * E,)), str((E,))]),
        "output columns": ({"out_proj_weight": torch.randn(E, E + 1)}, ["out_proj_weight", str(E + 1)]),
        "bias_k alone": ({"bias_k": torch.randn(1, 1, E)}, ["bias_v", "None"]),
        "bias_v alone": ({"bias_v": torch.randn(1, 1, E)}, ["bias_k", "None"]),
        "static beside bias": (
            {"bias_k": torch.randn(1, 1, E), "bias_v": torch.randn(1, 1, E), "static_k": torch.randn(B * H, S, D)},
            ["static_k"],
        ),
        "static batch": ({"static_k": torch.randn(B, S, D)}, ["static_k", str((B, S, D))]),
        "static width": ({"static_v": torch.randn(B * H, S, E)}, ["static_v", str((B * H, S, E))]),
        "static length": ({"static_k": torch.randn(B * H, S + 1, D)}, ["static_v", str(S + 1), str(S)]),
        "dropout 1.5": ({"dropout_p": 1.5}, ["dropout_p", "1.5"]),
        "dropout 1.5 without weights": ({"dropout_p": 1.5, "need_weights": False}, ["dropout_p", "1.5"]),
        "dropout -1 without weights": ({"dropout_p": -1.0, "need_weights": False}, ["dropout_p", "-1"]),
        "query in float64": ({"query": x.double()}, ["query", "float32", "float64"]),
        "key and value in float64": ({"key": y.double(), "value": y.double()}, ["key", "float32", "float64"]),
        "unbatched 3-D mask": (
            {"query": x[:, 0], "key": y[:, 0], "value": y[:, 0], "attn_mask": ones(B * H, L, S).bool()},
            ["attn_mask", str((H, L, S)), str((B * H, L, S))],
        ),
    }


@pytest.mark.parametrize("name", bad_calls())
def test_bad_input_raises_as_pytorch_and_says_what(name):
    change, words = bad_calls()[name]
    mha = layer(torch.float32)
    x, y, z = data(mha)
    good = {"query": x, "key": y, "value": z} | arguments(mha)
    multi_head_attention_forward(**good)  # so that the change is what is wrong
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        F.multi_head_attention_forward(**good | change)
    with pytest.raises(Exception) as mine:  # noqa: PT011
        multi_head_attention_forward(**good | change)
    assert mine.type is theirs.type
    message = str(mine.value)
    assert all(word in message for word in [*words, "expected", "got"]), message


def test_bad_separate_weights():
    mha = layer(torch.float32, kdim=9, vdim=11)
    x, y, z = data(mha)
    good = {"query": x, "key": y, "value": z} | arguments(mha)
    for change, word in [
        ({"key": torch.randn(S, B, E)}, "key"),
        ({"value": z[:-1]}, "value"),
        ({"k_proj_weight": torch.randn(9, E)}, "k_proj_weight"),
        ({"in_proj_bias": torch.randn(6)}, "in_proj_bias"),
    ]:
        with pytest.raises(AssertionError):
            F.multi_head_attention_forward(**good | change)
        with pytest.raises(AssertionError, match=f"{word}: expected .*, got"):
            multi_head_attention_forward(**good | change)


def test_mixed_masks_warn():
    mha = layer()
    given = arguments(mha) | masks("mixed", B, H, L, S, torch.float64)
    with pytest.warns(UserWarning, match="attn_mask"):
        multi_head_attention_forward(*data(mha), **given)


# ---------------------------------------------------------------- the layer


LAYERS = [
    {},
    {"bias": False},
    {"kdim": 9, "vdim": 11},
    {"vdim": 11, "bias": False},
    {"add_bias_kv": True},
    {"add_zero_attn": True, "batch_first": True},
    {"add_bias_kv": True, "kdim": 9, "dropout": 0.25, "batch_first": True},
]


@pytest.mark.parametrize("options", LAYERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip_is_exact(options, dtype):
    mha = layer(dtype, **options).eval()
    paper = PaperMultiheadAttention.from_torch(mha)
    back = paper.to_torch()
    assert not back.training
    assert list(back.state_dict()) == list(mha.state_dict())
    assert all(torch.equal(back.state_dict()[name], values) for name, values in mha.state_dict().items())
    again = PaperMultiheadAttention.from_torch(back)
    assert all(torch.equal(again.state_dict()[name], values) for name, values in paper.state_dict().items())
    options = [(one.dropout, one.batch_first, one.add_zero_attn, one.kdim, one.vdim) for one in (mha, back, paper)]
    assert options[0] == options[1] == options[2]


@pytest.mark.parametrize("options", LAYERS, ids=str)
@pytest.mark.parametrize("kind", MASKS)
def test_layer_is_the_same_function(options, kind):
    mha = layer(**options).train()
    paper = PaperMultiheadAttention.from_torch(mha)
    inputs = data(mha)
    if mha.batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    for need in (True, False):
        given = {"need_weights": need, "average_attn_weights": False} | masks(kind, B, H, L, S, torch.float64)
        outputs = []
        for one in (paper, mha):
            torch.manual_seed(3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                outputs.append(one(*inputs, **given))
        for left, right in zip(*outputs, strict=True):
            close(left, right, 1e-12)


def test_layer_unbatched_is_not_turned():
    mha = layer(batch_first=True).train()
    paper = PaperMultiheadAttention.from_torch(mha)
    for left, right in zip(paper(*data(mha, unbatched=True)), mha(*data(mha, unbatched=True)), strict=True):
        assert left.shape == right.shape
    inputs = data(mha, unbatched=True)
    for left, right in zip(paper(*inputs), mha(*inputs), strict=True):
        close(left, right, 1e-12)


@pytest.mark.parametrize("mode", ["train", "eval", "no_grad"])
def test_layer_stands_in_for_self_attention(mode):
    """Also where PyTorch's encoder asks whether its fused path may read packed weights."""
    x = torch.randn(B, L, E, dtype=torch.float64)
    for kind in (torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer):
        whole = redrawn(kind(E, H, 20, dropout=0, batch_first=True, dtype=torch.float64)).train(mode == "train")
        given = (x,) if kind is torch.nn.TransformerEncoderLayer else (x, x)
        with torch.set_grad_enabled(mode != "no_grad"):
            theirs = whole(*given)
            whole.self_attn = PaperMultiheadAttention.from_torch(whole.self_attn)
            close(whole(*given), theirs, 1e-12)
            stack = torch.nn.TransformerEncoder if len(given) == 1 else torch.nn.TransformerDecoder
            assert stack(whole, 2)(*given).shape == x.shape


def test_widths_of_your_own():
    paper = redrawn(PaperMultiheadAttention(E, 5, d_k=3, d_v=11, kdim=9, dtype=torch.float64))
    assert {name: tuple(p.shape) for name, p in paper.named_parameters() if name.startswith("W")} == {
        "W_q": (5, E, 3),
        "W_k": (5, 9, 3),
        "W_v": (5, E, 11),
        "W_o": (5, 11, E),
    }
    x, y, z = torch.randn(L, B, E).double(), torch.randn(S, B, 9).double(), torch.randn(S, B, E).double()
    output, weights = paper(x, y, z, average_attn_weights=False)
    expected = paper.b_o
    for i in range(5):
        q, k, v = x @ paper.W_q[i] + paper.b_q[i], y @ paper.W_k[i] + paper.b_k[i], z @ paper.W_v[i] + paper.b_v[i]
        head = F.scaled_dot_product_attention(*(a.transpose(0, 1) for a in (q, k, v))).transpose(0, 1)
        expected = expected + head @ paper.W_o[i]
    close(output, expected, 1e-12)
    assert weights.shape == (B, 5, L, S)
    with pytest.raises(ValueError, match=r"d_k: expected .*4\.8.*, got 3"):
        paper.to_torch()


def test_state_dict_loads():
    one, other = (redrawn(PaperMultiheadAttention(E, H, add_bias_kv=True)) for _ in range(2))
    x = torch.randn(L, B, E)
    assert not torch.allclose(one(x, x, x)[0], other(x, x, x)[0])
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x, x, x)[0], other(x, x, x)[0])


@pytest.mark.parametrize("options", [{}, {"kdim": 48}, {"add_bias_kv": True}], ids=str)
def test_initialised_as_pytorch_on_request(options):
    sizes = {"embed_dim": 256, "num_heads": 8, **options}
    theirs = nn.MultiheadAttention(**sizes).state_dict()
    mine = PaperMultiheadAttention(**sizes, init="torch").to_torch().state_dict()
    for name, values in theirs.items():
        if not values.any():
            assert not mine[name].any()
        elif "bias" in name:  # 256 normal numbers: their spread is known to 10 % or so
            assert mine[name].std().item() == pytest.approx(values.std().item(), rel=0.25)
        else:  # uniform, 12,000 numbers or more: the largest is within 0.1 % of the bound
            assert mine[name].abs().max().item() == pytest.approx(values.abs().max().item(), rel=2e-3)
    if not options:
        wider = PaperMultiheadAttention(**sizes).to_torch().state_dict()
        ratio = wider["in_proj_weight"].abs().max() / theirs["in_proj_weight"].abs().max()
        assert ratio.item() == pytest.approx(math.sqrt(2), rel=2e-3)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_heads": 5}, AssertionError, "num_heads: expected .*24.*, got 5"),
        ({"num_heads": 0}, ValueError, "num_heads: expected a positive number, got 0"),
        ({"embed_dim": -1}, ValueError, "embed_dim: expected a positive number, got -1"),
        ({"num_heads": 5, "d_k": 3}, AssertionError, "num_heads: .*d_v"),
        ({"d_k": 0}, ValueError, "d_k: expected a positive number, got 0"),
        ({"init": "keras"}, ValueError, "init: expected .*, got 'keras'"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        PaperMultiheadAttention(**{"embed_dim": E, "num_heads": H} | options)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad"])
def test_it_may_stand_in_pytorchs_layers(mode):
    """Whose fast path is on, which they look for in attributes of self_attn, and do not take."""
    torch.backends.mha.set_fastpath_enabled(True)
    torch.set_default_dtype(torch.float64)
    layers = [nn.TransformerEncoderLayer(E, H, 9, dropout=0.0, batch_first=True) for _ in range(2)]
    plain = nn.Sequential(*layers).train(mode == "train")
    x = torch.randn(B, L, E)
    with torch.set_grad_enabled(mode != "no_grad"):
        expected = plain(x)
        for layer in layers:
            layer.self_attn = PaperMultiheadAttention.from_torch(layer.self_attn)
        stacked = nn.TransformerEncoder(layers[0], 1).train(mode == "train")
        torch.testing.assert_close(plain(x), expected)
        torch.testing.assert_close(stacked(x), layers[0](x))
    torch.set_default_dtype(torch.float32)
