# --8<-- [start:setup]
import torch
from torch import nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
# as different as they may be
SIZES = {
    "L": 5, "S": 7, "H": 4, "E_q": 24, "E_k": 10, "E_v": 9,
    "d_q": 6, "d_k": 6, "S_v": 7, "d_v": 8, "E_o": 11,
}  # fmt: skip
# --8<-- [end:setup]


# --8<-- [start:free]
def tensors(**other):
    """One multi-head attention, step by step, with sizes replaced."""
    n = {**SIZES, **other}
    H, t = n["H"], {}
    t["Q"] = torch.randn(n["L"], n["E_q"])
    t["K"] = torch.randn(n["S"], n["E_k"])
    t["V"] = torch.randn(n["S_v"], n["E_v"])
    t["W_Q"] = torch.randn(H, n["E_q"], n["d_q"])
    t["W_K"] = torch.randn(H, n["E_k"], n["d_k"])
    t["W_V"] = torch.randn(H, n["E_v"], n["d_v"])
    t["W_O"] = torch.randn(H * n["d_v"], n["E_o"])
    q, k, v = t["Q"] @ t["W_Q"], t["K"] @ t["W_K"], t["V"] @ t["W_V"]
    t["A"] = (q @ k.mT / n["d_k"] ** 0.5).softmax(-1)
    t["concat"] = (t["A"] @ v).transpose(0, 1).flatten(1)
    t["out"] = t["concat"] @ t["W_O"]
    return t
# --8<-- [end:free]


# --8<-- [start:table]
for name, tensor in tensors().items():
    print(f"{name:6} {tuple(tensor.shape)}")
# --8<-- [end:table]
with torch.random.fork_rng():
    made = tensors()
    # the two pairs, each made larger together
    for pair in ("d_q", "d_k"), ("S", "S_v"):
        larger = tensors(**{name: SIZES[name] + 1 for name in pair})
        assert larger["out"].shape == made["out"].shape  # guard: pairs_grow_together
try:
    made["Q"] + made["out"]  # guard: a_sum_needs_one_width
except RuntimeError:
    pass
else:
    raise AssertionError("widths of 24 and 11 were added")
matrices = {"W_Q": made["W_Q"][0], "W_K": made["W_K"][0], "W_V": made["W_V"][0], "W_O": made["W_O"]}
shape = {name: tuple(matrix.shape) for name, matrix in matrices.items()}
assert shape["W_O"] == (SIZES["H"] * SIZES["d_v"], SIZES["E_o"])  # guard: output_of_all_heads
assert [shape[name][0] for name in ("W_Q", "W_K", "W_V")] == [SIZES[n] for n in ("E_q", "E_k", "E_v")]  # guard: heights
figure(
    "matrices",
    "blocks",
    matrices,
    {
        "groups": {
            name: [{"rows": [0, rows], "columns": [0, columns], "role": name[-1].lower(), "text": f"{name} {rows}×{columns}"}]
            for name, (rows, columns) in shape.items()
        }
    },
)

# --8<-- [start:agree]
bound = {"d_q", "d_k", "S", "S_v"}
for name, size in SIZES.items():
    try:
        result = tuple(tensors(**{name: size + 1})["out"].shape)
        refused = False
    except RuntimeError:
        result, refused = "RuntimeError", True
    assert refused == (name in bound)
    print(f"{name:4}{size:3} ->{size + 1:3} {result}")
