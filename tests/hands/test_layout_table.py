"""The table of layouts: which rows a word and an order leave, and the shapes at the reader's sizes."""

import re

import pytest
from atlas import layouts, shapes_of

SIZES = {"E": 20, "H": 4, "K": 2, "D": 5}


@pytest.fixture
def opened(chromium, server):
    """A function (query) that opens the English page."""
    context, faults = chromium.new_context(viewport={"width": 390, "height": 844}), []

    def go(query=""):
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{server.base}/en/atlas/{query}")
        page.wait_for_selector("layout-table select")
        return page

    yield go
    context.close()
    assert not faults


def rows(page):
    """{name: texts of its cells} of the rows that are to be seen."""
    cells = page.evaluate("""() => [...document.querySelectorAll("layout-table tbody tr")].filter((row) => !row.hidden)
      .map((row) => [...row.cells].map((cell) => cell.textContent.trim()))""")
    return {name: rest for name, *rest in cells}


def test_every_layout_has_its_row_and_its_shapes(opened):
    """The numbers in a row are those of the declaration, in its order of names."""
    found = rows(opened("?E=20&H=4&K=2"))
    assert set(found) == set(layouts())
    for name, layout in layouts().items():
        shapes = shapes_of(layout, **SIZES | {"K": SIZES["K"] if layout.grouped else SIZES["H"]})
        numbers = {tuple(map(int, text.split(", "))) for text in re.findall(r"\(([\d, ]+)\)", found[name][0])}
        assert numbers == {shapes[tensor] for tensor in layout.matrices}, name


def test_words_orders_and_the_address(opened):
    page = opened()
    page.get_by_label("Rows that have a word").fill("falcon")
    page.get_by_text(f"3 of {len(layouts())} rows").wait_for()
    page.get_by_label("Order of heads").select_option("groups")
    assert set(rows(page)) == {"Falcon-RW", "Falcon-40B"}
    assert "(3HD, E)" in rows(page)["Falcon-RW"][0]
    page.get_by_label("E (embed_dim)").fill("30")
    page.get_by_label("H (heads of queries)").fill("4")
    page.get_by_text("E 30 has to be divisible by H 4").wait_for()
    assert "(3HD, E)" in rows(page)["Falcon-RW"][0]
    page.wait_for_url("**word=falcon**")
    again = opened("?" + page.url.partition("?")[2])
    assert set(rows(again)) == {"Falcon-RW", "Falcon-40B"}
