from exercises import exercise, outcomes

# --8<-- [start:setup]
import torch
from exercises import check
from torch import nn
from torch.nn import functional as F

torch.manual_seed(31)
B, L, E, H, K = 2, 5, 24, 4, 2
D = E // H
options = {"dtype": torch.float64}
x = torch.randn(B, L, E, **options) / 2


def attend(q, k, v):
    """(B, heads, L, D) each -> (B, L, heads * D)."""
    heads = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    return heads.transpose(1, 2).flatten(2)


def module(in_proj_weight, out_proj_weight):
    """What nn.MultiheadAttention makes of x, without biases."""
    mha = nn.MultiheadAttention(E, H, bias=False, batch_first=True)
    names = ["in_proj_weight", "out_proj.weight"]
    weights = [in_proj_weight, out_proj_weight]
    mha.double().load_state_dict(dict(zip(names, weights, strict=True)))
    return mha(x, x, x)[0]
# --8<-- [end:setup]


# --8<-- [start:shapes_try]
config = {
    "hidden_size": 40,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 6,
}
shapes = None  # of q_proj.weight, k_proj.weight, o_proj.weight
check("shapes", shapes)
# --8<-- [end:shapes_try]

# --8<-- [start:shapes]
width = config["hidden_size"]
heads, groups, head_dim = [*config.values()][1:]
shapes = [
    (heads * head_dim, width),
    (groups * head_dim, width),
    (width, heads * head_dim),
]
q_proj, k_proj, o_proj = (torch.zeros(shape) for shape in shapes)
tokens = torch.zeros(B, L, width)
q = F.linear(tokens, q_proj).unflatten(-1, (heads, head_dim))
k = F.linear(tokens, k_proj).unflatten(-1, (groups, head_dim))
q, k = q.transpose(1, 2), k.transpose(1, 2)
assert F.linear(attend(q, k, k), o_proj).shape == tokens.shape
print(shapes)
# --8<-- [end:shapes]

# --8<-- [start:shapes_wrong]
# head_dim from the width: the file says otherwise
from_width = width // heads
assert from_width != head_dim
print(from_width, head_dim)
# --8<-- [end:shapes_wrong]
exercise(
    "shapes",
    shapes,
    from_width=[(heads * from_width, width), (groups * from_width, width), (width, heads * from_width)],
    no_groups=[shapes[0], shapes[0], shapes[2]],
    transposed=[shape[::-1] for shape in shapes],
    square_output=[shapes[0], shapes[1], shapes[0]],
)

# --8<-- [start:conv_try]
# transformer.h.0.attn.c_attn.weight, c_proj.weight of GPT-2
c_attn = torch.randn(E, 3 * E, **options) / 2
c_proj = torch.randn(E, E, **options) / 2
converted = None  # a pair: in_proj_weight, out_proj.weight
check("conv1d", converted)
# --8<-- [end:conv_try]

# --8<-- [start:conv]
# Conv1D multiplies from the right: (in, out), as the paper does
q, k, v = (
    part.unflatten(-1, (H, D)).transpose(1, 2)
    for part in (x @ c_attn).chunk(3, dim=-1)
)
theirs = attend(q, k, v) @ c_proj
converted = c_attn.T, c_proj.T
torch.testing.assert_close(module(*converted), theirs)
print([tuple(matrix.shape) for matrix in converted])
# --8<-- [end:conv]

# --8<-- [start:conv_wrong]
# (E, 3E) poured into (3E, E): the shape is right
poured = c_attn.reshape(3 * E, E), c_proj.T
assert not torch.allclose(module(*poured), theirs)
# c_proj is square: no shape tells that it lies on its side
square = c_attn.T, c_proj
assert not torch.allclose(module(*square), theirs)
# --8<-- [end:conv_wrong]
stacked = torch.cat(c_attn.chunk(3, dim=1)), c_proj.T
assert not torch.allclose(module(*stacked), theirs)  # guard: blocks_untransposed
exercise(
    "conv1d",
    converted,
    poured=poured,
    square=square,
    stacked=stacked,
    stacked_and_square=(stacked[0], c_proj),
    poured_and_square=(poured[0], c_proj),
)

# --8<-- [start:heads_try]
# query_key_value.weight of GPT-NeoX, and what it makes of x
fused = torch.randn(3 * E, E, **options) / 2
q, k, v = (
    (x @ fused.T)
    .unflatten(-1, (H, 3 * D))
    .transpose(1, 2)
    .chunk(3, dim=-1)
)
theirs = attend(q, k, v)
in_proj_weight = None  # (3E, E)
check("head-by-head", in_proj_weight)
# --8<-- [end:heads_try]

