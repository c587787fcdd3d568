"""The site in the reader's hand: every page in Chromium, and what a hand does to it.

Set SITE_DIR to test a site that is built already.
"""

import functools
import gzip
import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from contextlib import contextmanager, suppress
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import browser
import pytest
import shared_site
from browser import AXE, RULES, TOO_WIDE

from builder import words

ROOT = Path(__file__).parents[2]
LANGUAGES = browser.LANGUAGES
LATE = ".claims-scroll, layout-table"  # what waits until it is seen (site.js)
COME = f"() => !document.querySelector('.coming .md-content__inner > :not([data-here], {LATE})')"
BEGUN = "() => !document.querySelector('.coming:not([data-begun])')"
CUT_FORMULAS = """() => [...document.querySelectorAll(".math--display")]
  .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1).map((e) => e.scrollWidth)"""
BROKEN = """() => {
  const told = [];
  const walker = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
  const whole = /\\d[\\d.]*e[-−+]?\\d+|\\d{4}-\\d\\d-\\d\\d/g;
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (parent.closest("pre, svg, math, .claims-scroll") || !parent.checkVisibility()) continue;
    const numbers = [...node.data.matchAll(whole)].map((found) => [found.index, found.index + found[0].length]);
    const parts = parent.closest("td code") ? [[0, node.data.length]] : numbers;
    for (const [start, end] of parts) {
      const range = document.createRange();
      range.setStart(node, start);
      range.setEnd(node, end);
      const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
      if (lines.size > 1) told.push(node.data.slice(start, end));
    }
  }
  return told;
}"""
HEADS = """() => [...document.querySelectorAll("article :is(th, td)")].filter((cell) => {
  const style = getComputedStyle(cell);
  const inner = cell.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  return /[\\u3040-\\u9fff]{4}/.test(cell.textContent) && inner < 3.2 * parseFloat(style.fontSize);
}).map((cell) => cell.textContent)"""
# A map of a head that is cut in two says by itself that there are more.
NO_SIGN = """() => [...document.querySelectorAll("article :not(.hv-all)")].filter((box) =>
    box.scrollWidth > box.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(box).overflowX)
    && !getComputedStyle(box).backgroundAttachment.includes("local"))
  .map((box) => box.outerHTML.slice(0, 100))"""
SCROLLERS = """() => [...document.querySelectorAll("article *")].filter((box) =>
    box.scrollWidth > box.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(box).overflowX)).length"""
SLANTED = """() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), told = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!/[\\u3040-\\u30ff\\u4e00-\\u9fff]/.test(node.data)) continue;
    if (getComputedStyle(node.parentElement).fontStyle !== "normal") told.push(node.data);
  }
  return told;
}"""
THIN = """() => [...document.querySelectorAll("article em")]
  .filter((em) => getComputedStyle(em).fontWeight < 600).map((em) => em.textContent)"""
