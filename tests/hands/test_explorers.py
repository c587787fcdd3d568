"""The explorers of the attention chapter: arithmetic against PyTorch's, and what a hand, a key and an address do."""

import gzip
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_project import record_of

from builder import words
from builder.finished.markup import with_words

ROOT = Path(__file__).parents[2]
EXPLORERS = ROOT / "docs" / "shared" / "explorers"
STYLES = ROOT / "docs" / "shared" / "stylesheets"
PAGES = {"soft-dictionary": "soft_dictionary", "dot-product": "dot_product"}
HOST = "http://explorers.test"
STATES = 200
POLICY = "default-src 'self'; img-src 'self' data:"
PAGE = """<!doctype html><html lang="{language}"><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="/figures.css"><link rel="stylesheet" href="/explorers.css">
<body class="md-typeset">{tag}<figure>the build's figure</figure><div class="explorer-stage"></div></{name}>
<script type="module" src="/{name}.js"></script></body></html>"""


@pytest.fixture(scope="module")
def printed():
    """What the pages' scripts show, by page: {"soft": "0.9132", …}."""
    records = {name: record_of(ROOT / "snippets" / "attention" / f"{script}.py") for name, script in PAGES.items()}
    assert [record["fault"] for record in records.values()] == [None, None]
    return {name: record["values"] for name, record in records.items()}


def opening_tag(name, language, values):
    """The explorer's tag as the page has it, with the numbers of the script."""
    source = (ROOT / "docs" / language / "attention" / f"{name}.md").read_text("utf-8")
    tag = re.search(rf"^<{name} [^>]*>$", source, re.M)[0]
    tag = re.sub(r"\{\{ (\w+) \}\}", lambda match: values[match[1]], tag)
    return with_words(tag, name, language)


@pytest.fixture
def opened(chromium, printed):
    """A function (name, language, query, **context) that opens a page with that explorer, under the site's policy."""
    faults, contexts = [], []

    def serve(route):
        address = route.request.url.removeprefix(HOST).partition("?")[0]
        found = [folder / address[1:] for folder in (EXPLORERS, STYLES) if (folder / address[1:]).is_file()]
        if found:
            kind = "text/javascript" if address.endswith(".js") else "text/css"
            return route.fulfill(body=found[0].read_bytes(), content_type=kind)
        _, language, name, *_ = address.split("/")
        body = PAGE.format(language=language, name=name, tag=opening_tag(name, language, printed[name]))
        headers = {"Content-Security-Policy": POLICY, "Content-Type": "text/html; charset=utf-8"}
        return route.fulfill(body=body, headers=headers)

    def go(name, language="en", query="", **options):
        context = chromium.new_context(**{"viewport": {"width": 800, "height": 900}, **options})
        contexts.append(context)
        context.route("**/*", serve)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(f"{HOST}/{language}/{name}/{query}")
        if options.get("java_script_enabled", True):
            page.wait_for_selector(f"{name} .e-handle")
        return page

    yield go
    for context in contexts:
        context.close()
    assert not faults


# Arithmetic


def computed(page, name, function, asked):
    """What an exported function of a module gives for each list of arguments."""
    code = "async ([name, f, asked]) => { const m = await import(`/${name}.js`); return asked.map(a => m[f](...a)) }"
    told = page.evaluate(code, [name, function, asked])
    assert len(told) == len(asked)
    return [{key: torch.tensor(value, dtype=torch.float64) for key, value in answer.items()} for answer in told]


def assert_same(told, wanted):
    """To 1e-6 of each number in double precision; numbers below the smallest normal double may round to 0."""
    torch.testing.assert_close(told, wanted, rtol=1e-6, atol=1e-300)


def assert_near(told, wanted, size):
    """To 1e-6 of the number, or to 1e-12 of the size of what was added up to it: sums pass through 0."""
    torch.testing.assert_close(told / size, wanted / size, rtol=1e-6, atol=1e-12)


