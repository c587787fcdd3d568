# --8<-- [start:setup]
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 24, 4
D = E // H
mha = nn.MultiheadAttention(E, H, batch_first=True)
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
x = torch.randn(B, L, E)


def run(mha):
    """Output (B, L, E) and weights (B, H, L, L)."""
    return mha(x, x, x, average_attn_weights=False)


output, A = run(mha)
# --8<-- [end:setup]

# --8<-- [start:read]
def rows(i, of="qkv"):
    """Rows of head i in in_proj_weight and in_proj_bias."""
    starts = ["qkv".index(role) * E + i * D for role in of]
    return torch.cat([torch.arange(a, a + D) for a in starts])


def columns(i):
    """Columns of head i in out_proj.weight."""
    return slice(i * D, (i + 1) * D)


def contribution(mha, i):
    W, b = mha.in_proj_weight, mha.in_proj_bias
    v = x @ W[rows(i, "v")].T + b[rows(i, "v")]  # (B, L, D)
    A = run(mha)[1][:, i]  # (B, L, L)
    return A @ v @ mha.out_proj.weight[:, columns(i)].T


parts = [contribution(mha, i) for i in range(H)]
torch.testing.assert_close(sum(parts) + mha.out_proj.bias, output)
# --8<-- [end:read]

# --8<-- [start:ablate]
i = 2
ablated = deepcopy(mha)
with torch.no_grad():
    ablated.out_proj.weight[:, columns(i)] = 0
# without head i, and nothing else
without = run(ablated)[0]
torch.testing.assert_close(without, output - parts[i])

# wrong: rows are features of the output, made by all heads
by_rows = deepcopy(mha)
with torch.no_grad():
    by_rows.out_proj.weight[columns(i)] = 0
assert not torch.allclose(run(by_rows)[0], without, atol=0.1)
# --8<-- [end:ablate]
torch.testing.assert_close(run(ablated)[1], A)  # guard: maps_stay
features = torch.arange(E) // D == i  # of the output, not of head i
expected = torch.where(features, mha.out_proj.bias, output)
torch.testing.assert_close(run(by_rows)[0], expected)  # guard: rows_are_features

# --8<-- [start:uniform]
# wrong too: a head without queries still looks, everywhere alike
silent = deepcopy(mha)
with torch.no_grad():
    silent.in_proj_weight[rows(i, "q")] = 0
    silent.in_proj_bias[rows(i, "q")] = 0
still, weights = run(silent)
torch.testing.assert_close(weights[:, i], torch.full((B, L, L), 1 / L))
assert not torch.allclose(still, without, atol=0.1)

# with the bias left: one row for all queries, not uniform
with torch.no_grad():
    silent.in_proj_bias[rows(i, "q")] = mha.in_proj_bias[rows(i, "q")]
one_row = run(silent)[1][:, i].detach()
torch.testing.assert_close(one_row[:, 0], one_row[:, 4])
assert not torch.allclose(one_row, weights[:, i], atol=0.1)
print(one_row[0, 0])
# --8<-- [end:uniform]
assert (one_row - one_row[:, :1]).abs().max() < 1e-12  # guard: every_row_is_the_same
b_v = mha.in_proj_bias[rows(i, "v")]
mean_v = (x @ mha.in_proj_weight[rows(i, "v")].T + b_v).mean(1, keepdim=True)
torch.testing.assert_close(still, without + mean_v @ mha.out_proj.weight[:, columns(i)].T)  # guard: it_averages_all_tokens

three = {"W_q, b_q": A[0, i], "W_q = 0, b_q = 0": weights[0, i], "W_q = 0": one_row[0]}
figure("silenced", "attention", {"A": torch.stack(list(three.values()))}, labels={"heads": list(three)})

# --8<-- [start:permute]
order = [2, 0, 3, 1]
packed = torch.cat([rows(i, of) for of in "qkv" for i in order])
merged = torch.cat([torch.arange(E)[columns(i)] for i in order])
permuted = deepcopy(mha)
with torch.no_grad():
    permuted.in_proj_weight[:] = mha.in_proj_weight[packed]
    permuted.in_proj_bias[:] = mha.in_proj_bias[packed]
half_done = run(permuted)[0]
with torch.no_grad():
    permuted.out_proj.weight[:] = mha.out_proj.weight[:, merged]

same, moved = run(permuted)
torch.testing.assert_close(same, output)
torch.testing.assert_close(moved, A[:, order])
# wrong: out_proj left as it was
assert not torch.allclose(half_done, output, atol=0.1)
# --8<-- [end:permute]
W_v, b_v = mha.in_proj_weight[2 * E :], mha.in_proj_bias[2 * E :]
v = (x @ W_v.T + b_v).unflatten(-1, (H, D)).transpose(1, 2)  # (B, H, L, D)
crossed = [A[:, j] @ v[:, j] @ mha.out_proj.weight[:, columns(place)].T for place, j in enumerate(order)]
torch.testing.assert_close(half_done, sum(crossed) + mha.out_proj.bias)  # guard: heads_meet_columns_of_others