GAPS = """() => {
  const japanese = /[\\u3041-\\u3096\\u30a1-\\u30fa\\u30fc\\u3005\\u4e00-\\u9fff]/, told = [];
  for (const math of document.querySelectorAll("article .math:not(.math--display)")) {
    const run = math.closest(".math-run") ?? math, style = getComputedStyle(math);
    for (const side of ["previous", "next"]) {
      const beside = side === "previous" ? math.previousSibling : math.nextSibling;
      const outside = beside ?? (run === math ? null : run[`${side}Sibling`]);
      if (!(outside?.nodeType === 3 || outside?.matches?.("a, em, strong"))) continue;
      const letter = side === "previous" ? outside.textContent.at(-1) : outside.textContent[0];
      const gap = parseFloat(side === "previous" ? style.marginLeft : style.marginRight);
      if (japanese.test(letter) !== gap > 0) told.push(`${math.dataset.tex} ${side} ${letter} ${gap}`);
    }
  }
  return told;
}"""
# {width of the window: [(whose pages, what is wrong, a script that finds it)]}: what a page's own text is asked.
ASKED = {
    1280: [
        ("ja", "slanted Japanese", SLANTED),
        ("ja", "stressed, and not bold", THIN),
        ("ja", "a formula's distance", GAPS),
    ],
    360: [
        ("", "px of a formula, too wide for a phone", CUT_FORMULAS),
        ("", "a number or a name that breaks in two", BROKEN),
        ("ja", "a cell that is a column of single letters", HEADS),
        ("", "scrolls sideways and does not say so", NO_SIGN),
    ],
}
SCROLL_SIDEWAYS = ["ja/layouts/conventions/", "en/reference/claims/", "en/layouts/grid/", "ja/practice/masks/"]
# What a page costs a slow processor grows with its elements: half were spans of code that coloured nothing.
ELEMENTS = {"layouts/rosetta/": 3000, "layouts/options/": 4000, "weights/text-classification/": 6500}
# Pages of one template differ in their text: what they are made of is looked at on each, their colours on one of each.
COLOURS = ["color-contrast", "link-in-text-block"]
BUT_COLOURS = {"runOnly": RULES, "rules": {rule: {"enabled": False} for rule in COLOURS}}
FIRST_VISIT = 100_000
HEAVIER = {
    "weights/text-classification/": 125_000,  # every head of a trained model, and the whole of its training
    "weights/real-model/": 180_000,  # every head of twelve layers, once they are in sight
}
STYLED = 1.6  # times that what is seen of a page is given its style while it loads,
BUILT = 700  # beside what Material and the explorers build and build again
# What is laid out in one task (site.css): what stands above the first picture, what else is seen at once, the largest piece.
AT_ONCE = {"first frame": 300, "second frame": 500, "piece": 500}
TAKEN = """(late) => {
  const drawn = ":not(details:not([open]) *, .glossary > dd:nth-of-type(n + 6) *)";
  const second = ":is(.grid, .grid ~ *, :nth-child(n + 6))";
  const later = ":is(:nth-child(n + 8), :is(.grid, dot-product, head-view, option-grid, rosetta-map) ~ *)";
  const elements = (which) =>
    [...document.querySelectorAll(`.md-content__inner > ${which}`)].map((box) => 1 + box.querySelectorAll(drawn).length);
  const sum = (sizes) => sizes.reduce((total, size) => total + size, 0);
  return {
    "first frame": sum(elements(`:not(${second})`)),
    "second frame": sum(elements(`${second}:not(${later})`)),
    "piece": Math.max(0, ...elements(`${later}:not(${late})`)),
  };
}"""
# A letter of a formula is a copy: two elements that no list of elements has.
SEEN = """() => [...document.querySelectorAll("*")].filter((e) => e.checkVisibility({ contentVisibilityAuto: true })).length
  + 2 * document.querySelectorAll("use").length"""
NEXT_PAGE = 20_000  # what a reader of another page still fetches: for LIGHT of all pages, at MOST for the others
LIGHT = 0.9
MOST = 22_500
HEAVY = {  # explorers bring their scripts, all claims are all claims, and a trained model has many atoms
    "weights/text-classification/": 44_000,
    "reference/claims/": 68_000,
    "weights/real-model/": 31_000,
    "layouts/rosetta/": 24_000,
}


PAGES = browser.addresses()
LESSONS = [page for page in PAGES if page.count("/") > 2 and "/reference/" not in page and "/practice/" not in page]


@pytest.fixture(scope="module")
def kept():
    return {}


@contextmanager
def going_through_pages(chromium, server, kept, axe):
    """The one window that goes through all pages, or all that axe looks at; a new one after a page that broke it."""
    window = kept.pop(axe, None)
    if not window:
        window = browser.Reader(chromium, server.base, reduced_motion="reduce", locale="en")
        window.forgets()
        if axe:
            window.page.add_init_script(AXE)  # half of what handing it to each page anew takes
    window.faults = []
    yield window
    if window.usable():
        window.page.evaluate("localStorage.clear()")
        window.page.goto("about:blank")  # there is nothing on it to be laid out anew when it gets its first size
        kept[axe] = window


@pytest.fixture
def window(chromium, server, kept, address):
    with going_through_pages(chromium, server, kept, axe=address in ONE_OF_EACH) as window:
        yield window


@pytest.fixture
def window_with_axe(chromium, server, kept):
    with going_through_pages(chromium, server, kept, axe=True) as window:
        yield window


