# --8<-- [start:setup]
import torch
from hugging_face import by_word

torch.manual_seed(23)
# what a tokenizer says of "the tokenizer splits": pieces of words
tokens = ["[CLS]", "the", "token", "##izer", "splits", "[SEP]"]
whole = (1, "tokenizer")
words = [None, (0, "the"), whole, whole, (2, "splits"), None]
H, L = 4, len(tokens)
weights = torch.randn(H, L, L, dtype=torch.float64).softmax(-1)
# --8<-- [end:setup]

# --8<-- [start:by_word]
names, whole = by_word(weights, words)  # (H, W, W)
# by hand, for "the" and "tokenizer"
pieces = [2, 3]
to_word = weights[:, 1, pieces].sum(-1)
from_word = weights[:, pieces, 1].mean(-1)
torch.testing.assert_close(whole[:, 0, 1], to_word)
torch.testing.assert_close(whole[:, 1, 0], from_word)
print(tuple(weights.shape), tuple(whole.shape), *names)
# --8<-- [end:by_word]
swapped = by_word(weights.mT, words)[1].mT
assert not torch.allclose(swapped, whole, atol=0.01)  # guard: sum_and_mean_are_not_the_other_way
assert (swapped.sum(-1) - whole.sum(-1)).abs().max() > 0.1  # guard: the_other_way_rows_differ

# --8<-- [start:question]
left_out = weights[:, :, [0, 5]].sum(-1)  # (H, L): to [CLS], [SEP]
# markers stand for themselves
names, marked = by_word(weights, words, tokens)
torch.testing.assert_close(marked.sum(-1), torch.ones(H, 5).double())
torch.testing.assert_close(whole[:, 0].sum(-1), 1 - left_out[:, 1])
assert (whole.sum(-1) < 1).all()
print(*names)
print(whole.sum(-1)[0].numpy().round(2))
# --8<-- [end:question]

# MiniLM, run by transformers: `make libraries` keeps this record.
import json
from pathlib import Path

from running_example import TOKENS

record = json.loads(Path(__file__).with_name("hugging_face.json").read_text(encoding="utf-8"))
for name in ("day", "torch", "transformers", "package", "version"):
    show(name, record[name])
maps = torch.tensor(record["maps"], dtype=torch.float64)  # (layers, B, H, L, L)
deep, B, many, length, _ = maps.shape
show("layers", deep)
show("heads", many)
show("all_heads", deep * many)
show("shape", str((B, many, length, length)))
show("first_module", record["modules"][0])
show("error", f"{record['error']:.0e}")
show("tokens", " ".join(record["tokens"][0]))
show("pieces", " ".join(record["tokens"][1]))
assert record["error"] < 1e-5  # guard: the_models_own
assert record["asked_on_sdpa"] == "()"  # guard: asked_on_sdpa_it_is_silent
assert (maps.sum(-1) - 1).abs().max() < 1e-4  # guard: rows_sum_to_1
assert record["texts"][0] == " ".join(TOKENS)  # guard: the_running_example

# the first text: [CLS], five words, [SEP], and one [PAD]
n = len(record["tokens"][0])
first = maps[:, 0, :, :n, :n]  # (layers, H, L, L) without padding
inner = first[:, :, 1:-1]  # rows of words
assert record["tokens"][0][1:-1][: len(TOKENS)] == TOKENS  # guard: a_token_a_word
assert maps[:, 0, :, :, n:].abs().max() == maps.new_zeros(())  # guard: nothing_goes_to_padding
assert (maps[:, 0, :, n:].sum(-1) - 1).abs().max() < 1e-4  # guard: padding_asks_all_the_same

# what a head's words look at: the token before, the one after, the markers
looks = {
    "before": first.diagonal(-1, -2, -1)[..., :-1].mean(-1),
    "after": first.diagonal(1, -2, -1)[..., 1:].mean(-1),
    "[CLS]": inner[..., 0].mean(-1),
}  # each (layers, H)
found = {}
for name, share in looks.items():
    found[name] = divmod(int(share.argmax()), many)
    show(f"{name.strip('[]').lower()}_head", f"{found[name][0]}.{found[name][1]}")
    show(f"{name.strip('[]').lower()}_share", f"{share.max():.2f}")
