"""head_view.py and the site's <head-view>, which is the same code: PyTorch's numbers, hands, pictures, sizes, refusals."""

import base64
import gzip
import html
import json
import re
import sys
import zlib
from pathlib import Path

import pytest
import shared_site
import torch
from browser import AXE, RULES, TOO_WIDE
from head_view import SCRIPT, head_view, picture_url

from builder.finished import lean
from builder.scripts import records

ROOT = Path(__file__).parents[2]
HOST = "http://heads.test"
FACE, SENTENCE = list("ヽ(`Д´)ノ"), ["the", "room", "is", "not", "bright", ".", "it", "is", "dark", "."]


def maps_of(layers, heads, rows, columns=None, seed=0, batch=1):
    """Random attention weights, as capture.py gives them: name -> (batch, heads, rows, columns)."""
    generator = torch.Generator().manual_seed(seed)
    shape = batch, heads, rows, columns or rows
    return {f"layers.{i}": (3 * torch.randn(shape, generator=generator)).softmax(-1) for i in range(layers)}


FACES = maps_of(2, 4, len(FACE))
WORDS = maps_of(2, 2, len(SENTENCE), seed=1)
CROSS = maps_of(1, 3, 4, 6, seed=2)
VIEW = (
    head_view(FACES, FACE, name="face", note="a face", group="Faces")
    + head_view(WORDS, SENTENCE, name="sentence", group="Sentences")
    + head_view(CROSS, list("abcd"), list("uvwxyz"), name="cross")
)
SHOWN = {0: (FACES, FACE, FACE), 1: (WORDS, SENTENCE, SENTENCE), 2: (CROSS, list("abcd"), list("uvwxyz"))}


@pytest.fixture
def opened(chromium, tmp_path):
    """A function (view, query, language, width) that opens a saved file from disk, and fails on any request or error."""
    contexts, faults = [], []

    def go(view=VIEW, query="", language="en", width=1000, scheme="light"):
        file = tmp_path / "heads.html"
        view.save(file)
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, locale=language, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or faults.append(request.url))
        page.goto(f"{file.as_uri()}{query}")
        page.wait_for_selector("head-view .hv-all button")
        return page

    yield go
    for context in contexts:
        context.close()
    assert not faults


def drawn(page):
    """The weights that stand beside the keys, and the labels of queries and of keys."""
    texts = [page.locator(f"head-view .{name}").all_text_contents() for name in ("hv-weight", "hv-query", "hv-key")]
    return torch.tensor([float(text) for text in texts[0]]), texts[1], texts[2]


def at(page, label, number):
    """Point at a row of the lines."""
    box = page.locator(f"head-view .{label}").nth(number).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_every_row_that_can_be_chosen_shows_pytorch_s_weights(opened):
    page, seen = opened(), 0
    for example, (maps, queries, keys) in SHOWN.items():
        page.select_option("[name=example]", str(example))
        for layer, weights in enumerate(maps.values()):
            for head, expected in enumerate(weights[0]):
                page.locator(f"head-view .hv-all [aria-label='layers.{layer}, head {head}']").click()
                for query in range(len(queries)):
                    at(page, "hv-query", query)
                    numbers, *labels = drawn(page)
                    assert labels == [queries, keys]
                    torch.testing.assert_close(numbers, expected[query], atol=5.1e-4, rtol=0)
                    seen += 1
    assert seen == sum(maps[name][0].shape[:2].numel() for maps, *_ in SHOWN.values() for name in maps)


def test_a_file_opens_from_disk_and_asks_nothing(opened):
    """The fixture looks at every request; a text that is HTML stays a text."""
    tokens = ["</script><script>alert(1)</script>", "<b>", "&amp;", "“", "\\u003c"]
    page = opened(head_view(maps_of(1, 1, 5), tokens, title="<i>T</i>", note="<u>n</u>"))
    assert drawn(page)[1] == tokens
    assert page.title() == page.inner_text("h1") == "<i>T</i>"
    assert page.inner_text("head-view .hv-note") == "<u>n</u>"


