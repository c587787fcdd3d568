"""The search, as a reader uses it: the field is focused, words are typed, results are read.

search_queries.yml holds what readers typed and the pages that answer it; `-s` prints the rank of each.
"""

import json
import re
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import browser
import pytest
import yaml

from builder.pages import search

ROOT = Path(__file__).parents[2]
ASKED = Path(__file__).with_name("search_queries.yml").read_text("utf-8")
QUERIES = yaml.safe_load(ASKED)
FIRST = 0.9  # of all queries have their page first; all have it among the first three
# Until the first result, gzip: the script, and so much for each page. Material's took 143,800 and 177,600 for 31 pages,
# which is 4,600 and 5,700 a page.
SCRIPT, PER_PAGE = 8_000, {"en": 3_200, "ja": 3_700}

FIELD = "[data-md-component=search-query]"
META = ".md-search-result__meta"
NOWHERE = ".md-search-result__nowhere"
ITEM = ".md-search-result__list > li"


@pytest.fixture(scope="module")
def fields(chromium, server):
    """For each language, a page whose search has been used once, and what it complained of."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    opened = {}
    for language in QUERIES:
        page, complaints = context.new_page(), []
        page.on("console", lambda message, heard=complaints: heard.append(message.text))
        page.on("pageerror", lambda error, heard=complaints: heard.append(str(error)))
        page.goto(f"{server.base}/{language}/about/")
        with page.expect_response("**/search_index.json"):
            page.locator(FIELD).click()
        opened[language] = page
        opened[language, "complaints"] = complaints
    yield opened
    context.close()


def found(page, query):
    """The addresses of the pages that a query finds, best first, below the language's folder; each page once."""
    field = page.locator(FIELD)
    field.fill("")
    field.dispatch_event("keyup")
    browser.until(
        page, f"() => document.querySelector('{ITEM}') === null && document.querySelector('{NOWHERE}').hidden"
    )
    before = page.locator(META).first.inner_text()
    field.fill(query)  # as an input method does: the word at once, then a key goes up
    field.dispatch_event("keyup")
    browser.until(
        page,
        f"""(before) => {{ // the line above the list is written before the list is
          const said = document.querySelector('{META}').innerText;
          const shown = document.querySelectorAll('{ITEM}').length;
          return said !== before && shown >= Math.min(10, said.match(/\\d+/)?.[0] ?? 0);
        }}""",
        before,
    )
    links = page.locator(ITEM).evaluate_all("(all) => all.map((li) => li.querySelector('a').href)")
    return [urlsplit(link).path.split("/", 2)[2] for link in links]


def counted(page):
    """How many pages the last query found, of which ten are shown at once."""
    return int(re.search(r"\d+", page.locator(META).first.inner_text())[0])


def told(page):
    """What the line above the results says; nothing where it is not to be seen."""
    line = page.locator(NOWHERE)
    return line.inner_text() if line.is_visible() else ""


def asked(page, index, *queries):
    """{query: the first ten items that the worker answers}; index: the texts by address, or where an index of the site lies."""
    docs = index
    if isinstance(index, dict):
        docs = {"docs": [{"location": address, "title": address, "text": text} for address, text in index.items()]}
    told = page.evaluate(
        """async ([docs, queries]) => {
            const index = typeof docs === "string" ? await (await fetch(docs)).json() : docs;
            const worker = new Worker("/javascripts/search.js"), told = [];
            return new Promise((answer) => {
              worker.addEventListener("message", ({ data }) => {
                if (data.type === 3 && told.push(data.data.items.slice(0, 10)) === queries.length) answer(told);
              });
              worker.postMessage({ type: 0, data: index });
              queries.forEach((data) => worker.postMessage({ type: 2, data }));
            });
        }""",
        [docs, queries],
    )
    return dict(zip(queries, told, strict=True))


def ranked(page, language):
    """{query: what `found` reads from the list}, of all queries, without a list."""
    told = asked(page, f"/{language}/search/search_index.json", *QUERIES[language])
    return {query: [item[0]["location"].partition("#")[0] for item in items] for query, items in told.items()}


def answers(page, wanted):
    return any(page.startswith(one[:-1]) if one.endswith("*") else page == one for one in wanted)


