# --8<-- [start:setup]
import copy

import torch
from capture import attention_weights
from pronouns import PAIRS, kept
from reactions import REACTIONS, atoms, origins
from trained import SHARED, rxnmapper, rxnmapper_files

torch.set_num_threads(1)
model = rxnmapper().double()
layers = len(model.layers)
mha = model.layers[0].self_attn
E, H = mha.embed_dim, mha.num_heads
D = E // H
LAYER, HEAD = 10, 5  # RXNMapper's own choice, counted from 0
# --8<-- [end:setup]


# --8<-- [start:record]
@torch.no_grad()
def heads(reaction):
    """tokens, and all maps: (layers, H, L, L)."""
    tokens = model.split(reaction)
    with attention_weights(model) as maps:
        model(model.ids(tokens))
    # one module that was called by every layer
    return tokens, torch.cat(maps.calls("layers.0.self_attn"))


reaction, letters = REACTIONS["ethyl ester"]
tokens, A = heads(reaction)
print(*tokens)
print(f"maps {tuple(A.shape)}")
assert all(layer is model.layers[0] for layer in model.layers)
assert A.shape == (layers, H, len(tokens), len(tokens))
# --8<-- [end:record]

# --8<-- [start:letters]
state, _ = rxnmapper_files()
stored = f"{SHARED}.attention"
entered = []  # x of every layer: (1, L, E)
hook = mha.register_forward_pre_hook(lambda _, x: entered.append(x[0]))
heads(reaction)
hook.remove()
x = entered[LAYER]


def map_of(rows):
    """The paper's formula with these rows of W^Q and W^K."""
    q, k = (
        x @ state[f"{stored}.{name}.weight"][rows].double().T
        + state[f"{stored}.{name}.bias"][rows].double()
        for name in ("query", "key")
    )
    return (q @ k.mT / D**0.5).softmax(-1)[0]


right = map_of(slice(HEAD * D, (HEAD + 1) * D))  # W_i^Q: (D, E)
torch.testing.assert_close(right, A[LAYER, HEAD])
# every H-th row: the same shape, no head
wrong = map_of(slice(HEAD, None, H))
assert wrong.shape == right.shape
assert not torch.allclose(wrong, right, atol=0.5)
# --8<-- [end:letters]

# --8<-- [start:mapping]
left, product = atoms(tokens)
# (P, R): what each atom of the product gives to those of the reactants
given = A[LAYER, HEAD][product][:, left]
best = given.argmax(-1)
for i, j in enumerate(best):
    names = tokens[product[i]], tokens[left[j]]
    print("{} <- {} at {:2}".format(*names, left[j]), end="")
    print(f"  {given[i, j]:.2f}")
assert origins(letters)[range(len(best)), best].all()
assert len(set(best.tolist())) == len(product)  # none is taken twice
# --8<-- [end:mapping]
assert [tokens[left[j]] for j in range(len(left)) if j not in best] == ["O"]  # guard: one_is_left_over
shown = {"A": given / given.sum(-1, keepdim=True)}
figure("ester", "attention", shown, {"queries": [tokens[i] for i in product], "keys": [tokens[j] for j in left]})
oxygen = int(product[tokens[product[0] :].index("O")])  # the ester's own, of "CCOC(C)=O"
show("oxygen_weight", f"{A[LAYER, HEAD, oxygen, left].max():.2f}")
show("layers", layers)
show("shared_heads", H)
show("parameters", f"{sum(x.numel() for x in model.parameters()) / 1e6:.1f}")


# --8<-- [start:accuracy]
def hits(A, tokens, letters):
    """(..., L, L) -> (..., P): whether an atom finds its origin."""
    left, product = atoms(tokens)
    best = A[..., product, :][..., left].argmax(-1)
    return origins(letters)[torch.arange(len(product)), best]


found, own = [], {}
for name, (smiles, letters) in REACTIONS.items():
    tokens, A = heads(smiles)
    found.append(hits(A, tokens, letters))
    own[name] = found[-1][LAYER, HEAD]
found = torch.cat(found, -1)  # (layers, H, atoms)
share = found.double().mean(-1)
others = share.clone()
others[:, HEAD] = 0
print(f"{len(REACTIONS)} reactions, {found.shape[-1]} atoms")
print(f"its head {share[LAYER, HEAD]:.2f}, other {others.max():.2f}")
for name, hit in own.items():
    if not hit.all():
        print(f"  {name}: {int(hit.sum())} of {len(hit)}")