@pytest.mark.parametrize(("language", "says"), [("en", "attends to"), ("ja", "が見ている先"), ("fr", "attends to")])
def test_keyboard_moves_and_the_page_says_so(opened, language, says):
    page = opened(language=language)
    page.locator("head-view .hv-all [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.locator("head-view .hv-large").focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    row = FACES["layers.1"][0, 1, 3]
    page.wait_for_function(f"document.querySelector('.hv-says').textContent.includes('{row.max():.3f}')")
    line = page.locator("head-view .hv-says")
    assert says in line.inner_text()
    assert line.get_attribute("aria-live") == "polite"
    page.select_option("[name=view]", "map")
    page.keyboard.press("Tab")
    page.locator("head-view .hv-large").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"document.querySelector('.hv-says').textContent.endsWith('{row[1]:.3f}')")
    page.keyboard.press("Control+ArrowRight")  # the browser's
    assert page.evaluate("document.querySelector('head-view').state.key") == 1


PIXELS = "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"


def test_the_map_and_the_small_pictures_are_shaded_by_the_square_root(opened):
    page = opened(query="?view=map&layer=1&head=3")
    expected = (255 * FACES["layers.1"][0, 3].sqrt()).flatten()
    for canvas in ("foreignObject canvas", "[aria-pressed=true] canvas"):
        shades = torch.tensor(page.locator(f"head-view {canvas}").evaluate(PIXELS)).view(-1, 4)[:, 3]
        torch.testing.assert_close(shades.float(), expected, atol=1.5, rtol=0)


def test_a_cell_that_is_pointed_at_is_told(opened):
    page = opened(query="?view=map&head=2")
    box = page.locator("head-view foreignObject canvas").bounding_box()
    side = box["width"] / len(FACE)
    page.mouse.move(box["x"] + 4.5 * side, box["y"] + 2.5 * side)
    told = f"from “{FACE[2]}” to “{FACE[4]}”: {FACES['layers.0'][0, 2, 2, 4]:.3f}"
    page.wait_for_function("(told) => document.querySelector('.hv-says').textContent === told", arg=told)


def test_a_picture_shows_where_a_patch_looks(opened):
    """Height comes before width: patch 7 of 3 x 5 behind a class token is row 1, column 1."""
    h, w = 3, 5
    maps = maps_of(2, 2, h * w + 1, seed=4)
    picture = torch.zeros(3, 30, 50)
    picture[0] = torch.linspace(0, 1, 50)
    view = head_view(maps, ["[CLS]", *range(h * w)], picture=picture, grid=(h, w), extra=1)
    page = opened(view, query="?layer=1&head=1")
    patches = page.locator("head-view .hv-patches")
    box = patches.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(5 / 3, rel=0.02)
    page.mouse.move(box["x"] + 1.5 * box["width"] / w, box["y"] + 1.5 * box["height"] / h)
    assert page.evaluate("document.querySelector('head-view').state.query") == 1 + 1 * w + 1
    dark = torch.tensor(patches.locator("canvas").evaluate(PIXELS)).view(h, w, 4)[..., 3].float()
    row = maps["layers.1"][0, 1, 7, 1:].view(h, w)
    torch.testing.assert_close(dark, 220 * (1 - row / row.max()), atol=1.5, rtol=0)
    mark = patches.locator(".hv-mark").bounding_box()
    assert mark["x"] - box["x"] == pytest.approx(box["width"] / w, abs=1)
    page.locator("head-view .hv-extra button").click()
    assert page.evaluate("document.querySelector('head-view').state.query") == 0
    page.locator("head-view .hv-large").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.querySelector('head-view').state.query") == 1 + w


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_nothing_sticks_out_and_axe_finds_nothing(opened, width, scheme):
    page = opened(width=width, scheme=scheme)
    for view in ("lines", "map"):
        page.select_option("[name=view]", view)
        assert not page.evaluate(TOO_WIDE)
        page.evaluate(AXE)
        asked = "(rules) => axe.run(document, { runOnly: rules }).then(({ violations }) => violations.map((v) => v.id))"
        assert page.evaluate(asked, RULES) in ([], ["landmark-one-main", "region"])