@pytest.mark.parametrize("language", QUERIES)
def test_what_readers_type_finds_the_page_that_answers(fields, language):
    ranks, table = {}, []
    results = ranked(fields[language], language)
    for query in list(results)[::25]:
        assert found(fields[language], query) == results[query], "the list shows what the worker answers"
    for query, wanted in QUERIES[language].items():
        best = results[query]
        ranks[query] = next((rank for rank, page in enumerate(best, 1) if answers(page, wanted)), None)
        table.append(f"{ranks[query] or '-':>4}  {query:40} {'' if ranks[query] == 1 else ' '.join(best[:3])}")
    first = sum(rank == 1 for rank in ranks.values())
    three = sum(rank is not None and rank <= 3 for rank in ranks.values())
    mean = sum(1 / rank for rank in ranks.values() if rank) / len(ranks)
    table.append(
        f"{language}: of {len(ranks)} queries {first} first, {three} among three; mean reciprocal rank {mean:.3f}"
    )
    print("", *table, sep="\n")
    assert three == len(ranks), "\n".join(table)
    assert first >= FIRST * len(ranks), "\n".join(table)
    assert not fields[language, "complaints"]


def test_no_query_has_two_answers():
    """Of two entries of one name YAML keeps the last, and says nothing."""
    for language, queries in yaml.compose(ASKED).value:
        names = [query.value for query, _ in queries.value]
        assert len(names) == len(set(names)) == len(QUERIES[language.value])


@pytest.mark.parametrize("language", QUERIES)
def test_every_answer_is_a_page_of_the_site(site, language):
    pages = {
        path.parent.relative_to(site / language).as_posix() + "/" for path in (site / language).rglob("index.html")
    }
    wanted = {one for answer in QUERIES[language].values() for one in answer}
    assert not [one for one in wanted if not any(answers(page, [one]) for page in pages)]


@pytest.mark.parametrize("language", QUERIES)
def test_what_is_nowhere_is_said_to_be_nowhere(fields, language):
    page = fields[language]
    assert found(page, "zygomorphic") == []
    assert "zygomorphic" in told(page)
    assert found(page, "softmax") != []
    assert not told(page)
    assert not fields[language, "complaints"]


@pytest.mark.parametrize(
    ("language", "query", "unknown"),
    [
        ("en", "zygomorphic softmax", "zygomorphic"),
        ("en", "zygomorphic_mask softmax", "zygomorphic_mask"),
        ("ja", "softmax 放射相称花", "放射相称花"),
        ("ja", "ジギタリス 転置", "ジギタリス"),
    ],
)
def test_one_word_of_several_that_is_nowhere_is_named(fields, language, query, unknown):
    page = fields[language]
    known = next(word for word in query.split() if word != unknown)
    results = found(page, query)
    assert unknown in told(page)
    assert known not in told(page)
    assert results == found(page, known), "the other words are looked for"


@pytest.mark.parametrize(
    ("language", "query", "meant"),
    [
        ("en", "multihead atention", "multihead attention"),
        ("en", "attenton", "attention"),
        ("ja", "マルチヘット", "マルチヘッド"),
    ],
)
def test_a_slip_of_the_finger_is_forgiven_and_told(fields, language, query, meant):
    page = fields[language]
    results = found(page, query)
    said = told(page)
    assert set(query.split()) - set(meant.split()) <= set(re.findall(r"\w+", said)), said
    assert results == found(page, meant)


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [("en", "LoRA", "bias"), ("en", "dropout", "hook"), ("ja", "コサイン", "温度"), ("ja", "転置", "連結")],
)
def test_pages_with_all_words_come_before_pages_with_one(fields, site, language, one, other):
    def has(page, word):
        article = (
            (site / language / page / "index.html")
            .read_text("utf-8")
            .partition("<article")[2]
            .partition("</article>")[0]
        )
        article = re.sub(
            r'<(figure|details class="file"|p class="page-(?:way|next)").*?</(figure|details|p)>',
            "",
            article,
            flags=re.S,
        )  # not searched
        return word.lower() in unescape(re.sub(r"<[^>]*>", "", article)).lower()

    results = [page for page in found(fields[language], f"{one} {other}") if not page.startswith("reference/")]
    both = [has(page, one) and has(page, other) for page in results]
    assert any(both)
    assert not all(both)
    assert both == sorted(both, reverse=True), list(zip(results, both, strict=True))


