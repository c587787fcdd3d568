"""What layout_trace.py says of weights whose layout is known, and what it refuses to say; and the models that its record is of."""

import pytest
import torch
from layout_trace import (
    OF_HEADS,
    THRESHOLD,
    decide,
    groups,
    heads,
    orders,
    orientation,
    orientation_out,
    packing,
    relation,
    rotary,
    together,
    trained,
)
from torch import nn

from tools import trace

E, H, D = 64, 4, 16


def alike(generator, heads=H):
    """Two matrices (heads * D, E) whose rows stand to each other alike within a head, as gradient flow from 0 leaves them."""

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = draw(heads, D, D)
    return [(shape @ torch.linalg.qr(draw(heads, E, D))[0].mT).flatten(0, 1) for _ in range(2)]


@pytest.fixture
def layer():
    """q, k, v (E, E), o (E, E)."""
    generator = torch.Generator().manual_seed(1)
    q, k = alike(generator)
    v, o = alike(generator)
    return q, k, v, o.T


@pytest.mark.parametrize("order", orders(H, D))
def test_the_order_of_packed_rows(layer, order):
    q, k, v, _ = layer
    file = torch.empty(3 * E, E, dtype=torch.float64)
    file[orders(H, D)[order].flatten()] = torch.cat([q, k, v])
    told = packing(file, H)
    assert (told.answer, told.sure) == (order, True)
    assert told.z > 3 * THRESHOLD
    assert packing(nn.Parameter(file.bfloat16()), H).answer == order
    # the size of rows is of no account
    assert packing(file * torch.rand(3 * E, 1), H).answer == order


def test_orders_are_those_of_views():
    rows = torch.arange(3 * H * D)
    assert torch.equal(orders(H, D)["(t h d)"], torch.stack(rows.chunk(3)))
    per_head = rows.view(H, 3 * D).split(D, 1)
    assert torch.equal(orders(H, D)["(h t d)"], torch.stack([part.flatten() for part in per_head]))
    assert torch.equal(orders(H, D)["(h d t)"], torch.stack([rows[t::3] for t in range(3)]))


def test_orders_of_ones_own(layer):
    q, k, v, _ = layer
    first, second, third = orders(H, D)["(t h d)"]
    candidates = {"q k v": [first, second], "q v k": [first, third], "v q k": [second, third]}
    for order, parts in (("q k v", (q, k, v)), ("q v k", (q, v, k)), ("v q k", (v, q, k))):
        told = packing(torch.cat(parts), H, candidates)
        assert (told.answer, told.sure) == (order, True)
    # which of the two is q is not in the numbers
    assert packing(torch.cat([k, q, v]), H, candidates).answer == "q k v"


def test_orientation(layer):
    q, k, v, o = layer
    assert orientation(q, k, H).answer == "(out, in)"
    assert orientation(q.T, k.T, H).answer == "(in, out)"
    assert orientation_out(v, o, H).answer == "(out, in)"
    assert orientation_out(v, o.T, H).answer == "(in, out)"
    assert all(told.sure for told in (orientation(q, k, H), orientation_out(v, o, H)))


def test_how_many_heads(layer):
    told = heads(*layer)
    assert (told.answer, told.sure) == (H, True)
    assert set(told.evidence) == {2, 4, 8, 16}
    assert told.threshold == OF_HEADS > THRESHOLD


@pytest.mark.parametrize("drawn", ["qk", "vo"])
def test_either_pair_tells_how_many_heads(layer, drawn):
    """The other pair is drawn by chance."""
    q, k, v, o = layer
    torch.manual_seed(2)
    chance = torch.randn(2, E, E, dtype=torch.float64)
    told = heads(*chance, v, o) if drawn == "qk" else heads(q, k, *chance)
    assert (told.answer, told.sure) == (H, True)


def test_layers_together_say_more():
    generator = torch.Generator().manual_seed(3)

    def noisy(noise=0.8):
        q, k = alike(generator)
        v, o = alike(generator)
        return [m + noise * torch.randn(m.shape, generator=generator) for m in (q, k, v, o)]

    told = [heads(q, k, v, o.T) for q, k, v, o in (noisy() for _ in range(6))]
    whole = together(told)
    assert whole.answer == H
    assert whole.z > max(one.z for one in told)
    assert whole.threshold == OF_HEADS
    assert whole.evidence[2] == pytest.approx(sum(one.evidence[2] for one in told))


