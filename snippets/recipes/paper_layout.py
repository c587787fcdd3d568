"""Run every nn.MultiheadAttention, wherever it stands in a model, on the paper's computation.

    with paper_layout() as paper:
        output = model(x)
    assert paper.calls > 0

Needs paper_attention.py and attention_inputs.py beside it. Written for PyTorch 2.13.
"""

import torch.nn.functional as F
from paper_attention import multi_head_attention_forward
from torch.overrides import TorchFunctionMode


# --8<-- [start:paper_layout]
class paper_layout(TorchFunctionMode):
    """Context in which PyTorch's multi-head attention is ours.

    Nothing is replaced: PyTorch asks the innermost mode of the thread
    before it runs a function, and while a mode is on, the fused paths
    of nn.MultiheadAttention and nn.TransformerEncoderLayer stay off.
    So what only these give is missing: nested tensors are refused by
    PyTorch, and a sample that is padding alone comes out finite.
    `calls` counts the attention layers that ran.
    """

    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.multi_head_attention_forward:
            self.calls += 1
            func = multi_head_attention_forward
        return func(*args, **(kwargs or {}))
# --8<-- [end:paper_layout]
