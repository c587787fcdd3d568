from exercises import exercise, outcomes

# --8<-- [start:setup]
import torch
from exercises import check
from torch import nn
from torch.nn import functional as F

torch.set_printoptions(precision=4, sci_mode=False, linewidth=120)
torch.manual_seed(55)
B, L, E, H = 1, 5, 4, 2
D = E // H
x = torch.randn(B, L, E)
mha = nn.MultiheadAttention(E, H, bias=False, batch_first=True).eval()
out, weights = mha(x, x, x, average_attn_weights=False)
print("x", tuple(x.shape), "out", tuple(out.shape))
print("weights", tuple(weights.shape))
# --8<-- [end:setup]

# --8<-- [start:refused]
def refused(answer, right):
    """Fail unless the answer has the right shape and wrong numbers."""
    assert answer.shape == right.shape
    try:
        torch.testing.assert_close(answer, right)
    except AssertionError as error:
        print(str(error).splitlines()[2])
    else:
        raise AssertionError("this answer is right")
# --8<-- [end:refused]


# --8<-- [start:packed_try]
qkv = None  # (B, L, 3E)
check("one-product", qkv)
# --8<-- [end:packed_try]

# --8<-- [start:packed]
# (3E, E) and (B, L, 3E)
w = mha.in_proj_weight.detach()
qkv = F.linear(x, w)
print(tuple(w.shape), tuple(qkv.shape))
print(qkv[0])
torch.testing.assert_close(qkv, x @ w.T)
# --8<-- [end:packed]

# --8<-- [start:packed_wrong]
# every third row for the query, instead of the first E
q_wrong = F.linear(x, w[0::3])
refused(q_wrong, qkv[..., :E])
assert not torch.allclose(q_wrong, qkv[..., :E])
# --8<-- [end:packed_wrong]
agree = [torch.allclose(q_wrong[..., j], qkv[..., j]) for j in range(E)]
assert agree == [True, False, False, False]  # guard: first_column_alone
torch.testing.assert_close(q_wrong[..., 2:], torch.stack([x @ w[6], x @ w[9]], dim=-1))  # guard: keys_and_values_mixed_in
exercise(
    "one-product",
    qkv,
    every_third=F.linear(x, torch.cat([w[0::3], w[1::3], w[2::3]])),
    poured=x @ w.reshape(E, 3 * E),
    by_head=F.linear(x, w.view(3, H, D, E).transpose(0, 1).reshape(3 * E, E)),
)


# --8<-- [start:split_try]
k_1 = None  # (B, L, D), the keys of head 1
check("six-slices", k_1)
# --8<-- [end:split_try]

# --8<-- [start:split]
# (B, L, 3H, D) -> (B, 3H, L, D) -> six of (B, L, D)
parts = qkv.view(B, L, 3 * H, D).transpose(1, 2).unbind(dim=1)
q, k, v = parts[:H], parts[H : 2 * H], parts[2 * H :]
print(len(parts), tuple(q[0].shape))
# head 1's keys are columns E + D to E + 2D
torch.testing.assert_close(k[1], x @ w[E + D : E + 2 * D].T)
print(k[1][0])
# --8<-- [end:split]
assert [len(part) for part in (q, k, v)] == [H, H, H]  # guard: two_of_each

# --8<-- [start:split_wrong]
# (B, L, E), a view into qkv
queries = qkv.chunk(3, dim=-1)[0]
try:
    queries.view(B, H, L, D)
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("view should refuse")
advised = queries.reshape(B, H, L, D)
refused(advised[:, 0], q[0])
assert not torch.allclose(advised[:, 0], q[0])
# --8<-- [end:split_wrong]
# rows 0 to 3 of "head 0": token 0 of both heads, then token 1 of both
neighbours = torch.stack([q[0][0, 0], q[1][0, 0], q[0][0, 1], q[1][0, 1]])
torch.testing.assert_close(advised[0, 0, :4], neighbours)  # guard: neighbouring_tokens
exercise(
    "six-slices",
    k[1],
    query=q[1],
    value=v[1],
    head_0=k[0],
    by_head=qkv.view(B, L, H, 3, D)[:, :, 1, 1],
    tokens=qkv.chunk(3, dim=-1)[1].reshape(B, H, L, D)[:, 1],
    in_turn=qkv.chunk(3, dim=-1)[1][..., 1::H],
)


