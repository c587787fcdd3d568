# --8<-- [start:setup]
from itertools import combinations

import torch
import torch.nn.functional as F
from cached import cached
from capture import attention_weights
from kaomoji import CATEGORIES, PARTS, faces, interval, leave_one_out
from kaomoji import tensors, trained, vocabulary

# a sum's order depends on the number of threads
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
# --8<-- [end:setup]

# --8<-- [start:data]
parts = cached(faces)
vocab = vocabulary(parts["train"])
# part: (N, L) indices, (N,) labels
data = {part: tensors(parts[part], vocab) for part in PARTS}
for part, (_, labels) in data.items():
    each = zip(CATEGORIES, labels.bincount().tolist(), strict=True)
    print(f"{part:10}{len(labels):5} ", *(f"{c} {n}" for c, n in each))

seen = {"".join(face) for face, _ in parts["train"]}
fresh = {"".join(face) for face, _ in parts["test"]}
assert len(seen | fresh) == len(seen) + len(fresh)
print("vocab", len(vocab))
print("".join(parts["test"][0][0]), data["test"][0][0].tolist())
# --8<-- [end:data]
lengths = [len(face) for part in PARTS for face, _ in parts[part]]
assert 3 <= min(lengths) <= max(lengths) <= 24  # guard: lengths_of_faces
show("train_faces", len(parts["train"]))
show("validation_faces", len(parts["validation"]))
show("test_faces", len(parts["test"]))
show("all_faces", f"{sum(map(len, parts.values())):,}")
show("vocab", len(vocab))

# --8<-- [start:bags]
def ngrams(text, longest):
    """Every run of 1 to `longest` tokens; < and > mark the ends."""
    text = ["<", *text, ">"]
    for n in range(1, longest + 1):
        for i in range(len(text) - n + 1):
            yield tuple(text[i : i + n])


def bags(texts, grams, longest=1):
    """Lists of tokens -> (N, grams): how often each n-gram occurs."""
    column = {gram: j for j, gram in enumerate(grams)}
    counts = torch.zeros(len(texts), len(grams))
    for text, row in zip(texts, counts, strict=True):
        known = [g for g in ngrams(text, longest) if g in column]
        known = torch.tensor([column[gram] for gram in known])
        row += known.bincount(minlength=len(grams))
    return counts
# --8<-- [end:bags]


# --8<-- [start:naive_bayes]
def naive_bayes(x, y, classes):
    """(N, F) counts, (N,) labels -> weight (F, C), bias (C,)."""
    # (C, F): one is added to every count
    counts = F.one_hot(y, classes).to(x.dtype).T @ x + 1
    weight = (counts / counts.sum(1, keepdim=True)).log().T
    return weight, (y.bincount(minlength=classes) / len(y)).log()
# --8<-- [end:naive_bayes]


# --8<-- [start:logistic]
def logistic(x, y, classes, decay):
    """The same shapes, by maximum likelihood with weight decay."""
    x = x.to_sparse()  # most counts are 0
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=40, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y)
        loss = loss + decay * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def right(fitted, x, y):
    weight, bias = fitted
    return (x @ weight + bias).argmax(1) == y
# --8<-- [end:logistic]


# --8<-- [start:baselines]
texts = {part: [face for face, _ in parts[part]] for part in PARTS}
y = {part: labels for part, (_, labels) in data.items()}
C = len(CATEGORIES)
most_common = y["train"].mode().values
hit = {"majority": y["test"] == most_common}  # (N,), on the test part
for name, longest in (("characters", 1), ("n-grams", 3)):
    found = [set(ngrams(face, longest)) for face in texts["train"]]
    grams = sorted(set().union(*found))
    x = {part: bags(texts[part], grams, longest) for part in PARTS}
    if longest == 1:
        bayes = naive_bayes(x["train"], y["train"], C)
        hit["naive bayes"] = right(bayes, x["test"], y["test"])
    tried = [
        logistic(x["train"], y["train"], C, decay)
        for decay in (3e-3, 1e-3, 3e-4)
    ]
    # validation chooses the decay
    on_validation = [
        right(fitted, x["validation"], y["validation"]).sum()
        for fitted in tried
    ]
    best = tried[int(torch.stack(on_validation).argmax())]
    hit[f"logistic, {name}"] = right(best, x["test"], y["test"])
    print(f"{len(grams)} {name}")
