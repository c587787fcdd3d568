"""The finished page and the finished site: what is written into each page, and every way a site can be wrong."""

import base64
import hashlib
import json
import re
import time

import markdown
import pytest

from builder import project, staging
from builder.dialect import Dialect
from builder.finished import lean, markup, once, policy, site
from builder.pages.page import Page

REAL_DOCS = project.DOCS

HEAD = '<!doctype html><html lang="ja"><head><meta charset="utf-8"><title>x</title>'


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A project with one explorer, one pair of pages and the site that was built of it."""
    monkeypatch.setattr(project, "ROOT", tmp_path)
    monkeypatch.setattr(project, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(project.state, "serving", False)
    for path, text in {
        "docs/shared/explorers/rosetta-map.js": "export {}",
        "docs/shared/explorers/shared.js": "export {}",
        "docs/ja/index.md": "# ホーム { #home }\n",
        "docs/ja/layouts/paper.md": "# 論文 { #paper }\n\n[地図](rosetta.md#map)と[ホーム](../index.md)\n",
        "docs/ja/layouts/rosetta.md": "# 地図 { #map }\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    built(tmp_path, "ja/index.html", '<h1 id="home">ホーム</h1><a href="layouts/paper/">論文</a>')
    built(tmp_path, "ja/layouts/paper/index.html", '<a href="../rosetta/#map">地図</a><a href="../..">ホーム</a>')
    built(tmp_path, "ja/layouts/rosetta/index.html", '<h1 id="map">地図</h1><img src="../../map.svg" alt="">')
    built(tmp_path, "index.html", '<a href="ja/">日本語</a>')
    built(tmp_path, "404.html", '<a href="/base/ja/">日本語</a>')
    (tmp_path / "site/ja/map.svg").write_text("<svg/>", "utf-8")
    assert told(tmp_path) == [], "the site that every test breaks must be sound"
    return tmp_path


def built(house, path, body):
    file = house / "site" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(policy.with_policy(f"{HEAD}</head><body>{body}</body></html>"), "utf-8")


def told(house):
    return [str(fault) for fault in site.check_site(house / "site", "/base", "https://example.org/base")]


def paper(house, body):
    built(house, "ja/layouts/paper/index.html", body)
    return told(house)


# Content-Security-Policy


def sha256(code):
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def test_the_policy_stands_after_charset_and_names_each_executable_inline_script_once():
    page = (
        f"{HEAD}<script>first()</script><script src='x.js'></script><script>first()</script>"
        '<script type="application/json">{"a": 1}</script><script type="module">second()\r\n</script>'
        '<script type="text/javascript">third()</script><!-- <script>commented()</script> --></head></html>'
    )
    made = policy.with_policy(page)
    meta = (
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'self'; img-src 'self' data:; "
        f"style-src 'self'; script-src 'self' {sha256('first()')} {sha256('second()' + chr(10))} {sha256('third()')}; "
        "base-uri 'self'; form-action 'self'; object-src 'none'\">"
    )
    assert made == page.replace('<meta charset="utf-8">', '<meta charset="utf-8">' + meta)
    assert "unsafe" not in made


def test_the_policy_is_written_once():
    once = policy.with_policy(f"{HEAD}<script>a()</script></head></html>")
    assert policy.with_policy(once) == once
    moved = policy.with_policy(once.replace("a()", "b()"))
    assert sha256("b()") in moved
    assert sha256("a()") not in moved


def test_a_page_without_charset_is_refused():
    with pytest.raises(ValueError, match="no place for its Content-Security-Policy"):
        policy.with_policy("<html><head></head></html>")


# Styles


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<td style="text-align: right;">1</td>', '<td class="align-right">1</td>'),
        ('<th class="wide" style="text-align:center">1</th>', '<th class="wide align-center">1</th>'),
        ('<th style="text-align: left;" class="wide">1</th>', '<th class="wide align-left">1</th>'),
        ('<col style="text-align: left;" />', '<col class="align-left" />'),
        ('<p title="> style=">x</p>', '<p title="> style=">x</p>'),
        ('<p style="">x</p>', "<p>x</p>"),
        ('<p style="color: red">x</p>', '<p style="color: red">x</p>'),
        ("<code>style=&quot;color&quot;</code>", "<code>style=&quot;color&quot;</code>"),
    ],
)
def test_styles_become_classes(before, after):
    assert markup.with_classes(before) == after


def test_the_tables_of_our_markdown_have_only_known_styles():
    table = "| a | b | c | d |\n| :-- | :-: | --: | --- |\n| 1 | 2 | 3 | 4 |\n"
    html = markdown.markdown(table, extensions=["tables"])
    assert html.count("style=") == 6
    made = markup.with_classes(html)
    assert "style=" not in made
    assert [made.count(f'class="align-{side}"') for side in ("left", "center", "right")] == [2, 2, 2]


# Explorers


def test_a_heading_is_named_by_its_text_alone():
    html = '<h2 id="a">A <code>b</code><a class="headerlink" href="#a" title="Link">#</a></h2><h3 id="c">C</h3>'
    name, link = (
        '<span id="n-1">A <code>b</code></span>',
        '<a class="headerlink" href="#a" title="Link" aria-label="Link">#</a>',
    )
    assert markup.with_names(html) == f'<h2 id="a" aria-labelledby="n-1">{name}{link}</h2><h3 id="c">C</h3>'


def test_code_stands_close_to_a_full_width_mark():
    html = "<p><code>a</code>、<code>b</code>と<code>c</code>, <code>d</code></p>"
    assert markup.with_tight_code(html) == html.replace("<code>a", '<code class="tight">a')


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("<p>誤差2.2e-15（許容1e-07）</p>", ["2.2e-15", "1e-07"]),
        ("<td>2026-11-25</td>", ["2026-11-25"]),
        ("<p>about 1e10, 2.5 and seed 7</p>", ["1e10"]),
        ("<pre>1e-07</pre><svg><text>1e-07</text></svg><i title='1e-07'></i>", []),
    ],
)
def test_numbers_that_would_break_are_kept_whole(text, whole):
    html = f"<title>1e-07</title><article>{text}</article>"
    kept = markup.with_whole_numbers(html)
    assert re.findall(r'<span class="whole">(.*?)</span>', kept) == whole
    assert re.sub(r'<span class="whole">(.*?)</span>', r"\1", kept) == html


def test_explorers_are_block_level_and_hold_markdown(house):
    source = "Before\n\n<rosetta-map markdown>\n\n**All** of it\n\n- one\n- two\n\n</rosetta-map>\n\nAfter"
    plain = markdown.markdown(source, extensions=["md_in_html"])
    assert "<p><rosetta-map" in plain, "without the extension it is a phrase"
    html = markdown.markdown(source, extensions=["md_in_html", Dialect()])
    assert html.replace("\n", "") == (
        "<p>Before</p><rosetta-map><p><strong>All</strong> of it</p>"
        "<ul><li>one</li><li>two</li></ul></rosetta-map><p>After</p>"
    )
    other = markdown.markdown("a\n\n<other-map>\nb\n</other-map>", extensions=["md_in_html", Dialect()])
    assert "<p><other-map>" in other


def test_an_explorer_s_module_is_loaded_where_it_stands(house):
    body = (
        f"{HEAD}</head><body><article><rosetta-map>x</rosetta-map><rosetta-map>y</rosetta-map></article></body></html>"
    )
    made = markup.put(body, Page("ja", "layouts/rosetta.md"))
    script = '<script type="module" src="../../explorers/rosetta-map.js"></script></article>'
    assert made.count(script) == 1
    assert made.count("<script") == 1
    assert "<script" not in markup.put(body.replace("rosetta-map", "rosetta-mapping"), Page("ja", "x.md"))


def test_the_finished_page(house, monkeypatch):
    body = f'{HEAD}</head><body><td style="text-align: left;">x</td></body></html>'
    made = policy.put(markup.put(body, Page("ja", "x.md")), None)
    assert 'class="align-left"' in made
    assert "Content-Security-Policy" in made
    monkeypatch.setattr(project.state, "serving", True)
    assert "Content-Security-Policy" not in policy.put(body, None), "MkDocs' reload script is inline"


# Links


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ('<a href="../nowhere/">x</a>', "there is no ja/layouts/nowhere/index.html"),
        ('<a href="../rosetta/#mop">x</a>', "there is no id mop on ja/layouts/rosetta/index.html"),
        ('<a href="#mop">x</a>', "there is no id mop on ja/layouts/paper/index.html"),
        ('<a href="../rosetta">x</a>', "the address of a folder ends with a slash"),
        ('<a href="/base/fr/">x</a>', "there is no fr/index.html"),
        ('<a href="/elsewhere/">x</a>', "it leaves the site's own folder /base/"),
        ('<a href="../../../../../">x</a>', "it leaves the site's own folder /base/"),
        ('<a href="https://example.org/base/ja/x/">x</a>', "there is no ja/x/index.html"),
        ('<a href="javascript:void(0)">x</a>', "a javascript: address would be blocked"),
        ('<img src="map.svg" alt="">', "there is no ja/layouts/paper/map.svg"),
        ('<img srcset="../../map.svg 1x, big.svg 2x" alt="">', "there is no ja/layouts/paper/big.svg"),
        ('<script src="../../x.js"></script>', "there is no ja/x.js"),
        ('<link rel="stylesheet" href="../../x.css">', "there is no ja/x.css"),
        ('<svg><use xlink:href="#glyph"></use></svg>', "there is no id glyph on"),
    ],
)
def test_links_that_lead_nowhere(house, link, why):
    (found,) = paper(house, link)
    assert "leads nowhere: " + why in found


@pytest.mark.parametrize(
    "link",
    [
        '<a href="../rosetta/?q=1#map">x</a>',
        '<a href="../rosetta/#%6Dap">x</a>',
        '<a id="図"></a><a href="#%E5%9B%B3">x</a>',
        '<a href="#">x</a>',
        '<a href="">x</a>',
        '<a href="https://example.com/nowhere/#x">x</a>',
        '<a href="mailto:a@example.org">x</a>',
        '<a href="https://example.org/base/ja/layouts/rosetta/#map">x</a>',
        '<a href="https://example.org/base/">x</a>',
        '<img src="data:image/png;base64,AA" alt="">',
        '<a name="old"></a><a href="#old">x</a>',
        "<pre><code>&lt;a href=\"nowhere\"&gt; <span>--</span></code></pre>",
        '<!-- <a href="nowhere/">x</a> -->',
        '<script type="application/json">{"x": \'<a href="nowhere">\'}</script>',
        '<p title="<a href=1>">x</p>',
    ],
)  # fmt: skip
def test_links_that_are_well(house, link):
    assert paper(house, link) == []


def test_a_link_is_told_where_it_is_written(house):
    source = house / "docs/ja/layouts/paper.md"
    source.write_text(
        "# 論文 { #paper }\n\n[地図](rosetta.md#mop)\n\n[図](map.png)と[上](../other.md)\n\n[節](gone.md#x)\n", "utf-8"
    )
    found = paper(
        house,
        '<a href="../rosetta/#mop">地図</a><img src="../map.png" alt=""><a href="../../other/">上</a>'
        '<a href="../theme/">x</a><a href="gone.md#x">節</a>',
    )
    assert found == [
        "docs/ja/layouts/paper.md:3: the link to ../rosetta/#mop leads nowhere: there is no id mop on "
        "ja/layouts/rosetta/index.html",
        "docs/ja/layouts/paper.md:5: the link to ../../other/ leads nowhere: there is no ja/other/index.html",
        "docs/ja/layouts/paper.md:5: the link to ../map.png leads nowhere: there is no ja/layouts/map.png",
        "docs/ja/layouts/paper.md:7: the link to gone.md#x leads nowhere: there is no docs/ja/layouts/gone.md",
        "ja/layouts/paper/index.html: the link to ../theme/ leads nowhere: there is no ja/layouts/theme/index.html",
    ]


def test_what_the_theme_repeats_is_told_once(house):
    for path in ("ja/index.html", "ja/layouts/paper/index.html", "index.html"):
        built(house, path, '<a href="/base/lost/">x</a>')
    assert told(house) == [
        "index.html: the link to /base/lost/ leads nowhere: there is no lost/index.html (and on 2 more pages)"
    ]


def test_the_sitemap_names_pages_that_are_there(house):
    (house / "site/ja/sitemap.xml").write_text(
        "<urlset><url><loc>https://example.org/base/ja/</loc>"
        '<link rel="alternate" hreflang="en" href="https://example.org/base/en/"/></url></urlset>',
        "utf-8",
    )
    assert told(house) == [
        "ja/sitemap.xml: the link to https://example.org/base/en/ leads nowhere: there is no en/index.html"
    ]


def test_a_site_without_an_address_of_its_own(house):
    built(house, "404.html", '<a href="/ja/">x</a>')
    assert site.check_site(house / "site") == []


# What stands on a page


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('<p id="a">x</p><p id="a">y</p>', "the id a stands on the page more than once"),
        ("<p>--8&lt;-- \"x.py:a\"</p>", "an include was not carried out"),
        ("<pre><code><span>--</span>8<span>&lt;--</span> \"x.py:a\"</code></pre>", "an include was not carried out"),
        ("<p>{{ error }}</p>", "a value was not filled in"),
        ("<p>Traceback (most recent call last):</p>", "a traceback stands in the text"),
        ('<p style="color: red">x</p>', '<p style="color: red"> would be blocked'),
        ('<button onclick="x()">x</button>', "<button onclick=…> would be blocked"),
        ("<style>p {}</style>", "a <style> element would be blocked"),
        ("<script>alert(1)</script>", "the script `alert(1)` stands on this page alone"),
        ('<iframe src="https://example.com"></iframe>', "a <iframe> would be blocked"),
        ('<object data="../../map.svg"></object>', "a <object> would be blocked"),
        ('<img src="https://example.com/x.png">', "<img src=https://example.com/x.png> would be blocked"),
        ('<video poster="//example.com/x.png"></video>', "<video poster=//example.com/x.png> would be blocked"),
    ],
)  # fmt: skip
def test_what_must_not_stand_on_a_page(house, body, message):
    found = paper(house, body)
    assert all(fault.startswith("docs/ja/layouts/paper.md: ") for fault in found)
    assert len([fault for fault in found if message in fault]) == 1
    assert len(found) == 1 + ("<iframe" in body)  # whose address is foreign, too


@pytest.mark.parametrize(
    "body",
    [
        "<p>Write <code>--8&lt;-- \"x.py\"</code> or <code>{{ error }}</code></p>",
        "<pre><code>Traceback (most recent call last):</code></pre>",
        '<p>An onclick="x" in words, and style="y"</p>',
    ],
)  # fmt: skip
def test_code_may_show_them(house, body):
    assert paper(house, body) == []


def test_a_page_without_its_policy_is_told(house, monkeypatch):
    file = house / "site/ja/index.html"
    sound = file.read_text("utf-8")
    message = "docs/ja/index.md: the finished page has no Content-Security-Policy that fits its scripts"
    file.write_text(policy.POLICY.sub("", sound), "utf-8")
    assert told(house) == [message]
    monkeypatch.setattr(project.state, "serving", True)
    assert told(house) == []
    monkeypatch.setattr(project.state, "serving", False)
    file.write_text(sound.replace("</body>", "<script>late()</script></body>"), "utf-8")
    assert message in told(house)


def test_a_page_is_read_in_time_that_grows_with_its_length_only():
    """An unclosed quote, or many tags, must not make the patterns wander."""
    piece = '<p id="x{}" class="a">Some <a href="#x{}">text</a> and <code>code</code> "here\' & there</p>\n'
    html = "".join(piece.format(number, number) for number in range(3000)) + '<p title="never closed ' + "a " * 20000

    def cost(text):
        start = time.process_time()
        site._read(text)
        markup.with_classes(text + ' style="text-align: left"')
        return time.process_time() - start

    cost(html)
    assert cost(html * 4) < 16 * max(cost(html), 0.005)


def test_every_style_class_has_a_rule():
    sheets = "".join(path.read_text("utf-8") for path in (REAL_DOCS / "shared").rglob("*.css"))
    missing = [name for name in markup.STYLE_CLASSES.values() if not re.search(rf"\.{name}\b", sheets)]
    assert missing == []


def test_what_many_pages_carry_alike_is_fetched_once(tmp_path):
    icon = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><path d="M{}z"/></svg>'
    formula = '<span class="math"><svg><use href="#g-a"/><use data-c="1" href="#g-{0}"/></svg></span>'
    sheet = '<svg class="math-glyphs" width="0"><defs><path id="g-a" d="m1"/><path id="g-{0}" d="m2"/></defs></svg>'
    file = '<details class="file" data-search-exclude>\n<summary>a.py</summary>\n<p>why</p>'
    file += f'<div class="highlight"><pre><span></span><code>{"x &lt; 1" * once.LITTLE}\n</code></pre></div></details>'
    for number in range(once.MANY):
        body = icon.format(1) + icon.format(number + 2) + (formula + sheet).format(number) + file
        built(tmp_path, f"ja/layouts/{number}/index.html", body)
    folder = tmp_path / "site"
    (folder / "stylesheets").mkdir()
    (folder / "stylesheets" / "site.css").write_text("p{color:red}\n", "utf-8")
    once.take_out(folder)
    html = (folder / "ja/layouts/3/index.html").read_text("utf-8")
    (letters,), (text,) = folder.glob("assets/l.*.svg"), folder.glob("assets/a.py.*.txt")
    assert letters.read_text("utf-8") == '<svg xmlns="http://www.w3.org/2000/svg"><path id="a" d="m1"/></svg>\n'
    assert f'<use href="../../../assets/{letters.name}#a"/><use data-c="1" href="#g-3"/>' in html
    assert '<defs><path id="g-3" d="m2"/></defs>' in html, "what few pages have, each keeps"
    assert '<svg class="icon icon-0"></svg>' + icon.format(5) in html
    styles = (folder / "stylesheets" / "site.css").read_text("utf-8")
    assert styles.startswith("p{color:red}\n")
    assert styles.count("M1z") == styles.count("url(") == 1, "one picture for all icons"
    assert "M5z" not in styles
    assert text.read_text("utf-8") == "x < 1" * once.LITTLE + "\n"
    assert (
        f'<p>why</p><div class="highlight"><pre><a href="../../../assets/{text.name}" data-fetched>a.py</a></pre></div>'
        in html
    )


def test_a_site_with_nothing_alike_stays_as_it_is(tmp_path):
    built(tmp_path, "ja/index.html", "<p>one</p>")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    once.take_out(tmp_path / "site")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_empty_lines_of_the_markup_are_not_sent():
    page = Page("ja", "index.md")
    html = "<p>a\n\n  b</p>\n  \n<pre>c\n\n  d</pre>\n\n<code>e\n  f</code>"
    assert lean.lighter(html, page) == "<p>a\nb</p>\n<pre>c\n\n  d</pre>\n<code>e\n  f</code>"


def test_remarks_on_code_are_marked():
    """The list below a block that points to its items, and no other list."""
    block = '<div class="highlight"><pre><code><span class="c1"># ({})</span></code></pre></div>\n<ol>\n<li>x</li></ol>'
    assert '<ol class="remarks">' in markup.with_remarks(block.format(1))
    assert markup.with_remarks(block.format("E,")) == block.format("E,")


def test_what_both_languages_share_comes_from_the_root_and_a_page_called_images_does_not():
    html = '<img src="../../images/icon.svg"><a href="../images/">images</a><a href="../../weights/images/">images</a>'
    page = Page("en", "weights/any-model.md")
    assert staging.from_the_root(html, page) == html.replace("../../images/icon", "../../../images/icon")
    home = '<img src="images/icon.svg"><a href="weights/images/">images</a>'
    assert staging.from_the_root(home, Page("en", "index.md")) == home.replace("images/icon", "../images/icon")


def test_the_tables_of_a_figure_are_a_page_of_their_own(tmp_path):
    table = "<table><tr><td>1</td></tr></table>"
    figure = '<figure class="figure figure--bars" id="figure-a"><figcaption id="figure-a-title">A <i>B</i></figcaption>'
    figure += '<svg></svg><details class="figure__numbers"><summary>表</summary><p id="figure-a-description">why</p>{}</details></figure>'
    built(tmp_path, "ja/a/index.html", f'<html lang="ja">{figure.format(table * 30)}{figure.format(table)}')
    once.take_out(tmp_path / "site")
    (tables,) = (tmp_path / "site").glob("assets/*.html")
    left = f'<p id="figure-a-description">why</p><p><a href="../../assets/{tables.name}" data-fetched>表</a></p></details></figure>'
    html = (tmp_path / "site/ja/a/index.html").read_text("utf-8")
    assert left in html
    assert f"why</p>{table}</details></figure>" in html, "little is left where it is"
    apart = tables.read_text("utf-8")
    assert apart.count(table) == 30
    assert '<html lang="ja">' in apart
    assert "<title>A B</title>" in apart


def test_scripts_and_what_they_read_are_files_and_the_policy_names_none(tmp_path):
    page = '<!doctype html><html lang="{}"><head><meta charset="utf-8"><script>a()</script>\n<script>b()</script></head><body>'
    page += '<script id="words" type="application/json">{{"a": "{}"}}</script><script id="own" type="application/json">{}</script>'
    page += '<script src="x.js"></script><script type="module" src="y.js"></script></body></html>'
    for language in ("ja", "en"):
        for name in "pq":
            built(tmp_path, f"{language}/{name}/index.html", policy.with_policy(page.format(language, language, name)))
    built(tmp_path, "404.html", policy.with_policy(page.format("en", "en", "r")))
    once.take_out(tmp_path / "site")
    site = tmp_path / "site"
    (scripts,), (data,) = site.glob("assets/page.*.js"), site.glob("assets/data.*.js")
    assert scripts.read_text("utf-8") == "a()\nb()\n"
    assert json.loads(data.read_text("utf-8").partition("Object.entries(")[2].partition("))document")[0]) == {
        "words": {"en": '{"a": "en"}', "ja": '{"a": "ja"}'}
    }
    html = (site / "ja/p/index.html").read_text("utf-8")
    assert f'<script src="../../assets/{scripts.name}"></script>' in html
    filled = f'<script id="words" type="application/json"></script><script src="../../assets/{data.name}"></script>'
    assert f'{filled}<script id="own" type="application/json">p</script>' in html, "what each page has of its own stays"
    assert "sha256" not in html
    assert "<script>a()</script>" in (site / "404.html").read_text("utf-8"), "it is shown at any address"


def test_the_dialog_of_the_search_is_put_in_by_the_script_behind_it(tmp_path):
    page = '<!doctype html><html lang="{0}"><head><meta charset="utf-8"></head><body><header><div class="md-search" role="dialog">'
    page += "{1}<ol></ol></div></div></div></div></div></header><script>b()</script></body></html>"
    for name, said in {"ja/p": "検索", "ja/q": "検索", "en/p": "Search", "fr/p": "Chercher", "fr/q": "Cherche"}.items():
        path = tmp_path / "site" / name / "index.html"
        path.parent.mkdir(parents=True)
        path.write_text(policy.with_policy(page.format(name[:2], said)), "utf-8")
    once.take_out(tmp_path / "site")
    site = tmp_path / "site"
    html = (site / "ja/p/index.html").read_text("utf-8")
    (script,) = re.findall(r'<script src="../../(assets/page[^"]*)"', html)
    assert '<div class="md-search" role="dialog"></div></header>' in html
    assert script in (site / "en/p/index.html").read_text("utf-8"), "one file for all languages"
    told = (site / script).read_text("utf-8")
    dialogs = json.loads(told[told.index("{") : told.rindex("}") + 1])
    assert dialogs == {
        name: f"{said}<ol></ol></div></div></div></div>" for name, said in (("en", "Search"), ("ja", "検索"))
    }
    assert told.endswith("[document.documentElement.lang]\nb()\n")
    assert "Chercher" in (site / "fr/p/index.html").read_text("utf-8"), "what differs stays where it is"


def test_what_an_explorer_reads_is_a_file_where_it_is_much(tmp_path):
    built(tmp_path, "ja/a/index.html", f'<html lang="ja"><some-map data-few="1" data-cells="{"0a" * 1000}">')
    once.take_out(tmp_path / "site")
    (cells,) = (tmp_path / "site").glob("assets/cells.*.txt")
    assert cells.read_text("utf-8") == "0a" * 1000
    html = (tmp_path / "site/ja/a/index.html").read_text("utf-8")
    assert f'<some-map data-few="1" data-cells-at="../../assets/{cells.name}">' in html
