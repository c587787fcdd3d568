"""transformers: outputs on SDPA, which stays in float64, weights on the eager kernel."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import nn

from tools.compared import B, Case, D, E, H, L, S, causal, compared, data, redrawn

PLACE = "transformers.models"
ROUNDING = 1e-6  # softmax, rotary embedding or norm in float32, whatever the model is in
WIDE = 20  # embed_dim, where H * D is another


def classes(model: str, *names: str):
    """Classes of modeling_MODEL and configuration_MODEL."""
    module = __import__(f"{PLACE}.{model}.modeling_{model}", fromlist=names)
    configuration = __import__(f"{PLACE}.{model}.configuration_{model}", fromlist=names)
    return [getattr(module, name, None) or getattr(configuration, name) for name in names]


def angles(width: int, kind="half"):
    """cos and sin (1, L, width) as transformers makes them."""
    one = torch.outer(torch.arange(L).double(), 10000.0 ** (-torch.arange(0, width, 2) / width))
    both = torch.cat([one, one], -1) if kind == "half" else one.repeat_interleave(2, -1)
    return both.cos()[None], both.sin()[None]


def sines(width: int):
    """sin and cos (1, L, width / 2), as CodeGen and GPT-J want them."""
    one = torch.outer(torch.arange(L).double(), 10000.0 ** (-torch.arange(0, width, 2) / width))
    return one.sin()[None], one.cos()[None]


def both(module, config, *inputs, **options):
    """Output on SDPA, weights on eager."""
    config._attn_implementation = "sdpa"
    output = module(*inputs, **options)[0]
    config._attn_implementation = "eager"
    return output, module(*inputs, **options)[1]


def plain(name, model, attention, config, options, *, bound=1e-12, more=None, **inputs):
    """A layer that takes x, and whatever else `inputs` says."""

    @compared(name, package="transformers")
    def run():
        layer, configuration = classes(model, attention, config)
        settings = configuration(**options)
        module = redrawn(layer(settings, **(more or {})))
        return Case(module.state_dict(), *both(module, settings, data(), **inputs), bound=bound)


NO_DROPOUT = {"attention_probs_dropout_prob": 0, "hidden_dropout_prob": 0}
plain("ViT", "vit", "ViTAttention", "ViTConfig", {"hidden_size": E, "num_attention_heads": H, **NO_DROPOUT})
plain("CLIP", "clip", "CLIPAttention", "CLIPTextConfig", {"hidden_size": E, "num_attention_heads": H})


@compared("BERT", package="transformers")
def bert():
    layer, configuration = classes("bert", "BertAttention", "BertConfig")
    settings = configuration(hidden_size=E, num_attention_heads=H, **NO_DROPOUT)
    module = redrawn(layer(settings))
    z, weights = both(module.self, settings, data())
    note = "output.dense applied to what self gives: residual and norm come behind it"
    return Case(module.state_dict(), module.output.dense(z), weights, note=note)


@compared("ALBERT", package="transformers")
def albert():
    layer, configuration = classes("albert", "AlbertAttention", "AlbertConfig")
    settings = configuration(hidden_size=E, num_attention_heads=H, **NO_DROPOUT)
    module = redrawn(layer(settings))
    module.LayerNorm = nn.Identity()
    output, weights = both(module, settings, data())
    return Case(module.state_dict(), output - data(), weights, note="the residual taken off, its norm left out")


@compared("DistilBERT", package="transformers")
def distilbert():
    layer, configuration = classes("distilbert", "DistilBertSelfAttention", "DistilBertConfig")
    settings = configuration(dim=E, n_heads=H, attention_dropout=0, dropout=0)
    module = redrawn(layer(settings))
    return Case(module.state_dict(), *both(module, settings, data()))


def with_keys(name, model, attention, config):
    """BART's kind, over keys from elsewhere."""

    @compared(name, package="transformers")
    def run():
        layer, configuration = classes(model, attention, config)
        settings = configuration()
        module, y = redrawn(layer(E, H, config=settings)), data(B, S, E, seed=2)
        return Case(module.state_dict(), *both(module, settings, data(), key_value_states=y), y=y)


