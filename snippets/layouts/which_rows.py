# --8<-- [start:rows]
import torch

E, H = 24, 4
D = E // H
# a number for each row, cut as the module cuts: q, k, v, then heads
rows = torch.arange(3 * E).view(3, H, D)
key_2 = rows[1, 2]
a, b = E + 2 * D, E + 3 * D
assert torch.equal(key_2, torch.arange(a, b))
print(f"in_proj_weight[{a}:{b}]")
# --8<-- [end:rows]

# --8<-- [start:columns]
columns = torch.arange(E).view(H, D)
a, b = 3 * D, 4 * D
assert torch.equal(columns[3], torch.arange(a, b))
print(f"out_proj.weight[:, {a}:{b}]")
# --8<-- [end:columns]

# --8<-- [start:owner]
row = 41
t, head, column = (rows == row).nonzero()[0].tolist()
assert (t, head) == (row // E, row % E // D)
print("qkv"[t], head)
# --8<-- [end:owner]

# --8<-- [start:mistakes]
by_head = torch.arange(3 * E).view(H, 3, D)
first, last = by_head[2, 1, 0].item(), by_head[2, 1, -1].item()
wrong = {
    "last": (E + 2 * D, E + 3 * D - 1),
    "counted": (E + 1 * D, E + 2 * D),
    "value": (2 * E + 2 * D, 2 * E + 3 * D),
    "by_head": (first, last + 1),
    "width": (E + 2 * H, E + 3 * H),
}
for name, (a, b) in wrong.items():
    print(f"{name:8} [{a}:{b}]")
    assert [*range(a, b)] != key_2.tolist()
# --8<-- [end:mistakes]