# --8<-- [end:baselines]
assert {len(gram) for gram in grams} == {1, 2, 3}  # guard: runs_of_up_to_three
n_grams, characters = (hit[f"logistic, {name}"].double() for name in ("n-grams", "characters"))
more = interval(n_grams - characters)
assert more[0] < 0 < more[1]  # guard: n_grams_are_no_better

# --8<-- [start:encoder]
ids, labels = data["test"]
models = [trained(seed) for seed in range(3)]
for seed, model in enumerate(models):
    with torch.no_grad():
        hit[f"encoder, seed {seed}"] = model(ids).argmax(1) == labels
for name, right_ones in hit.items():
    print(f"{name:22}{right_ones.double().mean():.3f}")
# (3, N)
encoders = torch.stack([hit[f"encoder, seed {s}"] for s in range(3)])
runs = encoders.double().mean(1)
print(f"{'encoder, mean of 3':22}{runs.mean():.3f} +- {runs.std():.3f}")
assert runs.min() > hit["majority"].double().mean() + 0.25
# --8<-- [end:encoder]

# --8<-- [start:who_wins]
def lead(name):
    """Of the encoder over a rival: its mean and the interval."""
    thirds = encoders.sum(0) - len(encoders) * hit[name].long()
    ends = interval(thirds)
    return [x / len(encoders) for x in (thirds.double().mean(), *ends)]


for name in [name for name in hit if "encoder" not in name]:
    gain, low, high = lead(name)
    print(f"{name:22}{gain:+.3f}  [{low:+.3f}, {high:+.3f}]")
    if name == "logistic, characters":
        # neither is shown to be the better one
        assert low < 0 < high
# --8<-- [end:who_wins]
for name, right_ones in hit.items():
    key = name.replace(", ", "_").replace(" ", "_").replace("-", "_")
    show(key, f"{right_ones.double().mean():.3f}")
show("encoder_mean", f"{runs.mean():.3f}")
show("encoder_low", f"{runs.min():.3f}")
show("encoder_high", f"{runs.max():.3f}")
_, *gap = lead("logistic, characters")
torch.testing.assert_close(torch.tensor(gap), torch.tensor(interval(encoders.double().mean(0) - characters)))  # guard: gap_in_faces
apart = (encoders.double().mean(0) - characters).std() / len(characters) ** 0.5  # of the mean, by the central limit theorem
assert 0.95 < (gap[1] - gap[0]) / (2 * 1.96 * apart) < 1.05  # guard: interval_of_95_percent
show("gap_low", f"{100 * gap[0]:+.1f}".replace("-", "−"))
show("gap_high", f"{100 * gap[1]:+.1f}".replace("-", "−"))

# --8<-- [start:capture]
model = models[0]
with attention_weights(model) as maps, torch.no_grad():
    logits = model(ids)
for name, weights in maps.items():
    print(name, tuple(weights.shape))
# (layers, N, H, L, L)
maps = torch.stack(list(maps.values()))
layers, _, H, _, _ = maps.shape
torch.testing.assert_close(logits, model(ids))
# a mistake that goes unseen: the model was left in training mode
with attention_weights(model.train()) as noisy, torch.no_grad():
    model(ids)
rows = noisy["encoder.layers.0.self_attn"].sum(-1)
print(f"rows in training sum to {rows.min():.2f} .. {rows.max():.2f}")
assert not torch.allclose(rows, maps[0].sum(-1))
model.eval()
# --8<-- [end:capture]

# --8<-- [start:one_face]
n = texts["test"].index(list("ヽ(`Д´)ノ"))
face = texts["test"][n]
L = len(face)
# (layers, H, L, L): padding cut off
one = maps[:, n, :, :L, :L]
torch.testing.assert_close(one.sum(-1), torch.ones(layers, H, L))
chance = logits[n].softmax(-1)
for category, p in zip(CATEGORIES, chance.tolist(), strict=True):
    print(f"{category:10}{p:.2f}")