with_keys("BART", "bart", "BartAttention", "BartConfig")
with_keys("Whisper", "whisper", "WhisperAttention", "WhisperConfig")


@compared("OPT", package="transformers")
def opt():
    layer, configuration = classes("opt", "OPTAttention", "OPTConfig")
    settings = configuration(hidden_size=E, num_attention_heads=H, attention_dropout=0)
    module = redrawn(layer(settings, layer_idx=0))
    return Case(
        module.state_dict(), *both(module, settings, data(), attention_mask=causal()), add=causal(), bound=ROUNDING
    )


@compared("T5", package="transformers")
def t5():
    layer, configuration = classes("t5", "T5Attention", "T5Config")
    settings = configuration(d_model=E, d_kv=5, num_heads=H, dropout_rate=0)
    module = redrawn(layer(settings, has_relative_attention_bias=True, layer_idx=0))
    settings._attn_implementation = "eager"
    output, *rest = module(data(), output_attentions=True)
    weights = next(
        one for one in rest if isinstance(one, torch.Tensor) and one.shape == (B, H, L, L) and (one >= 0).all()
    )
    return Case(
        module.state_dict(),
        output,
        weights,
        add=module.compute_bias(L, L),
        bound=ROUNDING,
        note="its relative positions added",
    )


@compared("GPT-Neo", package="transformers")
def gpt_neo():
    layer, configuration = classes("gpt_neo", "GPTNeoSelfAttention", "GPTNeoConfig")
    settings = configuration(
        hidden_size=E, num_heads=H, num_layers=1, attention_types=[[["global"], 1]],
        attention_dropout=0, resid_dropout=0, max_position_embeddings=16,
    )  # fmt: skip
    module = redrawn(layer(settings, "global", 0))
    output, weights = module(data())[:2]
    return Case(module.state_dict(), output, weights, add=causal(), bound=ROUNDING)


@compared("GPT-J", package="transformers")
def gpt_j():
    layer, configuration = classes("gptj", "GPTJAttention", "GPTJConfig")
    settings = configuration(n_embd=E, n_head=H, rotary_dim=4, attn_pdrop=0, resid_pdrop=0)
    settings._attn_implementation = "eager"
    module = redrawn(layer(settings, layer_idx=0))
    try:
        output, weights = module(data(), attention_mask=causal(), position_embeddings=sines(4), output_attentions=True)[
            :2
        ]
    except TypeError:
        output, weights = module(
            data(), attention_mask=causal(), position_ids=torch.arange(L)[None], output_attentions=True
        )[:2]
    return Case(
        module.state_dict(), output, weights, add=causal(), turns=4, bound=ROUNDING, note="4 of a head's numbers turn"
    )


def rms(vectors, weight, eps):
    return vectors * (vectors.pow(2).mean(-1, keepdim=True) + eps).rsqrt() * weight


def llama_like(name, model, attention, config, options, *, pairs="half", bound=1e-12, eager=False, case=None):
    """LLaMA's kind, 2 heads of keys; H * D is not embed_dim where the options say head_dim."""

    @compared(name, package="transformers")
    def run():
        layer, configuration = classes(model, attention, config)
        width = WIDE if "head_dim" in options else E
        settings = configuration(hidden_size=width, num_attention_heads=H, num_key_value_heads=2, **options)
        module = redrawn(layer(settings, layer_idx=0))
        x, positions = data(B, L, width), angles(D, pairs)
        if eager:
            settings._attn_implementation = "eager"
            output, weights = module(x, position_embeddings=positions, attention_mask=causal())[:2]
        else:
            output, weights = both(module, settings, x, position_embeddings=positions, attention_mask=causal())
        more = case(module, settings, x) if case else {}
        return Case(module.state_dict(), output, weights, x=x, keys=2, add=causal(), bound=bound, **more)


def norm_of_a_head(module, settings, x):
    norms = {"q": module.q_norm.weight, "k": module.k_norm.weight}
    return {
        "before": lambda vectors, role, head: rms(vectors, norms[role], settings.rms_norm_eps),
        "note": "its norms applied",
    }


