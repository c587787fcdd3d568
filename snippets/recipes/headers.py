"""Names and shapes of a checkpoint, from its header alone: .safetensors, .index.json, .gguf, .pt, .pth, .bin, .ckpt.

    tensors, config = header("model.safetensors")  # {name: shape}, {"model_type": "bert", ...}

config is config.json beside the file, or what a GGUF file says of its model. No number is read; of a pickle nothing is
executed: torch.load(weights_only=True) refuses what is no tensor, and the error names it. Needs PyTorch for pickles alone.
"""

import json
import struct
import zipfile
from pathlib import Path

Shapes = dict[str, tuple[int, ...]]


def header(path) -> tuple[Shapes, dict]:
    """({name: shape}, config). Raises ValueError with the file's name if it is none of these formats."""
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(9)
    config = config_beside(path)
    if start[:4] == b"GGUF":
        try:
            return gguf(path, config)
        except (struct.error, IndexError, OverflowError, MemoryError) as error:
            raise ValueError(f"{path}: expected the header of GGUF, got a broken one ({error})") from error
    if path.name.endswith(".index.json"):
        return {name: shape for part in parts_of(path) for name, shape in header(part)[0].items()}, config
    length = int.from_bytes(start[:8], "little")  # of a header of safetensors, which may begin as a pickle does
    if not (start[8:] == b"{" and length <= path.stat().st_size) and (start[:1] == b"\x80" or holds_pickle(path)):
        return pickled(path), config
    return safetensors(path), config


def config_beside(path: Path) -> dict:
    """What config.json in the same folder says, {} if there is none."""
    beside = path.with_name("config.json")
    return json_of(beside) if beside.is_file() else {}


def json_of(path: Path) -> dict:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object of JSON, got {type(found).__name__}")
    return found


def safetensors(path: Path) -> Shapes:
    """Eight bytes say how long the JSON is. https://github.com/huggingface/safetensors#format"""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if 2 <= length <= size - 8 else b""
    if text[:1] != b"{":
        raise ValueError(
            f"{path}: expected .safetensors, .index.json, .gguf or a PyTorch checkpoint, got something else"
        )
    try:
        return {name: tuple(entry["shape"]) for name, entry in json.loads(text).items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the header of .safetensors, got a broken one ({error})") from error


def parts_of(path: Path) -> list[Path]:
    """The files that an index names, which lie beside it."""
    files = sorted(set(json_of(path).get("weight_map", {}).values()))
    if not files:
        raise ValueError(f"{path}: expected an index with a weight_map, got none")
    missing = [name for name in files if not path.with_name(name).is_file()]
    if missing:
        raise ValueError(f"{path}: expected {', '.join(missing)} beside it: an index has names and no shapes")
    return [path.with_name(name) for name in files]


def holds_pickle(path: Path) -> bool:
    """Whether it is an archive of torch.save, and not of NumPy."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def pickled(path: Path) -> Shapes:
    """Of torch.save: names as the state dict in it has them, or with the path to them if there is none."""
    import torch

    def load(device):
        return torch.load(path, map_location=device, weights_only=True)

    try:
        try:
            state = load("meta")
        except NotImplementedError:  # quantised tensors have numbers or nothing
            state = load("cpu")
    except Exception as error:
        raise ValueError(f"{path}: expected tensors alone, got more: {str(error).strip()}") from error

    def flat(state, prefix=""):
        for name, value in state.items() if isinstance(state, dict) else ():
            if isinstance(value, torch.Tensor):
                yield f"{prefix}{name}", tuple(value.shape)
            else:
                yield from flat(value, f"{prefix}{name}.")

    return dict(flat(state_dict_in(state) or state))


def state_dict_in(saved) -> dict | None:
    """What torch.save was given, or what lies in it under "state_dict", "model" or "module"; None without tensors there."""
    while isinstance(saved, dict):
        if any(hasattr(value, "shape") for value in saved.values()):
            return saved
        saved = next((saved[key] for key in saved if key in ("state_dict", "model", "module")), None)
    return None


def gguf(path: Path, config: dict) -> tuple[Shapes, dict]:
    """Names, then shapes with the axis first that changes fastest: they are turned round here.

    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    with path.open("rb") as file:

        def read(form):
            return struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0]

        def text():
            return file.read(read("Q")).decode("utf-8", "replace")

        def value(kind):
            if kind == 8:
                return text()
            if kind == 9:
                inner, length = read("I"), read("Q")
                return [value(inner) for _ in range(length)]
            return read("BbHhIif?__QqdN"[kind])

        file.seek(4)
        if (version := read("I")) < 2:
            raise ValueError(f"{path}: expected GGUF of version 2 or later, got {version}")
        count, keys = read("Q"), read("Q")
        said = {text(): value(read("I")) for _ in range(keys)}
        tensors = {}
        for _ in range(count):
            name, dims = text(), [read("Q") for _ in range(read("I"))]
            tensors[name] = tuple(reversed(dims))
            read("I"), read("Q")
    architecture = said.get("general.architecture", "")
    own = {key.rpartition(".")[2]: entry for key, entry in said.items() if key.startswith(f"{architecture}.attention.")}
    return tensors, config | own | {"model_type": f"gguf/{architecture}"}