def test_lookup_is_what_torch_computes(opened):
    random = torch.Generator().manual_seed(0)
    draw = {"generator": random, "dtype": torch.float64}
    sizes = torch.randint(1, 12, (STATES,), generator=random).tolist()
    states = []
    for S in sizes:
        temperature = 10 ** (torch.rand((), **draw) * 5 - 3)
        states.append([torch.randn((), **draw) * 3, temperature, torch.randn(S, **draw) * 3, torch.randn(S, **draw)])
    asked = [[part.tolist() for part in state] for state in states]
    told = computed(opened("soft-dictionary"), "soft-dictionary", "lookup", asked)
    for (query, temperature, keys, values), answer in zip(states, told, strict=True):
        scores = -((query - keys) ** 2) / 2
        weights = torch.softmax(scores / temperature, dim=-1)
        assert_same(answer["scores"], scores)
        assert_same(answer["weights"], weights)
        assert_near(answer["output"], weights @ values, weights @ values.abs())


def test_attend_is_what_torch_computes(opened):
    random = torch.Generator().manual_seed(1)
    draw = {"generator": random, "dtype": torch.float64}
    states = [[torch.randn(2, **draw), torch.randn(5, 2, **draw) * 1.5, torch.randn(5, **draw)] for _ in range(STATES)]
    asked = [[part.tolist() for part in state] for state in states]
    told = computed(opened("dot-product"), "dot-product", "attend", asked)
    for (query, keys, values), answer in zip(states, told, strict=True):
        dots = keys @ query
        weights = torch.softmax(dots / math.sqrt(2), dim=-1)
        cosines = F.cosine_similarity(query[None], keys, dim=-1)
        attended = F.scaled_dot_product_attention(query[None, None], keys[None], values[None, :, None])[0, 0, 0]
        assert_same(answer["norms"], keys.norm(dim=-1))
        assert_same(answer["weights"], weights)
        assert_near(answer["dots"], dots, keys.norm(dim=-1) * query.norm())
        assert_near(answer["cosines"], cosines, 1)
        assert_near(answer["angles"].cos(), cosines, 1)
        assert_same(answer["angles"], cosines.acos())
        assert_near(answer["output"], attended, weights @ values.abs())


def test_softmax_of_huge_scores_is_finite(opened):
    told = opened("dot-product").evaluate("async () => (await import('/panel.js')).softmax([1e4, 1e4 - 1, -1e4])")
    scores = torch.tensor([1e4, 1e4 - 1, -1e4], dtype=torch.float64)
    assert_same(torch.tensor(told, dtype=torch.float64), torch.softmax(scores, dim=-1))


def test_an_angle_near_zero_keeps_its_digits(opened):
    state = [[1, 0], [[1, 1e-9], [-1, 1e-9], [0, 0]], [1, 2, 3]]
    small, straight, none = computed(opened("dot-product"), "dot-product", "attend", [state])[0]["angles"].tolist()
    assert small == pytest.approx(1e-9, rel=1e-6)
    assert straight == pytest.approx(math.pi, rel=1e-6)
    assert math.isnan(none)


# What the page shows first


def rows(page):
    """The table of <dot-product>: [{"norm", "angle", "dot", "weight", "value"}, …] as numbers."""
    names = ("norm", "angle", "dot", "weight", "value")
    code = "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.textContent))"
    cells = page.eval_on_selector_all("tbody tr", code)
    return [dict(zip(names, (number(text.rstrip("°")) for text in row), strict=True)) for row in cells]


def number(text):
    return float(text.replace("−", "-"))


def settled(page):
    """The sentence of the live region, once it has come to rest."""
    page.wait_for_timeout(400)
    return page.inner_text("[aria-live=polite]")


@pytest.mark.parametrize("language", ["ja", "en"])
def test_dictionary_starts_from_the_numbers_of_the_page(opened, printed, language):
    page = opened("soft-dictionary", language)
    values = printed["soft-dictionary"]
    assert values["soft"] in settled(page)
    assert values["top_weight"][:-1] in settled(page)
    assert page.get_attribute(".e-handle", "aria-valuenow") == values["query"]
    assert page.inner_text(".e-amount") == values["temperature"]
    assert page.url.endswith("/soft-dictionary/")