SETTLE = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# Spans of a code block that look like one already seen, the strokes of a formula, which its label speaks for, and the later
# rows of the long tables tell nothing new: they cost half of the time, and twice as much again when axe is told to leave them out.
# drawn: also what one hand has drawn on all pages: the theme around the article, and the inside of formulas and pictures.
DROP_ALIKE = """(drawn) => {
  for (const stroke of document.querySelectorAll(".math > svg > *")) stroke.remove();
  const same = ".math > *, svg.figure__svg > :not(title, desc), .md-nav--primary > * > .md-nav__item, .md-tabs__item, .md-footer > *";
  if (drawn) for (const part of document.querySelectorAll(same)) part.remove();
  const seen = new Set();
  for (const span of document.querySelectorAll("pre code span[class]")) {
    const block = span.closest(".highlight");
    const key = [span, span.parentElement, block, block?.parentElement].map((element) => element?.className).join("|");
    if (seen.has(key)) span.replaceWith(...span.childNodes);
    seen.add(key);
  }
  document.querySelectorAll(".claims-table").forEach((table, index) => {
    for (const row of table.querySelectorAll(`tr:nth-child(n + ${index < 3 ? 6 : 2})`)) row.remove();
  });
}"""
# Which blocks scroll is looked at once a window has its size, in the frame behind it; ours and Material's both do.
SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30))))"
ASK = """async (rules) => {
  const asked = Array.isArray(rules) ? { runOnly: rules } : rules;
  const { violations } = await axe.run(document, { ...asked, resultTypes: ["violations"] });
  const why = (node) => [...node.any, ...node.all, ...node.none][0]?.message ?? "";
  return violations.flatMap((v) => v.nodes.slice(0, 3).map((n) => `${v.id}: ${n.target} ${n.html.slice(0, 120)} ${why(n)}`));
}"""


def set_scheme(window, scheme):
    """Dark or light as a press of Material's own switch sets it; the pages of the root follow the system."""
    page = window.page
    page.emulate_media(color_scheme=scheme)
    if page.locator("[name=__palette]").count():
        page.evaluate(
            """(scheme) => {
              const input = [...document.querySelectorAll("[name=__palette]")].find((i) => i.dataset.mdColorScheme === scheme);
              if (document.body.dataset.mdColorScheme !== scheme) input.click();
            }""",
            {"light": "default", "dark": "slate"}[scheme],
        )
        named = {"light": "default", "dark": "slate"}[scheme]
        browser.until(page, "(scheme) => document.body.dataset.mdColorScheme === scheme", named)
    page.evaluate(SETTLE)


