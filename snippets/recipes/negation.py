"""A toy: short sentences with a negation, in Japanese and English, that no bag of words can tell apart.

    the room is not small . it is bright .     1      部屋は狭くない。明るい。
    the room is bright . it is not small .     1      部屋は明るい。狭くない。
    the room is small . it is not bright .     0      部屋は狭い。明るくない。
    the room is not bright . it is small .     0      部屋は明るくない。狭い。

The four hold the same tokens; 1 is what a guest likes to hear. With one thread training is deterministic: seconds each.
"""

import hashlib

import torch
from cached import cached
from kaomoji import PARTS, Classifier, fit, tensors, vocabulary

# --8<-- [start:words]
# subject: (what is good of it, what is bad); in Japanese stems
ENGLISH = {
    "room": ("bright large quiet clean", "dark small noisy dirty cold"),
    "soup": ("good hot fresh cheap", "bad cold stale salty"),
    "bed": ("soft large clean warm", "hard small dirty cold"),
    "town": ("quiet pretty clean safe", "noisy ugly dirty dull"),
    "film": ("good funny short clever", "bad dull long sad"),
    "guide": ("kind funny clever calm", "rude dull slow strict"),
    "bus": ("fast clean cheap safe", "slow dirty late full"),
    "garden": ("pretty large quiet bright", "ugly small noisy dark"),
}
JAPANESE = {
    "部屋": ("明る 広 温か 新し 美し", "暗 狭 寒 古 汚"),
    "料理": ("おいし 温か 安 新し", "まず 冷た 高 辛"),
    "布団": ("柔らか 温か 軽 新し", "硬 薄 重 古"),
    "町": ("明る 美し 楽し 新し", "暗 汚 寂し 古"),
    "映画": ("面白 楽し 短 新し", "怖 悲し 長 古"),
    "先生": ("優し 面白 明る 賢", "厳し 怖 冷た 暗"),
    "バス": ("早 安 新し 広", "遅 高 古 狭"),
    "庭": ("広 美し 明る 楽し", "狭 汚 暗 寂し"),
}
# --8<-- [end:words]


# --8<-- [start:sentences]
def english(subject, first, second, negated):
    """Two clauses as tokens; negated (0, 1) says which has the not."""
    a, b = ["not", first], ["not", second]
    a, b = a[negated:], b[1 - negated :]
    return ["the", subject, "is", *a, ".", "it", "is", *b, "."]


def japanese(subject, first, second, negated):
    """The same from stems: a sentence's tokens are its characters."""
    ends = ["い", "くない"] if negated else ["くない", "い"]
    return list(f"{subject}は{first}{ends[0]}。{second}{ends[1]}。")


LANGUAGES = {"en": (english, ENGLISH), "ja": (japanese, JAPANESE)}
# --8<-- [end:sentences]


# --8<-- [start:toy]
def toy(language):
    """Map each part to its [(tokens, label), ...], four in a row that
    hold the same tokens; the hash of their words fixes the part."""
    write, words = LANGUAGES[language]
    parts = {part: [] for part in PARTS}
    for subject, (likes, dislikes) in words.items():
        for like in likes.split():
            for dislike in dislikes.split():
                key = f"{subject} {like} {dislike}".encode()
                share = hashlib.sha256(key).digest()[6] % 10
                part = PARTS[(share >= 6) + (share >= 8)]
                for first, second in ((like, dislike), (dislike, like)):
                    for negated in (0, 1):
                        # the clause without the negation is what holds
                        held = second if negated == 0 else first
                        example = write(subject, first, second, negated)
                        parts[part].append((example, int(held == like)))
    return parts
# --8<-- [end:toy]


# --8<-- [start:reader]
def train_reader(language, positions, seed=0, epochs=40):
    """Train a classifier on the toy; return its state."""
    parts = toy(language)
    vocab = vocabulary(parts["train"])
    torch.manual_seed(seed)
    model = reader(vocab, positions)
    examples = [tensors(parts[part], vocab) for part in PARTS[:2]]
    return fit(model, *examples, epochs, seed)


def reader(vocab, positions=True):
    sizes = {"size": len(vocab) + 2, "classes": 2, "E": 32, "H": 2}
    return Classifier(**sizes, dropout=0.1, positions=positions)


def trained_reader(language, positions=True):
    """One language: (model in eval mode, vocabulary, parts)."""
    parts = toy(language)
    vocab = vocabulary(parts["train"])
    model = reader(vocab, positions)
    model.load_state_dict(cached(train_reader, language, positions))
    return model.eval(), vocab, parts
# --8<-- [end:reader]
