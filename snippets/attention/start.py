"""From five words to attention: vectors, places, dot products, queries, keys and values, softmax, heads, and the block."""

from itertools import pairwise

from running_example import COLUMNS, TOKENS

black, cat, _, white, dog = range(5)

# --8<-- [start:vectors]
import torch
from running_example import words

torch.set_default_dtype(torch.float64)  # (1)!
torch.set_printoptions(precision=2, sci_mode=False)
L, E = words.shape
print(f"words {tuple(words.shape)}")
print(f"word 1 {words[1]}")
print(f"word 3 {words[3]}")
# --8<-- [end:vectors]
features = words[:, :4]
assert torch.equal(features[:, 0] * features[:, 1], words.new_zeros(L))  # guard: adjective_or_noun
assert features[[black, white, cat, dog], [2, 2, 3, 3]].tolist() == [-1, 1, -1, 1]  # guard: opposite_signs
show("length", L)
show("width", E)
figure(
    "words",
    "matrix",
    {"words": features},
    {"rows": {"words": TOKENS}, "columns": {"words": COLUMNS[:4]}, "groups": {"words": [{"role": "x"}]}},
)

# --8<-- [start:places]
from running_example import X, places

# entry by entry, without a loop
torch.testing.assert_close(X, words + places)
print(X)
# --8<-- [end:places]
angles = torch.atan2(places[:, 5], places[:, 4]).diff()
torch.testing.assert_close(angles, angles.new_full((L - 1,), torch.pi / 4))  # guard: an_eighth_of_a_turn
torch.testing.assert_close(places.norm(dim=-1), places.new_ones(L))  # guard: on_a_circle

# --8<-- [start:dot_product]
a, b = X[3], X[0]
by_hand = 0
for c in range(E):
    by_hand = by_hand + a[c] * b[c]
torch.testing.assert_close(a @ b, by_hand)
print(f"words 3 and 0   {a @ b:5.2f}")
for j in range(L):
    print(f"places 1 and {j}  {places[1] @ places[j]:5.2f}")
# --8<-- [end:dot_product]
near = places[1] @ places.T
assert near[1] > near[0] > near[3] > near[4]  # guard: farther_is_less
torch.testing.assert_close(near[0], near[2])  # guard: both_neighbours_alike
torch.testing.assert_close(words[3] @ words[0], words.new_zeros(()))  # guard: kinds_agree_colours_differ
show("apart_3", f"{places[3] @ places[0]:.2f}".replace("-", "−"))

# --8<-- [start:matrix_product]
from running_example import W_Q

W = W_Q[0]
Q = X @ W
D = Q.shape[1]
# row 1 of X with column 1 of W
torch.testing.assert_close(Q[1, 1], X[1] @ W[:, 1])
for i in range(L):
    torch.testing.assert_close(Q[i], X[i] @ W)
print(f"{tuple(X.shape)} @ {tuple(W.shape)} -> {tuple(Q.shape)}")
# --8<-- [end:matrix_product]
show("head_width", D)
figure(  # guard: product_of_queries
    "queries",
    "matrix",
    {"X": X, "W_0^Q": W, "Q": Q},
    {
        "operators": ["@", "="],
        "rows": {"X": TOKENS, "W_0^Q": COLUMNS, "Q": TOKENS},
        "groups": {
            "X": [{"role": "x"}],
            "W_0^Q": [{"role": "q", "head": 0, "of": W_Q.unbind(0)[0]}],
            "Q": [{"role": "q", "head": 0, "of": torch.stack([X[i] @ W for i in range(L)])}],
        },
        "mark": {"X": [[cat, c] for c in range(E)], "Q": [[cat, c] for c in range(D)]},
    },
)

# --8<-- [start:queries_keys_values]
from running_example import W_K, W_V

K = X @ W_K[0]
V = X @ W_V[0]
print(f"Q {tuple(Q.shape)}  K {tuple(K.shape)}  V {tuple(V.shape)}")
print(f"query of word 1  {Q[1]}")
print(f"key of word 0    {K[0]}")
print(f"value of word 0  {V[0]}")
# --8<-- [end:queries_keys_values]
adjectives, nouns = [black, white], [cat, dog]
asks, answers = (Q[:, 0] > 0).nonzero()[:, 0], (K[:, 0] > 0).nonzero()[:, 0]
assert asks.tolist() == nouns  # guard: nouns_ask
assert answers.tolist() == adjectives  # guard: adjectives_answer
# a query's place has the direction of the place before
turned = Q[1:, 1:] / Q[1:, 1:].norm(dim=-1, keepdim=True)
torch.testing.assert_close(turned, places[:-1, 4:])  # guard: one_place_back
torch.testing.assert_close(K[:, 1:], 2 * places[:, 4:])  # guard: key_has_its_own_place
torch.testing.assert_close(V, X[:, :D])  # guard: value_is_three_columns
figure(  # guard: product_of_keys
    "keys",
    "matrix",
    {"W_0^K": W_K[0], "K": K, "W_0^V": W_V[0]},
    {
        "rows": {"W_0^K": COLUMNS, "K": TOKENS, "W_0^V": COLUMNS},
        "groups": {
            "W_0^K": [{"role": "k", "head": 0, "of": W_K.unbind(0)[0]}],
            "K": [{"role": "k", "head": 0, "of": torch.einsum("le,ed->ld", X, W_K[0])}],
            "W_0^V": [{"role": "v", "head": 0, "of": W_V.unbind(0)[0]}],
        },
    },
)