# --8<-- [start:pruned]
class Pruned(nn.Module):
    """Some heads of an nn.MultiheadAttention, their width kept."""

    def __init__(self, mha, heads):
        super().__init__()
        kept = torch.cat([rows(i, of) for of in "qkv" for i in heads])
        merged = torch.cat([torch.arange(E)[columns(i)] for i in heads])
        self.W = nn.Parameter(mha.in_proj_weight[kept])
        self.b = nn.Parameter(mha.in_proj_bias[kept])
        self.W_o = nn.Parameter(mha.out_proj.weight[:, merged])
        self.b_o = nn.Parameter(mha.out_proj.bias.clone())

    def forward(self, x):
        # (3, B, H', L, D)
        q, k, v = F.linear(x, self.W, self.b).unflatten(
            -1, (3, -1, D)
        ).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v)
        merged = heads.transpose(1, 2).flatten(2)
        return F.linear(merged, self.W_o, self.b_o)
# --8<-- [end:pruned]


# --8<-- [start:prune]
i = 2
pruned = Pruned(mha, [0, 1, 3])
torch.testing.assert_close(pruned(x), without)
before = sum(p.numel() for p in mha.parameters())
after = sum(p.numel() for p in pruned.parameters())
print(f"parameters {before} -> {after}")
assert before - after == 4 * E * D + 3 * D

