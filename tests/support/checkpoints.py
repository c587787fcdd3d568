"""Checkpoints to be told by their headers: names and shapes of every layout, and a small file of every format."""

import io
import json
import struct

import torch
from atlas import layouts, shapes_of
from torch import nn

E, H, D = 24, 4, 6


def layer_of(layout, K):
    """Names and shapes of a layer x., as a file has them."""
    shapes = dict.fromkeys(layout.signs, (D,)) | shapes_of(layout, E, H, K)
    return {f"x.{name}": shape for name, shape in shapes.items()}


def keys_of(layout):
    return 1 if layout.one else 2 if layout.grouped else H


NAMED = [name for name in layouts() if name != "ONNX Runtime Attention"]  # which has inputs, and no names


def safetensors(shapes):
    entries = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}} | entries).encode()
    return struct.pack("<Q", len(text)) + text


def gguf(shapes, architecture="llama"):
    """https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

    def string(text):
        return struct.pack("<Q", len(text)) + text.encode()

    values = [
        string("general.architecture") + struct.pack("<I", 8) + string(architecture),
        string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + b"".join(map(string, "abc")),
        string("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 3) + struct.pack("<3f", 1, 2, 3),
        string(f"{architecture}.attention.head_count") + struct.pack("<II", 4, H),
    ]
    tensors = [
        string(name)
        + struct.pack("<I", len(shape))
        + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        + struct.pack("<IQ", 0, 0)
        for name, shape in shapes.items()
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(values + tensors)


GGUF = {
    "blk.0.attn_q.weight": (E, 20),
    "blk.0.attn_k.weight": (E // 2, 20),
    "blk.0.attn_v.weight": (E // 2, 20),
    "blk.0.attn_output.weight": (20, E),
}


def files():
    """{file name: (bytes, shapes)} of every format."""
    state = nn.TransformerEncoderLayer(E, H).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}

    def saved(what, **options):
        buffer = io.BytesIO()
        torch.save(what, buffer, **options)
        return buffer.getvalue()

    odd = {
        "turned": torch.randn(4, E).T,
        "parameter": nn.Parameter(torch.randn(3, 4)),
        "bf16": torch.randn(3).bfloat16(),
        "one": torch.tensor(1.0),
    }
    return {
        "model.safetensors": (safetensors(shapes), shapes),
        "model.gguf": (gguf(GGUF), GGUF),
        "zip.pt": (saved(state), shapes),
        "legacy.bin": (saved(state, _use_new_zipfile_serialization=False), shapes),
        "lightning.ckpt": (
            saved({"epoch": 3, "state_dict": state, "hyper": {"lr": 1e-3}}),
            {f"state_dict.{n}": s for n, s in shapes.items()},
        ),
        "odd.pth": (saved(odd), {"turned": (E, 4), "parameter": (3, 4), "bf16": (3,), "one": ()}),
    }
