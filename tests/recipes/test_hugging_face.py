"""hugging_face.py: words out of tokens, and what it asks of transformers, which stands in here as a model and a tokenizer of ours."""

import sys
from types import SimpleNamespace

import pytest
import torch
from attention_map import attention_map
from hugging_face import asked, by_word, heads_of
from torch import nn
from torch.nn import functional as F

# a word may be missing: 2 and 3 are what the tokenizer cut off
WORDS = [None, (0, "a"), (1, "bc"), (1, "bc"), (4, "a"), None]


def test_to_a_word_the_sum_and_from_it_the_mean():
    weights = torch.randn(2, 3, 6, 6, dtype=torch.float64).softmax(-1)
    names, found = by_word(weights, WORDS)
    assert names == ["a", "bc", "a"]
    assert found.shape == (2, 3, 3, 3)
    for u, out_of in enumerate(([1], [2, 3], [4])):
        for v, into in enumerate(([1], [2, 3], [4])):
            by_hand = sum(sum(weights[..., i, j] for j in into) for i in out_of) / len(out_of)
            torch.testing.assert_close(found[..., u, v], by_hand)


def test_where_every_token_is_a_word_nothing_changes():
    weights = torch.rand(4, 4)
    names, found = by_word(weights, [(7, "a"), (8, "a"), (9, "b"), (10, "c")])
    assert names == ["a", "a", "b", "c"]
    assert torch.equal(found, weights)


def test_markers_may_stand_for_themselves():
    weights = torch.randn(6, 6, dtype=torch.float64).softmax(-1)
    names, found = by_word(weights, WORDS, ["[CLS]", "a", "b", "c", "a", "[SEP]"])
    assert names == ["[CLS]", "a", "bc", "a", "[SEP]"]
    torch.testing.assert_close(found.sum(-1), torch.ones(5).double())
    torch.testing.assert_close(found[1:-1, 1:-1], by_word(weights, WORDS)[1])
    attention_map(found, names)  # which refuses rows that do not sum to 1


def test_without_words_there_is_nothing_to_say():
    with pytest.raises(ValueError, match="expected words, got None for every token"):
        by_word(torch.rand(2, 2), [None, None])


class Batch(dict):
    def word_ids(self, i):
        return [None if token == 0 else n for n, token in enumerate(self["input_ids"][i].tolist())]

    def word_to_chars(self, i, word):
        return (word, word + 1)


class Tokenizer:
    """A letter is a token; 0 pads."""

    @classmethod
    def from_pretrained(cls, name):
        assert name == "a folder"
        return cls()

    def __call__(self, texts, padding, return_tensors):
        assert (padding, return_tensors) == (True, "pt")
        rows = nn.utils.rnn.pad_sequence([torch.tensor([ord(c) - 96 for c in text]) for text in texts], True)
        return Batch(input_ids=rows, attention_mask=(rows > 0).long())

    def convert_ids_to_tokens(self, ids):
        return [chr(96 + token) if token else "[PAD]" for token in ids.tolist()]


class Model(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.layer, self.embed, self.kernel = nn.Module(), nn.Embedding(27, 8), kernel
        self.layer.attention = nn.Linear(8, 24)

    @classmethod
    def from_pretrained(cls, name, attn_implementation="sdpa"):
        torch.manual_seed(3)
        return cls(attn_implementation)

    def forward(self, input_ids, attention_mask, output_attentions=False):
        assert not self.training
        q, k, v = self.layer.attention(self.embed(input_ids)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        seen = attention_mask[:, None, None].bool()
        if self.kernel != "eager":
            F.scaled_dot_product_attention(q, k, v, seen)
            return SimpleNamespace(attentions=())
        weights = (q @ k.mT / 2).masked_fill(~seen, -torch.inf).softmax(-1)
        return SimpleNamespace(attentions=(weights,) if output_attentions else None)


def test_tokens_words_and_the_maps_that_the_model_gives_when_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoModel=Model, AutoTokenizer=Tokenizer))
    tokens, words, maps = heads_of("a folder", ["cat", "horse"])
    assert tokens == [["c", "a", "t", "[PAD]", "[PAD]"], list("horse")]
    assert words == [[(0, "c"), (1, "a"), (2, "t"), None, None], list(enumerate("horse"))]
    ((_, recorded),) = maps.items()
    (own,) = asked("a folder", ["cat", "horse"])
    assert recorded.shape == (2, 2, 5, 5)
    torch.testing.assert_close(recorded, own)
    assert asked("a folder", ["cat", "horse"], "sdpa") == ()