assert share[LAYER, HEAD] > others.max() + 0.2
# --8<-- [end:accuracy]
lot = torch.cat([origins(letters).double().mean(-1) for _, letters in REACTIONS.values()]).mean()
assert 3 * lot < share[LAYER, HEAD]  # guard: far_from_drawing_lots
failing = {name: hit for name, hit in own.items() if not hit.all()}
assert set(sorted(own, key=lambda name: own[name].double().mean())[:2]) == {"Claisen", "Diels-Alder"}  # guard: where_it_fails_most
assert (own["ester"].all(), own["hydrolysis"].all()) == (True, False)  # guard: an_oxygen_found_and_one_not
column = share[:, HEAD]
assert torch.equal(share.argmax(1), torch.full((layers,), HEAD))  # guard: the_same_head_in_every_layer
assert column[5:].max() - column[5:].min() < 0.1 < column[5:].min() - column[0]  # guard: from_layer_5_on
show("reactions", len(REACTIONS))
show("atoms", found.shape[-1])
show("right", int(found[LAYER, HEAD].sum()))
show("whole_reactions", len(own) - len(failing))
show("share", f"{100 * share[LAYER, HEAD]:.0f}")
show("best_other", f"{100 * others.max():.0f}")
show("lot", f"{100 * lot:.0f}")
show("first_layer", f"{100 * column[0]:.0f}")
show("late_low", f"{100 * column[5:].min():.0f}")
show("late_high", f"{100 * column[5:].max():.0f}")
for name in ("Claisen", "Diels-Alder"):
    show(f"{name.partition('-')[0].lower()}_right", int(own[name].sum()))
    show(f"{name.partition('-')[0].lower()}_atoms", len(own[name]))
numbers = [str(i) for i in range(layers)]
figure(
    "shares", "matrix", {"share": 100 * share},
    {"rows": {"share": numbers}, "columns": {"share": numbers[:H]}, "digits": 0, "mark": {"share": [[LAYER, HEAD]]}},
)

# --8<-- [start:spelling]
other = "CC(=O)O.OCC>>CC(=O)OCC", "abc- fed >> abcfed"
right = []
for smiles, letters in (REACTIONS["ethyl ester"], other):
    tokens, A = heads(smiles)
    right.append(hits(A[LAYER, HEAD], tokens, letters))
    print(f"{smiles}  {int(right[-1].sum())} of {len(right[-1])}")
assert right[0].all()
assert right[1].sum() <= len(right[1]) - 2
# --8<-- [end:spelling]

# --8<-- [start:without]
@torch.no_grad()
def guessed(model):
    """Of the products' atoms, masked one by one: which are named."""
    right = []
    for smiles, _ in REACTIONS.values():
        ids = model.ids(model.split(smiles))
        _, product = atoms(model.split(smiles))
        each = torch.arange(len(product))
        masked = ids.repeat(len(product), 1)
        masked[each, product] = model.vocab["[MASK]"]
        logits = model.guess(model(masked))[each, product]
        right.append(logits.argmax(-1) == ids[0, product])
    return torch.cat(right).sum().item()


def without(head, where):
    """The model, in these layers without what this head adds."""
    pruned = copy.deepcopy(model).float()  # half the time
    other = copy.deepcopy(pruned.layers[0])
    columns = slice(head * D, (head + 1) * D)
    other.self_attn.out_proj.weight.data[:, columns] = 0
    for i in where:
        pruned.layers[i] = other
    return pruned
# --8<-- [end:without]

# --8<-- [start:removed]
whole = guessed(without(HEAD, []))
once = guessed(without(HEAD, [LAYER]))
ever = [guessed(without(head, range(layers))) for head in range(H)]
print(f"as trained {whole} of {found.shape[-1]}")
print(f"without head {HEAD} of layer {LAYER} {once}")
print(f"without head 0 to {H - 1} everywhere {ever}")
assert whole - once < 0.05 * whole  # hardly missed in its layer
assert min(ever) == ever[HEAD] < 0.9 * whole  # missed most of all
# --8<-- [end:removed]
show("masked_whole", whole)
show("masked_once", once)
show("masked_ever", ever[HEAD])
show("masked_next", sorted(ever)[1])

# --8<-- [start:answer]
_, again = mha(*[entered[LAYER]] * 3, average_attn_weights=False)
_, first = mha(*[entered[0]] * 3, average_attn_weights=False)
tokens, A = heads(reaction)
torch.testing.assert_close(again[0], A[LAYER])
torch.testing.assert_close(first[0], A[0])
apart = (first - again)[0, HEAD].abs().max()
print(f"layers 0 and {LAYER}, one weight apart: {apart:.2f}")
assert apart > 0.2
# --8<-- [end:answer]

# MiniLM's maps: made once by `make real`, on the day that the file names.
import json
import math
from pathlib import Path

from head_view import head_view
from pronouns import SHOWN

record = kept(Path(__file__).with_name("real_model.json"))
for name in ("date", "torch", "package", "version"):
    show(f"record_{name}", record[name])
