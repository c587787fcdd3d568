# --8<-- [start:setup]
import torch
from kaomoji import trained as trained_on_faces
from layout_trace import OF_HEADS, THRESHOLD, cosines, heads, orders
from layout_trace import orientation, packing, relation, together
from layout_trace import trained
from negation import trained_reader
from paper_attention import from_packed
from torch import nn
from trained import rxnmapper

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(5)
B, L, S, E, H = 2, 5, 7, 24, 4
D = E // H
# --8<-- [end:setup]

# --8<-- [start:backward]
mha = nn.MultiheadAttention(E, H, batch_first=True)
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
x, y = torch.randn(B, L, E), torch.randn(B, S, E)
target = torch.randn(B, L, E)


def loss_of(output):  # any will do
    return (output - target).abs().pow(1.5).sum()


output, _ = mha(x, y, y)
loss_of(output).backward()
# --8<-- [end:backward]


# --8<-- [start:cut]
def cut(in_weight, in_bias, out_weight, out_bias):
    """q, k, v (H, E + 1, D): the bias is one more row. o (H, D, E)."""
    W = in_weight.chunk(3)
    m = from_packed(
        H, *W, in_bias, None, None, out_weight, out_bias
    )
    with_bias = (
        torch.cat([W, b[:, None]], 1)
        for W, b in ((m.W_q, m.b_q), (m.W_k, m.b_k), (m.W_v, m.b_v))
    )
    return *with_bias, m.W_o


q, k, v, o = cut(*(p.detach() for p in mha.parameters()))
G_q, G_k, G_v, G_o = cut(*(p.grad for p in mha.parameters()))
# --8<-- [end:cut]

# --8<-- [start:identities]
queries, keys = q.mT @ G_q, k.mT @ G_k  # (H, D, D)
values, outputs = v.mT @ G_v, G_o @ o.mT
print(f"sizes {queries.abs().max():.0f} {values.abs().max():.0f}")
torch.testing.assert_close(queries, keys.mT)
torch.testing.assert_close(values, outputs)

# the keys of the next head
assert not torch.allclose(queries, keys.mT.roll(1, 0))
# without the row of the bias
assert not torch.allclose(
    q[:, :-1].mT @ G_q[:, :-1], (k[:, :-1].mT @ G_k[:, :-1]).mT
)
# --8<-- [end:identities]
assert (queries - keys.mT).abs().max() / queries.abs().max() < 1e-13  # guard: to_rounding_of_queries
assert (values - outputs).abs().max() / values.abs().max() < 1e-13  # guard: to_rounding_of_values
misread = orders(H, D)["(h t d)"].flatten()
weight, bias, *_ = (p.detach() for p in mha.parameters())
q2, k2, *_ = cut(weight[misread], bias[misread], *(p.detach() for p in mha.out_proj.parameters()))
g2, h2, *_ = cut(mha.in_proj_weight.grad[misread], mha.in_proj_bias.grad[misread], mha.out_proj.weight.grad, mha.out_proj.bias.grad)
assert not torch.allclose(q2.mT @ g2, (k2.mT @ h2).mT)  # guard: not_of_rows_read_otherwise

# --8<-- [start:key_bias]
for name, G in (("queries", G_q), ("keys", G_k), ("values", G_v)):
    print(f"{name:8}{G[:, -1].norm():.3f}")
assert G_k[:, -1].abs().max() < 1e-14 * G_k.abs().max()
# --8<-- [end:key_bias]

# --8<-- [start:turned]
PAIRS = {  # each (2, D / 2): the numbers of a head that turn together
    "half": torch.arange(D).view(2, -1),
    "interleaved": torch.arange(D).view(-1, 2).T,
}


