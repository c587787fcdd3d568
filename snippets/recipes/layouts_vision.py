"""timm 1.0.31, open_clip 3.3.0, vit-pytorch 1.26.11, segment-anything 1.0, diffusers 0.42.1."""

from functools import partial

from atlas import Layout, Part, apart, blocks, fused, groups, linear, out

OPEN_CLIP = {"in_proj_weight": Part("qkv", "(n d) e"), "in_proj_bias": Part("qkv", "(n d)")} | out("out_proj")
BEIT = {"qkv.weight": Part("qkv", "(n d) e"), "q_bias": Part("q", "(n d)"), "v_bias": Part("v", "(n d)")} | out("proj")
VIT_PYTORCH = {"to_qkv.weight": Part("qkv", "(n d) e")} | out("to_out.0")
SPLIT = linear("to_q", "q") | linear("to_kv", "kv") | out("to_out.0")
PER_HEAD = {"order": groups}

timm = partial(Layout, library="timm", order=blocks(), version="1.0.31", mask="seen", misread=PER_HEAD)
open_clip = partial(Layout, library="open_clip_torch", tensors=OPEN_CLIP, order=blocks(), version="3.3.0", misread=PER_HEAD)
sam = partial(Layout, library="segment-anything", order=blocks(), version="1.0")
diffusers = partial(Layout, library="diffusers", order=blocks(), version="0.42.1")

LAYOUTS = [
    timm("timm", tensors=fused("qkv", "proj")),
    timm("timm, norms", signs=("q_norm.weight",), tensors=fused("qkv", "proj"), beside=("norms",)),
    timm("timm BEiT", signs=("q_bias",), tensors=BEIT, beside=("positions",)),
    open_clip("open_clip"),
    open_clip("open_clip, scaled heads", signs=("head_scale",), beside=("scales",)),
    Layout("vit-pytorch", "vit-pytorch", VIT_PYTORCH, blocks(), "1.26.11", beside=("norms",), misread=PER_HEAD),
    sam("SAM, image", signs=("rel_pos_h",), tensors=fused("qkv", "proj"), beside=("positions",), misread=PER_HEAD),
    sam("SAM, decoder", tensors=apart("q_proj", "k_proj", "v_proj", "out_proj")),
    diffusers("diffusers", tensors=apart("to_q", "to_k", "to_v", "to_out.0")),
    diffusers("diffusers, fused", tensors=linear("to_qkv", "qkv") | out("to_out.0"), misread=PER_HEAD),
    diffusers("diffusers, fused, cross", tensors=SPLIT),
]
