"""Exercises that answer: is it right, which known mistake is it, or how far off is it?

    answer = torch.ones(5, 5, dtype=torch.bool).tril()
    check("causal", answer)

A page's script registers what is right and what is known to be wrong, both computed, with `exercise`. A notebook carries
that script packed, by `of`, and runs it out of sight when the first answer is checked; so nothing gives the solution away
but who unpacks it. An answer is a tensor, a number, a text, a list of these, or a function.
"""

import base64
import contextlib
import copy
import io
import json
import math
import types
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SAYS = {
    "en": {
        "unanswered": "Not answered yet.",
        "right": "Right.",
        "kind": "Expected: {expected}. Yours: {came}.",
        "numbers": "{count} of {all} differ, the first at {place}.",
        "a function": "a function",
    },
    "ja": {
        "unanswered": "まだ答えがありません。",
        "right": "正解です。",
        "kind": "必要なのは{expected}、渡されたのは{came}です。",
        "numbers": "{all}個のうち{count}個が違います。最初に違うのは{place}です。",
        "a function": "関数",
    },
}


@dataclass
class Exercise:
    """What is right, in every form that is taken for right, and what is known to be wrong, by name."""

    right: list
    wrong: dict[str, Any]
    given: list[tuple] | None = None  # of a function: the arguments of each call
    slopes: bool = False  # whether it is asked for the gradient of each result's sum by its first argument as well


@dataclass
class Like:
    """A mistake that is no one value: an example of it, and what tells it of an answer of the right form."""

    example: Any
    test: Callable[[Any], bool]


@dataclass
class Verdict:
    """`kind` is unanswered, right, the name of a known mistake, kind (form, shape or type), or numbers."""

    kind: str
    told: dict[str, Any]


_known: dict[str, Exercise] = {}
_page = {"language": "en", "packed": "", "says": {}}


def exercise(name: str, right, *also, given: list[tuple] | None = None, slopes: bool = False, **wrong) -> None:
    """Register an exercise; `also` are other forms of the right answer. Where calls are `given`, answers are functions.

    Raises ValueError for a mistake named as what every exercise may tell.
    """
    if reserved := SAYS["en"].keys() & wrong.keys():
        raise ValueError(f"wrong: {reserved.pop()!r} is what every exercise may tell: name the mistake")
    if given is not None:
        right, *also = (_called(answer, given, slopes) for answer in (right, *also))
        wrong = {kind: _called(answer, given, slopes) for kind, answer in wrong.items()}
    _known[name] = Exercise(copy.deepcopy(_plain([right, *also])), copy.deepcopy(_plain(wrong)), given, slopes)


def check(name: str, answer) -> None:
    """Print what there is to say of an answer, without giving the right one away."""
    says = SAYS.get(_page["language"], SAYS["en"])
    verdict = Verdict("unanswered", {}) if answer is None or answer is ... else judge(answer, _task(name))
    text = says.get(verdict.kind) or _page["says"][name][verdict.kind]
    print(text.format(**{key: says.get(value, value) for key, value in verdict.told.items()}))


def judge(answer, task: Exercise) -> Verdict:
    """Which it is: right, a known mistake, of another kind, or other numbers."""
    if task.given is not None:
        if not callable(answer):
            return Verdict("kind", {"expected": "a function", "came": _described(answer)})
        answer = _called(answer, task.given, task.slopes)
        if all(one is None for one in answer):
            return Verdict("unanswered", {})
    answer = _plain(answer)
    for right in task.right:
        if _same(answer, right):
            return Verdict("right", {})
    right = task.right[0]
    for name, wrong in task.wrong.items():
        is_like = isinstance(wrong, Like) and _described(answer) == _described(right) and bool(wrong.test(answer))
        if is_like or (not isinstance(wrong, Like) and _same(answer, wrong)):
            return Verdict(name, {})
    if _described(answer) != _described(right):
        return Verdict("kind", {"expected": _described(right), "came": _described(answer)})
    wrong = [f"{place}{index or ''}" for place, indices in _apart(answer, right, "") for index in indices]
    return Verdict("numbers", {"count": len(wrong), "all": _size(right), "place": wrong[0] or "[]"})


def outcomes() -> Iterator[tuple[str, str]]:
    """(what should be told, what is) of every answer that is registered: for the script to claim."""
    for name, task in _known.items():
        for index, right in enumerate(task.right):
            yield f"{name} {index} right", f"{name} {index} {judge(right, _ungiven(task)).kind}"
        for kind, wrong in task.wrong.items():
            example = wrong.example if isinstance(wrong, Like) else wrong
            yield f"{name} {kind}", f"{name} {judge(example, _ungiven(task)).kind}"


def of(language: str, packed: str) -> None:
    """Say which page this is: in which language it speaks, its script and its sentences; the site's build packs them."""
    _known.clear()
    _page.update(language=language, packed=packed)


def _task(name):
    """An exercise, after its page's script has run out of sight. Raises KeyError for a name that it does not have."""
    if _page["packed"]:
        page = json.loads(zlib.decompress(base64.b85decode(_page["packed"])))
        _page.update(packed="", says=page["says"])
        with torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()):
            exec(page["code"], types.ModuleType("solutions").__dict__)
    if name not in _known:
        raise KeyError(f"there is no exercise {name!r} here: run the notebook's first cells; known: {[*_known]}")
    return _known[name]


def _ungiven(task):
    return Exercise(task.right, task.wrong)


def _called(function, given, slopes):
    """What a function returns for each list of arguments: copies, so that it may change them."""
    results = []
    for arguments in given:
        first, *rest = copy.deepcopy(_plain(arguments))
        if slopes:
            first.requires_grad_()
        results.append(function(first, *rest))
        if slopes and isinstance(results[-1], Tensor):
            results[-1].sum().backward()
            results.append(first.grad)
    return results


def _plain(value):
    """A value without gradients, on the CPU; tuples become lists."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _size(value) -> int:
    if isinstance(value, list):
        return sum(map(_size, value))
    return value.numel() if isinstance(value, Tensor) else 1


def _family(tensor):
    return "bool" if tensor.dtype == torch.bool else "float" if tensor.is_floating_point() else "int"


def _described(value) -> str:
    if isinstance(value, Tensor):
        return f"{_family(value)} {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_described, value))}]"
    return "a function" if callable(value) and not isinstance(value, type) else type(value).__name__


def _same(a, b) -> bool:
    return _described(a) == _described(b) and not any(len(where) for _, where in _apart(a, b, ""))


def _apart(a, b, place) -> list[tuple[str, list]]:
    """[(place, indices that differ)] of the parts of two values of one form."""
    if isinstance(b, list):
        return [pair for i, (x, y) in enumerate(zip(a, b, strict=True)) for pair in _apart(x, y, f"{place}[{i}]")]
    if isinstance(b, Tensor):
        if _family(b) == "float":
            double = a.dtype == b.dtype == torch.float64
            rtol, atol = (1e-7, 1e-7) if double else (1e-4, 1e-5)
            differ = ~torch.isclose(a.double(), b.double(), rtol=rtol, atol=atol, equal_nan=True)
        else:
            differ = a != b
        return [(place, differ.nonzero().tolist() if b.dim() else [[]] * int(differ))]
    close = math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-7) if isinstance(b, float) else a == b
    return [(place, [] if close else [[]])]
