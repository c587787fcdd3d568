"""The explorer on layouts/grid: what it shows for a choice of options against the same fold made in Python."""

import html
import math
import random
import re
from itertools import combinations

import browser
import pytest
from option_grid import OPTIONS, cells, fast_path

CELLS = "() => Boolean(document.querySelector('option-grid').cells)"  # they have come; the cells themselves would be sent along
FILTERS = [name for name in OPTIONS if name not in ("mask", "dtype", "mode")]


@pytest.fixture(scope="module")
def checked(site):
    """{cell: [errors as -10 log10]} of the cells that the build ran, read from the page."""
    page = site / "en/layouts/grid/index.html"
    text = (page.parent / re.search(r'data-cells-at="([^"]+)"', page.read_text("utf-8"))[1]).read_text("utf-8")
    grid, place, found = cells(), 0, {}
    for start in range(0, len(text), 6):
        step, *errors = (int(text[i : i + 2], 36) for i in range(start, start + 6, 2))
        place += step
        found[grid[place]] = [e for e in errors if e != 1295]
    return found


@pytest.fixture(scope="module")
def opened(site, chromium):
    with browser.served(site) as server:

        def go(language="en", query=""):
            page = chromium.new_page(viewport={"width": 360, "height": 700})
            browser.visit(page, f"{server.base}/{language}/layouts/grid/{query}")
            page.locator("option-grid figure summary").click()
            page.locator("option-grid figure table").first.wait_for()
            browser.until(page, CELLS)
            return page

        yield go


def folded(checked, **chosen):
    """The numbers of the figure, panel by panel, for the cells with the chosen options."""
    left = {c: e for c, e in checked.items() if all(str(getattr(c, name)) == value for name, value in chosen.items())}

    def greatest(which, part=0):
        some = [e[part] for c, e in left.items() if which(c) and e[part:]]
        return "·" if not some else "0" if min(some) == 1294 else f"−{min(some) / 10:.1f}"

    modes = [(mode, 0) for mode in OPTIONS["mode"]] + [(mode, 1) for mode in OPTIONS["mode"][:2]]
    panels = [
        [
            greatest(lambda c, at=(mask, dtype, mode): c[:3] == at, part)
            for mask in OPTIONS["mask"]
            for mode, part in modes
        ]
        for dtype in OPTIONS["dtype"]
    ]
    fused = [mask for mask in OPTIONS["mask"] if any(fast_path(c) and c.mask == mask for c in checked)]
    panels.append(
        [
            greatest(lambda c, at=(mask, dtype): c[:2] == at and fast_path(c))
            for mask in fused
            for dtype in OPTIONS["dtype"]
        ]
    )
    return len(left), panels


def chosen_here(page, name, value=""):
    """Choose a value, and wait until the cells have come, which the first choice fetches."""
    page.select_option(f"option-grid select[name={name}]", value)
    browser.until(page, CELLS)


def shown(page):
    """What the figure shows: the numbers of its panels, and those of the tables behind them."""
    script = "([svgs, cells]) => [...document.querySelectorAll(svgs)].map(x => [...x.querySelectorAll(cells)].map(t => t.textContent))"
    svgs = page.evaluate(script, ["option-grid figure svg", "g.n text"])
    return svgs, page.evaluate(script, ["option-grid figure details table", "tbody td"])


def test_every_cell_of_the_fast_path_is_among_them(checked):
    for some in combinations(OPTIONS, 4):  # every value of four options with every other
        met = {tuple(getattr(cell, name) for name in some) for cell in checked}
        assert len(met) == math.prod(len(OPTIONS[name]) for name in some), some
    assert sum(map(fast_path, checked)) == 44


def test_unfiltered_it_is_the_builds_figure(site, opened, checked):
    source = (site / "en/layouts/grid/index.html").read_text("utf-8")
    figure = source[source.index("<option-grid") : source.index("</option-grid>")]
    built = [
        [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", group)]
        for group in re.findall(r'<g class="n z m">(.*?)</g>', figure, re.S)
    ]
    svgs, tables = shown(opened())
    assert built == svgs == tables == folded(checked)[1]


def test_the_cells_come_when_a_value_is_chosen(site, chromium):
    with browser.served(site) as server:
        page = chromium.new_page()
        browser.visit(page, f"{server.base}/en/layouts/grid/")
        assert not [path for path, *_ in server.sent if "cells" in path]
        chosen_here(page, "bias", "True")
        assert len([path for path, *_ in server.sent if "cells" in path]) == 1
        chosen_here(page, "bias", "False")
        assert len([path for path, *_ in server.sent if "cells" in path]) == 1
        page.close()


def test_filters_agree_with_python(opened, checked):
    page, draw = opened("ja"), random.Random(0)
    before = {}
    for _ in range(25):
        chosen = {name: str(draw.choice(OPTIONS[name])) for name in draw.sample(FILTERS, draw.randint(1, 5))}
        for name in FILTERS:
            if before.get(name) != chosen.get(name):
                chosen_here(page, name, chosen.get(name, ""))
        before = chosen
        count, panels = folded(checked, **chosen)
        svgs, tables = shown(page)
        assert svgs == tables == panels, chosen
        said = f"{len(checked):,}通りのうち{count:,}通り" if count else "当てはまるセルがありません"
        browser.until(page, "said => document.querySelector('.explorer-says').textContent.includes(said)", said)


def test_state_is_in_the_address_and_can_be_cleared(opened, checked):
    page = opened(query="?bias=False&need_weights=no&batched=perhaps")
    panels = folded(checked, bias="False", need_weights="no")[1]
    assert shown(page)[0] == panels
    chosen_here(page, "batched", "True")
    assert "batched=True" in page.url
    again = opened(query="?" + page.url.partition("?")[2])
    assert shown(again)[0] == shown(page)[0]
    again.locator("option-grid button").focus()
    again.keyboard.press("Enter")
    assert shown(again)[0] == folded(checked)[1]
    assert again.url.endswith("/layouts/grid/")


def test_a_choice_is_made_by_keyboard_on_a_phone(opened, checked):
    page = opened()
    page.focus("select[name=bias]")
    page.keyboard.press("ArrowDown")
    assert page.input_value("select[name=bias]") == "True"
    assert shown(page)[0] == folded(checked, bias="True")[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