@pytest.mark.parametrize("language", ["ja", "en"])
def test_plane_starts_from_the_numbers_of_the_page(opened, printed, language):
    page = opened("dot-product", language)
    values = printed["dot-product"]
    for name in ("nearest", "winner"):
        row = rows(page)[int(values[name])]
        assert row["weight"] == float(values[f"{name}_weight"])
        assert row["angle"] == float(values[f"{name}_angle"])
    assert f"{'キー' if language == 'ja' else 'Key '}{values['winner']}" in settled(page)
    assert page.url.endswith("/dot-product/")


def test_every_word_that_an_explorer_says_is_there():
    for name in PAGES:
        text = (EXPLORERS / f"{name}.js").read_text("utf-8")
        asked = set(re.findall(r"\bstrings\.(\w+)", text))
        assert len(asked) >= 9
        for language in ("ja", "en"):
            assert asked <= words.of(f"explorers/{name}", language).keys()


# Hands, keys, address


def drag(page, selector, to):
    """Drag the middle of `selector` to a point of the picture, given as shares of its width and height."""
    frame = page.locator("svg.e-picture").bounding_box()
    start = page.locator(selector).bounding_box()
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * to[0], frame["y"] + frame["height"] * to[1], steps=4)
    page.mouse.up()


def test_query_of_the_dictionary_is_dragged(opened, printed):
    page = opened("soft-dictionary")
    before = settled(page)
    drag(page, ".e-handle .e-reach", (0.8, 0.3))
    query = float(page.get_attribute(".e-handle", "aria-valuenow"))
    assert 3.5 < query < 5
    keys, values = ([float(x) for x in printed["soft-dictionary"][name].split()] for name in ("key_list", "value_list"))
    scores = -((query - torch.tensor(keys, dtype=torch.float64)) ** 2) / 2
    wanted = torch.softmax(scores / 0.25, -1) @ torch.tensor(values, dtype=torch.float64)
    assert f"{wanted.item():.4f}" in settled(page)
    assert settled(page) != before


def test_every_point_of_the_plane_is_dragged(opened):
    page = opened("dot-product")
    handles = page.locator(".e-handle")
    assert handles.count() == 6
    for index, to in enumerate([(0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.5, 0.9), (0.8, 0.8), (0.9, 0.5)]):
        drag(page, f".e-handle >> nth={index} >> .e-dot", to)
        point = [number(text) for text in re.findall(r"[−\d.]+", handles.nth(index).get_attribute("aria-valuetext"))]
        assert point == pytest.approx([5.2 * to[0] - 2.6, 2.6 - 5.2 * to[1]], abs=0.03)
    for row in rows(page):
        assert 0 < row["weight"] < 1
    assert sum(row["weight"] for row in rows(page)) == pytest.approx(1, abs=0.003)


def test_a_point_does_not_leave_the_plane(opened):
    page = opened("dot-product")
    drag(page, ".e-handle.q .e-dot", (1.4, -0.2))
    assert page.get_attribute(".e-handle.q", "aria-valuetext") == "x 2.50, y 2.50"


def test_a_touch_moves_the_query(opened):
    page = opened("soft-dictionary", has_touch=True, viewport={"width": 360, "height": 740})
    frame = page.locator("svg.e-picture").bounding_box()
    page.touchscreen.tap(frame["x"] + frame["width"] * 0.75, frame["y"] + 60)
    assert float(page.get_attribute(".e-handle", "aria-valuenow")) > 3


def test_arrow_keys_move_the_focused_thing(opened):
    page = opened("soft-dictionary")
    page.focus(".e-handle")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute(".e-handle", "aria-valuenow") == "2.05"
    page.keyboard.press("Shift+ArrowLeft")
    assert page.get_attribute(".e-handle", "aria-valuenow") == "1.55"
    page.focus("input[type=range]")
    page.keyboard.press("ArrowLeft")
    assert float(page.inner_text(".e-amount")) < 0.25

    page = opened("dot-product")
    for _ in range(5):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "key 4"
    assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "x 2.40, y −0.65"


