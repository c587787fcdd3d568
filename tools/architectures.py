"""The models whose own attention weights capture.py is compared with: one entry each, for tools/libraries.py.

An entry says how a small model is built, what it is called with, and how its library is asked for the weights. Models are
made from configurations: nothing is downloaded. Needs the packages of requirements-libraries.txt.
"""

import copy
import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import torch
from torch import Tensor, nn

from tools.absent import stand_in

stand_in("torchvision")  # timm, open_clip and segment-anything import it for what they do to pictures

import diffusers
import timm.models.vision_transformer as timm_vit
import transformers as tf
import x_transformers as xt
from open_clip.model import CLIP as OpenClip
from segment_anything.modeling import ImageEncoderViT, TwoWayTransformer
from segment_anything.modeling.image_encoder import add_decomposed_rel_pos

tf.logging.set_verbosity_error()

Own = Iterable[tuple[str, list[Tensor]]]  # a pattern of modules' names -> its weights, in call order


class Architecture(NamedTuple):
    library: str  # as pip calls it
    name: str  # unlike any other of this library
    model: Callable[[], nn.Module]
    call: Callable[[nn.Module], Any]  # runs it
    own: Callable[[nn.Module], Own]  # runs it another time, asked for its weights
    reference: str  # whose computation these are
    beyond: str = ""  # the names of modules of which the library gives nothing
    # what it gives when it is asked on the kernel that it takes itself
    asked: Callable[[nn.Module], Any] = lambda built: None


# Inputs: sizes are all different. Padding stands right, so that every query sees a key.

B, L, S, V = 2, 7, 9, 50
random = torch.Generator().manual_seed(0)
tokens, target = torch.randint(5, V, (B, S), generator=random), torch.randint(5, V, (B, L), generator=random)
mask = torch.ones(B, S, dtype=torch.long)
mask[1, 6:] = 0
image = torch.randn(B, 3, 32, 32, generator=random)
wide = torch.randn(B, 3, 32, 48, generator=random)
sound = torch.randn(B, 80, 24, generator=random)
latent, words = torch.randn(B, 4, 8, 8, generator=random), torch.randn(B, L, 20, generator=random)
points, image_embedding = torch.randn(B, 5, 40, generator=random), torch.randn(B, 40, 4, 4, generator=random)

TEXT = {"input_ids": tokens, "attention_mask": mask}
PAIR = {**TEXT, "decoder_input_ids": target}
SIZE = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TWO = {
    "vocab_size": V, "d_model": 40, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, **SPECIAL,
}  # fmt: skip
LM = {"vocab_size": V, **SIZE, **SPECIAL}
GROUPED = {**LM, "num_key_value_heads": 2, "head_dim": 10}
PICTURE = {**SIZE, "patch_size": 8}


# Hugging Face: asked for attentions after a turn to the eager kernel


def get(output, field: str):
    for name in field.split("."):
        output = output[name]
    return output


def hugging_face(
    name: str, model: type, config, inputs: dict, fields: dict[str, str], beyond: str = ""
) -> Architecture:
    """fields: field of the output -> a pattern of the names of the modules that it is about."""

    def own(built):
        built.set_attn_implementation("eager")
        output = built(**inputs, output_attentions=True)
        return [(pattern, list(get(output, field))) for field, pattern in fields.items()]

    return Architecture(
        "transformers", name, lambda: model(copy.deepcopy(config)), lambda built: built(**inputs), own, EAGER, beyond,
        lambda built: get(built(**inputs, output_attentions=True), next(iter(fields))),
    )  # fmt: skip


def generating(name: str, model: type, config) -> Architecture:
    """Token by token, with a cache of keys and values."""
    how = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}

    def generate(built, **asked):
        return built.generate(tokens, **how, return_dict_in_generate=True, **asked)

    def own(built):
        built.set_attn_implementation("eager")
        steps = generate(built, output_attentions=True).attentions
        layers = zip(*steps, strict=True)
        return [("*", [weights for layer in layers for weights in layer])]

    return Architecture(
        "transformers", f"{name}.generate", lambda: model(copy.deepcopy(config)), lambda built: generate(built).sequences, own, EAGER, "",
        lambda built: generate(built, output_attentions=True).attentions[0],
    )  # fmt: skip


