# --8<-- [start:setup]
import torch
from cached import cached
from known_tasks import L, draw, known_answer

seeds = {"copy": 4, "reverse": 4, "previous": 4}
seeds |= {"first match": 8, "plain copy": 8}
# task: {name: (seeds, ...)}
studies = {
    task: cached(known_answer, task, n) for task, n in seeds.items()
}
# --8<-- [end:setup]

# --8<-- [start:tasks]
for task in seeds:
    torch.manual_seed(1)
    (tokens,), (answers,), (keys,) = draw(task, 1)
    print(task)
    print("  tokens ", *(f"{t:2}" for t in tokens.tolist()))
    print("  answers", *(f"{t:2}" for t in answers.tolist()))
    print("  keys   ", *(f"{t:2}" for t in keys.tolist()))
# --8<-- [end:tasks]

# --8<-- [start:reached]
reached = {}  # task: how many seeds
print("             seeds  reached  share         correct")
for task, study in studies.items():
    share, correct = study["share"], study["correct"]
    reached[task] = (share >= 0.95).sum().item()
    low, high = share.min(), share.max()
    print(f"{task:13}{len(share):5}{reached[task]:9}", end="  ")
    print(f"{low:.2f} to {high:.2f}  {correct.min():.2f}")

always = [task for task in seeds if reached[task] == seeds[task]]
assert always == ["copy", "reverse", "previous"]
# --8<-- [end:reached]
assert reached["first match"] >= 1  # guard: first_match_is_found
assert 0 < reached["plain copy"] < seeds["plain copy"]  # guard: plain_copy_has_both
show("few_seeds", seeds["copy"])
show("many_seeds", seeds["plain copy"])
show("first_match", reached["first match"])
show("plain_copy", reached["plain copy"])

# --8<-- [start:maps]
# a seed that reached it; A is (L, L)
best = {
    task: study["share"].argmax() for task, study in studies.items()
}
A = {task: studies[task]["map"][best[task]] for task in studies}
here = torch.arange(L)
assert torch.equal(A["copy"].argmax(-1), here)
assert torch.equal(A["reverse"].argmax(-1), here.flip(0))
assert torch.equal(A["previous"].argmax(-1)[1:], here[:-1])


def first_of(tokens):
    """(L,) tokens -> (L,): where each occurs for the first time."""
    words = tokens.tolist()
    return torch.tensor([words.index(word) for word in words])


tokens = studies["first match"]["tokens"][best["first match"]]
first = first_of(tokens)
assert torch.equal(A["first match"].argmax(-1), first)
# --8<-- [end:maps]
assert (first < here).any()  # guard: a_letter_comes_again

places = [str(i) for i in range(L)]
three = {task: A[task] for task in always}
figure("maps", "attention", {"A": torch.stack(list(three.values()))}, labels={"queries": places, "keys": places, "heads": list(three)})
letters = [chr(ord("a") + token) for token in tokens.tolist()]
figure("first_match", "attention", {"A": A["first match"]}, labels={"queries": letters, "keys": letters})

# --8<-- [start:twin]
plain = studies["plain copy"]
worst = plain["share"].argmin()
print(f"share   {plain['share'][worst]:.2f}")
print(f"correct {plain['correct'][worst]:.2f}")
assert plain["correct"].min() >= 0.99
assert plain["share"][worst] < 0.5

# the same layer, with no words in what it averages
print(f"blind   {plain['blind'][worst]:.2f}")
assert plain["blind"][worst] > 0.5
# where the map is right, that is a guess: one word in 20
print(f"copy    {studies['copy']['blind'].max():.2f}")
assert studies["copy"]["blind"].max() < 0.1
# --8<-- [end:twin]
there = plain["map"][worst]
astray = there.argmax(1) != here
assert torch.equal(astray, there.diagonal() < there.amax(1))  # guard: elsewhere_weighs_more
assert astray.sum() > L / 2  # guard: most_of_the_twin_lies_elsewhere
show("astray", int(astray.sum()))
# the less a seed copies from its own place, the more it answers from the weights alone
assert (plain["share"] + plain["blind"]).min() > 0.9  # guard: blind_where_not_looking
assert plain["blind"][plain["share"] >= 0.95].max() < 0.1  # guard: a_guess_where_looking
show("worst_share", f"{100 * plain['share'][worst]:.0f}")
show("worst_correct", f"{100 * plain['correct'][worst]:.0f}")
show("worst_blind", f"{100 * plain['blind'][worst]:.0f}")
show("share_low", f"{plain['share'].min():.2f}")
show("share_high", f"{plain['share'].max():.2f}")

pair = {"copy": A["copy"], "plain copy": plain["map"][worst]}
figure("twin", "attention", {"A": torch.stack(list(pair.values()))}, labels={"queries": places, "keys": places, "heads": list(pair)})
figure(
    "seeds",
    "bars",
    {name: plain[name] for name in ("share", "correct", "blind")},
    labels={"categories": [str(i) for i in range(seeds["plain copy"])]},
)

# --8<-- [start:failed]
match = studies["first match"]
rows = zip(match["share"], match["correct"], strict=True)
print("seed  share  correct")
for seed, (share, correct) in enumerate(rows):
    print(f"{seed:4}{share:7.2f}{correct:9.2f}")

# of the seeds whose map is wrong, the one that answers best
wrong = match["share"] < 0.5
failed = match["correct"].masked_fill(~wrong, 0).argmax()
assert match["share"][failed] < 0.5
assert match["correct"][failed] > 0.9
# --8<-- [end:failed]
tokens = match["tokens"][failed]
letters = [chr(ord("a") + token) for token in tokens.tolist()]
there, first = match["map"][failed], first_of(tokens)
on_first = there.argmax(1) == first
weighs_less = there[here, first] < there.amax(1)
assert torch.equal(on_first, ~weighs_less)  # guard: greatest_or_not
assert on_first.sum() < L / 2  # guard: few_look_at_the_first
show("failed_seed", int(failed))
show("failed_correct", f"{100 * match['correct'][failed]:.0f}")
show("failed_share", f"{100 * match['share'][failed]:.0f}")
show("failed_rows", int(on_first.sum()))
show("length", L)
figure("failed", "attention", {"A": match["map"][failed]}, labels={"queries": letters, "keys": letters})

# --8<-- [start:question]
previous = studies["previous"]["map"]  # (seeds, L, L)
row = previous[:, 0]
print("looks at", row.argmax(-1).tolist())
print("with    ", *(f"{weight:.2f}" for weight in row.amax(-1)))
torch.testing.assert_close(row.sum(-1), torch.ones_like(row[:, 0]))
# all other rows agree between seeds, this one does not
others = previous[:, 1:].argmax(-1)
assert torch.equal(others, here[:-1].expand(len(row), -1))
assert len(set(row.argmax(-1).tolist())) > 1
# --8<-- [end:question]
assert row.amax(-1).min() > 2 / L  # guard: row_0_has_a_clear_maximum
