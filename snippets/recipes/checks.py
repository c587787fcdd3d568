"""Four tests for an attention layer of your own: does it see the future or the padding, mix positions up, equal another one.

    assert not leaks_future(lambda x: layer(x, causal=True), x)
    assert not leaks_padding(lambda x: layer(x, padding), x, padding)
    assert permutation_equivariant(layer, x)
    assert same_function(mine, theirs, [(x,), (y,)])

Each runs the function as it stands: train or eval and gradients on or off are the caller's choice, and decide which of
PyTorch's code paths is tried. Each returns a Report, true or false, whose text says what was seen and where.
Letters: B batch, L positions, E width. Differences have the unit of the output.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Layer = Callable[[Tensor], Tensor]
CONSTANT = "an output that depends on x", "a constant"


@dataclass(frozen=True)
class Report:
    """True or false, and what was seen."""

    answer: bool
    difference: float  # the greatest one, absolute
    where: str

    def __bool__(self) -> bool:
        return self.answer

    def __str__(self) -> str:
        return f"{self.answer}: {self.difference:.3g} at {self.where}"


# --8<-- [start:leaks_future]
def leaks_future(f: Layer, x: Tensor, tolerance=1e-6) -> Report:
    """Does an output move when an input behind it is redrawn?

    x (..., L, E) -> f(x) (..., L, any width). True is a leak.
    """
    before = _steady(f, x)
    worst, where, most = 0.0, "no output", 0.0
    for j in range(x.shape[-2]):
        change = _per_position(before, f(_redrawn(x, j)))  # (L,)
        most = max(most, change.max().item())
        for i, difference in enumerate(change[:j].tolist()):
            if difference > worst:
                worst, where = difference, f"output {i}, input {j}"
    _require(most > 0, "f", *CONSTANT)
    return Report(worst > tolerance, worst, where)
# --8<-- [end:leaks_future]


# --8<-- [start:leaks_padding]
def leaks_padding(
    f: Layer, x: Tensor, padding: Tensor, tolerance=1e-6
) -> Report:
    """Does an output of a real position move when padding is redrawn?

    x (B, L, E) -> f(x) (B, L, any width); padding (B, L), True there.
    True is a leak.
    """
    real = ~_both_kinds(padding, x)
    before = _steady(f, x, real)
    redrawn = _draw(x, 0)
    after = f(torch.where(real[..., None], x, redrawn))
    change = _differences(before, after).amax(-1)  # (B, L)
    worst = change.masked_fill(padding, -1)
    moved = f(torch.where(real[..., None], redrawn, x))
    _require(bool((before != moved)[real].any()), "f", *CONSTANT)
    b, i = divmod(worst.argmax().item(), x.shape[1])
    most = worst[b, i].item()
    return Report(most > tolerance, most, f"sample {b}, output {i}")
# --8<-- [end:leaks_padding]


# --8<-- [start:permutation_equivariant]
def permutation_equivariant(
    f: Layer, x: Tensor, tolerance=1e-5, draws=5
) -> Report:
    """Is f of permuted positions the permuted f(x)?

    x (..., L, E) -> f(x) (..., L, any width). True for self-attention
    that knows no positions and no causal mask.
    """
    before = _steady(f, x)
    worst, where = 0.0, "no order"
    for order in _orders(x.shape[-2], draws):
        after = f(x[..., order, :])
        change = _per_position(before[..., order, :], after)  # (L,)
        if change.max() > worst:
            worst, where = change.max().item(), f"order {order}"
    return Report(worst <= tolerance, worst, where)
# --8<-- [end:permutation_equivariant]


# --8<-- [start:same_function]
def same_function(
    f: Callable, g: Callable, inputs: Iterable[tuple], tolerance=1e-5
) -> Report:
    """Do f and g return the same for every tuple of arguments?

    Tensors, None, or tuples of them; shape and dtype count, and
    differences are measured against max(1, the largest entry of g).
    """
    worst, where, inputs = 0.0, "no output", list(inputs)
    _require(bool(inputs), "inputs", "tuples of arguments", "none")
    for n, arguments in enumerate(inputs):
        for path, a, b in _pairs(f(*arguments), g(*arguments), ""):
            error = _error(a, b)
            if error > worst:
                worst, where = error, f"input {n}, output{path}"
    return Report(worst <= tolerance, worst, where)
# --8<-- [end:same_function]


def _require(holds: bool, argument: str, expected: object, got: object) -> None:
    if not holds:
        raise ValueError(f"{argument}: expected {expected}, got {got}")


def _differences(a: Tensor, b: Tensor) -> Tensor:
    """Entry by entry; NaN against a number is infinite, against NaN 0."""
    difference = (a.detach().double() - b.detach().double()).abs()
    one_nan = a.isnan() != b.isnan()
    same = (a == b) | (a.isnan() & b.isnan())  # infinities too
    return difference.masked_fill(same, 0).masked_fill(one_nan, math.inf)


def _per_position(a: Tensor, b: Tensor) -> Tensor:
    """(..., L, N) twice: the greatest difference at each of L."""
    _require(a.shape == b.shape, "f", f"{tuple(a.shape)}", tuple(b.shape))
    return _differences(a, b).movedim(-2, 0).flatten(1).amax(1)


def _error(a, b) -> float:
    """Greatest difference against max(1, the largest entry of b); infinite where kind, shape or dtype differ."""
    if a is None and b is None:
        return 0.0
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.shape != b.shape or a.dtype != b.dtype:
        return math.inf
    if a.numel() == 0:
        return 0.0
    largest = b.detach().double().abs().nan_to_num(0, 0, 0).max().item()
    return _differences(a, b).max().item() / max(1.0, largest)


def _pairs(a, b, path: str):
    """Two outputs, taken apart where both are tuples of one length, each pair with its place."""
    for name, x in (("f", a), ("g", b)):
        _require(x is None or isinstance(x, Tensor | list | tuple), name, "tensors, None, tuples", type(x).__name__)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for n, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _pairs(left, right, f"{path}[{n}]")
    else:
        yield path, a, b


def _steady(f: Layer, x: Tensor, real: Tensor | None = None) -> Tensor:
    """f(x), (..., L, N), after seeing that f gives it twice, finite where it is real (..., L). Raises ValueError for a wrong x or f."""
    _require(x.dim() >= 2 and x.shape[-2] >= 2, "x", "(..., L, E) with at least 2 positions", tuple(x.shape))
    _require(x.is_floating_point(), "x", "a floating dtype", x.dtype)
    first, second = f(x), f(x)
    _require(isinstance(first, Tensor), "f", "a tensor as output", type(first).__name__)
    _require(first.shape[:-1] == x.shape[:-1], "f", f"an output {tuple(x.shape[:-1])} + (width,)", tuple(first.shape))
    _require(_error(first, second) == 0, "f", "the same output for the same x (is dropout on?)", "two different ones")
    _require(bool((first if real is None else first[real]).isfinite().all()), "f", "finite outputs", "NaN or infinity")
    return first


def _both_kinds(padding: Tensor, x: Tensor) -> Tensor:
    """The padding (B, L) of x (B, L, E), after seeing that it has True and False."""
    _require(x.dim() == 3, "x", "(B, L, E), token ids embedded", tuple(x.shape))
    _require(padding.dtype == torch.bool, "padding", "torch.bool, True at padding", padding.dtype)
    _require(padding.shape == x.shape[:-1], "padding", tuple(x.shape[:-1]), tuple(padding.shape))
    _require(bool(padding.any() and not padding.all()), "padding", "some True and some False", "one of them")
    return padding


def _redrawn(x: Tensor, j: int) -> Tensor:
    """x with position j moved at random."""
    other = x.detach().clone()
    other[..., j, :] += _draw(other[..., j, :], j)
    return other


def _draw(x: Tensor, seed: int) -> Tensor:
    """Normal numbers like x, from a generator of their own: the caller's random numbers stay as they are."""
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)


def _orders(L: int, draws: int) -> list[list[int]]:
    """The reversed order and `draws` random ones."""
    generator = torch.Generator().manual_seed(0)
    return [list(reversed(range(L)))] + [torch.randperm(L, generator=generator).tolist() for _ in range(draws)]
