"""Pairs of sentences that differ in one word, on which it depends what "it" is, and what the heads of a model make of them.

The form is that of Winograd schemas; the first pair is from their literature, the second from Google's about the Transformer,
the others are ours. In all of them the first noun is the subject and the first word decides for it, the second for the other.
`recorded` is run by `make real` and its result kept as JSON, which `kept` reads.
"""

import json
from pathlib import Path

import torch
from capture import attention_weights

# sentence, (first noun, second noun), (word that means the first, the second)
PAIRS = [
    ("The trophy doesn't fit in the suitcase because it is too {}.", ("trophy", "suitcase"), ("big", "small")),
    ("The animal didn't cross the street because it was too {}.", ("animal", "street"), ("tired", "wide")),
    ("The lamp doesn't fit under the shelf because it is too {}.", ("lamp", "shelf"), ("tall", "low")),
    ("The key didn't open the door because it was {}.", ("key", "door"), ("bent", "barred")),
    ("The truck couldn't cross the bridge because it was too {}.", ("truck", "bridge"), ("heavy", "weak")),
    ("The cat couldn't catch the mouse because it was too {}.", ("cat", "mouse"), ("slow", "fast")),
    ("The dog didn't eat the meat because it was {}.", ("dog", "meat"), ("full", "rotten")),
    ("The stone broke the window because it was so {}.", ("stone", "window"), ("hard", "thin")),
    ("The boat couldn't enter the harbor because it was too {}.", ("boat", "harbor"), ("large", "shallow")),
    ("The carpet doesn't fit into the room because it is too {}.", ("carpet", "room"), ("large", "small")),
    ("The ladder didn't reach the roof because it was too {}.", ("ladder", "roof"), ("short", "high")),
    ("The rope couldn't hold the piano because it was too {}.", ("rope", "piano"), ("thin", "heavy")),
    ("The fish didn't take the hook because it was too {}.", ("fish", "hook"), ("clever", "rusty")),
    ("The baby didn't eat the apple because it was too {}.", ("baby", "apple"), ("young", "sour")),
    ("The horse couldn't pull the wagon because it was too {}.", ("horse", "wagon"), ("weak", "heavy")),
    ("The knife couldn't cut the bread because it was too {}.", ("knife", "bread"), ("blunt", "hard")),
]
SHOWN = 1  # the pair whose whole maps are kept
PARTS = {"to": 1_000_000, "maps": 1000}  # of 1: what weights are kept in, as whole numbers


# --8<-- [start:maps_of]
@torch.no_grad()
def maps_of(model, sentence: str):
    """tokens, and the weights of all heads: (layers, H, L, L)."""
    tokens = model.split(sentence)
    with attention_weights(model) as maps:
        model(model.ids(tokens))
    return tokens, torch.cat(list(maps.values()))


def nouns(model, pair):
    """(2, layers, H, 2): in both sentences, from "it" to each noun."""
    text, both, words = pair
    found = []
    for word in words:
        tokens, A = maps_of(model, text.format(word))
        columns = [tokens.index(noun) for noun in both]
        found.append(A[:, :, tokens.index("it"), columns])
    return torch.stack(found)
# --8<-- [end:maps_of]


def recorded(model) -> dict:
    text, _, words = PAIRS[SHOWN]
    shown = [maps_of(model, text.format(word)) for word in words]
    found = {"to": torch.stack([nouns(model, pair) for pair in PAIRS]), "maps": torch.stack([A for _, A in shown])}
    kept = {name: (weights * PARTS[name]).round().int().tolist() for name, weights in found.items()}
    return {"tokens": [tokens for tokens, _ in shown], **kept}


# --8<-- [start:kept]
def kept(path) -> dict:
    """What `make real` wrote."""
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    for name, parts in PARTS.items():
        record[name] = torch.tensor(record[name]) / parts
    return record
# --8<-- [end:kept]