# --8<-- [start:scores]
# K.T is K turned over: its columns are the keys
dots = Q @ K.T
torch.testing.assert_close(dots[1, 0], Q[1] @ K[0])
scores = dots / D**0.5
print(f"dot products of row 1  {dots[1]}")
print(f"scores of row 1        {scores[1]}")
# --8<-- [end:scores]
assert dots[cat].argmax() == black  # guard: black_is_highest
show("top_terms", " + ".join(f"{q:.4g} × {k:.4g}" for q, k in zip(Q[cat], K[black], strict=True)))
show("top_dot", f"{dots[cat, black]:.3f}")
show("root", f"{D**0.5:.3f}")
show("top_score", f"{scores[cat, black]:.3f}")

# --8<-- [start:softmax]
exponentials = scores[1].exp()
by_hand = exponentials / exponentials.sum()
A = scores.softmax(dim=-1)
torch.testing.assert_close(A[1], by_hand)
torch.testing.assert_close(A.sum(dim=-1), torch.ones(L))
print(f"exp      {exponentials}")
print(f"weights  {A[1]}")
# --8<-- [end:softmax]
assert torch.equal(A[nouns].argmax(-1), torch.tensor(adjectives))  # guard: each_noun_its_adjective
others = torch.cat([A[cat, :black], A[cat, black + 1 :]])
assert A[cat, black] > 10 * others.max()  # guard: black_takes_most
assert A[cat, black] > 2 * A[black, cat]  # guard: not_mutual
assert A[black].argmax() == black  # guard: nothing_before_the_first
show("top_power", f"{exponentials[black]:.2f}")
show("sum_of_powers", f"{exponentials.sum():.2f}")
show("top_share", f"{A[cat, black]:.3f}")
torch.testing.assert_close(A[cat, cat], A[cat, white])  # guard: nearer_but_no_adjective
show("dog_printed", f"{A[cat, dog]:.2f}")
show("dog_weight", f"{A[cat, dog]:.3f}")
show("black_to_itself", f"{A[black, black]:.2f}")
show("black_to_cat", f"{A[black, cat]:.2f}")
show("e", f"{torch.ones(()).exp():.3f}")
show("e_to_minus_1", f"{torch.tensor(-1.0).exp():.2f}")
for name, column in {"back_1": 1, "back_2": 2}.items():
    by_place = zip(places[cat, 4:], W_Q[0, 4:, column], strict=True)
    show(name, " + ".join(f"{place:.4f} × {weight:.0f}" for place, weight in by_place).replace("-1", "(−1)"))
show("top_weight", f"{A[cat, black]:.2f}")
show("other_weight", f"{A[cat, white]:.2f}")
show("top_percent", f"{100 * A[cat, black]:.0f}")
figure("map", "attention", {"weights": A}, {"queries": TOKENS, "keys": TOKENS})
figure("row", "bars", {"weights": A[cat]}, {"categories": TOKENS})

# --8<-- [start:output]
output = A @ V
# row 1: the values, each times its weight, added up
mixed = sum(A[1, j] * V[j] for j in range(L))
torch.testing.assert_close(output[1], mixed)
print(f"weights {tuple(A.shape)}  V {tuple(V.shape)}")
print(f"output {tuple(output.shape)}")
print(f"output of word 1  {output[1]}")
print(f"output of word 4  {output[4]}")
# --8<-- [end:output]
assert output[cat, 2] < -0.7  # guard: cat_is_told_black
assert output[dog, 2] > 0.7  # guard: dog_is_told_white
terms = [f"{weight:.3f} × {value:.0f}" for weight, value in zip(A[cat], V[:, 2], strict=True) if value]
show("colour_terms", " + ".join(terms).replace("-1", "(−1)"))
show("cat_colour", f"{output[cat, 2]:.2f}".replace("-", "−"))
show("dog_colour", f"{output[dog, 2]:.2f}")
figure(  # guard: product_of_output
    "output",
    "matrix",
    {"A": A, "V": V, "A V": output},
    {
        "operators": ["@", "="],
        "rows": {"A": TOKENS, "V": TOKENS, "A V": TOKENS},
        "groups": {
            "A": [{"role": "x"}],
            "V": [{"role": "v", "head": 0, "of": torch.einsum("le,ed->ld", X, W_V[0])}],
            "A V": [{"role": "o", "of": torch.einsum("ls,sd->ld", A, V)}],
        },
        "mark": {"A": [[cat, j] for j in range(L)], "A V": [[cat, c] for c in range(D)]},
    },
)

