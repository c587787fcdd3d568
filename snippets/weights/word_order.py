# --8<-- [start:setup]
import torch
from capture import attention_weights
from kaomoji import tensors
from negation import trained_reader

# a sum's order depends on the number of threads
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
# --8<-- [end:setup]

# --8<-- [start:toy_data]
toys = {}
for language in ("ja", "en"):
    reader, words, examples = trained_reader(language)
    x, held = tensors(examples["test"], words)
    toys[language] = reader, examples["test"], x, held
    each = {part: len(found) for part, found in examples.items()}
    print(language, each, "vocab", len(words))
    for text, label in examples["test"][:4]:
        print(label, (" " if language == "en" else "").join(text))
# --8<-- [end:toy_data]

# --8<-- [start:toy_bag]
for language, (_, _, x, held) in toys.items():
    # (fours, 4, L): tokens in the order of the vocabulary
    fours = x.sort(1).values.unflatten(0, (-1, 4))
    assert torch.equal(fours, fours[:, :1].expand_as(fours))
    # and two of the four are 1: half is all that a bag can have
    assert held.unflatten(0, (-1, 4)).sum(1).unique().tolist() == [2]
    print(language, tuple(fours.shape))
# --8<-- [end:toy_bag]
for language in toys:
    shown = trained_reader(language)[2]
    bag = {part: {tuple(sorted(text)) for text, _ in found} for part, found in shown.items()}
    assert len(bag["train"] | bag["test"]) == len(bag["train"]) + len(bag["test"])  # guard: combinations_never_shown

# --8<-- [start:toy_order]
shares = {}
for language, (reader, _, x, held) in toys.items():
    unordered, _, _ = trained_reader(language, positions=False)
    with torch.no_grad():
        ordered, blind = reader(x), unordered(x)
    # without positions the four are one to the encoder too
    fours = blind.unflatten(0, (-1, 4))
    torch.testing.assert_close(fours, fours[:, :1].expand_as(fours))
    share = (ordered.argmax(1) == held).double().mean()
    guessed = (blind.argmax(1) == held).double().mean()
    print(f"{language} positions {share:.3f}, none {guessed:.3f}")
    assert share > 0.8
    assert guessed == 0.5
    shares[language] = f"{share:.3f}", f"{guessed:.3f}"
# --8<-- [end:toy_order]
for language in toys:
    show(f"{language}_ordered", shares[language][0])
    show(f"{language}_blind", shares[language][1])
    show(f"{language}_test", len(toys[language][1]))
    show(f"{language}_all", sum(map(len, trained_reader(language)[2].values())))

# --8<-- [start:toy_maps]
pictures = {}
for language, (reader, examples, x, held) in toys.items():
    with attention_weights(reader) as recorded, torch.no_grad():
        told_right = reader(x).argmax(1) == held
    # the first four that are all told right
    good = told_right.unflatten(0, (-1, 4)).all(1)
    first = 4 * good.nonzero()[0].item()
    text = examples[first][0]
    # (layers, 4, H, L, L)
    four = torch.stack(list(recorded.values()))[:, first : first + 4]
    pictures[language] = first, four[..., : len(text), : len(text)]
    print(language, first, tuple(pictures[language][1].shape))
# --8<-- [end:toy_maps]
for language, (first, four) in pictures.items():
    text = toys[language][1][first][0]
    axes = {"queries": text, "keys": text}
    # the column that takes most, layer by layer
    for layer, j in enumerate(four[:, 0].mean((1, 2)).argmax(-1).tolist()):
        show(f"{language}_dark_{layer}", text[j])
    figure(f"toy_{language}", "attention", {"weights": four[:, 0].flatten(0, 1)}, labels=axes)

# --8<-- [start:question]
reader, examples, x, held = toys["en"]
swapped = x.clone()
for row, (text, _) in zip(swapped, examples, strict=True):
    # the two halves change places: "it" and the subject stay
    at, end = text.index("."), len(text) - 1
    first = row[3:at].tolist()
    second = row[at + 3 : end].tolist()
    row[3:end] = torch.tensor(
        second + row[at : at + 3].tolist() + first
    )
with torch.no_grad():
    same = (reader(swapped).argmax(1) == held).double().mean()
print(f"{same:.3f}")
assert same > 0.8
# --8<-- [end:question]
show("swapped", f"{same:.3f}")
