# --8<-- [start:setup]
import torch
from torch import nn
from paper_layout import paper_layout
from paper_module import PaperMultiheadAttention

torch.manual_seed(31)
B, L, E, H = 2, 5, 24, 4
D = E // H
x = 0.5 * torch.randn(B, L, E, dtype=torch.float64)
# --8<-- [end:setup]

# --8<-- [start:drop_in]
layer = nn.TransformerEncoderLayer(E, H, 20, batch_first=True)
model = nn.TransformerEncoder(layer, 2).double().eval()
padding = torch.tensor([[False] * L, [False] * 3 + [True] * 2])
expected = model(x, src_key_padding_mask=padding)
with paper_layout() as paper:
    output = model(x, src_key_padding_mask=padding)
torch.testing.assert_close(output, expected)
print(f"calls {paper.calls}")
assert paper.calls == len(model.layers)
# --8<-- [end:drop_in]
from torch.nn import functional as F


def of_the_model():
    """What rewriting a model would change: classes, what a module carries of its own, and the functions behind them."""
    return [(type(m), type(m).forward, sorted(vars(m))) for m in model.modules()], F.multi_head_attention_forward


untouched = of_the_model()
with paper_layout():
    model(x, src_key_padding_mask=padding)
    assert of_the_model() == untouched  # guard: nothing_is_rewritten

# what stands between the model and its numbers: as it is, and inside the block
packed = model.layers[0].self_attn.in_proj_weight
ways = [
    ("nn.TransformerEncoder", tuple(x.shape), 1, 0, "x"),
    ("nn.MultiheadAttention", tuple(x.shape), 1, 1, "x"),
    ("multi_head_attention_forward", None, 1, 2, None),
    ("in_proj_weight", tuple(packed.shape), 0, 3, None),
    ("W_i^Q, W_i^K, W_i^V", tuple(packed[:D].T.shape), 2, 3, None),
    ("output", tuple(output.shape), 1, 4, "x"),
]
nodes = [
    {"id": text, "text": text, "column": column, "row": row}
    | ({"shape": str(shape)} if shape else {})
    | ({"role": role} if role else {})
    for text, shape, column, row, role in ways
]
edges = [[ways[i][0], ways[j][0]] for i, j in ((0, 1), (1, 2), (2, 3), (2, 4), (3, 5), (4, 5))]
figure("ways", "flow", {}, labels={"nodes": nodes, "edges": edges})

# --8<-- [start:exchange]
for layer in model.layers:
    attention = layer.self_attn
    layer.self_attn = PaperMultiheadAttention.from_torch(attention)
# the encoder looked at its layers when it was built
try:
    model(x, src_key_padding_mask=padding)
except AttributeError as error:
    print(error)
else:
    raise AssertionError("the encoder did not remember")
model.use_nested_tensor = False
output = model(x, src_key_padding_mask=padding)
torch.testing.assert_close(output, expected)
# --8<-- [end:exchange]
assert not isinstance(layer.self_attn, nn.MultiheadAttention)  # guard: no_multihead_attention
import warnings

with warnings.catch_warnings(action="ignore"):  # PyTorch says that it will not skip padding
    rebuilt = nn.TransformerEncoder(layer, 1).eval()
torch.testing.assert_close(rebuilt(x, src_key_padding_mask=padding), layer(x, src_key_padding_mask=padding))  # guard: built_after

# --8<-- [start:spread]
E_wide = 512
packed = nn.MultiheadAttention(E_wide, 8).in_proj_weight
spread = {}
for init in ("torch", "xavier"):
    twin = PaperMultiheadAttention(E_wide, 8, init=init)
    spread[init] = twin.W_q.std()
    print(f"{init:7}{twin.W_q.std():.4f} {twin.W_q.abs().max():.4f}")
print(f"packed {packed.std():.4f} {packed.abs().max():.4f}")
ratio = spread["xavier"] / packed.std()
assert abs(ratio / 2**0.5 - 1) < 0.01
assert abs(spread["torch"] / packed.std() - 1) < 0.01
# --8<-- [end:spread]
show("ratio", f"{ratio:.3f}")
bound = (6 / (E_wide + 3 * E_wide)) ** 0.5
assert 0.999 * bound < packed.abs().max() <= bound  # guard: the_range_of_one_matrix
assert abs(bound * 2**0.5 / (6 / (E_wide + E_wide)) ** 0.5 - 1) < 1e-12  # guard: the_formula

# --8<-- [start:question]
# a layer of the paper's, with widths of its own
own = PaperMultiheadAttention(
    E, H, d_k=3, d_v=11, batch_first=True
).double()
for parameter in own.parameters():
    nn.init.normal_(parameter, std=0.5)
output, weights = own(x, x, x, average_attn_weights=False)
W_q, W_k = own.W_q, own.W_k  # (H, E, 3) each
q = x[:, None] @ W_q + own.b_q[:, None]  # (B, H, L, 3)
k = x[:, None] @ W_k + own.b_k[:, None]
scores = q @ k.mT
torch.testing.assert_close(weights, (scores / 3**0.5).softmax(-1))
assert not torch.allclose(weights, (scores / D**0.5).softmax(-1))
print(tuple(W_q.shape), tuple(own.W_v.shape), tuple(output.shape))
# --8<-- [end:question]
