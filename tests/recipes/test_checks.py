"""The take-home checks find what they say they find, and say where."""

import math

import pytest
import torch
import torch.nn.functional as F
from checks import leaks_future, leaks_padding, permutation_equivariant, same_function
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

B, L, E, H = 2, 6, 24, 4
D = E // H


class Attention(nn.Module):
    """Causal self-attention; `bug` names what is wrong with it."""

    def __init__(self, bug=None, causal=True):
        super().__init__()
        torch.manual_seed(0)
        self.bug, self.causal = bug, causal
        self.inside, self.outside = nn.Linear(E, 3 * E), nn.Linear(E, E)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def mask(self, n):
        """(n, n), True where a key may be seen."""
        seen = torch.ones(n, n, dtype=torch.bool).tril(1 if self.bug == "one too far" else 0)
        if self.bug == "inverted":
            return ~seen.tril(-1)
        if self.bug == "dropped" or not self.causal or (self.bug == "off in eval" and not self.training):
            return None
        return seen

    def forward(self, x):
        batch, n, _ = x.shape
        q, k, v = self.inside(x).chunk(3, -1)
        split = (
            (lambda a: a.reshape(batch, H, n, D))
            if "split" in str(self.bug)
            else (lambda a: a.unflatten(-1, (H, D)).transpose(1, 2))
        )
        heads = F.scaled_dot_product_attention(split(q), split(k), split(v), self.mask(n))
        return self.outside(
            heads.reshape(batch, n, E) if "merge" in str(self.bug) else heads.transpose(1, 2).flatten(2)
        )


def x(length=L):
    torch.manual_seed(1)
    return torch.randn(B, length, E)


@pytest.mark.parametrize("bug", ["inverted", "dropped", "one too far"])
@pytest.mark.parametrize("grad", [True, False])
def test_leak_is_found(bug, grad):
    with torch.set_grad_enabled(grad):
        assert not leaks_future(Attention(), x())
        report = leaks_future(Attention(bug), x())
    assert report
    output, source = (int(part.split()[-1]) for part in report.where.split(","))
    assert output < source
    assert report.difference > 0.01


def test_leak_only_in_eval():
    layer = Attention("off in eval")
    assert not leaks_future(layer.train(), x())
    assert leaks_future(layer.eval(), x())


def test_what_a_leak_test_does_not_see_and_permutations_do():
    # heads that are chunks of time: the mask is within a chunk, and the outputs go back where the inputs were
    assert not leaks_future(Attention("split and merge"), x())
    assert permutation_equivariant(Attention(causal=False), x())
    for bug in ("split", "merge", "split and merge"):
        assert not permutation_equivariant(Attention(bug, causal=False), x()), bug
    assert not permutation_equivariant(Attention(), x())  # a causal mask knows positions


PADDING = torch.tensor([[False] * L, [False] * 4 + [True] * 2])


def encoder(padding, **more):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(E, H, E, 0.0, batch_first=True).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return lambda a: layer(a, src_key_padding_mask=padding, **more)


@pytest.mark.parametrize("grad", [True, False])
def test_padding_that_is_seen_is_found(grad):
    lengths = torch.tensor([5, 4])
    padding = torch.arange(L) >= lengths[:, None]
    with torch.set_grad_enabled(grad):
        assert not leaks_padding(encoder(padding), x(), padding)
        for wrong in (~padding, None, torch.zeros(B, L), 0.5 * padding if grad else None):
            report = leaks_padding(encoder(wrong), x(), padding)
            assert report, wrong
            assert report.difference > 0.01
            sample, output = (int(part.split()[-1]) for part in report.where.split(","))
            assert output < lengths[sample], "a real one"


def test_a_sample_that_sees_another_ones_padding():
    report = leaks_padding(lambda a: a + a.mean((0, 1)), x(), PADDING)
    assert report


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e9, -1e9])
def test_padding_is_replaced_and_not_added_to(value):
    poisoned = x().masked_fill(PADDING[..., None], value)
    assert not leaks_padding(encoder(PADDING), poisoned.masked_fill(PADDING[..., None], 1e4), PADDING)
    seen = lambda a: a + a[:, -1:].clamp(-1, 1).nan_to_num()  # noqa: E731
    assert leaks_padding(seen, poisoned, PADDING)


@pytest.mark.parametrize(
    ("f", "sentence"),
    [
        (lambda a: a * math.nan, "f: expected finite outputs, got NaN or infinity"),
        (lambda a: a.masked_fill(~PADDING[..., None], math.inf), "f: expected finite outputs, got NaN or infinity"),
        (lambda a: x(), "f: expected an output that depends on x, got a constant"),
    ],
)
def test_a_function_that_tells_nothing_of_its_padding_is_refused(f, sentence):
    with pytest.raises(ValueError, match=sentence):
        leaks_padding(f, x(), PADDING)
    with pytest.raises(ValueError, match="f: expected finite outputs, got NaN or infinity"):
        leaks_future(lambda a: a * math.nan, x())