# wrong: three heads of PyTorch are wider, and cut elsewhere
wider = nn.MultiheadAttention(E, H - 1, batch_first=True)
wider.load_state_dict(ablated.state_dict())  # all keys match
assert wider.head_dim == 8
assert not torch.allclose(run(wider)[0], without, atol=0.1)
# --8<-- [end:prune]
q, k, v = (x @ mha.in_proj_weight.T + mha.in_proj_bias).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
cut = ((q @ k.mT / 8**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
torch.testing.assert_close(run(wider)[0], ablated.out_proj(cut))  # guard: cut_every_eight_rows


# --8<-- [start:mask]
def step(mha, optimizer):
    """Three steps of training on some loss."""
    for _ in range(3):
        optimizer.zero_grad()
        run(mha)[0].square().mean().backward()
        optimizer.step()
    return mha.in_proj_weight.detach()


def masked(optimizer, **options):
    trained = deepcopy(mha)
    free = torch.ones(3 * E, 1)
    free[rows(i)] = 0
    trained.in_proj_weight.register_hook(lambda grad: grad * free)
    return step(trained, optimizer(trained.parameters(), **options))


frozen = mha.in_proj_weight[rows(i)]
sgd = masked(torch.optim.SGD, lr=0.1)
assert torch.equal(sgd[rows(i)], frozen)
assert not torch.allclose(sgd, mha.in_proj_weight)
# wrong: AdamW shrinks what has no gradient
adamw = masked(torch.optim.AdamW, lr=0.1, weight_decay=0.1)
torch.testing.assert_close(adamw[rows(i)], frozen * (1 - 0.01) ** 3)
assert not torch.allclose(adamw[rows(i)], frozen)
# --8<-- [end:mask]


# --8<-- [start:frozen]
class Frozen(nn.Module):
    """Where `held` is True, a tensor stays what it was."""

    def __init__(self, tensor, held):
        super().__init__()
        self.register_buffer("held", held)
        self.register_buffer("kept", tensor.detach().clone())

    def forward(self, tensor):
        return torch.where(self.held, self.kept, tensor)


def freeze(mha, i):
    """All of head i: its rows, their biases, its columns."""
    row, column = torch.zeros(3 * E).bool(), torch.zeros(E).bool()
    row[rows(i)], column[columns(i)] = True, True
    for module, name, held in (
        (mha, "in_proj_weight", row[:, None]),
        (mha, "in_proj_bias", row),
        (mha.out_proj, "weight", column),
    ):
        keep = Frozen(getattr(module, name), held)
        register_parametrization(module, name, keep)
# --8<-- [end:frozen]


# --8<-- [start:freeze]
held = deepcopy(mha)
freeze(held, i)
options = {"lr": 0.1, "weight_decay": 0.1}
after = step(held, torch.optim.AdamW(held.parameters(), **options))
assert torch.equal(after[rows(i)], frozen)
# what head i adds to the output is the same, the output is not
assert torch.equal(contribution(held, i), parts[i])
assert not torch.allclose(run(held)[0], output, atol=0.1)
# --8<-- [end:freeze]
from torch.nn.utils.parametrize import remove_parametrizations

for place in ("in_proj_weight", "in_proj_bias", "out_proj.weight"):
    part = deepcopy(mha)
    freeze(part, i)
    module = part.out_proj if "out" in place else part
    remove_parametrizations(module, place.rpartition(".")[2])
    step(part, torch.optim.AdamW(part.parameters(), **options))
    assert not torch.allclose(contribution(part, i), parts[i], atol=1e-3)  # guard: each_of_the_three_is_needed

# --8<-- [start:reset]
reset = deepcopy(mha)
bound = (6 / (4 * E)) ** 0.5  # PyTorch's own, for the packed matrix
with torch.no_grad():
    fresh = torch.empty(3 * D, E).uniform_(-bound, bound)
    reset.in_proj_weight[rows(i)] = fresh
    reset.in_proj_bias[rows(i)] = 0
_, weights = run(reset)
others = [0, 1, 3]
assert torch.equal(weights[:, others], A[:, others])
assert not torch.allclose(weights[:, i], A[:, i], atol=0.1)

# wrong: a view that looks like the paper's takes from every head
strided = deepcopy(mha)
with torch.no_grad():
    strided.in_proj_weight[:E].view(D, H, E)[:, i] = fresh[:D]
_, maps = run(strided)
changed = [j for j in range(H) if not torch.equal(maps[:, j], A[:, j])]
print("changed", changed)
assert changed == [0, 1, 2, 3]
# --8<-- [end:reset]
with torch.random.fork_rng():
    stock = nn.MultiheadAttention(E, H)
assert 0.95 * bound < stock.in_proj_weight.abs().max() < bound  # guard: bound_is_pytorchs_own
assert stock.in_proj_bias.count_nonzero() == reset.in_proj_bias[rows(i)].count_nonzero() == 0  # guard: bias_starts_at_0
taken = (strided.in_proj_weight != mha.in_proj_weight).any(1).nonzero().flatten()
assert torch.equal(taken, torch.arange(i, E, H))  # guard: every_fourth_row_is_taken
assert sorted({row // D for row in taken.tolist()}) == [0, 1, 2, 3]  # guard: they_are_of_all_heads


# --8<-- [start:lora]
class LoRA(nn.Module):
    """W + B A on the rows of q and of v; k is left alone."""

    def __init__(self, E, rank):
        super().__init__()
        self.A = nn.Parameter(torch.randn(2, rank, E) * 0.1)
        self.B = nn.Parameter(torch.zeros(2, E, rank))

    def forward(self, W):
        q, v = self.B @ self.A  # (E, E) each
        return W + torch.cat([q, torch.zeros_like(W[: len(q)]), v])


tuned = deepcopy(mha).requires_grad_(False)
lora = LoRA(E, rank=2)
register_parametrization(tuned, "in_proj_weight", lora)
assert torch.equal(run(tuned)[0], output)  # B is 0 at first
W = step(tuned, torch.optim.AdamW(lora.parameters(), lr=0.1))
change = (W - mha.in_proj_weight).unflatten(0, (3, E))
print("rank", *torch.linalg.matrix_rank(change).tolist())
assert torch.equal(change[1], torch.zeros(E, E))
assert torch.linalg.matrix_rank(change[0]) == 2
assert torch.linalg.matrix_rank(change[2]) == 2
# --8<-- [end:lora]


# --8<-- [start:dead]
class Adapted(nn.Module):
    """The usual wrapper of a Linear: base(x) + x A^T B^T."""

    def __init__(self, base, rank):
        super().__init__()
        self.base = base
        self.A = nn.Parameter(torch.randn(rank, E))
        self.B = nn.Parameter(torch.randn(E, rank))
        self.weight, self.bias = base.weight, base.bias

    def forward(self, x):
        return self.base(x) + x @ self.A.T @ self.B.T


wrapped, heard = deepcopy(mha), []
wrapped.out_proj = Adapted(wrapped.out_proj, rank=2)
wrapped.out_proj.register_forward_hook(lambda *_: heard.append(1))
same, _ = run(wrapped)
same.square().mean().backward()
assert torch.equal(same, output)  # the adapter is not there
assert wrapped.out_proj.A.grad is None
assert heard == []
# --8<-- [end:dead]
assert wrapped.out_proj.B.grad is None  # guard: neither_half_is_trained
assert not torch.allclose(wrapped.out_proj(x), mha.out_proj(x), atol=0.1)  # guard: called_it_would_count
linears = [name for name, module in mha.named_modules() if isinstance(module, nn.Linear)]
assert linears == ["out_proj"]  # guard: out_proj_is_the_only_linear

# --8<-- [start:question]
def effect(i):
    return (parts[i].norm() / output.norm()).item()


print("effect", *(f"{effect(i):.2f}" for i in range(H)))
least = min(range(H), key=effect)
rest = [j for j in range(H) if j != least]
# leave the head's mean behind, as a bias
small = Pruned(mha, rest)
mean = parts[least].mean((0, 1))
with torch.no_grad():
    small.b_o += mean
by_mean = (small(x) - output).norm()
by_zero = (Pruned(mha, rest)(x) - output).norm()
print(f"zero {by_zero:.3f}\nmean {by_mean:.3f}")
assert by_mean < by_zero
# --8<-- [end:question]
left_out = torch.stack([(Pruned(mha, [j for j in range(H) if j != i])(x) - output).norm() for i in range(H)])
torch.testing.assert_close(left_out / output.norm(), torch.tensor([effect(i) for i in range(H)]))  # guard: effect_of_leaving_out
assert left_out.argmin() == least  # guard: the_smallest_is_the_cheapest
show("least", least)
