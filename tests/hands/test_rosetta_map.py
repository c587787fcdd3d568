"""The explorer on layouts/rosetta: its slices against those that torch takes, its messages, its figure by keyboard."""

import json
import random
from pathlib import Path

import pytest
import torch

from builder.finished.markup import with_words

EXPLORERS = Path(__file__).parents[2] / "docs" / "shared" / "explorers"
HOST = "http://rosetta.test"
PAGE = """<!doctype html><html lang="{language}"><meta charset="utf-8"><title>rosetta</title>
<rosetta-map><figure class="figure"><figcaption>map</figcaption><div class="figure__panels">
<svg role="img" aria-label="a" width="90" height="90">{packed}</svg>
<svg role="img" aria-label="b" width="90" height="90">{cut}</svg>
</div></figure></rosetta-map><script type="module" src="/rosetta-map.js"></script></html>"""


def block(matrix, role, head, x, y):
    code = f"in_proj_weight[{6 * head}:{6 * head + 6}].T"
    return (
        f'<g class="block" data-matrix="{matrix}" data-role="{role}" data-head="{head}" data-rows="0:6"'
        f' data-columns="0:24" data-code="{code}"><rect x="{x}" y="{y}" width="40" height="40"/></g>'
    )


def pages(language):
    roles = [("q", 0), ("q", 1), ("k", 0), ("k", 1)]
    places = [(45 * (i % 2), 45 * (i // 2)) for i in range(4)]
    packed = "".join(block("in_proj_weight", *who, *at) for who, at in zip(roles, places, strict=True))
    cut = "".join(block("W", *who, *at) for who, at in zip(roles, places, strict=True))
    return with_words(PAGE.format(language=language, packed=packed, cut=cut), "rosetta-map", language)


@pytest.fixture
def opened(chromium):
    """A function (language, query) that opens a page with the explorer on it."""
    context = chromium.new_context(viewport={"width": 360, "height": 700})

    def serve(route):
        address = route.request.url.removeprefix(HOST)
        if address.endswith(".js"):
            route.fulfill(body=(EXPLORERS / address[1:]).read_text("utf-8"), content_type="text/javascript")
        else:
            route.fulfill(body=pages(address[1:3]), content_type="text/html; charset=utf-8")

    context.route("**/*", serve)
    faults = []

    def go(language="en", query=""):
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{HOST}/{language}/{query}")
        page.wait_for_selector("rosetta-map .rosetta-form")
        return page

    yield go
    context.close()
    assert not faults


def called(page, name, many):
    """What the module's function `name` returns for each list of arguments."""
    script = """async ([name, many]) => {
        const module = await import('/rosetta-map.js');
        return many.map((one) => module[name](...one));
    }"""
    return page.evaluate(script, [name, many])


def valid_pairs(count):
    """Pairs (embed_dim, num_heads) over the whole range: the corners, then pairs drawn at random."""
    draw = random.Random(0)
    pairs = [(1, 1), (24, 4), (768, 12), (16384, 1), (16384, 256), (16320, 255), (256, 256), (16383, 3)]
    while len(pairs) < count:
        num_heads = draw.randint(1, 256)
        pairs.append((num_heads * draw.randint(1, 16384 // num_heads), num_heads))
    return pairs


def test_slices_pick_what_torch_picks(opened):
    draw = random.Random(1)
    asked = [(E, H, draw.randrange(H)) for E, H in valid_pairs(200)]
    told = called(opened(), "slices", asked)
    for (E, H, head), slices in zip(asked, told, strict=True):
        D = E // H
        # every row of a stored matrix carries its own number; expanded, so that 16384 x 16384 costs nothing
        stored = {
            "in_proj_weight": torch.arange(3 * E)[:, None].expand(3 * E, E),
            "in_proj_bias": torch.arange(3 * E),
            "out_proj.weight": torch.arange(E).expand(E, E),
        }
        packed, bias, merged = stored.values()
        wanted = {("W", "O"): merged.unflatten(1, (H, D))[:, head].mT}
        for part, rows, numbers in zip("QKV", packed.chunk(3), bias.chunk(3), strict=True):
            wanted["W", part] = rows.unflatten(0, (H, D))[head].mT
            wanted["b", part] = numbers.unflatten(0, (H, D))[head]
        assert {(piece["name"], piece["part"]) for piece in slices} == set(wanted)
        for piece in slices:
            name, _, index = piece["code"].partition("[")
            picked = eval(f"stored[{name!r}][{index}", {"stored": stored})
            expected = wanted[piece["name"], piece["part"]]
            assert piece["head"] == head
            assert list(picked.shape) == list(expected.shape) == piece["shape"], (E, H, head, piece)
            assert torch.equal(picked[..., 0], expected[..., 0]), (E, H, head, piece)
            assert torch.equal(picked[..., -1], expected[..., -1]), (E, H, head, piece)
            assert torch.equal(picked[0], expected[0]), (E, H, head, piece)


def test_owner_of_a_row_is_torch_s(opened):
    draw = random.Random(2)
    asked = []
    for E, H in valid_pairs(100):
        asked += [(E, H, row) for row in {0, 3 * E - 1, *(draw.randrange(3 * E) for _ in range(8))}]
    told = called(opened(), "rowOwner", asked)
    for (E, H, row), owner in zip(asked, told, strict=True):
        role, head, column = (int(index) for index in torch.unravel_index(torch.tensor(row), (3, H, E // H)))
        assert owner == {"role": "qkv"[role], "head": head, "column": column}, (E, H, row)


REFUSED = [
    ("100", "12", "divisible", "embed_dim"),
    ("1", "2", "divisible", "embed_dim"),
    ("0", "4", "positive", "embed_dim"),
    ("24", "0", "positive", "num_heads"),
    ("-24", "4", "positive", "embed_dim"),
    ("24", "-1", "positive", "num_heads"),
    ("abc", "4", "number", "embed_dim"),
    ("24", "4.5", "number", "num_heads"),
    ("2e3", "4", "number", "embed_dim"),
    ("NaN", "4", "number", "embed_dim"),
    ("", "4", "empty", "embed_dim"),
    ("24", " ", "empty", "num_heads"),
    ("16385", "1", "large", "embed_dim"),
    ("514", "257", "large", "num_heads"),
]
WHY = {
    "ja": {
        "divisible": "割り切れません",
        "positive": "1以上",
        "number": "整数ではありません",
        "empty": "空です",
        "large": "までです",
    },
    "en": {
        "divisible": "not divisible",
        "positive": "1 or more",
        "number": "not a whole number",
        "empty": "is empty",
        "large": "goes up to",
    },
}


@pytest.mark.parametrize("language", ["ja", "en"])
def test_an_invalid_pair_is_told_why(opened, language):
    page = opened(language)
    for embed_dim, num_heads, why, name in REFUSED:
        page.fill("[name=embed_dim]", embed_dim)
        page.fill("[name=num_heads]", num_heads)
        page.locator("[name=num_heads]").blur()  # who leaves a field wants to know
        said = page.inner_text(".rosetta-fault")
        assert name in said, (embed_dim, num_heads)
        assert WHY[language][why] in said, (embed_dim, num_heads)
        assert page.inner_text(".rosetta-result") == ""
        assert page.locator(f"[name={name}][aria-invalid=true]").count() == 1
        page.fill("[name=embed_dim]", "48")
        page.fill("[name=num_heads]", "6")
        assert page.inner_text(".rosetta-fault") == ""
        assert page.locator("[aria-invalid=true]").count() == 0
        assert "in_proj_weight[16:24].T" in page.inner_text(".rosetta-result")  # head 2, width 8


def test_every_valid_pair_is_accepted_and_torch_agrees(opened):
    pairs = [(E, H) for E in range(-1, 41) for H in range(-1, 18)]
    for (E, H), refused in zip(pairs, called(opened(), "refusedPair", pairs), strict=True):
        try:
            torch.nn.MultiheadAttention(E, H, device="meta")
            accepted = True
        except (ValueError, AssertionError, RuntimeError, ZeroDivisionError):
            accepted = False
        assert accepted == (refused is None), (E, H, refused)


def test_neighbours_that_are_suggested_would_do(opened):
    pairs = [(100, 12), (1, 2), (16383, 256), (16384, 255), (7, 5)]
    for (E, H), refused in zip(pairs, called(opened(), "refusedPair", pairs), strict=True):
        assert refused["near"]
        for value in refused["near"]:
            assert 1 <= value <= 16384
            assert value % H == 0
            assert abs(value - E) < H


@pytest.mark.parametrize("language", ["ja", "en"])
def test_head_and_row_stay_inside(opened, language):
    page = opened(language)
    for field, value, says in (("head", "4", "0"), ("row", "72", "71"), ("row", "-1", "71"), ("head", "x", "x")):
        usual = page.input_value(f"[name={field}]")
        page.fill(f"[name={field}]", value)
        page.locator(f"[name={field}]").blur()
        assert says in page.inner_text(".rosetta-fault")
        assert page.locator(f"[name={field}][aria-invalid=true]").count() == 1
        page.fill(f"[name={field}]", usual)
        assert page.inner_text(".rosetta-fault") == ""


def test_full_width_digits_are_read(opened):
    page = opened("ja")
    page.fill("[name=embed_dim]", "４８")
    assert "in_proj_weight[24:36].T" in page.inner_text(".rosetta-result")


def test_arrow_keys_keep_a_pair_valid(opened):
    page = opened()
    page.focus("[name=embed_dim]")
    page.keyboard.press("ArrowUp")
    assert page.input_value("[name=embed_dim]") == "28"
    assert page.inner_text(".rosetta-fault") == ""
    page.focus("[name=row]")
    page.keyboard.press("ArrowDown")
    assert page.input_value("[name=row]") == "40"


def test_state_is_in_the_address(opened):
    page = opened()
    page.fill("[name=embed_dim]", "768")
    page.fill("[name=num_heads]", "12")
    page.fill("[name=head]", "11")
    page.fill("[name=row]", "2303")
    page.locator('[data-matrix="W"][data-role="k"][data-head="1"]').click()
    again = opened(query="?" + page.url.partition("?")[2])
    assert again.inner_text(".rosetta-result") == page.inner_text(".rosetta-result")
    assert "out_proj.weight[:, 704:768].T" in again.inner_text(".rosetta-result")
    assert again.inner_text(".rosetta-row").startswith("Row 2303 belongs to the value of head 11.")
    assert again.locator(".block.lit").count() == 2
    for name, value in (("embed_dim", "24"), ("num_heads", "4"), ("head", "2"), ("row", "41")):
        again.fill(f"[name={name}]", value)
    assert json.loads(again.evaluate("JSON.stringify([...new URLSearchParams(location.search).keys()])")) == ["block"]


def lit(page):
    """The blocks that are lit, as matrix, role and head."""
    script = "b => b.dataset.matrix + b.dataset.role + b.dataset.head"
    return page.evaluate(f"[...document.querySelectorAll('.block.lit')].map({script})")


def test_a_block_lights_its_twin_and_says_its_code(opened):
    page = opened()
    assert lit(page) == []
    page.locator('[data-matrix="in_proj_weight"][data-role="q"][data-head="1"]').hover()
    assert lit(page) == ["in_proj_weightq1", "Wq1"]
    assert "in_proj_weight[6:12].T" in page.inner_text(".rosetta-line")
    page.mouse.move(350, 690)
    assert lit(page) == []


def test_blocks_are_reached_by_keyboard(opened):
    page = opened("ja")
    assert page.locator(".block[tabindex='0']").count() == 1
    page.keyboard.press("Tab")
    assert lit(page) == ["in_proj_weightq0", "Wq0"]
    page.keyboard.press("ArrowDown")
    assert lit(page) == ["in_proj_weightq1", "Wq1"]
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.matrix") == "W"
    assert lit(page) == ["in_proj_weightq1", "Wq1"]
    page.keyboard.press("End")
    assert lit(page) == ["in_proj_weightk1", "Wk1"]
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert "ヘッド1のキー" in page.inner_text(".rosetta-line")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "embed_dim"