def test_padding_may_come_out_as_nan():
    assert not leaks_padding(lambda a: a.masked_fill(PADDING[..., None], math.nan), x(), PADDING)


@pytest.mark.parametrize(
    ("padding", "sentence"),
    [
        (PADDING.float(), "padding: expected torch.bool, True at padding, got torch.float32"),
        (PADDING[:, :5], r"padding: expected \(2, 6\), got \(2, 5\)"),
        (PADDING & False, "padding: expected some True and some False, got one of them"),
        (PADDING | True, "padding: expected some True and some False, got one of them"),
    ],
)
def test_a_padding_that_tells_nothing_is_refused(padding, sentence):
    with pytest.raises(ValueError, match=r"x: expected \(B, L, E\), token ids embedded, got \(6, 24\)"):
        leaks_padding(lambda a: a, x()[0], PADDING[0])
    with pytest.raises(ValueError, match=sentence):
        leaks_padding(lambda a: a, x(), padding)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(length=st.integers(2, 12), seed=st.integers(0, 1000), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_causal_and_plain_attention_of_any_length(length, seed, dtype):
    torch.manual_seed(seed)
    tokens = torch.randn(1, length, 3, dtype=dtype)
    assert not leaks_future(lambda a: F.scaled_dot_product_attention(a, a, a, is_causal=True), tokens)
    assert leaks_future(lambda a: F.scaled_dot_product_attention(a, a, a), tokens)
    assert permutation_equivariant(lambda a: F.scaled_dot_product_attention(a, a, a), tokens)


def test_nan_counts_as_a_difference():
    last = x()[:, -1:]

    def poisoned(tokens):
        """NaN everywhere once the last input is not what it was."""
        return torch.where((tokens[:, -1:] == last).all(), tokens, math.nan)

    report = leaks_future(poisoned, x())
    assert report
    assert report.difference == math.inf
    assert same_function(poisoned, poisoned, [(x(),), (x() + 1,)])
    assert not same_function(poisoned, lambda a: a, [(x() + 1,)])


def test_random_numbers_of_the_caller_stay():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tokens = torch.ones(1, 4, 2)
    leaks_future(lambda a: a * 2, tokens)
    permutation_equivariant(lambda a: a * 2, tokens)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(tokens, torch.ones(1, 4, 2))


def test_same_function_tells_where():
    f = Attention(causal=False)
    inputs = [(x(),), (x(3),)]
    assert same_function(f, lambda a: f(a).double().float(), inputs)
    report = same_function(lambda a: (f(a), None), lambda a: (f(a) + (a.shape[1] == 3), None), inputs)
    assert not report
    assert report.where == "input 1, output[0]"
    assert "False" in str(report)
    assert "input 1, output[0]" in str(report)


@pytest.mark.parametrize(
    "wrong", [lambda a: a.double(), lambda a: a[:1], lambda a: (a, a), lambda a: None, lambda a: [a, None]]
)
def test_another_kind_shape_or_dtype_is_another_function(wrong):
    assert not same_function(lambda a: a, wrong, [(x(),)])
    assert not same_function(wrong, lambda a: a, [(x(),)])
    assert same_function(wrong, wrong, [(x(),)])


def test_error_is_measured_against_the_largest_entry():
    big = torch.full((3,), 1e6, dtype=torch.float64)
    assert same_function(lambda a: a + 1, lambda a: a, [(big,)])
    assert not same_function(lambda a: a + 1e-3, lambda a: a, [(big * 1e-6,)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: leaks_future(lambda a: a, torch.randn(4)), r"x: expected .*2 positions, got \(4,\)"),
        (lambda: leaks_future(lambda a: a, torch.randn(1, 4)), r"x: expected .*2 positions, got \(1, 4\)"),
        (lambda: leaks_future(lambda a: a, torch.ones(3, 4).long()), r"x: expected a floating dtype, got torch.int64"),
        (lambda: leaks_future(lambda a: (a, None), x()), "f: expected a tensor as output, got tuple"),
        (lambda: leaks_future(lambda a: a.transpose(0, 1), x()), "f: expected an output .*got"),
        (lambda: leaks_future(torch.zeros_like, x()), "f: expected an output that depends on x, got a constant"),
        (lambda: leaks_future(F.dropout, x()), "f: expected the same output .*dropout"),
        (lambda: permutation_equivariant(F.dropout, x()), "f: expected the same output .*dropout"),
        (lambda: same_function(torch.sin, torch.sin, []), "inputs: expected tuples of arguments, got none"),
        (lambda: same_function(lambda a: {}, torch.sin, [(x(),)]), "f: expected tensors, None, tuples, got dict"),
        (lambda: same_function(torch.sin, lambda a: 1, [(x(),)]), "g: expected tensors, None, tuples, got int"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
