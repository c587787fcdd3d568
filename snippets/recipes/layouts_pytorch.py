"""torch.nn. https://github.com/pytorch/pytorch/blob/v2.13.0/torch/nn/modules/activation.py"""

from atlas import Layout, Part, apart, blocks, groups, out

WEIGHTS = "need_weights=True, average_attn_weights=False"
PACKED = {"in_proj_weight": Part("qkv", "(n d) e"), "in_proj_bias": Part("qkv", "(n d)")} | out("out_proj")
APART = {
    "q_proj_weight": Part("q", "(n d) e"), "k_proj_weight": Part("k", "(n d) e"), "v_proj_weight": Part("v", "(n d) e"),
    "in_proj_bias": Part("qkv", "(n d)"),
} | out("out_proj")  # fmt: skip

LAYOUTS = [
    Layout("torch", "torch", PACKED, blocks(), "2.13.0", misread={"order": groups}, mask="hidden", asks=WEIGHTS),
    Layout("torch, kdim and vdim", "torch", APART, blocks(), "2.13.0", mask="hidden", asks=WEIGHTS),
    Layout(
        "torch.ao quantizable", "torch", apart("linear_Q", "linear_K", "linear_V", "out_proj"), blocks(), "2.13.0",
        mask="hidden", asks=WEIGHTS,
    ),
]  # fmt: skip
