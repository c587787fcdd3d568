"""Tell from the numbers of a trained attention layer how it is laid out. Nothing is run: the weights are enough.

    told = packing(in_proj_weight, num_heads=8)
    told.answer, told.z, told.sure         # "(t h d)", 14.1, True
    together([heads(q, k, v, o) for q, k, v, o in layers]).answer

Mixing the numbers of a head in its queries and undoing that in its keys changes no output. For gradient flow such a symmetry
keeps W_q.T W_q - W_k.T W_k of each head, and W_v.T W_v - W_o W_o.T ("Transformative or Conservative?", arXiv 2506.06194), so
what training does to one side it does to the other. Other optimisers break this, but what they leave inside of heads
is still something else than between them. A reading of the file that cuts rows into the right heads and pairs
the right ones makes that difference visible, and so the answer to each question is the reading that shows most of it.

An answer that is not sure is none. z is no probability: in trained weights pairs of rows are not independent.
Rows: q (H * D, E), k and v (K * D, E), o (E, H * D), as nn.Linear has them, (out, in), head after head.
Letters: E embed_dim, H heads of queries, K heads of keys and values, D numbers of a head. Needs PyTorch alone.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

THRESHOLD = 5.0
OF_HEADS = 15.0  # groupings lie in one another: of MiniLM, one layer alone is wrong with z = 13


@dataclass(frozen=True)
class Verdict:
    """An answer, and by how many standard deviations it is ahead of the next one. Not to be relied upon unless sure."""

    answer: Hashable
    z: float
    sure: bool
    # what speaks for each answer: a z, squared; to be added up over layers
    evidence: dict = field(default_factory=dict, repr=False)
    threshold: float = field(default=THRESHOLD, repr=False)


# --8<-- [start:relation]
def relation(first: Tensor, second: Tensor, head_dim: int) -> float:
    """How differently rows are related inside heads and elsewhere: z.

    first (N, A), second (N, B), N = H * head_dim: row n of either is
    the same number of the same head. Two rows have a cosine in first
    and one in second, and these correlate, inside heads or between.
    """
    a, b = cosines(first), cosines(second)  # (N, N)
    head = torch.arange(len(a), device=a.device) // head_dim
    same = head[:, None] == head
    pair = torch.ones_like(same).triu(1)  # each pair of rows once
    inside, n = correlation(a, b, same & pair)
    between, m = correlation(a, b, ~same & pair)
    return (inside - between) * (1 / n + 1 / m) ** -0.5
# --8<-- [end:relation]


def cosines(rows: Tensor) -> Tensor:
    """(N, A) -> (N, N): the cosine of each row with each."""
    rows = F.normalize(rows.detach().double(), dim=1)
    return rows @ rows.T


def correlation(a: Tensor, b: Tensor, where: Tensor):
    """Of the entries where it is True: Fisher's z, and how many."""
    both = torch.stack([a[where], b[where]])
    r = torch.corrcoef(both)[0, 1].nan_to_num()  # constants: 0
    return r.clamp(-0.999, 0.999).atanh().item(), both.shape[1]


