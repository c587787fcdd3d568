"""Every head's attention weights of a Hugging Face model, with its tokens and words. Needs transformers, and capture.py beside it.

    python hugging_face.py bert-base-uncased "one text" "another"    # a PNG of each text and layer; needs attention_map.py, too
    python hugging_face.py bert-base-uncased "one text" --tokens    # over tokens, and not over words

    tokens, words, maps = heads_of("bert-base-uncased", ["one text", "another"])
    weights = maps["encoder.layer.0.attention.self"][0]      # (H, L, L) of the first text
    names, whole = by_word(weights, words[0], tokens[0])     # W names, (H, W, W)

A model's name may be a folder, or a model that is loaded already, with its tokenizer.
Letters: B texts, H heads, L tokens of the longest text, n of a text's own, W words.
"""

from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

SPACES = ("▁", "Ġ")  # how tokens of SentencePiece, of bytes, write one


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
    """The batch of the texts, padded on the right. Sets the tokenizer's pad_token if it has none: it is masked, so any will do."""
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"texts: expected a list of str, none empty, got {texts!r:.60}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    ways = {"padding": True, "padding_side": "right", "return_attention_mask": True}
    batch = tokenizer(texts, return_tensors="pt", **ways)
    if (length := batch["input_ids"].shape[1]) > tokenizer.model_max_length:
        raise ValueError(f"texts: expected at most {tokenizer.model_max_length} tokens, got {length}")
    return batch.to(model.device)


def in_text(batch, i: int, text: str) -> list:
    """Words as a fast tokenizer knows them, where they are in the text."""
    return [w if w is None else (w, text[slice(*batch.word_to_chars(i, w))].strip()) for w in batch.word_ids(i)]


def pieces(tokens: list[str], tokenizer) -> list:
    """Words out of the tokens themselves. What begins with ## goes on with the token before, or what does not begin with ▁ or Ġ."""
    markers = {*tokenizer.all_special_tokens} - {tokenizer.unk_token, tokenizer.mask_token}
    spaced, begun = any(token.startswith(SPACES) for token in tokens), []
    for token in tokens:
        goes_on = not token.startswith(SPACES) if spaced else token.startswith("##")
        if token in markers:
            begun.append(None)
        elif goes_on and begun and begun[-1]:
            begun[-1].append(token.removeprefix("##"))
            begun.append(begun[-1])
        else:
            begun.append([token.lstrip("".join(SPACES))])
    numbers = {one: number for number, one in enumerate(dict.fromkeys(id(word) for word in begun if word))}
    return [word and (numbers[id(word)], "".join(word)) for word in begun]


def are_words(words: list) -> bool:
    """Whether they are words: some tokenizers, as those of Llama, take a whole text for one."""
    return not any(len(word[1].split()) > 1 for word in words if word)


# --8<-- [start:heads]
def heads_of(model, texts: list[str], tokenizer=None):
    """Tokens and words of each text, and {module: (B, H, L, L)}.

    words: for each token (number, text) of its word, None of a marker.
    Padding is in the maps alone: text i has n = len(tokens[i]) tokens.
    """
    from capture import attention_weights

    model, tokenizer = loaded(model, tokenizer)
    refuse(model)
    batch = encoded(model, tokenizer, texts)
    with torch.no_grad(), attention_weights(model) as maps:
        model(**batch)
    tokens, words = [], []
    for i, text in enumerate(texts):
        n = int(batch["attention_mask"][i].sum())
        ids = batch["input_ids"][i, :n]
        tokens.append(tokenizer.convert_ids_to_tokens(ids))
        own = in_text(batch, i, text)[:n] if tokenizer.is_fast else None
        if own is None or not are_words(own):  # it does not know
            own = pieces(tokens[i], tokenizer)
        words.append(own)
    return tokens, words, one_each(maps)
# --8<-- [end:heads]


def refuse(model) -> None:
    """ValueError if its maps would not be those of its own work on these tokens."""
    if model.training:
        raise ValueError("model: expected one in evaluation, got one in training: model.eval()")
    if any(hasattr(module, "encoder") and hasattr(module, "decoder") for module in model.modules()):
        raise ValueError("model: expected one with one kind of tokens, got an encoder and a decoder: model.get_encoder(), or capture.py")


def one_each(maps) -> dict[str, Tensor]:
    """{module: (B, H, L, L)}; a module that all layers share (ALBERT) has a name for each call, as "module[0]"."""
    each = {}
    for name, calls in maps.items():
        each |= {f"{name}[{i}]": one for i, one in enumerate(calls)} if isinstance(calls, list) else {name: calls}
    return each


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
def pictures(
    model, texts: list[str], folder=".", tokenizer=None,
    over_tokens=False,
):
    """A PNG of each text and layer, all its heads, over words.

    over_tokens: as the model sees them, words in pieces.
    """
    from attention_map import attention_map

    Path(folder).mkdir(parents=True, exist_ok=True)
    tokens, words, maps = heads_of(model, texts, tokenizer)
    for i, own in enumerate(tokens):
        for layer, weights in enumerate(maps.values()):
            names, drawn = own, weights[i, :, : len(own), : len(own)]
            if not over_tokens:
                names, drawn = by_word(drawn, words[i], own)
            file = Path(folder) / f"text-{i}-layer-{layer}.png"
            attention_map(drawn, names).savefig(file)
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
    import argparse

    parser = argparse.ArgumentParser(description="Every head's attention weights, a PNG of each text and layer.")
    parser.add_argument("model", help="a name, or a folder")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--tokens", action="store_true", help="draw tokens, and not the words that they make")
    parser.add_argument("--folder", default=".", help="of the pictures")
    given = parser.parse_args()
    pictures(given.model, given.texts, given.folder, over_tokens=given.tokens)
    print(f"wrote {Path(given.folder) / 'text-0-layer-0.png'} and so on")
