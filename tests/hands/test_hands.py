"""What a hand, an eye and a printer find: fingers, keys beside a resting pointer, the drawer, narrow and wide windows, paper."""

import json
import re
from pathlib import Path

import browser
import pytest

ROOT = Path(__file__).parents[2]
STYLES = ROOT / "docs" / "shared" / "stylesheets"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
both = pytest.mark.parametrize("language", browser.LANGUAGES)


# A finger


def finger(page, start, way, steps=8):
    """Put a finger down at `start`, move it along `way` (in pixels) in steps, lift it."""
    session = page.context.new_cdp_session(page)
    (x, y), (dx, dy) = start, way
    for step in range(steps + 1):
        points = [{"x": x + dx * step / steps, "y": y + dy * step / steps}]
        session.send("Input.dispatchTouchEvent", {"type": "touchMove" if step else "touchStart", "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(100)


def middle(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def on_phone(reader, address):
    """A phone on which the explorer's picture is in the middle of the screen."""
    page = reader(**PHONE).open(address)
    page.wait_for_selector(".e-handle")
    page.evaluate("document.querySelector('.e-picture').scrollIntoView({block: 'center'})")
    page.wait_for_timeout(400)
    return page


def place_of(handle):
    """Where a handle stands, in the explorer's own numbers."""
    text = handle.get_attribute("aria-valuetext").replace("−", "-")
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


@pytest.mark.parametrize("index", range(6))
def test_a_finger_drags_every_point_of_the_plane(reader, index):
    page = on_phone(reader, "en/attention/dot-product/")
    handle = page.locator(".e-handle").nth(index)
    width = page.locator("svg.e-picture").bounding_box()["width"]
    before, scrolled = place_of(handle), page.evaluate("scrollY")
    way = [-60 if coordinate > 0 else 60 for coordinate in (before[0], -before[1])]  # towards the middle
    finger(page, middle(handle.locator(".e-dot")), way)
    unit = 5.2 / width
    wanted = [before[0] + way[0] * unit, before[1] - way[1] * unit]
    assert place_of(handle) == pytest.approx(wanted, abs=0.05)
    assert page.evaluate("scrollY") == scrolled


@pytest.mark.parametrize("way", [(-60, 0), (-60, 40), (-40, 60)])
def test_a_finger_drags_the_query_of_the_dictionary(reader, way):
    page = on_phone(reader, "en/attention/soft-dictionary/")
    handle = page.locator(".e-handle")
    width = page.locator("svg.e-picture").bounding_box()["width"]
    before, scrolled = place_of(handle)[0], page.evaluate("scrollY")
    finger(page, middle(handle.locator(".e-reach")), way)
    unit = 6 / (336 - 40) * 336 / width
    assert place_of(handle)[0] == pytest.approx(max(-0.5, before + way[0] * unit), abs=0.05)
    assert page.evaluate("scrollY") == scrolled


def test_a_finger_beside_the_query_drags_it_sideways_and_the_page_up(reader):
    page = on_phone(reader, "en/attention/soft-dictionary/")
    handle, frame = page.locator(".e-handle"), page.locator("svg.e-picture").bounding_box()
    scrolled = page.evaluate("scrollY")
    finger(page, (frame["x"] + frame["width"] * 0.5, frame["y"] + 40), (90, 0))
    assert place_of(handle)[0] == pytest.approx(-0.5 + 6 * (0.5 * 336 + 90 * 336 / frame["width"] - 28) / 296, abs=0.05)
    assert page.evaluate("scrollY") == scrolled
    finger(page, (frame["x"] + frame["width"] * 0.5, frame["y"] + 140), (0, -100))
    assert page.evaluate("scrollY") > scrolled + 50


def test_a_finger_beside_the_points_of_the_plane_scrolls_the_page(reader):
    page = on_phone(reader, "en/attention/dot-product/")
    frame, before = page.locator("svg.e-picture").bounding_box(), page.url
    scrolled = page.evaluate("scrollY")
    finger(page, (frame["x"] + 12, frame["y"] + frame["height"] - 12), (0, -120))
    assert page.evaluate("scrollY") > scrolled + 60
    assert page.url == before


# Keys while the pointer rests, and how an explorer is left


def test_keys_move_the_token_while_the_pointer_rests_on_one(reader):
    page = reader().open("en/weights/text-classification/")
    page.locator("head-view .explorer-stage").scroll_into_view_if_needed()
    page.wait_for_selector(".hv-query")
    page.mouse.move(*middle(page.locator(".hv-query").nth(1)))
    page.mouse.down()
    page.mouse.up()
    chosen = "document.querySelector('head-view').state.query"
    seen = [page.evaluate(chosen)]
    for _ in range(3):
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(80)
        seen.append(page.evaluate(chosen))
    assert seen == [1, 2, 3, 4]
    marked, row = page.locator("head-view .hv-mark").bounding_box(), page.locator(".hv-query").nth(4).bounding_box()
    assert marked["y"] <= row["y"] + row["height"] / 2 <= marked["y"] + marked["height"]
    page.mouse.move(*middle(page.locator(".hv-query").nth(2)))
    assert page.evaluate(chosen) == 2


def test_keys_move_the_block_while_the_pointer_rests_on_one(reader):
    page = reader().open("en/layouts/rosetta/")
    page.wait_for_selector("rosetta-map .rosetta-form")
    blocks = page.locator("rosetta-map g.block[data-head]")
    blocks.nth(1).click()
    for at in (2, 3, 4):
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(80)
        assert "lit" in blocks.nth(at).get_attribute("class").split()
        assert "lit" not in blocks.nth(1).get_attribute("class").split()


@pytest.mark.parametrize(
    ("address", "act"),
    [
        ("en/layouts/rosetta/", "g.block[data-head] >> nth=3"),
        ("en/weights/text-classification/", ".hv-all button >> nth=1"),
        ("en/attention/dot-product/", ".explorer-presets button >> nth=1"),
        ("en/attention/soft-dictionary/", ".explorer-presets button >> nth=1"),
        ("en/layouts/grid/", "select[name=bias]"),
    ],
)
def test_an_address_that_cannot_be_written_stops_no_explorer(reader, address, act):
    """Safari takes a hundred changes in half a minute, then throws; the picture goes on, and the address follows."""
    window = reader()
    page = window.open(address)
    name = page.evaluate("document.querySelector('.explorer-stage, .rosetta-form').parentElement.localName")
    page.locator(f"{name} .explorer-stage, .rosetta-form").scroll_into_view_if_needed()
    page.wait_for_selector(act.partition(" >>")[0])
    page.evaluate("() => { history.replaceState = () => { throw new DOMException('too many', 'SecurityError') } }")
    before = page.inner_html(name)
    if act.startswith("select"):
        page.select_option(act, "False")
    else:
        page.locator(act).click()
    browser.until(page, "([name, before]) => document.querySelector(name).innerHTML !== before", [name, before])
    assert "?" not in page.url
    page.evaluate("delete history.replaceState")
    browser.until(page, "() => location.search.length > 1", seconds=5)
    assert not window.noticed()


def test_a_block_is_released_and_tabbing_past_writes_no_address(reader):
    page = reader().open("en/layouts/rosetta/")
    page.wait_for_selector("rosetta-map .rosetta-form")
    block = page.locator("rosetta-map g.block[data-head]").nth(2)
    page.locator("rosetta-map g.block[tabindex='0']").focus()
    assert page.locator("rosetta-map .block.lit").count() == 2, "the focused block shows its twin"
    page.keyboard.press("Tab")
    assert "?" not in page.url
    assert page.locator("rosetta-map .block.lit").count() == 0

    def chosen():
        return page.locator("rosetta-map [aria-pressed=true]").count(), "block=" in page.url

    for choose, release in (
        (block.click, block.click),
        (block.click, lambda: page.keyboard.press("Escape")),
        (lambda: page.keyboard.press("Enter"), lambda: page.keyboard.press("Enter")),
        (lambda: page.keyboard.press(" "), lambda: page.keyboard.press("Escape")),
    ):
        choose()
        assert chosen() == (1, True)
        release()
        assert chosen() == (0, False)


SPOKEN = """() => {
  window.spoken = [];
  const regions = "rosetta-map :is([role=alert], [role=status], [aria-live])";
  new MutationObserver((changes) => {
    for (const { target } of changes) {
      const region = (target.nodeType === 1 ? target : target.parentElement)?.closest(regions);
      if (region?.textContent.trim()) spoken.push(region.textContent);
    }
  }).observe(document.querySelector("rosetta-map"), { childList: true, characterData: true, subtree: true });
}"""


@both
def test_a_field_speaks_when_the_hand_rests_not_at_every_digit(reader, language):
    page = reader().open(f"{language}/layouts/rosetta/")
    page.wait_for_selector("rosetta-map .rosetta-form")
    page.wait_for_timeout(1000)
    page.evaluate(SPOKEN)
    page.focus("[name=embed_dim]")
    page.keyboard.press("Control+a")
    page.keyboard.type("768", delay=60)  # 7 and 76: no width for 4 heads or none yet
    page.wait_for_timeout(1200)
    spoken = page.evaluate("[...new Set(spoken)]")
    assert len(spoken) == 1, spoken
    assert "768" in spoken[0]
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    page.wait_for_timeout(1200)
    assert "7" in page.inner_text(".rosetta-fault")
    assert page.get_attribute("[name=embed_dim]", "aria-invalid") == "true"
    page.keyboard.type("2")
    assert page.inner_text(".rosetta-fault") == "", "what is mended is not complained of any longer"


# The drawer of a narrow window


HIDDEN_STOPS = """() => {
  const focused = document.activeElement, box = focused.getBoundingClientRect();
  const seen = focused.checkVisibility({ visibilityProperty: true }) && box.right > 0 && box.left < innerWidth;
  const top = document.elementFromPoint(Math.max(box.left, 0) + Math.min(box.width, innerWidth) / 2, box.top + box.height / 2);
  return [focused.outerHTML.slice(0, 90), seen && (focused.contains(top) || top?.contains(focused))];
}"""


def test_the_tab_key_finds_nothing_in_the_closed_drawer(reader):
    page = reader(width=360, reduced_motion="reduce").open("en/layouts/rosetta/")
    for _ in range(25):
        page.keyboard.press("Tab")
        told, seen = page.evaluate(HIDDEN_STOPS)
        assert seen, told


@both
def test_the_drawer_opens_and_closes_by_keyboard(reader, language):
    page = reader(width=360, reduced_motion="reduce").open(f"{language}/layouts/rosetta/")
    page.wait_for_selector("rosetta-map .rosetta-form")
    button = page.get_by_role("button", name={"ja": "メニュー", "en": "Menu"}[language])
    for _ in range(6):
        page.keyboard.press("Tab")
        if button.evaluate("button => button === document.activeElement"):
            break
    else:
        pytest.fail("the button of the menu is no stop of the Tab key")
    drawer = "document.querySelector('#__drawer').checked"
    inside = "document.querySelector('.md-sidebar--primary').contains(document.activeElement)"
    for key in ("Enter", " "):
        page.keyboard.press(key)
        assert page.evaluate(drawer)
        assert button.get_attribute("aria-expanded") == "true"
        browser.until(page, f"() => {inside}")
        page.keyboard.press("Escape")
        assert not page.evaluate(drawer)
        assert button.get_attribute("aria-expanded") == "false"
        assert button.evaluate("button => button === document.activeElement")
    page.keyboard.press("Enter")
    link = page.locator(".md-sidebar--primary a[href='../paper/']")
    for _ in range(40):
        if link.evaluate("link => link === document.activeElement"):
            break
        page.keyboard.press("Tab")
        told, seen = page.evaluate(HIDDEN_STOPS)
        assert seen, told
        assert page.evaluate(inside), f"the Tab key left the open drawer for {told}"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{language}/layouts/paper/")


# What an eye sees


@pytest.mark.parametrize("sheet", sorted(path.name for path in STYLES.glob("*.css")))
def test_lines_under_text_are_written_as_every_engine_reads_them(sheet):
    """WebKit drops `text-decoration: underline dotted 1px` whole: only the longhands are read everywhere."""
    css = re.sub(r"/\*.*?\*/", "", (STYLES / sheet).read_text("utf-8"), flags=re.S)
    assert not [value for value in re.findall(r"\btext-decoration:\s*([^;}]+)", css) if len(value.split()) > 1]


FLUSH = """() => {
  const left = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    return range.getClientRects()[0].left;
  };
  const boxes = document.querySelectorAll("article .admonition, article details:not(.figure__numbers)");
  return [...boxes].flatMap((box) => {
    box.open = true;
    const title = box.querySelector(".admonition-title, summary");
    const text = [...box.children].find((child) => child !== title && child.matches("p, .highlight"));
    if (!text) return [];
    const beside = text.matches("p") ? left(text) : text.querySelector("pre").getBoundingClientRect().left;
    return [[title.textContent, left(title) - beside]];
  });
}"""


@both
@pytest.mark.parametrize("width", [1280, 360])
def test_the_title_of_a_box_stands_above_its_text(reader, language, width):
    window, seen = reader(width=width), 0
    for address in ("layouts/rosetta/", "masks/truth-table/", "weights/per-head/"):
        for title, apart in window.open(f"{language}/{address}").evaluate(FLUSH):
            assert abs(apart) < 1.5, f"{address} {title}: {apart:.1f} px"
            seen += 1
    assert seen > 8


CUT = """() => [...document.querySelectorAll(".claims-scroll")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1)
  .map((box) => `${box.getAttribute("aria-labelledby")} ${box.scrollWidth} of ${box.clientWidth}`)"""


@both
def test_every_column_of_the_claims_is_in_sight(reader, language):
    window = reader(width=1280)
    page = window.open(f"{language}/reference/claims/")
    for width in (1280, 1440, 1600, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(CUT) == [], width


# What a screen reader hears


NAMES = "article :is(h1, h2, h3)"


@both
def test_a_heading_is_called_what_it_says(reader, language):
    window = reader()
    page = window.open(f"{language}/layouts/rosetta/")
    told = page.locator("article").aria_snapshot()
    headings = re.findall(r'heading "([^"]*)"', told)
    assert len(headings) > 6
    permalink = {"ja": "この節へのリンク", "en": "Link to this section"}[language]
    assert not [name for name in headings if "#" in name or permalink in name]
    assert len(re.findall(rf'link "{permalink}"', told)) == len(headings), "and the link to it has a name of its own"


@both
def test_landmarks_are_few(reader, language):
    page = reader().open(f"{language}/layouts/rosetta/")
    for block in page.locator("article > .highlight").all():
        block.scroll_into_view_if_needed()  # its button comes when it is seen
    page.wait_for_selector(".md-code__nav", state="attached")
    told = page.locator("body").aria_snapshot()
    assert len(re.findall(r"^\s*- navigation\b", told, re.M)) <= 8, re.findall(r"- navigation.*", told)
    assert len(re.findall(r"button ", told)) > 8


@both
def test_a_page_says_what_it_is_about_and_under_what_terms(site, language):
    html = (site / language / "layouts" / "rosetta" / "index.html").read_text("utf-8")
    assert re.search(r'<meta name="description" content="[^"]{30,}"', html)
    footer = re.search(r'md-copyright__highlight">\s*(.*?)\s*</div>', html, re.S)[1]
    assert footer == {"ja": "文章はCC BY 4.0、コードはMIT", "en": "Text: CC BY 4.0, code: MIT"}[language]
    if language == "ja":
        assert "検索を初期化" not in html


@both
def test_tools_of_a_page_are_not_searched(site, language):
    index = json.loads((site / language / "search" / "search_index.json").read_text("utf-8"))
    tool = {"ja": "ノートブックでダウンロード", "en": "Download this page as a notebook"}[language]
    assert not [entry["location"] for entry in index["docs"] if tool in entry["text"]]


@both
def test_search_hears_text_that_comes_without_a_key(reader, language):
    """The mouse's paste, dictation, and a telephone's suggestions send `input` and nothing else."""
    page = reader().open(f"{language}/about/")
    waiting = page.inner_text(".md-search-result__meta")
    page.locator(".md-search__input").focus()
    browser.until(page, "waiting => document.querySelector('.md-search-result__meta').innerText !== waiting", waiting)
    page.keyboard.insert_text("softmax")
    assert browser.until(page, "() => document.querySelectorAll('.md-search-result__item').length")


# Code


@both
def test_no_button_lies_on_code(reader, language):
    """On a phone code scrolls under the button: it comes when the block is touched, and copies."""
    window = reader(**PHONE)
    page = window.open(f"{language}/layouts/paper/")
    block = page.locator("article > .highlight:has(code > span):has([data-scrolls])").first
    block.scroll_into_view_if_needed()
    nav = block.locator(".md-code__nav")
    seen = "nav => getComputedStyle(nav).opacity"
    assert nav.evaluate(seen) == "0"
    block.locator("code").tap()
    assert nav.evaluate(seen) == "1"


# Paper


PAPER = {  # A4 sheets that a page may take
    "layouts/rosetta/": 12,
    "weights/per-head/": 17,
    "weights/text-classification/": 24,
}


@pytest.mark.parametrize("address", PAPER)
def test_a_page_prints_on_few_sheets(reader, address):
    page = reader().open(f"en/{address}")
    page.wait_for_timeout(500)
    sheets = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4")))
    assert sheets <= PAPER[address]


@both
@pytest.mark.parametrize(
    "address", ["layouts/rosetta/", "attention/soft-dictionary/", "layouts/grid/", "weights/text-classification/"]
)
def test_paper_shows_nothing_that_only_a_hand_can_use(reader, language, address):
    page = reader().open(f"{language}/{address}")
    page.wait_for_timeout(500)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    kinds = [f".rosetta-{part}" for part in ("line", "title", "form", "result")]
    kinds += [".figure__numbers", ".explorer-stage", ".headerlink", ".md-code__nav", ".page-tools", ".file"]
    seen = "kinds => [...document.querySelectorAll(kinds)].filter((one) => one.checkVisibility()).map((one) => one.className)"
    shown = page.evaluate(seen, ", ".join(kinds))
    assert shown == []
    assert page.locator("figure svg").first.is_visible()


def test_formulas_are_not_printed_bold(reader):
    """A stroke as thin as a hair is drawn one dot wide at least by what shows a PDF."""
    page = reader().open("en/layouts/paper/")
    strokes = "[...new Set([...document.querySelectorAll('.math use')].map((use) => getComputedStyle(use).stroke))]"
    assert page.evaluate(strokes) != ["none"]
    page.emulate_media(media="print")
    assert page.evaluate(strokes) == ["none"]
    rules = "[...document.querySelectorAll('.math line, .math rect[data-frame]')].every((rule) => getComputedStyle(rule).stroke !== 'none')"
    assert page.evaluate(rules)


# While the page comes


def test_a_switch_of_colours_is_one_step_and_the_start_is_none(reader):
    page = reader().open("en/layouts/rosetta/")
    rules = "[...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]).map((rule) => rule.cssText)"
    assert not [rule for rule in page.evaluate(rules) if "data-md-color-switching" in rule], (
        "each start restyles the page"
    )
    fading = """async () => {
      document.querySelector("input[data-md-color-scheme=slate]").click();
      await new Promise(requestAnimationFrame);
      return document.getAnimations().length;
    }"""
    assert page.evaluate(fading) == 0
    assert page.get_attribute("body", "data-md-color-scheme") == "slate"


@both
def test_the_first_half_of_a_grid_has_its_place_before_the_second_comes(reader, language):
    page = reader().open(f"{language}/")
    width = "document.querySelector('.grid > :first-child').getBoundingClientRect().width"
    whole = page.evaluate(width)
    page.evaluate("document.querySelector('.grid > :nth-child(2)').remove()")
    assert page.evaluate(width) == whole
