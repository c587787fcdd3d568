"""trained.py and the two recipes beside it: the port against formulas of its own, files, tokens, and a record that is kept honest."""

import hashlib
import json
import math
import zipfile

import pronouns
import pytest
import reactions
import torch
import trained

from builder import project
from builder.scripts import recorded
from tools import real

E, H, HIDDEN, L, V = 24, 4, 40, 7, 11
D = E // H


def checkpoint(theirs, narrow):
    """Parameters of one layer and its embeddings, by BERT's names (theirs = 2) or ALBERT's (1), redrawn with spread 0.5."""
    torch.manual_seed(theirs)
    first = narrow or E
    shapes = {
        f"embeddings.{kind}_embeddings": (n, first) for kind, n in (("word", V), ("position", 9), ("token_type", 2))
    }
    matrices = {"linear1": (HIDDEN, E), "linear2": (E, HIDDEN)}
    for names in trained.NAMES:
        shapes[f"at.{names[theirs]}"] = (E,) if "norm" in names[0] else matrices.get(names[0], (E, E))
    shapes["embeddings.LayerNorm"] = (first,)
    if narrow:
        shapes["encoder.embedding_hidden_mapping_in"] = (E, narrow)
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape) * 0.5
        if "_embeddings" not in name:
            state[f"{name}.bias"] = torch.randn(shape[0]) * 0.5
    return state


def by_hand(state, theirs, ids):
    """What the published models compute, a head and a row at a time: (L, E), and weights (H, L, L)."""
    state = {name: x.double() for name, x in state.items()}

    def dense(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-12).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def gelu(x):
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2

    q, k, v, out, norm1, one, two, norm2 = (f"at.{names[theirs]}" for names in trained.NAMES)
    of = "embeddings.{}_embeddings.weight"
    x = state[of.format("word")][ids] + state[of.format("position")][: len(ids)] + state[of.format("token_type")][0]
    x = norm(x, "embeddings.LayerNorm")
    if "encoder.embedding_hidden_mapping_in.weight" in state:
        x = dense(x, "encoder.embedding_hidden_mapping_in")
    Q, K, V_ = (dense(x, name) for name in (q, k, v))
    heads, maps = [], []
    for i in range(H):
        part = slice(i * D, (i + 1) * D)
        maps.append((Q[:, part] @ K[:, part].T / math.sqrt(D)).softmax(-1))
        heads.append(maps[-1] @ V_[:, part])
    x = norm(x + dense(torch.cat(heads, -1), out), norm1)
    return norm(x + dense(gelu(dense(x, one)), two), norm2), torch.stack(maps)


@pytest.mark.parametrize(("theirs", "narrow"), [(1, 10), (2, None)])
def test_the_port_is_the_published_formula(theirs, narrow):
    state, ids = checkpoint(theirs, narrow), torch.randint(V, (L,))
    model = trained.Encoder(state, list("abcdefghijk"), None, [trained.layer(state, "at.", H)]).double().eval()
    expected, maps = by_hand(state, theirs, ids)
    torch.testing.assert_close(model(ids[None])[0], expected)
    with pronouns.attention_weights(model) as seen:
        model(ids[None])
    torch.testing.assert_close(seen["layers.0.self_attn"][0], maps)


def test_rxnmapper_fills_in_what_is_masked():
    """The real weights, ported: a wrong order of heads or layers would guess no better than by lot."""
    model = trained.rxnmapper()
    tokens = model.split(reactions.REACTIONS["amide"][0])
    ids = model.ids(tokens)
    places = torch.cat(reactions.atoms(tokens))
    masked = ids.repeat(len(places), 1)
    masked[torch.arange(len(places)), places] = model.vocab["[MASK]"]
    with torch.no_grad():
        guess = model.guess(model(masked)).argmax(-1)[torch.arange(len(places)), places]
    assert (guess == ids[0, places]).double().mean() > 0.7


