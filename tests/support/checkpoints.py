"""Checkpoints to be told by their headers: names and shapes of every layout, and a small file of every format."""

import io
import json
import struct
import warnings
import zipfile

import numpy as np
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


def quantized(tensor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still in people's files
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def numpy_archive():
    packed = io.BytesIO()
    np.savez(packed, w=np.zeros((3, 4)))
    return packed.getvalue()


def zip64(archive):
    """The same archive as one of more than 4 GB would be: sizes and places in fields of 64 bits, its comment's place marked."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            with new.open(name, "w", force_zip64=True) as file:
                file.write(old.read(name))
    content = packed.getvalue()
    end = content.rindex(b"PK\5\6")
    count, size, offset = struct.unpack("<HII", content[end + 10 : end + 20])
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    short = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return content[:end] + wide + locator + short


def files():
    """{file name: (bytes, shapes)} of every format."""
    state = nn.TransformerEncoderLayer(E, H).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}

    def saved(what, **options):
        buffer = io.BytesIO()
        torch.save(what, buffer, **options)
        return buffer.getvalue()

    linear = nn.Linear(3, 4)
    tied = {"emb.weight": linear.weight, "head.weight": linear.weight, "half": linear.weight[2:]}
    odd = {
        "turned": torch.randn(4, E).T,
        "parameter": nn.Parameter(torch.randn(3, 4)),
        "bf16": torch.randn(3).bfloat16(),
        "one": torch.tensor(1.0),
        "int8": quantized(torch.randn(5, 3)),
    }
    return {
        "model.safetensors": (safetensors(shapes), shapes),
        "model.gguf": (gguf(GGUF), GGUF),
        "zip.pt": (saved(state), shapes),
        "legacy.bin": (saved(state, _use_new_zipfile_serialization=False), shapes),
        "lightning.ckpt": (saved({"epoch": 3, "state_dict": state, "hyper": {"lr": 1e-3}}), shapes),
        "deepspeed.pt": (saved({"optimizer": tied, "model": {"module": state, "step": 3}}), shapes),
        "elsewhere.pt": (
            saved({"model": {"name": "none"}, "ema": {"weights": state}}),
            {f"ema.weights.{n}": s for n, s in shapes.items()},
        ),
        "tied.pt": (saved(tied), {"emb.weight": (4, 3), "head.weight": (4, 3), "half": (2, 3)}),
        "zip64.pt": (zip64(saved(tied)), {"emb.weight": (4, 3), "head.weight": (4, 3), "half": (2, 3)}),
        "odd.pth": (saved(odd), {"turned": (E, 4), "parameter": (3, 4), "bf16": (3,), "one": (), "int8": (5, 3)}),
    }
