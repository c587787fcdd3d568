"""Keras 3.15.1, and tf_keras."""

from atlas import Layout, apart, blocks, kernel, out_kernel

KERNELS = apart("query", "key", "value", "attention_output", kernel, out_kernel)
ASKS = "return_attention_scores=True"

LAYOUTS = [
    Layout("Keras", "keras", KERNELS, blocks(), "3.15.1", mask="seen", asks=ASKS),
    Layout("Keras, grouped", "keras", KERNELS, blocks(), "3.15.1", grouped=True, mask="seen", asks=ASKS),
    Layout("tf_keras", "tf_keras", KERNELS, blocks(), "2.21.0", mask="seen", asks=ASKS),
]
