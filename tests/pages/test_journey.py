"""The reader's way: what stands under a title and at a page's end, what is refused, and lines of code that only check."""

import re

import pytest

from builder import project
from builder.pages import claims_page, journey
from builder.pages.page import Page


@pytest.fixture
def ways(monkeypatch):
    """A function that puts ways in place of docs/journey.yml's."""
    return lambda given: monkeypatch.setattr(journey, "ways", lambda: given)


LESSONS = {
    path.with_suffix("").as_posix()
    for path in project.page_files("en")
    if not path.as_posix().startswith(journey.WITHOUT)
}


def test_every_lesson_has_its_way():
    assert set(journey.ways()) == LESSONS
    assert list(journey.faults()) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"layouts/nowhere": {}}, "'layouts/nowhere' is no page"),
        ({"layouts/paper": {"needs": ["layouts/papers"]}}, "layouts/paper: needs 'layouts/papers' is no page"),
        ({"layouts/paper": {"after": "layouts/pytorch"}}, "layouts/paper: 'after' is none of exercise, needs, next"),
        ({"layouts/paper": {"next": "layouts/paper"}}, "layouts/paper: it cannot be its own next"),
        ({"attention/start": {"needs": ["layouts/rosetta"]}}, "attention/start needs, in the end, itself"),
    ],
)
def test_a_way_that_leads_nowhere_is_refused(ways, changed, told):
    ways(journey.ways() | changed)
    assert told in [fault.message for fault in journey.faults()]


def test_a_page_without_a_way_is_refused(ways):
    ways({page: way for page, way in journey.ways().items() if page != "masks/causal"})
    (fault,) = journey.faults()
    assert fault.message == "masks/causal is not there: say what it needs and where its reader goes next"


def test_what_a_page_says(ways):
    ways(
        {
            "layouts/rosetta": {
                "needs": ["layouts/paper", "layouts/pytorch"],
                "next": "layouts/cost",
                "exercise": "practice/masks",
            }
        }
    )
    made = journey.put("<h1>Title</h1>\n<p>Text.</p>", Page("en", "layouts/rosetta.md"))
    first, last = re.findall(r'<p class="page-(?:way|next)">.*?</p>', made)
    assert first.startswith('<p class="page-way">About 2 minutes · builds on <a href="../paper/">')
    assert '<a href="../pytorch/">' in first
    assert '<a href="../cost/">' in last
    assert '<a href="../../practice/masks/">' in last
    assert made.index("</h1>") < made.index(first) < made.index("Text.") < made.index(last)
    assert journey.put("<h1>About</h1>", Page("en", "about.md")) == "<h1>About</h1>"


def test_minutes_are_those_of_what_is_open():
    words = "<p>" + "word " * 240 * 5 + "</p>"
    assert journey.minutes(words) == 5
    assert journey.minutes("<p>" + "あ" * 600 * 5 + "</p>") == 5
    assert journey.minutes("<pre>" + "\n" * 199 + "</pre>") == 5
    assert journey.minutes(words + f"<details>{words}<details>{words}</details></details>") == 5
    assert journey.minutes("<figure></figure>" * 15) == 3
    assert journey.minutes("") == 2


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("x = 1\nassert x", [2]),
        ("torch.testing.assert_close(\n    a,\n    b)\ny = 2", [1, 2, 3]),
        ("for a in b:\n    c = a\n    assert c == a, (\n        a)\n", [3, 4]),
        ("assert a\n\nassert b", []),  # nothing to stand out
        ("x = assert_close", []),
    ],
)
def test_lines_that_only_check_are_set_off(code, lines):
    assert claims_page.checking_lines(code) == lines
