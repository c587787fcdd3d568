"""timm, open_clip, vit-pytorch, segment-anything, diffusers."""

import torch

from tools.absent import standing_in
from tools.compared import B, Case, D, E, H, S, compared, data, redrawn


def heard(module, call):
    """What a module of the layer gave while it ran."""
    found = []
    handle = module.register_forward_hook(lambda module, inputs, output: found.append(output))
    result = call()
    handle.remove()
    return result, found[-1]


def timm_layer(norms):
    with standing_in("torchvision"):
        from timm.layers.attention import Attention

    options = {"qk_norm": True, "norm_layer": torch.nn.LayerNorm} if norms else {}
    module = redrawn(Attention(E, H, qkv_bias=True, **options))
    module.fused_attn = False
    output, weights = heard(module.attn_drop, lambda: module(data()))
    return module, output, weights


@compared("timm", package="timm")
def timm():
    module, output, weights = timm_layer(norms=False)
    return Case(module.state_dict(), output, weights)


@compared("timm, norms", package="timm")
def timm_norms():
    module, output, weights = timm_layer(norms=True)
    norms = {"q": module.q_norm, "k": module.k_norm}
    return Case(
        module.state_dict(), output, weights, before=lambda v, role, head: norms[role](v), note="its norms applied"
    )


@compared("timm BEiT", package="timm")
def beit():
    with standing_in("torchvision"):
        from timm.models.beit import Attention

    module = redrawn(Attention(E, H, qkv_bias=True))
    module.k_bias = torch.zeros(E).double()
    return Case(module.state_dict(), module(data()), note="without relative positions")


def open_clip_layer(**options):
    with standing_in("torchvision"):
        from open_clip.transformer import Attention

    return redrawn(Attention(E, H, **options))


@compared("open_clip", package="open_clip_torch")
def open_clip():
    module = open_clip_layer()
    return Case(module.state_dict(), module(data()))


@compared("open_clip, scaled heads", package="open_clip_torch")
def open_clip_scaled():
    module = open_clip_layer(scale_heads=True)
    factors = module.head_scale.flatten()
    return Case(
        module.state_dict(), module(data()), after=lambda z, head: z * factors[head], note="its factors applied"
    )


@compared("vit-pytorch", package="vit-pytorch")
def vit_pytorch():
    with standing_in("torchvision"):
        from vit_pytorch.vit import Attention

    module = redrawn(Attention(E, heads=H, dim_head=D))
    output, weights = heard(module.attend, lambda: module(data()))
    return Case(
        module.state_dict(), output, weights, x=module.norm(data()), note="its norm, which is inside, applied to x"
    )


@compared("SAM, image", package="segment-anything")
def sam_image():
    with standing_in("torchvision"):
        from segment_anything.modeling.image_encoder import Attention

    module, x = redrawn(Attention(E, H, use_rel_pos=False)), data(B, 3, 2, E)
    return Case(module.state_dict(), module(x).flatten(1, 2), x=x.flatten(1, 2), note="without relative positions")


@compared("SAM, decoder", package="segment-anything")
def sam_decoder():
    with standing_in("torchvision"):
        from segment_anything.modeling.transformer import Attention

    module, y = redrawn(Attention(E, H, downsample_rate=2)), data(B, S, E, seed=2)
    return Case(module.state_dict(), module(data(), y, y), y=y, note="half as wide inside")


@compared("diffusers", package="diffusers")
def diffusers():
    from diffusers.models.attention_processor import Attention

    module, y = redrawn(Attention(E, cross_attention_dim=10, heads=H, dim_head=5, bias=True)), data(B, S, 10, seed=2)
    return Case(module.state_dict(), module(data(), encoder_hidden_states=y), y=y)


def fused(cross):
    from diffusers.models.attention_processor import Attention, FusedAttnProcessor2_0

    module = redrawn(Attention(E, cross_attention_dim=E if cross else None, heads=H, dim_head=D, bias=True))
    y = data(B, S, E, seed=2) if cross else None
    before = module(data(), encoder_hidden_states=y)
    module.fuse_projections()
    module.set_processor(FusedAttnProcessor2_0())
    output = module(data(), encoder_hidden_states=y)
    assert torch.allclose(before, output)
    return Case(module.state_dict(), output, y=y)


@compared("diffusers, fused", package="diffusers")
def diffusers_fused():
    return fused(cross=False)


@compared("diffusers, fused, cross", package="diffusers")
def diffusers_fused_cross():
    return fused(cross=True)
