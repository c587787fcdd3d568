"""The site in Firefox: a handful of pages, what a hand does to each explorer, the drawer, paper.

test_browser.py and test_hands.py go further in Chromium.
"""

import base64
import re

import browser
import firefox as installed
import pytest

PAGES = [
    "",
    "layouts/rosetta/",
    "layouts/grid/",
    "attention/dot-product/",
    "weights/text-classification/",
    "masks/fully-masked-rows/",
]
pytestmark = pytest.mark.ci  # Chromium is asked the same and more
both = pytest.mark.parametrize("language", browser.LANGUAGES)


@pytest.fixture(scope="module")
def running():
    with installed.launched_or_told() as firefox:
        yield firefox


@pytest.fixture
def firefox(running, server):
    """A function that opens a page: firefox("en/layouts/rosetta/", width=360); afterwards its log must be empty."""

    def opened(address, width=1280, wait_for="body"):
        running.open(f"{server.base}/{address}", width)
        running.until("(selector) => document.querySelector(selector)", wait_for)
        return running

    yield opened
    assert not running.noticed()


@both
@pytest.mark.parametrize("address", PAGES)
def test_a_page_is_whole(firefox, address, language):
    page = firefox(f"{language}/{address}", 320)
    for width in (320, 1280):
        page.resize(width)
        wide, window = page.run("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= window
    letters = """() => [...document.querySelectorAll(".math use")].every((use) => use.getBoundingClientRect().width)"""
    assert page.until(letters), "from the page and from the sheet that all pages share"
    terms = """() => [...document.querySelectorAll("article a.term")].map((term) => getComputedStyle(term).textDecorationLine)"""
    assert set(page.run(terms)) <= {"underline"}


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_every_point_of_the_plane_is_dragged(firefox, kind):
    page = firefox("en/attention/dot-product/", 360 if kind == "touch" else 1280, ".e-handle")
    told = (
        "(index) => document.querySelectorAll('.e-handle')[index].getAttribute('aria-valuetext').replaceAll('−', '-')"
    )
    for index in range(6):
        x, y = page.middle(".e-handle .e-dot", index)
        size, scrolled = page.run("() => [document.querySelector('.e-picture').getBoundingClientRect().width, scrollY]")
        before = [float(number) for number in re.findall(r"-?\d\.\d+", page.run(told, index))]
        dx, dy = (-40 if before[0] > 0 else 40), (40 if before[1] > 0 else -40)
        page.pointer((x, y), "down", *((x + dx * i / 8, y + dy * i / 8) for i in range(1, 9)), "up", kind=kind)
        after = [float(number) for number in re.findall(r"-?\d\.\d+", page.run(told, index))]
        assert after == pytest.approx([before[0] + dx * 5.2 / size, before[1] - dy * 5.2 / size], abs=0.06)
        assert page.run("() => scrollY") == scrolled


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_the_query_of_the_dictionary_is_dragged_and_moved_by_keys(firefox, kind):
    page = firefox("ja/attention/soft-dictionary/", 360 if kind == "touch" else 1280, ".e-handle")
    told = "() => Number(document.querySelector('.e-handle').getAttribute('aria-valuenow'))"
    x, y = page.middle(".e-handle path")
    before = page.run(told)
    page.pointer((x, y), "down", *((x + 10 * i, y + 2 * i) for i in range(1, 9)), "up", kind=kind)
    dragged = page.run(told)
    width = page.run("() => document.querySelector('.e-picture').getBoundingClientRect().width")
    assert dragged - before == pytest.approx(80 * 6 / 296 * 336 / width, abs=0.1)
    page.press("ArrowLeft")
    assert page.run(told) == pytest.approx(dragged - 0.05)
    assert page.run("() => location.search") == f"?query={page.run(told):g}"


def test_a_block_shows_its_twin_to_the_pointer_and_the_keys_and_is_released(firefox):
    page = firefox("en/layouts/rosetta/", wait_for="rosetta-map .rosetta-form")
    lit = "() => [...document.querySelectorAll('rosetta-map .block')].flatMap((block, i) => block.matches('.lit') ? [i] : [])"
    page.pointer(page.middle("rosetta-map g.block", 1))
    first = page.run(lit)
    assert first[0] == 1
    assert len(first) == 2
    page.pointer("down", "up")
    assert page.run("() => location.search") == "?block=q1"
    page.press("ArrowDown")
    assert page.run(lit)[0] == 2, "though the pointer rests on the first"
    page.press("Escape")
    assert page.run("() => location.search") == ""
    page.run(
        "() => document.querySelector('[name=embed_dim]').select() ?? document.querySelector('[name=embed_dim]').focus()"
    )
    page.press(*"768")
    assert "in_proj_weight[384:576].T" in page.run("() => document.querySelector('.rosetta-result').textContent")


def test_a_token_is_chosen_by_pointer_and_keys(firefox):
    page = firefox("en/weights/text-classification/", wait_for="head-view .explorer-stage")
    page.middle("head-view .explorer-stage")
    page.until("() => document.querySelector('.hv-query')")
    chosen = "() => document.querySelector('head-view').state.query"
    page.click(".hv-query", 1)
    assert page.run(chosen) == 1
    page.press("ArrowDown", "ArrowDown")
    assert page.run(chosen) == 3, "though the pointer rests on the second"
    page.pointer(page.middle(".hv-query", 4))
    assert page.run(chosen) == 4


def test_the_grid_is_filtered_by_keys(firefox):
    page = firefox("ja/layouts/grid/", wait_for="option-grid select")
    says = "() => document.querySelector('option-grid .explorer-says').textContent"
    before = page.run(says)
    page.run("() => document.querySelector('select[name=bias]').focus()")
    page.press("ArrowDown")
    page.until("(before) => document.querySelector('option-grid .explorer-says').textContent !== before", before)
    assert page.run("() => location.search") == "?bias=True"


def test_the_drawer_opens_by_keyboard(firefox):
    page = firefox("en/layouts/rosetta/", 360, "rosetta-map .rosetta-form")
    told = "() => [document.activeElement.getAttribute('aria-label'), document.querySelector('#__drawer').checked]"
    for _ in range(4):
        page.press("Tab")
        if page.run(told)[0] == "Menu":
            break
    page.press("Enter")
    assert page.run(told)[1]
    assert page.run("() => document.querySelector('.md-sidebar--primary').contains(document.activeElement)")
    page.press("Escape")
    assert page.run(told) == ["Menu", False]


def test_a_page_prints_on_few_sheets(firefox):
    page = firefox("en/layouts/rosetta/")
    printed = page.send("browsingContext.print", context=page.context, page={"width": 21.0, "height": 29.7})
    assert len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed["data"]))) <= 14