def norm_of_all_heads(module, settings, x):
    """OLMo-2: the mean square is over all heads together."""
    root, norms = {}, {}
    for role, projection, norm in (("q", module.q_proj, module.q_norm), ("k", module.k_proj, module.k_norm)):
        root[role] = (projection(x).pow(2).mean(-1, keepdim=True) + settings.rms_norm_eps).rsqrt()
        norms[role] = norm.weight.unflatten(0, (-1, D))
    return {"before": lambda vectors, role, head: vectors * root[role] * norms[role][head], "note": "its norms applied"}


llama_like("LLaMA", "llama", "LlamaAttention", "LlamaConfig", {"head_dim": D, "attention_bias": True})
llama_like("Qwen2", "qwen2", "Qwen2Attention", "Qwen2Config", {})
llama_like("Qwen3", "qwen3", "Qwen3Attention", "Qwen3Config", {"head_dim": D}, bound=ROUNDING, case=norm_of_a_head)
llama_like("OLMo-2", "olmo2", "Olmo2Attention", "Olmo2Config", {}, bound=ROUNDING, case=norm_of_all_heads)
llama_like(
    "Cohere", "cohere", "CohereAttention", "CohereConfig", {"use_qk_norm": False}, pairs="interleaved", bound=ROUNDING
)
llama_like(
    "Gemma 2", "gemma2", "Gemma2Attention", "Gemma2Config",
    {
        "head_dim": D, "query_pre_attn_scalar": 9, "num_hidden_layers": 1, "layer_types": ["full_attention"],
        "attn_logit_softcapping": 3.0,
    },
    bound=ROUNDING, eager=True,
    case=lambda module, settings, x: {"scale": 1 / 3, "cap": 3.0, "note": "its scale and cap applied"},
)  # fmt: skip
llama_like("Phi-3", "phi3", "Phi3Attention", "Phi3Config", {"pad_token_id": 0})


