"""hugging_face.py: words out of tokens, and what it asks of transformers, which stands in here as a model and a tokenizer of ours."""

import re
import sys
from types import SimpleNamespace

import pytest
import torch
from attention_map import attention_map
from hugging_face import asked, by_word, encoded, heads_of, pictures, pieces, without_head
from matplotlib.figure import Figure
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


def test_padding_is_cut_off():
    weights = torch.randn(2, 8, 8).softmax(-1)
    names, found = by_word(weights, WORDS)
    torch.testing.assert_close(found, by_word(weights[:, :6, :6], WORDS)[1])
    assert found.shape[-1] == len(names)


class Batch(dict):
    def to(self, device):
        return self

    def word_ids(self, i):
        return [None if token == 0 else n for n, token in enumerate(self["input_ids"][i].tolist())]

    def word_to_chars(self, i, word):
        return (word, word + 1)


class Tokenizer:
    """A letter is a token; 0 pads."""

    is_fast, all_special_tokens, unk_token, mask_token = (
        True,
        ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"],
        "[UNK]",
        "[MASK]",
    )
    eos_token, model_max_length = "[SEP]", 6

    def __init__(self):
        self.pad_token = None

    @classmethod
    def from_pretrained(cls, name):
        assert name == "a folder"
        return cls()

    def __call__(self, texts, padding, padding_side, return_attention_mask, return_tensors):
        assert (padding, padding_side, return_attention_mask, return_tensors) == (True, "right", True, "pt")
        assert self.pad_token == "[SEP]"  # without one transformers refuses to pad
        rows = nn.utils.rnn.pad_sequence([torch.tensor([ord(c) - 96 for c in text]) for text in texts], True)
        return Batch(input_ids=rows, attention_mask=(rows > 0).long())

    def convert_ids_to_tokens(self, ids):
        return [chr(96 + token) if token else "[PAD]" for token in ids.tolist()]


class Model(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.layer, self.embed, self.kernel = nn.Module(), nn.Embedding(27, 8), kernel
        self.layer.attention, self.layer.output = nn.Linear(8, 24), nn.Linear(8, 8)
        self.device = self.embed.weight.device

    @classmethod
    def from_pretrained(cls, name, attn_implementation="sdpa"):
        torch.manual_seed(3)
        return cls(attn_implementation)

    def forward(self, input_ids, attention_mask, output_attentions=False):
        assert not self.training
        q, k, v = self.layer.attention(self.embed(input_ids)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        seen = attention_mask[:, None, None].bool()
        if self.kernel != "eager":
            heads = F.scaled_dot_product_attention(q, k, v, seen)
            return SimpleNamespace(attentions=(), output=self.layer.output(heads.transpose(1, 2).flatten(2)))
        weights = (q @ k.mT / 2).masked_fill(~seen, -torch.inf).softmax(-1)
        return SimpleNamespace(attentions=(weights,) if output_attentions else None)


@pytest.fixture
def transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoModel=Model, AutoTokenizer=Tokenizer))


def test_tokens_words_and_the_maps_that_the_model_gives_when_asked(transformers):
    tokens, words, maps = heads_of("a folder", ["cat", "horse"])
    assert tokens == [list("cat"), list("horse")]
    assert words == [list(enumerate("cat")), list(enumerate("horse"))]
    ((_, recorded),) = maps.items()
    (own,) = asked("a folder", ["cat", "horse"])
    assert recorded.shape == (2, 2, 5, 5)
    torch.testing.assert_close(recorded, own)
    assert asked("a folder", ["cat", "horse"], "sdpa") == ()


def test_a_model_that_is_loaded_already(transformers):
    model, tokenizer = Model.from_pretrained("a folder").eval(), Tokenizer()
    (again,) = heads_of(model, ["cat", "horse"], tokenizer)[2].values()
    (named,) = heads_of("a folder", ["cat", "horse"])[2].values()
    assert torch.equal(again, named)
    with pytest.raises(ValueError, match="tokenizer: expected the model's own, got None"):
        heads_of(model, ["cat"])
    for texts in ("cat", [], ["cat", ""], [("cat", "horse")], None):
        with pytest.raises(ValueError, match=re.escape(f"texts: expected a list of str, none empty, got {texts!r}")):
            heads_of(model, texts, tokenizer)
    with pytest.raises(ValueError, match="texts: expected at most 6 tokens, got 9"):
        heads_of(model, ["cat", "crocodile"], tokenizer)
    with pytest.raises(ValueError, match=r"model: expected one in evaluation, got one in training: model.eval\(\)"):
        heads_of(model.train(), ["cat"], tokenizer)
    model.encoder, model.decoder = nn.Module(), nn.Module()
    with pytest.raises(ValueError, match=r"model: .*got an encoder and a decoder: model.get_encoder\(\)"):
        heads_of(model.eval(), ["cat"], tokenizer)