def test_state_is_in_the_address_and_nonsense_is_not_believed(opened):
    page = opened(query="?example=7&layer=-1&head=1e3&query=999999&view=poem")
    state = page.evaluate("document.querySelector('head-view').state")
    assert state == {"example": 2, "layer": 0, "head": 0, "query": 3, "key": 0, "view": "lines"}


# Python


def unpacked(data):
    """The weights as the page reads them, by other means than its script: one flat tensor."""
    numbers = torch.tensor([*zlib.decompress(base64.b64decode(data["weights"]))], dtype=torch.float64)
    if data["levels"] == 255:
        return data["top"] * (numbers / 255) ** 2
    return data["top"] * (numbers[::2] + 256 * numbers[1::2]) / 65535


@pytest.mark.parametrize(("shape", "error"), [((2, 3, 30), 1e-5), ((3, 4, 170), 4e-3)])
def test_weights_are_kept_as_exactly_as_the_file_says(shape, error):
    maps = maps_of(*shape)
    maps["layers.0"] = maps["layers.0"] * 1.25  # dropout scales what it leaves
    expected = torch.cat([weights.flatten() for weights in maps.values()]).double()
    torch.testing.assert_close(unpacked(head_view(maps).data()), expected, atol=1.25 * error, rtol=0)


def test_a_large_model_fits(opened):
    """12 layers, 12 heads, 128 tokens; that a row takes little to choose is counted in what is drawn for it."""
    maps = maps_of(12, 12, 128)
    view = head_view(maps, [f"token{i}" for i in range(128)])
    assert len(view.html().encode()) < 3_000_000
    page = opened(view)
    assert page.locator("head-view .hv-all canvas").count() == 144
    before = page.evaluate("document.querySelectorAll('head-view *').length")
    at(page, "hv-query", 5)
    numbers, *_ = drawn(page)
    torch.testing.assert_close(numbers, maps["layers.0"][0, 0, 5], atol=9.1e-3, rtol=0)
    assert page.evaluate("document.querySelectorAll('head-view *').length") == before < 3000


def test_a_sample_of_a_batch_several_calls_and_what_is_unbatched():
    maps = maps_of(1, 2, 5, batch=3)
    second = maps["layers.0"][1]
    torch.testing.assert_close(unpacked(head_view(maps, sample=1).data()).float(), second.flatten(), atol=1e-5, rtol=0)
    view = head_view({"a": [second, second[:, :3, :3] / 2]})
    assert [layer["name"] for layer in view.data()["examples"][0]["layers"]] == ["a [0]", "a [1]"]


def test_a_notebook_shows_it(chromium):
    page = chromium.new_page()
    page.set_content(VIEW._repr_html_())
    frame = page.frame_locator("iframe")
    frame.locator("head-view .hv-all button").first.wait_for()
    assert frame.locator("head-view .hv-query").all_text_contents() == FACE
    page.close()


@pytest.mark.parametrize(
    ("maps", "more", "told"),
    [
        ({}, {}, "maps: expected at least one layer, got none"),
        ({"a": torch.rand(3, 4)}, {}, r"maps\['a'\]: expected (B, H, L, S) or (H, L, S), got (3, 4)"),
        ({"a": torch.full((1, 2, 2), torch.nan)}, {}, "got 4 NaN or infinities"),
        ({"a": -torch.ones(1, 2, 2)}, {}, "not negative, got -1"),
        ({"a": torch.rand(2, 1, 3, 3)}, {"sample": 2}, "sample: a has 2 of them, got 2"),
        ({"a": torch.rand(1, 3, 4)}, {"tokens": "ab"}, r"tokens: expected \[3, 4\] of them, got 2"),
        ({"a": torch.rand(1, 3, 4)}, {"keys": "abc"}, r"keys: expected \[4\] of them, got 3"),
        ({"a": torch.rand(1, 5, 5)}, {"grid": (2, 2)}, "picture, grid: expected both of them or none"),
        (
            {"a": torch.rand(1, 5, 5)},
            {"grid": (2, 2), "picture": torch.rand(2, 2)},
            r"grid: 2 x 2 patches and 0 more are 4 keys, the maps have \[5\]",
        ),
        ({"a": torch.rand(1, 4, 4)}, {"grid": (2, 2), "picture": b"MM"}, "picture: expected PNG, JPEG, GIF or WebP"),
        ({"a": torch.rand(1, 4, 4)}, {"grid": (2, 2), "picture": 3 * torch.rand(3, 2, 2)}, "undo the normalisation"),
        ({"a": torch.rand(1, 4, 4)}, {"grid": (2, 2), "picture": torch.rand(5, 2, 2)}, r"or \(height, width\), got"),
    ],
)
def test_what_cannot_be_shown_is_refused(maps, more, told):
    with pytest.raises(ValueError, match=told.replace("(B, H, L, S) or (H, L, S), got (3, 4)", ".*")):
        head_view(maps, **more)