def decide(evidence: dict, threshold=THRESHOLD) -> Verdict:
    """The answer with most evidence. z: the root of its lead."""
    best, next_best = sorted(evidence, key=evidence.get)[:-3:-1]
    z = (evidence[best] - evidence[next_best]) ** 0.5
    return Verdict(best, z, z >= threshold, evidence, threshold)


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict of several layers: their evidence added up."""
    first, *others = verdicts
    total = dict(first.evidence)
    for verdict in others:
        for answer, evidence in verdict.evidence.items():
            total[answer] += evidence
    return decide(total, first.threshold)


def orders(num_heads: int, head_dim: int) -> dict[str, Tensor]:
    """Orders of 3 * H * D rows: where those of q, of k, of v lie.

    Each (3, H * D): the rows of q, head after head, those of k, of v.
    t is which of the three, h the head, d the number in it.
    """
    H, D = num_heads, head_dim
    rows = torch.arange(3 * H * D)
    return {
        "(t h d)": rows.view(3, H * D),
        "(h t d)": rows.view(H, 3, D).transpose(0, 1).flatten(1),
        "(h d t)": rows.view(H * D, 3).T,
    }


# --8<-- [start:packing]
def packing(
    weight: Tensor, num_heads: int, candidates: dict | None = None
) -> Verdict:
    """In which order a packed weight (3 * H * D, E) has its rows.

    candidates: name -> rows of q and rows of k, (2 or more, H * D),
    as from `orders`. That q and k change places cannot be told.
    """
    _divides(num_heads, len(weight) / 3, "weight", weight)
    head_dim = len(weight) // 3 // num_heads
    candidates = candidates or orders(num_heads, head_dim)
    return decide({
        name: relation(weight[rows[0]], weight[rows[1]], head_dim) ** 2
        for name, rows in candidates.items()
    })
# --8<-- [end:packing]


def orientation(q: Tensor, k: Tensor, num_heads: int) -> Verdict:
    """Of square q and k: are they (out, in), or (in, out)?"""
    head_dim = _square(q, k, num_heads)
    return decide({
        "(out, in)": relation(q, k, head_dim) ** 2,
        "(in, out)": relation(q.T, k.T, head_dim) ** 2,
    })


def orientation_out(v: Tensor, o: Tensor, num_heads: int) -> Verdict:
    """Of a square o, where v (out, in) is known."""
    head_dim = _square(v, o, num_heads)
    return decide({
        "(out, in)": relation(v, o.T, head_dim) ** 2,
        "(in, out)": relation(v, o, head_dim) ** 2,
    })


def heads(q: Tensor, k: Tensor, v: Tensor, o: Tensor) -> Verdict:
    """How many heads there are: 2 or more, of 4 numbers or more, as
    many of keys as of queries. Ask every layer of a model, and then
    all of them `together`."""
    N = len(q)
    if len(k) != N:
        raise ValueError(f"k: expected {N} rows as q has, got {len(k)}")
    counts = [H for H in range(2, N // 4 + 1) if N % H == 0]
    return decide({
        H: relation(q, k, N // H) ** 2 + relation(v, o.T, N // H) ** 2
        for H in counts
    }, OF_HEADS)


def rotary(q: Tensor, k: Tensor, num_heads: int) -> Verdict:
    """Which numbers of a head turn together: "half" or "interleaved".
    None: none do, or there is too little to tell.

    Of |q|^2 - |k|^2, training keeps the sum over two rows that turn
    together: what one gains, the other loses. k may be (K * D, E).
    """
    D = len(q) // num_heads
    if D % 2:
        return Verdict(None, 0.0, False, {None: 0.0})
    sizes = q.detach().double().square().sum(1).view(-1, D)  # (H, D)
    others = k.detach().double().square().sum(1).view(-1, D)  # (K, D)
    sizes = sizes.view(len(others), -1, D).sum(1)
    kept = sizes - others
    kept = kept - kept.mean(1, keepdim=True)
    pairs = {
        "half": kept.view(-1, 2, D // 2).transpose(1, 2),
        "interleaved": kept.view(-1, D // 2, 2),
    }  # (K, D / 2, 2)
    evidence = {None: 0.0}
    for name, pair in pairs.items():
        a, b = pair.flatten(0, 1).T
        r = (a @ b / (a.norm() * b.norm())).nan_to_num()
        z = -r.clamp(-0.999, 0.999).atanh() * len(a) ** 0.5
        evidence[name] = z.clamp(min=0).item() ** 2
    best = decide(evidence)
    if best.sure:
        return best
    return Verdict(None, best.z, False, evidence)


def groups(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, num_heads: int
) -> Verdict:
    """Which head of keys a head h of queries reads, where there are
    K < H: "h // (H / K)", so do its neighbours, or "h % K"."""
    H, D = num_heads, len(q) // num_heads
    K, h = len(k) // D, torch.arange(H)
    readings = {"h // (H / K)": h // (H // K), "h % K": h % K}
    inside = q.new_ones(H, D, D).bool().triu(1)
    evidence = dict.fromkeys(readings, 0.0)
    for own, shared in ((q, k), (o.T, v)):
        own, shared = _centred(own, D), _centred(shared, D)
        for name, read in readings.items():
            z, n = correlation(own, shared[read], inside)
            evidence[name] += n * z**2
    return decide(evidence)


def trained(*weights: Tensor) -> Verdict:
    """False if rows (N, A) may be drawn by chance: the squares of
    their cosines are then 1 / A on average. Heads play no part."""
    total = 0.0
    for weight in weights:
        squares = cosines(weight).square()
        N, A = weight.shape
        pairs = N * (N - 1) / 2
        mean = (squares.sum() - N) / 2 / pairs
        total += ((A * mean - 1) * (pairs / 2) ** 0.5).item()
    z = abs(total) / len(weights) ** 0.5
    sure = z >= THRESHOLD
    return Verdict(sure, z, sure, {True: z**2, False: 0.0})


def _centred(rows: Tensor, head_dim: int) -> Tensor:
    """(n * D, A) -> (n, D, D): cosines of the rows of each head, less their mean over the pairs of different rows."""
    rows = F.normalize(rows.detach().double(), dim=1).unflatten(0, (-1, head_dim))
    found = rows @ rows.mT
    mean = (found.sum((1, 2)) - head_dim) / (head_dim * (head_dim - 1))
    return found - mean[:, None, None]


def _divides(num_heads: int, width: float, name: str, weight: Tensor) -> None:
    if weight.dim() != 2 or width % num_heads:
        raise ValueError(f"{name}: expected rows of {num_heads} heads, got {tuple(weight.shape)}")


def _square(first: Tensor, second: Tensor, num_heads: int) -> int:
    """D, if both are (E, E)."""
    for name, weight in (("first", first), ("second", second)):
        if weight.dim() != 2 or weight.shape != (len(first), len(first)):
            raise ValueError(f"{name} weight: expected {len(first), len(first)}, got {tuple(weight.shape)}")
    _divides(num_heads, len(first), "first weight", first)
    return len(first) // num_heads
