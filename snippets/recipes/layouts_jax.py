"""Flax 0.12.8, Equinox 0.13.8, Haiku 0.0.17."""

from atlas import Layout, Part, apart, blocks, kernel, out_kernel

NAMES = dict(zip("qkv", ("query", "key", "value"), strict=True))
LINEN = apart("query", "key", "value", "out", kernel, out_kernel)
NNX = {name.replace("/", "."): part for name, part in LINEN.items()}
HAIKU = {
    **{f"{name}/w": Part(role, "e (n d)") for role, name in NAMES.items()},
    **{f"{name}/b": Part(role, "(n d)") for role, name in NAMES.items()},
    "linear/w": Part("o", "(n d) e"),
    "linear/b": Part("o", "e"),
}
AS_IN_TORCH = {"e (n d)": "(n d) e", "(n d) e": "e (n d)"}
MISREAD = {name: Part(part.roles, AS_IN_TORCH.get(part.axes, part.axes)) for name, part in HAIKU.items()}
EQUINOX = apart("query_proj", "key_proj", "value_proj", "output_proj")

LAYOUTS = [
    Layout("Flax linen", "flax", LINEN, blocks(), "0.12.8", mask="seen", asks="sow_weights=True"),
    Layout("Flax nnx", "flax", NNX, blocks(), "0.12.8", grouped=True, mask="seen", asks="sow_weights=True"),
    Layout("Equinox", "equinox", EQUINOX, blocks(), "0.13.8", mask="seen"),
    Layout("Haiku", "dm-haiku", HAIKU, blocks(), "0.0.17", mask="seen", misread={"tensors": MISREAD}),
]