def test_pixels_and_files_become_one_picture(chromium, tmp_path):
    pixels = (255 * torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))).byte()
    url = picture_url(pixels)
    read = """(url) => new Promise((done) => { const image = new Image(); image.onload = () => {
      const canvas = document.createElement("canvas"); canvas.width = image.width; canvas.height = image.height;
      const pen = canvas.getContext("2d"); pen.drawImage(image, 0, 0);
      done([...pen.getImageData(0, 0, image.width, image.height).data]); }; image.src = url; })"""
    page = chromium.new_page()
    assert torch.equal(torch.tensor(page.evaluate(read, url)).view(4, 6, 4)[..., :3], pixels.permute(1, 2, 0).long())
    page.close()
    file = tmp_path / "p.png"
    file.write_bytes(base64.b64decode(url.partition(",")[2]))
    assert picture_url(file) == picture_url(str(file)) == picture_url(pixels.permute(1, 2, 0)) == url
    assert picture_url(pixels[:1].expand(3, -1, -1)) == picture_url(pixels[0])


# The site's own


@pytest.fixture
def on_site(chromium):
    """A function (language, query, far, status) that opens a page of a site with the explorer; `far` puts it off screen."""
    context = chromium.new_context(viewport={"width": 360, "height": 700})
    faults, asked = [], []

    def go(language="en", query="", far=False, status=200):
        space = '<div style="height: 3000px"></div>' if far else ""

        def serve(route):
            path = route.request.url.removeprefix(HOST).partition("?")[0]
            asked.append(path)
            if path.endswith(".js"):
                route.fulfill(body=SCRIPT, content_type="text/javascript")
            elif path.endswith(".json"):
                route.fulfill(status=status, body=json.dumps(VIEW.data()), content_type="application/json")
            else:
                body = f"""<!doctype html><html lang="{language}"><meta charset="utf-8"><title>heads</title>{space}
                <head-view data-name="heads"><p>the build's figure</p><div class="explorer-stage"></div></head-view>
                <script type="module" src="/explorers/head-view.js"></script></html>"""
                route.fulfill(body=body, content_type="text/html; charset=utf-8")

        context.route("**/*", serve)
        page = context.new_page()
        page.asked = asked
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{HOST}/{language}/weights/text-classification/{query}")
        if not far and status == 200:
            page.wait_for_selector("head-view .hv-query")
        return page

    yield go
    context.close()
    assert not faults


def test_a_choice_stands_in_the_address(on_site):
    page = on_site()
    page.select_option("[name=example]", "1")
    page.locator("head-view .hv-all [aria-label='layers.1, head 1']").click()
    page.wait_for_function("location.search.includes('head=1')")
    query = page.evaluate("location.search")
    assert set(query[1:].split("&")) == {"example=1", "layer=1", "head=1"}
    again = on_site(query=query)
    assert again.evaluate("document.querySelector('head-view').state") == page.evaluate(
        "document.querySelector('head-view').state"
    )