def turned(t, pairs):
    """(B, H, L, D): each pair, by an angle that grows with l."""
    places = torch.arange(t.shape[2])[:, None]
    angles = places / 10.0 ** torch.arange(D // 2)  # (L, D / 2)
    a, b = t[..., pairs[0]], t[..., pairs[1]]
    cos, sin, out = angles.cos(), angles.sin(), torch.empty_like(t)
    out[..., pairs[0]] = a * cos - b * sin
    out[..., pairs[1]] = a * sin + b * cos
    return out
# --8<-- [end:turned]


# --8<-- [start:rotary]
def gradients(turn):
    """Of q, k, v, o, where `turn` is applied to queries and keys."""
    leaves = [m.clone().requires_grad_() for m in (q, k, v, o)]
    x1, y1 = (torch.cat([z, torch.ones(B, z.shape[1], 1)], -1)[:, None]
              for z in (x, y))  # (B, 1, L or S, E + 1)
    queries, keys = x1 @ leaves[0], y1 @ leaves[1]
    values = y1 @ leaves[2]
    scores = turn(queries) @ turn(keys).mT / D**0.5  # (B, H, L, S)
    head = scores.softmax(-1) @ values @ leaves[3]
    output = head.sum(1) + mha.out_proj.bias.detach()
    return torch.autograd.grad(loss_of(output), leaves)


plain = gradients(lambda t: t)
for mine, theirs in zip(plain, (G_q, G_k, G_v, G_o), strict=True):
    torch.testing.assert_close(mine, theirs)
# --8<-- [end:rotary]

# --8<-- [start:pairs]
for own, pairs in PAIRS.items():
    R_q, R_k, *_ = gradients(lambda t, pairs=pairs: turned(t, pairs))
    queries = (q * R_q).sum(1)  # (H, D): the diagonal of q.mT @ R_q
    keys = (k * R_k).sum(1)
    assert not torch.allclose(queries, keys)
    print(f"{own}: single numbers {(queries - keys).abs().max():.1f}")
    for name, two in PAIRS.items():
        mine, theirs = queries[:, two].sum(1), keys[:, two].sum(1)
        print(f"    {name} {(mine - theirs).abs().max():.1f}")
        if name == own:
            torch.testing.assert_close(mine, theirs)
        else:
            assert not torch.allclose(mine, theirs)
    # the bias of the keys has a gradient now
    assert R_k[:, -1].abs().max() > 0.1 * R_q[:, -1].abs().max()
# --8<-- [end:pairs]

gain = torch.arange(1, D + 1).double()
N_q, N_k, *_ = gradients(lambda t: nn.functional.rms_norm(t, (D,), gain))
assert not torch.allclose((q * N_q).sum(1), (k * N_k).sum(1))  # guard: a_norm_breaks_it


# --8<-- [start:student]
torch.manual_seed(0)
teacher, student = (
    nn.MultiheadAttention(E, H, batch_first=True) for _ in range(2)
)
for layer, std in ((teacher, 0.5), (student, 0.15)):
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=std)
start = {n: p.clone() for n, p in student.state_dict().items()}
x = torch.randn(8, S, E)
with torch.no_grad():
    target, _ = teacher(x, x, x)


