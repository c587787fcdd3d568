"""x-transformers, curated-transformers, fair-esm, openai-whisper, SpeechBrain."""

import torch

from tools.absent import standing_in
from tools.compared import B, Case, E, H, L, S, compared, data, redrawn

SINGLE = 1e-5  # float32 inside


def x_layer(keys):
    from x_transformers.x_transformers import Attention

    module = redrawn(Attention(E, dim_head=6, heads=H, kv_heads=keys, flash=False))
    output, inside = module(data(), return_intermediates=True)[:2]
    return Case(module.state_dict(), output, inside.post_softmax_attn, keys=keys, bound=SINGLE)


@compared("x-transformers", package="x-transformers")
def x_transformers():
    return x_layer(H)


@compared("x-transformers, grouped", package="x-transformers")
def x_grouped():
    return x_layer(2)


def curated(mode, heads, keys=None):
    with standing_in("curated_tokenizers"):
        from curated_transformers.layers import QkvMode, ScaledDotProductAttention, SelfAttention
        from curated_transformers.layers.attention import AttentionMask

    scorer = ScaledDotProductAttention(dropout_prob=0.0, linear_biases=None)
    module = redrawn(
        SelfAttention(
            attention_heads=heads, attention_scorer=scorer, hidden_width=E, qkv_mode=QkvMode[mode], use_bias=True
        )
    )
    output = module(data(), AttentionMask(torch.ones(B, 1, 1, L, dtype=torch.bool)))[0]
    return Case(module.state_dict(), output, keys=keys)


def uniform():
    with standing_in("curated_tokenizers"):
        from curated_transformers.layers import AttentionHeads
        from curated_transformers.layers.attention import QkvSplitGroupedByHead

    return AttentionHeads.uniform(H, QkvSplitGroupedByHead())


def broadcast():
    with standing_in("curated_tokenizers"):
        from curated_transformers.layers import AttentionHeads
        from curated_transformers.layers.attention import QkvSplitGroupedByKVHeads

    return AttentionHeads.key_value_broadcast(
        n_query_heads=H, n_key_value_heads=2, qkv_split=QkvSplitGroupedByKVHeads()
    )


@compared("curated-transformers", package="curated-transformers")
def curated_apart():
    return curated("SEPARATE", broadcast(), 2)


@compared("curated-transformers, split before", package="curated-transformers")
def curated_before():
    return curated("MERGED_SPLIT_BEFORE", uniform())


@compared("curated-transformers, split after", package="curated-transformers")
def curated_after():
    return curated("MERGED_SPLIT_AFTER", uniform())


@compared("curated-transformers, by head of keys", package="curated-transformers")
def curated_grouped():
    return curated("MERGED_SPLIT_AFTER", broadcast(), 2)


@compared("ESM-2", package="fair-esm")
def esm():
    from esm.multihead_attention import MultiheadAttention

    module = redrawn(MultiheadAttention(E, H, self_attention=True, use_rotary_embeddings=True))
    x = data().transpose(0, 1)
    output, weights = module(x, x, x, need_head_weights=True)
    return Case(module.state_dict(), output.transpose(0, 1), weights.transpose(0, 1), bound=SINGLE)


@compared("openai-whisper", package="openai-whisper")
def whisper():
    with standing_in("tiktoken", "numba"):
        from whisper.model import MultiHeadAttention

    module, y = redrawn(MultiHeadAttention(E, H)), data(B, S, E, seed=2)
    MultiHeadAttention.use_sdpa = True
    output = module(data(), xa=y)[0]
    MultiHeadAttention.use_sdpa = False
    scores = module(data(), xa=y)[1]
    note = "it returns scores: their softmax is compared"
    return Case(module.state_dict(), output, scores.double().softmax(-1), y=y, note=note)


def speech(y):
    with standing_in("torchaudio"):
        from speechbrain.nnet.attention import RelPosMHAXL

    torch.set_default_dtype(torch.float32)
    module = redrawn(RelPosMHAXL(E, H)).float()  # it takes float32 alone
    x, nowhere = data().float(), torch.zeros(1, 2 * L - 1, E)
    keys = x if y is None else y.float()
    output, weights = module(x, keys, keys, nowhere)
    bias = module.pos_bias_u.detach().double().view(H, -1)  # declared (D, H), read as (H, D)
    return Case(
        module.state_dict(), output, weights, x=x, y=y, bound=SINGLE, note="positions of zeros, pos_bias_u to the queries",
        before=lambda vectors, role, head: vectors + (bias[head] if role == "q" else 0),
    )  # fmt: skip


@compared("SpeechBrain RelPosMHAXL, query is key", package="speechbrain")
def speech_self():
    return speech(None)


@compared("SpeechBrain RelPosMHAXL, query is not key", package="speechbrain")
def speech_cross():
    return speech(data(B, L, E, seed=2))