# --8<-- [start:weights_try]
a = None  # (B, H, L, L)
check("attention-weights", a)
# --8<-- [end:weights_try]

# --8<-- [start:weights]
a = []
for i in range(H):
    # (B, L, D) @ (B, D, L) -> (B, L, L)
    scores = q[i] @ k[i].transpose(-2, -1) / D**0.5
    a.append(scores.softmax(dim=-1))
    torch.testing.assert_close(a[i], weights[:, i])
    print(a[i][0].detach())
# --8<-- [end:weights]

# --8<-- [start:weights_wrong]
products = q[0] @ k[0].transpose(-2, -1)
# the root of E instead of D
by_width = (products / E**0.5).softmax(dim=-1)
refused(by_width, weights[:, 0])
assert not torch.allclose(by_width, weights[:, 0])
# columns sum to 1 instead of rows
by_column = (products / D**0.5).softmax(dim=-2)
refused(by_column, weights[:, 0])
assert not torch.allclose(by_column, weights[:, 0])
# --8<-- [end:weights_wrong]
# the right weights tell what the wrong ones are: a flatter power of them, and their columns over the columns' sums
flatter = (weights[:, 0].log() * (D / E) ** 0.5).softmax(dim=-1)
torch.testing.assert_close(by_width, flatter)  # guard: root_of_the_width
odds = (products / D**0.5).exp()
torch.testing.assert_close(by_column, odds / odds.sum(dim=1, keepdim=True))  # guard: over_columns
for wrong, axis in ((by_width, -1), (by_column, -2)):
    torch.testing.assert_close(wrong.sum(dim=axis), torch.ones(B, L))  # guard: distributions_both
scores = torch.stack([q[i] @ k[i].mT for i in range(H)], dim=1)
exercise(
    "attention-weights",
    weights,
    width=(scores / E**0.5).softmax(-1),
    no_scale=scores.softmax(-1),
    columns=(scores / D**0.5).softmax(-2),
    exchanged=(scores.mT / D**0.5).softmax(-1),
    scores=scores / D**0.5,
)


# --8<-- [start:output_try]
by_hand = None  # (B, L, E)
check("output", by_hand)
# --8<-- [end:output_try]

# --8<-- [start:output]
# H times (B, L, L) @ (B, L, D)
heads = [a[i] @ v[i] for i in range(H)]
concat = torch.cat(heads, dim=-1)
by_hand = F.linear(concat, mha.out_proj.weight)
torch.testing.assert_close(by_hand, out)
print(tuple(heads[0].shape), tuple(concat.shape))
print(by_hand[0].detach())
# --8<-- [end:output]

# --8<-- [start:output_wrong]
# (B, H, L, D) read as (B, L, E): nothing raises
stacked = torch.stack(heads, dim=1)
merged = stacked.view(B, L, E)
refused(F.linear(merged, mha.out_proj.weight), out)
assert not torch.allclose(merged, concat)
# --8<-- [end:output_wrong]
two_tokens = torch.cat([heads[0][0, 0], heads[0][0, 1]])
torch.testing.assert_close(merged[0, 0], two_tokens)  # guard: two_tokens_in_a_row

# --8<-- [start:merge]
# (B, L, H, D): each token's heads together
by_token = stacked.transpose(1, 2)
try:
    by_token.view(B, L, E)
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("view should refuse")
assert torch.equal(by_token.reshape(B, L, E), concat)
# --8<-- [end:merge]
w_out = mha.out_proj.weight
exercise(
    "output",
    out,
    merged=F.linear(merged, w_out),
    not_projected=concat,
    on_its_side=concat @ w_out,
    heads_exchanged=F.linear(concat.roll(D, dims=-1), w_out),
)


