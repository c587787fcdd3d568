"""Kaomoji by emotion: the data, a small Transformer encoder that classifies them, its training, and what is measured.

The faces come from the package kaomoji-dataset (https://fontvibe.ai/tools/kaomoji, CC BY 4.0). Tokens are characters.
With one thread (torch.set_num_threads(1)) and in float64 training is deterministic, and processors that round differently
(AVX-512, AVX2, neither) train the same model; each of its runs takes about ten seconds.
Letters: B batch, L tokens, E embed_dim, H heads.
"""

import copy
import hashlib
import math
import sys
import unicodedata

import torch
import torch.nn.functional as F
from cached import cached
from torch import nn

CATEGORIES = ["happy", "sad", "angry", "surprised", "love", "shy"]
PARTS = ["train", "validation", "test"]


# --8<-- [start:text]
def same_face(text):
    """What near duplicates share: NFKC, no marks or spaces, small."""
    text = unicodedata.normalize("NFKD", text)
    kept = [c for c in text if unicodedata.category(c)[0] not in "MZ"]
    return "".join(kept).lower()


def tokens(text):
    """The characters of a face: half-width where there is one form for
    both widths, without combining marks and spaces."""
    narrow = (unicodedata.normalize("NFKC", c) for c in text)
    pairs = zip(text, narrow, strict=True)
    whole = [n if len(n) == 1 else c for c, n in pairs]
    return [c for c in whole if unicodedata.category(c)[0] not in "MZ"]
# --8<-- [end:text]


# --8<-- [start:faces]
def faces():
    """Map each part to its [(tokens, label), ...].

    One face stands for its near duplicates; a face that two categories
    claim is left out. A hash of what duplicates share fixes the part:
    about 70 % train, 15 % validation, 15 % test.
    """
    import kaomoji_dataset

    found = {}
    for entry in kaomoji_dataset.all():
        text, category = entry["text"], entry["category"]
        chosen = entry["tier"] == "core" and category in CATEGORIES
        if chosen and 3 <= len(text) <= 24:
            group = found.setdefault(same_face(text), {})
            group.setdefault(CATEGORIES.index(category), tokens(text))
    parts = {part: [] for part in PARTS}
    for key, group in sorted(found.items()):
        ((label, face), *others) = group.items()
        if len(face) >= 3 and not others:
            share = hashlib.sha256(key.encode()).digest()[0] / 256
            part = PARTS[(share >= 0.7) + (share >= 0.85)]
            parts[part].append((face, label))
    return parts
# --8<-- [end:faces]


# --8<-- [start:encode]
def vocabulary(examples):
    """Token -> index; 0 pads, 1 stands for every unknown token."""
    known = sorted({token for text, _ in examples for token in text})
    return {token: index for index, token in enumerate(known, 2)}


def encode(texts, vocab):
    """Lists of tokens -> (B, L) indices, padded with 0 on the right."""
    rows = [[vocab.get(token, 1) for token in text] for text in texts]
    rows = [torch.tensor(row) for row in rows]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def tensors(examples, vocab):
    """[(tokens, label), ...] -> (B, L) indices and (B,) labels."""
    texts, labels = zip(*examples, strict=True)
    return encode(texts, vocab), torch.tensor(labels)
# --8<-- [end:encode]


# --8<-- [start:classifier]
class Classifier(nn.Module):
    """Embeddings, a stock nn.TransformerEncoder, the mean over real
    tokens, one linear layer: (B, L) indices -> (B, classes) logits."""

    def __init__(
        self, size, classes, E=64, H=4, layers=2, length=24,
        dropout=0.3, positions=True, dtype=torch.float64,
    ):  # fmt: skip
        super().__init__()
        # in float32 another processor's rounding trains another model
        of = {"dtype": dtype}
        self.tokens = nn.Embedding(size, E, padding_idx=0, **of)
        self.positions = None
        if positions:
            self.positions = nn.Embedding(length, E, **of)
        layer = nn.TransformerEncoderLayer(
            E, H, 2 * E, dropout, batch_first=True, **of
        )
        self.encoder = nn.TransformerEncoder(
            layer, layers, enable_nested_tensor=False
        )
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(E, classes, **of)
# --8<-- [end:classifier]

    # --8<-- [start:forward]
    def forward(self, ids):
        x = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions.weight[: ids.shape[1]]
        padding = ids == 0
        y = self.encoder(self.drop(x), src_key_padding_mask=padding)
        real = (~padding).unsqueeze(-1).to(y.dtype)
        return self.out((y * real).sum(1) / real.sum(1))
    # --8<-- [end:forward]


