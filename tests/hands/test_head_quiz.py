"""The explorer that asks: its answers and its known mistakes against torch's slices, and what it says by keyboard."""

import random
from pathlib import Path

import pytest
import torch

from builder import words
from builder.finished.markup import with_words

EXPLORERS = Path(__file__).parents[2] / "docs" / "shared" / "explorers"
HOST = "http://quiz.test"
PAGE = """<!doctype html><html lang="{language}"><meta charset="utf-8"><title>quiz</title>
<head-quiz><div class="explorer-stage"></div></head-quiz><script type="module" src="/head-quiz.js"></script></html>"""


@pytest.fixture
def opened(chromium):
    """A function (language, numbers) that opens a page on which the random numbers are those, again and again."""
    context, faults = chromium.new_context(viewport={"width": 360, "height": 700}), []

    def serve(route):
        address = route.request.url.removeprefix(HOST)
        if address.endswith(".js"):
            route.fulfill(body=(EXPLORERS / address[1:]).read_text("utf-8"), content_type="text/javascript")
        else:
            page = with_words(PAGE.format(language=address[1:3]), "head-quiz", address[1:3])
            route.fulfill(body=page, content_type="text/html; charset=utf-8")

    context.route("**/*", serve)

    def go(language="en", numbers=(0,)):
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.add_init_script(f"const n = {list(numbers)}; let i = 0; Math.random = () => n[i++ % n.length]")
        page.goto(f"{HOST}/{language}/")
        page.wait_for_selector("head-quiz form")
        return page

    yield go
    context.close()
    assert not faults


ASK = """async (all) => {
  const { draw, answer, mistakes, judge } = await import("/head-quiz.js");
  return all.map((numbers) => {
    const question = draw(() => numbers.shift());
    const known = mistakes(question);
    const told = [answer(question), ...known.map(([, given]) => given), [-1, -1], [NaN, 2]].map((given) => judge(question, given));
    return { question, answer: answer(question), known, told };
  });
}"""


def test_answers_and_mistakes_are_torch_s(opened):
    drawn = random.Random(3)
    asked = opened().evaluate(ASK, [[drawn.random() for _ in range(5)] for _ in range(300)])
    kinds = set()
    for one in asked:
        question, right, known = one["question"], one["answer"], one["known"]
        kind, E, H, t, head = (question[name] for name in ("kind", "E", "H", "t", "head"))
        D, counted = E // H, torch.arange(3 * E)
        torchs, by_head = counted.view(3, H, D), counted.view(H, 3, D)

        def span(rows):
            return [rows[0].item(), rows[-1].item() + 1]

        first = {}
        for name, given in known:
            first.setdefault(name, given)
            assert given != right, question
        if kind == "owner":
            assert right == (torchs == question["row"]).nonzero()[0, :2].tolist()
            other = (by_head == question["row"]).nonzero()[0, :2].flip(0).tolist()
            assert first.get("by_head", right) == other
            assert len({str(given) for name, given in known if name in ("role", "other", "counted")}) >= H
        elif kind == "rows":
            assert right == span(torchs[t, head])
            assert first["last"] == [right[0], right[1] - 1]
            assert first.get("by_head", right) == span(by_head[head, t])
            assert [first.get(role, right) for role in "qkv"] == [span(torchs[s, head]) for s in range(3)]
            assert first["counted"] == [right[0] - D, right[1] - D]
        else:
            assert right == span(torchs[0, head])
            assert first["values"] == span(torchs[2, head])
        unknown = ["no_blocks" if kind == "columns" else "wrong", "empty"]
        names = dict.fromkeys(str(given) for _, given in known)
        told = [next(name for name, given in known if str(given) == text) for text in names]
        assert one["told"] == ["right", *(told[list(names).index(str(given))] for _, given in known), *unknown]
        kinds.add(kind)
    assert kinds == {"rows", "columns", "owner"}


def test_every_mistake_has_its_words(opened):
    drawn = random.Random(4)
    asked = opened().evaluate(ASK, [[drawn.random() for _ in range(5)] for _ in range(200)])
    told = {name for one in asked for name in one["told"]} - set("qkv")
    for language in words.LANGUAGES:
        assert told <= words.of("explorers/head-quiz", language).keys()


ROWS = (0, 0, 0.5, 0.6, 0)  # E 24, H 4; rows; the key of head 2
OWNER = (0, 0.9, 0, 0, 0.575)  # row 41


@pytest.mark.parametrize(
    ("language", "right", "end", "empty"),
    [
        ("en", "Right. 1 of 1 right.", "a slice does not hold its end", "Two whole numbers are wanted."),
        ("ja", "正解です。（1問中1問正解）", "スライスは終わりを含みません", "数を2つとも、整数で入れてください。"),
    ],
)
def test_a_question_is_answered_by_keyboard(opened, language, right, end, empty):
    page = opened(language, ROWS)
    assert "in_proj_weight[a:b]" in page.inner_text("form p >> nth=0")
    said = page.locator(".explorer-says")
    page.get_by_label("a", exact=True).focus()
    page.keyboard.press("Enter")
    assert said.inner_text() == empty
    page.keyboard.type("３６")  # full-width digits
    page.keyboard.press("Tab")
    page.keyboard.type("42")
    page.keyboard.press("Enter")
    assert said.inner_text() == right
    page.get_by_label("b", exact=True).fill("41")
    page.keyboard.press("Enter")
    assert end in said.inner_text()
    assert said.inner_text().endswith(right[-9:]), "the first answer to a question counts"
    for live in (said, page.locator("form p >> nth=0")):
        assert live.get_attribute("aria-live") == "polite"


def test_the_next_question_is_another_and_takes_the_focus(opened):
    page = opened(numbers=(*ROWS, *OWNER))
    page.get_by_label("a", exact=True).fill("60")
    page.get_by_label("b", exact=True).fill("66")
    page.get_by_role("button", name="Check").click()
    assert page.inner_text(".explorer-says") == "These rows are the value of that head. 0 of 1 right."
    page.get_by_role("button", name="Another question").click()
    assert "row 41 of in_proj_weight" in page.inner_text("form p >> nth=0")
    assert page.inner_text(".explorer-says") == ""
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    page.get_by_label("what").select_option("key")
    page.get_by_label("head").fill("6")
    page.get_by_role("button", name="Check").click()
    assert page.inner_text(".explorer-says").startswith("Take the blocks of E rows before it off first.")
    page.get_by_label("head").fill("2")
    page.keyboard.press("Enter")
    assert page.inner_text(".explorer-says") == "Right. 0 of 2 right."
