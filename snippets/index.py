# --8<-- [start:setup]
import torch
from torch import nn

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
B, L, E, H = 2, 5, 12, 4
D = E // H
X = torch.randn(B, L, E)
mha = nn.MultiheadAttention(E, H, bias=False, batch_first=True)
for parameter in mha.parameters():
    nn.init.normal_(parameter, std=0.5)
# --8<-- [end:setup]

# --8<-- [start:proof]
# W_q[i] is the paper's W_i^Q, of shape (E, D)
W_q, W_k, W_v = mha.in_proj_weight.view(3, H, D, E).mT  # (1)!
heads, maps = [], []
for i in range(H):
    Q, K, V = X @ W_q[i], X @ W_k[i], X @ W_v[i]
    maps.append((Q @ K.mT / D**0.5).softmax(-1))
    heads.append(maps[i] @ V)
paper = torch.cat(heads, dim=-1) @ mha.out_proj.weight.T

output, weights = mha(X, X, X, average_attn_weights=False)
torch.testing.assert_close(paper, output)
torch.testing.assert_close(torch.stack(maps, dim=1), weights)
print(f"output {tuple(output.shape)}")
print(f"weights {tuple(weights.shape)}")
# --8<-- [end:proof]

roles = {"Q": W_q, "K": W_k, "V": W_v}
bands, matrices = [], {}
for n, (letter, per_head) in enumerate(roles.items()):
    for i in range(H):
        name, first = f"W_{i}^{letter}", n * E + i * D
        matrices[name] = per_head[i]
        bands.append({"rows": [first, first + D], "role": letter.lower(), "head": i, "text": name, "of": per_head[i]})
figure(  # guard: bands
    "rosetta",
    "blocks",
    {"in_proj_weight": mha.in_proj_weight, **matrices},
    labels={
        "groups": {
            "in_proj_weight": bands,
            **{band["text"]: [{"role": band["role"], "head": band["head"], "text": band["text"]}] for band in bands},
        },
    },
)