# --8<-- [start:mean_try]
mean = None  # (B, L, L), from weights
check("the-mean", mean)
# --8<-- [end:mean_try]

# --8<-- [start:mean]
# what the module returns unless it is asked
_, mean = mha(x, x, x)
torch.testing.assert_close(mean, weights.mean(dim=1))
print(tuple(mean.shape))
# --8<-- [end:mean]

# --8<-- [start:mean_wrong]
values = torch.cat(v, dim=-1)
from_mean = F.linear(mean @ values, mha.out_proj.weight)
refused(from_mean, out)
assert not torch.allclose(from_mean, out)
print(f"greatest difference {(from_mean - out).abs().max():.3f}")
# --8<-- [end:mean_wrong]
# the heads' weights exchanged: the same mean, another output
exchanged = weights.flip(1)
torch.testing.assert_close(exchanged.mean(dim=1), mean)  # guard: same_mean
others = torch.cat([exchanged[:, i] @ v[i] for i in range(H)], dim=-1)
assert not torch.allclose(others @ mha.out_proj.weight.T, out, atol=0.01)  # guard: another_output
every_head_alike = torch.cat([mean @ values for values in v], dim=-1)
torch.testing.assert_close(from_mean, every_head_alike @ mha.out_proj.weight.T)  # guard: mean_in_every_head
exercise(
    "the-mean",
    mean,
    total=weights.sum(dim=1),
    one_head=weights[:, 0],
    other_head=weights[:, 1],
    transposed=mean.mT,
)


# --8<-- [start:paper_try]
matrices = None  # a pair: W_1^Q (E, D), W_1^O (D, E)
check("the-papers-matrices", matrices)
# --8<-- [end:paper_try]

# --8<-- [start:paper]
# (E, D) each: the paper's matrices
w_q = [w[i * D : (i + 1) * D].T for i in range(H)]
w_k = [w[E + i * D : E + (i + 1) * D].T for i in range(H)]
w_v = [w[2 * E + i * D : 2 * E + (i + 1) * D].T for i in range(H)]
total = torch.zeros(B, L, E)
for i in range(H):
    # (D, E): rows of W^O are columns of out_proj.weight
    w_o = mha.out_proj.weight[:, i * D : (i + 1) * D].T
    scores = (x @ w_q[i]) @ (x @ w_k[i]).mT / D**0.5
    total = total + scores.softmax(-1) @ (x @ w_v[i]) @ w_o
torch.testing.assert_close(total, out, rtol=0, atol=1e-6)
print(tuple(w_q[0].shape), tuple(w_o.shape))
# --8<-- [end:paper]

# --8<-- [start:paper_wrong]
# (E, D) without a transpose: columns of the query's block
columns = [w[:E, i * D : (i + 1) * D] for i in range(H)]
refused(x @ columns[0], x @ w_q[0])
assert not torch.allclose(columns[0], w_q[0])
# (D, E) without a transpose: rows of out_proj.weight
rows = mha.out_proj.weight[D:]
refused(heads[1] @ rows, heads[1] @ w_o)
assert not torch.allclose(rows, w_o)
# --8<-- [end:paper_wrong]
assert torch.equal(columns[0], torch.stack([w[:E, 0], w[:E, 1]], dim=1))  # guard: columns_for_rows
assert torch.equal(rows, torch.stack([mha.out_proj.weight[2], mha.out_proj.weight[3]]))  # guard: rows_for_columns
other_columns = w[:E, D:]
exercise(
    "the-papers-matrices",
    [w_q[1], w_o],
    both=[other_columns, rows],
    query_columns=[other_columns, w_o],
    output_rows=[w_q[1], rows],
    head_0=[w_q[0], w_out[:, :D].T],
    key=[w_k[1], w_o],
)


# --8<-- [start:round_trip_try]
packed = None  # (3E, E)
check("way-back", packed)
# --8<-- [end:round_trip_try]