# --8<-- [start:heads]
from running_example import W_O

H = len(W_Q)
maps, results = [], []
for i in range(H):
    Q, K, V = X @ W_Q[i], X @ W_K[i], X @ W_V[i]
    weights = (Q @ K.T / D**0.5).softmax(dim=-1)
    maps.append(weights)
    results.append(weights @ V)
torch.testing.assert_close(maps[0], A)
# (L, H D), then (L, E)
side_by_side = torch.cat(results, dim=-1)
Y = side_by_side @ W_O
print(f"{tuple(side_by_side.shape)} -> {tuple(Y.shape)}")
print(Y[:, 2:4])
# --8<-- [end:heads]
both = torch.stack(maps)
assert both[1, nouns].argmax(-1).tolist() == nouns[::-1]  # guard: each_noun_the_other
assert both[0, cat, black] + both[1, cat, dog] > 1  # guard: no_room_in_one_row
asks = [(X @ W_Q[i])[:, 0].nonzero()[:, 0].tolist() for i in range(H)]
assert asks == [nouns, nouns]  # guard: nouns_ask_in_both
turned = (X @ W_Q[1])[:, 1:]
torch.testing.assert_close(turned, -2 * places[:, 4:])  # guard: away_from_its_place
show("heads", H)
show("to_the_other", f"{both[1, cat, dog]:.2f}")
show("cat_animal", f"{Y[cat, 3]:.2f}")
assert Y[cat, 3] > 0.7  # guard: cat_is_told_dog
figure("heads", "attention", {"weights": both}, {"queries": TOKENS, "keys": TOKENS})

# --8<-- [start:in_pytorch]
from torch import nn

mha = nn.MultiheadAttention(E, H, bias=False, batch_first=True).double()
# the columns of each head's matrix become rows, head after head
rows = [W.mT.flatten(0, 1) for W in (W_Q, W_K, W_V)]
with torch.no_grad():
    mha.in_proj_weight.copy_(torch.cat(rows))
    mha.out_proj.weight.copy_(W_O.T)
text = X[None]  # a batch of one
answer, looks = mha(text, text, text, average_attn_weights=False)
torch.testing.assert_close(answer[0], Y)
torch.testing.assert_close(looks[0], torch.stack(maps))
# head 1: its queries, E rows below them its keys, then its values
for block, W in enumerate((W_Q, W_K, W_V)):
    start = block * E + D
    assert torch.equal(mha.in_proj_weight[start : start + D].T, W[1])
# --8<-- [end:in_pytorch]

# --8<-- [start:encoder]
from torch import nn

torch.manual_seed(0)
# 8 numbers a word inside, no dropout
layer = nn.TransformerEncoderLayer(E, H, 8, 0.0, batch_first=True)
batch = X[None]  # (B, L, E), one text: B = 1
gathered, _ = layer.self_attn(batch, batch, batch)
told = layer.norm1(batch + gathered)
thought = layer.linear2(layer.linear1(told).relu())
out = layer.norm2(told + thought)
torch.testing.assert_close(out, layer(batch))
print(f"{tuple(batch.shape)} -> {tuple(out.shape)}")
# --8<-- [end:encoder]
show("batch", len(batch))
steps = [
    ("words", [L, E], "x"),
    ("places", [L, E], "x"),
    ("attention", [L, E], "o"),
    ("add_1", [L, E], "x"),
    ("each", [L, E], "x"),
    ("add_2", [L, E], "x"),
]
nodes = [
    {
        "id": name,
        "text": name,
        "shape": list(out[0].shape) if name == "add_2" else shape,
        "column": 0,
        "row": n,
        "role": role,
    }
    for n, (name, shape, role) in enumerate(steps)
]
edges = [[a["id"], b["id"]] for a, b in pairwise(nodes)]
figure("block", "flow", {}, {"nodes": nodes, "edges": [*edges, ["places", "add_1"], ["add_1", "add_2"]]})

# --8<-- [start:question]
# words 0 and 3 change places: vectors move, places stay
swapped = words[[3, 1, 2, 0, 4]] + places
Q, K, V = swapped @ W_Q[0], swapped @ W_K[0], swapped @ W_V[0]
weights = (Q @ K.T / D**0.5).softmax(dim=-1)
torch.testing.assert_close((weights @ V)[1, 2], -output[1, 2])
print("with places   ", (weights @ V)[[1, 4], 2])

# without places: the row of word 1 sees no order
Q, K, V = words @ W_Q[0], words @ W_K[0], words @ W_V[0]
weights = (Q @ K.T / D**0.5).softmax(dim=-1)
torch.testing.assert_close(weights[1, 0], weights[1, 3])
print("without places", weights[1])
# --8<-- [end:question]
