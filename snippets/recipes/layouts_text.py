"""fairseq 0.12.2, fair-esm 2.0.0, x-transformers 2.31.10, curated-transformers 2.0.1, litgpt 0.5.13, torchtune 0.6.1,
Megatron-Core 0.16.1, nanoGPT, TransformerLens 2.16.1."""

from functools import partial

from atlas import Layout, Part, apart, blocks, dealt, fused, groups, linear, out

FAIR = apart("q_proj", "k_proj", "v_proj", "out_proj")
X = {f"to_{role}.weight": Part(role, "(n d) e") for role in "qkv"} | {"to_out.weight": Part("o", "e (n d)")}
LENS = {f"W_{role.upper()}": Part(role, "n e d") for role in "qkv"} | {f"b_{role.upper()}": Part(role, "n d") for role in "qkv"}
LENS |= {"W_O": Part("o", "n d e"), "b_O": Part("o", "e")}
BLOCKS, PER_HEAD = {"order": blocks()}, {"order": groups}
HALF, PAIRS = {"rotary": "half"}, {"rotary": "interleaved"}


fair = partial(Layout, mask="hidden", asks="need_head_weights=True")
x = partial(Layout, library="x-transformers", version="2.31.10", mask="seen", asks="return_attn=True")
curated = partial(Layout, library="curated-transformers", version="2.0.1", mask="seen")

LAYOUTS = [
    fair("fairseq", "fairseq", FAIR, blocks(), "0.12.2"),
    fair("ESM-2", "fair-esm", FAIR, blocks(), "2.0.0", rotary="half", misread=PAIRS),
    x("x-transformers", tensors=X, order=blocks()),
    x("x-transformers, grouped", tensors=X, order=dealt, grouped=True, tiled=True, misread=BLOCKS | {"tiled": False}),
    curated("curated-transformers", tensors=apart("query", "key", "value", "output"), order=blocks(), grouped=True),
    curated("curated-transformers, split before", tensors=fused("input", "output"), order=groups, misread=BLOCKS),
    curated("curated-transformers, split after", tensors=fused("input", "output"), order=blocks(), misread=PER_HEAD),
    curated("curated-transformers, by head of keys", tensors=fused("input", "output"), order=groups, grouped=True, misread=BLOCKS),
    Layout("litgpt", "litgpt", fused("qkv", "proj"), blocks(), "0.5.13", grouped=True, rotary="half", misread=PER_HEAD),
    Layout(
        "torchtune", "torchtune", apart("q_proj", "k_proj", "v_proj", "output_proj"), blocks(), "0.6.1",
        grouped=True, rotary="interleaved", mask="seen", misread=HALF,
    ),
    Layout(
        "Megatron-Core", "megatron-core", linear("linear_qkv", "qkv") | out("linear_proj"), groups, "0.16.1",
        grouped=True, mask="hidden", misread=BLOCKS,
    ),
    Layout("nanoGPT", "nanoGPT", fused("c_attn", "c_proj"), blocks(), misread=PER_HEAD),
    Layout("TransformerLens", "transformer-lens", LENS, blocks(), "2.16.1", asks='cache["pattern", layer]'),
]  # fmt: skip
