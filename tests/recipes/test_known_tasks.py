"""The tasks say where to look, and training gives the same layer twice."""

import known_tasks
import pytest
import torch
from known_tasks import TASKS, L, draw, judge, known_answer, train


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_stands_at_the_key(task):
    torch.manual_seed(0)
    tokens, answers, keys = draw(task, 50)
    for words, wanted, places in zip(tokens.tolist(), answers.tolist(), keys.tolist(), strict=True):
        for i, (answer, key) in enumerate(zip(wanted, places, strict=True)):
            if task == "first match":
                assert key == answer == words.index(words[i])
            elif task == "previous":
                assert key == i - 1
                assert i == 0 or answer == words[i - 1]
            else:
                assert key == (L - 1 - i if task == "reverse" else i)
                assert answer == words[key]


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match=r"task: expected one of \('copy', .*, got 'sort'"):
        draw("sort", 2)


def test_training_is_the_same_twice_and_leaves_the_threads(monkeypatch):
    monkeypatch.setattr(known_tasks, "STEPS", 20)
    threads = torch.get_num_threads()
    first, second = (known_answer("copy", 2) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["map"][0], first["map"][1])
    assert torch.get_num_threads() == threads


def test_the_judge_counts_rows(monkeypatch):
    """A layer that looks at its own place and copies it is right in all; without words it guesses."""
    monkeypatch.setattr(known_tasks, "STEPS", 200)
    model = train("copy", 0)
    assert judge("copy", model)["share"] == judge("copy", model)["correct"] == 1
    assert judge("copy", model)["blind"] < 0.15
    assert judge("reverse", model)["share"] == 0
