# --8<-- [start:setup]
import torch
from six_ways import WAYS, fast_path, loop, packed, sdpa
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

torch.manual_seed(0)
B, L, E, H = 2, 5, 24, 4


def layer(H):
    mha = nn.MultiheadAttention(
        E, H, batch_first=True, dtype=torch.float64
    )
    for parameter in mha.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mha.eval()
# --8<-- [end:setup]

# --8<-- [start:same]
mha = layer(H)
x = torch.randn(B, L, E, dtype=torch.float64, requires_grad=True)
leaves = [x, *mha.parameters()]
paper = loop(mha, x)
slopes = torch.autograd.grad(paper.square().sum(), leaves)
for way in WAYS:
    if way is not loop:
        output = way(mha, x)
        torch.testing.assert_close(output, paper)
        if way is not fast_path:  # it has no gradients
            found = torch.autograd.grad(output.square().sum(), leaves)
            for mine, theirs in zip(found, slopes, strict=True):
                torch.testing.assert_close(mine, theirs)
# --8<-- [end:same]


# --8<-- [start:counters]
class Operations(TorchDispatchMode):
    """Counts what Python asks PyTorch's kernels to do."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def counted(mode, way, mha, x):
    with torch.no_grad(), mode:
        way(mha, x)
    return mode


def multiply_adds(way, mha, x):
    counter = FlopCounterMode(display=False)  # counts 2 for each
    return counted(counter, way, mha, x).get_total_flops() // 2
# --8<-- [end:counters]

# --8<-- [start:counts]
projections, attention = 4 * B * L * E * E, 2 * B * L * L * E
print(f"projections {projections}, attention {attention}")
found, operations = {}, {}
for way in WAYS:
    found[way] = multiply_adds(way, mha, x)
    operations[way] = counted(Operations(), way, mha, x).count
    print(f"{way.__name__:12} multiply-adds {found[way]:6}", end="")
    print(f", operations {operations[way]:3}")
visible = [way for way in WAYS if way not in (sdpa, fast_path)]
for way in visible:
    assert found[way] == projections + attention
# --8<-- [end:counts]
show("operations_loop", operations[loop])
show("operations_sdpa", operations[sdpa])

# --8<-- [start:blind]
version = f"so it was in torch 2.13, this is {torch.__version__}"
assert found[sdpa] == projections, version
assert found[fast_path] == 0, version
# --8<-- [end:blind]

# --8<-- [start:heads]
for heads in (2, 3, 6, 12):
    other = layer(heads)
    calls = [counted(Operations(), f, other, x).count for f in WAYS]
    for way in visible:
        assert multiply_adds(way, other, x) == found[way]
    print(f"H {heads:2}  operations {calls}")
# --8<-- [end:heads]


# --8<-- [start:kept]
def kept(way, mha, x):
    """Bytes that autograd keeps for the way back, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in mha.parameters()}
    sizes = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        output = way(mha, x)  # alive until the sizes are added up
    return output.numel() and sum(sizes.values())
# --8<-- [end:kept]


# --8<-- [start:bytes]
lengths = [16, 32, 64, 128, 256]
memory = {way.__name__: [] for way in WAYS if way is not fast_path}
for length in lengths:
    tokens = torch.randn(B, length, E, dtype=x.dtype, requires_grad=True)
    for way in WAYS:
        if way is not fast_path:
            memory[way.__name__].append(kept(way, mha, tokens))
for name, row in memory.items():
    print(f"{name:12} {row}  last/first {row[-1] / row[0]:.0f}")
growth = lengths[-1] / lengths[0]
assert memory["sdpa"][-1] < 1.1 * growth * memory["sdpa"][0]
assert memory["packed"][-1] > 3 * growth * memory["packed"][0]
weights = B * H * lengths[-1] ** 2 * x.element_size()
assert memory["packed"][-1] - memory["sdpa"][-1] > weights / 2
# --8<-- [end:bytes]
figure(
    "kept",
    "curves",
    {"x": torch.tensor(lengths), **{name: torch.tensor(row) / 1024 for name, row in memory.items()}},
    {"log": ["x", "y"]},
)

# --8<-- [start:answer]
wide = nn.MultiheadAttention(
    512, 8, batch_first=True, device="meta"
).eval()  # shapes without numbers
shares = {}
for length in (128, 1024, 2048, 4096):
    tokens = torch.empty(1, length, 512, device="meta")
    total = multiply_adds(packed, wide, tokens)
    shares[length] = 1 - 4 * length * 512**2 / total
    print(f"L {length:4}  attention {shares[length]:.0%}")
assert shares[2 * 512] == 1 / 2
# --8<-- [end:answer]

# The times: measured once by tests/bench_layouts.py, on the machine that the file names.
import json
from pathlib import Path

data = json.loads(Path(__file__).with_name("cost.json").read_text(encoding="utf-8"))
for name, value in data["machine"].items():
    show(name, value)
NAMES = {"forward": "", "forward_backward": "_backward"}
for kind, suffix in NAMES.items():
    ways = data["reference"][kind]
    low, median, high = (torch.tensor([own["ms"][i] for own in ways.values()]) for i in range(3))
    figure(
        f"ways{suffix}",
        "bars",
        {"median": median, "low": low, "high": high},
        {"categories": list(ways), "low": "low", "high": "high"},
    )
    for way, own in ways.items():
        show(f"{way}{suffix}", f"{own['ratio'][1]:.2f}")
    for part, letter in (("heads", "H"), ("lengths", "L")):
        rows, curves, band = data[part][kind], {}, {}
        for way in rows[0]:
            if way != "with_weights":  # what the others are divided by
                ratios = torch.tensor([row[way]["ratio"] for row in rows])  # (sizes, 3)
                curves |= {way: ratios[:, 1], f"{way}_low": ratios[:, 0], f"{way}_high": ratios[:, 2]}
                band[way] = [f"{way}_low", f"{way}_high"]
        figure(
            f"{part}{suffix}",
            "curves",
            {"x": torch.tensor(data[part][letter]), **curves},
            {"log": ["x", "y"], "band": band},
        )
for name, value in data["reference"]["sizes"].items():
    show(f"reference_{name}", value)
show("lengths_B", data["lengths"]["sizes"]["B"])
forward, heads, long = data["reference"]["forward"], data["heads"]["forward"], data["lengths"]["forward"]
show("most_heads", data["heads"]["H"][-1])
show("loop_most_heads", f"{heads[-1]['loop']['ratio'][1]:.1f}")
show("shortest", data["lengths"]["L"][0])
show("loop_shortest", f"{long[0]['loop']['ratio'][1]:.1f}")
show("loop_shortest_backward", f"{data['lengths']['forward_backward'][0]['loop']['ratio'][1]:.1f}")
show("longest", data["lengths"]["L"][-1])
show("sdpa_longest", f"{long[-1]['sdpa']['ratio'][1]:.2f}")
show("loop_low", f"{forward['loop']['ratio'][0]:.2f}")
show("loop_high", f"{forward['loop']['ratio'][2]:.2f}")
# what the sentences say of the times
assert 1 < forward["loop"]["ratio"][1] < 4
assert forward["per_matrix"]["ratio"][1] < 1.2 * forward["packed"]["ratio"][1]
assert forward["sdpa"]["ratio"][1] < 1
assert heads[-1]["loop"]["ratio"][1] > 1.5 * heads[0]["loop"]["ratio"][1]
assert long[-1]["sdpa"]["ratio"][1] < 0.8
assert long[0]["loop"]["ratio"][1] > 1.2 * forward["loop"]["ratio"][1]
