"""`with paper_layout():` runs a model's own attention layers on the paper's computation, and only there."""

import threading

import pytest
import torch
from paper_layout import paper_layout
from torch import nn

B, L, S, E, H = 2, 5, 7, 24, 4


def redrawn(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double()


def models():
    options = {"dim_feedforward": 20, "dropout": 0.1, "batch_first": True}
    encoder, decoder = nn.TransformerEncoderLayer(E, H, **options), nn.TransformerDecoderLayer(E, H, **options)
    x, y = torch.randn(B, L, E).double(), torch.randn(B, S, E).double()
    future = nn.Transformer.generate_square_subsequent_mask(S).isinf()
    padding = torch.tensor([[False] * L, [False] * 3 + [True] * 2])
    return {
        "layer": (nn.MultiheadAttention(E, H), (y, y, y), {}, 1),
        "encoder": (nn.TransformerEncoder(encoder, 2), (x,), {}, 2),
        "padded encoder": (nn.TransformerEncoder(encoder, 2), (x,), {"src_key_padding_mask": padding}, 2),
        "decoder": (nn.TransformerDecoder(decoder, 2), (y, x), {"tgt_mask": future}, 4),
        "whole": (
            nn.Transformer(E, H, 1, 2, 20, batch_first=True),
            (x, y),
            {"tgt_mask": future, "tgt_is_causal": True},
            5,
        ),
        "odd heads": (nn.TransformerEncoderLayer(E, 3, **options), (x,), {}, 1),
    }


def first(result):
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("name", models())
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad"])
@pytest.mark.filterwarnings(
    "ignore:.*nested tensors.*", "ignore:enable_nested_tensor.*", "ignore:The PyTorch API of nested"
)
def test_same_function_of_every_model(name, mode):
    model, inputs, masks, layers = models()[name]
    redrawn(model).train(mode == "train")
    with torch.set_grad_enabled(mode != "no_grad"):
        torch.manual_seed(1)
        theirs = first(model(*inputs, **masks))
        torch.manual_seed(1)
        with paper_layout() as paper:
            mine = first(model(*inputs, **masks))
    assert paper.calls == layers
    if name == "padded encoder" and mode == "no_grad":
        # PyTorch's nested tensors write zeros where the input was padded; the paper's layout computes those rows
        assert not theirs[1, 3:].any()
        theirs, mine = theirs[1, :3], mine[1, :3]
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_it_is_the_recipe_that_runs(monkeypatch):
    import paper_layout as module

    monkeypatch.setattr(module, "multi_head_attention_forward", lambda *a, **k: ("mine", None))
    x = torch.randn(L, B, E)
    layer = nn.MultiheadAttention(E, H, batch_first=False)
    with paper_layout():
        assert layer(x, x, x) == ("mine", None)
    assert layer(x, x, x)[0].shape == x.shape


def fused(layer, x):
    """Does PyTorch take its fused path?"""
    with torch.profiler.profile() as profile, torch.no_grad():
        layer(x, x, x)
    return any("_native_multi_head_attention" in event.name for event in profile.events())


def fused_inside_a_context_that_raises(layer, x):
    try:
        with paper_layout():
            inside = fused(layer, x)
            raise ZeroDivisionError
    except ZeroDivisionError:
        return inside


def test_restored_afterwards_also_after_an_exception_and_nested():
    layer, x = nn.MultiheadAttention(E, H, batch_first=True).eval(), torch.randn(B, L, E)
    assert fused(layer, x)
    assert not fused_inside_a_context_that_raises(layer, x)
    assert fused(layer, x)
    with paper_layout() as outer:
        with paper_layout() as inner:
            layer(x, x, x)
        layer(x, x, x)
        with outer:
            layer(x, x, x)
    assert (inner.calls, outer.calls) == (1, 2)
    assert fused(layer, x)


def test_other_threads_are_left_alone():
    layer, x = nn.MultiheadAttention(E, H, batch_first=True).eval(), torch.randn(B, L, E)
    seen = []
    with paper_layout() as paper:
        thread = threading.Thread(target=lambda: seen.append(fused(layer, x)))
        thread.start()
        thread.join()
    assert seen == [True]
    assert paper.calls == 0


def test_gradients_flow_back_after_the_context():
    layer, x = redrawn(nn.MultiheadAttention(E, H)), torch.randn(L, B, E).double()
    gradients = []
    for context in (paper_layout(), torch.enable_grad()):
        layer.zero_grad()
        with context:
            output, weights = layer(x, x, x)
        (output.sin().sum() + weights.square().sum()).backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_what_only_the_fused_path_gives_is_missing():
    layer = redrawn(nn.TransformerEncoderLayer(E, H, 20, batch_first=True)).eval()
    nested = torch.nested.nested_tensor([torch.randn(n, E).double() for n in (3, 5)])
    x, padding = torch.randn(B, L, E).double(), torch.tensor([[True] * L, [False] * L])
    with torch.no_grad():
        assert layer(nested).is_nested
        assert layer(x, src_key_padding_mask=padding)[0].isnan().all()
        with paper_layout():
            assert layer(x, src_key_padding_mask=padding).isfinite().all()
            with pytest.raises(AssertionError, match="NestedTensor"):
                layer(nested)


def test_a_map_of_each_head_is_heard_inside():
    """Both contexts at once, either way round: one counts the layers, the other records the paper's heads one by one."""
    from capture import attention_weights

    model = nn.Sequential(redrawn(nn.TransformerEncoderLayer(E, H, 20, batch_first=True))).eval()
    x = torch.randn(B, L, E).double()
    with attention_weights(model) as whole:
        model(x)
    with attention_weights(model) as maps, paper_layout() as paper:
        model(x)
    with paper_layout() as outside, attention_weights(model) as inside:
        model(x)
    assert paper.calls == outside.calls == 1
    for one in (maps, inside):
        assert list(one) == ["0.self_attn"]
        torch.testing.assert_close(torch.stack(one["0.self_attn"], 1), whole["0.self_attn"])
