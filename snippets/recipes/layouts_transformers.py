"""Hugging Face transformers 5.24.0."""

from functools import partial

from atlas import Layout, Part, apart, blocks, fused, groups, out, out_turned, shards, turned

Row = partial(Layout, library="transformers", version="5.24.0", mask="seen", asks='attn_implementation="eager", output_attentions=True')
PER_HEAD = {"order": groups}
BLOCKS = {"order": blocks()}
HALF, PAIRS = {"rotary": "half"}, {"rotary": "interleaved"}
SCALED = {"scale": "1/sqrt(d)"}
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
BART = ("q_proj", "k_proj", "v_proj", "out_proj")
XLNET = {"q": Part("q", "e n d"), "k": Part("k", "e n d"), "v": Part("v", "e n d"), "o": Part("o", "e n d")}

LAYOUTS = [
    # four projections
    Row(
        "BERT", models=("bert", "roberta", "electra", "camembert"),
        tensors=apart("self.query", "self.key", "self.value", "output.dense"), order=blocks(),
    ),
    Row("DistilBERT", models=("distilbert",), tensors=apart("q_lin", "k_lin", "v_lin", "out_lin"), order=blocks()),
    Row("ALBERT", models=("albert",), tensors=apart("query", "key", "value", "dense"), order=blocks()),
    Row("ViT", models=("vit",), tensors=apart(*QKVO), order=blocks()),
    Row("BART", models=("bart",), tensors=apart(*BART), order=blocks(), misread={"tensors": apart(*BART, of=turned, end=out_turned)}),
    Row("CLIP", models=("clip",), tensors=apart(*BART), order=blocks()),
    Row("OPT", models=("opt",), tensors=apart(*BART), order=blocks()),
    Row("Whisper", models=("whisper",), tensors=apart(*BART, without="k"), order=blocks()),
    Row("T5", models=("t5",), tensors=apart(*"qkvo", without="qkvo"), order=blocks(), scale="1", beside=("positions",), misread=SCALED),
    Row("GPT-Neo", models=("gpt_neo",), tensors=apart(*BART, without="qkv"), order=blocks(), scale="1", misread=SCALED),
    Row("GPT-J", models=("gptj",), tensors=apart(*BART, without="qkvo"), order=blocks(), rotary="interleaved", misread=HALF),
    Row("LLaMA", models=("llama", "mistral"), tensors=apart(*QKVO), order=blocks(), grouped=True, rotary="half", misread=PAIRS),
    Row("Qwen2", models=("qwen2",), tensors=apart(*QKVO, without="o"), order=blocks(), grouped=True, rotary="half", misread=PAIRS),
    Row(
        "Qwen3", models=("qwen3",), signs=("q_norm.weight",),
        tensors=apart(*QKVO), order=blocks(), grouped=True, rotary="half", beside=("norms",), misread=PAIRS,
    ),
    Row(
        "OLMo-2", models=("olmo2",), signs=("q_norm.weight",),
        tensors=apart(*QKVO, without="qkvo"), order=blocks(), grouped=True, rotary="half", beside=("norms",), misread=PAIRS,
    ),
    Row(
        "Gemma 2", models=("gemma2",),
        tensors=apart(*QKVO), order=blocks(), grouped=True, rotary="half", beside=("scale", "softcap"), misread=PAIRS,
    ),
    Row(
        "gpt-oss", models=("gpt_oss",), signs=("sinks",),
        tensors=apart(*QKVO), order=blocks(), grouped=True, rotary="half", beside=("sinks",), misread=PAIRS,
    ),
    Row(
        "Cohere", models=("cohere",),
        tensors=apart(*QKVO, without="qkvo"), order=blocks(), grouped=True, rotary="interleaved", misread=HALF,
    ),
    # one tensor, the heads of a role together
    Row(
        "GPT-2", models=("gpt2",), tensors=fused("c_attn", "c_proj", turned, out_turned), order=blocks(),
        misread={"tensors": fused("c_attn", "c_proj", turned)},
    ),
    Row("GPT-2 cross-attention", tensors=turned("q_attn", "q") | turned("c_attn", "kv") | out_turned("c_proj"), order=blocks()),
    Row(
        "MPT", models=("mpt",),
        tensors=fused("Wqkv", "out_proj", bias=False), order=blocks(), beside=("positions",), mask="hidden", misread=PER_HEAD,
    ),
    Row("ModernBERT", models=("modernbert",), tensors=fused("Wqkv", "Wo", bias=False), order=blocks(), rotary="half", misread=PER_HEAD),
    Row(
        "DBRX", models=("dbrx",),
        tensors=fused("Wqkv", "out_proj", bias=False), order=blocks(), grouped=True, rotary="half", misread=PER_HEAD,
    ),
    Row(
        "Phi-3", models=("phi3",),
        tensors=fused("qkv_proj", "o_proj", bias=False), order=blocks(), grouped=True, rotary="half", misread=PER_HEAD,
    ),
    Row(
        "GPT-BigCode, one head of keys", models=("gpt_bigcode",),
        tensors=fused("c_attn", "c_proj"), order=blocks(), grouped=True, one=True,
    ),
    Row("Falcon-7B", models=("falcon",), tensors=fused("query_key_value", "dense"), order=blocks(), grouped=True, one=True, rotary="half"),
    # one tensor, head by head or group by group
    Row("GPT-BigCode", models=("gpt_bigcode",), tensors=fused("c_attn", "c_proj"), order=groups, misread=BLOCKS),
    Row("GPT-NeoX", models=("gpt_neox",), tensors=fused("query_key_value", "dense"), order=groups, rotary="half", misread=BLOCKS),
    Row("BLOOM", models=("bloom",), tensors=fused("query_key_value", "dense"), order=groups, beside=("positions",), misread=BLOCKS),
    Row(
        "Falcon-RW", models=("falcon",),
        tensors=fused("query_key_value", "dense"), order=groups, beside=("positions",), misread=BLOCKS,
    ),
    Row(
        "Falcon-40B", models=("falcon",),
        tensors=fused("query_key_value", "dense"), order=groups, grouped=True, rotary="half", misread=BLOCKS,
    ),
    Row(
        "Persimmon", models=("persimmon",), signs=("q_layernorm.weight",),
        tensors=fused("query_key_value", "dense"), order=groups, rotary="half", beside=("norms",), misread=BLOCKS,
    ),
    Row(
        "DeBERTa", models=("deberta",), order=groups, beside=("positions",), misread=BLOCKS,
        tensors={
            "self.in_proj.weight": Part("qkv", "(n d) e"), "self.q_bias": Part("q", "(n d)"), "self.v_bias": Part("v", "(n d)"),
        } | out("output.dense"),
    ),
    Row(
        "CodeGen", models=("codegen",), tensors=fused("qkv_proj", "out_proj", bias=False), order=shards(4, "qvk"), rotary="interleaved",
        misread={"order": shards(4)},
    ),
    # heads as an axis
    Row("XLNet", models=("xlnet",), tensors=XLNET, order=blocks(), beside=("positions",)),
    # what Meta publishes: the numbers of a head in pairs
    Row(
        "LLaMA, Meta's file", order=blocks(), grouped=True, rotary="interleaved", misread=HALF,
        tensors={f"w{role}.weight": Part(role, "(n d) e") for role in "qkv"} | {"wo.weight": Part("o", "e (n d)")},
    ),
]  # fmt: skip