# --8<-- [start:heads]
# (H, 3, D, E) -> (3, H, D, E)
by_head = fused.view(H, 3, D, E)
in_proj_weight = by_head.transpose(0, 1).reshape(3 * E, E)
identity = torch.eye(E, **options)
torch.testing.assert_close(module(in_proj_weight, identity), theirs)
print(tuple(by_head.shape), tuple(in_proj_weight.shape))
# --8<-- [end:heads]

# --8<-- [start:heads_wrong]
# it loads as it is
assert not torch.allclose(module(fused, identity), theirs)
# the same two lines, for the way back
way_back = fused.view(3, H, D, E).transpose(0, 1).reshape(3 * E, E)
assert not torch.allclose(module(way_back, identity), theirs)
# --8<-- [end:heads_wrong]
exercise(
    "head-by-head",
    in_proj_weight,
    as_it_is=fused,
    way_back=way_back,
    in_turn=fused.view(E, 3, E).transpose(0, 1).reshape(3 * E, E),
    keys_first=by_head[:, [1, 0, 2]].transpose(0, 1).reshape(3 * E, E),
)

# --8<-- [start:groups_try]
# q_proj.weight, k_proj.weight, v_proj.weight of LLaMA
q_proj = torch.randn(H * D, E, **options) / 2
k_proj, v_proj = torch.randn(2, K * D, E, **options) / 2
in_proj_weight = None  # (3E, E)
check("groups", in_proj_weight)
# --8<-- [end:groups_try]

