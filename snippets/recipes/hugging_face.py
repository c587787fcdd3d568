"""Every head's attention weights of a Hugging Face model, with its tokens and words. Needs transformers, and capture.py beside it.

    tokens, words, maps = heads_of("bert-base-uncased", ["one text", "another"])
    weights = maps["encoder.layer.0.attention.self"][0]  # (H, L, L) of the first text
    names, whole = by_word(weights, words[0])            # W names, (H, W, W)

A model's name may be a folder. Letters: B texts, H heads, L tokens of the longest text, W words.
"""

import torch
from torch import Tensor


# --8<-- [start:heads]
def heads_of(name: str, texts: list[str]) -> tuple[list, list, dict]:
    """Tokens and words of each text, and {module: (B, H, L, L)}.

    words: for each token (number, text) of its word, None of a marker.
    """
    from capture import attention_weights
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModel.from_pretrained(name).eval()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad(), attention_weights(model) as maps:
        model(**batch)
    name_of = tokenizer.convert_ids_to_tokens
    tokens = [name_of(ids) for ids in batch["input_ids"]]
    words = [
        [
            word if word is None
            else (word, text[slice(*batch.word_to_chars(i, word))])
            for word in batch.word_ids(i)
        ]
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return tokens, words, dict(maps)
# --8<-- [end:heads]


# --8<-- [start:asked]
def asked(name: str, texts: list[str], kernel: str = "eager") -> tuple:
    """What the model gives when asked: a (B, H, L, L) of each layer."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModel.from_pretrained(name, attn_implementation=kernel)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        given = model.eval()(**batch, output_attentions=True)
    return given.attentions
# --8<-- [end:asked]


# --8<-- [start:by_word]
def by_word(weights: Tensor, words: list, tokens: list | None = None):
    """Names of words, and weights of tokens (..., L, L) as (..., W, W).

    To a word: the sum over its tokens. From a word: their mean.
    Tokens without a word are left out, or stand for themselves if
    `tokens` are given: then rows sum to 1.
    ValueError if nothing is left.
    """
    if tokens is not None:
        own = [(~i, token) for i, token in enumerate(tokens)]
        words = [w or o for w, o in zip(words, own, strict=True)]
    known = [i for i, word in enumerate(words) if word is not None]
    if not known:
        raise ValueError("expected words, got None for every token")
    order = dict.fromkeys(words[i] for i in known)
    number = {word: w for w, word in enumerate(order)}
    to = weights.new_zeros(len(words), len(number))  # (L, W)
    to[known, [number[words[i]] for i in known]] = 1
    whole = (to / to.sum(0)).mT @ weights @ to
    return [name for _, name in order], whole
# --8<-- [end:by_word]
