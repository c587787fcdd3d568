"""capture.py hears attention wherever it is computed, gives the weights that were used, and says what it did not hear."""

import contextlib
import copy
import io
import math
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from capture import attention_weights
from memory import peak
from torch import Tensor, distributed, nn
from torch.distributed import device_mesh
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention as imported
from torch.nn.modules import module as common
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

B, L, S, H, D = 2, 5, 7, 4, 6
E = H * D
try:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
except ImportError:  # before PyTorch 2.5
    flex_attention = None
FROM_2_6 = pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs PyTorch 2.6")
CAUSAL = torch.ones(L, L).triu(1).bool()  # True is hidden
MODES = {
    "train": torch.enable_grad,
    "eval": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}

pytestmark = [
    # PyTorch says so of a compiled model while a hook common to all modules is there
    pytest.mark.filterwarnings("ignore:Using `torch.compile"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
]


@pytest.fixture(autouse=True)
def exact_and_left_clean():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    assert not _get_current_function_mode_stack()
    assert not common._global_forward_hooks
    assert not common._global_forward_pre_hooks
    assert not common._global_forward_hooks_always_called


def drawn(module, std=0.5):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module


class Layer(nn.Module):
    """Projects and cuts into heads; what attends is handed in. `groups` heads of queries share keys and values."""

    def __init__(self, attend, groups=1):
        super().__init__()
        self.q, self.out = nn.Linear(E, E), nn.Linear(E, E)
        self.k, self.v = nn.Linear(E, E // groups), nn.Linear(E, E // groups)
        self.attend = attend

    def heads(self, x, y):
        return (f(z).unflatten(-1, (-1, D)).transpose(1, 2) for f, z in ((self.q, x), (self.k, y), (self.v, y)))

    def forward(self, x, y=None):
        z = self.attend(*self.heads(x, x if y is None else y))  # (B, H, L, D)
        return self.out(z.transpose(1, 2).flatten(2))


def two(attend, **options):
    """Two layers, so that names and order show."""
    return drawn(nn.Sequential(Layer(attend, **options), Layer(attend, **options)))


def written_out(q, k, v):
    return (q @ k.mT / math.sqrt(D)).softmax(-1) @ v


def formula(layer, x, y=None, hidden=None, scale=D**-0.5):
    """(B, H, L, S), head by head, from the layer's parameters, without PyTorch's softmax."""
    q, k, _ = layer.heads(x, x if y is None else y)
    heads = []
    for i in range(H):
        scores = scale * q[:, i] @ k[:, i * k.shape[1] // H].mT
        exps = (scores - scores.amax(-1, keepdim=True)).exp()
        exps = exps if hidden is None else exps * ~hidden
        heads.append(exps / exps.sum(-1, keepdim=True).clamp(min=1e-300))
    return torch.stack(heads, 1).detach()


def tokens(length=L):
    return torch.randn(B, length, E)


# ---------------------------------------------------------------- scaled_dot_product_attention, wherever it is called

CALLS = {
    "plain": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), {}),
    "imported by name": (lambda q, k, v: imported(q, k, v), {}),
    "by keywords": (lambda q, k, v: imported(value=v, key=k, query=q), {}),
    "by its operator": (lambda q, k, v: torch.ops.aten.scaled_dot_product_attention.default(q, k, v), {}),
    "scale": (lambda q, k, v: imported(q, k, v, scale=0.3), {"scale": 0.3}),
    "causal": (lambda q, k, v: imported(q, k, v, is_causal=True), {"hidden": CAUSAL}),
    "bool mask": (lambda q, k, v: imported(q, k, v, ~CAUSAL), {"hidden": CAUSAL}),
    "float mask": (
        lambda q, k, v: imported(q, k, v, torch.zeros(B, 1, L, L).masked_fill(CAUSAL, -torch.inf)),
        {"hidden": CAUSAL},
    ),
    "a row that sees nothing": (
        lambda q, k, v: imported(q, k, v, (torch.arange(L) != 2)[:, None].expand(L, L)),
        {"hidden": (torch.arange(L) == 2)[:, None].expand(L, L)},
    ),
    "a mask that is a class": (lambda q, k, v: imported(q, k, v, causal_lower_right(L, L)), {"hidden": CAUSAL}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", CALLS)
def test_sdpa_of_ones_own(call, mode):
    attend, options = CALLS[call]
    model, x = two(attend).train(mode == "train"), tokens()
    with MODES[mode]():
        plain = model(x)
        if plain.isnan().any():
            pytest.skip("SDPA of this PyTorch gives NaN to a row that sees nothing")
        with attention_weights(model) as maps:
            output = model(x)
        assert torch.equal(output, plain)
        assert list(maps) == ["0", "1"]
        torch.testing.assert_close(maps["0"], formula(model[0], x, **options))
        torch.testing.assert_close(maps["1"], formula(model[1], model[0](x), **options))
    assert maps.seen == {"'0': scaled_dot_product_attention": 1, "'1': scaled_dot_product_attention": 1}
    assert not maps.skipped


@pytest.mark.skipif("enable_gqa" not in imported.__doc__, reason="needs PyTorch 2.5")
def test_grouped_queries_and_cross_attention():
    model = two(lambda q, k, v: imported(q, k, v, enable_gqa=True), groups=2)
    x, y = tokens(), tokens(S)
    layer = model[1]
    with attention_weights(layer) as maps:
        output = layer(x, y)
    assert torch.equal(output, layer(x, y))
    assert maps[""].shape == (B, H, L, S)
    torch.testing.assert_close(maps[""], formula(layer, x, y))


@pytest.mark.parametrize("before", [False, True])
def test_dropout_is_recorded_as_it_fell_and_falls_as_before(before):
    p = 0.4
    layer = drawn(Layer(lambda q, k, v: imported(q, k, v, dropout_p=p)))
    x, y = tokens(11), tokens(13)  # more keys than a head is wide
    torch.manual_seed(7)
    plain, after = layer(x, y), torch.rand(3)
    torch.manual_seed(7)
    with attention_weights(layer, before_dropout=before) as maps:
        output = layer(x, y)
    assert torch.equal(torch.rand(3), after), "the random numbers that follow are others"
    assert torch.equal(output, plain)
    whole, weights = formula(layer, x, y), maps[""]
    if before:
        torch.testing.assert_close(weights, whole)
        return
    assert 0.4 < (weights != 0).double().mean() < 0.8
    torch.testing.assert_close(weights, whole * (weights != 0) / (1 - p))
    *_, v = layer.heads(x, y)
    torch.testing.assert_close(layer.out((weights @ v).transpose(1, 2).flatten(2)), output)


def test_generation_with_a_cache_is_a_list_of_steps():
    layer, x = drawn(Layer(lambda q, k, v: imported(q, k, v, is_causal=q.shape[-2] > 1))), tokens(S)
    with attention_weights(layer) as maps:
        layer(x[:, :L])
        for n in range(L + 1, S + 1):
            layer(x[:, n - 1 : n], x[:, :n])
    assert [tuple(w.shape) for w in maps[""]] == [(B, H, L, L), (B, H, 1, L + 1), (B, H, 1, S)]
    whole = formula(layer, x, hidden=torch.ones(S, S).triu(1).bool())
    torch.testing.assert_close(maps[""][-1], whole[:, :, -1:])


@pytest.mark.parametrize("keep_grad", [False, True])
@pytest.mark.parametrize("groups", [2, H])
@pytest.mark.parametrize("move", [Tensor.reshape, Tensor.view, torch.reshape])
def test_heads_that_are_packed_into_rows_for_one_token_are_heads(move, groups, keep_grad):
    """As transformers does where grouped queries meet a mask: the groups of one token are rows of a shared head."""

    def packed(q, k, v):
        if q.shape[-2] == 1:
            q = move(q, (B, H // groups, groups, D))
        else:
            k, v = (z.repeat_interleave(groups, 1) for z in (k, v))
        return imported(q, k, v).reshape(B, H, -1, D)

    layer, x = drawn(Layer(packed, groups)), tokens(S)
    with attention_weights(layer, keep_grad=keep_grad) as maps:
        layer(x)
        output = layer(x[:, -1:], x)
    assert maps.calls("")[1].shape == (B, H, 1, S)
    torch.testing.assert_close(maps.calls("")[1], maps.calls("")[0][:, :, -1:])
    torch.testing.assert_close(output, layer(x[:, -1:], x))
    with attention_weights(layer, queries=[0], cpu=True) as maps:
        layer(x[:, -1:], x)
    assert maps[""].shape == (B, H, 1, S)


@pytest.mark.parametrize("move", [Tensor.reshape, Tensor.view])
def test_tokens_of_a_single_head_are_no_packed_heads(move):
    """(B, L, 1, D) turned to (B, 1, L, D) without a transpose, which one head allows."""

    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(E, 3 * E)

        def forward(self, x):
            q, k, v = (move(move(z.contiguous(), (B, L, 1, E)), (B, 1, L, E)) for z in self.qkv(x).chunk(3, -1))
            return imported(q, k, v).squeeze(1)

    model, x = drawn(Single()), tokens()
    with attention_weights(model) as maps:
        model(x)
    assert maps[""].shape == (B, 1, L, L)


def test_attention_whose_module_is_not_called_is_named_by_the_one_that_runs():
    class Inlined(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = drawn(Layer(imported))

        def forward(self, x):
            return self.inner.forward(x)

    model, x = Inlined(), tokens()
    with attention_weights(model) as maps:
        model(x)
    assert list(maps) == [""]
    torch.testing.assert_close(maps[""], formula(model.inner, x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("attend", [imported, written_out])
def test_half_precision_gives_float32_maps(attend, dtype):
    layer = drawn(Layer(attend)).to(dtype)
    x = tokens().to(dtype)
    with attention_weights(layer) as maps:
        output = layer(x)
    assert torch.equal(output, layer(x))
    assert maps[""].dtype == torch.float32
    torch.testing.assert_close(maps[""], formula(layer.double(), x.double()).float(), rtol=0, atol=0.03)


def test_scores_that_overflow_in_half_precision():
    """Query times key is over 65504; scaled after the product it is inf, and its softmax NaN."""
    q, k, v = ((torch.randn(2, H, 16, 64) * 60).half() for _ in range(3))

    class Model(nn.Module):
        def forward(self, q, k, v):
            return imported(q, k, v)

    model = Model()
    with attention_weights(model) as maps:
        model(q, k, v)
    exact = ((q.double() @ k.double().mT) / 8).softmax(-1)
    assert ((q @ k.mT) / 8).isinf().any()
    torch.testing.assert_close(maps[""].double(), exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("attend", [imported, written_out])
def test_autocast(attend):
    model, x = two(attend).float(), tokens().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(x)
        with attention_weights(model) as maps:
            assert torch.equal(model(x), plain)
        with attention_weights(model, keep_grad=True):
            assert model(x).dtype == plain.dtype
    assert maps["0"].dtype == torch.float32
    torch.testing.assert_close(maps["0"].double(), formula(model.double()[0], x.double()), rtol=0, atol=0.05)


# ---------------------------------------------------------------- nn.MultiheadAttention's function, and classes built on it


def test_pytorchs_function_called_without_its_module():
    """As CLIP's attention pooling does."""

    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.mha = drawn(nn.MultiheadAttention(E, H))

        def forward(self, x):
            m = self.mha
            return F.multi_head_attention_forward(
                x[:1], x, x, E, H, m.in_proj_weight, m.in_proj_bias, None, None, False, 0.0, m.out_proj.weight,
                m.out_proj.bias, need_weights=False,
            )[0]  # fmt: skip

    model, x = Pool(), torch.randn(L, B, E)
    with attention_weights(model) as maps:
        output = model(x)
    assert torch.equal(output, model(x))
    _, expected = model.mha(x[:1], x, x, average_attn_weights=False)
    torch.testing.assert_close(maps[""], expected.detach())


class Gated(nn.MultiheadAttention):
    """PyTorch's layer, under another name for its input, and a softmax behind it that is none of attention."""

    def forward(self, signal):
        out, weights = super().forward(signal, signal, signal, need_weights=self.ask)
        return out * F.softmax(out, dim=-1), weights


@pytest.mark.parametrize("ask", [True, False])
def test_a_softmax_behind_attention_is_not_taken_for_it(ask):
    model = drawn(Gated(E, H, batch_first=True))
    model.ask, x = ask, tokens()
    with attention_weights(model) as maps:
        output, _ = model(signal=x)
    assert torch.equal(output, model(signal=x)[0])
    _, expected = nn.MultiheadAttention.forward(model, x, x, x, average_attn_weights=False)
    torch.testing.assert_close(maps[""], expected.detach())
    assert list(maps.skipped) == ["'': a softmax that no product with values was seen to use"]


def test_a_subclass_that_does_its_own_sums():
    class Own(nn.MultiheadAttention):
        def forward(self, x):  # (B * H, L, D), as PyTorch's own has it
            q, k, v = (t.unflatten(-1, (H, D)).transpose(1, 2).flatten(0, 1) for t in self.project(x))
            z = torch.bmm(F.softmax(torch.bmm(q, k.transpose(1, 2)) / math.sqrt(D), -1), v)
            return self.out_proj(z.unflatten(0, (-1, H)).transpose(1, 2).flatten(2))

        def project(self, x):
            return F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)

    model, x = drawn(Own(E, H, batch_first=True)), tokens()
    with attention_weights(model) as maps:
        model(x)
    _, expected = nn.MultiheadAttention.forward(model, x, x, x, average_attn_weights=False)
    torch.testing.assert_close(maps[""], expected.detach())


def test_with_the_papers_layout_both_count():
    from paper_layout import paper_layout

    model, x = drawn(nn.MultiheadAttention(E, H, batch_first=True)), tokens()
    with attention_weights(model) as alone:
        model(x, x, x)
    for contexts in ([paper_layout(), attention_weights(model)], [attention_weights(model), paper_layout()]):
        with contextlib.ExitStack() as stack:
            entered = [stack.enter_context(context) for context in contexts]
            model(x, x, x)
        paper, maps = sorted(entered, key=lambda context: isinstance(context, dict))
        assert paper.calls == 1
        torch.testing.assert_close(torch.stack(maps.calls(""), -3).reshape(alone[""].shape), alone[""])


# ---------------------------------------------------------------- a softmax written out


def folded(q, k, v):
    """(B * H, L, D) and batched products; the softmax is a function."""
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    return torch.bmm(F.softmax(torch.bmm(q, k.transpose(1, 2)) * D**-0.5, dim=-1), v).unflatten(0, (B, H))


def folded_after(q, k, v):
    """Heads side by side in the softmax, folded into the batch for the second product, as BLOOM does."""
    weights = torch.baddbmm(q.new_zeros(1), q.flatten(0, 1), k.flatten(0, 1).mT, beta=0.0, alpha=D**-0.5)
    weights = weights.view(B, H, *weights.shape[1:]).softmax(-1)
    return torch.bmm(weights.view(B * H, *weights.shape[2:]), v.flatten(0, 1)).view(B, H, -1, D)


def by_einsum(q, k, v):
    weights = torch.einsum("bhid, bhjd -> bhij", q, k).div_(math.sqrt(D)).softmax(-1)
    return torch.einsum("bhij,bhjd->bhid", weights, v)


def channels_first(q, k, v):
    weights = torch.softmax(input=q @ k.mT / math.sqrt(D), dim=-1)
    return (v.mT @ weights.permute(0, 1, 3, 2)).mT


def keys_down(q, k, v):
    """The softmax runs over rows of a transposed map."""
    weights = (k @ q.mT / math.sqrt(D)).softmax(-2)  # (B, H, S, L)
    return (v.mT @ weights).mT


def by_keywords(q, k, v):
    scores = torch.reshape(input=torch.matmul(input=q, other=k.mT), shape=(B, H, L, L)) / math.sqrt(D)
    weights = torch.transpose(input=torch.softmax(input=scores, dim=-1), dim0=2, dim1=3)
    return torch.transpose(input=torch.matmul(input=v.mT, other=weights), dim0=2, dim1=3)


def masked_in_place(q, k, v):
    scores = q @ k.transpose(-2, -1)
    scores *= D**-0.5
    scores += torch.zeros(L, L).masked_fill(CAUSAL, -torch.inf)
    return nn.Softmax(dim=-1)(scores).type_as(v) @ v


WAYS = {
    "products": (written_out, {}),
    "folded": (folded, {}),
    "folded after": (folded_after, {}),
    "einsum": (by_einsum, {}),
    "channels first": (channels_first, {}),
    "keys down": (keys_down, {}),
    "by keywords": (by_keywords, {}),
    "masked in place": (masked_in_place, {"hidden": CAUSAL}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS)
def test_a_softmax_written_out(way, mode):
    attend, options = WAYS[way]
    model, x = two(attend).train(mode == "train"), tokens()
    with MODES[mode]():
        plain = model(x)
        with attention_weights(model) as maps:
            output = model(x)
        assert torch.equal(output, plain)
        for name, layer, given in (("0", model[0], x), ("1", model[1], model[0](x))):
            # a class that folds heads into the batch has a map that does
            torch.testing.assert_close(maps[name].reshape(B, H, L, L), formula(layer, given, **options))
    assert maps["0"].shape == ((B * H, L, L) if way == "folded" else (B, H, L, L))
    assert maps.seen == {"'0': softmax": 1, "'1': softmax": 1}
    assert not maps.skipped


def test_sinks_and_softcaps():
    """A sink takes its share in the softmax and is cut off: what values are multiplied by does not sum to 1."""
    sink = torch.randn(H, 1, 1)

    def attend(q, k, v):
        scores = 3 * torch.tanh(q @ k.mT / 3)
        weights = torch.cat([scores, sink.expand(B, H, L, 1)], dim=-1).softmax(-1)
        return weights[..., :-1] @ v

    layer, x = drawn(Layer(attend)), tokens()
    with attention_weights(layer) as maps:
        layer(x)
    q, k, _ = layer.heads(x, x)
    exps = (3 * torch.tanh(q @ k.mT / 3)).exp()
    torch.testing.assert_close(maps[""], (exps / (exps.sum(-1, keepdim=True) + sink.exp())).detach())
    assert maps[""].sum(-1).max() < 1


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_dropout_on_a_softmax_written_out(before, inplace):
    def attend(q, k, v):
        return F.dropout((q @ k.mT / math.sqrt(D)).softmax(-1), 0.4, inplace=inplace) @ v

    layer, x = drawn(Layer(attend)), tokens()
    torch.manual_seed(7)
    plain = layer(x)
    torch.manual_seed(7)
    with attention_weights(layer, before_dropout=before) as maps:
        assert torch.equal(layer(x), plain)
    whole, kept = formula(layer, x), maps[""] != 0
    torch.testing.assert_close(maps[""], whole if before else whole * kept / 0.6)
    assert kept.all() == before


def test_a_map_is_what_was_used_though_the_model_goes_on_to_change_it():
    def attend(q, k, v):
        weights = (q @ k.mT / math.sqrt(D)).softmax(-1)
        z = weights @ v
        weights.zero_()
        return z

    layer, x = drawn(Layer(attend)), tokens()
    with torch.no_grad(), attention_weights(layer) as maps:
        layer(x)
    torch.testing.assert_close(maps[""], formula(layer, x))


def test_every_kind_in_one_model():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.MultiheadAttention(E, H, batch_first=True)
            self.b, self.c = Layer(written_out), Layer(imported)

        def forward(self, x):
            return self.c(self.b(self.a(x, x, x, need_weights=False)[0]))

    model, x = drawn(Mixed()), tokens()
    with attention_weights(model) as maps:
        model(x)
    assert list(maps) == ["a", "b", "c"]
    x, weights = model.a(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(maps["a"], weights.detach())
    torch.testing.assert_close(maps["b"], formula(model.b, x))
    torch.testing.assert_close(maps["c"], formula(model.c, model.b(x)))


# ---------------------------------------------------------------- what is not taken for attention, and is said


class Router(nn.Module):
    """A mixture of experts: its softmax is over experts, from a matrix."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(E, 3), nn.Linear(E, 3 * E)

    def forward(self, x):
        best = self.gate(x).softmax(-1).topk(1)
        return self.experts(x).unflatten(-1, (3, E)).gather(-2, best[1][..., None].expand(-1, -1, -1, E)).squeeze(-2)


class Linear(nn.Module):
    """Linear attention: softmaxes over features, and no map at all."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(E, D)) for _ in range(3))

    def forward(self, x):
        return (x @ self.q).softmax(-1) @ ((x @ self.k).softmax(-2).mT @ (x @ self.v))


class Pooling(nn.Module):
    """One learned query and no projection: its scores look like a layer's output."""

    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, E))

    def forward(self, x):
        return (self.query @ x.mT).softmax(-1) @ x


class Sigmoid(Layer):
    def __init__(self):
        super().__init__(lambda q, k, v: torch.sigmoid(q @ k.mT) @ v)


class Decayed(Layer):
    """Linear attention as MiniMax has it: products fade with distance, and nothing makes them shares."""

    def __init__(self):
        fading = 0.5 ** torch.arange(L).sub(torch.arange(L)[:, None]).abs()
        super().__init__(lambda q, k, v: (q @ k.mT * fading) @ v)


class Unused(Layer):
    """What the softmax gave goes a way that is not followed."""

    def __init__(self):
        super().__init__(lambda q, k, v: ((q @ k.mT).softmax(-1).unsqueeze(-1) * v[:, :, None]).sum(-2))


class Talking(Layer):
    """Heads are mixed by a matrix between the products: a way that is not followed."""

    def __init__(self):
        super().__init__(lambda q, k, v: self.mix((q @ k.mT).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1) @ v)
        self.mix = nn.Linear(H, H)


class Masking(nn.Module):
    """The scores of all heads come from a layer, and nothing multiplies what the softmax gave."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(E, H * L)

    def forward(self, x):
        weights = self.scores(x).unflatten(-1, (H, L)).transpose(1, 2).softmax(-1)
        return (weights[..., None] * x[:, None, None]).sum(-2).mean(1)


class Columns(Layer):
    """A softmax over keys, then summed over queries: another axis than that of the softmax."""

    def __init__(self):
        super().__init__(lambda q, k, v: (q @ k.mT).softmax(-1).mT @ v)


PASSED_BY = {
    Router: ("'other': a softmax that no product with values was seen to use", False),
    Linear: ("'other': a softmax that values are multiplied by, of what was not seen to be products", True),
    Pooling: ("'other': a softmax that values are multiplied by, of what was not seen to be products", True),
    Decayed: ("'other': a product of two tensors that a third is multiplied by, as in linear attention", False),
    Sigmoid: ("'other': products of queries and keys that values are multiplied by, without a softmax", True),
    Unused: ("'other': a softmax of products of queries and keys, that no product with values was seen to use", True),
    Talking: ("'other': a softmax that values are multiplied by, of what was not seen to be products", True),
    Masking: ("'other': a softmax that no product with values was seen to use", True),
    Columns: ("'other': a softmax of products of queries and keys, that no product with values was seen to use", True),
}


@pytest.mark.parametrize("kind", PASSED_BY)
def test_what_is_not_taken_for_attention_is_said(kind):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.other = Layer(imported), kind()

        def forward(self, x):
            return self.other(self.layer(x))

    sentence, loud = PASSED_BY[kind]
    model, x = drawn(Model()), tokens()
    said = pytest.warns(UserWarning, match="Model: recorded in part. Not taken: " + sentence)
    with said if loud else contextlib.nullcontext(), attention_weights(model) as maps:
        output = model(x)
    assert torch.equal(output, model(x))
    assert list(maps) == ["layer"]
    assert [told for told in maps.skipped if told.startswith(sentence)]
    with (
        pytest.raises(RuntimeError, match=f"{kind.__name__}: it ran, and no attention was seen.*Not taken.*softmax="),
        attention_weights(model.other),
    ):
        model.other(x)


def test_a_softmax_that_the_reader_vouches_for():
    model, x = drawn(nn.Sequential(Layer(imported), Pooling())), tokens()
    with attention_weights(model, softmax="1", keep_grad=True) as maps:
        output = model(x)
    assert list(maps) == ["0", "1"]
    expected = formula_of_pooling = (model[1].query @ model[0](x).mT).exp()
    expected = expected / formula_of_pooling.sum(-1, keepdim=True)
    torch.testing.assert_close(maps["1"], expected)
    torch.testing.assert_close(torch.autograd.grad(output.sum(), maps["1"])[0], model[0](x).sum(-1)[:, None])


def test_a_kernel_of_another_package_is_named():
    with torch.library._scoped_library("capturetest", "DEF") as library:
        library.define("flash_attn_fwd(Tensor q, Tensor k, Tensor v) -> Tensor")
        library.impl("flash_attn_fwd", written_out, "CompositeExplicitAutograd")
        model = drawn(nn.Sequential(Layer(imported), Layer(torch.ops.capturetest.flash_attn_fwd)))
        with (
            pytest.warns(UserWarning, match="'1': flash_attn_fwd, a kernel that hands out no weights"),
            attention_weights(model) as maps,
        ):
            model(tokens())
        assert list(maps) == ["0"]
        with (
            pytest.raises(RuntimeError, match=r"no attention was seen.*'': flash_attn_fwd.*attn_implementation='sdpa'"),
            attention_weights(model[1]),
        ):
            model[1](tokens())


class Scriptable(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_module_is_named():
    scripted = torch.jit.script(Scriptable())
    model = nn.Sequential(drawn(Layer(imported)), scripted)
    with (
        pytest.warns(UserWarning, match="recorded in part.*'1': a scripted module, not seen into"),
        attention_weights(model) as maps,
    ):
        model(tokens())
    assert list(maps) == ["0"]
    with (
        pytest.raises(RuntimeError, match=r"no attention was seen.*'': a scripted module"),
        attention_weights(scripted),
    ):
        scripted(tokens())


def test_a_model_that_was_not_called_is_said():
    model, x = Scriptable(), tokens()
    with (
        pytest.warns(
            UserWarning, match="Scriptable: nothing was recorded, for no forward of it ran.*not model.forward"
        ),
        attention_weights(model) as maps,
    ):
        model.forward(x)
    assert not maps
    layer = Layer(imported)  # its projections run
    with (
        pytest.raises(RuntimeError, match=r"Layer: it ran, and no attention was seen.*called itself"),
        attention_weights(layer),
    ):
        layer.forward(x)


def test_nested_tensors_of_ones_own_are_said():
    model = Scriptable()
    x = torch.nested.nested_tensor([torch.randn(n, 1, D) for n in (3, 5)], layout=torch.jagged)  # (B, *, H, D)
    with pytest.raises(RuntimeError, match=r"SDPA, not recomputed .nested tensors"), attention_weights(model):
        output = model(x.transpose(1, 2))
    assert output.is_nested


def test_a_mask_beside_is_causal():
    """A kernel for CPUs combines them; elsewhere PyTorch refuses, in its own words."""
    seen = torch.arange(L) != 1
    model, x = drawn(Layer(lambda q, k, v: imported(q, k, v, seen.expand(L, L), model.p, is_causal=True))), tokens()
    model.p = 0.1
    with pytest.raises(RuntimeError, match="Explicit attn_mask should not be set"), attention_weights(model):
        model(x)
    model.p = 0.0
    try:
        plain = model(x)
    except RuntimeError:  # so it is in 2.14
        return
    with attention_weights(model) as maps:
        assert torch.equal(model(x), plain)
    torch.testing.assert_close(maps[""], formula(model, x, hidden=CAUSAL | ~seen))


def test_attention_outside_of_the_model_is_nobodys():
    model, x = drawn(Layer(imported)), tokens()
    with attention_weights(model) as maps:
        model(x)
        imported(x, x, x)
        drawn(Layer(imported))(x)
    assert list(maps) == [""]
    assert not isinstance(maps[""], list)


# ---------------------------------------------------------------- what is kept


LAYERS = {
    "pattern": "*.1.self_attn",
    "name of what holds it": "layers.1",
    "collection": {"layers.1.self_attn", "layers.1.linear1"},
}


@pytest.mark.parametrize("wanted", [*LAYERS, "module", "modules"])
def test_only_the_layers_that_are_wanted(wanted):
    layer = nn.TransformerEncoderLayer(E, H, 2 * E, 0.0, batch_first=True)
    model, x = drawn(nn.TransformerEncoder(layer, 3)), tokens()
    layers = LAYERS.get(wanted) or {"module": model.layers[1], "modules": {model.layers[1].self_attn}}[wanted]
    with attention_weights(model) as all_of_them:
        model(x)
    for context in (torch.enable_grad, torch.no_grad):
        with context(), attention_weights(model, layers=layers) as maps:
            model(x)
        assert list(maps) == ["layers.1.self_attn"]
        torch.testing.assert_close(maps["layers.1.self_attn"], all_of_them["layers.1.self_attn"])


@pytest.mark.parametrize("option", ["layers", "softmax"])
@pytest.mark.parametrize(("wanted", "told"), [("layer.1", "'layer.1'"), ([nn.Linear(2, 2)], "'Linear'")])
def test_layers_that_are_not_in_the_model(option, wanted, told):
    with pytest.raises(ValueError, match=f"{option}: expected names or modules in model.named_modules.., got {told}"):
        attention_weights(two(imported), **{option: wanted})


def test_layers_in_which_nothing_attends():
    model = two(imported)
    with (
        pytest.raises(RuntimeError, match="Sequential: it ran, and no attention was seen in layers="),
        attention_weights(model, layers="*.out"),
    ):
        model(tokens())


@pytest.mark.parametrize("attend", [imported, written_out])
def test_less_of_each_map(attend):
    layer = drawn(Layer(attend))
    inputs = [tokens(), tokens(S)]
    options = {"last": True, "queries": [0], "dtype": torch.float16, "cpu": True}
    with attention_weights(layer, **options) as maps:
        for x in inputs:
            layer(x)
    weights = maps[""]
    assert weights.dtype == torch.float16
    assert weights.untyped_storage().nbytes() == 2 * B * H * S
    torch.testing.assert_close(weights.double(), formula(layer, inputs[-1])[:, :, :1], rtol=0, atol=1e-3)
    with attention_weights(layer, queries=slice(-2, None)) as maps:
        layer(inputs[0])
    torch.testing.assert_close(maps[""], formula(layer, inputs[0])[:, :, -2:])


@pytest.mark.parametrize("option", [{"queries": [0]}, {"dtype": torch.float16}])
def test_parts_of_a_map_are_not_the_graphs(option):
    with pytest.raises(ValueError, match="keep_grad: expected no queries= and no dtype="):
        attention_weights(two(imported), keep_grad=True, **option)


@pytest.mark.parametrize("attend", [imported, written_out, folded])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad])
def test_maps_are_all_that_is_kept(attend, context):
    model = two(attend)
    with context(), attention_weights(model) as maps:
        model(tokens())
    for weights in maps.values():
        assert weights.untyped_storage().nbytes() == weights.numel() * weights.element_size()
        assert weights.grad_fn is None


@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"attn_mask": ~torch.ones(200, 200).triu(1).bool()}],
    ids=["plain", "causal", "masked"],
)
def test_the_memory_is_the_maps_and_one_layers_scores(options):
    model, x = two(lambda q, k, v: imported(q, k, v, **options)), tokens(200)

    def record():
        with attention_weights(model):
            model(x)

    one = B * H * 200 * 200 * x.element_size()
    with torch.no_grad():
        record()
        more = peak(record) - peak(lambda: model(x))
    assert 2.5 * one < more < 3.2 * one, more / one  # two layers' maps, and scores of one


# ---------------------------------------------------------------- gradients with respect to the weights


def multihead(x, mha, **ask):
    return mha(x, x, x, **ask)[0]


def used(attend):
    layer = drawn(Layer(attend))
    return layer, lambda x: layer(x), layer.out.weight, layer.v.weight, layer.v.bias


def packed(**ask):
    mha = drawn(nn.MultiheadAttention(E, H, batch_first=True))
    W, b = mha.in_proj_weight[2 * E :], mha.in_proj_bias[2 * E :]
    return mha, lambda x: multihead(x, mha, **ask), mha.out_proj.weight, W, b


IN_THE_GRAPH = {
    "sdpa": lambda: used(imported),
    "written out": lambda: used(written_out),
    "folded": lambda: used(folded),
    "folded after": lambda: used(folded_after),
    "keys down": lambda: used(keys_down),
    "channels first": lambda: used(channels_first),
    "einsum": lambda: used(by_einsum),
    "MultiheadAttention": lambda: packed(need_weights=False),
    "MultiheadAttention, asked": lambda: packed(need_weights=True),
}


@pytest.mark.parametrize("options", [{}, {"before_dropout": True}, {"cpu": True}])
@pytest.mark.parametrize("way", IN_THE_GRAPH)
def test_the_output_has_a_gradient_with_respect_to_every_heads_weights(way, options):
    """It is linear in them: sum over heads of A_i v_i W^O_i, so the gradient at (r, s) is u_r . W^O_i v_is."""
    model, run, W_o, W_v, b_v = IN_THE_GRAPH[way]()
    x, u = tokens(), torch.randn(L, E)
    plain = run(x)
    with attention_weights(model, keep_grad=True, **options) as maps:
        output = run(x)
    torch.testing.assert_close(output, plain)
    (got,) = torch.autograd.grad((output * u).sum(), maps[""], retain_graph=True)
    v = (x @ W_v.T + b_v).unflatten(-1, (H, D)).transpose(1, 2)  # (B, H, L, D)
    right = torch.stack([(u @ W_o[:, i * D : (i + 1) * D]) @ v[:, i].mT for i in range(H)], 1)
    torch.testing.assert_close(got.reshape(right.shape), right.detach())
    # and the gradients of everything before it stay what they were
    wanted = list(model.parameters())
    for a, b in zip(torch.autograd.grad(output.sum(), wanted), torch.autograd.grad(plain.sum(), wanted), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("ask", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_the_same_in_training_with_dropout(ask, before):
    mha = drawn(nn.MultiheadAttention(E, H, batch_first=True, dropout=0.4))
    x = tokens()
    torch.manual_seed(7)
    plain, after = multihead(x, mha, need_weights=ask), torch.rand(3)
    torch.manual_seed(7)
    with attention_weights(mha, keep_grad=True, before_dropout=before and ask) as maps:
        output = multihead(x, mha, need_weights=ask)
    assert torch.equal(torch.rand(3), after)
    torch.testing.assert_close(output, plain)
    (got,) = torch.autograd.grad(output.square().sum(), maps[""])
    assert got.abs().max() > 0


def test_an_unbatched_input_has_them_too():
    mha, x = drawn(nn.MultiheadAttention(E, H)), torch.randn(L, E)
    for ask in (True, False):
        with attention_weights(mha, keep_grad=True) as maps:
            output = multihead(x, mha, need_weights=ask)
        assert maps[""].shape == (H, L, L)
        assert torch.autograd.grad(output.sum(), maps[""])[0].abs().max() > 0


# ---------------------------------------------------------------- ways of running


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("attend", [imported, written_out])
def test_checkpointing_with_the_backward_pass_inside(attend, reentrant):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = two(attend)

        def forward(self, x):
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=reentrant)
            return x

    model, x, grads = Model(), tokens().requires_grad_(), []
    model(x).sum().backward()
    grads.append([p.grad for p in model.parameters()])
    model.zero_grad()
    with attention_weights(model) as maps:
        model(x).sum().backward()
    grads.append([p.grad for p in model.parameters()])
    assert all(map(torch.equal, *grads))
    assert [w.shape for w in maps.values()] == [(B, H, L, L)] * 2
    again = [told for told in maps.skipped if "ran again in the backward pass" in told]
    assert len(again) == 2


@FROM_2_6
@pytest.mark.parametrize("whole", [True, False])
def test_models_compiled_and_run_before(whole):
    model, x = two(imported), tokens()
    with attention_weights(model) as maps:
        model(x)
    if whole:
        run = torch.compile(model, backend="eager")
    else:
        run = nn.Sequential(model[0], torch.compile(model[1], backend="eager"))
    run(x)
    for _ in range(2):
        with attention_weights(run) as compiled:
            run(x)
        assert [name.replace("_orig_mod", "").strip(".") for name in compiled] == ["0", "1"]
        for a, b in zip(compiled.values(), maps.values(), strict=True):
            assert torch.equal(a, b)
    run(x)  # and compiled models run compiled again
    assert torch._dynamo.eval_frame._stance.stance == "default"


@FROM_2_6
def test_contexts_that_close_out_of_order_leave_compiling_as_it_was():
    model, x = two(imported), tokens()
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    first, second = attention_weights(model), attention_weights(model)
    first.__enter__()
    second.__enter__()
    compiled(x)
    first.__exit__(None, None, None)
    assert torch._dynamo.eval_frame._stance.stance == "force_eager"
    second.__exit__(None, None, None)
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_threads_have_maps_of_their_own_calls():
    model = two(imported)
    inputs = [tokens(n) for n in range(2, 10)]
    expected = {}
    for x in inputs:
        with attention_weights(model) as maps:
            model(x)
        expected[x.shape[1]] = maps

    with attention_weights(model) as maps:
        started = threading.Barrier(len(inputs))

        def run(x):
            started.wait()
            for _ in range(5):
                model(x)

        threads = [threading.Thread(target=run, args=(x,)) for x in inputs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name in ("0", "1"):
        assert len(maps[name]) == 5 * len(inputs)
        for weights in maps[name]:
            assert torch.equal(weights, expected[weights.shape[-1]][name])


def test_threads_with_contexts_of_their_own_hear_only_themselves():
    """As where a server answers each request with the maps of its own call."""
    model = two(imported)
    inputs = [tokens(n) for n in range(2, 10)]
    found, started = {}, threading.Barrier(len(inputs))

    def run(x):
        with attention_weights(model) as maps:
            started.wait()  # all contexts are open
            model(x)
            started.wait()
        found[x.shape[1]] = maps

    threads = [threading.Thread(target=run, args=(x,)) for x in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x in inputs:
        torch.testing.assert_close(found[x.shape[1]]["0"], formula(model[0], x))
        assert list(found[x.shape[1]]) == ["0", "1"]


def test_copies_made_inside_are_ordinary_models():
    model, x = drawn(nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H, 9, batch_first=True), 2)), tokens()
    with attention_weights(model) as maps:
        copied = copy.deepcopy(model)
        pickled = pickle.loads(pickle.dumps(model))
        model(x)
        for other in (copied, pickled):
            other(x)
    for other in (copied, pickled):
        other(x)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules())
    assert [w.shape for w in maps.values()] == [(B, H, L, L)] * 2


def test_maps_are_saved_and_loaded():
    model, file = two(imported), io.BytesIO()
    with attention_weights(model) as maps:
        model(tokens())
        model[1](tokens())
    torch.save(maps, file)
    file.seek(0)
    loaded = torch.load(file)
    assert list(loaded) == list(maps)
    assert torch.equal(loaded["0"], maps["0"])
    assert all(map(torch.equal, loaded["1"], maps["1"]))


@pytest.mark.parametrize("attend", [imported, written_out])
def test_functional_calls_and_gradients(attend):
    model, x = two(attend), tokens()
    parameters = dict(model.named_parameters())

    def loss(parameters):
        return torch.func.functional_call(model, parameters, x).square().sum()

    plain = torch.func.grad(loss)(parameters)
    with attention_weights(model) as maps:
        got = torch.func.grad(loss)(parameters)
    assert all(torch.equal(got[name], plain[name]) for name in plain)
    torch.testing.assert_close(maps["0"] + 0, formula(model[0], x))


@pytest.mark.parametrize("attend", [imported, written_out])
def test_vmap(attend):
    model, x = two(attend), torch.randn(3, B, L, E)

    def run(x):
        with attention_weights(model) as maps:
            output = model(x)
        return output, dict(maps)

    output, maps = torch.vmap(run)(x)
    torch.testing.assert_close(output, torch.vmap(model)(x))
    for i in range(3):
        torch.testing.assert_close(maps["0"][i], formula(model[0], x[i]))
    with (
        pytest.raises(RuntimeError, match=r"'0': its weights live inside torch.vmap or an export.*return the maps"),
        attention_weights(model),
    ):
        torch.vmap(model)(x)


class WithMaps(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        with attention_weights(self.model) as maps:
            output = self.model(x)
        return output, *maps.values()


@FROM_2_6
@pytest.mark.parametrize("attend", [imported, written_out])
def test_export(attend):
    model, x, other = two(attend).eval(), tokens(), tokens()
    program = torch.export.export(WithMaps(model), (x,), strict=False).module()
    output, first, _ = program(other)
    torch.testing.assert_close(output, model(other))
    torch.testing.assert_close(first.detach(), formula(model[0], other))
    program = torch.export.export(model, (x,), strict=False).module()
    with attention_weights(program) as maps:  # what was exported attends in PyTorch's operators
        program(other)
    assert len(maps) >= 1
    with (
        pytest.raises(RuntimeError, match=r"its weights live inside torch.vmap or an export"),
        attention_weights(model),
    ):
        torch.export.export(model, (x,), strict=False)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("attend", [imported, written_out])
def test_tracing_and_scripting_inside(attend):
    model, x, other = two(attend).eval(), tokens(), tokens()
    traced = torch.jit.trace(WithMaps(model), (x,))
    output, first, _ = traced(other)
    torch.testing.assert_close(output, model(other))
    torch.testing.assert_close(first.detach(), formula(model[0], other))
    with attention_weights(model) as maps:
        torch.jit.script(Scriptable())(x)
        model(x)
    assert len(maps) == 2


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_graph_has_no_operator_that_onnx_lacks():
    """The exporter that traces knows no aten::mT, which a layer of PyTorch's does not bring along."""
    layer = drawn(nn.TransformerEncoderLayer(E, H, 9, batch_first=True)).eval()
    graph = str(torch.jit.trace(WithMaps(layer), (tokens(),), check_trace=False).inlined_graph)
    assert "aten::softmax" in graph
    assert "aten::mT" not in graph


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("dynamo", [True, False])
def test_an_onnx_file_hands_out_its_maps(dynamo, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    layer = drawn(nn.TransformerEncoderLayer(E, H, 9, batch_first=True)).eval().float()
    x, other, file = tokens().float(), tokens().float(), tmp_path / "maps.onnx"
    with torch.no_grad():
        torch.onnx.export(WithMaps(layer), (x,), str(file), dynamo=dynamo, input_names=["x"], verbose=False)
        _, expected = layer.self_attn(other, other, other, average_attn_weights=False)
    _, found = runtime.InferenceSession(str(file)).run(None, {"x": other.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)


def test_a_model_without_numbers():
    model = two(imported).to("meta")
    with attention_weights(model) as maps:
        model(torch.randn(B, L, E, device="meta"))
    assert maps["0"].shape == (B, H, L, L)
    assert maps["0"].is_meta


def test_a_default_device_entered_and_left_in_a_forward():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = drawn(nn.TransformerEncoder(nn.TransformerEncoderLayer(E, H, 9, batch_first=True), 1))

        def forward(self, x):
            with torch.device("cpu"):
                return self.encoder(x) + torch.zeros(1)

    model, x = Model(), tokens()
    with torch.device("cpu"), attention_weights(model) as maps:
        model(x)
    with attention_weights(model) as again:
        model(x)
    assert list(maps) == list(again) == ["encoder.layers.0.self_attn"]


def test_a_mode_of_the_readers_own_goes_on_seeing():
    class Listening(TorchFunctionMode):
        def __init__(self):
            self.seen = []

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.seen.append(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    model, x = two(imported), tokens()
    with Listening() as alone:
        model(x)
    with Listening() as outer, attention_weights(model) as maps, Listening() as inner:
        model(x)
    assert outer.seen == inner.seen == alone.seen
    assert len(maps) == 2


@pytest.mark.parametrize("attend", [imported, written_out])
@pytest.mark.parametrize("inner", [{}, {"keep_grad": True}])
def test_contexts_within_each_other_hear_the_same(attend, inner):
    model, x = two(attend), tokens()
    with attention_weights(model) as a, attention_weights(model, **inner) as b, attention_weights(model[1]) as c:
        model(x)
    for name in ("0", "1"):
        torch.testing.assert_close(a[name], b[name].detach())
    assert list(c) == [""]
    torch.testing.assert_close(a["1"], c[""])
    assert not a.skipped


def test_ctrl_c_within_a_forward():
    def attend(q, k, v):
        imported(q, k, v)
        raise KeyboardInterrupt

    model = two(attend)
    with pytest.raises(KeyboardInterrupt), attention_weights(model) as maps:
        model(tokens())
    assert list(maps) == ["0"]
    with pytest.raises(KeyboardInterrupt), attention_weights(model):
        model(tokens())


def test_a_shared_layer_has_one_name_and_a_layer_of_layers_its_own():
    layer = drawn(Layer(imported))
    model = nn.Sequential(layer, layer)
    with attention_weights(model) as maps:
        model(tokens())
    assert list(maps) == ["0"]
    assert len(maps["0"]) == 2


@pytest.fixture
def one_process(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_data_parallel_training(one_process):
    model, x = two(imported), tokens()
    with attention_weights(model) as maps:
        plain = model(x)
    parallel = nn.parallel.DistributedDataParallel(model)
    with attention_weights(parallel) as wrapped, attention_weights(model) as inner:
        output = parallel(x)
        output.sum().backward()
    assert torch.equal(output, plain)
    for name, weights in maps.items():
        assert torch.equal(wrapped[f"module.{name}"], weights)
        assert torch.equal(inner[name], weights)


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
def test_sharded_parameters(one_process):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("this PyTorch has no fully_shard")
    model, x = two(imported), tokens()
    with attention_weights(model) as maps:
        plain = model(x)
    for layer in model:
        fsdp.fully_shard(layer, mesh=device_mesh.init_device_mesh("cpu", (1,)))
    try:
        model(x)
    except AttributeError as error:  # so it is in 2.6
        pytest.skip(f"this PyTorch shards nothing on a CPU: {error}")
    with attention_weights(model) as sharded:
        assert torch.equal(model(x), plain)
    assert all(torch.equal(sharded[name], weights) for name, weights in maps.items())


# ---------------------------------------------------------------- flex_attention


def relative(score, b, h, i, j):
    return score + (j - i) * 0.1 * h


def causal(b, h, i, j):
    return i >= j


FLEX = {
    "plain": ({}, None, None),
    "score_mod": ({"score_mod": relative}, (torch.arange(L) - torch.arange(L)[:, None]) * 0.1, None),
    "block_mask": ({"mask": causal}, None, CAUSAL),
    "scale": ({"scale": 0.3}, None, None),
    "grouped queries": ({"enable_gqa": True}, None, None),
}


@FROM_2_6
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("way", FLEX)
def test_flex_attention(way, compiled):
    options, bias, hidden = FLEX[way]
    options = dict(options)
    if "mask" in options:
        options["block_mask"] = create_block_mask(options.pop("mask"), None, None, L, L, device="cpu")
    call = torch.compile(flex_attention, backend="eager") if compiled else flex_attention
    scale = options.pop("scale", D**-0.5)

    def attend(*heads):  # some versions want a width that is a power of two
        return call(*(F.pad(t, (0, 8 - D)) for t in heads), scale=scale, **options)[..., :D]

    model = two(attend, groups=2 if way == "grouped queries" else 1)
    model, x = model.requires_grad_(False).float(), tokens().float()
    plain = model(x)
    with attention_weights(model) as maps:
        output = model(x)
    torch.testing.assert_close(output, plain)
    assert list(maps) == ["0", "1"]
    q, k, _ = model[0].heads(x, x)
    scores = q @ k.repeat_interleave(H // k.shape[1], 1).mT * scale
    if bias is not None:
        scores = scores + bias.float() * torch.arange(H)[:, None, None]
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    torch.testing.assert_close(maps["0"], scores.softmax(-1))
    assert maps.seen == {"'0': flex_attention": 1, "'1': flex_attention": 1}


# ---------------------------------------------------------------- on a GPU


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("keys", [48, 100])
def test_on_a_gpu_dropout_falls_as_without_recording(dtype, keys):
    """Whichever kernel PyTorch takes: the loss and the gradients are those of a run without the context, bit for bit."""
    width = 32

    class Model(nn.Module):
        def forward(self, q, k, v):
            return imported(q, k, v, dropout_p=0.3)

    model = Model()
    q = torch.randn(B, H, 64, width, device="cuda", dtype=dtype, requires_grad=True)
    k, v = (torch.randn(B, H, keys, width, device="cuda", dtype=dtype, requires_grad=True) for _ in range(2))
    torch.manual_seed(0)
    plain, after = model(q, k, v), torch.rand(3, device="cuda")
    torch.manual_seed(0)
    with attention_weights(model) as maps:
        output = model(q, k, v)
    assert torch.equal(torch.rand(3, device="cuda"), after)
    assert torch.equal(output, plain)
    assert 0.6 < (maps[""] != 0).float().mean() < 0.8
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close((maps[""] @ v.float()).to(dtype), output, rtol=tolerance, atol=tolerance)


@GPU
def test_on_a_gpu_the_fused_kernel_is_left_in_place_and_its_map_is_right():
    model = two(lambda q, k, v: imported(q, k, v, is_causal=True)).half().cuda()
    x = tokens(64).half().cuda()
    plain = model(x)
    with attention_weights(model, cpu=True) as maps:
        assert torch.equal(model(x), plain)
    hidden = torch.ones(64, 64).triu(1).bool()
    expected = formula(model[0].double().cpu(), x.double().cpu(), hidden=hidden)
    torch.testing.assert_close(maps["0"].double(), expected, rtol=0, atol=5e-3)


@GPU
def test_on_a_gpu_flex_attention_has_maps_and_gradients():
    compiled = torch.compile(flex_attention)
    mask = create_block_mask(causal, None, None, 128, 128, device="cuda")
    model = two(lambda q, k, v: compiled(*(F.pad(t, (0, 10)) for t in (q, k, v)), block_mask=mask, scale=0.3)[..., :D])
    model, x = model.float().cuda(), tokens(128).float().cuda()
    plain = model(x)
    plain.sum().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with attention_weights(model) as maps:
        output = model(x)
        output.sum().backward()
    torch.testing.assert_close(output, plain, rtol=1e-3, atol=1e-3)
    for p, grad in zip(model.parameters(), grads, strict=True):
        torch.testing.assert_close(p.grad, grad, rtol=2e-2, atol=5e-2)  # the compiled kernel multiplies in TF32
    hidden = torch.ones(128, 128, device="cuda").triu(1).bool()
    torch.testing.assert_close(maps["0"], formula(model[0], x, hidden=hidden, scale=0.3), rtol=1e-3, atol=1e-3)


@GPU
def test_on_a_gpu_checkpointing_recomputes_on_another_thread():
    model, x = two(imported).cuda(), tokens().cuda().requires_grad_()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = model

        def forward(self, x):
            return checkpoint(self.layers, x, use_reentrant=False)

    run = Model()
    with attention_weights(run) as maps:
        run(x).sum().backward()
    assert [w.shape for w in maps.values()] == [(B, H, L, L)] * 2
