"""Ask detective.py about every model type of the installed transformers, and write snippets/model_types.json: `make libraries`.

Each model is built on the meta device, so without memory and without numbers, and the detective gets names and shapes alone,
no config.json. Named: a layer is found in a model that has a class called attention. Of each packed matrix with one reading
the library's own source has to cut it in that order; where the source says so in words that are not known here, it is listed.
"""

import datetime
import inspect
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from detective import find
from torch import nn

from builder.scripts import recorded

ROOT = Path(__file__).parents[1]
DATA = ROOT / "snippets" / "model_types.json"
MADE_OF = [
    *(f"snippets/recipes/{name}.py" for name in ("detective", "attention_layer", "attention_names", "atlas")),
    *sorted(f"snippets/recipes/{path.name}" for path in (ROOT / "snippets" / "recipes").glob("layouts_*.py")),
    "tools/model_types.py",
    "requirements-libraries.txt",
]

# How a source says in which order it cuts a packed matrix
CUTS = {
    "shards 4 qvk": r"query, value, key = torch\.split|query, value, key = qkv\.split",
    "groups": r"num(_attention)?_heads,\s*3\b|num_heads // self\.num_kv_heads \+ 2|num_attention_heads \* 3, dim=0",
    "blocks qkv": r"\b3,\s*(-1|self\.|heads|num|embed|bsz)|chunk\(3|unbind\(dim=-3\)|split\(\(?\s*\(?self\.(split_size|embed_dim)"
    r"|query_pos|\.split\(\s*\[self\.q_dim|split\(self\.\w+, dim=2\)",
}
# Classes that cut in several ways, by their configuration: which one is compared with the library by tools.atlas
COMPARED = {"DisentangledSelfAttention": "groups", "GPTBigCodeAttention": "blocks qkv"}


def built() -> Iterator[tuple[str, nn.Module | None]]:
    """(type, model without numbers), or None where transformers itself builds none from its defaults."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    for kind in CONFIG_MAPPING:
        try:
            config = CONFIG_MAPPING[kind]()
            one = MODEL_MAPPING[type(config)]
            with torch.device("meta"):
                yield kind, (one[0] if isinstance(one, tuple) else one)(config)
        except Exception:
            yield kind, None


def has_attention(model: nn.Module) -> bool:
    return any(
        re.search("attention|attn", type(module).__name__, re.IGNORECASE)
        and any(parameter.dim() > 1 for parameter in module.parameters())
        for module in model.modules()
    )


def cut_in(module: nn.Module) -> str:
    """The order in which a class cuts its packed matrix, by its source; "" if that says it in no known way or in two."""
    if isinstance(module, nn.MultiheadAttention):
        return "blocks qkv"
    source = inspect.getsource(type(module))
    orders = [order for order, words in CUTS.items() if re.search(words, source)]
    return orders[0] if len(orders) == 1 else COMPARED.get(type(module).__name__, "")


def main() -> None:
    warnings.filterwarnings("ignore")
    import transformers

    transformers.logging.set_verbosity_error()
    types, without, named, missed, extra = 0, 0, 0, [], []
    packed: dict[str, tuple[str, str]] = {}
    for kind, model in built():
        types += 1
        if model is None:
            without += 1
            continue
        layers = find({name: parameter.shape for name, parameter in model.named_parameters()})
        if has_attention(model):
            named += bool(layers)
            missed += [] if layers else [kind]
        elif layers:
            extra.append(kind)
        for layer in layers:
            if "qkv" in layer.names and layer.sure:
                module = model.get_submodule(layer.prefix.rstrip("."))
                packed[type(module).__name__] = (layer.readings[0].layout.order.__name__, cut_in(module))
    wrong = {name: pair for name, pair in packed.items() if pair[1] and pair[0] != pair[1]}
    unsaid = sorted(name for name, pair in packed.items() if not pair[1])
    print(f"{types} types, {types - without} built; attention named in {named}, missed: {', '.join(missed)}")
    print(
        f"{len(packed)} classes with a packed matrix and one reading; cut otherwise: {wrong}; source unread: {unsaid}"
    )
    if wrong or unsaid:
        sys.exit(1)
    record = {
        "made": recorded.made("make libraries", MADE_OF),
        "day": datetime.date.today().isoformat(),
        "transformers": transformers.__version__,
        "types": types, "built": types - without, "named": named, "missed": missed, "named_without_attention": extra,
        "packed": {name: order for name, (order, _) in sorted(packed.items())},
    }  # fmt: skip
    DATA.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {DATA.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