assert CATEGORIES[chance.argmax()] == CATEGORIES[labels[n]]
# --8<-- [end:one_face]
axes = {"queries": face, "keys": face}
figure("one_face", "attention", {"weights": one.flatten(0, 1)}, labels=axes)
show("face", "".join(face))
show("face_category", CATEGORIES[labels[n]])
show("face_chance", f"{chance.max():.2f}")
# what the picture shows: the three columns of layer 1 that take most, and how little any two heads agree
taken = one[1].mean((0, 1))  # (L,): sums to 1
dark = taken.topk(3).indices.sort().values
shared = torch.stack([torch.minimum(*one[layer, [a, b]]).sum(-1) for layer in range(layers) for a, b in combinations(range(H), 2)])
unlike = 1 - shared.mean(1).max()
assert unlike > 0.2  # guard: heads_look_elsewhere
show("dark", " ".join(face[j] for j in dark))
show("dark_share", f"{100 * taken[dark].sum():.0f}")
show("face_apart", f"{(100 * unlike).floor() / 100:.2f}")  # at least: not rounded up

# --8<-- [start:distance]
# rows of real tokens, (N, L)
real = ids > 0
# (layers, N, H, H, L): total variation of two heads' rows
apart = (maps[:, :, :, None] - maps[:, :, None]).abs().sum(-1) / 2
apart = apart.masked_fill(~real[:, None, None], 0)
# (layers, H, H): mean over all rows of the test part
distance = apart.sum((1, -1)) / real.sum()
for layer in range(layers):
    for a, b in combinations(range(H), 2):
        d = distance[layer, a, b]
        print(f"layer {layer}, heads {a} and {b}: {d:.3f}")
# --8<-- [end:distance]

# --8<-- [start:pairs]
pairs = [
    (layer, a, b)
    for layer in range(layers)
    for a, b in combinations(range(H), 2)
]
near = min(pairs, key=lambda pair: distance[pair])
far = max(pairs, key=lambda pair: distance[pair])
for name, (layer, a, b) in ("nearest", near), ("farthest", far):
    print(f"{name:9}layer {layer}, heads {a} and {b}")

# the same distance from a head that looks at all tokens alike
even = real[:, None, None] / real.sum(1)[:, None, None, None]
off = (maps - even).abs().sum(-1) / 2
off = off.masked_fill(~real[:, None], 0).sum((1, -1)) / real.sum()
print("from uniform", [f"{d:.2f}" for d in off.flatten().tolist()])
# no two heads are alike: some are nearer to an even look
assert distance[near] > off.min()
# --8<-- [end:pairs]
by_layer = [torch.stack([distance[pair] for pair in pairs if pair[0] == layer]) for layer in range(layers)]
assert by_layer[0].mean() > by_layer[1].mean()  # guard: layer_0_is_farther_apart
assert distance[near] > 0.2  # guard: no_twins
# a second way: 1 less what two rows share, over the real rows
layer, a, b = near
shared = torch.minimum(maps[layer, :, a], maps[layer, :, b]).sum(-1)[real]
torch.testing.assert_close(distance[near], 1 - shared.mean())  # guard: distance_is_what_is_not_shared
shared = torch.minimum(maps, even).sum(-1)
for layer in range(layers):
    for a in range(H):
        torch.testing.assert_close(off[layer, a], 1 - shared[layer, :, a][real].mean())  # guard: uniform_is_as_far_as_said
for name, (layer, a, b) in (("near", near), ("far", far)):
    show(f"{name}_layer", layer)
    show(f"{name}_a", a)
    show(f"{name}_b", b)
    show(f"{name}_distance", f"{distance[layer, a, b]:.3f}")
    agree = one[layer, a].argmax(-1) == one[layer, b].argmax(-1)
    show(f"{name}_agree", int(agree.sum()))
    figure(f"{name}_heads", "attention", {"weights": one[layer, [a, b]]}, labels=axes)
show("face_length", L)
show("off_low", f"{off.min():.2f}")
show("off_high", f"{off.max():.2f}")
figure("distance", "matrix", {f"layer {i}": distance[i] for i in range(layers)}, labels={"digits": 2})

