"""The built site, without a browser: valid HTML, nothing raw, the right languages, addresses and policies."""

import json
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import pytest
import shared_site
from mkdocs.utils.meta import get_data

from builder.pages import reader
from builder.scripts import records

LANGUAGES = ("ja", "en")
SOURCES = sorted(
    f"{language}/{path.relative_to(shared_site.ROOT / 'docs' / language).as_posix()}"
    for language in LANGUAGES
    for path in (shared_site.ROOT / "docs" / language).rglob("*.md")
)


def address(source):
    """layouts/rosetta/ of en/layouts/rosetta.md, atlas/ of en/atlas/index.md."""
    below = source.partition("/")[2].removesuffix(".md")
    return below.removesuffix("index") if Path(below).name == "index" else f"{below}/"


def html(source):
    return (shared_site.built() / source[:2] / address(source) / "index.html").read_text(encoding="utf-8")


def test_there_are_pages_and_all_are_built():
    assert len(SOURCES) > 30
    built = {page for page in shared_site.pages() if page[:2] in LANGUAGES}
    assert built == {f"{source[:2]}/{address(source)}" for source in SOURCES}


@pytest.mark.parametrize("source", [*SOURCES, "index.html", "404.html"])
def test_valid_html(source):
    text = html(source) if source.endswith(".md") else (shared_site.built() / source).read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(text)


def test_the_strict_parser_is_strict():
    with pytest.raises(html5lib.html5parser.ParseError):
        html5lib.HTMLParser(strict=True).parse("<!doctype html><title>x</title><p><div></p>")


@pytest.mark.parametrize("source", SOURCES)
def test_the_head(source):
    text, language, page = html(source), source[:2], address(source)
    head = text.partition("</head>")[0]
    assert f'<html lang="{language}"' in text
    assert f'<link rel="canonical" href="{shared_site.BASE}/{language}/{page}">' in head
    for other in LANGUAGES:
        assert f'<link rel="alternate" href="{shared_site.BASE}/{other}/{page}" hreflang="{other}">' in head
    assert head.count('hreflang="x-default"') == 1
    assert '<meta http-equiv="Content-Security-Policy" content="default-src \'self\'' in head
    assert "unsafe" not in re.search(r'Security-Policy" content="([^"]*)"', head)[1]


def test_pages_are_described_in_their_own_words():
    told = {
        source: unescape(re.search(r'<meta name="description" content="([^"]*)"', html(source))[1])
        for source in SOURCES
    }
    fronts = {source: get_data((shared_site.ROOT / "docs" / source).read_text("utf-8"))[1] for source in SOURCES}
    own = {source: front["description"] for source, front in fronts.items() if "description" in front}
    assert {source: told[source] for source in own} == own
    assert len(set(own.values())) == len(own)
    assert any("/practice/" in source for source in own)


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_raw_and_nothing_from_elsewhere(source):
    text = html(source)
    assert "8<--" not in re.sub(r"<pre.*?</pre>|<code.*?</code>", "", text, flags=re.S)
    assert "Traceback (most recent call last)" not in text
    assert not re.search(r"\{\{ [\w:/.-]+ \}\}", text)
    assert not re.search(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//', text)
    assert not re.search(r'<link[^>]* rel="(?:stylesheet|preload|preconnect|icon)"[^>]* href="https?:', text)
    assert not re.search(r"\sstyle=", text)
    assert "arithmatex" not in text
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sitemap(language):
    names = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9", "x": "http://www.w3.org/1999/xhtml"}
    tree = ElementTree.parse(shared_site.built() / language / "sitemap.xml")
    found = {}
    for url in tree.findall("s:url", names):
        found[url.find("s:loc", names).text] = {
            link.get("hreflang"): link.get("href") for link in url.findall("x:link", names)
        }
    expected = {address(source) for source in SOURCES if source.startswith(language)}
    assert set(found) == {f"{shared_site.BASE}/{language}/{page}" for page in expected}
    for location, links in found.items():
        page = location.removeprefix(f"{shared_site.BASE}/{language}/")
        assert links == {other: f"{shared_site.BASE}/{other}/{page}" for other in LANGUAGES}


def test_the_root():
    site = shared_site.built()
    doors = (site / "index.html").read_text(encoding="utf-8")
    for language in LANGUAGES:
        assert f'href="/{language}/"' in doors
        assert f'href="/{language}/"' in (site / "404.html").read_text(encoding="utf-8")
        assert not (site / language / "404.html").exists()
    assert (site / ".nojekyll").exists()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_lesson_can_be_downloaded(language):
    for source in SOURCES:
        fences = reader.fences_of((shared_site.ROOT / "docs" / source).read_text(encoding="utf-8"))
        if source.startswith(language) and any(fence.language == "python" for fence in fences):
            folder = shared_site.built() / language / address(source)
            name = f"{Path(source).stem}.ipynb"
            assert json.loads((folder / name).read_text(encoding="utf-8"))["nbformat"] == 4
            assert f'href="{name}" download' in html(source)


def test_every_claim_is_on_the_page_of_claims():
    shared_site.built()
    claims = records.all_claims()
    assert len(claims) > 100
    assert {claim.kind for _, claim in claims} == {"equal", "exact", "differs", "bound", "raises"}
    for language in LANGUAGES:
        heads = len({script for script, _ in claims})
        assert html(f"{language}/reference/claims.md").count("<tr>") == len(claims) + heads