def test_data_are_fetched_only_when_the_explorer_comes_near(on_site):
    page = on_site(far=True)
    page.wait_for_timeout(300)
    assert not any(path.endswith(".json") for path in page.asked)
    page.locator("head-view").scroll_into_view_if_needed()
    page.wait_for_selector("head-view .hv-query")
    assert [path for path in page.asked if path.endswith(".json")] == ["/data/heads.json"]


def test_without_its_data_the_figure_stands_and_the_reader_is_told(on_site):
    page = on_site("ja", status=404)
    page.wait_for_selector("head-view [role=alert]")
    assert "読み込めませんでした" in page.inner_text("head-view [role=alert]")
    assert "the build's figure" in page.inner_text("head-view")


def test_the_site_s_explorer_is_the_recipe_s(tmp_path):
    """Less the comments, as all scripts of the site."""
    (tmp_path / "explorers").mkdir()
    (tmp_path / "explorers" / "head-view.js").write_text(SCRIPT.lstrip(), "utf-8")
    lean.without_comments(tmp_path)
    ours = (tmp_path / "explorers" / "head-view.js").read_text("utf-8")
    assert (shared_site.built() / "explorers" / "head-view.js").read_text("utf-8") == ours


@pytest.fixture(scope="module", params=["en", "ja"])
def published(request):
    return request.param, (shared_site.built() / "data" / f"heads_{request.param}.json").read_bytes()


def test_published_data_are_pytorch_s_maps_and_small(published, monkeypatch):
    language, data = published
    assert len(gzip.compress(data, 9)) <= 60_000
    monkeypatch.setenv("ATTENTION_CACHE", str(records.ARTIFACTS))  # what the build trained
    sys.path.insert(0, str(ROOT / "snippets" / "recipes"))
    from capture import attention_weights
    from kaomoji import CATEGORIES, cached, encode, faces, trained, vocabulary
    from negation import trained_reader

    told = json.loads(data)
    weights = unpacked(told)
    face_model, face_vocab = trained(seed=0), vocabulary(cached(faces)["train"])
    reader, reader_vocab = trained_reader(language)[:2]
    start = 0
    for example in told["examples"]:
        tokens = example["layers"][0]["queries"]
        face = example["group"] == told["examples"][0]["group"]
        model, vocab = (face_model, face_vocab) if face else (reader, reader_vocab)
        with attention_weights(model) as maps, torch.no_grad():
            logits = model(encode([tokens], vocab))[0]
        expected = torch.stack(list(maps.values())).flatten()
        torch.testing.assert_close(weights[start : start + len(expected)], expected.double(), atol=1e-5, rtol=0)
        start += len(expected)
        best = logits.softmax(-1).max(-1)
        assert f"({best.values:.2f})" in example["note"].replace("（", "(").replace("）", ")")
        if face and language == "en":
            assert f"says {CATEGORIES[best.indices]} " in example["note"]
    assert start == len(weights)
    assert len(told["examples"]) >= 20


def test_the_page_asks_for_data_that_are_there():
    site = shared_site.built()
    for language in ("ja", "en"):
        page = (site / language / "weights" / "text-classification" / "index.html").read_text("utf-8")
        (name,) = re.findall(r'<head-view[^>]* data-name="(\w+)"', page)
        assert (site / "data" / f"{html.unescape(name)}.json").exists()


def test_a_page_that_names_no_data_of_its_script_is_told(small):
    for language in ("ja", "en"):
        page = small.folder / "docs" / language / "layouts" / "two-sums.md"
        page.write_text("---\ndata: [nothing]\n---\n" + page.read_text("utf-8"), "utf-8")
    small.stamp()
    assert "no JSON 'nothing' is shown by snippets/layouts/two_sums.py" in small.told()


def test_a_long_name_stays_within_a_phone_s_width(opened):
    views = [
        head_view(WORDS, SENTENCE, name=f"{letter} sentence that goes on and on {'and on ' * 12}") for letter in "AB"
    ]
    page = opened(views[0] + views[1], width=360)
    box = page.locator("head-view select[name='example']").bounding_box()
    assert box["x"] + box["width"] <= 360