def test_a_module_that_all_layers_share_has_a_map_for_each(transformers, monkeypatch):
    """As ALBERT's: one module, called once a layer."""
    once = Model.forward

    def twice(self, **batch):
        once(self, **batch)
        return once(self, **batch)

    monkeypatch.setattr(Model, "forward", twice)
    _, _, maps = heads_of("a folder", ["cat", "horse"])
    assert list(maps) == ["[0]", "[1]"]
    assert all(weights.shape == (2, 2, 5, 5) for weights in maps.values())


def test_a_tokenizer_that_does_not_know_its_words(transformers, monkeypatch):
    """Those of Japanese BERTs are written in Python, and refuse word_ids()."""
    monkeypatch.setattr(Tokenizer, "is_fast", False)
    monkeypatch.setattr(Batch, "word_ids", None)
    _, words, _ = heads_of("a folder", ["cat", "horse"])
    assert [[text for _, text in own] for own in words] == [list("cat"), list("horse")]
    tokens = ["[CLS]", "黒い", "猫", "と", "アテン", "##ショ", "##ン", "[UNK]", "[SEP]"]
    found = pieces(tokens, Tokenizer)
    assert found[0] is found[-1] is None
    assert by_word(torch.eye(9), found)[0] == ["黒い", "猫", "と", "アテンション", "[UNK]"]
    assert by_word(torch.eye(9), found, tokens)[0] == ["[CLS]", "黒い", "猫", "と", "アテンション", "[UNK]", "[SEP]"]


@pytest.mark.parametrize(
    ("tokens", "names"),
    [
        (["<s>", "▁a", "▁dog", "gy", "▁", "barks", "</s>"], ["a", "doggy", "barks"]),  # SentencePiece
        (["un", "known", "Ġdog", "s", "."], ["unknown", "dogs."]),  # bytes: the first has no space before it
        (["[MASK]", "dog", "##s", "dog"], ["[MASK]", "dogs", "dog"]),
    ],
)
def test_words_out_of_tokens(tokens, names):
    markers = SimpleNamespace(all_special_tokens=["<s>", "</s>", "[MASK]"], unk_token=None, mask_token="[MASK]")
    found = pieces(tokens, markers)
    assert by_word(torch.eye(len(tokens)), found)[0] == names
    assert [word is None for word in found] == [token in ("<s>", "</s>") for token in tokens]


def test_a_text_is_not_one_word(transformers, monkeypatch):
    """Fast tokenizers such as Llama's say that it is."""
    monkeypatch.setattr(Batch, "word_ids", lambda self, i: [0] * len(self["input_ids"][i]))
    monkeypatch.setattr(Batch, "word_to_chars", lambda self, i, word: (0, 5))
    monkeypatch.setattr(Tokenizer, "convert_ids_to_tokens", lambda self, ids: ["▁a", "▁d", "o", "g"][: len(ids)])
    assert heads_of("a folder", ["adog"])[1][0] == [(0, "adog")] * 4
    model = Model.from_pretrained("a folder").eval()
    monkeypatch.setattr(Tokenizer, "__call__", spaces(Tokenizer.__call__))
    assert heads_of(model, ["a dog"], Tokenizer())[1][0] == [(0, "a"), (1, "dog"), (1, "dog"), (1, "dog")]


def spaces(call):
    return lambda self, texts, **ways: call(self, [text.replace(" ", "") for text in texts], **ways)


def test_a_picture_of_each_text_and_layer(transformers, tmp_path):
    pictures("a folder", ["cat", "horse"], tmp_path / "new")
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["text-0-layer-0.png", "text-1-layer-0.png"]


def test_a_picture_over_tokens(transformers, tmp_path, monkeypatch):
    monkeypatch.setattr(Batch, "word_ids", lambda self, i: [0, 0, 0])
    monkeypatch.setattr(Batch, "word_to_chars", lambda self, i, word: (0, 3))
    drawn = []
    monkeypatch.setattr("attention_map.attention_map", lambda *given: drawn.append(given) or Figure())
    pictures("a folder", ["cat"], tmp_path)
    pictures("a folder", ["cat"], tmp_path, over_tokens=True)
    assert [(tuple(weights.shape), names) for weights, names in drawn] == [
        ((2, 1, 1), ["cat"]),
        ((2, 3, 3), list("cat")),
    ]


def test_without_a_head_its_columns_of_the_projection_count_for_nothing():
    model = Model.from_pretrained("").eval()
    batch = encoded(model, Tokenizer(), ["cat", "horse"])
    whole = model(**batch).output
    with torch.no_grad(), without_head(model.layer.output, 1, 2):
        without = model(**batch).output
    assert torch.equal(model(**batch).output, whole)
    with torch.no_grad():
        model.layer.output.weight[:, 4:] = 0
    torch.testing.assert_close(without, model(**batch).output)
    assert not torch.allclose(without, whole, atol=0.01)


def test_a_projection_that_is_never_called_is_told():
    layer = nn.MultiheadAttention(8, 2)
    x = torch.randn(3, 1, 8)
    with pytest.raises(RuntimeError, match="projection: it was never called"), without_head(layer.out_proj, 0, 2):
        layer(x, x, x)
