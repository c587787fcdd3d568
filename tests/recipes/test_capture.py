"""capture.py records what the formula says, of every head of any model, and the model does not notice."""

import contextlib
import math
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from capture import attention_weights, sdpa_weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.overrides import _get_current_function_mode_stack

B, L, S = 2, 5, 7
PADDING = torch.tensor([[False] * 3 + [True] * 2, [False] * 4 + [True]])  # (B, L)
MODES = {
    "train": torch.enable_grad,
    "eval": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
]


def drawn(module, std=0.5):
    """The module with parameters that make its attention far from uniform."""
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=std)
    return module


def encoder(heads=4, width=6, layers=2, dropout=0.0, batch_first=True, **options):
    layer = nn.TransformerEncoderLayer(heads * width, heads, 16, dropout, batch_first=batch_first, **options)
    return drawn(nn.TransformerEncoder(layer, layers))


def batch(model, length=L, dtype=None):
    layer = next(m for m in model.modules() if isinstance(m, nn.MultiheadAttention))
    torch.manual_seed(1)
    x = torch.randn(B, length, layer.embed_dim, dtype=dtype)
    return x if layer.batch_first else x.transpose(0, 1)


@contextlib.contextmanager
def slow():
    """PyTorch without its fused paths for inference."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@contextlib.contextmanager
def unfused_layers(model):
    """Hooks that do nothing: TransformerEncoderLayer leaves its own fused path, nested tensors stay."""
    handles = [
        m.register_forward_hook(lambda *_: None) for m in model.modules() if isinstance(m, nn.MultiheadAttention)
    ]
    yield
    for handle in handles:
        handle.remove()


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def left_clean(model):
    return hooks_of(model) == 0 and not _get_current_function_mode_stack()


# ---------------------------------------------------------------- the formula, written without PyTorch's attention


def formula(mha, query, key, padding=None, mask=None):
    """Weights (B, H, L, S or more) of an nn.MultiheadAttention, head by head, from its parameters."""
    if mha.batch_first or query.dim() == 2:
        query, key = (x[None] if x.dim() == 2 else x for x in (query, key))
    else:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    E, H = mha.embed_dim, mha.num_heads
    D = E // H
    if mha.in_proj_weight is not None:
        W_q, W_k, _ = mha.in_proj_weight.chunk(3)
    else:
        W_q, W_k = mha.q_proj_weight, mha.k_proj_weight
    b_q, b_k, _ = mha.in_proj_bias.chunk(3) if mha.in_proj_bias is not None else (0, 0, 0)
    q, k = query @ W_q.T + b_q, key @ W_k.T + b_k
    more = []
    if mha.bias_k is not None:
        more.append(mha.bias_k.expand(k.shape[0], 1, E))
    if mha.add_zero_attn:
        more.append(torch.zeros_like(k[:, :1]))
    k = torch.cat([k, *more], 1)
    heads = []
    for i in range(H):
        scores = q[..., i * D : (i + 1) * D] @ k[..., i * D : (i + 1) * D].mT / math.sqrt(D)
        for hidden in (mask, None if padding is None else padding[:, None]):
            if hidden is not None:
                scores = scores.masked_fill(F.pad(hidden, (0, len(more))), -torch.inf)
        exps = (scores - scores.amax(-1, keepdim=True)).exp()
        heads.append(exps / exps.sum(-1, keepdim=True))
    return torch.stack(heads, 1)


def inputs_of(model, run):
    """Name of an attention layer -> the arguments of its calls, from a run without capture and without fused paths."""
    seen, handles = {}, []
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            note = lambda m, args, kwargs, name=name: seen.setdefault(name, []).append((m, args, kwargs))  # noqa: E731
            handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
    with slow():
        run()
    for handle in handles:
        handle.remove()
    return seen


class Own(nn.Module):
    """Attention of one's own, with the options that stock layers do not use, called twice."""

    def __init__(self, heads, width, batch_first, kdim, bias, bias_kv, zero, ask):
        super().__init__()
        self.mixer = nn.MultiheadAttention(
            heads * width,
            heads,
            batch_first=batch_first,
            kdim=kdim,
            vdim=kdim,
            bias=bias,
            add_bias_kv=bias_kv,
            add_zero_attn=zero,
        )
        self.ask = ask

    def forward(self, x, y):
        x = self.mixer(x, y, y, need_weights=self.ask)[0]
        return self.mixer(query=x, key=y, value=y, need_weights=self.ask)[0]