to = record["to"]  # (pairs, 2 sentences, layers, H, 2 nouns)
maps = record["maps"]  # (2 sentences, layers, H, L, L)
pairs, _, deep, many, _ = to.shape
columns = [record["tokens"][0].index(noun) for noun in PAIRS[SHOWN][1]]
it = record["tokens"][0].index("it")
torch.testing.assert_close(maps[:, :, :, it, columns], to[SHOWN], rtol=0, atol=6e-4)  # guard: maps_and_weights_agree
assert (maps.sum(-1) - 1).abs().max() < 0.01  # guard: rows_sum_to_1
chosen = divmod(int(to[SHOWN, 0, :, :, 0].argmax()), many)
layer, head = chosen
seen = to[:, :, layer, head]  # (pairs, 2, 2)
assert (seen[SHOWN, :, 0] > 2 * seen[SHOWN, :, 1]).all()  # guard: animal_either_way
assert (seen[0, :, 0] > 3 * seen[0, :, 1]).all()  # guard: trophy_either_way
says = to[..., 0] > to[..., 1]  # the first noun: (pairs, 2, layers, H)
right = torch.stack([says[:, 0], ~says[:, 1]], 1)
scores = right.sum((0, 1))  # (layers, H), of 2 * pairs
turned = says[:, 0] != says[:, 1]
flips = 2 * pairs


def at_least(k, heads):
    """How likely one of so many heads that toss coins is right in k sentences or more."""
    one = sum(math.comb(flips, i) for i in range(k, flips + 1)) / 2**flips
    return 1 - (1 - one) ** heads


by_chance = max(k for k in range(flips) if at_least(k, deep * many) > 0.5)
assert at_least(by_chance, deep * many) > 0.5 > at_least(by_chance + 1, deep * many)  # guard: as_often_as_not
assert scores.max() < by_chance - 1  # guard: no_head_beats_the_luckiest_coin
assert turned.double().mean() < 0.15  # guard: they_stay_with_a_noun
assert turned[:, layer, head].sum() < pairs / 3  # guard: this_head_stays_too
assert right.all(1).sum(0).max() < pairs / 2  # guard: no_head_tells_half_of_the_pairs_apart
assert int(says[:, :, layer, head].sum()) > pairs  # guard: rather_the_first_noun
show("it_layer", layer)
show("it_head", head)
for i, name in enumerate(("tired", "wide")):
    for j, noun in enumerate(PAIRS[SHOWN][1]):
        show(f"{name}_{noun}", f"{seen[SHOWN, i, j]:.2f}")
for i, name in enumerate(PAIRS[0][2]):
    show(f"{name}_trophy", f"{seen[0, i, 0]:.2f}")
show("pairs", pairs)
show("sentences", flips)
show("it_heads", deep * many)
show("it_right", int(scores[layer, head]))
show("it_first", int(says[:, :, layer, head].sum()))
show("it_turned", int(turned[:, layer, head].sum()))
show("it_best", int(scores.max()))
show("it_by_chance", by_chance)
show("it_turned_of_all", f"{100 * turned.double().mean():.0f}")
show("it_pairs_of_one", int(right.all(1).sum(0).max()))
figure(
    "it", "bars", dict(zip(PAIRS[SHOWN][2], maps[:, layer, head, it], strict=True)),
    {"categories": [a if a == b else f"{a}/{b}" for a, b in zip(*record["tokens"], strict=True)]},
)
to_first = seen[..., 0] / seen.sum(-1)
figure("pairs", "bars", {"first": to_first[:, 0], "second": to_first[:, 1]}, {"categories": ["/".join(p[1]) for p in PAIRS]})

WORDS = {
    "en": {"layer": "layer {}", "groups": ("RXNMapper: a reaction", "MiniLM: a sentence"), "note": "An ester is made"},
    "ja": {"layer": "層{}", "groups": ("RXNMapper：反応", "MiniLM：文"), "note": "エステルができる反応"},
}
tokens, A = heads(reaction)
for language, words in WORDS.items():
    named = {words["layer"].format(i): A[i] for i in (0, 5, LAYER)}
    views = [head_view(named, tokens, name=reaction, group=words["groups"][0], note=words["note"])]
    for i, word in enumerate(PAIRS[SHOWN][2]):
        named = {words["layer"].format(j): maps[i, j] for j in range(deep)}
        name = PAIRS[SHOWN][0].format(word)
        views.append(head_view(named, record["tokens"][i], name=name, group=words["groups"][1]))
    start = {"example": 0, "layer": 2, "head": HEAD, "query": oxygen}
    show(f"trained_{language}", json.dumps(sum(views[1:], views[0]).data() | {"start": start}, ensure_ascii=False))