# Where a template or an explorer differs, axe looks in both ways and both schemes of colours, in what lies between a phone and
# a desk, and while it comes piece by piece; in every way at once where all of the theme is. 320: a window of 1280 at 400 %.
WAYS = [(1280, "light"), (1280, "dark"), (320, "dark"), (320, "light")]
WHOLE = "en/layouts/rosetta/"
ONE_OF_EACH = {
    "", "404.html", "en/", "en/layouts/rosetta/", "en/layouts/grid/", "en/attention/dot-product/", "en/attention/soft-dictionary/",
    "en/masks/fully-masked-rows/", "en/weights/text-classification/", "en/practice/masks/", "en/reference/claims/",
}  # fmt: skip
# The others differ in their text, and twins in nothing but that: one of a pair, every other one in a narrow window.
TEXTS = [f"{LANGUAGES[i % 2]}/{page}" for i, page in enumerate(sorted({page.partition("/")[2] for page in PAGES[2:]}))]
TEXTS = [(page, (1280, 320)[i // 2 % 2]) for i, page in enumerate(TEXTS) if page not in ONE_OF_EACH]


@pytest.mark.parametrize("address", PAGES, ids=[page.strip("/") or "root" for page in PAGES])
def test_every_page(chromium, window, server, address, tmp_path):
    """Nothing goes wrong on it, it fits every window, axe finds nothing on one of each kind, and a first visit costs little."""
    page, one_of_each = window.page, address in ONE_OF_EACH
    page.set_viewport_size({"width": 1280, "height": 900})
    for again in range(5):  # where a page comes in more pieces, it is styled more often: that is the machine's doing
        if again:
            page.goto("about:blank")
        server.sent.clear()
        with browser.at_work(chromium, page, tmp_path, tasks=False) as work, suppress(TimeoutError):
            page.goto(f"{server.base}/{address or '#doors'}")  # the root would go on to the language of the browser
            browser.until(page, BEGUN)  # what stands above the first picture has had its frame
            browser.until(page, COME) if one_of_each else page.evaluate(SETTLE)
        came = page.evaluate(COME if one_of_each else BEGUN)
        may_be_styled = STYLED * page.evaluate(SEEN) + BUILT
        if came and work.styled < may_be_styled:
            break
    assert came, ["what waits for its time never comes", *window.noticed()]
    assert work.styled < may_be_styled, "something makes the browser style the page again and again"
    window.whole()
    if address == "404.html":
        assert page.title()
    faults = window.noticed()
    language, _, rest = address.partition("/")
    if rest in ELEMENTS and (elements := page.evaluate("document.querySelectorAll('*').length")) >= ELEMENTS[rest]:
        faults.append(f"{elements} elements")
    faults += [f"{n} elements in one {part}" for part, n in page.evaluate(TAKEN, LATE).items() if n > AT_ONCE[part]]
    for width in (1280, 1024, 768, 360, 320) if one_of_each else (1280, 360, 320):
        page.set_viewport_size({"width": width, "height": 900})
        faults += [f"too wide at {width}: {told}" for told in page.evaluate(TOO_WIDE)]
        if width in ASKED:
            page.evaluate(SETTLED)
            asked = [one for one in ASKED[width] if one[0] in ("", language)] if language in LANGUAGES else []
            faults += [f"{width}: {wrong}: {told}" for _, wrong, script in asked for told in page.evaluate(script)]
        if width == 360 and address in SCROLL_SIDEWAYS:
            assert page.evaluate(SCROLLERS) > 1, "nothing scrolls: what says so is not looked at"
    seen = 0
    if one_of_each:
        page.evaluate(DROP_ALIKE, False)
    for width, scheme in (WAYS if address == WHOLE else WAYS[::2]) if one_of_each else []:
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(SETTLED)
        set_scheme(window, scheme)
        rules = COLOURS if width == seen else RULES  # a scheme changes nothing but colours
        faults += [f"{width} {scheme}: {told}" for told in page.evaluate(ASK, rules)]
        seen = width
    faults += window.noticed()
    if address in LESSONS:  # all that it asks for has come by now
        faults += too_heavy(server.folder, address, server.sent)
    assert not faults, "\n".join(faults)


@pytest.mark.ci  # every page's structure is looked at in tests/finished, and one of each template above
@pytest.mark.parametrize(("address", "width"), TEXTS)
def test_axe_finds_nothing_in_a_text(window_with_axe, server, address, width):
    page = window_with_axe.page
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{server.base}/{address}")
    browser.until(page, BEGUN)
    window_with_axe.whole()
    page.evaluate(SETTLED)
    page.evaluate(DROP_ALIKE, True)
    assert not page.evaluate(ASK, BUT_COLOURS)


def too_heavy(site, address, sent):
    """What a lesson costs beyond what it may, its dearest files first, and what it need not have asked for.

    Letters that the window has from another page are not fetched again, and cost who comes here first all the same.
    """
    files = {f"/{file.relative_to(site.resolve()).as_posix()}": file for file in fetched(site.resolve(), address)}
    had = files.keys() - {path for path, *_ in sent}
    sent = [*sent, *((path, len(gzip.compress(files[path].read_bytes(), 9)), 200) for path in had)]
    total = sum(size for _, size, _ in sent)
    if total > HEAVIER.get(address.partition("/")[2], FIRST_VISIT):
        yield f"{total} bytes: {sorted(sent, key=lambda one: -one[1])[:5]}"
    yield from (f"{path} before anyone searches" for path, *_ in sent if "search" in path or "worker" in path)


# Without JavaScript


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_is_whole_without_javascript(reader, language):
    page = reader(java_script_enabled=False).open(f"{language}/layouts/paper/")
    assert page.locator("article h1 ~ p:not(.page-tools)").first.is_visible()
    formulas = page.locator(".math > svg")
    assert formulas.count() > 10
    for index in (0, formulas.count() - 1):
        box = formulas.nth(index).bounding_box()
        assert box["width"] > 3
        assert box["height"] > 3
    for kind in ("figure .figure__svg", ".math--display", ".highlight pre code span", "p.claims", "h2"):
        assert page.locator(kind).first.is_visible(), kind
    printed = page.locator(".highlight code:not(:has(> span))")
    assert printed.first.is_visible()
    assert "(" in printed.first.inner_text()
    folded = page.locator("article details:not(.figure__numbers)").first
    inside = folded.locator("pre").first
    assert not inside.is_visible()
    folded.locator("summary").click()
    assert inside.is_visible()


@pytest.mark.parametrize("language", LANGUAGES)
def test_home_is_whole_without_javascript(reader, language):
    page = reader(java_script_enabled=False).open(f"{language}/")
    doors = page.locator(".grid.cards li > :first-child a")
    assert doors.count() == 4
    for index in range(4):
        assert doors.nth(index).is_visible()
    assert page.locator("figure .figure__svg").first.is_visible()
    doors.first.click()
    assert urlsplit(page.url).path == f"/{language}/attention/start/"


LETTERS = """() => [...document.querySelectorAll(".math use")].map((use) => use.getBoundingClientRect().width)"""


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_a_formula_is_drawn_not_only_laid_out(reader, script):
    """Ink, not an empty box: the letters come, from the page and from the sheet that all pages share."""
    page = reader(java_script_enabled=script).open("en/layouts/paper/")
    page.wait_for_load_state("networkidle")
    letters = page.evaluate(LETTERS)
    assert len(letters) > 50
    assert min(letters) > 0


def test_a_whole_file_comes_when_its_box_is_opened(reader, server):
    """Until then, and without script, a link to it stands there."""
    server.sent.clear()
    page = reader(new=True).open("en/weights/per-head/")
    assert not [path for path, *_ in server.sent if path.endswith(".txt")]
    box = page.locator("details.file").first
    box.locator("summary").click()
    shown = browser.until(page, "() => document.querySelector('details.file pre > code')?.textContent")
    assert "the attention weights of every head" in shown
    plain = reader(java_script_enabled=False).open("en/weights/per-head/")
    box = plain.locator("details.file").first
    box.locator("summary").click()
    box.locator("pre a").click()
    assert "the attention weights of every head" in plain.inner_text("body")


def test_the_numbers_of_a_figure_come_when_they_are_asked_for(reader, server):
    """Until then, and without script, a link to them stands there."""
    server.sent.clear()
    page = reader(new=True).open("en/weights/images/")
    assert not [path for path, *_ in server.sent if "/figure-" in path]
    box = page.locator("details.figure__numbers").first
    box.locator("summary").click()
    box.locator("table").first.wait_for()
    assert box.locator("tr").count() == 2 * 7, "two pictures of six rows, and a head each"
    assert not box.locator("[data-fetched]").count()
    plain = reader(java_script_enabled=False).open("en/weights/images/")
    box = plain.locator("details.figure__numbers").first
    box.locator("summary").click()
    box.locator("p a").click()
    assert plain.title() == "The class token's row, read in two ways"
    assert plain.locator("table").count() == 2


# Two languages


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
@pytest.mark.parametrize(("language", "other"), [("ja", "en"), ("en", "ja")])
def test_the_switch_of_language_keeps_the_page(reader, language, other, script):
    page = reader(java_script_enabled=script).open(f"{language}/layouts/rosetta/")
    page.locator(".language-switch").click()
    page.wait_for_url(f"**/{other}/layouts/rosetta/")
    assert page.locator("html").get_attribute("lang") == other


def test_the_switch_of_language_keeps_the_section_and_back_returns(reader):
    page = reader().open("ja/layouts/rosetta/#the-map")
    page.locator(".language-switch").click()
    page.wait_for_url("**/en/layouts/rosetta/#the-map")
    top = page.evaluate("document.getElementById('the-map').getBoundingClientRect().top")
    assert 0 <= top < 300
    page.go_back()
    page.wait_for_url("**/ja/layouts/rosetta/#the-map")


@pytest.mark.parametrize(("locale", "language"), [("ja-JP", "ja"), ("en-GB", "en")])
def test_the_root_opens_the_language_that_the_browser_prefers(reader, locale, language):
    page = reader(locale=locale).open("")
    page.wait_for_url(f"**/{language}/")


def test_the_root_asks_where_the_browser_prefers_neither(reader):
    page = reader(locale="fr-FR").open("")
    assert urlsplit(page.url).path == "/"
    assert page.locator("main a").count() == 2


def test_back_is_not_trapped_by_the_root(reader):
    page = reader(locale="en").open("404.html")
    page.goto(page.url.replace("404.html", ""))
    page.wait_for_url("**/en/")
    page.go_back()
    page.wait_for_url("**/404.html")


def test_the_root_works_without_javascript(reader):
    page = reader(locale="ja", java_script_enabled=False).open("")
    page.locator("a[hreflang=ja]").click()
    assert urlsplit(page.url).path == "/ja/"


def test_an_address_that_leads_nowhere_offers_both_languages(reader):
    window = reader()
    page = window.open("en/no-such-page/")
    assert page.locator("main a").count() == 2
    assert page.evaluate("getComputedStyle(document.querySelector('main a')).display") == "block", "doors.css is loaded"
    page.locator("a[hreflang=ja]").click()
    page.wait_for_url("**/ja/")
    assert [fault for fault in window.faults if fault.startswith("404")] == [f"404 for {window.base}/en/no-such-page/"]


# What a hand does


def copied(page, select):
    """The text that a copy of what `select` selects puts on the clipboard."""
    return page.evaluate(
        """(select) => {
          const selection = getSelection();
          selection.removeAllRanges();
          const range = document.createRange();
          range.selectNode(document.querySelector(select));
          selection.addRange(range);
          const data = new DataTransfer();
          const event = new ClipboardEvent("copy", { clipboardData: data, bubbles: true, cancelable: true });
          document.dispatchEvent(event);
          return [event.defaultPrevented, data.getData("text/plain")];
        }""",
        select,
    )


def test_a_copied_formula_is_tex(reader):
    page = reader().open("en/layouts/paper/")
    tex = page.locator(".math--display").first.get_attribute("data-tex")
    assert copied(page, ".math--display") == [True, f"$${tex}$$"]
    taken, text = copied(page, "article p:has(.math:not(.math--display))")
    inline = page.locator("article p .math:not(.math--display)").first.get_attribute("data-tex")
    assert taken
    assert f"${inline}$" in text
    assert copied(page, "article h2") == [False, ""], "text without formulas is the browser's own business"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_copy_button_copies_code(reader, language):
    window = reader(new=True)
    window.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=window.base)
    page = window.open(f"{language}/layouts/paper/")
    block = page.locator("article > .highlight:has(code > span)").first
    block.scroll_into_view_if_needed()
    block.hover()
    block.locator("button, a.md-code__button").first.click()
    text = browser.until(page, "() => navigator.clipboard.readText()")
    assert text.strip() == block.locator("code").inner_text().strip()
    assert "import torch" in text
    assert not window.noticed()


@pytest.mark.parametrize("language", LANGUAGES)
def test_annotations_open(reader, language):
    window = reader(reduced_motion="reduce")  # the mark breathes
    page = window.open(f"{language}/")
    page.locator(".highlight:has(+ .remarks)").first.scroll_into_view_if_needed()
    mark = page.locator(".md-annotation__index").first
    mark.click()
    told = browser.until(page, "() => document.querySelector('.md-tooltip--active, .md-tooltip2--active')?.innerText")
    assert "(out, in)" in told
    assert not window.noticed()


def test_back_returns_to_the_page_and_its_place(reader):
    page = reader().open("en/layouts/paper/#softmax")
    browser.until(page, "() => scrollY > 100")
    before = page.evaluate("scrollY")
    page.locator(".md-sidebar--primary a[href='../pytorch/']").click()  # in sight: nothing has to be scrolled
    page.wait_for_url("**/en/layouts/pytorch/")
    page.go_back()
    page.wait_for_url("**/en/layouts/paper/#softmax")
    browser.until(page, "(y) => Math.abs(scrollY - y) < 50", before)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_colours_chosen_hold_on_the_next_page_and_in_the_other_language(reader, language):
    window = reader()
    window.open(f"{language}/")
    set_scheme(window, "dark")
    window.page.emulate_media(color_scheme="light")
    other = "en" if language == "ja" else "ja"
    page = window.open(f"{other}/layouts/paper/")
    assert page.locator("body").get_attribute("data-md-color-scheme") == "slate"


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_print_hides_nothing_that_matters(reader, script):
    page = reader(java_script_enabled=script).open("en/layouts/paper/")
    page.emulate_media(media="print")
    folded = page.locator("article details:not(.figure__numbers):not([open])")
    assert folded.count() > 0
    assert folded.locator("pre, p").first.bounding_box()["height"] > 10
    for kind in ("article h1", "figure .figure__svg", ".math--display svg", ".highlight pre", "p.claims"):
        assert page.locator(kind).first.bounding_box()["height"] > 5, kind
    for kind in (".md-header", ".page-tools", ".md-sidebar--primary"):
        assert not page.locator(kind).first.is_visible(), kind
    overflow = (
        "[...document.querySelectorAll('article pre > code')].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    )
    if script:
        assert page.evaluate(overflow) == 0, "code that runs off the paper"


# Cost


QUIET = [
    "ja/",
    "en/layouts/rosetta/",
    "ja/layouts/equivalence/",
    "en/attention/soft-dictionary/",
    "ja/weights/text-classification/",
    "ja/reference/claims/",
    "ja/practice/masks/",
    "ja/atlas/",
]


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("address", QUIET)
def test_nothing_moves_while_a_page_loads(reader, address, width):
    window = reader(width=width, new=True)
    page = window.page
    browser.visit(page, f"{window.base}/{address}")
    assert page.evaluate("shift") < 0.0005


FETCHED = re.compile(r'<(?:link rel="stylesheet" href|script(?: type="module")? src|use\b[^>]* href)="([^"#]+)')
IMPORTED = re.compile(r'^import .* from "\./([^"]+)"', re.M)


def fetched(site, address):
    """What a page fetches besides itself, as files."""
    page = site / address / "index.html"
    files = {(page.parent / found).resolve() for found in FETCHED.findall(page.read_text("utf-8"))}
    imported = {file.with_name(name) for file in files for name in IMPORTED.findall(file.read_text("utf-8"))}
    return files | imported


@functools.cache
def next_pages(site):
    """{address: bytes, gzipped} of every page, for a reader who has seen another lesson: what is new with it."""
    site = site.resolve()
    shared = fetched(site, "en/layouts/paper/")
    packed = functools.cache(lambda file: len(gzip.compress(file.read_bytes(), 9, mtime=0)))
    pages = [page for page in PAGES if page.count("/") > 0]
    return {page: packed(site / page / "index.html") + sum(map(packed, fetched(site, page) - shared)) for page in pages}


@pytest.mark.parametrize("address", ["ja/layouts/rosetta/", "en/layouts/equivalence/", "en/attention/soft-dictionary/"])
def test_a_next_page_fetches_what_is_counted(reader, server, site, address):
    page = reader(new=True).page
    browser.visit(page, f"{server.base}/en/layouts/paper/")
    server.sent.clear()
    browser.visit(page, f"{server.base}/{address}")
    assert sum(size for _, size, _ in server.sent) == next_pages(site)[address]


def test_the_next_page_costs_its_own_text(site):
    costs = next_pages(site)
    told = "\n".join(f"{cost:6} {page}" for page, cost in sorted(costs.items(), key=lambda one: -one[1]))
    assert sum(cost <= NEXT_PAGE for cost in costs.values()) >= LIGHT * len(costs), told
    heavy = [page for page, cost in costs.items() if cost > HEAVY.get(page.partition("/")[2], MOST)]
    assert not heavy, told


@pytest.mark.parametrize(("language", "other"), [("ja", "en"), ("en", "ja")])
def test_the_other_language_costs_its_own_text(reader, server, language, other):
    """Scripts, styles and the theme are one copy for both: nothing but the page is fetched again."""
    page = reader(new=True).page
    browser.visit(page, f"{server.base}/{language}/layouts/rosetta/")
    server.sent.clear()
    browser.visit(page, f"{server.base}/{other}/layouts/rosetta/")
    assert [path for path, *_ in server.sent] == [f"/{other}/layouts/rosetta/"]


# Addresses, without a browser


def links(html):
    """The alternates and the canonical address that a page's head names: {hreflang or "canonical": href}."""
    found = {}
    for tag in re.findall(r"<link\b[^>]*>", html.partition("</head>")[0]):
        attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if attributes.get("rel") == "alternate":
            assert attributes["hreflang"] not in found, "named twice"
            found[attributes["hreflang"]] = attributes["href"]
        elif attributes.get("rel") == "canonical":
            found["canonical"] = attributes["href"]
    return found


@pytest.mark.parametrize("address", [page for page in PAGES if page.endswith("/")])
def test_a_page_names_its_language_and_its_twin(site, address):
    html = (site / address / "index.html").read_text("utf-8")
    language, _, rest = address.partition("/")
    base = shared_site.BASE
    assert re.search(rf'<html lang="{language}"', html)
    default = f"{base}/en/{rest}" if rest else f"{base}/"
    assert links(html) == {
        "canonical": f"{base}/{address}",
        "ja": f"{base}/ja/{rest}",
        "en": f"{base}/en/{rest}",
        "x-default": default,
    }
    other = "en" if language == "ja" else "ja"
    switch = re.search(r'<a href="([^"]*)"[^>]*class="language-switch"', html)
    assert switch[1] == f"/{other}/{rest}"
    # Any other path from the host's root would leave a site that is published below one.
    assert re.findall(r'\b(?:href|src)="(/[^"]*)"', html) == [switch[1]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_pages_have_one_title_or_one_description(site, language):
    """In a list of results these are all that tells pages apart."""
    titles, descriptions = Counter(), Counter()
    for path in (site / language).glob("**/index.html"):
        html = path.read_text("utf-8")
        titles[re.search(r"<title>(.*?)</title>", html)[1]] += 1
        descriptions[unescape(re.search(r'<meta name="description" content="(.*?)"', html)[1])] += 1
    assert words.of("site", language)["description"] not in descriptions, "a page says nothing of itself"
    assert not [text for text, pages in [*titles.items(), *descriptions.items()] if pages > 1]


def test_the_root_names_both_languages(site):
    base = shared_site.BASE
    html = (site / "index.html").read_text("utf-8")
    assert links(html) == {"canonical": f"{base}/", "ja": f"{base}/ja/", "en": f"{base}/en/", "x-default": f"{base}/"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sitemap_names_every_page_and_its_twin(site, language):
    space = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9", "x": "http://www.w3.org/1999/xhtml"}
    base = shared_site.BASE
    tree = ElementTree.parse(site / language / "sitemap.xml")
    named = {}
    for url in tree.findall("s:url", space):
        twins = {link.get("hreflang"): link.get("href") for link in url.findall("x:link", space)}
        named[url.find("s:loc", space).text] = twins
    expected = {}
    for address in PAGES:
        if address.startswith(f"{language}/"):
            rest = address.partition("/")[2]
            expected[f"{base}/{address}"] = {"ja": f"{base}/ja/{rest}", "en": f"{base}/en/{rest}"}
    assert named == expected
    index = ElementTree.parse(site / "sitemap.xml")
    assert {loc.text for loc in index.iterfind(".//s:loc", space)} == {f"{base}/{one}/sitemap.xml" for one in LANGUAGES}


def test_edit_links_appear_only_with_a_repository(site):
    html = (site / "en" / "layouts" / "paper" / "index.html").read_text("utf-8")
    assert 'rel="edit"' not in html
    assert "md-source" not in html
    (data,) = (site / name for name in re.findall(r'<script src="(?:\.\./)*(assets/data\.[^"]*)"', html))
    told = json.loads(re.search(r"Object\.entries\((.*)\)\)document", data.read_text("utf-8"))[1])
    configuration = json.loads(told["__config"]["en"])
    assert configuration["base"] == "../.."