def on_flex_attention(one: Architecture) -> Architecture:
    """The same model on flex_attention, which transformers compiles: here it is run as Python, for want of a compiler."""

    def model():
        built = one.model()
        built.set_attn_implementation("flex_attention")
        return built

    def uncompiled(run):
        def run_uncompiled(built):
            with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
                return run(built)

        return run_uncompiled

    return one._replace(
        name=f"{one.name} on flex_attention", model=model, call=uncompiled(one.call), asked=uncompiled(one.asked)
    )


EAGER = "transformers: eager, output_attentions=True"
ONE = {"attentions": "*"}
T5 = {"encoder_attentions": "encoder*Self*", "decoder_attentions": "decoder*Self*", "cross_attentions": "*EncDec*"}
BOTH = {
    "encoder_attentions": "encoder*self*",
    "decoder_attentions": "decoder*self*",
    "cross_attentions": "decoder*enc*att*",
}

GPT2 = tf.GPT2Config(vocab_size=V, n_embd=40, n_layer=2, n_head=4, **SPECIAL)
LLAMA = tf.LlamaConfig(**GROUPED)  # two heads of keys and values for four of queries, as all with GROUPED
MISTRAL = tf.MistralConfig(**GROUPED, sliding_window=4)
GEMMA = tf.Gemma2Config(**GROUPED, sliding_window=4, attn_logit_softcapping=3.0, query_pre_attn_scalar=10)
OSS = tf.GptOssConfig(**GROUPED, sliding_window=4, num_local_experts=4, num_experts_per_tok=2)  # with sinks
LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 8, "q_lora_rank": 9, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 7,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 16,
}  # fmt: skip
TRANSFORMERS = [
    hugging_face("BERT", tf.BertModel, tf.BertConfig(**LM), TEXT, ONE),
    hugging_face("RoBERTa", tf.RobertaModel, tf.RobertaConfig(**LM), TEXT, ONE),
    hugging_face(
        "DistilBERT", tf.DistilBertModel,
        tf.DistilBertConfig(vocab_size=V, dim=40, n_layers=2, n_heads=4, hidden_dim=48), TEXT, ONE,
    ),
    hugging_face("ALBERT", tf.AlbertModel, tf.AlbertConfig(**LM, embedding_size=16), TEXT, ONE),
    hugging_face(
        "DeBERTa-v2", tf.DebertaV2Model,
        tf.DebertaV2Config(**LM, relative_attention=True, pos_att_type=["c2p", "p2c"]), TEXT, ONE,
    ),
    hugging_face("GPT-2", tf.GPT2LMHeadModel, GPT2, TEXT, ONE),
    hugging_face("GPT-NeoX", tf.GPTNeoXForCausalLM, tf.GPTNeoXConfig(**LM), TEXT, ONE),
    hugging_face(
        "BLOOM", tf.BloomForCausalLM, tf.BloomConfig(vocab_size=V, hidden_size=40, n_layer=2, n_head=4, **SPECIAL), TEXT, ONE,
    ),
    hugging_face("Llama", tf.LlamaForCausalLM, LLAMA, TEXT, ONE),
    hugging_face("Qwen3", tf.Qwen3ForCausalLM, tf.Qwen3Config(**GROUPED), TEXT, ONE),
    hugging_face("Mistral", tf.MistralForCausalLM, MISTRAL, TEXT, ONE),
    hugging_face("Gemma 2", tf.Gemma2ForCausalLM, GEMMA, TEXT, ONE),
    hugging_face("gpt-oss", tf.GptOssForCausalLM, OSS, TEXT, ONE),
    hugging_face(
        "DeepSeek-V3", tf.DeepseekV3ForCausalLM,
        tf.DeepseekV3Config(**LM, **LATENT, first_k_dense_replace=1), TEXT, ONE,
    ),
    hugging_face("T5", tf.T5Model, tf.T5Config(vocab_size=V, d_model=40, d_kv=6, d_ff=48, num_layers=2, num_heads=4), PAIR, T5),
    hugging_face("BART", tf.BartModel, tf.BartConfig(**TWO, max_position_embeddings=32), PAIR, BOTH),
    hugging_face(
        "Whisper", tf.WhisperModel,
        tf.WhisperConfig(**TWO, max_source_positions=12, max_target_positions=16, decoder_start_token_id=3),
        {"input_features": sound, "decoder_input_ids": target}, BOTH,
    ),
    hugging_face("ViT", tf.ViTModel, tf.ViTConfig(**PICTURE, image_size=(32, 48)), {"pixel_values": wide}, ONE),
    hugging_face(
        "DINOv2", tf.Dinov2WithRegistersModel,
        tf.Dinov2WithRegistersConfig(**PICTURE, image_size=32, num_register_tokens=3), {"pixel_values": image}, ONE,
    ),
    hugging_face(
        "Swin", tf.SwinModel,
        tf.SwinConfig(image_size=32, patch_size=4, embed_dim=20, depths=[2, 2], num_heads=[2, 4], window_size=4),
        {"pixel_values": image}, {"attentions": "*blocks.1*"}, beyond="*blocks.0*",
    ),
    hugging_face(
        "SigLIP", tf.SiglipVisionModel, tf.SiglipVisionConfig(**PICTURE, image_size=32),
        {"pixel_values": image}, {"attentions": "encoder*"}, beyond="head*",
    ),
    hugging_face(
        "CLIP", tf.CLIPModel,
        tf.CLIPConfig(text_config={**LM, "max_position_embeddings": 16}, vision_config={**PICTURE, "image_size": 32}),
        {**TEXT, "pixel_values": image},
        {"vision_model_output.attentions": "vision_model*", "text_model_output.attentions": "text_model*"},
    ),
    generating("GPT-2", tf.GPT2LMHeadModel, GPT2),
    generating("Llama", tf.LlamaForCausalLM, LLAMA),
    generating("Mistral", tf.MistralForCausalLM, MISTRAL),
    generating("Gemma 2", tf.Gemma2ForCausalLM, GEMMA),
    generating("gpt-oss", tf.GptOssForCausalLM, OSS),
]  # fmt: skip


