"""openai-whisper 20250625, ESPnet 202511, SpeechBrain 1.1.2."""

from atlas import Layout, Part, apart, blocks, groups, out

PACKED = {"in_proj_weight": Part("qkv", "(n d) e")} | out("out_proj")

LAYOUTS = [
    Layout("openai-whisper", "openai-whisper", apart("query", "key", "value", "out", without="k"), blocks(), "20250625"),
    Layout("ESPnet", "espnet", apart("linear_q", "linear_k", "linear_v", "linear_out"), blocks(), "202511"),
    # one matrix, read in two orders: which one is decided by whether query and key are equal, number by number
    Layout(
        "SpeechBrain RelPosMHAXL, query is key", "speechbrain", PACKED, groups, "1.1.2", scale="1/sqrt(e)",
        beside=("positions",), signs=("pos_bias_u",), misread={"order": blocks()},
    ),
    Layout(
        "SpeechBrain RelPosMHAXL, query is not key", "speechbrain", PACKED, blocks(), "1.1.2", scale="1/sqrt(e)",
        beside=("positions",), signs=("pos_bias_u",), misread={"order": groups},
    ),
]  # fmt: skip
