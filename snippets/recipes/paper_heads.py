"""One attention layer as the paper writes it: a matrix for each head, and the sum over heads.

    paper = Paper(W_q, W_k, W_v, W_o, b_q, b_k, b_v, b_o, scale=D**-0.5)
    output, A = paper.attend(x)

Source: "Attention Is All You Need", equation 1 and section 3.2.2; the biases are PyTorch's, grouped queries those of
arXiv:2305.13245, rotary embeddings those of arXiv:2104.09864. Needs PyTorch alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


# --8<-- [start:paper]
@dataclass
class Paper:
    """One layer as the paper writes it; biases as PyTorch adds them."""

    W_q: Tensor  # (H, E, D)
    W_k: Tensor  # (K, E, D)
    W_v: Tensor  # (K, E, D)
    W_o: Tensor  # (H, D, E)
    b_q: Tensor  # (H, D)
    b_k: Tensor  # (K, D)
    b_v: Tensor  # (K, D)
    b_o: Tensor  # (E,)
    scale: float  # of the scores
    rotary: str = ""  # "half", "interleaved"

    def attend(self, x, y=None) -> tuple[Tensor, Tensor]:
        """Head by head: output (B, L, E), A (B, H, L, S)."""
        y, maps, output = x if y is None else y, [], self.b_o
        for h in range(len(self.W_q)):
            k = h // (len(self.W_q) // len(self.W_k))
            query = turn(x @ self.W_q[h] + self.b_q[h], self.rotary)
            key = turn(y @ self.W_k[k] + self.b_k[k], self.rotary)
            value = y @ self.W_v[k] + self.b_v[k]
            weights = (query @ key.mT * self.scale).softmax(-1)
            output = output + weights @ value @ self.W_o[h]
            maps.append(weights)
        return output, torch.stack(maps, 1)
# --8<-- [end:paper]


def turn(x: Tensor, rotary: str, base=10000.0) -> Tensor:
    """x (..., L, D) with pairs of its numbers turned by their position; as it is where there is no rotary embedding."""
    if not rotary:
        return x
    L, D = x.shape[-2:]
    i = torch.arange(D // 2, dtype=x.dtype, device=x.device)
    angles = torch.arange(L, dtype=x.dtype, device=x.device)[:, None] * base ** (-2 * i / D)  # (L, D / 2)
    side_by_side = rotary == "interleaved"
    pairs = x.unflatten(-1, (-1, 2) if side_by_side else (2, -1))
    a, b = pairs.unbind(-1 if side_by_side else -2)
    turned = (a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos())
    return torch.stack(turned, -1 if side_by_side else -2).flatten(-2)
