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
        (
            {"layouts/paper": {"needs": "layouts/rosetta"}},
            "layouts/paper: needs is a list of pages, not 'layouts/rosetta'",
        ),
        ({"layouts/paper": {"next": ["layouts/rosetta"]}}, "layouts/paper: next is one page, not ['layouts/rosetta']"),
        ({"attention/start": {"needs": ["layouts/rosetta"]}}, "attention/start needs, in the end, itself"),
    ],
)
def test_a_way_that_leads_nowhere_is_refused(ways, changed, told):
    ways(journey.ways() | changed)
    assert told in [fault.message for fault in journey.faults()]


def test_a_page_of_which_nothing_is_said_needs_nothing():
    assert journey._loaded("layouts/paper:\nlayouts/rosetta: {needs: [layouts/paper]}")["layouts/paper"] == {}


def test_a_page_without_a_way_is_refused(ways):
    ways({page: way for page, way in journey.ways().items() if page != "masks/causal"})
    (fault,) = journey.faults()
    assert fault.message == "masks/causal is not there: say what it needs and where its reader goes next"


@pytest.fixture
def pages(monkeypatch, tmp_path):
    """A function that makes the pages of a language: {path without .md: Markdown}."""
    monkeypatch.setattr(project, "DOCS", tmp_path)

    def make(given, language="en"):
        for page, markdown in given.items():
            path = tmp_path / language / f"{page}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(markdown)

    return make


def test_what_a_page_says(site, pages, ways):
    ways(
        {
            "layouts/rosetta": {
                "needs": ["layouts/paper", "layouts/pytorch"],
                "next": "layouts/cost",
                "exercise": "practice/masks",
            }
        }
    )
    named = ["rosetta", "paper", "pytorch", "cost"]
    pages({f"layouts/{name}": f"# {name} {{ #t }}" for name in named} | {"practice/masks": "# masks { #t }"})
    made = journey.put("<h1>Title</h1>\n<p>Text.</p>", Page("en", "layouts/rosetta.md"))
    first, last = re.findall(r'<p class="page-(?:way|next)">.*?</p>', made)
    assert first.startswith('<p class="page-way">About 2 minutes · builds on <a href="../paper/">')
    assert '<a href="../pytorch/">' in first
    assert '<a href="../cost/">' in last
    assert '<a href="../../practice/masks/">' in last
    assert made.index("</h1>") < made.index(first) < made.index("Text.") < made.index(last)
    assert journey.put("<h1>About</h1>", Page("en", "about.md")) == "<h1>About</h1>"


WORDS = "word " * 200 * 5


@pytest.mark.parametrize(
    ("markdown", "minutes"),
    [
        (WORDS, 5),
        ("あ" * 500 * 5, 5),
        (f"{WORDS}<!-- claim: {WORDS.strip()} -->", 5),
        (f'??? setup "Set-up"\n\n    {WORDS}', 2),
        (f'!!! trap "Trap"\n\n    {WORDS}', 5),
        (f"<details><summary>Hint</summary>\n\n{WORDS}\n\n</details>\n\n{WORDS}", 5),
        ("```figure a\ntitle: A\n```\n\n" * 12, 3),
        ("$$\na = b\n$$\n\n" * 18, 3),
        ('```python\n--8<-- "recipes/paper_heads.py"\n```', None),
        ("## 1. A task { #a }\n\n" * 3, 2),
        ("", 2),
    ],
)
def test_minutes_are_those_of_what_is_open(pages, markdown, minutes):
    pages({"masks/one": markdown, "practice/one": markdown})
    lines = project.SNIPPETS.joinpath("recipes/paper_heads.py").read_text().count("\n")
    assert journey.minutes("en", "masks/one") == (minutes or -(-lines // 30))
    exercises = markdown.count("## 1.")
    assert journey.minutes("en", "practice/one") == (5 * exercises + 1 if exercises else minutes or -(-lines // 30))


def test_a_chapter_is_a_line_with_branches(pages, ways):
    ways(
        {
            "masks/index": {"next": "masks/a"},
            "masks/a": {},
            "masks/b": {"needs": ["masks/a"]},
            "masks/c": {"needs": ["masks/a", "masks/b", "layouts/z"], "exercise": "practice/p"},
            "masks/aside": {"needs": ["masks/a"]},
            "masks/alone": {},
            "layouts/z": {},
            "practice/p": {},
        }
    )
    pages(
        {page: f"---\ndescription: Of {page}.\n---\n\n# Title of {page} {{ #t }}\n" for page in journey.ways()}
        | {"masks/index": "# The chapter { #c }\n\n```journey\n```\n"}
    )
    page = Page("en", "masks/index.md")
    drawn = journey.put_map(page.source, page)
    assert drawn.count("data-search-exclude") == 1
    shape = re.sub(
        r'<a href="([a-z]+)/">.*?</p>| class="[^"]*"| data-search-exclude|\s',
        lambda match: match[1] or "",
        drawn.split("}")[1],
    )
    assert shape == "<ol><li>a<ol><li>aside</li></ol></li><li>b</li><li>c</li><li>alone</li></ol>"
    assert 'Title of masks/c</a> <span class="minutes">2 min</span><p>Of masks/c. Builds on <a href="a/">' in drawn
    assert "Builds on" not in drawn.split("Of masks/c")[0]
    put = journey.put("<h1>The chapter</h1>", page)
    assert '<p class="page-way">5 pages, about 10 minutes</p>' in put
    assert 'To try it yourself: <a href="../practice/p/">' in put


def test_a_language_is_led_to_what_it_has(pages, ways):
    ways({"masks/index": {"next": "masks/a"}, "masks/a": {"needs": ["layouts/z"], "next": "masks/b"}, "masks/b": {}})
    pages({"masks/index": "# I { #i }", "masks/a": "# A { #a }"}, "de")
    chapter, page = Page("de", "masks/index.md"), Page("de", "masks/a.md")
    assert journey.chapter_of("masks/index", "de") == ["masks/a"]
    assert journey.drawn(chapter).count("<li>") == 1
    assert "<a" not in journey.put("<h1>A</h1>", page)


def test_a_link_may_say_the_minutes_of_where_it_leads(pages, ways):
    ways({"masks/index": {}, "masks/a": {}, "masks/b": {}})
    pages(dict.fromkeys(journey.ways(), f"# T {{ #t }}\n\n{WORDS}") | {"index": "[one](masks/a.md){ .minutes }"})
    page = Page("en", "index.md")
    link = '<a class="minutes" href="{}">one</a>'
    put = journey.put(link.format("masks/a/#b") + link.format("masks/"), page)
    assert '</a> <span class="minutes">5 min</span>' in put
    assert '</a> <span class="minutes">2 pages, about 10 minutes</span>' in put
    assert not page.faults
    pages({"masks/a": f"# T {{ #t }}\n\n{WORDS * 2}"})
    assert "10" in journey.said(page), "a page is made anew when the minutes that it says are others"
    pages({"masks/b": "# B { #b }\n\n[one](a.md){ .minutes } [one](../masks/a.md){ .minutes }"})
    assert journey.said(Page("en", "masks/b.md")).count("10 min") == 2
    journey.put(link.format("about/"), page)
    assert [fault.message for fault in page.faults] == ["about/ has no minutes: it is no page of docs/journey.yml"]


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
