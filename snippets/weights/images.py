# --8<-- [start:setup]
import textwrap
import torch
from capture import attention_weights
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

torch.set_printoptions(precision=2, sci_mode=False, linewidth=72)
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
h, w, P = 6, 9, 4  # patches down and across, pixels along a patch
E, H = 24, 4
D = E // H
extra = 3  # tokens before the patches: class token, two registers
S = extra + h * w
# --8<-- [end:setup]


# --8<-- [start:attention]
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (
            nn.Linear(E, E) for _ in range(4))

    def forward(self, x):  # (B, S, E)
        q, k, v = (f(x).unflatten(-1, (H, D)).transpose(1, 2)
                   for f in (self.q, self.k, self.v))  # (B, H, S, D)
        z = scaled_dot_product_attention(q, k, v)
        return self.out(z.transpose(1, 2).flatten(2))
# --8<-- [end:attention]


# --8<-- [start:vit]
class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, E, P, stride=P)
        self.first = nn.Parameter(torch.zeros(extra, E))
        self.places = nn.Parameter(torch.zeros(S, E))
        self.layers = nn.ModuleList(Attention() for _ in range(2))

    def tokens(self, image):  # (B, 1, h * P, w * P) -> (B, S, E)
        patches = self.patches(image).flatten(2).mT  # (B, h * w, E)
        first = self.first.expand(len(image), -1, -1)
        return torch.cat([first, patches], 1) + self.places

    def forward(self, image):  # -> (B, E)
        x = self.tokens(image)
        for layer in self.layers:
            x = x + layer(x)
        return x[:, 0]  # the class token's
# --8<-- [end:vit]


# --8<-- [start:by_hand]
model = ViT()
for parameter in model.parameters():
    nn.init.normal_(parameter, std=0.3)
BRIGHT, CLASS, REGISTER = flags = [0, 1, 2]  # channels of the E
with torch.no_grad():
    for part in (model.first, model.places):
        part[:, flags] = 0
    model.patches.bias[flags] = 0
    model.patches.weight[flags] = 0
    model.patches.weight[BRIGHT] = 1 / P**2  # the mean of a patch
    model.first[0, CLASS] = 1
    model.first[1:, REGISTER] = 1
    layer = model.layers[0]
    for head, wanted in ((0, BRIGHT), (1, REGISTER)):
        rows = slice(head * D, head * D + D)
        for f in (layer.q, layer.k):
            f.weight[rows], f.bias[rows] = 0, 0
        layer.q.weight[head * D, CLASS] = 20  # the class token asks
        layer.k.weight[head * D, wanted] = 1
# --8<-- [end:by_hand]

# --8<-- [start:image]
bright = torch.zeros(h, w, dtype=torch.bool)
bright[1:5, 2] = bright[4, 2:7] = True  # an L
pixels = bright.repeat_interleave(P, 0).repeat_interleave(P, 1)
image = (pixels + 0.1 * torch.rand(h * P, w * P))[None, None]
# --8<-- [end:image]

# --8<-- [start:order]
tokens = model.tokens(image)
r, c = 4, 7
cut = image[:, :, r * P : r * P + P, c * P : c * P + P]
own = model.patches(cut).flatten()  # (E,)
by_rows, by_columns = extra + r * w + c, extra + c * h + r
torch.testing.assert_close(
    tokens[0, by_rows], own + model.places[by_rows])
assert not torch.allclose(
    tokens[0, by_columns], own + model.places[by_columns])
# --8<-- [end:order]
with torch.no_grad():
    every = torch.stack([piece for band in image[0, 0].split(P) for piece in band.split(P, 1)])  # (h * w, P, P)
    embedded = model.patches(every[:, None]).flatten(1)  # (h * w, E)
    torch.testing.assert_close(tokens[0, extra:], embedded + model.places[extra:])  # guard: every_patch_in_its_place

# --8<-- [start:record]
with attention_weights(model) as maps:
    model(image)
A = maps["layers.0"][0]  # (H, S, S)
row = A[:, 0]  # the class token's, (H, S)
seen = row[:, extra:].unflatten(-1, (h, w))  # (H, h, w)
print((100 * seen[0]).round().int())
assert torch.equal(seen[0] > seen[0].mean(), bright)
# --8<-- [end:record]