@pytest.mark.parametrize("name", ["half", "interleaved"])
def test_numbers_that_turn_together(name):
    generator = torch.Generator().manual_seed(4)
    q, k = alike(generator)
    lean = torch.rand(H, D // 2, generator=generator, dtype=torch.float64) - 0.5
    # of each pair, q has more in one number and k in the other
    lean = torch.cat([lean, -lean], 1) if name == "half" else torch.stack([lean, -lean], 2)
    lean = lean.reshape(-1, 1)
    size = torch.arange(1, H + 1).repeat_interleave(D)[:, None]  # some heads have larger queries
    norms = q.norm(dim=1, keepdim=True)
    noise = torch.rand(E, 1, generator=generator, dtype=torch.float64)  # what a row has in both
    q, k = (noise + 1 + lean + size) ** 0.5 * q / norms, (noise + 1 - lean) ** 0.5 * k / norms
    told = rotary(q, k, H)
    assert (told.answer, told.sure) == (name, True)
    # two heads of queries for one of keys: each row is dealt out to both
    share = torch.rand(E, 1, generator=generator, dtype=torch.float64)
    both = torch.stack([(share**0.5 * q).view(H, D, E), ((1 - share) ** 0.5 * q).view(H, D, E)], 1)
    assert rotary(both.flatten(0, 2), k, 2 * H).answer == name
    assert rotary(torch.randn(E, E, generator=generator), torch.randn(E, E, generator=generator), H).answer is None


def test_heads_of_an_odd_size_have_no_pairs():
    assert rotary(torch.randn(60, 60), torch.randn(60, 60), 4).answer is None


@pytest.mark.parametrize("dealt", [False, True])
def test_groups(dealt):
    K, generator = 2, torch.Generator().manual_seed(5)
    k, q = alike(generator, K)
    v, o = alike(generator, K)
    read = torch.arange(H) % K if dealt else torch.arange(H) // (H // K)
    q, o = (m.view(K, D, E)[read].flatten(0, 1) for m in (q, o))
    answer = "h % K" if dealt else "h // (H / K)"
    told = groups(q, k, v, o.T, H)
    assert (told.answer, told.sure) == (answer, True)
    # the size of rows is of no account, and one of the two pairs is enough
    scaled = [m * torch.rand(len(m), 1, generator=generator, dtype=torch.float64) for m in (q, k, v, o)]
    chance = [torch.randn(m.shape, generator=generator, dtype=torch.float64) for m in (q, k, v, o)]
    assert groups(*scaled[:3], scaled[3].T, H).answer == answer
    assert groups(*scaled[:2], chance[2], chance[3].T, H).answer == answer
    assert groups(*chance[:2], scaled[2], scaled[3].T, H).answer == answer
    # a direction that all rows of a head share says nothing of numbers
    other = torch.arange(H) // (H // K) if dealt else torch.arange(H) % K
    strength = torch.tensor([0.0, 9.0], dtype=torch.float64)
    leaning_q = q + strength[other].repeat_interleave(D)[:, None] * torch.ones(E, dtype=torch.float64)
    leaning_k = k + strength.repeat_interleave(D)[:, None] * torch.ones(E, dtype=torch.float64)
    assert groups(leaning_q, leaning_k, chance[2], chance[3].T, H).answer == answer


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_told_of_what_was_never_trained(seed):
    torch.manual_seed(seed)
    mha = nn.MultiheadAttention(E, H)
    q, k, v = mha.in_proj_weight.chunk(3)
    o = mha.out_proj.weight
    told = [packing(mha.in_proj_weight, H), orientation(q, k, H), orientation_out(v, o, H), heads(q, k, v, o)]
    told += [rotary(q, k, H), trained(q, k, v, o), groups(q, k[: 2 * D], v[: 2 * D], o, H)]
    assert not any(one.sure for one in told)
    assert trained(q, k, v, o).answer is False


def test_trained_needs_no_layout(layer):
    torch.manual_seed(0)
    q, k, *_ = layer
    order = torch.randperm(E)
    assert trained(q[order], k[:, order]).answer is True
    assert not trained(torch.randn(100, 30)).answer
    assert trained(torch.ones(30, 100) + torch.randn(30, 100)).sure  # one direction more than chance has
    assert trained(torch.linalg.qr(torch.randn(100, 100))[0]).sure  # more different than chance makes them


def test_a_lead_is_what_counts():
    assert decide({"a": 30.0, "b": 29.0, "c": 0.0}).z == pytest.approx(1)
    assert not decide({"a": 30.0, "b": 29.0}).sure
    assert decide({"a": 30.0, "b": 1.0}).sure
    assert relation(torch.ones(8, 3), torch.randn(8, 3), 4) == 0  # constants correlate with nothing
    same = torch.randn(8, 5)
    assert relation(same, same, 4) == 0  # as much inside of heads as between them


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: packing(torch.randn(192, 64), 5), r"weight: expected rows of 5 heads, got \(192, 64\)"),
        (lambda: packing(torch.randn(4, 48, 64), 4), "weight: expected rows of 4 heads"),
        (lambda: heads(*(torch.randn(n, 32) for n in (32, 16, 16, 32))), "expected 32 rows as q has, got 16"),
        (lambda: orientation(torch.randn(32, 64), torch.randn(32, 64), 4), r"expected \(32, 32\), got \(32, 64\)"),
        (lambda: orientation(torch.randn(32, 32), torch.randn(16, 32), 4), r"expected \(32, 32\), got \(16, 32\)"),
    ],
)
def test_what_does_not_fit_is_said(call, said):
    with pytest.raises(ValueError, match=said):
        call()