@pytest.mark.parametrize("name", PAGES)
def test_a_link_shows_the_same_picture(opened, name):
    page = opened(name)
    page.focus(".e-handle >> nth=0")
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    if name == "soft-dictionary":
        page.focus("input[type=range]")
        page.keyboard.press("ArrowRight")
    moved, sentence = page.inner_html(f"{name} .e-picture"), settled(page)
    query = "?" + page.url.partition("?")[2]
    assert len(query) > 3
    again = opened(name, query=query)
    assert again.inner_html(f"{name} .e-picture") == moved
    assert settled(again) == sentence
    assert again.url == page.url
    assert opened(name).inner_html(f"{name} .e-picture") != moved


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("soft-dictionary", "?query=99&T=0"),
        ("soft-dictionary", "?query=x&T=-1"),
        ("dot-product", "?query=1&keys=9+9"),
        ("dot-product", "?query=NaN+1"),
    ],
)
def test_an_address_that_makes_no_sense_shows_the_first_state(opened, name, query):
    assert opened(name, query=query).inner_html(".e-picture") == opened(name).inner_html(".e-picture")


def test_other_parts_of_the_address_stay(opened):
    page = opened("soft-dictionary", query="?other=1#here")
    page.focus(".e-handle")
    page.keyboard.press("ArrowRight")
    assert page.url.endswith("?other=1&query=2.05#here")


def press(page, index):
    page.locator(".explorer-presets button").nth(index).click()


def test_presets_of_the_plane_show_what_they_say(opened):
    page = opened("dot-product")
    first = rows(page)
    press(page, 1)
    assert rows(page)[0]["norm"] == pytest.approx(2 * first[0]["norm"], abs=0.02)
    assert rows(page)[0]["dot"] > 0
    assert rows(page)[0]["weight"] > first[0]["weight"]
    press(page, 2)
    assert rows(page)[3]["dot"] < 0
    assert rows(page)[3]["weight"] < first[3]["weight"]
    assert rows(page)[0] == {**first[0], "weight": rows(page)[0]["weight"]}
    press(page, 3)
    by_weight = [sorted(range(5), key=lambda j: table[j]["weight"]) for table in (first, rows(page))]
    assert by_weight[0] == by_weight[1]
    assert max(row["weight"] for row in rows(page)) > max(row["weight"] for row in first)
    press(page, 4)
    assert min(range(5), key=lambda j: rows(page)[j]["angle"]) != max(range(5), key=lambda j: rows(page)[j]["weight"])
    press(page, 0)
    assert rows(page) == first
    assert page.url.endswith("/dot-product/")


def test_presets_of_the_dictionary_show_both_limits_and_a_tie(opened, printed):
    values = printed["soft-dictionary"]
    page = opened("soft-dictionary")

    def answer():
        return float(re.search(r"answer is (\S+)\. ", settled(page))[1])

    press(page, 1)
    assert answer() == pytest.approx(float(values["nearest"]), abs=1e-4)
    press(page, 2)
    assert answer() == pytest.approx(
        float(values["mean"]), abs=abs(float(values["covariance"].replace("−", "-"))) / 100 + 1e-4
    )
    press(page, 3)
    assert answer() == pytest.approx(float(values["both"]), abs=1e-4)
    assert settled(page).endswith("0.500, is that of key 1.2 and key 2.3.")
    press(page, 0)
    assert f"{answer():.4f}" == values["soft"]


# The page around it


@pytest.mark.parametrize("name", PAGES)
def test_without_script_the_figure_stands_alone(opened, name):
    page = opened(name, java_script_enabled=False)
    assert page.locator("figure").is_visible()
    assert not page.locator(".explorer-stage").is_visible()


@pytest.mark.parametrize("language", ["ja", "en"])
@pytest.mark.parametrize("name", PAGES)
def test_a_phone_is_wide_enough(opened, name, language):
    page = opened(name, language, viewport={"width": 360, "height": 740})
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for target in page.locator("button, .e-handle .e-reach").all():
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= 24


@pytest.mark.parametrize("name", PAGES)
def test_weight_of_the_scripts(name):
    together = b"".join((EXPLORERS / f"{module}.js").read_bytes() for module in ("panel", name))
    assert len(gzip.compress(together)) <= 8000