# Others: each has a way of its own to be asked, or none


def heard(function: Callable, found: list) -> Callable:
    """The function, whose results go into a list as well."""

    def hearing(*args, **kwargs):
        found.append(function(*args, **kwargs))
        return found[-1]

    return hearing


def unfused(built: nn.Module) -> Own:
    """timm: its attention written out, and what goes into the dropout of the weights."""
    found = []
    with ExitStack() as stack:
        for module in built.modules():
            if isinstance(module, timm_vit.Attention):
                stack.enter_context(mock.patch.object(module, "fused_attn", False))
                handle = module.attn_drop.register_forward_hook(lambda drop, args, output: found.append(args[0]))
                stack.callback(handle.remove)
        built(wide)
    return [("*", found)]


def timm_model(fused: bool) -> nn.Module:
    built = timm_vit.VisionTransformer(
        img_size=(32, 48), patch_size=8, embed_dim=40, depth=2, num_heads=4, num_classes=5
    )
    for block in built.blocks:
        block.attn.fused_attn = fused
    return built


def multi_head(run: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Own]:
    """open_clip: PyTorch's nn.MultiheadAttention, asked for the weights of every head."""

    def own(built):
        found = []
        with ExitStack() as stack:
            for module in built.modules():
                if isinstance(module, nn.MultiheadAttention):
                    stack.enter_context(mock.patch.object(module, "forward", asking(module.forward, found)))
            run(built)
        return [("*", found)]

    def asking(forward, found):
        def forward_asking(*args, **kwargs):
            output, weights = forward(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
            found.append(weights)
            return output, weights

        return forward_asking

    return own


def after_each(
    kind: str, formula: Callable[..., Tensor], run: Callable[[nn.Module], Any]
) -> Callable[[nn.Module], Own]:
    """A formula of ours, of what each module of a class is called with."""

    def own(built):
        found = []

        def hook(module, args, kwargs, output):
            found.append(formula(module, *args, **kwargs))

        with ExitStack() as stack:
            for module in built.modules():
                if type(module).__name__ == kind:
                    stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            run(built)
        return [("*", found)]

    return own


def sam_in_windows(attention: nn.Module, x: Tensor) -> Tensor:
    """(B, rows, columns, E) -> (B * H, L, L), with the positions of rows and columns in the scores."""
    size = x.shape[1:3]
    qkv = attention.qkv(x).flatten(1, 2).unflatten(-1, (3, attention.num_heads, -1))
    q, k, _ = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2)
    scores = (q * attention.scale) @ k.mT
    return add_decomposed_rel_pos(scores, q, attention.rel_pos_h, attention.rel_pos_w, size, size).softmax(-1)