def train(optimizer, lr, steps):
    student.load_state_dict(start)
    optimizer = optimizer(student.parameters(), lr)
    for _ in range(steps):
        loss = (student(x, x, x)[0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()
# --8<-- [end:student]


# --8<-- [start:drift]
def kept(shift=0):
    """W_q.T W_q - W_k.T W_k (H, D, D); shift: keys of another head."""
    q, k, *_ = cut(*(p.detach() for p in student.parameters()))
    k = k.roll(shift, 0)
    return q.mT @ q - k.mT @ k


student.load_state_dict(start)
before = {shift: kept(shift) for shift in (0, 1)}
time, runs = 4.0, []  # lr * steps: how long the flow lasts
for steps in (10, 20, 40, 80, 160, 320):
    loss = train(torch.optim.SGD, time / steps, steps)
    moved = [(kept(s) - before[s]).norm().item() for s in (0, 1)]
    runs.append((time / steps, *moved))
    print("{:.4f}  own {:.4f}  other {:.2f}".format(*runs[-1]))
lr, own, other = torch.tensor(runs).T  # each (6,)
ratios = own[1:] / own[:-1]  # half the step
assert 0.45 < ratios.min() < ratios.max() < 0.55
assert other.min() > 2.5
# --8<-- [end:drift]

# --8<-- [start:adamw]
drift = []
for steps in (40, 80, 160, 320):
    lr_adamw = 0.4 / steps
    train(torch.optim.AdamW, lr_adamw, steps)
    drift.append((lr_adamw, (kept() - before[0]).norm().item()))
    told = packing(student.in_proj_weight, H)
    print(f"{lr_adamw:.5f}  own {drift[-1][1]:.2f}", end="  ")
    print(told.answer, f"{told.z:.1f}")
    assert told.sure
    assert told.answer == "(t h d)"
assert min(moved for _, moved in drift) > 20 * own.min()
# --8<-- [end:adamw]
lr_adamw, own_adamw = torch.tensor(drift).T
assert own_adamw.max() < 1.5 * own_adamw.min()  # guard: smaller_steps_do_not_help
figure(
    "drift", "curves", {"x": lr, "own": own, "other": other, "lr_adamw": lr_adamw, "adamw": own_adamw},
    {"log": ["x", "y"], "points": ["own", "other", "adamw"], "x": {"adamw": "lr_adamw"}},
)

# --8<-- [start:faces]
faces = trained_on_faces()
mha = faces.encoder.layers[0].self_attn
H = mha.num_heads
weight, o = mha.in_proj_weight.detach(), mha.out_proj.weight.detach()
q, k, v = weight.chunk(3)  # (E, E): rows h * D + d
D = len(q) // H


def inside(rows):
    """(H * D, E) -> (H, pairs): cosines of the rows of each head."""
    two = torch.triu_indices(D, D, 1)
    blocks = cosines(rows).view(H, D, H, D)
    return torch.stack([blocks[h, :, h][*two] for h in range(H)])


def between_heads(first, second):
    """(H, H): how the cosines of two heads correlate."""
    both = torch.cat([inside(first), inside(second)])
    return torch.corrcoef(both)[:H, H:]
# --8<-- [end:faces]

# --8<-- [start:seen]
seen = {"qk": between_heads(q, k), "vo": between_heads(v, o.T)}
for name, matrix in seen.items():
    own = matrix.diagonal()
    others = matrix[~torch.eye(H).bool()]
    print(f"{name}  own {own.min():.2f} to {own.max():.2f}", end="  ")
    print(f"others {others.min():.2f} to {others.max():.2f}")
    assert own.min() > 2 * others.abs().max()
# --8<-- [end:seen]
shown = {"W_q, W_k": seen["qk"], "W_v, W_o": seen["vo"]}
figure("seen", "matrix", shown, {"digits": 2, "mark": {name: [[h, h] for h in range(H)] for name in shown}})
show("faces_qk", f"{seen['qk'].diagonal().min():.2f}")

# --8<-- [start:packed]
names = {"faces 0": mha, "faces 1": faces.encoder.layers[1].self_attn}
names["RXNMapper"] = rxnmapper().double().layers[0].self_attn
for name, layer in names.items():
    H, D = layer.num_heads, layer.head_dim
    weight = layer.in_proj_weight.detach()
    for order, rows in orders(H, D).items():
        # a file in this order: rows[0] are where q lies in it
        file = torch.empty_like(weight)
        file[rows.flatten()] = weight
        told = packing(file, H)
        assert told.sure
        assert told.answer == order
        print(f"{name:10} {order}  z {told.z:.1f}")
# --8<-- [end:packed]

signs = {
    name: relation(*layer.in_proj_weight.detach().chunk(3)[:2], layer.head_dim) for name, layer in names.items()
}
assert signs["RXNMapper"] < -THRESHOLD  # guard: rxnmapper_is_negative
assert min(signs["faces 0"], signs["faces 1"]) > THRESHOLD  # guard: faces_are_positive

# --8<-- [start:others]
every = {}
for name, layer in names.items():
    q, k, v = layer.in_proj_weight.detach().chunk(3)
    o = layer.out_proj.weight.detach()
    turned_round = orientation(q.T, k.T, layer.num_heads)
    assert turned_round.sure
    assert turned_round.answer == "(in, out)"
    every[name] = heads(q, k, v, o)
    print(f"{name:10} heads {every[name].answer} z {every[name].z:.1f}")
    assert every[name].answer == layer.num_heads
both = together([every["faces 0"], every["faces 1"]])
print(f"both faces heads {both.answer} z {both.z:.1f}", both.sure)
assert both.sure
# --8<-- [end:others]

# --8<-- [start:nothing]
for positions in (True, False):
    reader, _, _ = trained_reader("en", positions)
    for layer in reader.encoder.layers:
        mha, H = layer.self_attn, layer.self_attn.num_heads
        learned = trained(*mha.in_proj_weight.chunk(3))
        told = packing(mha.in_proj_weight, H)
        print(f"positions {positions}", end="  ")
        print(f"trained {learned.z:.1f}  packing {told.z:.1f}")
        assert learned.sure == positions
        assert told.sure == positions
# --8<-- [end:nothing]

# --8<-- [start:question]
layer = names["faces 0"]
H, D = layer.num_heads, layer.head_dim
q, k, v = (m.view(H, D, -1) for m in layer.in_proj_weight.chunk(3))


def mixed(M):
    """(H, D, D) -> the packed weight of the same function."""
    new_q, new_k = M.mT @ q, torch.linalg.inv(M) @ k
    torch.testing.assert_close(new_q.mT @ new_k, q.mT @ k)
    return torch.stack([new_q, new_k, v]).flatten(0, 2)


M = torch.randn(H, D, D)
for name, m in (("rotated", torch.linalg.qr(M)[0]), ("mixed", M)):
    weight = mixed(m)
    z = relation(*weight.chunk(3)[:2], D)
    told = packing(weight, H)
    print(f"{name:8} relation {z:5.1f}  {told.answer} z {told.z:.1f}")
# --8<-- [end:question]
rotations = [torch.linalg.qr(torch.randn(H, D, D))[0] for _ in range(8)]
assert all(packing(mixed(m), H).sure for m in rotations)  # guard: rotations_leave_it
assert {packing(mixed(m), H).answer for m in rotations} == {"(t h d)"}  # guard: and_the_answer
after = [relation(*mixed(torch.randn(H, D, D)).chunk(3)[:2], D) for _ in range(8)]
assert max(after) < 0 < relation(q.flatten(0, 1), k.flatten(0, 1), D)  # guard: any_other_turns_the_sign
assert max(map(abs, after)) < relation(q.flatten(0, 1), k.flatten(0, 1), D) / 2  # guard: and_less_is_left

# What is left of a gradient of rounding errors, and what AdamW makes of it: as much as of any other
torch.manual_seed(6)
single = nn.MultiheadAttention(24, 4, batch_first=True, dtype=torch.float32)
sentence = torch.randn(2, 5, 24, dtype=torch.float32)
single(sentence, sentence, sentence)[0].square().sum().backward()
rate = 1e-3
torch.optim.AdamW(single.parameters(), rate).step()
slope, moved = (z.chunk(3)[1].abs().max() for z in (single.in_proj_bias.grad, single.in_proj_bias.detach()))
assert slope < 1e-5 * single.in_proj_bias.grad.abs().max()  # guard: nothing_but_rounding
assert moved > 0.5 * rate  # guard: a_step_all_the_same

# Answers about layers whose layout is known: made once by `make trace`, on the day that the file names.
import json
from pathlib import Path

record = json.loads(Path(__file__).with_name("trace.json").read_text(encoding="utf-8"))
show("record_day", record["day"])
show("record_torch", record["torch"])
show("record_python", record["python"])
show("threshold", f"{THRESHOLD:g}")
show("threshold_heads", f"{OF_HEADS:g}")
first, *middle, last = record["stops"]
show("steps", last)
show("characters", f"{record['text']['characters']:,}")


def answers(models, question, at):
    """Rows [step, layer, question, truth, answer, z, sure] of these models' layers."""
    rows = [row for model in models for row in model["answers"] if row[0] == at and row[2] == question]
    return [row for row in rows if row[1] != "all"]


def counted(name, rows):
    show(f"{name}_asked", len(rows))
    show(f"{name}_told", sum(row[6] for row in rows))
    return rows


own, others = record["own"], record["others"]
usual = [model for model in own if model["optimizer"] == "AdamW" and model["kind"] in ("added", "half", "interleaved")]
sgd = [model for model in own if model["optimizer"] == "SGD"]
slow = min(sgd, key=lambda model: model["lr"])["lr"]
kinds = {
    "usual": usual,
    "normed": [model for model in own if model["kind"] == "normed"],
    "sgd": [model for model in sgd if model["lr"] > slow],
    "slow": [model for model in sgd if model["lr"] == slow],
    "grouped": [model for model in own if model["kind"] in ("neighbours", "dealt")],
}
assert sum(map(len, kinds.values())) == len(own)  # guard: each_model_in_one_row
show("own_models", len(own))
show("usual_models", len(usual))
show("sgd_lr", f"{kinds['sgd'][0]['lr']:g}")
show("slow_lr", f"{slow:g}")
seen_before = [model for model in others if not model["name"].startswith("PP-OCR")]
unseen = [model for model in others if model not in seen_before]
show("other_layers", sum(model["layers"] for model in others))
show("unseen_layers", sum(model["layers"] for model in unseen))
TABLE = ("packing", "orientation", "orientation_out", "heads", "rotary")
for question in TABLE:
    counted(f"own_{question}", answers(usual, question, last))
    if question != "rotary":
        counted(f"others_{question}", answers(seen_before, question, ""))
        counted(f"unseen_{question}", answers(unseen, question, ""))
every = [row for model in own for row in model["answers"]] + [row for model in others for row in model["answers"]]
every = [row for row in every if row[2] not in ("relation", "key")]
wrong = [row for row in every if row[3] != row[4] and row[6]]
assert len(wrong) == 0  # guard: what_was_told_was_right
assert sum(row[3] != row[4] for row in every) > 50  # guard: guesses_are_often_wrong
show("all_told", sum(row[6] for row in every if row[0] not in ("bfloat16", "int8") and row[2] != "trained"))
whole = [row for model in (*usual, *others) for row in model["answers"] if row[1] == "all"]
assert all(row[6] for row in whole)  # guard: heads_of_whole_models_are_told
show("whole_models", len(whole))
pairs = [row for row in answers(usual, "rotary", last) if row[3]]
none = [row for row in answers(own, "rotary", last) + answers(others, "rotary", "") if row[3] is None]
counted("pairs", pairs)
assert not any(row[6] for row in none)  # guard: no_pairs_are_seen_where_none_are
show("none_asked", len(none))
counted("groups", answers(kinds["grouped"], "groups", last))
for name, models in kinds.items():
    if name != "grouped":
        counted(f"{name}_packing", answers(models, "packing", last))
assert all(row[6] for row in answers(kinds["grouped"], "groups", last))  # guard: groups_are_told
counted("normed_pairs", answers(kinds["normed"], "rotary", last))
for name, step in zip(("few", "more"), middle, strict=True):
    show(f"{name}_steps", step)
    counted(name, answers(usual, "packing", step))
for models in kinds.values():
    learned = answers(models, "trained", last)
    assert all(row[6] for row in learned)  # guard: training_shows_after_all_steps
    assert not any(row[6] for row in answers(models, "trained", first))  # guard: and_not_before
assert not any(row[6] for row in answers(own, "packing", first))  # guard: untrained_layers_tell_nothing
assert not any(row[6] for row in answers(kinds["slow"], "packing", last))  # guard: slow_training_tells_nothing
for rounded in ("bfloat16", "int8"):
    as_stored = [row[4:5] + row[6:] for row in answers(others, "packing", "")]
    assert [row[4:5] + row[6:] for row in answers(others, "packing", rounded)] == as_stored  # guard: rounding_changes_nothing
minilm = next(model for model in others if model["name"] == "MiniLM")
relations = [row[3] for row in answers([minilm], "relation", "")]
show("minilm_layers", len(relations))
show("minilm_negative", sum(z < 0 for z in relations))
off = [row for row in answers([minilm], "heads", "") if row[3] != row[4]]
strayed = max(off, key=lambda row: row[5])
show("strayed_layer", strayed[1])
show("strayed_answer", strayed[4])
show("strayed_z", f"{strayed[5]:.0f}")
assert THRESHOLD < strayed[5] < OF_HEADS  # guard: sure_by_the_other_threshold
biases = {
    "own": answers(usual, "key", last),
    "right": answers([model for model in others if model["name"] in ("MiniLM", "RXNMapper")], "key", ""),
    "anarcii": answers([model for model in others if model["name"].startswith("ANARCII")], "key", ""),
}
assert all(row[3] == row[4] for name in ("own", "right") for row in biases[name])  # guard: the_smaller_bias_is_the_keys
show("bias_layers", sum(len(biases[name]) for name in ("own", "right")))
show("anarcii_layers", len(biases["anarcii"]))
show("anarcii_wrong", sum(row[3] != row[4] and row[6] for row in biases["anarcii"]))
assert sum(row[3] != row[4] and row[6] for row in biases["anarcii"]) > len(biases["anarcii"]) / 2  # guard: the_smaller_bias_is_the_queries

median = {}
for name, models in kinds.items():
    if name != "grouped":
        each = [torch.tensor([row[5] for row in answers(models, "packing", step)]) for step in (*middle, last)]
        median[name] = torch.stack([z.median() for z in each])
assert all(median[name][0] < THRESHOLD < 2 * THRESHOLD < median[name][-1] for name in ("usual", "normed"))  # guard: the_figure_of_steps
assert max(median["sgd"][1], median["slow"].max()) < THRESHOLD / 2  # guard: the_figure_of_steps_of_sgd
figure(
    "steps", "curves", {"x": torch.tensor([*middle, last]), **median, "threshold": torch.full((len(middle) + 1,), THRESHOLD)},
    {"log": ["x", "y"]},
)
