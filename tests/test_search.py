"""Material's own search, as a reader uses it: the field is focused, words are typed, results are read."""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import browser
import pytest

ROOT = Path(__file__).parents[1]
# What is typed, and the pages that answer it: one of them is to be among the first three.
QUERIES = {
    "ja": {
        "注意行列": ["layouts/pytorch/", "weights/per-head/", "reference/glossary/"],
        "因果マスク": ["masks/causal/"],
        "ヘッド数": ["layouts/rosetta/", "attention/sizes/", "attention/multi-head/"],
        "内積注意": ["attention/scaled-dot-product/"],
        "in_proj_weight": ["layouts/rosetta/", "layouts/pytorch/"],
        "average_attn_weights": ["layouts/pytorch/", "layouts/options/", "weights/per-head/"],
        "重み行列": ["layouts/rosetta/", "layouts/conventions/"],
        "エンベディング": ["reference/glossary/"],
    },
    "en": {
        "attention matrix": ["layouts/pytorch/", "weights/per-head/", "reference/glossary/"],
        "out_proj": ["layouts/rosetta/", "layouts/pytorch/"],
        "masks": ["masks/truth-table/", "masks/causal/"],
        "per-head": ["weights/per-head/", "attention/multi-head/"],
    },
}


@pytest.fixture(scope="module")
def fields(chromium, server):
    """For each language, a page whose search has been used once, and what it complained of."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    opened = {}
    for language in QUERIES:
        page, complaints = context.new_page(), []
        page.on("console", lambda message, heard=complaints: heard.append(message.text))
        page.goto(f"{server.base}/{language}/about/")
        with page.expect_response("**/search_index.json"):
            page.locator("[data-md-component=search-query]").click()
        opened[language] = page, complaints
    yield opened
    context.close()


def found(page, query):
    """The addresses of the pages that a query finds, best first, below the language's folder; each page once."""
    field = page.locator("[data-md-component=search-query]")
    meta = page.locator(".md-search-result__meta")
    field.fill("")
    field.dispatch_event("keyup")
    browser.until(page, "() => document.querySelector('.md-search-result__list').children.length === 0")
    before = meta.inner_text()
    field.fill(query)  # as an input method does: the word at once, then a key goes up
    field.dispatch_event("keyup")
    browser.until(page, "(before) => document.querySelector('.md-search-result__meta').innerText !== before", before)
    links = page.locator(".md-search-result__list > li").evaluate_all(
        "(all) => all.slice(0, 6).map((li) => li.querySelector('a').href)"
    )
    return [urlsplit(link).path.split("/", 2)[2] for link in links]


@pytest.mark.parametrize(("language", "query"), [(language, query) for language in QUERIES for query in QUERIES[language]])
def test_a_query_finds_its_page_among_the_first_three(fields, site, language, query):
    answers = {page for page in QUERIES[language][query] if (site / language / page / "index.html").exists()}
    assert answers, "no page of the site is about this"
    page, complaints = fields[language]
    results = found(page, query)
    assert answers & set(results[:3]), f"{query}: {results}"
    assert not complaints


@pytest.mark.parametrize("language", QUERIES)
def test_what_is_nowhere_is_not_found(fields, language):
    assert found(fields[language][0], "zygomorphic") == []


def test_nothing_of_the_search_is_fetched_before_the_field_is_used(chromium, server):
    context = chromium.new_context()
    page = context.new_page()
    server.sent.clear()
    page.goto(f"{server.base}/ja/layouts/paper/", wait_until="networkidle")
    of_search = re.compile(r"search|lunr|tinyseg|worker")
    assert not [path for path, *_ in server.sent if of_search.search(path)]
    field = page.locator("[data-md-component=search-query]")
    field.click()
    field.press_sequentially("softmax")
    page.wait_for_selector(".md-search-result__list > li", timeout=15_000)
    fetched = [path for path, *_ in server.sent if of_search.search(path)]
    assert any(path.endswith("search_index.json") for path in fetched)
    assert any("workers/search" in path for path in fetched)
    context.close()


@pytest.mark.parametrize("language", QUERIES)
def test_a_phone_opens_the_search_by_its_button(chromium, server, language):
    context = chromium.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(f"{server.base}/{language}/layouts/paper/")
    page.locator("label.md-header__button[for=__search]").click()
    page.locator("[data-md-component=search-query]").press_sequentially("in_proj_weight")
    page.wait_for_selector(".md-search-result__list > li", timeout=15_000)
    context.close()


@pytest.mark.parametrize("language", QUERIES)
def test_the_index_holds_formulas_as_tex(site, language):
    index = json.loads((site / language / "search" / "search_index.json").read_text("utf-8"))
    assert index["config"]["lang"] == [language]
    separator = index["config"]["separator"]
    assert re.match(separator, "*"), "a * in a word would act as a wildcard"
    text = "\n".join(document["title"] + document["text"] for document in index["docs"])
    assert r"\mathrm{softmax}" in text or r"\operatorname{softmax}" in text
    for soup in ("<svg", "<math", "<use", "<path", "mjx", "\U0001d444", "\U0001d44a", "\u2062"):
        assert soup not in text, soup
    soup = re.search(r"(?:\d\.\d\d){4}", text)
    assert not soup, f"the numbers of a figure: {text[max(0, soup.start() - 100) : soup.end()]}"
    titles = [document["title"] for document in index["docs"]]
    assert not [title for title in titles if "$" in title or "\\" in title], "no formula in a heading"
    addresses = {document["location"].partition("#")[0] for document in index["docs"]}
    assert all((site / language / address).is_dir() for address in addresses), "only this language's pages"