sizes = {
    "heads": st.integers(1, 5),
    "width": st.integers(1, 5),
    "batch_first": st.booleans(),
    "seed": st.integers(0, 10**6),
}


@st.composite
def cases(draw):
    """(model, run, padding of the keys of encoder layers): float64, any mode, any mask."""
    heads, width, batch_first, seed = (draw(sizes[name]) for name in sizes)
    E, options = heads * width, {"norm_first": draw(st.booleans()), "bias": draw(st.booleans()), "dtype": torch.float64}
    b, n, m = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    kind, train = draw(st.sampled_from(["encoder", "decoder", "transformer", "own"])), draw(st.booleans())
    causal = draw(st.booleans()) and torch.ones(n, n, dtype=torch.bool).triu(1)
    causal = causal if torch.is_tensor(causal) else None
    padded = draw(st.booleans())
    torch.manual_seed(seed)
    lengths = torch.randint(1, n + 1, (b,))
    padding = torch.arange(n) >= lengths[:, None] if padded else None

    def tokens(count, features=E):
        shape = (b, count, features) if batch_first else (count, b, features)
        return torch.randn(shape, dtype=torch.float64)

    x, y = tokens(n), tokens(m)
    if kind == "encoder":
        layer = nn.TransformerEncoderLayer(E, heads, 8, 0.0, batch_first=batch_first, **options)
        model = nn.TransformerEncoder(layer, 2)
        arguments, keywords = (x,), {"mask": causal, "src_key_padding_mask": padding}
    elif kind == "decoder":
        layer = nn.TransformerDecoderLayer(E, heads, 8, 0.0, batch_first=batch_first, **options)
        model = nn.TransformerDecoder(layer, 2)
        arguments, keywords = (x, y), {"tgt_mask": causal, "tgt_key_padding_mask": padding}
    elif kind == "transformer":
        model = nn.Transformer(E, heads, 1, 1, 8, 0.0, batch_first=batch_first, **options)
        arguments, keywords = (
            (x, y),
            {"src_mask": causal, "src_key_padding_mask": padding, "memory_key_padding_mask": padding},
        )
    else:
        kdim = draw(st.sampled_from([E, E + 1]))
        model = Own(
            heads,
            width,
            batch_first,
            kdim,
            options["bias"],
            draw(st.booleans()),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        model = model.double()
        arguments, keywords = (x, tokens(m, kdim)), {}
        if draw(st.booleans()):
            arguments = tuple(a[0] if batch_first else a[:, 0] for a in arguments)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    model.train(train)
    context = MODES[draw(st.sampled_from(["train", "no_grad", "inference"]))]
    return model, lambda: model(*arguments, **keywords), context


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(cases())
def test_any_model_gives_the_weights_of_the_formula(case):
    model, run, context = case
    with context():
        expected = inputs_of(model, run)
        plain = run()
        with attention_weights(model) as maps:
            output = run()
    torch.testing.assert_close(output, plain, rtol=1e-10, atol=1e-10)
    assert list(maps) == list(expected)
    for name, calls in expected.items():
        assert len(maps.calls(name)) == len(calls)
        for weights, (mha, args, kwargs) in zip(maps.calls(name), calls, strict=True):
            query, key = args[:2] if args else (kwargs["query"], kwargs["key"])
            hidden = {name: kwargs.get(name) for name in ("attn_mask", "key_padding_mask")}
            hidden = {
                name: mask if mask is None or mask.dtype == torch.bool else mask == -torch.inf
                for name, mask in hidden.items()
            }
            with torch.no_grad():
                right = formula(mha, query, key, hidden["key_padding_mask"], hidden["attn_mask"])
            if query.dim() == 2:
                right = right.squeeze(0)
            assert weights.shape == right.shape
            if hidden["key_padding_mask"] is not None and query.shape == key.shape:
                # PyTorch's shortcut for padding computes no row of a padded query
                real = ~hidden["key_padding_mask"][:, None, :, None] | (weights.sum(-1, keepdim=True) != 0)
                weights, right = weights * real, right * real
            torch.testing.assert_close(weights, right, rtol=1e-10, atol=1e-10)
    assert left_clean(model)


# ---------------------------------------------------------------- the output


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("heads", [1, 3, 4])
@pytest.mark.parametrize("mode", MODES)
def test_the_output_is_the_same_bit_for_bit_on_the_same_path(mode, heads, batch_first, padded):
    model = encoder(heads, batch_first=batch_first).train(mode == "train")
    x, padding = batch(model), PADDING if padded else None
    with MODES[mode]():
        nests = padded and batch_first and heads == 4 and mode in ("no_grad", "inference")
        with unfused_layers(model) if nests else slow():
            same_path = model(x, src_key_padding_mask=padding)
        usual = model(x, src_key_padding_mask=padding)
        with attention_weights(model) as maps:
            output = model(x, src_key_padding_mask=padding)
    assert torch.equal(output, same_path)
    torch.testing.assert_close(output, usual, rtol=0, atol=1e-5)
    assert [tuple(m.shape) for m in maps.values()] == [(B, heads, L, L)] * 2
    if padded:
        for weights in maps.values():
            assert torch.all(weights.transpose(1, 3)[PADDING] == 0)  # columns of padding
            sums = weights.sum(-1).transpose(1, 2)[~PADDING]
            torch.testing.assert_close(sums, torch.ones_like(sums))
    assert left_clean(model)


def test_a_nested_batch_keeps_its_shortcut_and_its_full_size():
    """Padded more than the longest row: PyTorch's map would shrink to (B, H, 4, 4), and its outputs there are 0."""
    model, x = encoder().eval(), batch(encoder())
    with torch.no_grad(), attention_weights(model) as maps, attention_weights(model) as inner:
        output = model(x, src_key_padding_mask=PADDING)
    assert torch.all(output[PADDING] == 0)
    mha = model.layers[0].self_attn
    right = formula(mha, x, x, PADDING).detach()
    for kept in (maps, inner):
        weights = kept["layers.0.self_attn"]
        assert weights.shape == (B, 4, L, L)
        torch.testing.assert_close(weights[1, :, :4], right[1, :, :4], rtol=0, atol=1e-5)
        assert torch.all(weights[0, :, 3:] == 0)


def test_a_nested_batch_of_the_callers_own_has_no_other_length():
    """After an encoder call with longer padding, too; and who asked for no weights gets none."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.mixer = encoder(), drawn(nn.MultiheadAttention(24, 4, batch_first=True))

        def forward(self, x):
            self.encoder(x, src_key_padding_mask=PADDING)
            nested = torch.nested.nested_tensor(list(x[:, :3]))
            return self.mixer(nested, nested, nested, need_weights=False)

    model = Twice().eval()
    with torch.no_grad(), attention_weights(model) as maps:
        _, weights = model(batch(model))
    assert weights is None
    assert [tuple(kept.shape[-2:]) for kept in maps.values()] == [(L, L), (L, L), (3, 3)]


@pytest.mark.parametrize("average", [True, False])
def test_who_asks_for_weights_of_a_nested_batch_gets_them_unchanged(average):
    model = drawn(nn.MultiheadAttention(24, 4, batch_first=True)).eval()
    nested = torch.nested.nested_tensor([torch.randn(3, 24), torch.randn(5, 24)])
    ask = {"need_weights": True, "average_attn_weights": average}
    with torch.no_grad():
        plain, usual = model(nested, nested, nested, **ask)
        with attention_weights(model) as maps:
            output, weights = model(nested, nested, nested, **ask)
    torch.testing.assert_close(weights, usual)
    for a, b in zip(output.unbind(), plain.unbind(), strict=True):
        assert torch.equal(a, b)
    assert maps[""].shape == (2, 4, 5, 5)


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad])
def test_a_model_that_asks_for_weights_gets_what_it_asked_for(average, unbatched, context):
    model = drawn(nn.MultiheadAttention(24, 3, batch_first=True)).eval()
    x = batch(model)[0] if unbatched else batch(model)
    with context():
        with slow():
            plain, usual = model(x, x, x, average_attn_weights=average)
        with attention_weights(model) as maps:
            output, weights = model(x, x, x, average_attn_weights=average)
    assert torch.equal(output, plain)
    assert torch.equal(weights, usual)
    head_axis = 0 if unbatched else 1
    torch.testing.assert_close(maps[""].mean(head_axis) if average else maps[""], weights)
    assert maps[""].shape == ((3, L, L) if unbatched else (B, 3, L, L))


def test_gradients_of_the_output_are_the_same():
    """Bit for bit, or within rounding where the output is computed from maps that have gradients."""
    grads = []
    for options in (None, {}, {"keep_grad": True}):
        model = encoder(dropout=0.2).train()
        torch.manual_seed(3)
        with contextlib.nullcontext() if options is None else attention_weights(model, **options):
            model(batch(model)).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(map(torch.equal, grads[0], grads[1]))
    torch.testing.assert_close(grads[2], grads[0], rtol=1e-4, atol=1e-4)


def test_autocast_changes_nothing_but_precision():
    model = encoder().train()
    x = batch(model)
    with attention_weights(model) as exact:
        model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(x)
        with attention_weights(model) as maps:
            output = model(x)
    assert torch.equal(output, plain)
    for weights in maps.values():
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights.sum(-1), torch.ones(B, 4, L))
    # (the second layer's input differs already)
    torch.testing.assert_close(maps["layers.0.self_attn"], exact["layers.0.self_attn"], rtol=0, atol=2e-2)


# ---------------------------------------------------------------- dropout, gradients, copies


@pytest.mark.parametrize("ask", [False, True])
def test_dropout_is_recorded_as_it_fell_and_falls_as_before(ask):
    model = drawn(nn.MultiheadAttention(24, 4, dropout=0.4, batch_first=True)).train()
    x = batch(model)
    torch.manual_seed(7)
    plain, _ = model(x, x, x, need_weights=ask)
    after_plain = torch.rand(3)
    torch.manual_seed(7)
    _, fallen = model(x, x, x, average_attn_weights=False)
    torch.manual_seed(7)
    with attention_weights(model) as maps:
        output, _ = model(x, x, x, need_weights=ask)
    assert torch.equal(torch.rand(3), after_plain), "the random numbers that follow are others"
    torch.manual_seed(7)
    with attention_weights(model, before_dropout=True) as whole:
        again, _ = model(x, x, x, need_weights=ask)
    assert torch.equal(output, plain)
    assert torch.equal(again, plain)
    torch.testing.assert_close(maps[""], fallen.detach())
    torch.testing.assert_close(whole[""], formula(model, x, x).detach())
    kept = maps[""] != 0
    assert 0.4 < kept.float().mean() < 0.8
    torch.testing.assert_close(maps[""], whole[""] * kept / 0.6)


@pytest.mark.parametrize("ask", [False, True])
def test_gradients_flow_through_the_maps_on_request(ask):
    model = drawn(nn.MultiheadAttention(24, 4, batch_first=True)).double()
    x = batch(model, dtype=torch.float64).requires_grad_()
    with attention_weights(model, keep_grad=True) as maps:
        model(x, x, x, need_weights=ask)
    with attention_weights(model) as detached:
        model(x, x, x, need_weights=ask)
    assert not detached[""].requires_grad
    weight = torch.randn(B, 4, L, L, dtype=torch.float64)
    wanted = [x, model.in_proj_weight]
    got = torch.autograd.grad((maps[""] * weight).sum(), wanted)
    right = torch.autograd.grad((formula(model, x, x) * weight).sum(), wanted)
    for a, b in zip(got, right, strict=True):
        torch.testing.assert_close(a, b)


def test_maps_are_all_that_is_kept():
    """No view of something greater, and nothing of the graph."""
    model = encoder()
    x = batch(model)
    with attention_weights(model) as maps:
        model(x)
    for weights in maps.values():
        assert weights.untyped_storage().nbytes() == weights.numel() * weights.element_size()
        assert weights.grad_fn is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_on_a_gpu_copies_come_to_the_cpu_and_dropout_is_as_it_fell(dropout):
    model = drawn(nn.MultiheadAttention(24, 4, dropout=dropout, batch_first=True)).cuda()
    x = batch(model).cuda()
    torch.manual_seed(0)
    with attention_weights(model) as maps:
        output, _ = model(x, x, x, need_weights=False)
    with attention_weights(model, cpu=True) as copies:
        model(x, x, x, need_weights=False)
    assert maps[""].is_cuda
    assert not copies[""].is_cuda
    v = (
        F.linear(x, *(p.chunk(3)[2] for p in (model.in_proj_weight, model.in_proj_bias)))
        .unflatten(-1, (4, 6))
        .transpose(1, 2)
    )
    torch.testing.assert_close(model.out_proj((maps[""] @ v).transpose(1, 2).flatten(2)), output, rtol=0, atol=1e-4)


# ---------------------------------------------------------------- coming and going


def test_hooks_are_gone_after_an_exception():
    model = encoder()
    model.layers[1].linear1.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), attention_weights(model) as maps:
        model(batch(model))
    assert hooks_of(model) == 1
    assert not _get_current_function_mode_stack()
    assert list(maps) == ["layers.0.self_attn", "layers.1.self_attn"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_within_a_layer_leaves_nothing_behind(error, monkeypatch):
    model, x = encoder(), batch(encoder())

    def fail(*_, **__):
        raise error("stop")

    monkeypatch.setattr(F, "_in_projection_packed", fail)
    import capture

    monkeypatch.setitem(capture.BODY.__globals__, "_in_projection_packed", fail)
    with pytest.raises(error), attention_weights(model) as outer, attention_weights(model) as inner:
        model(x)
    assert left_clean(model)
    assert not outer
    assert not inner
    monkeypatch.undo()
    with attention_weights(model) as maps:
        model(x)
    assert len(maps) == 2


@pytest.mark.filterwarnings("error")
def test_a_call_that_fails_before_it_starts():
    model = drawn(nn.MultiheadAttention(24, 4, batch_first=True))
    model.register_forward_pre_hook(lambda *_: 1 / 0)
    x = batch(model)
    with pytest.raises(ZeroDivisionError), attention_weights(model) as maps:
        model(x, x, x)
    assert not maps
    assert not _get_current_function_mode_stack()


def test_a_failed_call_does_not_end_the_recording():
    model = drawn(nn.MultiheadAttention(24, 4, batch_first=True))
    x = batch(model)
    with attention_weights(model) as maps:
        with pytest.raises(RuntimeError):
            model(x, x, x, attn_mask=torch.zeros(2, 2))
        assert not _get_current_function_mode_stack()
        model(x, x, x)
    assert maps[""].shape == (B, 4, L, L)


def test_nesting_and_entering_again():
    model, x = encoder(), batch(encoder())
    context = attention_weights(model)
    with context as outer:
        model(x)
        with attention_weights(model, before_dropout=True) as inner, context as third:
            model(x)
    with context as again:
        model(x)
    name = "layers.0.self_attn"
    assert [len(maps.calls(name)) for maps in (outer, inner, third, again)] == [2, 1, 1, 1]
    for weights in (outer[name][0], inner[name], third[name], again[name]):
        assert torch.equal(weights, outer[name][1])
    assert left_clean(model)


def test_contexts_closed_in_the_order_they_were_opened():
    model, x = encoder(), batch(encoder())
    first, second = attention_weights(model), attention_weights(model)
    a, b = first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    model(x)
    second.__exit__(None, None, None)
    assert not a
    assert len(b) == 2
    assert left_clean(model)


def test_a_layer_called_more_than_once_has_a_list_in_call_order():
    model = drawn(nn.MultiheadAttention(24, 4, batch_first=True))
    inputs = [batch(model), batch(model, 3), batch(model, S)]
    with attention_weights(model) as maps:
        for x in inputs:
            model(x, x, x)
    assert [tuple(w.shape) for w in maps[""]] == [(B, 4, n, n) for n in (L, 3, S)]
    assert maps.calls("") == maps[""]


def test_names_and_shapes_of_nn_transformer():
    model = drawn(nn.Transformer(24, 4, 2, 2, 16, 0.0, batch_first=True))
    src, tgt = torch.randn(B, S, 24), torch.randn(B, L, 24)
    with attention_weights(model) as maps:
        model(src, tgt)
    shapes = {name: tuple(weights.shape) for name, weights in maps.items()}
    assert shapes == {
        "encoder.layers.0.self_attn": (B, 4, S, S),
        "encoder.layers.1.self_attn": (B, 4, S, S),
        "decoder.layers.0.self_attn": (B, 4, L, L),
        "decoder.layers.0.multihead_attn": (B, 4, L, S),
        "decoder.layers.1.self_attn": (B, 4, L, L),
        "decoder.layers.1.multihead_attn": (B, 4, L, S),
    }


def test_hooks_of_others_still_see_what_they_saw():
    model, x, seen = encoder(), batch(encoder()), []
    model.layers[0].self_attn.register_forward_hook(lambda module, args, result: seen.append(result[1]))
    with attention_weights(model):
        model(x)
    assert seen == [None]
    assert hooks_of(model) == 1


# ---------------------------------------------------------------- what is refused


def test_a_model_without_attention_is_told_what_to_do():
    model = nn.Linear(2, 2)
    with (
        pytest.raises(RuntimeError, match=r"Linear: it ran, and no attention was seen.*'sdpa'"),
        attention_weights(model),
    ):
        model(torch.randn(2, 2))


def test_a_compiled_model_that_has_run_is_recorded_as_it_was_written():
    model = encoder().eval()
    x, compiled = batch(model), torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))
    with attention_weights(model) as maps:
        compiled(x)
    assert list(maps) == ["layers.0.self_attn", "layers.1.self_attn"]


def test_something_that_is_no_model():
    with pytest.raises(TypeError, match=r"model: expected an nn\.Module, got function"):
        attention_weights(lambda x: x)


def test_a_name_that_was_not_recorded():
    model = encoder()
    with attention_weights(model) as maps:
        model(batch(model))
    with pytest.raises(
        KeyError, match=r"'layers\.2' was recorded, only 'layers\.0\.self_attn', 'layers\.1\.self_attn'"
    ):
        maps["layers.2"]


# ---------------------------------------------------------------- sdpa_weights


def by_identity(query, key, **options):
    """SDPA's own weights: a value that is the identity hands them out."""
    eye = torch.eye(key.shape[-2], dtype=query.dtype).expand(*key.shape[:-1], -1)
    return F.scaled_dot_product_attention(query, key, eye, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"enable_gqa": True},
        {"attn_mask": torch.ones(L, S).tril(1).bool()},
        {"attn_mask": torch.linspace(-2, 2, L * S, dtype=torch.float64).view(L, S)},
        {"attn_mask": torch.ones(L, S).tril(1).bool() & (torch.arange(L) != 2)[:, None]},
        {"attn_mask": torch.where(torch.arange(L) != 2, 0.0, -torch.inf)[:, None].expand(L, S).double()},
    ],
    ids=["plain", "scale", "causal", "gqa", "bool", "float", "bool blind", "float blind"],
)
def test_sdpa_weights_are_what_an_identity_as_value_gives(options):
    torch.manual_seed(0)
    if not all(name in F.scaled_dot_product_attention.__doc__ for name in options):
        pytest.skip("SDPA of this PyTorch does not take it")
    query = torch.randn(B, 4, L, 6, dtype=torch.float64)
    key = torch.randn(B, 2 if "enable_gqa" in options else 4, S, 6, dtype=torch.float64)
    weights, expected = sdpa_weights(query, key, **options), by_identity(query, key, **options)
    if expected.isnan().any():
        pytest.skip("SDPA of this PyTorch gives NaN to a row that sees nothing")
    torch.testing.assert_close(weights, expected)
    value = torch.randn_like(key)
    shared = value.repeat_interleave(4 // key.shape[1], 1)
    torch.testing.assert_close(weights @ shared, F.scaled_dot_product_attention(query, key, value, **options))


@pytest.mark.parametrize("boolean", [True, False])
def test_a_row_that_sees_nothing_has_no_nan_in_its_gradient(boolean):
    query = torch.randn(3, 6, requires_grad=True)
    mask = torch.tensor([True, False, True])[:, None].expand(3, 5)
    mask = mask if boolean else torch.where(mask, 0.0, -torch.inf)
    weights = sdpa_weights(query, torch.randn(5, 6), mask)
    weights.square().sum().backward()
    assert torch.all(weights[1] == 0)
    assert torch.isfinite(query.grad).all()
    assert torch.all(query.grad[1] == 0)


def test_sdpa_weights_of_half_precision_are_float32():
    query, key = torch.randn(B, 4, L, 6).bfloat16(), torch.randn(B, 4, S, 6).bfloat16()
    weights = sdpa_weights(query, key)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, 4, L))


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        (torch.randn(S, 5), {}, "key: expected a last axis as query's 6, got 5"),
        (
            torch.randn(S, 6),
            {"is_causal": True, "attn_mask": torch.ones(L, S).bool()},
            "attn_mask: expected None with is_causal=True",
        ),
    ],
)
def test_sdpa_weights_refuses(key, options, message):
    with pytest.raises(ValueError, match=message):
        sdpa_weights(torch.randn(L, 6), key, **options)


