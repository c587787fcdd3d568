"""Ask layout_trace.py about layers whose layout is known, and write its answers to snippets/layouts/trace.json: `make trace`.

Small models of characters are trained here, on the text of `help()` that comes with Python, in many ways: positions added or
rotary, AdamW and SGD, norms of queries and keys, grouped queries. Beside them stand layers that others trained, read from
wheels of the package index, which are fetched the first time and kept by trained.py; nothing is installed. Some four minutes.
"""

import datetime
import hashlib
import io
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import layout_trace
import torch
import torch.nn.functional as F
import trained
from torch import Tensor, nn

from builder.scripts.recorded import made

DATA = Path(__file__).parents[1] / "snippets" / "layouts" / "trace.json"
MADE_OF = ["snippets/recipes/layout_trace.py", "snippets/recipes/trained.py", "tools/trace.py"]

E, H, LAYERS = 96, 6, 2
D = E // H
L, BATCH, STEPS = 48, 16, 600
STOPS = (0, 20, 100, STEPS)

# seeds above 10: the smaller ones served to choose the statistics
ADAMW = {"optimizer": "AdamW", "lr": 2e-3, "decay": 0.1}
SGD = {"optimizer": "SGD", "lr": 0.3, "decay": 0.0}
MODELS = [
    *(ADAMW | {"kind": "added", "seed": seed} for seed in (11, 12, 13)),
    ADAMW | {"kind": "added", "seed": 14, "decay": 0.0},
    *(SGD | {"kind": "added", "seed": seed} for seed in (15, 16)),
    *(SGD | {"kind": "added", "seed": seed, "lr": 0.03} for seed in (17, 18)),
    *(ADAMW | {"kind": kind, "seed": seed} for kind in ("half", "interleaved") for seed in (21, 22)),
    *(ADAMW | {"kind": kind, "seed": 23, "decay": 0.0} for kind in ("half", "interleaved")),
    *(ADAMW | {"kind": "normed", "seed": seed} for seed in (31, 32)),
    *(ADAMW | {"kind": kind, "seed": seed} for kind in ("neighbours", "dealt") for seed in (41, 42)),
]
GROUPS = {"neighbours": "h // (H / K)", "dealt": "h % K"}


class Attention(nn.Module):
    """Causal self-attention, its four projections apart.

    kind: "added", positions are added to the tokens; "half" and "interleaved", rotary; "normed", rotary halves of
    queries and keys that were normalised, with a learned scale; "neighbours" and "dealt", two heads of keys.
    """

    def __init__(self, kind: str):
        super().__init__()
        K = 2 if kind in GROUPS else H
        self.kind, self.r = kind, H // K
        self.rotary = kind in ("half", "interleaved", "normed")
        for name, rows in (("q", E), ("k", K * D), ("v", K * D), ("o", E)):
            linear = nn.Linear(E, rows, bias=not self.rotary)
            nn.init.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
            setattr(self, name, linear)
        if kind == "normed":
            self.norm_q, self.norm_k = nn.RMSNorm(D), nn.RMSNorm(D)
        angles = torch.arange(L)[:, None] * 10000.0 ** (-torch.arange(0, D, 2) / D)
        self.register_buffer("turn", torch.polar(torch.ones_like(angles), angles), persistent=False)

    def turned(self, x: Tensor) -> Tensor:
        """(B, H, L, D), each pair of numbers turned by an angle that grows with the position."""
        interleaved = self.kind == "interleaved"
        pairs = x.unflatten(-1, (-1, 2)) if interleaved else x.unflatten(-1, (2, -1)).mT
        pairs = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * self.turn)
        return (pairs if interleaved else pairs.mT).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x).unflatten(-1, (-1, D)).transpose(1, 2) for project in (self.q, self.k, self.v))
        if self.kind == "normed":
            q, k = self.norm_q(q), self.norm_k(k)
        if self.rotary:
            q, k = self.turned(q), self.turned(k)
        shared = [x.repeat(1, self.r, 1, 1) if self.kind == "dealt" else x.repeat_interleave(self.r, 1) for x in (k, v)]
        z = F.scaled_dot_product_attention(q, *shared, is_causal=True)
        return self.o(z.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(E), Attention(kind), nn.LayerNorm(E)
        self.mlp = nn.Sequential(nn.Linear(E, 4 * E), nn.GELU(), nn.Linear(4 * E, E))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    """Which character comes next: (B, L) -> (B, L, V)."""

    def __init__(self, V: int, kind: str):
        super().__init__()
        self.tokens = nn.Embedding(V, E)
        self.blocks = nn.Sequential(*(Block(kind) for _ in range(LAYERS)))
        self.out = nn.Sequential(nn.LayerNorm(E), nn.Linear(E, V, bias=False))
        self.places = nn.Parameter(0.02 * torch.randn(L, E)) if not self.blocks[0].attention.rotary else 0.0

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.blocks(self.tokens(ids) + self.places))