# --8<-- [start:fit]
def fit(model, train, validation, epochs, seed, rate=3e-3, batch=32):
    """Train; return the state of the epoch that validation liked best.

    train, validation: (B, L) indices and (B,) labels.
    """
    ids, labels = train
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), weight_decay=0.05, fused=True
    )
    steps = epochs * math.ceil(len(ids) / batch)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    best, state = -1.0, None
    for epoch in range(1, epochs + 1):
        model.train()
        for chosen in batches((ids > 0).sum(1), batch, generator):
            # (b, L): as long as the longest of this batch
            x = ids[chosen, : (ids[chosen] > 0).sum(1).max()]
            step(model, optimizer, x, labels[chosen])
            cycle.step()
        share = accuracy(model, *validation)
        if share > best:
            best, state = share, copy.deepcopy(model.state_dict())
        progress(epoch, epochs, f"seed {seed}, validation {share:.3f}")
    return state
# --8<-- [end:fit]


# --8<-- [start:step]
def step(model, optimizer, x, labels):
    loss = F.cross_entropy(model(x), labels, label_smoothing=0.1)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def batches(lengths, batch, generator):
    """An epoch's indices in random batches of similar length, so that
    little of a batch is padding."""
    of = {"generator": generator, "dtype": torch.float64}
    near = lengths + 2 * torch.rand(len(lengths), **of)
    rows = near.argsort().split(batch)
    order = torch.randperm(len(rows), generator=generator)
    return [rows[i] for i in order]
# --8<-- [end:step]


# --8<-- [start:measure]
@torch.no_grad()
def accuracy(model, ids, labels):
    """Share of the (B,) labels that the greatest logit hits."""
    hit = model.eval()(ids).argmax(-1) == labels
    return hit.float().mean().item()


@torch.no_grad()
def leave_one_out(model, ids):
    """(B, L) -> (B, L): how far the class probabilities move when one
    token is taken away, as total variation (0 to 1); 0 at padding."""
    probability = model.eval()(ids).softmax(-1)
    moved = torch.zeros(ids.shape, dtype=probability.dtype)
    for j in range(ids.shape[1]):
        there = ids[:, j] > 0  # (B,): the others have no token here
        rest = torch.cat((ids[there, :j], ids[there, j + 1 :]), 1)
        change = model(rest).softmax(-1) - probability[there]
        moved[there, j] = change.abs().sum(-1) / 2
    return moved


def interval(values, draws=10_000):
    """(N,) values, one a face -> low and high end of the 95 % interval
    of their mean, by drawing faces again (bootstrap)."""
    generator = torch.Generator().manual_seed(0)
    N = len(values)
    drawn = torch.randint(N, (draws, N), generator=generator)
    means = values.double()[drawn].mean(1)
    ends = torch.tensor([0.025, 0.975], dtype=means.dtype)
    return tuple(means.quantile(ends).tolist())
# --8<-- [end:measure]


def progress(done, of, note, width=30):
    """A bar on standard error, where somebody is looking at it."""
    if sys.stderr.isatty():
        bar = "#" * (done * width // of)
        end = "\n" if done == of else ""
        print(f"\r[{bar:{width}}] {done}/{of} {note}", end=end, file=sys.stderr, flush=True)


# --8<-- [start:trained]
def train(seed, epochs=16):
    """Train a classifier of faces from this seed; return its state."""
    parts = cached(faces)
    vocab = vocabulary(parts["train"])
    examples = [tensors(parts[part], vocab) for part in PARTS[:2]]
    torch.manual_seed(seed)
    model = Classifier(len(vocab) + 2, len(CATEGORIES))
    return fit(model, *examples, epochs, seed)


def trained(seed=0):
    """A trained classifier of faces, in eval mode."""
    vocab = vocabulary(cached(faces)["train"])
    model = Classifier(len(vocab) + 2, len(CATEGORIES))
    model.load_state_dict(cached(train, seed))
    return model.eval()
# --8<-- [end:trained]