# The models of the record


def gradients(kind):
    """An attention of `tools/trace.py` with its gradients, in float64."""
    torch.manual_seed(7)
    attention = trace.Attention(kind).double()
    attention.turn = attention.turn.to(torch.complex128)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, trace.L, trace.E, dtype=torch.float64)
    attention(x).abs().pow(1.5).sum().backward()
    return attention


def gains(linear):
    """(heads, D): what |row|^2 gains for a step along the gradient, the bias one more column."""
    pairs = [(p, p.grad) for p in linear.parameters()]
    return sum((p * g).view(len(p), -1).sum(1) for p, g in pairs).view(-1, trace.D)


@pytest.mark.parametrize("kind", ["half", "interleaved", "added"])
def test_the_models_turn_the_pairs_that_they_say(kind):
    attention = gradients(kind)
    q, k = gains(attention.q), gains(attention.k)
    halves = [m.view(-1, 2, trace.D // 2).sum(1) for m in (q, k)]
    neighbours = [m.view(-1, trace.D // 2, 2).sum(2) for m in (q, k)]
    assert torch.allclose(q, k) == (kind == "added")
    assert torch.allclose(*halves) == (kind != "interleaved")
    assert torch.allclose(*neighbours) == (kind != "half")


@pytest.mark.parametrize("kind", ["neighbours", "dealt"])
def test_the_models_share_heads_as_they_say(kind):
    attention = gradients(kind)
    q, k = gains(attention.q), gains(attention.k)
    assert torch.allclose(q.view(2, -1, trace.D).sum(1), k) == (kind == "neighbours")
    assert torch.allclose(q.view(-1, 2, trace.D).sum(0), k) == (kind == "dealt")


def test_models_are_trained_and_kept_on_the_way():
    ids = torch.arange(400) % 7
    kept, loss = trace.train(ids, stops=(0, 3, 60), **trace.MODELS[0])
    assert list(kept) == [0, 3, 60]
    assert loss < 2.5  # a line of seven letters, over and over
    assert not torch.equal(kept[0][0]["q.weight"], kept[3][0]["q.weight"])
    rows = trace.of_one(kept, "added")
    assert {row[2] for row in rows if row[0] == 60} == {
        "trained", "packing", "orientation", "orientation_out", "heads", "rotary", "key",
    }  # fmt: skip
    assert [row[3] for row in rows if row[2] == "packing" and row[:2] == [0, 0]] == list(orders(trace.H, trace.D))


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def message(*parts):
    """Fields of protobuf: (number, an int or bytes)."""
    out = b""
    for number, value in parts:
        if isinstance(value, int):
            out += varint(number * 8) + varint(value)
        else:
            out += varint(number * 8 + 2) + varint(len(value)) + value
    return out


def test_matrices_of_an_onnx_file_are_read():
    numbers = torch.randn(300, 2)
    tensor = message((1, 300), (1, 2), (2, 1), (8, b"w"), (9, numbers.numpy().tobytes()))
    vector = message((1, 600), (2, 1), (8, b"b"), (9, numbers.numpy().tobytes()))
    integers = message((1, 300), (1, 2), (2, 7), (8, b"i"), (9, bytes(4800)))
    constant = message((1, 2), (1, 300), (2, 1), (9, numbers.numpy().tobytes()))
    node = message((2, b"out"), (4, b"Constant"), (5, message((1, b"value"), (5, constant))))
    graph = message((1, node), (5, tensor), (5, vector), (5, integers))
    found = trace.onnx(message((1, 9), (7, graph)))
    assert set(found) == {"w", "out"}
    assert torch.equal(found["w"], numbers)
    assert torch.equal(found["out"], numbers.view(2, 300))