# --8<-- [start:round_trip]
packed = torch.cat([m.T for m in [*w_q, *w_k, *w_v]])
other = nn.MultiheadAttention(E, H, bias=False, batch_first=True).eval()
state = {**mha.state_dict(), "in_proj_weight": packed}
print(other.load_state_dict(state))
assert torch.equal(packed, mha.in_proj_weight)
torch.testing.assert_close(other(x, x, x)[0], out)
# --8<-- [end:round_trip]

# --8<-- [start:round_trip_wrong]
# head by head: query, key, value of head 0, then of head 1
by_head = [m.T for i in range(H) for m in (w_q[i], w_k[i], w_v[i])]
state["in_proj_weight"] = torch.cat(by_head)
print(other.load_state_dict(state))
refused(other(x, x, x)[0], out)
assert not torch.allclose(state["in_proj_weight"], packed)
# --8<-- [end:round_trip_wrong]
# where head 1's query is looked for, head 0's key stands
assert torch.equal(other.in_proj_weight[D : 2 * D], w_k[0].T)  # guard: key_for_query
exercise(
    "way-back",
    packed,
    by_head=torch.cat(by_head),
    on_its_side=torch.cat([torch.cat(parts, dim=1) for parts in (w_q, w_k, w_v)]),
    poured=torch.cat([m.reshape(D, E) for m in [*w_q, *w_k, *w_v]]),
    keys_first=torch.cat([m.T for m in [*w_k, *w_q, *w_v]]),
)


# --8<-- [start:order_try]
holds = None  # a function: layer, x (B, L, E) -> bool
check("order-of-tokens", holds)
# --8<-- [end:order_try]

# --8<-- [start:order]
# tokens in another order
order = torch.tensor([3, 0, 4, 1, 2])
y = x[:, order]
torch.testing.assert_close(mha(y, y, y)[0], out[:, order])
# --8<-- [end:order]

# --8<-- [start:order_wrong]
def split_badly(x):
    """Attention whose heads are made by reshape alone."""
    q, k, v = F.linear(x, w).chunk(3, dim=-1)
    # three of (B, H, L, D)
    q, k, v = (t.reshape(B, H, L, D) for t in (q, k, v))
    heads = F.scaled_dot_product_attention(q, k, v)
    return F.linear(heads.reshape(B, L, E), mha.out_proj.weight)


print(tuple(split_badly(y).shape))
refused(split_badly(y), split_badly(x)[:, order])
assert not torch.allclose(split_badly(x), out)
# --8<-- [end:order_wrong]
# it trains all the same: its loss against the right layer falls
w = w.clone().requires_grad_()
losses = []
for _ in range(40):
    loss = (split_badly(x) - out.detach()).square().mean()
    (slope,) = torch.autograd.grad(loss, w)
    w = (w - slope).detach().requires_grad_()
    losses.append(loss.item())
assert losses[-1] < losses[0] / 2  # guard: it_trains


def keeps_order(layer, x):
    """What the module has and a layer with both mistakes has not."""
    order = torch.arange(x.shape[1] - 1, -1, -1)
    return torch.allclose(layer(x[:, order]), layer(x)[:, order], atol=1e-5)


def by_module(x):
    return mha(x, x, x)[0]


right_w = mha.in_proj_weight.detach()


def split_and_merged_badly(x):
    heads = F.scaled_dot_product_attention(*(t.reshape(B, H, L, D) for t in F.linear(x, right_w).chunk(3, dim=-1)))
    return F.linear(heads.reshape(B, L, E), mha.out_proj.weight)


exercise(
    "order-of-tokens",
    keeps_order,
    given=[(by_module, x), (split_and_merged_badly, x), (lambda x: by_module(2 * x), x)],
    outputs_stay=lambda layer, x: torch.allclose(layer(x.flip(1)), layer(x), atol=1e-5),
    other_way=lambda layer, x: not keeps_order(layer, x),
    always=lambda layer, x: layer(x).shape == x.shape,
)

for expected, told in outcomes():
    assert told == expected  # guard: every_answer_is_told