# Where something else has wrapped PyTorch's function before

WRAPPED = """
import functools, sys
import torch.nn.functional as F
original = F.multi_head_attention_forward
def wrap(function):
    {decorator}
    def forward(*args, **kwargs):
        return function(*args, **kwargs)
    return forward
F.multi_head_attention_forward = wrap(original)
sys.path.insert(0, {recipes!r})
from capture import attention_weights
import torch
mha = torch.nn.MultiheadAttention(8, 2)
with attention_weights(mha) as maps:
    _, expected = mha(*[torch.randn(3, 8)] * 3, average_attn_weights=False)
torch.testing.assert_close(maps[""], expected)
print("captured")
"""


@pytest.mark.parametrize(
    ("decorator", "said"), [("@functools.wraps(function)", "captured"), ("", "wrap.<locals>.forward")]
)
def test_a_wrapped_function_of_pytorch(decorator, said):
    code = WRAPPED.format(decorator=decorator, recipes=str(Path(sys.modules["capture"].__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said in (done.stdout or done.stderr.splitlines()[-1]), done.stderr
    assert "arg 5 (closure)" not in done.stderr


FLOATS = {
    "zeros and ones": (lambda hidden: hidden.float(), True),
    "minus infinity": (lambda hidden: torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf), False),
    "a billion": (lambda hidden: -1e9 * hidden, False),
    "booleans": (lambda hidden: hidden, False),
}
UNFUSED = {
    "odd heads": {"nhead": 1},
    "no bias": {"bias": False},
    "tanh": {"activation": torch.tanh},
    "batch second": {"batch_first": False},
}


def told_otherwise(layer, *args, **masks):
    """(does recording change more than digits, is it told)."""
    plain = layer(*args, **masks)
    with warnings.catch_warnings(record=True) as told, attention_weights(layer):
        warnings.simplefilter("always")
        recorded = layer(*args, **masks)
    same = torch.allclose(recorded, plain, atol=1e-5)
    return not same, any("is not the one without recording" in str(one.message) for one in told)


def encoder_layer(**more):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(
        **{"d_model": 8, "nhead": 2, "dim_feedforward": 8, "batch_first": True, **more}
    ).eval()


@pytest.mark.parametrize("argument", ["src_mask", "src_key_padding_mask"])
@pytest.mark.parametrize("floats", FLOATS)
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad", "frozen"])
def test_a_mask_that_the_fast_path_reads_otherwise_is_told(argument, floats, mode):
    layer = encoder_layer(dropout=0.0).train(mode == "train").requires_grad_(mode != "frozen")
    make, otherwise = FLOATS[floats]
    hidden = torch.zeros(2, 5, dtype=torch.bool)
    hidden[1, 3:] = True
    x, mask = torch.randn(2, 5, 8), make(hidden if "padding" in argument else torch.ones(5, 5).triu(1).bool())
    with torch.set_grad_enabled(mode != "no_grad"):
        differs = otherwise and mode in ("no_grad", "frozen")
        assert told_otherwise(layer, x, **{argument: mask}) == (differs, differs)
        if mode == "frozen":
            assert told_otherwise(layer, x.requires_grad_(), **{argument: mask}) == (False, False)


@pytest.mark.parametrize("unfused", [*UNFUSED, "hook", "unbatched", "switched off"])
def test_where_there_is_no_fast_path_nothing_is_told(unfused):
    layer, x = encoder_layer(**UNFUSED.get(unfused, {})), torch.randn(5, 5, 8)
    if unfused == "hook":
        if torch.__version__ < "2.6":
            pytest.skip("its fast path takes no notice of hooks")
        layer.self_attn.register_forward_hook(lambda *call: None)
    torch.backends.mha.set_fastpath_enabled(unfused != "switched off")
    try:
        with torch.no_grad():
            assert told_otherwise(layer, x[0] if unfused == "unbatched" else x, src_mask=torch.ones(5, 5).triu(1)) == (
                False,
                False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_a_row_that_the_fast_path_makes_nan_is_told():
    layer, x = encoder_layer(), torch.randn(2, 5, 8)
    left = torch.arange(5) < torch.tensor([[0], [2]])
    masks = {"src_mask": torch.ones(5, 5, dtype=torch.bool).triu(1), "src_key_padding_mask": left}
    with torch.no_grad():
        assert layer(x, **masks).isnan().any()
        assert told_otherwise(layer, x, **masks) == (True, True)
        assert told_otherwise(layer, x, src_mask=masks["src_mask"]) == (False, False)