# --8<-- [start:twins]
width_first = row[:, extra:].unflatten(-1, (w, h)).mT
no_registers = row[:, 1 : 1 + h * w].unflatten(-1, (h, w))
column = A[:, extra:, 0].unflatten(-1, (h, w))  # who looks at it?
for name, wrong in (("width first", width_first),
                    ("extra = 1", no_registers),
                    ("a column", column)):
    assert wrong.shape == seen.shape
    assert not torch.allclose(wrong, seen, atol=0.01)
    kept = wrong[0][bright].sum() / wrong[0].sum()
    print(f"{name:11} on the L {kept:.2f}")
# --8<-- [end:twins]
order = torch.arange(h * w).view(w, h).mT.flatten()
assert torch.equal(width_first.flatten(1), seen.flatten(1)[:, order])  # guard: width_first_shuffles
two_later = (no_registers[0] > seen[0].mean()).flatten()[2:]
assert torch.equal(two_later, bright.flatten()[:-2])  # guard: two_places_later
side = torch.arange(5)
assert torch.equal(torch.arange(25).unflatten(-1, (5, 5)).mT, side[:, None] + 5 * side)  # guard: a_square_is_mirrored
right_share = seen[0][bright].sum() / seen[0].sum()
assert right_share > 0.95  # guard: the_head_finds_it
wrong_rows = torch.stack([row[0], torch.cat([row[0, :extra], width_first[0].flatten()])])
figure("twins", "attention", {"weights": wrong_rows}, labels={"grid": [h, w], "extra": extra})
show("right_share", f"{100 * right_share:.1f}")
mean = row.mean(0)[extra:].view(h, w)
mean_share = mean[bright].sum() / mean.sum()
assert mean_share < right_share / 2  # guard: the_mean_hides_it
show("most_on_none", f"{100 * row[1, :extra].sum():.0f}")
show("mean_share", f"{100 * mean_share:.0f}")

# --8<-- [start:picture]
from attention_map import attention_map

of_class = attention_map(row, grid=(h, w), extra=extra)
query = extra + 1 * w + 2  # the patch in row 1, column 2
of_patch = attention_map(A[:, query], grid=(h, w), extra=extra)
# --8<-- [end:picture]
bare = tokens[0] - model.places
cut = image[:, :, 1 * P : 1 * P + P, 2 * P : 2 * P + P]
torch.testing.assert_close(bare[query], model.patches(cut).flatten())  # guard: the_query_is_that_patch

# --8<-- [start:own]
*_, last = maps.values()  # the last layer's, (B, H, S, S)
height, width = image.shape[-2:]
grid = height // P, width // P
prefix = last.shape[-1] - grid[0] * grid[1]
assert (grid, prefix) == ((h, w), extra)
attention_map(last[0, :, 0], grid=grid, extra=prefix)

large = seen[0].repeat_interleave(P, 0).repeat_interleave(P, 1)
assert torch.equal(large > large.mean(), pixels)
# --8<-- [end:own]

# --8<-- [start:extra]
share = row[:, :extra].sum(-1)  # (H,) to class token and registers
for head in range(H):
    print(f"head {head}: {share[head]:.2f} on no patch")
alone = row[:, extra:] / (1 - share)[:, None]
layer = model.layers[0]
q = layer.q(tokens[0, 0]).unflatten(-1, (H, D))  # (H, D)
k = layer.k(tokens[0, extra:]).unflatten(-1, (H, D))  # (h * w, H, D)
scores = torch.einsum("hd,shd->hs", q, k) / D**0.5
torch.testing.assert_close(alone, scores.softmax(-1))
# --8<-- [end:extra]
assert share[1] > 0.9  # guard: most_of_head_1
flat = torch.full((h * w,), 1 / (h * w))
torch.testing.assert_close(alone[1], flat)  # guard: head_1_sees_nothing_in_particular
figure("class_token", "attention", {"weights": row}, labels={"grid": [h, w], "extra": extra})


# --8<-- [start:rollout]
def rollout(maps):
    """(S, S): from which token to which, over all layers."""
    total = torch.eye(S)
    for weights in maps.values():  # (1, H, S, S)
        mean = weights[0].mean(0)
        total = (mean + torch.eye(S)) / 2 @ total
    return total


before = rollout(maps)
torch.testing.assert_close(before.sum(-1), torch.ones(S))
upside_down = rollout(dict(reversed(maps.items())))
torch.testing.assert_close(upside_down.sum(-1), torch.ones(S))
assert not torch.allclose(upside_down, before, atol=0.01)
# --8<-- [end:rollout]