def sam_two_ways(attention: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Five points and an image look at each other, in H heads of half the width."""
    q, k = (
        project(x).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project, x in ((attention.q_proj, q), (attention.k_proj, k))
    )
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


def diffusion(run: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Own]:
    """diffusers: its first processor, and what Attention.get_attention_scores returns to it."""

    def own(built):
        found, kind = [], diffusers.models.attention_processor.Attention
        scores = kind.get_attention_scores
        for module in built.modules():
            if isinstance(module, kind):
                module.set_processor(diffusers.models.attention_processor.AttnProcessor())
        with mock.patch.object(kind, "get_attention_scores", heard(scores, found)):
            run(built)
        return [("*", found)]

    return own


def x_model(**options) -> nn.Module:
    layers = xt.Decoder(dim=40, depth=2, heads=4, attn_dim_head=10, **options)
    return xt.TransformerWrapper(num_tokens=V, max_seq_len=16, attn_layers=layers)


def x_own(built: nn.Module) -> Own:
    """x-transformers: return_attn=True, with its own softmax."""
    for module in built.modules():
        if isinstance(module, xt.attend.Attend):
            module.flash = False
    return [("*", built(tokens, return_attn=True)[1])]


def see(built: nn.Module) -> Any:
    return built(wide)


def read(built: nn.Module) -> Any:
    return built(tokens)


def match(built: nn.Module) -> Any:
    return built(image, tokens)


def point(built: nn.Module) -> Any:
    return built(image_embedding, image_embedding.flip(-1), points)


def denoise(built: nn.Module) -> Any:
    return built(latent, 3, encoder_hidden_states=words).sample


CLIP_SIZE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 40, "head_width": 10, "patch_size": 8},
    "text_cfg": {"context_length": S, "vocab_size": V, "width": 40, "heads": 4, "layers": 2},
}
UNET = {
    "sample_size": 8, "layers_per_block": 1, "block_out_channels": (20, 40), "cross_attention_dim": 20,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 4, "norm_num_groups": 4,
}  # fmt: skip

X_ASKED = "x-transformers: return_attn=True"
OTHERS = [
    Architecture("timm", "VisionTransformer", lambda: timm_model(True), see, unfused, "timm: fused_attn = False"),
    Architecture("timm", "VisionTransformer, fused_attn=False", lambda: timm_model(False), see, unfused, "timm: fused_attn = False"),
    Architecture(
        "open_clip_torch", "CLIP", lambda: OpenClip(**CLIP_SIZE), match, multi_head(match),
        "PyTorch: nn.MultiheadAttention, need_weights=True",
    ),
    Architecture(
        "segment-anything", "ImageEncoderViT",
        lambda: ImageEncoderViT(
            img_size=32, patch_size=8, embed_dim=40, depth=2, num_heads=4, out_chans=16, use_rel_pos=True,
            window_size=3, global_attn_indexes=(1,),
        ),
        lambda built: built(image), after_each("Attention", sam_in_windows, lambda built: built(image)),
        "a formula of ours, with segment_anything's add_decomposed_rel_pos",
    ),
    Architecture(
        "segment-anything", "TwoWayTransformer",
        lambda: TwoWayTransformer(depth=2, embedding_dim=40, num_heads=4, mlp_dim=48),
        point, after_each("Attention", sam_two_ways, point), "a formula of ours, with segment_anything's projections",
    ),
    Architecture(
        "diffusers", "UNet2DConditionModel", lambda: diffusers.UNet2DConditionModel(**UNET), denoise, diffusion(denoise),
        "diffusers: AttnProcessor, get_attention_scores",
    ),
    Architecture("x-transformers", "Decoder", x_model, read, x_own, X_ASKED, "", lambda m: m(tokens, return_attn=True)[1]),
    Architecture(
        "x-transformers", "Decoder, attn_flash=True", lambda: x_model(attn_flash=True), read, x_own, X_ASKED, "",
        lambda m: m(tokens, return_attn=True)[1],
    ),
    Architecture(
        "x-transformers", "Decoder, attn_kv_heads=2, attn_num_mem_kv=3",
        lambda: x_model(attn_kv_heads=2, attn_num_mem_kv=3, attn_qk_norm=True), read, x_own, X_ASKED, "",
        lambda m: m(tokens, return_attn=True)[1],
    ),
]  # fmt: skip

# Grouped queries, a sliding window, capped scores; sinks need a GPU there
FLEX = [on_flex_attention(one) for one in TRANSFORMERS if one.name in ("Llama", "Mistral", "Gemma 2")]

ARCHITECTURES = [*TRANSFORMERS, *FLEX, *OTHERS]
