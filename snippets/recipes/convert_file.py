"""A checkpoint in, a checkpoint with another layout out: what `python convert.py model.safetensors --to torch --heads 12` does.

Files are .safetensors (through the package of that name), an index with its parts beside it, or PyTorch's own, read with
weights_only=True. Without --from the layout is the detective's, if names and shapes leave one. Needs convert.py, detective.py,
headers.py and what they need beside it.
"""

import argparse
from pathlib import Path

import torch
from atlas import layouts
from convert import State, convert, known, layers_of
from detective import find
from headers import config_beside, parts_of, state_dict_in

ALSO = {"torch.nn.MultiheadAttention": "torch"}


def read(path) -> tuple[State, dict]:
    """(state dict, config.json beside it). Raises ValueError for a file that holds more than tensors."""
    path = Path(path)
    config = config_beside(path)
    if path.name.endswith(".index.json"):
        return {name: tensor for part in parts_of(path) for name, tensor in read(part)[0].items()}, config
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path), config
        except SafetensorError as error:
            raise ValueError(f"{path}: expected .safetensors, got something else: {error}") from error
    with path.open("rb") as file:
        if file.read(4) == b"GGUF":
            raise ValueError(f"{path}: expected .safetensors or PyTorch's format, got GGUF, whose numbers are not read here")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path}: expected tensors alone, got more: {str(error).strip()}") from error
    state = state_dict_in(saved)
    if state is None:
        there = ", ".join(map(str, saved)) or "nothing" if isinstance(saved, dict) else type(saved).__name__
        raise ValueError(f"{path}: expected a state dict, got {there}")
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}, config


def write(state: State, path) -> None:
    """By the path's suffix: .safetensors, or PyTorch's format."""
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import save_file

        state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}  # tied ones apart
        save_file(state, path)
    else:
        torch.save(state, path)


def source_of(state: State, config: dict, num_heads: int | None, prefix="") -> tuple[str, int | None, int | None]:
    """The one layout that the layers have, their heads, and those of the keys. Raises ValueError if there are none or several.

    prefix: only layers whose names begin so.
    """
    found = find({name: tuple(tensor.shape) for name, tensor in state.items()}, config, num_heads)
    found = [layer for layer in found if any(name.startswith(prefix) for names in layer.alike for name in names.values())]
    if not found:
        there = [name for name in state if name.startswith(prefix)]
        raise ValueError(f"file: expected an attention layer, got {', '.join(there[:8]) or f'no name with {prefix}'}")
    readings = {reading.layouts for layer in found for reading in layer.readings}
    names = [name for reading in sorted(readings) for name in reading]
    if len(readings) != 1 or not names:
        way = "" if names else ": detective.py with --numbers may write you one, for convert() in Python"
        raise ValueError(f"--from: expected the layout, names and shapes leave {', '.join(names) or 'no known one'}{way}")
    if len({layouts()[name].rotary for name in names}) > 1:
        raise ValueError(f"--from: expected the layout, these differ in what they rotate: {', '.join(names)}")
    heads = {layer.num_heads for layer in found}
    if len(heads) > 1:
        each = ", ".join(f"{layer.prefix} {layer.num_heads or 'unknown'}" for layer in found[:6])
        raise ValueError(f"--prefix: expected layers with one number of heads, got {each}")
    H = heads.pop()
    keys = {layer.heads_of_keys(layer.readings[0], H)[0] for layer in found} if H else {None}
    return names[0], H, keys.pop() if len(keys) == 1 else None


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(prog="convert.py", description="Attention weights of a file in another layout.")
    parser.add_argument("file", help=".safetensors, .index.json, .pt, .pth or .bin; config.json beside it is read too")
    parser.add_argument("--to", required=True, help="a layout of atlas.layouts(), torch for nn.MultiheadAttention")
    parser.add_argument("--from", dest="source", help="the layout of the file, if names and shapes do not tell")
    parser.add_argument("--heads", type=int, help="the number of heads of the queries")
    parser.add_argument("--key-heads", type=int, help="of the keys and values, if they have fewer")
    parser.add_argument("--prefix", default="", help="convert only layers whose names begin so")
    parser.add_argument("-o", "--output", required=True, help="the file to be written")
    asked = parser.parse_args(arguments)
    for name, number in (("--heads", asked.heads), ("--key-heads", asked.key_heads)):
        if number is not None and number < 1:
            parser.error(f"{name}: expected 1 or more, got {number}")
    try:
        state, config = read(asked.file)
        found = (asked.source, None, None) if asked.source else source_of(state, config, asked.heads, asked.prefix)
        source, heads, keys = found
        heads = asked.heads or heads or (asked.source and config.get("num_attention_heads"))
        if not heads:
            raise ValueError("--heads: expected the number of heads, which is not in the file")
        target = ALSO.get(asked.to, asked.to)
        keys = asked.key_heads or keys or config.get("num_key_value_heads")
        made = convert(state, ALSO.get(source, source), target, heads, keys, asked.prefix)
        layers = len(layers_of(state, known(ALSO.get(source, source)), asked.prefix))
        if not Path(asked.output).absolute().parent.is_dir():
            raise ValueError(f"-o: expected a file in a folder that is there, got {asked.output}")
        write(made, asked.output)
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{asked.file}: {source}, {len(state)} tensors; {asked.output}: {target}, {len(made)} tensors, {layers} layer(s) converted")