# --8<-- [start:gradient]
def contributions(model, image):
    """(weights, weights times slope) of the last layer, (H, S, S)."""
    with attention_weights(model, keep_grad=True) as maps:
        total = model(image).sum()
    weights = maps["layers.1"]
    (slope,) = torch.autograd.grad(total, weights)
    return weights[0].detach(), (weights * slope)[0].detach()


weights, shares = contributions(model, image)
# --8<-- [end:gradient]
assert not shares[:, 1:].any()  # guard: only_the_class_token_counts
with torch.no_grad():
    inner = tokens + model.layers[0](tokens)
    beside = (inner[:, 0] + model.layers[1].out.bias).sum()  # goes past attention
    torch.testing.assert_close(shares.sum() + beside, model(image).sum())  # guard: shares_add_up

# --8<-- [start:bias]
last = model.layers[1]
total = model(image).sum()
with torch.no_grad():
    last.v.bias += 1
same, moved = contributions(model, image)
up = last.out.weight.sum()  # what the total gains, on any image
torch.testing.assert_close(same, weights)
torch.testing.assert_close(model(image).sum(), total + up)
gain = last.out.weight.sum(0).view(H, D).sum(-1)  # (H,), of a head
torch.testing.assert_close(
    moved[:, 0], shares[:, 0] + gain[:, None] * weights[:, 0])
# --8<-- [end:bias]

# --8<-- [start:blind]
with torch.no_grad():
    for layer in model.layers:
        layer.v.weight.zero_()
        layer.v.bias.zero_()
with attention_weights(model) as maps:
    output = model(image)
assert torch.equal(output, model(torch.rand_like(image)))
rolled = rollout(maps)[0, extra:].view(h, w)
times = rolled[bright].mean() / rolled[~bright].mean()
print(f"a patch of the L has {times:.1f} times another's share")
assert times > 2
# --8<-- [end:blind]
show("blind_times", f"{times:.1f}")
_, nothing = contributions(model, image)
assert not nothing.any()  # guard: no_share_of_a_blind_model


# --8<-- [start:pool]
class Pool(nn.Module):
    """(B, E, h, w) -> (B, E): the mean of the cells is token 0."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.randn(1 + h * w, E))
        self.attention = nn.MultiheadAttention(E, H, batch_first=True)

    def forward(self, x):
        x = x.flatten(2).mT  # (B, h * w, E)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.places
        return self.attention(x, x, x)[0][:, 0]


pool = Pool()
with attention_weights(pool, keep_grad=True) as maps:
    total = pool(torch.randn(1, E, h, w)).sum()
pooled = maps["attention"]
(slope,) = torch.autograd.grad(total, pooled)
read = slope.abs().sum((0, 1, 3)) > 0  # (1 + h * w,) of queries
rows = read.nonzero().flatten().tolist()
print(f"{tuple(pooled.shape)}, rows that are read: {rows}")
# --8<-- [end:pool]
first = torch.arange(1 + h * w) == 0
assert torch.equal(read, first)  # guard: the_mean_alone_is_read

# --8<-- [start:text]
ids = torch.tensor([7, 3, 5, 9, 0, 0])  # 9 ends the text, 0 is padding
end, L = ids.argmax().item(), len(ids)
x = torch.randn(1, L, E)
later = torch.ones(L, L, dtype=torch.bool).triu(1)
text = nn.MultiheadAttention(E, H, batch_first=True)
with attention_weights(text) as maps:
    text(x, x, x, attn_mask=later)
on_padding = maps[""][0, :, :, ids == 0].sum(-1)  # (H, L)
assert on_padding[:, -1].min() > on_padding[:, end].max()
print(f"last row: {on_padding[:, -1].mean():.2f} on padding")
# --8<-- [end:text]
assert not on_padding[:, end].any()  # guard: the_end_sees_no_padding

# --8<-- [start:question]
try:
    attention_map(row, grid=(h, w), extra=1)
except ValueError as error:
    print(textwrap.fill(str(error), 72))
else:
    raise AssertionError("two keys too many are taken for patches")
attention_map(row, grid=(7, 8), extra=1)
wrong = row[0, 1:].view(7, 8)
print((100 * wrong).round().int())
# --8<-- [end:question]