assert looks["before"].max() > 0.9  # guard: one_looks_before
assert looks["after"].max() > 0.6  # guard: one_looks_after
assert looks["[CLS]"].max() > 0.9  # guard: one_looks_at_cls
# a noun's head: it gives the two nouns more than any other head does
nouns = [1 + TOKENS.index("cat"), 1 + TOKENS.index("dog")]
to_nouns = inner[..., nouns].sum(-1).mean(-1)
found["nouns"] = divmod(int(to_nouns.argmax()), many)
show("nouns_head", f"{found['nouns'][0]}.{found['nouns'][1]}")
show("nouns_share", f"{to_nouns.max():.2f}")
assert to_nouns.max() > 0.5  # guard: one_looks_at_nouns
# the same over other sentences, and what the model loses without a head of the first layer
before, after, to_cls = torch.tensor(record["looks"])  # each (layers, H)
show("sentences", record["sentences"])
show("before_held", f"{before[found['before']]:.2f}")
show("after_held", f"{after[found['after']]:.2f}")
show("cls_held", f"{to_cls[found['[CLS]']]:.2f}")
assert before[found["before"]] > 0.99  # guard: one_keeps_its_name
assert looks["after"].max() - after[found["after"]] > 0.05  # guard: the_next_one_less
assert looks["[CLS]"].max() - to_cls[found["[CLS]"]] > 0.2  # guard: cls_far_less
shares = to_cls.mean(-1)  # (layers,)
evenly = sum(1 / own for own in record["tokens_of_sentences"]) / record["sentences"]
show("least_cls", f"{shares.min():.2f}")
show("most_cls", f"{shares.max():.2f}")
show("cls_of_the_evenly", f"{evenly:.2f}")
assert shares.min() > 2 * evenly  # guard: more_than_twice_an_even_share
left = torch.tensor(record["without"])  # (H,), of layer 0
layer, head = found["before"]
others = torch.cat([left[:head], left[head + 1 :]])
show("left", f"{left[head]:.3f}")
show("left_at_least", f"{others.min():.3f}")
show("left_at_most", f"{others.max():.3f}")
show("apart", f"{record['apart']:.2f}")
show("twins", f"{record['twins']:.3f}")
assert record["twins"] > left.min()  # guard: one_word_changes_less
assert record["words_in_pieces"] == 0  # guard: no_word_in_pieces
assert record["apart"] < left.min() - 0.3  # guard: sentences_are_apart
assert layer == 0  # guard: of_the_first_layer
assert (others < left[head]).sum() > 3  # guard: others_are_missed_more
assert left.min() > 0.98  # guard: hardly_missed
figure(
    "heads",
    "attention",
    {"weights": torch.stack([first[layer, head] for layer, head in found.values()])},
    labels={
        "queries": record["tokens"][0][:n],
        "keys": record["tokens"][0][:n],
        "heads": [f"{layer}.{head}" for layer, head in found.values()],
    },
)

# the second text: one word in two pieces
layer, head = found["after"]
second = maps[layer, 1, head]
numbered = [word and tuple(word) for word in record["words"][1]]
spoken, _ = by_word(second, numbered)
assert spoken == record["texts"][1].split()  # guard: pieces_make_words
marked, of_words = by_word(second, numbered, record["tokens"][1])
assert marked == ["[CLS]", *spoken, "[SEP]"]  # guard: markers_stand_for_themselves
assert (of_words.sum(-1) - 1).abs().max() < 1e-4  # guard: rows_of_words_sum_to_1
assert len(spoken) < len(record["tokens"][1]) - 2  # guard: more_pieces_than_words
show("pieced_word", spoken[1])
pieces = [i for i, word in enumerate(numbered) if word and word[1] == spoken[1]]
itself = marked.index(spoken[1])
show("to_itself", f"{of_words[itself, itself]:.2f}")
show("pieces_to_themselves", f"{second[pieces, pieces].mean():.2f}")
assert of_words[itself, itself] > 10 * second[pieces, pieces].mean()  # guard: one_piece_looks_at_the_other
assert record["words_of_a_sentence"][2:5] == ["doesn", "'", "t"]  # guard: three_words
figure("tokens", "attention", {"weights": second}, labels={"queries": record["tokens"][1], "keys": record["tokens"][1]})
figure("words", "attention", {"weights": of_words}, labels={"queries": marked, "keys": marked})