# --8<-- [start:groups]
def widened(rows):
    """(K * D, E) -> (E, E): each head of keys for H / K queries."""
    heads = rows.view(K, D, E)
    return heads.repeat_interleave(H // K, dim=0).reshape(E, E)


in_proj_weight = torch.cat([q_proj, widened(k_proj), widened(v_proj)])
q, k, v = (
    (x @ rows.T).unflatten(-1, (-1, D)).transpose(1, 2)
    for rows in (q_proj, k_proj, v_proj)
)  # k and v have K heads
theirs = attend(q, k, v)
torch.testing.assert_close(module(in_proj_weight, identity), theirs)
print(tuple(k_proj.shape), tuple(in_proj_weight.shape))
# --8<-- [end:groups]

# --8<-- [start:groups_wrong]
# tiled: heads 0, 1, 0, 1 for queries 0, 1, 2, 3
tiled = torch.cat([q_proj, k_proj, k_proj, v_proj, v_proj])
assert tiled.shape == in_proj_weight.shape
assert not torch.allclose(module(tiled, identity), theirs)
# every row repeated, where a head should be
rows = [w.repeat_interleave(H // K, dim=0) for w in (k_proj, v_proj)]
by_row = torch.cat([q_proj, *rows])
assert not torch.allclose(module(by_row, identity), theirs)
# --8<-- [end:groups_wrong]
assert torch.equal(tiled[E + D : E + 2 * D], k_proj[D:])  # guard: query_1_reads_key_1
exercise("groups", in_proj_weight, tiled=tiled, by_row=by_row)

# --8<-- [start:groups_fused_try]
# query_key_value.weight of Falcon: K groups, in each H / K heads
# of queries, then one of keys, then one of values
grouped = torch.randn((H + 2 * K) * D, E, **options) / 2
cut = None  # three: q (H * D, E), k (K * D, E), v (K * D, E)
check("fused-groups", cut)
# --8<-- [end:groups_fused_try]

# --8<-- [start:groups_fused]
# (K, H / K + 2, D, E)
groups = grouped.view(K, H // K + 2, D, E)
q, k, v = groups.split([H // K, 1, 1], dim=1)
cut = [part.reshape(-1, E) for part in (q, k, v)]
# the layer's own way: project first, then cut what came out
out = (x @ grouped.T).view(B, L, K, H // K + 2, D)
for j in range(K):
    query = out[:, :, j, :-2].flatten(2)  # (B, L, H / K * D)
    rows = cut[0][j * 2 * D : (j + 1) * 2 * D]
    torch.testing.assert_close(x @ rows.T, query)
    for part, w in ((-2, cut[1]), (-1, cut[2])):
        head = w[j * D : (j + 1) * D]
        torch.testing.assert_close(x @ head.T, out[:, :, j, part])
print([tuple(part.shape) for part in cut])
# --8<-- [end:groups_fused]

# --8<-- [start:groups_fused_wrong]
# all queries, then all keys, then all values: the shapes are right
blocks = list(grouped.split([H * D, K * D, K * D]))
assert [w.shape for w in blocks] == [w.shape for w in cut]
for theirs, ours in zip(blocks, cut, strict=True):
    assert not torch.allclose(theirs, ours)
# --8<-- [end:groups_fused_wrong]
exercise(
    "fused-groups",
    cut,
    blocks=blocks,
    keys_and_values=[cut[0], cut[2], cut[1]],
    keys_before=[part.reshape(-1, E) for part in (groups[:, 2:], groups[:, 0], groups[:, 1])],
)

# --8<-- [start:rotary_try]
# wq.weight as Meta stores it: positions turn the numbers 2j, 2j + 1
meta = torch.randn(H * D, E, **options) / 2
angles = torch.arange(L)[:, None] / 10.0 ** torch.arange(D // 2)
q_proj = None  # (H * D, E), for a layer that turns j with j + D / 2
check("rotary", q_proj)
# --8<-- [end:rotary_try]

# --8<-- [start:rotary]
# in each head: (D / 2, 2) -> (2, D / 2)
pairs = meta.view(H, D // 2, 2, E)
q_proj = pairs.transpose(1, 2).reshape(H * D, E)
sin, cos = angles.sin(), angles.cos()  # (L, D / 2)
a, b = (x @ q_proj.T).view(B, L, H, 2, D // 2).transpose(1, 2).unbind(3)
halves = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
# Meta's own way: each pair is a complex number
z = (x @ meta.T).view(B, L, H, D // 2, 2).transpose(1, 2)
turned = torch.view_as_complex(z.contiguous()) * torch.polar(
    torch.ones_like(angles), angles
).to(torch.complex128)
torch.testing.assert_close(halves, torch.view_as_real(turned))
print(tuple(pairs.shape), tuple(q_proj.shape))
# --8<-- [end:rotary]

# --8<-- [start:rotary_wrong]
# the way back: from halves to pairs
way_back = meta.view(H, 2, D // 2, E).transpose(1, 2)
way_back = way_back.reshape(H * D, E)
assert not torch.allclose(way_back, q_proj)
# without positions nothing shows: the scores of a head stay
k_meta = torch.randn(H * D, E, **options)
k_sorted = k_meta.view(H, D // 2, 2, E).transpose(1, 2)
scores = (x @ meta[:D].T) @ (x @ k_meta[:D].T).mT
torch.testing.assert_close(
    (x @ q_proj[:D].T) @ (x @ k_sorted[0].reshape(D, E).T).mT, scores
)
# --8<-- [end:rotary_wrong]
exercise(
    "rotary",
    q_proj,
    as_it_is=meta,
    way_back=way_back,
    over_all=meta.view(E // 2, 2, E).transpose(0, 1).reshape(E, E),
)

# --8<-- [start:kernels_try]
# Keras and Flax: query/kernel (E, H, D), out/kernel (H, D, E)
query_kernel = torch.randn(E, H, D, **options) / 2
out_kernel = torch.randn(H, D, E, **options) / 2
rows = None  # a pair: in_proj_weight[:E], out_proj.weight
check("kernels", rows)
# --8<-- [end:kernels_try]

# --8<-- [start:kernels]
# heads are axes there; flattened they are columns, then rows
rows = query_kernel.flatten(1).T, out_kernel.flatten(0, 1).T
q = torch.einsum("ble,ehd->blhd", x, query_kernel)
torch.testing.assert_close(F.linear(x, rows[0]), q.flatten(2))
out = torch.einsum("blhd,hde->ble", q, out_kernel)
torch.testing.assert_close(F.linear(q.flatten(2), rows[1]), out)
print([tuple(matrix.shape) for matrix in rows])
# --8<-- [end:kernels]

# --8<-- [start:kernels_wrong]
# both are (E, E) without a transpose as well
flat = query_kernel.reshape(E, E), out_kernel.reshape(E, E)
assert not torch.allclose(F.linear(x, flat[0]), q.flatten(2))
assert not torch.allclose(F.linear(q.flatten(2), flat[1]), out)
# --8<-- [end:kernels_wrong]
exercise(
    "kernels",
    rows,
    flat=flat,
    output_flat=(rows[0], flat[1]),
    query_flat=(flat[0], rows[1]),
    heads_inside=(query_kernel.permute(2, 1, 0).reshape(E, E), rows[1]),
)

for expected, told in outcomes():
    assert told == expected  # guard: every_answer_is_told
