"""The explorer on weights/text-classification: its data against PyTorch's maps, its numbers, keyboard, address, failures."""

import gzip
import json
import re
import sys
from pathlib import Path

import pytest
import run_snippet
import shared_site
import torch

ROOT = Path(__file__).parents[1]
EXPLORERS = ROOT / "docs" / "shared" / "explorers"
HOST = "http://heads.test"
PAGE = """<!doctype html><html lang="{language}"><meta charset="utf-8"><title>heads</title>
<div class="spacer"></div><head-view data-name="head_view"><p>the build's figure</p><div class="explorer-stage"></div></head-view>
<link rel="stylesheet" href="/style.css"><script type="module" src="/{language}/explorers/head-view.js"></script></html>"""
FAR = ".spacer { height: 3000px }"


def example(tokens, layers, heads, seed, label=0):
    """Random attention as the data file has it, and as PyTorch has it: thousandths, and (layers, H, L, L) float64."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(layers, heads, len(tokens), len(tokens), generator=generator, dtype=torch.float64)
    weights = scores.softmax(-1)
    told = {"tokens": tokens, "label": label, "chance": [0.2, 0.7, 0.1] if label < 2 else [0.1, 0.1, 0.8]}
    return (1000 * weights).round().int().tolist(), told, weights


def small_data():
    shapes = {
        "face-0": (list("(^o^)"), 2, 4),
        "face-6": (list("ヽ(`Д´)ノ"), 2, 4),
        "ja-0": (list("部屋は明るくない。古い。"), 2, 2),
        "en-0": (["the", "room", "is", "not", "bright", ".", "it", "is", "dark", "."], 2, 2),
    }
    made = {name: example(*shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
    data = {
        "tensors": {name: numbers for name, (numbers, _, _) in made.items()},
        "labels": {"examples": {name: told for name, (_, told, _) in made.items()}, "categories": list("abcdef")},
    }
    return data, {name: weights for name, (_, _, weights) in made.items()}


DATA, WEIGHTS = small_data()


@pytest.fixture
def opened(chromium):
    """A function (language, query, far, status) that opens a page with the explorer; `far` puts it below the screen."""
    context = chromium.new_context(viewport={"width": 360, "height": 700})
    faults, asked = [], []

    def go(language="en", query="", far=False, status=200):
        def serve(route):
            path = route.request.url.removeprefix(HOST).partition("?")[0]
            asked.append(path)
            if path.endswith(".js"):
                route.fulfill(body=(EXPLORERS / Path(path).name).read_text("utf-8"), content_type="text/javascript")
            elif path.endswith(".json"):
                route.fulfill(status=status, body=json.dumps(DATA), content_type="application/json")
            elif path.endswith(".css"):
                route.fulfill(body=FAR if far else "", content_type="text/css")
            else:
                route.fulfill(body=PAGE.format(language=language), content_type="text/html; charset=utf-8")

        context.unroute_all()
        context.route("**/*", serve)
        asked.clear()
        page = context.new_page()
        page.asked = asked
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{HOST}/{language}/weights/text-classification/{query}")
        if not far and status == 200:
            page.wait_for_selector("head-view .head-query")
        return page

    yield go
    context.close()
    assert not faults


def drawn(page):
    """The weights that stand beside the keys, and the tokens to their left."""
    numbers = page.locator(".head-picture text.head-end.e-small").all_text_contents()[1:]
    return [float(text) for text in numbers], page.locator(".head-query text").all_text_contents()


def test_every_row_that_can_be_chosen_shows_pytorch_s_weights(opened):
    page = opened()
    seen = 0
    for name, weights in WEIGHTS.items():
        if name.startswith("ja"):
            continue
        page.select_option("[name=example]", name)
        layers, heads, length, _ = weights.shape
        for layer in range(layers):
            page.select_option("[name=layer]", str(layer))
            for head in range(heads):
                page.select_option("[name=head]", str(head))
                for query in range(length):
                    page.locator(".head-query").nth(query).click()
                    numbers, tokens = drawn(page)
                    assert tokens == DATA["labels"]["examples"][name]["tokens"]
                    expected = weights[layer, head, query]
                    torch.testing.assert_close(torch.tensor(numbers, dtype=torch.float64), expected, atol=5.1e-4, rtol=0)
                    seen += 1
    assert seen >= 100


def test_pure_functions_agree_with_pytorch(opened):
    page = opened()
    script = """async ([maps, states]) => {
        const { rowOf, strongest } = await import('/en/explorers/head-view.js');
        return states.map((state) => [rowOf(maps, state), strongest(rowOf(maps, state), 3)]);
    }"""
    for seed in range(4):
        numbers, _, weights = example(list("abcdefgh"), 3, 5, seed)
        states = [{"layer": i, "head": j, "query": k} for i in range(3) for j in range(5) for k in range(8)]
        thousandths = torch.tensor(numbers)
        for state, (row, best) in zip(states, page.evaluate(script, [numbers, states]), strict=True):
            at = state["layer"], state["head"], state["query"]
            torch.testing.assert_close(torch.tensor(row, dtype=torch.float64), weights[at], atol=5.1e-4, rtol=0)
            assert best == thousandths[at].argsort(descending=True, stable=True)[:3].tolist()


def test_the_answer_has_the_digits_that_the_page_prints(opened):
    """Three, as the data have: rounded twice, 0.8151 would be 0.815 and then 0.81 beside the page's 0.82."""
    page = opened()
    for name in ("face-0", "en-0"):
        page.select_option("[name=example]", name)
        told = DATA["labels"]["examples"][name]
        assert f"({max(told['chance']):.3f})" in page.inner_text(".head-answer")