# --8<-- [start:characters]
# (N, L): what the prediction loses with each character
moved = leave_one_out(model, ids)
print(" ".join(f"{c} {moved[n, j]:.2f}" for j, c in enumerate(face)))
told, strong = logits.argmax(1), {}
for index, category in enumerate(CATEGORIES):
    felt = {}
    for row in (told == index).nonzero().flatten().tolist():
        for j, token in enumerate(texts["test"][row]):
            felt.setdefault(token, []).append(moved[row, j].item())
    # characters of at least four faces
    mean = {t: sum(m) / len(m) for t, m in felt.items() if len(m) > 3}
    best = sorted(mean, key=mean.get, reverse=True)[:5]
    print(f"{category:10}", *(f"{t} {mean[t]:.2f} " for t in best))
    strong[category] = best
assert "皿" in strong["angry"]
assert "♡" in strong["love"]
# --8<-- [end:characters]
ranked = moved[n, :L].argsort(descending=True).tolist()
show("most_moved", face[ranked[0]])
show("least_moved", face[ranked[-1]])
figure("characters", "bars", {"moved": moved[n, :L]}, labels={"categories": face})

# --8<-- [start:answer]
generator = torch.Generator().manual_seed(0)
shuffled = []
for text in texts["test"]:
    order = torch.randperm(len(text), generator=generator).tolist()
    shuffled.append([text[i] for i in order])
mixed, _ = tensors([(text, 0) for text in shuffled], vocab)
with torch.no_grad():
    answer = model(mixed).argmax(1)
kept = (answer == labels).double().mean()
share = hit["encoder, seed 0"].double().mean()
print(f"in order {share:.3f}, shuffled {kept:.3f}")
assert hit["majority"].double().mean() + 0.2 < kept
assert 0 < share - kept < 0.1
# --8<-- [end:answer]
show("shuffled", f"{kept:.3f}")

import json

from head_view import head_view
from negation import trained_reader

# what <head-view> draws: in each language the faces, and sentences of the language
SHOWN = r"""
\(^o^)/ v(=∩_∩=) (≧∀≦)ノ  (T⌓T) (╥ω╥) (・・、)  ヽ(`Д´)ノ 凸(`△´#) щ(ಥДಥщ)
(゜o゜)/ Σ(T▽T;)!! (⊙_⊙)  (^з^)-☆Chu! (♥ω♥) (⌒▽⌒)♡  (*/_\) (//▽//) (^_^;;;)
"""
WORDS = {
    "en": {
        "groups": ("Faces", "Sentences (toy)"), "layer": "layer {}", "toy": ["bad", "good"], "faces": CATEGORIES,
        "note": "The model says {} ({:.2f}), the label is {}", "between": " ",
    },
    "ja": {
        "groups": ("顔文字", "文（おもちゃ）"), "layer": "層{}", "toy": ["悪い", "良い"],
        "faces": ["喜び", "悲しみ", "怒り", "驚き", "愛情", "照れ"],
        "note": "モデルの答え：{}（{:.2f}）、正解：{}", "between": "",
    },
}  # fmt: skip


def view(language, group, text, weights, label, logits):
    words = WORDS[language]
    names = words["faces" if group == 0 else "toy"]
    best = logits.softmax(-1).max(-1)
    return head_view(
        {words["layer"].format(layer): heads for layer, heads in enumerate(weights)}, text,
        name=("" if group == 0 else words["between"]).join(text), group=words["groups"][group],
        note=words["note"].format(names[best.indices], best.values, names[label]),
    )  # fmt: skip


for language in WORDS:
    views = []
    for name in SHOWN.split():
        at, size = texts["test"].index(list(name)), len(name)
        views.append(view(language, 0, list(name), maps[:, at, :, :size, :size], labels[at], logits[at]))
    # four sentences of the page on word order, the first that are all told right
    reader, words, examples = trained_reader(language)
    x, held = tensors(examples["test"], words)
    with attention_weights(reader) as recorded, torch.no_grad():
        said = reader(x)
    first = 4 * (said.argmax(1) == held).unflatten(0, (-1, 4)).all(1).nonzero()[0].item()
    for i in range(first, first + 4):
        text = examples["test"][i][0]
        four = torch.stack(list(recorded.values()))[:, i, :, : len(text), : len(text)]
        views.append(view(language, 1, text, four, held[i], said[i]))
    start = {"example": 6, "head": 2, "query": 3}  # a face in which the heads part
    show(f"heads_{language}", json.dumps(sum(views[1:], views[0]).data() | {"start": start}, ensure_ascii=False))