@compared("gpt-oss", package="transformers")
def gpt_oss():
    layer, configuration = classes("gpt_oss", "GptOssAttention", "GptOssConfig")
    settings = configuration(
        hidden_size=WIDE, num_attention_heads=H, num_key_value_heads=2, head_dim=D, num_hidden_layers=1,
        layer_types=["full_attention"],
    )  # fmt: skip
    settings._attn_implementation = "eager"
    module, x = redrawn(layer(settings, layer_idx=0)), data(B, L, WIDE)
    half = tuple(one[..., : D // 2] for one in angles(D))
    output, weights = module(x, position_embeddings=half, attention_mask=causal())[:2]
    return Case(
        module.state_dict(),
        output,
        weights,
        x=x,
        keys=2,
        add=causal(),
        sinks=module.sinks,
        bound=ROUNDING,
        note="its sinks applied",
    )


@compared("LLaMA, Meta's file", package="transformers")
def meta_llama():
    """The file of the same layer: rows of a head in pairs; transformers' own converter sorts them the other way."""
    layer, configuration = classes("llama", "LlamaAttention", "LlamaConfig")
    settings = configuration(hidden_size=WIDE, num_attention_heads=H, num_key_value_heads=2, head_dim=D)
    module, x = redrawn(layer(settings, layer_idx=0)), data(B, L, WIDE)
    output, weights = both(module, settings, x, position_embeddings=angles(D), attention_mask=causal())
    state = {f"w{role}.weight": tensor for role, tensor in zip("qkvo", module.state_dict().values(), strict=True)}
    for role in "qk":
        rows = state[f"w{role}.weight"]
        state[f"w{role}.weight"] = rows.unflatten(0, (-1, 2, D // 2)).transpose(1, 2).flatten(0, 2)
    note = "the rows of queries and keys sorted as in Meta's file"
    return Case(state, output, weights, x=x, keys=2, add=causal(), note=note)


# One matrix for all three


@compared("GPT-2", package="transformers")
def gpt_2():
    layer, configuration = classes("gpt2", "GPT2Attention", "GPT2Config")
    settings = configuration(n_embd=E, n_head=H, attn_pdrop=0, resid_pdrop=0)
    module = redrawn(layer(settings, layer_idx=0))
    return Case(module.state_dict(), *both(module, settings, data(), attention_mask=causal()), add=causal())


@compared("GPT-2 cross-attention", package="transformers")
def gpt_2_cross():
    layer, configuration = classes("gpt2", "GPT2Attention", "GPT2Config")
    settings = configuration(n_embd=E, n_head=H, attn_pdrop=0, resid_pdrop=0)
    module, y = redrawn(layer(settings, is_cross_attention=True, layer_idx=0)), data(B, S, E, seed=2)
    return Case(module.state_dict(), *both(module, settings, data(), encoder_hidden_states=y), y=y)


@compared("GPT-NeoX", package="transformers")
def gpt_neox():
    layer, configuration = classes("gpt_neox", "GPTNeoXAttention", "GPTNeoXConfig")
    settings = configuration(hidden_size=E, num_attention_heads=H, attention_dropout=0)
    module = redrawn(layer(settings, layer_idx=0))
    return Case(
        module.state_dict(),
        *both(module, settings, data(), attention_mask=causal(), position_embeddings=angles(D)),
        add=causal(),
    )


@compared("BLOOM", package="transformers")
def bloom():
    layer, configuration = classes("bloom", "BloomAttention", "BloomConfig")
    module = redrawn(layer(configuration(hidden_size=E, n_head=H, attention_dropout=0, hidden_dropout=0), layer_idx=0))
    slopes = data(B * H, 1, L, seed=9)
    output, *_, weights = module(data(), torch.zeros(B, L, E).double(), slopes, causal(), output_attentions=True)
    note = "numbers in place of its linear positions"
    return Case(module.state_dict(), output, weights, add=causal() + slopes.view(B, H, 1, L), bound=ROUNDING, note=note)


def falcon(name, keys=None, **options):
    @compared(name, package="transformers")
    def run():
        layer, configuration = classes("falcon", "FalconAttention", "FalconConfig")
        settings = configuration(hidden_size=E, num_attention_heads=H, attention_dropout=0, hidden_dropout=0, **options)
        settings._attn_implementation = "eager"
        module = redrawn(layer(settings, layer_idx=0))
        slopes = data(B * H, 1, L, seed=9) if settings.alibi else None
        output, weights = module(data(), slopes, causal(), output_attentions=True, position_embeddings=angles(D))[:2]
        add = causal() if slopes is None else causal() + slopes.view(B, H, 1, L) * D**-0.5
        note = "" if slopes is None else "numbers in place of its linear positions, which it scales too"
        return Case(
            module.state_dict(),
            output,
            weights,
            keys=keys,
            add=add,
            note=note,
            bound=ROUNDING if settings.alibi else 1e-12,
        )


falcon("Falcon-40B", keys=2, new_decoder_architecture=True, num_kv_heads=2, bias=False)
falcon("Falcon-7B", keys=1, multi_query=True, new_decoder_architecture=False, bias=False)
falcon("Falcon-RW", multi_query=False, new_decoder_architecture=False, bias=True, alibi=True)


@compared("Persimmon", package="transformers")
def persimmon():
    layer, configuration = classes("persimmon", "PersimmonAttention", "PersimmonConfig")
    settings = configuration(hidden_size=E, num_attention_heads=H, qk_layernorm=True)
    module = redrawn(layer(settings, layer_idx=0))
    cut = module.rotary_ndims = module.rotary_ndims // 2 * 2
    output, weights = both(module, settings, data(), attention_mask=causal(), position_embeddings=angles(cut))
    norms = {"q": module.q_layernorm, "k": module.k_layernorm}
    return Case(
        module.state_dict(), output, weights, add=causal(), turns=cut, bound=ROUNDING, note="its norms applied",
        before=lambda vectors, role, head: norms[role](vectors),
    )  # fmt: skip


@compared("MPT", package="transformers")
def mpt():
    layer, configuration = classes("mpt", "MptAttention", "MptConfig")
    module = redrawn(layer(configuration(d_model=E, n_heads=H), layer_idx=0))
    positions = data(H, 1, L, seed=9)
    hidden = torch.ones(L, L, dtype=torch.bool).triu(1).expand(B, 1, L, L)
    output, weights = module(data(), positions, attention_mask=hidden)[:2]
    note = "numbers in place of its linear positions"
    return Case(module.state_dict(), output, weights, add=causal() + positions[None], bound=ROUNDING, note=note)


@compared("ModernBERT", package="transformers")
def modernbert():
    layer, configuration = classes("modernbert", "ModernBertAttention", "ModernBertConfig")
    settings = configuration(hidden_size=E, num_attention_heads=H, num_hidden_layers=1)
    module = redrawn(layer(settings, layer_idx=0))
    return Case(module.state_dict(), *both(module, settings, data(), position_embeddings=angles(D)), bound=ROUNDING)


@compared("DBRX", package="transformers")
def dbrx():
    layer, configuration = classes("dbrx", "DbrxAttention", "DbrxConfig")
    settings = configuration(d_model=E, n_heads=H, attn_config={"kv_n_heads": 2, "clip_qkv": 1e9})
    settings.attn_config.rope_theta = 1e4
    module = redrawn(layer(settings, layer_idx=0))
    output, weights = both(module, settings, data(), attention_mask=causal(), position_embeddings=angles(D))
    return Case(module.state_dict(), output, weights, keys=2, add=causal(), note="its clip of q, k and v out of reach")


@compared("CodeGen", package="transformers")
def codegen():
    layer, configuration = classes("codegen", "CodeGenAttention", "CodeGenConfig")
    settings = configuration(n_embd=2 * E, n_head=2 * H, rotary_dim=4, attn_pdrop=0, resid_pdrop=0)
    module, x = redrawn(layer(settings, layer_idx=0)), data(B, L, 2 * E)
    output, weights = both(module, settings, x, attention_mask=causal(), position_embeddings=sines(4))
    note = "4 of a head's numbers turn"
    return Case(
        module.state_dict(), output, weights, x=x, heads=2 * H, add=causal(), turns=4, bound=ROUNDING, note=note
    )


def bigcode(name, keys, multi_query):
    @compared(name, package="transformers")
    def run():
        layer, configuration = classes("gpt_bigcode", "GPTBigCodeAttention", "GPTBigCodeConfig")
        settings = configuration(n_embd=E, n_head=H, multi_query=multi_query, attn_pdrop=0, resid_pdrop=0)
        settings._attn_implementation = "eager"
        module = redrawn(layer(settings, layer_idx=0))
        output, weights = module(data(), attention_mask=causal())[:2]
        return Case(module.state_dict(), output, weights, keys=keys, add=causal(), bound=ROUNDING)


bigcode("GPT-BigCode", None, False)
bigcode("GPT-BigCode, one head of keys", 1, True)


@compared("DeBERTa", package="transformers")
def deberta():
    layer, configuration = classes("deberta", "DebertaAttention", "DebertaConfig")
    settings = configuration(hidden_size=E, num_attention_heads=H, **NO_DROPOUT)
    module = redrawn(layer(settings))
    z, weights = module.self(data(), torch.ones(B, 1, L, L), output_attentions=True)
    note = "without relative positions; output.dense applied to what self gives"
    return Case(module.state_dict(), module.output.dense(z), weights, bound=ROUNDING, note=note)


@compared("XLNet", package="transformers")
def xlnet():
    layer, configuration = classes("xlnet", "XLNetRelativeAttention", "XLNetConfig")
    module = redrawn(layer(configuration(d_model=E, n_head=H, d_inner=8, dropout=0)))
    x, far = data().transpose(0, 1), data(2 * L, B, E, seed=8)
    query, key, value = (torch.einsum("lbe,ehd->lbhd", x, getattr(module, name)) for name in "qkv")
    relative = torch.einsum("lbe,ehd->lbhd", far, module.r)
    z, weights = module.rel_attn_core(query, key, value, relative, output_attentions=True)
    output = torch.einsum("lbhd,ehd->lbe", z, module.o).transpose(0, 1)
    positions = torch.einsum("ibhd,jbhd->bhij", query + module.r_r_bias, relative)
    content = module.r_w_bias  # (H, D): a bias of the queries for the part that is content
    return Case(
        {name: getattr(module, name) for name in "qkvo"}, output, weights.permute(2, 3, 0, 1),
        add=module.rel_shift_bnij(positions, klen=L) * D**-0.5, note="its positions added, r_w_bias to the queries",
        before=lambda vectors, role, head: vectors + (content[head] if role == "q" else 0),
    )  # fmt: skip
