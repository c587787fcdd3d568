"""Train one small attention layer on tasks whose right attention map is known before training.

    study = cached(known_answer, "reverse", 8)  # eight seeds
    study["share"]  # (8,): of the rows, how many look most at the right key

Letters: N sequences, L tokens, V words, E embed_dim. One head, no residual connection: what the layer puts out can come
from where it looks, and from nowhere else.
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

L, E, STEPS, BATCH = 10, 32, 300, 32


# --8<-- [start:tasks]
def draw(task: str, N: int) -> tuple[Tensor, Tensor, Tensor]:
    """tokens (N, L); answers (N, L); right keys (N, L), -1: any."""
    V = 5 if task == "first match" else 20  # few words: many repeats
    tokens = torch.randint(V, (N, L))
    here = torch.arange(L).expand(N, L)
    if task in ("copy", "plain copy"):
        keys = here
    elif task == "reverse":
        keys = L - 1 - here
    elif task == "previous":
        keys = here - 1  # the first token has none
    elif task == "first match":
        same = tokens[:, :, None] == tokens[:, None, :]  # (N, L, L)
        keys = same.int().argmax(-1)  # the first that is the same
        return tokens, keys, keys  # the answer is where it stands
    else:
        raise ValueError(f"task: expected one of {TASKS}, got {task!r}")
    return tokens, tokens.gather(1, keys.clamp(min=0)), keys
# --8<-- [end:tasks]


TASKS = "copy", "reverse", "previous", "first match", "plain copy"


# --8<-- [start:model]
class OneHead(nn.Module):
    """Tokens and positions, one head of attention, an answer."""

    def __init__(self, task: str):
        super().__init__()
        # in float32 another processor's rounding trains another model
        of = {"dtype": torch.float64}
        self.words = nn.Embedding(20, E, **of)
        self.places = nn.Parameter(torch.randn(L, E, **of))
        self.attention = nn.MultiheadAttention(
            E, 1, batch_first=True, **of
        )
        self.answer = nn.Linear(E, 20, **of)
        self.by_place = task == "copy"

    def forward(self, tokens, words_in_values=True):
        """(N, L) -> answers (N, L, 20) and weights (N, L, L)."""
        places = self.places.expand(len(tokens), L, E)
        x = self.words(tokens) + places
        look = places if self.by_place else x  # query and key
        value = x if words_in_values else places
        y, A = self.attention(look, look, value)  # one head
        return self.answer(y), A
# --8<-- [end:model]


# --8<-- [start:train]
def train(task: str, seed: int) -> OneHead:
    torch.manual_seed(seed)
    model = OneHead(task)
    optimizer = torch.optim.AdamW(
        model.parameters(), 1e-2, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-2, total_steps=STEPS
    )
    for _ in range(STEPS):
        tokens, answers, keys = draw(task, BATCH)
        answers = answers.masked_fill(keys < 0, -100)  # not asked
        logits, _ = model(tokens)
        loss = F.cross_entropy(logits.transpose(1, 2), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()
# --8<-- [end:train]


# --8<-- [start:judge]
@torch.no_grad()
def judge(task: str, model: OneHead) -> dict:
    """On new sequences: rows with the maximum at the right key."""
    torch.manual_seed(1000)
    tokens, answers, keys = draw(task, 512)
    logits, A = model(tokens)
    blind, _ = model(tokens, words_in_values=False)
    asked = keys >= 0

    def right(found, wanted):
        return (found == wanted)[asked].double().mean()

    return {
        "share": right(A.argmax(-1), keys),
        "correct": right(logits.argmax(-1), answers),
        "blind": right(blind.argmax(-1), answers),
        "mean": A.mean(0),  # (L, L), over sequences
        "tokens": tokens[0],
        "map": A[0],
    }
# --8<-- [end:judge]


def known_answer(task: str, seeds: int) -> dict:
    """What `judge` says for each seed, stacked: share (seeds,), correct (seeds,), map (seeds, L, L) …"""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order
    found = []
    for seed in range(seeds):
        print(f"\r{task}: seed {seed + 1} of {seeds}", end="", file=sys.stderr, flush=True)
        found.append(judge(task, train(task, seed)))
    print(file=sys.stderr)
    torch.set_num_threads(threads)
    return {name: torch.stack([one[name] for one in found]) for name in found[0]}