def text() -> str:
    return "".join(topics[name] for name in sorted(topics))


def train(
    ids: Tensor, kind: str, seed: int, optimizer: str, lr: float, decay: float, stops=STOPS
) -> tuple[dict, float]:
    """{step: state of each layer's attention}, and the mean loss of the last fifty steps."""
    torch.manual_seed(seed)
    model = Model(int(ids.max()) + 1, kind)
    of = {"AdamW": {"weight_decay": decay}, "SGD": {"momentum": 0.9}}[optimizer]
    optimizer = getattr(torch.optim, optimizer)(model.parameters(), lr, **of)
    kept, losses = {}, []
    for step in range(stops[-1] + 1):
        if step in stops:
            kept[step] = [{n: p.clone() for n, p in block.attention.state_dict().items()} for block in model.blocks]
        for group in optimizer.param_groups:  # warmed up, then a cosine
            group["lr"] = lr * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * step / stops[-1])) / 2
        drawn = ids[torch.randint(len(ids) - L, (BATCH, 1)) + torch.arange(L + 1)]  # (B, L + 1)
        loss = F.cross_entropy(model(drawn[:, :-1]).flatten(0, 1), drawn[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return kept, sum(losses[-50:]) / len(losses[-50:])


# What others trained: wheel -> (version, digest); of each the layers, with q, k, v, o as nn.Linear has them

WHEELS = {
    "anarcii": ("2.0.8", "6ac81caef04a9cad1af1ea320b35bdced620fe2bfdd0b8b17b98131495b584ca"),
    "rapidocr-onnxruntime": ("1.4.4", "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf"),
}


def packed(weight: Tensor, bias: Tensor | None, o: Tensor, num_heads: int) -> dict:
    """One layer, from rows (t h d)."""
    q, k, v = weight.detach().chunk(3)
    biases = {} if bias is None else dict(zip(("q_bias", "k_bias"), bias.detach().chunk(3), strict=False))
    return {"q": q, "k": k, "v": v, "o": o.detach(), "heads": num_heads} | biases


def published() -> Iterator[tuple[str, list[dict]]]:
    """(model, layers)."""
    for name, encoder, layers in (("RXNMapper", trained.rxnmapper(), 1), ("MiniLM", trained.minilm(), 6)):
        attention = [layer.self_attn for layer in encoder.layers[:layers]]  # RXNMapper: one layer, twelve times
        yield name, [packed(a.in_proj_weight, a.in_proj_bias, a.out_proj.weight, a.num_heads) for a in attention]
    trained.WHEELS.update(WHEELS)
    files = trained.wheel("anarcii")
    # its other three models were trained on from these
    for name in ("classifii/classifii", "models/antibody/antibody_4_1_128_512", "models/antibody/antibody_4_2_128_512"):
        state = torch.load(io.BytesIO(files.read(f"anarcii/{name}.pt")), "cpu", weights_only=True)
        places = [key.removesuffix("in_proj_weight") for key in state if key.endswith("in_proj_weight")]
        yield (
            f"ANARCII {name.split('/')[-1]}",
            [
                packed(state[f"{at}in_proj_weight"], state[f"{at}in_proj_bias"], state[f"{at}out_proj.weight"], 4)
                for at in places
            ],
        )
    file = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
    state = onnx(trained.wheel("rapidocr-onnxruntime").read(file))
    # Paddle's Linear is (in, out); rows of 3 * 120 are (t h d), H = 8 (PaddleOCR, rec_svtrnet.py)
    pairs = (("linear_77.w_0", "linear_78.w_0"), ("linear_81.w_0", "linear_82.w_0"))
    yield "PP-OCRv4", [packed(state[qkv].T.contiguous(), None, state[o].T, 8) for qkv, o in pairs]


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message of protobuf: (number, value)."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                return value

    while at < len(data):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(wire) or varint()
        yield number, data[at : at + size]
        at += size


def onnx(data: bytes) -> dict[str, Tensor]:
    """The float32 matrices of an ONNX file, by name: initialisers of its graph, and the values of its constants."""
    found = {}
    graph = next(value for number, value in fields(data) if number == 7)
    for number, value in fields(graph):
        tensors = [value] if number == 5 else []
        name = ""
        if number == 1:  # a node: output 2, attribute 5, whose tensor is 5
            parts = list(fields(value))
            name = next((part.decode() for n, part in parts if n == 2), "")
            tensors = [
                t for n, attribute in parts if n == 5 for m, t in fields(attribute) if m == 5 and isinstance(t, bytes)
            ]
        for tensor in tensors:
            parts = list(fields(tensor))
            shape = [size for n, size in parts if n == 1]
            if (2, 1) in parts and len(shape) == 2:
                raw = next(part for n, part in parts if n == 9)
                named = next((part.decode() for n, part in parts if n == 8), name)
                found[name or named] = torch.frombuffer(bytearray(raw), dtype=torch.float32).view(shape)
    return found


# Questions


def packings(layer: dict) -> Iterator[list]:
    """The three orders of rows, each with its answer."""
    together = torch.cat([layer[name] for name in "qkv"])
    for truth, rows in layout_trace.orders(layer["heads"], len(layer["q"]) // layer["heads"]).items():
        yield told("packing", truth, layout_trace.packing(together[rows.flatten().argsort()], layer["heads"]))


def told(question: str, truth, verdict) -> list:
    return [question, truth, verdict.answer, round(verdict.z, 1), int(verdict.sure)]


def smaller(first: Tensor, second: Tensor) -> layout_trace.Verdict:
    """Which of two biases is the smaller one, 0 or 1: by a rule that others have, that of the keys. No recipe makes use of it."""
    sizes = torch.stack([first, second]).double().square().mean(1).clamp(min=1e-30).log()
    z = (sizes[0] - sizes[1]).item() / (4 / len(first)) ** 0.5
    return layout_trace.decide({1: max(z, 0.0) ** 2, 0: max(-z, 0.0) ** 2})


def asked(layer: dict, rotary: str | None) -> Iterator[list]:
    """Every question but that of groups, of one layer with as many heads of keys as of queries."""
    q, k, v, o, H = (layer[name] for name in ("q", "k", "v", "o", "heads"))
    yield from packings(layer)
    yield told("orientation", "(out, in)", layout_trace.orientation(q, k, H))
    yield told("orientation", "(in, out)", layout_trace.orientation(q.T, k.T, H))
    yield told("orientation_out", "(out, in)", layout_trace.orientation_out(v, o, H))
    yield told("orientation_out", "(in, out)", layout_trace.orientation_out(v, o.T, H))
    yield told("heads", H, layout_trace.heads(q, k, v, o))
    yield told("rotary", rotary, layout_trace.rotary(q, k, H))
    if "q_bias" in layer:
        yield told("key", 1, smaller(layer["q_bias"], layer["k_bias"]))


def int8(weight: Tensor) -> Tensor:
    """Rounded to 127 steps each way, row by row."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round() * scale


ROUNDED = {"bfloat16": lambda weight: weight.bfloat16().float(), "int8": int8}


def of_one(states: dict, kind: str) -> list:
    """Rows [step, layer, question, truth, answer, z, sure] of a model trained here."""
    rows = []
    rotary = {"half": "half", "interleaved": "interleaved", "normed": "half"}.get(kind)
    for step, layers in states.items():
        every = []
        for i, state in enumerate(layers):
            layer = {name: state[f"{name}.weight"] for name in "qkvo"} | {"heads": H}
            if "q.bias" in state and kind not in GROUPS:
                layer |= {"q_bias": state["q.bias"], "k_bias": state["k.bias"]}
            weights = [layer[name] for name in "qkvo"]
            answers = [told("trained", step > 0, layout_trace.trained(*weights))]
            if kind in GROUPS:
                answers.append(told("groups", GROUPS[kind], layout_trace.groups(*weights, H)))
                answers.append(told("rotary", None, layout_trace.rotary(*weights[:2], H)))
            elif step < max(states):
                answers += [*packings(layer), told("rotary", rotary, layout_trace.rotary(*weights[:2], H))]
            else:
                answers += asked(layer, rotary)
                every.append(layout_trace.heads(*weights))
            rows += [[step, i, *answer] for answer in answers]
        if every:
            rows.append([step, "all", *told("heads", H, layout_trace.together(every))])
    return rows


def of_others(layers: list[dict]) -> list:
    """The same of a model that somebody else trained; instead of a step, how its numbers were rounded.

    And a row "relation": the z of q with k, and of v with o, signs and all.
    """
    rows = []
    for i, layer in enumerate(layers):
        weights = q, k, v, o = [layer[name] for name in "qkvo"]
        D = len(q) // layer["heads"]
        found = layout_trace.relation(q, k, D), layout_trace.relation(v, o.T, D)
        rows.append(["", i, "relation", *(round(z, 1) for z in found)])
        answers = [told("trained", True, layout_trace.trained(*weights)), *asked(layer, None)]
        rows += [["", i, *answer] for answer in answers]
        for name, rounded in ROUNDED.items():
            other = layer | {name: rounded(layer[name]) for name in "qkvo"}
            rows += [[name, i, *answer] for answer in packings(other)]
    every = [layout_trace.heads(*(layer[name] for name in "qkvo")) for layer in layers]
    if len(every) > 1:
        rows.append(["", "all", *told("heads", layers[0]["heads"], layout_trace.together(every))])
    return rows


def main() -> None:
    torch.set_num_threads(1)
    begun = time.process_time()
    characters = sorted(set(text()))
    ids = torch.tensor([characters.index(c) for c in text()])
    own, others = [], []
    for of in MODELS:
        states, loss = train(ids, **of)
        own.append(of | {"loss": round(loss, 2), "answers": of_one(states, of["kind"])})
        print(f"{of['kind']:12}{of['optimizer']:6}{of['lr']:6} seed {of['seed']}  loss {loss:.2f}", flush=True)
    for name, layers in published():
        about = {"name": name, "layers": len(layers), "heads": layers[0]["heads"], "width": len(layers[0]["q"])}
        others.append(about | {"answers": of_others(layers)})
        print(f"{name:36} {len(layers)} layers", flush=True)
    record = {
        "made": made("make trace", MADE_OF),
        "day": datetime.date.today().isoformat(),
        "torch": torch.__version__.split("+")[0],
        "python": sys.version.split()[0],
        "text": {"characters": len(ids), "digest": hashlib.sha256(text().encode()).hexdigest()[:16]},
        "seconds": round(time.process_time() - begun),
        "threshold": layout_trace.THRESHOLD,
        "stops": STOPS,
        "versions": {name: trained.WHEELS[name][0] for name in trained.WHEELS},
        "own": own,
        "others": others,
    }
    DATA.write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"wrote {DATA.relative_to(DATA.parents[2])}, {record['seconds']} CPU seconds")


if __name__ == "__main__":
    main()
