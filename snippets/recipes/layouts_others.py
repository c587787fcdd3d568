"""GGUF, MLX 0.32.4, MindSpore 2.10.0, PaddlePaddle 3.3.1, ONNX Runtime 1.32.0."""

from atlas import Layout, Part, apart, blocks, groups, out, out_turned, turned

PACKED = {"in_proj_weight": Part("qkv", "(n d) e"), "in_proj_bias": Part("qkv", "(n d)")} | out("out_proj")
NAMES = ("q_proj", "k_proj", "v_proj", "out_proj")
# of a GGUF file the shapes are turned round: it has the axis first that changes fastest
GGUF = apart("attn_q", "attn_k", "attn_v", "attn_output")
PADDLE = apart(*NAMES, of=turned, end=out_turned)
# com.microsoft.Attention ends before the projection of the output, which is a MatMul of its own
ORT = {"weights": Part("qkv", "e (n d)"), "bias": Part("qkv", "(n d)"), "out.weight": Part("o", "e (n d)"), "out.bias": Part("o", "e")}

LAYOUTS = [
    Layout(
        "GGUF, llama", "llama.cpp", GGUF, blocks(), grouped=True, rotary="interleaved", misread={"rotary": "half"},
        models=("gguf/llama",),
    ),
    Layout(
        "GGUF", "llama.cpp", GGUF, blocks(), grouped=True, rotary="half", misread={"rotary": "interleaved"},
        models=("gguf/qwen2", "gguf/qwen3", "gguf/gemma", "gguf/gemma2", "gguf/phi2"),
    ),
    Layout("MLX", "mlx", apart("query_proj", "key_proj", "value_proj", "out_proj"), blocks(), "0.32.4", mask="seen"),
    Layout("MindSpore", "mindspore", PACKED, blocks(), "2.10.0", misread={"order": groups}),
    # the names of BART, and matrices the other way round
    Layout("Paddle", "paddlepaddle", PADDLE, blocks(), "3.3.1", misread={"tensors": apart(*NAMES)}),
    Layout("ONNX Runtime Attention", "onnxruntime", ORT, blocks(), "1.32.0", mask="seen", misread={"order": groups}),
]  # fmt: skip