@pytest.mark.parametrize(
    ("language", "spellings"),
    [
        ("en", ["multi-head", "multihead", "Multi-Head", "ＭＵＬＴＩＨＥＡＤ"]),
        ("en", ["key_padding_mask", "KEY_PADDING_MASK", "`key_padding_mask`"]),
        ("ja", ["パラメーター", "パラメータ", "ﾊﾟﾗﾒｰﾀｰ"]),
        ("ja", ["パラメーターの数", "パラメータの数"]),
        ("ja", ["デコーダー", "デコーダ"]),
        ("ja", ["in_proj_weightの分割", "ｉｎ＿ｐｒｏｊ＿ｗｅｉｇｈｔの分割"]),
        ("ja", ["ソース・ターゲット", "ソースターゲット"]),
        ("ja", ["softmax", "Softmax", "ｓｏｆｔｍａｘ"]),
    ],
)
def test_spellings_of_one_word_find_the_same_pages(fields, language, spellings):
    results = [found(fields[language], spelling) for spelling in spellings]
    assert results[0]
    assert all(result == results[0] for result in results), dict(zip(spellings, results, strict=True))


def test_text_may_be_spelt_otherwise_than_the_query(fields):
    docs = {"a/": "エンコーダ層とデコーダーとライブラリー", "b/": "nothing", "c/": "ﾒﾓﾘ and ﬁne-tuning"}
    pages = {"エンコーダー層": "a/", "デコーダ": "a/", "ライブラリ": "a/", "メモリー": "c/", "finetuning": "c/"}
    told = asked(fields["ja"], docs, *pages)
    assert {query: [item[0]["location"] for item in items] for query, items in told.items()} == {
        query: [page] for query, page in pages.items()
    }


def test_text_is_shown_as_text(fields):
    docs = {"a/<i>": 'when x<b and y & "z" <script>'}
    (item,) = asked(fields["en"], docs, "when")["when"]
    assert item[0]["title"] == "a/&#60;i&#62;"
    assert item[0]["text"] == "<p><mark>when</mark> x&#60;b and y &#38; &#34;z&#34; &#60;script&#62;</p>"


@pytest.mark.parametrize(
    ("whole", "part"),
    [
        ("key_padding_mask", "padding"),
        ("in_proj_weight", "proj"),
        ("nn.MultiheadAttention", "multihead"),
        ("GPT-2", "GPT"),
    ],
)
def test_an_identifier_is_found_whole_and_by_its_parts(fields, whole, part):
    page = fields["en"]
    (best, *_), most = found(page, whole), counted(page)
    assert best in found(page, part)
    assert counted(page) >= most
    assert not told(page)


def test_one_root_finds_all_its_forms(fields):
    page = fields["en"]
    for forms in (
        ["mask", "masks", "masking", "masked"],
        ["prune", "pruning", "pruned"],
        ["visualize", "visualisation"],
    ):
        first = [(found(page, form)[0], counted(page)) for form in forms]
        assert all(one == first[0] for one in first), dict(zip(forms, first, strict=True))


@pytest.mark.parametrize("language", QUERIES)
def test_the_matches_are_marked_in_text_of_the_page(fields, language):
    page = fields[language]
    for query in ("key_padding_mask", "softmax"):
        found(page, query)
        marks = page.locator(f"{ITEM} mark").all_text_contents()
        assert marks
        assert {mark.lower() for mark in marks} == {query}
        assert not re.search(r"&\w*;|</?\w+>", " ".join(page.locator(ITEM).all_text_contents())), "markup as text"


def test_words_that_only_the_front_matter_knows_are_shown_as_the_reason(fields):
    page = fields["ja"]
    assert found(page, "ヒートマップ")[0] == "weights/per-head/"
    assert page.locator(f"{ITEM} .md-tag").first.inner_text() == "ヒートマップ"