def test_the_map_shades_what_the_lines_show(opened):
    page = opened(query="?example=face-6&view=map&layer=1&head=3")
    shades = page.evaluate("[...document.querySelectorAll('.head-cell')].map((cell) => Number(cell.getAttribute('fill-opacity')))")
    torch.testing.assert_close(
        torch.tensor(shades, dtype=torch.float64), WEIGHTS["face-6"][1, 3].flatten(), atol=5.1e-4, rtol=0
    )


@pytest.mark.parametrize(("language", "says"), [("en", "attends to"), ("ja", "が見ている先")])
def test_keyboard_moves_and_the_page_says_so(opened, language, says):
    page = opened(language)
    page.locator(".head-query[tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    focused = page.evaluate("document.activeElement.getAttribute('aria-pressed')")
    assert focused == "true"
    assert page.input_value("[name=head]") == "3"
    row = WEIGHTS["face-6"][0, 3, 1]
    line = page.locator(".explorer-says")
    page.wait_for_function(f"document.querySelector('.explorer-says').textContent.includes('{says}')")
    page.wait_for_timeout(350)
    assert f"{row.max():.3f}" in line.inner_text()
    assert line.get_attribute("aria-live") == "polite"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("[...document.querySelectorAll('.head-query')].indexOf(document.activeElement)") == 6


def test_state_is_in_the_address_and_nonsense_is_not_believed(opened):
    page = opened()
    page.select_option("[name=example]", "en-0")
    page.select_option("[name=layer]", "1")
    page.select_option("[name=view]", "map")
    page.locator(".head-query").nth(8).click()
    again = opened(query="?" + page.url.partition("?")[2])
    for name in ("example", "layer", "head", "view"):
        assert again.input_value(f"[name={name}]") == page.input_value(f"[name={name}]")
    assert again.locator(".head-query[aria-pressed=true]").text_content() == "dark"
    wrong = opened(query="?example=constructor&layer=7&head=-1&query=1e3&view=poem")
    assert wrong.input_value("[name=example]") == "face-6"
    assert wrong.locator(".head-query").count() == 7
    other = opened("en", query="?example=ja-0")
    assert other.input_value("[name=example]") == "face-6"


def test_a_reader_is_offered_sentences_of_their_language(opened):
    for language, other in (("ja", "en"), ("en", "ja")):
        values = opened(language).evaluate("[...document.querySelector('[name=example]').options].map((o) => o.value)")
        assert f"{language}-0" in values
        assert f"{other}-0" not in values


def test_data_are_fetched_only_when_the_explorer_comes_near(opened):
    page = opened(far=True)
    page.wait_for_selector("head-view .explorer-says", state="attached")
    page.wait_for_timeout(300)
    assert not any(path.endswith(".json") for path in page.asked)
    page.locator("head-view").scroll_into_view_if_needed()
    page.wait_for_selector("head-view .head-query")
    assert [path for path in page.asked if path.endswith(".json")] == ["/en/data/head_view.json"]


def test_without_its_data_the_figure_stands_and_the_reader_is_told(opened):
    page = opened("ja", status=404)
    page.wait_for_selector("head-view [role=alert]")
    assert "読み込めませんでした" in page.inner_text("head-view [role=alert]")
    assert "the build's figure" in page.inner_text("head-view")


# The built site


@pytest.fixture(scope="module")
def published():
    site = shared_site.built()
    files = {language: site / language / "data" / "head_view.json" for language in ("ja", "en")}
    assert files["ja"].read_bytes() == files["en"].read_bytes()
    return files["en"].read_bytes()


def test_published_data_are_small_enough(published):
    assert len(gzip.compress(published, 9)) <= 60_000
    assert len(json.loads(published)["tensors"]) >= 20


def test_published_data_are_pytorch_s_maps(published, monkeypatch):
    monkeypatch.setenv("ATTENTION_CACHE", str(run_snippet.ARTIFACTS))  # what the build trained
    sys.path.insert(0, str(ROOT / "snippets" / "recipes"))
    from capture import attention_weights
    from kaomoji import cached, encode, faces, trained, vocabulary
    from negation import trained_reader

    data = json.loads(published)
    face_model, face_vocab = trained(seed=0), vocabulary(cached(faces)["train"])
    compared = 0
    for name, numbers in data["tensors"].items():
        told = data["labels"]["examples"][name]
        language = name.partition("-")[0]
        model, vocab = (face_model, face_vocab) if language == "face" else trained_reader(language)[:2]
        with attention_weights(model) as maps, torch.no_grad():
            logits = model(encode([told["tokens"]], vocab))[0]
        expected = torch.stack(list(maps.values()))[:, 0]
        torch.testing.assert_close(torch.tensor(numbers).double() / 1000, expected, atol=6e-4, rtol=0)
        torch.testing.assert_close(torch.tensor(told["chance"]).double(), logits.softmax(-1), atol=1e-6, rtol=0)
        compared += 1
    assert compared == len(data["tensors"])


def test_the_page_asks_for_data_that_are_there():
    site = shared_site.built()
    page = (site / "ja" / "weights" / "text-classification" / "index.html").read_text("utf-8")
    (name,) = re.findall(r'<head-view[^>]* data-name="(\w+)"', page)
    assert (site / "ja" / "data" / f"{name}.json").exists()


def test_a_page_that_names_no_data_of_its_script_is_told(small):
    for language in ("ja", "en"):
        page = small.folder / "docs" / language / "layouts" / "two-sums.md"
        page.write_text("---\ndata: [nothing]\n---\n" + page.read_text("utf-8"), "utf-8")
    small.stamp()
    done = small.build()
    assert done.returncode == 1
    assert "no figure 'nothing' is kept by snippets/layouts/two_sums.py" in done.said
