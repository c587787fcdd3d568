"""Every head's attention weights of a Hugging Face model, with its tokens and words. Needs transformers, and capture.py beside it.

    python hugging_face.py bert-base-uncased "one text" "another"    # a PNG of each text and layer; needs attention_map.py, too

    tokens, words, maps = heads_of("bert-base-uncased", ["one text", "another"])
    weights = maps["encoder.layer.0.attention.self"][0]      # (H, L, L) of the first text
    names, whole = by_word(weights, words[0], tokens[0])     # W names, (H, W, W)

A model's name may be a folder, or a model that is loaded already, with its tokenizer.
Letters: B texts, H heads, L tokens of the longest text, n of a text's own, W words.
"""

import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn


def loaded(model, tokenizer=None, **options):
    """The model and its tokenizer, loaded if `model` is a name."""
    if isinstance(model, (str, Path)):
        from transformers import AutoModel, AutoTokenizer

        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        model = AutoModel.from_pretrained(model, **options).eval()
    if tokenizer is None:
        raise ValueError("tokenizer: expected the model's own, got None")
    return model, tokenizer


def encoded(model, tokenizer, texts: list[str]):
    """The batch of the texts, padded on the right, cut where too long."""
    if isinstance(texts, str):
        raise ValueError("texts: expected a list of str, got a str")
    ways = {"padding": True, "padding_side": "right", "truncation": True}
    return tokenizer(texts, return_tensors="pt", **ways).to(model.device)


def pieces(tokens: list[str], tokenizer) -> list:
    """Words as heads_of has them, where the tokenizer is written in Python: what begins with ## goes on with the token before."""
    markers, words = {*tokenizer.all_special_tokens} - {tokenizer.unk_token}, []
    for token in tokens:
        if token in markers:
            words.append(None)
        elif token.startswith("##") and words and words[-1]:
            number, text = words[-1]
            words = [(number, text + token[2:]) if word == (number, text) else word for word in words]
            words.append((number, text + token[2:]))
        else:
            words.append((len(words), token))
    return words


# --8<-- [start:heads]
def heads_of(model, texts: list[str], tokenizer=None):
    """Tokens and words of each text, and {module: (B, H, L, L)}.

    words: for each token (number, text) of its word, None of a marker.
    Padding is in the maps alone: text i has n = len(tokens[i]) tokens.
    """
    from capture import attention_weights

    model, tokenizer = loaded(model, tokenizer)
    batch = encoded(model, tokenizer, texts)
    with torch.no_grad(), attention_weights(model) as maps:
        model(**batch)
    tokens, words = [], []
    for i, text in enumerate(texts):
        n = int(batch["attention_mask"][i].sum())
        ids = batch["input_ids"][i, :n]
        tokens.append(tokenizer.convert_ids_to_tokens(ids))
        if not tokenizer.is_fast:  # it does not know
            words.append(pieces(tokens[i], tokenizer))
            continue
        words.append([
            w if w is None
            else (w, text[slice(*batch.word_to_chars(i, w))])
            for w in batch.word_ids(i)[:n]
        ])  # fmt: skip
    return tokens, words, dict(maps)
# --8<-- [end:heads]


# --8<-- [start:asked]
def asked(model, texts: list[str], kernel: str = "eager") -> tuple:
    """What the model gives when asked: a (B, H, L, L) of each layer."""
    model, tokenizer = loaded(model, attn_implementation=kernel)
    batch = encoded(model, tokenizer, texts)
    with torch.no_grad():
        return model(**batch, output_attentions=True).attentions
# --8<-- [end:asked]


# --8<-- [start:by_word]
def by_word(weights: Tensor, words: list, tokens: list | None = None):
    """Names of words, and weights of tokens (..., L, L) as (..., W, W).

    To a word: the sum over its tokens. From a word: their mean.
    Tokens without a word are left out, or stand for themselves if
    `tokens` are given: then rows sum to 1. Padding is cut off.
    ValueError if nothing is left.
    """
    n = len(words)
    if tokens is not None:
        own = [(~i, token) for i, token in enumerate(tokens)]
        words = [w or o for w, o in zip(words, own, strict=True)]
    known = [i for i, word in enumerate(words) if word is not None]
    if not known:
        raise ValueError("expected words, got None for every token")
    order = dict.fromkeys(words[i] for i in known)
    number = {word: w for w, word in enumerate(order)}
    to = weights.new_zeros(n, len(number))  # (n, W)
    to[known, [number[words[i]] for i in known]] = 1
    whole = (to / to.sum(0)).mT @ weights[..., :n, :n] @ to
    return [name for _, name in order], whole
# --8<-- [end:by_word]


# --8<-- [start:pictures]
def pictures(model, texts: list[str], folder=".", tokenizer=None):
    """A PNG of each text and layer, all its heads, over words."""
    from attention_map import attention_map

    tokens, words, maps = heads_of(model, texts, tokenizer)
    for i, (own, spoken) in enumerate(zip(tokens, words, strict=True)):
        for layer, weights in enumerate(maps.values()):
            names, whole = by_word(weights[i], spoken, own)
            file = Path(folder) / f"text-{i}-layer-{layer}.png"
            attention_map(whole, names).savefig(file)
# --8<-- [end:pictures]


# --8<-- [start:without_head]
@contextmanager
def without_head(projection: nn.Module, head: int, heads: int):
    """Run a model without a head: its `projection` gets 0 of it.

    projection: the module that mixes the heads, its input (..., H D).
    RuntimeError if it was never called: nothing was taken out.
    """
    calls = []

    def hook(module, arguments):
        x, *others = arguments
        x = x.unflatten(-1, (heads, -1)).clone()  # (..., H, D)
        x[..., head, :] = 0
        calls.append(head)
        return x.flatten(-2), *others

    handle = projection.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if not calls:
        raise RuntimeError("projection: it was never called")
# --8<-- [end:without_head]


if __name__ == "__main__":
    pictures(sys.argv[1], sys.argv[2:])