def test_a_keyboard_reaches_the_best_section(chromium, server):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{server.base}/en/about/")
    page.keyboard.press("s")
    page.keyboard.insert_text("freezing head")
    page.keyboard.press("s")  # one key, one list: the next would take the focus away from what stands in this one
    page.wait_for_selector(ITEM)
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.href").endswith("/en/weights/surgery/")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url("**/weights/surgery/*")
    context.close()


@pytest.mark.parametrize("language", QUERIES)
def test_nothing_of_the_search_is_fetched_before_the_field_is_used_and_little_then(chromium, server, site, language):
    context = chromium.new_context()
    page = context.new_page()
    server.sent.clear()
    page.goto(f"{server.base}/{language}/layouts/paper/", wait_until="networkidle")
    assert not [path for path, *_ in server.sent if "search" in path]
    server.sent.clear()
    page.locator(FIELD).click()
    page.locator(FIELD).press_sequentially("softmax")
    page.wait_for_selector(ITEM, timeout=15_000)
    sent = {
        path.removeprefix(f"/{language}/").removeprefix("/"): size
        for path, size, _ in server.sent
        if re.search("search|lunr|worker", path)
    }
    assert set(sent) == {"javascripts/search.js", "search/search_index.json"}
    assert sent["javascripts/search.js"] <= SCRIPT
    assert sent["search/search_index.json"] <= PER_PAGE[language] * len(list((site / language).rglob("index.html")))
    context.close()


@pytest.mark.parametrize("language", QUERIES)
def test_a_phone_opens_the_search_by_its_button(chromium, server, language):
    context = chromium.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(f"{server.base}/{language}/layouts/paper/")
    page.locator("label.md-header__button[for=__search]").click()
    page.locator(FIELD).press_sequentially("in_proj_weight")
    page.wait_for_selector(ITEM, timeout=15_000)
    context.close()


# The index


@pytest.fixture(scope="module", params=QUERIES)
def docs(request, site):
    """What is searched in one language, with its name."""
    index = json.loads((site / request.param / "search" / "search_index.json").read_text("utf-8"))
    return request.param, index["docs"]


def test_the_index_holds_formulas_as_tex_and_no_soup(docs):
    _, entries = docs
    text = "\n".join(doc["title"] + doc["text"] for doc in entries)
    assert r"\mathrm{softmax}" in text or r"\operatorname{softmax}" in text
    for soup in ("<svg", "<math", "<use", "<path", "<p>", "<code>", "mjx", "\U0001d444", "\U0001d44a", "\u2062"):
        assert soup not in text, soup
    soup = re.search(r"(?:\d\.\d\d){4}", text)
    assert not soup, f"the numbers of a figure: {text[max(0, soup.start() - 100) : soup.end()]}"
    assert not [doc["title"] for doc in entries if "$" in doc["title"] or "\\" in doc["title"]], (
        "no formula in a heading"
    )


def test_the_index_speaks_of_this_languages_pages_alone(docs, site):
    language, entries = docs
    addresses = {doc["location"].partition("#")[0] for doc in entries}
    assert all((site / language / address).is_dir() for address in addresses)


def test_each_term_of_the_glossary_is_an_entry_of_its_own(docs):
    language, entries = docs
    term = next(doc for doc in entries if doc["location"].endswith("#term-causal-mask"))
    assert ("コーザルマスク" if language == "ja" else "look-ahead mask") in term["names"]


def test_a_page_gets_the_words_of_its_front_matter_and_of_the_glossary(docs):
    language, entries = docs
    page = next(doc for doc in entries if doc["location"] == "masks/causal/")
    assert page["words"] == search.words_of(language, "masks/causal.md")
    assert ("いんがますく" if language == "ja" else "subsequent mask") in page["names"]


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("search: [mask, True]", "is no list of words"),
        ("search: mask", "is no list of words"),
        ("search: [mask, masks, mask]", "search names mask more than once"),
    ],
)
def test_a_list_that_is_no_list_of_words_ends_the_build(small, written, fault):
    small.write("docs/en/layouts/two-sums.md", f"---\n{written}\n---\n\n" + small.read("docs/en/layouts/two-sums.md"))
    done = small.build()
    assert done.returncode == 1
    assert "docs/en/layouts/two-sums.md:1: " in done.said
    assert fault in done.said


def test_words_for_the_search_change_without_rereading_and_reach_the_index(small):
    small.write(
        "docs/en/layouts/two-sums.md", "---\nsearch: [adding up]\n---\n\n" + small.read("docs/en/layouts/two-sums.md")
    )
    done = small.build()
    assert done.returncode == 0, done.said
    docs = json.loads(small.read("site/en/search/search_index.json"))["docs"]
    assert next(doc for doc in docs if doc["location"] == "layouts/two-sums/")["words"] == ["adding up"]