# --8<-- [end:agree]
show("bound", len(bound))
show("all_sizes", len(SIZES))
show("bound_pairs", len(bound) // 2)

# --8<-- [start:stack]
def depths(residual, draw, E=24, H=4, L=10, depth=12):
    """How far the rows stay from their mean, after each layer."""
    torch.manual_seed(draw)
    x, spread = torch.randn(L, E), []
    for _ in range(depth):
        layer = nn.MultiheadAttention(E, H, bias=False)
        for p in layer.parameters():
            nn.init.normal_(p, std=E**-0.5)
        n = layer_norm(x, (E,))
        y, _ = layer(n, n, n)
        x = x + y if residual else y
        spread.append(((x - x.mean(0)).norm() / x.norm()).item())
    return spread


with_sum, without = (
    torch.tensor([depths(residual, draw) for draw in range(20)])
    for residual in (True, False)
)
# in each of 20 draws
assert without[:, -1].max() < 1e-12
assert with_sum[:, -1].min() > 0.2
for depth in (1, 2, 4, 12):
    now = with_sum[:, depth - 1], without[:, depth - 1]
    print(f"{depth:2}", *(f"{run.median():.3f}" for run in now))
# --8<-- [end:stack]
middle = with_sum.median(0).values
assert without[:, 3].max() < 0.01  # guard: alike_after_a_few
assert (middle.diff() < 0).all()  # guard: falls_with_the_sum
assert (middle[1:] > 0.8 * middle[:-1]).all()  # guard: falls_slowly
show("draws", len(with_sum))
show("depth", with_sum.shape[1])
show("spread_with", f"{(100 * with_sum[:, -1].min()).floor() / 100:.2f}")  # at least: not rounded up
show("spread_median", f"{with_sum[:, -1].median():.2f}")
curves = {"x": torch.arange(1, 13)}
for name, run in [("with_sum", with_sum), ("without", without)]:
    low, high = run.aminmax(dim=0)
    curves |= {name: run.median(0).values, f"{name}_low": low, f"{name}_high": high}
figure("stack", "curves", curves, {"band": {name: [f"{name}_low", f"{name}_high"] for name in ("with_sum", "without")}})

# --8<-- [start:kdim]
layer = nn.MultiheadAttention(24, 4, kdim=10, vdim=9)
for name, parameter in layer.named_parameters():
    print(f"{name:15} {tuple(parameter.shape)}")
# keys and values of widths 10 and 9 enter; heads stay 24 / 4 wide
y, A = layer(torch.randn(5, 24), torch.randn(7, 10), torch.randn(7, 9))
assert y.shape[-1] == layer.embed_dim
assert layer.head_dim == layer.embed_dim // layer.num_heads
try:
    nn.MultiheadAttention(25, 4)
except AssertionError as error:
    print(error)
else:
    raise AssertionError("25 is no multiple of 4")
# --8<-- [end:kdim]
assert layer.in_proj_weight is None  # guard: three_matrices
assert nn.MultiheadAttention(24, 4, kdim=24, vdim=24).in_proj_weight.shape == (72, 24)  # guard: packed_if_all_are_E

# --8<-- [start:free_width]
t = tensors()
q, k, v = t["Q"] @ t["W_Q"], t["K"] @ t["W_K"], t["V"] @ t["W_V"]
# values of 8 numbers, queries and keys of 6
head = scaled_dot_product_attention(q, k, v)
print("q", tuple(q.shape), "v", tuple(v.shape))
print("head", tuple(head.shape))
concat = head.transpose(0, 1).flatten(1)
torch.testing.assert_close(concat, t["concat"])
# --8<-- [end:free_width]

# --8<-- [start:parameters]
# embed_dim, num_heads, width of the feed-forward layer
MODELS = {
    "paper base": (512, 8, 2048),
    "BERT base": (768, 12, 3072),
    "GPT-2 small": (768, 12, 3072),
}


def count(module):
    return sum(p.numel() for p in module.parameters())


for name, (E, H, F) in MODELS.items():
    attention = nn.MultiheadAttention(E, H, device="meta")
    block = nn.TransformerEncoderLayer(E, H, F, device="meta")
    assert count(attention) == 4 * E * E + 4 * E
    assert count(block) == count(attention) + 2 * E * F + F + 5 * E
    share = count(attention) / count(block)
    print(f"{name:11} {count(attention)} {count(block)} {share:.3f}")
# --8<-- [end:parameters]
for E, H in (8, 1), (64, 16), (768, 12), (12288, 96):
    block = nn.TransformerEncoderLayer(E, H, 4 * E, device="meta")
    assert abs(count(block.self_attn) / count(block) - share) < 0.005  # guard: whatever_E_and_H
assert MODELS["BERT base"] == MODELS["GPT-2 small"]  # guard: equal_sizes
show("share", f"{100 * share:.0f}")

# --8<-- [start:whole]
E, H, F = MODELS["paper base"]
paper = nn.Transformer(E, H, 6, 6, F, batch_first=True, device="meta")
MHA = nn.MultiheadAttention
inner = [m for m in paper.modules() if isinstance(m, MHA)]
# 6 in the encoder, 2 x 6 in the decoder
assert len(inner) == 6 + 2 * 6
attention = sum(count(m) for m in inner)
assert attention == 18 * (4 * E * E + 4 * E)
forward = 12 * (2 * E * F + F + E)
# 2 and 3 norms a layer, and one at the end of each stack
norms = (6 * 2 + 6 * 3 + 2) * 2 * E
assert count(paper) == attention + forward + norms
print(attention, forward, norms, count(paper))
# --8<-- [end:whole]
assert paper.encoder.norm.weight.shape == paper.decoder.norm.weight.shape == (E,)  # guard: a_norm_ends_each_stack
assert all(m.bias is not None for m in paper.modules() if isinstance(m, nn.Linear | nn.LayerNorm))  # guard: biases_everywhere
show("places", len(inner))
show("paper_attention", f"{attention:,}")
show("paper_total", f"{count(paper):,}")


# --8<-- [start:operations]
def multiply_adds(layer, *inputs):
    """Counted from shapes: on device "meta" nothing is computed."""
    with FlopCounterMode(display=False) as counter:
        layer(*inputs)
    # two operations are one multiply-add
    return counter.get_total_flops() // 2


def attention_at(L, E, H):
    x = torch.empty(L, E, device="meta")
    layer = nn.MultiheadAttention(E, H, device="meta")
    return multiply_adds(layer, x, x, x)


for name, (E, H, _) in MODELS.items():
    for L in (128, 512, 1024):
        projections, scores = 4 * L * E**2, 2 * L**2 * E
        assert attention_at(L, E, H) == projections + scores
        print(f"{name:11} {L:4} {projections:10} {scores:10}")
# --8<-- [end:operations]
for h in (1, 4, 768):
    assert attention_at(128, 768, h) == 4 * 128 * 768**2 + 2 * 128**2 * 768  # guard: whatever_H
assert multiply_adds(nn.Linear(768, 768, device="meta"), torch.empty(128, 768, device="meta")) == 128 * 768**2  # guard: one_projection

# --8<-- [start:quadratic]
E, H, _ = MODELS["GPT-2 small"]
counts = torch.tensor([attention_at(L, E, H) for L in range(1, 41)])
# second differences of a parabola are constant
assert counts.diff(n=2).unique().tolist() == [4 * E]
# at twice the width both parts are equal
L = 2 * E
assert attention_at(L, E, H) == 2 * (4 * L * E**2)
print("2 E", L, attention_at(L, E, H))
# --8<-- [end:quadratic]
show("cross", L)
show("width", E)
lengths = 2 ** torch.arange(5, 15)
whole = torch.tensor([attention_at(int(n), E, H) for n in lengths])
growth = {"projections": 4 * lengths * E**2, "scores": 2 * lengths**2 * E}
assert torch.equal(growth["projections"] + growth["scores"], whole)  # guard: counted_is_the_sum
for name, slope in ("projections", 1), ("scores", 2):
    steps = growth[name][1:] / growth[name][:-1]
    torch.testing.assert_close(steps, torch.full((9,), 2.0**slope))  # guard: slopes
assert whole[0] < 1.1 * growth["projections"][0]  # guard: projections_on_the_left
assert whole[-1] < 1.1 * growth["scores"][-1]  # guard: scores_on_the_right
figure("growth", "curves", {"x": lengths, **growth, "counted": whole}, {"log": ["x", "y"], "points": ["counted"]})

# --8<-- [start:memory]
LENGTHS = {"paper base": 512, "BERT base": 512, "GPT-2 small": 1024}
for name, L in LENGTHS.items():
    E, H, _ = MODELS[name]
    kind = {"device": "meta", "dtype": torch.float32}
    layer = nn.MultiheadAttention(E, H, **kind)
    x = torch.empty(L, E, **kind)
    _, A = layer(x, x, x, average_attn_weights=False)
    # four bytes a number
    assert A.nbytes == 4 * H * L * L
    assert A.nbytes * E == x.nbytes * H * L
    print(f"{name:11} {L:4} {x.nbytes:8} {A.nbytes:9} {H * L / E:5.1f}")
# --8<-- [end:memory]
mebibyte, ratio = 1024 * 1024, H * L // E
weights_size, input_size = A.nbytes // mebibyte, x.nbytes // mebibyte
assert (weights_size * mebibyte, input_size * mebibyte) == (A.nbytes, x.nbytes)  # guard: whole_mebibytes
assert weights_size == ratio * input_size  # guard: ratio_of_gpt2
show("gpt2_length", L)
show("gpt2_weights", weights_size)
show("gpt2_input", input_size)
show("gpt2_ratio", ratio)

# --8<-- [start:question]
for name, (E, H, F) in MODELS.items():
    block = nn.TransformerEncoderLayer(E, H, F, device="meta")
    # the part that grows with L: 4 E^2 + 2 E F for each token
    linear = 4 * E**2 + 2 * E * F
    # 2 L^2 E = L (4 E^2 + 2 E F)
    L = 2 * E + F
    x = torch.empty(L, 1, E, device="meta")
    assert multiply_adds(block, x) == 2 * L * linear
    # half as long: one part in three is quadratic
    half = L // 2
    assert multiply_adds(block, x[:half]) == 3 * 2 * half**2 * E
    print(f"{name:11} {L} {L / E:.0f}")
# --8<-- [end:question]
assert L == 6 * E  # guard: six_times_the_width
assert 4 * max(LENGTHS.values()) < L  # guard: far_beyond
show("cross_block", L)
