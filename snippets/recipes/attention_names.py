"""Which tensors of a checkpoint make an attention layer, by their names: four matrices, or one for several roles.

    layers(tensors)  # {"layers.0.attn.": {"q": "layers.0.attn.q_proj.weight", "k": ..., "v": ..., "o": ...}, ...}

Names are taken apart at dots, slashes and underscores; words that say nothing of the role are left out. Needs nothing but Python.
"""

import re

Shapes = dict[str, tuple[int, ...]]

FILLERS = {"proj", "projection", "project", "lin", "linear", "to", "w", "layer", "attn", "self", "head"}
ROLES = {
    "q": {"q", "wq", "query", "queries"},
    "k": {"k", "wk", "key", "keys"},
    "v": {"v", "wv", "value", "values"},
    "kv": {"kv", "wkv", "key_value", "keys_values"},
    "qkv": {"qkv", "wqkv", "query_key_value", "queries_keys_values", "pack"},
}
WHOLE = {"c_attn", "att_proj", "in_proj", "input"}  # all three, under names that do not say so
OUT = re.compile(
    r"(o|w_?o|out|output|dense|proj|proj_out|projection|projection_layer|c_proj|fc|final|post|linear|attention_out|attention_output"
    r"|(o|out|output|to_out|lin_out|linear_out|out_lin)(_proj|_projection)?)([./](0|dense|linear|o_proj))?"
)
HALVES = ("vision", "audio", "qformer", "mask_decoder")  # beside the text, with a part of config.json each
HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads", "head_count")


def stem(name: str) -> tuple[str, str]:
    """('layers.0.attn.', 'q_proj') of 'layers.0.attn.q_proj.weight'."""
    bare = re.sub(r"[./]linear$", "", re.sub(r"([._/](weight|kernel|w))?(:0)?$", "", name))
    cut = max(bare.rfind("."), bare.rfind("/")) + 1
    return bare[:cut], bare[cut:]


def role_of(component: str) -> str:
    """q, k, v, kv, qkv, or nothing."""
    lower = component.lower()
    words = "_".join(word for word in lower.split("_") if word not in FILLERS)
    return "qkv" if lower in WHOLE else next((role for role, known in ROLES.items() if words in known), "")


def layers(tensors: Shapes) -> dict[str, dict[str, str]]:
    """{prefix: {role: name}} of whatever could be an attention layer."""
    found: dict[str, dict[str, str]] = {}
    for name, shape in tensors.items():
        prefix, component = stem(name)
        role = role_of(component)
        role = role or ("low rank" if component == "kv_b_proj" else "")
        if role and 2 <= len(shape) <= 3 and not re.search(r"(^|[./])exp_avg", name) and not packed(name, tensors):
            found.setdefault(prefix, {}).setdefault(role, name)
    return {prefix: kept for prefix, names in found.items() if (kept := attention(prefix, names, tensors))}


def packed(name: str, tensors: Shapes) -> bool:
    """Whether several numbers lie in one of this tensor, as MLX and bitsandbytes (4 bits) have it: its shape tells no widths."""
    return f"{name.removesuffix('weight')}scales" in tensors or f"{name}.absmax" in tensors


def attention(prefix: str, names: dict[str, str], tensors: Shapes) -> dict[str, str]:
    """The names that make an attention layer, its output among them if it is found; {} if they make none."""
    if {"q", "k", "v"} <= set(names):
        kept = {role: names[role] for role in "qkv"}
    elif "q" in names and {"kv", "qkv"} & set(names):
        kept = {"q": names["q"], "kv": names.get("kv") or names["qkv"]}
    elif "qkv" in names:
        kept = {"qkv": names["qkv"]}
        component = stem(names["qkv"])[1]
        shape = tensors[names["qkv"]]
        if component == "in_proj" and names["qkv"].endswith(".weight") and f"{prefix}q_bias" not in tensors:
            return {}  # of a state space model, or of a convolution
        if (
            len(shape) != 2
            or max(shape) <= min(shape)
            or (component == "input" and f"{prefix}output.weight" not in tensors)
        ):
            return {}
    elif f"{prefix}kv_b_proj.weight" in tensors:
        return {"low rank": f"{prefix}kv_b_proj.weight"}
    else:
        return {}
    if output := output_of(prefix, kept, tensors):
        kept["o"] = output
    return kept


def output_of(prefix: str, names: dict[str, str], tensors: Shapes) -> str:
    """The matrix behind the heads: in the layer itself, else beside it, under a name that says so."""
    parent = re.sub(r"[^./]+[./]$", "", prefix)
    first = tensors[next(iter(names.values()))]
    for place, wanted in ((prefix, ""), (parent, "out"), (parent, "")):
        for name, shape in tensors.items():
            inner, component = stem(name[len(place) :]) if name.startswith(place) else ("", "")
            fits = len(shape) in (2, 3) and set(shape) & set(first) and name not in names.values()
            if fits and OUT.fullmatch((inner + component).lower()) and wanted in inner + component:
                return name
    return ""


def heads_said(config: dict, prefix: str, shape: tuple[int, ...]) -> int | None:
    """From config.json; of a model of two halves, from the half that the prefix is of, and from no other.

    shape: of the queries; it has the hidden_size of that half.
    """
    half = next((one for one in HALVES if one in prefix.replace("visual", "vision")), "text")
    halves = [config.get(f"{one}_config") for one in (half, "text")]
    own, text = (one if isinstance(one, dict) else {} for one in halves)
    places = [own] if half != "text" and (own or text) else [own, config]
    keys = ("decoder_attention_heads", *HEADS) if "decoder" in prefix else HEADS
    fitting = [at for at in places if at.get("hidden_size") is None or at["hidden_size"] in shape]
    return next((at[key] for at in fitting for key in keys if isinstance(at.get(key), int)), None)


def heads_in(prefix: str, names: dict[str, str], tensors: Shapes) -> int | None:
    """The number of heads, where a shape tells it."""
    for name, axis in (("sinks", 0), ("relative_attention_bias.weight", 1), ("head_scale", 0)):
        if len(shape := tensors.get(prefix + name, ())) > axis:
            return shape[axis]
    if "q" in names and len(shape := tensors[names["q"]]) == 3:
        return shape[0] if names["q"].endswith("W_Q") else shape[1]
    for name in ("q_norm.weight", "q_layernorm.weight"):  # (D,): one for all heads; OLMo-2's is as wide as all of them
        rows, norm = tensors.get(names.get("q"), ()), tensors.get(prefix + name, ())
        if rows and len(norm) == 1 and 0 < norm[0] < rows[0] and rows[0] % norm[0] == 0:
            return rows[0] // norm[0]
    return None