def kept_wheel(monkeypatch, tmp_path, content=b"x"):
    """A wheel of WHEELS that lies where torch.hub keeps things."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub/wheels/toy-1-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("toy/a.txt", content)
    monkeypatch.setitem(trained.WHEELS, "toy", ("1", hashlib.sha256(path.read_bytes()).hexdigest()))
    return path


def test_a_wheel_that_is_there_is_read_without_pip(monkeypatch, tmp_path):
    kept_wheel(monkeypatch, tmp_path, b"hello")
    monkeypatch.setattr(trained.subprocess, "run", None)
    assert trained.wheel("toy").read("toy/a.txt") == b"hello"


def test_another_wheel_of_the_same_name_is_refused(monkeypatch, tmp_path):
    path = kept_wheel(monkeypatch, tmp_path)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(RuntimeError, match=r"toy-1-py3-none-any\.whl: expected \w{64}, got \w{64}"):
        trained.wheel("toy")


def test_without_a_network_the_reason_is_pip_s(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"pip did not bring rxnmapper: (?s:.*)No matching distribution"):
        trained.wheel("rxnmapper")
    assert not list(tmp_path.rglob("*.whl"))


def test_safetensors_are_read_by_their_header():
    numbers = torch.randn(5, 3)
    header = {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [5, 3], "data_offsets": [4, 64]}}
    head = json.dumps(header).encode()
    data = len(head).to_bytes(8, "little") + head + b"skip" + numbers.numpy().tobytes()
    (read,) = trained.safetensors(data).values()
    assert torch.equal(read, numbers)


def test_words_are_cut_into_the_longest_known_pieces():
    vocab = dict.fromkeys(["cafe", "un", "##bel", "##be", "##liev", "##l", "##iev", "##able", "!", "'", "t", "[UNK]"])
    assert trained.word_pieces("Café unbelievable!'T", vocab) == [
        "cafe",
        "un",
        "##bel",
        "##iev",
        "##able",
        "!",
        "'",
        "t",
    ]


def test_reactions_are_cut_whole_and_every_atom_has_a_letter():
    for name, (text, letters) in reactions.REACTIONS.items():
        tokens = trained.smiles(text, {})
        assert "".join(tokens) == text
        left, product = reactions.atoms(tokens)
        came = reactions.origins(letters)
        assert came.shape == (len(product), len(left)), name
        assert came.any(1).all(), f"{name}: an atom of the product comes from nowhere"
        # an atom of the product keeps its element; aromatic or not, charged or not
        for i, j in came.nonzero().tolist():
            assert tokens[product[i]].strip("[]+-").lower() == tokens[left[j]].strip("[]+-").lower(), name
    with pytest.raises(ValueError, match="text: expected SMILES, got 'C C'"):
        trained.smiles("C C", {})


def test_a_record_of_other_files_is_refused(tmp_path, monkeypatch):
    record = json.loads(real.DATA.read_text(encoding="utf-8"))
    assert record["made"] == recorded.made("make real", real.MADE_OF)
    monkeypatch.setattr(project, "SNIPPETS", tmp_path)
    for name in real.MADE_OF:
        made = record["made"] | {"of": record["made"]["of"] | {name: "0" * 16}}
        (tmp_path / "record.json").write_text(json.dumps(record | {"made": made}), encoding="utf-8")
        (fault,) = recorded.faults()
        assert fault.message == f"this record was made with another {name} than is here: `make real` makes it anew"


def test_pairs_differ_in_one_word_and_hold_both_nouns():
    assert len({text for text, _, _ in pronouns.PAIRS}) == len(pronouns.PAIRS)
    for text, nouns, words in pronouns.PAIRS:
        assert text.count("{}") == 1
        assert len({*nouns, *words}) == 4
        places = [text.index(f" {noun} ") for noun in nouns] + [text.index(" it ")]
        assert places == sorted(places), text
