"""The take-home judge of exercises: right in every form, known mistakes by name, and how far off anything else is."""

import exercises
import pytest
import torch
from exercises import Like, check, exercise, judge, outcomes

from builder.pages.exercises import packed

future = torch.ones(4, 4, dtype=torch.bool).triu(1)


@pytest.fixture(autouse=True)
def page():
    """No exercise from another test, and none left behind."""
    before = dict(exercises._page)
    exercises._known.clear()
    yield
    exercises._known.clear()
    exercises._page.update(before)


def told(name, answer):
    verdict = judge(answer, exercises._known[name])
    return verdict.kind, verdict.told


def test_right_in_every_form_and_mistakes_by_name():
    exercise("mask", future, future.double() * -1e9, function=~future, past=future.T)
    for answer, kind in (
        (future.clone(), "right"),
        (future.float() * -1e9, "right"),
        (~future, "function"),
        (future.T, "past"),
        (future.int(), "kind"),
    ):
        assert told("mask", answer)[0] == kind
    assert list(outcomes()) == [(line, line) for line in ("mask 0 right", "mask 1 right", "mask function", "mask past")]


def test_two_mistakes_of_one_value_are_noticed():
    exercise("mask", future, one=~future, other=~future)
    assert [line for line in outcomes() if line[0] != line[1]] == [("mask other", "mask one")]


def test_what_differs_is_counted_and_placed():
    exercise("mask", future)
    answer = future.clone()
    answer[2, 1] = answer[3, 3] = True
    assert told("mask", answer) == ("numbers", {"count": 2, "all": 16, "place": "[2, 1]"})
    exercise("pair", (torch.zeros(2, 3), 5))
    assert told("pair", [torch.zeros(2, 3), 6]) == ("numbers", {"count": 1, "all": 7, "place": "[1]"})
    assert told("pair", (torch.tensor([[0, 0, 0], [0, 1.0, 0]]), 5))[1]["place"] == "[0][1, 1]"
    assert told("pair", torch.zeros(2, 3)) == ("kind", {"expected": "[float (2, 3), int]", "came": "float (2, 3)"})
    exercise("number", torch.tensor(2.0))
    assert told("number", torch.tensor(3.0)) == ("numbers", {"count": 1, "all": 1, "place": "[]"})


def test_precision_decides_how_near_is_right():
    exercise("product", torch.ones(2, dtype=torch.float64))
    assert told("product", torch.full((2,), 1 + 1e-6, dtype=torch.float64))[0] == "numbers"
    assert told("product", torch.full((2,), 1 + 1e-6))[0] == "right"
    assert told("product", torch.full((2,), 1.01))[0] == "numbers"
    exercise("gap", torch.tensor([torch.nan, 1.0]))
    assert told("gap", torch.tensor([torch.nan, 1.0]))[0] == "right"
    assert told("gap", torch.ones(2))[0] == "numbers"


def test_functions_are_called_on_copies_and_asked_for_their_slopes():
    x = torch.ones(3)
    exercise("square", lambda x: x**2, given=[(x,)], slopes=True, detached=lambda x: x.detach() ** 2 + 0 * x)

    def in_place(x):
        x.data.mul_(2)
        return x**2

    assert told("square", torch.square)[0] == "right"
    assert told("square", lambda x: x.detach() ** 2 + 0 * x)[0] == "detached"
    assert told("square", in_place)[0] == "numbers"
    assert torch.equal(x, torch.ones(3))
    assert told("square", 3) == ("kind", {"expected": "a function", "came": "int"})
    assert told("square", lambda x: None)[0] == "unanswered"


def test_a_mistake_may_be_told_by_what_is_true_of_it():
    """Where no value can be known beforehand, as after dropout."""
    exercise("rows", torch.full((2, 4), 0.25), sums=Like(torch.ones(2, 4), lambda a: (a.sum(-1) > 2).any()))
    assert [told("rows", torch.full(shape, 0.9))[0] for shape in ((2, 4), (2, 5))] == ["sums", "kind"]
    assert told("rows", torch.full((2, 4), 0.3))[0] == "numbers"
    assert ("rows sums", "rows sums") in outcomes()


def test_a_name_of_what_everything_may_be_told_is_no_mistake():
    with pytest.raises(ValueError, match="'numbers' is what every exercise may tell"):
        exercise("mask", future, numbers=~future)


CODE = """
import torch
torch.manual_seed(0)
print("nobody hears it")
future = torch.rand(4, 4) > 0.5
from exercises import exercise
exercise("mask", future, function=~future)
"""
SAYS = {"mask": {"function": "逆です。"}}


def test_a_packed_page_is_opened_when_the_first_answer_comes(capsys):
    exercises.of("ja", packed(CODE, SAYS))
    before = torch.random.get_rng_state()
    check("mask", None)
    check("mask", ...)
    assert not exercises._known
    torch.manual_seed(0)
    right = torch.rand(4, 4) > 0.5
    torch.random.set_rng_state(before)
    for answer in (right, ~right, torch.ones(2)):
        check("mask", answer)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert capsys.readouterr().out.splitlines() == [
        "まだ答えがありません。",
        "まだ答えがありません。",
        "正解です。",
        "逆です。",
        "必要なのはbool (4, 4)、渡されたのはfloat (2,)です。",
    ]
    assert "future" not in packed(CODE, SAYS)
    with pytest.raises(KeyError, match="there is no exercise 'other' here"):
        check("other", right)


def test_a_page_without_its_first_cells_says_so():
    exercises.of("en", "")
    check("mask", None)
    with pytest.raises(KeyError, match="run the notebook's first cells"):
        check("mask", future)
