"""Terms: what links to the glossary, what never does, and the page that the glossary becomes."""

import re
import time

import html5lib
import markdown
import pytest

from builder import project
from builder.pages import checks, glossary, marks, reader
from builder.pages.page import Page
from builder.project import Stopped

ADDRESS = "../../reference/glossary/"


def linked(html, language):
    """(text, id) of each link the matcher makes; everything but the links is unchanged."""
    made = glossary.link_terms(html, language, ADDRESS)
    link = re.compile(rf'<a class="term" href="{re.escape(ADDRESS)}#term-([\w-]+)">(.*?)</a>', re.S)
    assert link.sub(r"\2", made) == html
    return [(text, name) for name, text in link.findall(made)]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("ja", "注意の重みは重み行列とは別", [
            ("注意の重み", "attention-weights"), ("重み行列", "weight-matrix")]),
        ("ja", "マルチヘッド注意のヘッド数", [
            ("マルチヘッド注意", "multi-head-attention"), ("ヘッド数", "number-of-heads")]),
        ("ja", "オーバーヘッドとヘッドライトとヘッダー", []),
        ("ja", "キーワードとモンキー", []),
        ("ja", "クエリ・トークン・ヘッド", [("クエリ", "query"), ("トークン", "token"), ("ヘッド", "head")]),
        ("ja", "state_dictのキーと勾配のマスク、値とバリュー", [("state_dict", "state-dict"), ("勾配", "gradient")]),
        ("ja", "逆転置行列", []),
        ("ja", "softmaxの温度", [("softmax", "softmax"), ("温度", "temperature")]),
        ("ja", "logsoftmaxとsoftmax2", []),
        ("en", "Attention weights fill attention matrices.", [
            ("Attention weights", "attention-weights"), ("attention matrices", "attention-matrix")]),
        ("en", "queries and heads and biases", [("queries", "query"), ("heads", "head"), ("biases", "bias")]),
        ("en", "overhead, header, heads-up, per-head", []),
        ("en", "SDPA", [("SDPA", "scaled-dot-product-attention")]),
        ("en", "sdpa and Batch_First", []),
        ("en", "scaled dot-product\nattention", [("scaled dot-product\nattention", "scaled-dot-product-attention")]),
        ("en", "The value of a key claim", []),
    ],
)  # fmt: skip
def test_words_and_their_borders(language, text, expected):
    assert linked(f"<p>{text}</p>", language) == expected


@pytest.mark.parametrize(
    "html",
    [
        '<p><a href="x">ヘッド</a></p>',
        "<p><code>ヘッド</code></p>",
        "<pre><span>ヘッド</span> ヘッド</pre>",
        '<h2 id="a">ヘッド</h2>',
        "<h4>ヘッド</h4>",
        '<p><span class="arithmatex">\\(ヘッド\\)</span></p>',
        '<div class="arithmatex">\\[ヘッド\\]</div>',
        "<figure><svg><text>ヘッド</text></svg><figcaption>ヘッド</figcaption></figure>",
        "<details><summary>ヘッド</summary></details>",
        "<button>ヘッド</button>",
        "<label>ヘッド</label>",
        "<script>ヘッド</script>",
        "<style>ヘッド</style>",
        '<p class="admonition-title">ヘッド</p>',
        "<!-- ヘッド -->",
        '<p title="ヘッド" data-x=">ヘッド">x</p>',
        '<div class="no-terms"><div>x</div>ヘッド</div>',
    ],
)
def test_where_nothing_links(html):
    assert linked(html, "ja") == []
    assert linked(html + "<p>ヘッド</p>", "ja") == [("ヘッド", "head")], "and the text after it is open again"


def test_the_first_occurrence_in_each_section_links():
    html = "<p>ヘッド、ヘッド</p><h2>一</h2><p>ヘッド</p><h3>小</h3><p>ヘッド</p><h2>二</h2><p>ヘッド</p>"
    made = glossary.link_terms(html, "ja", ADDRESS)
    assert [piece.count('class="term"') for piece in made.split("<h")] == [1, 1, 0, 1]


def test_spellings_of_one_term_count_as_one():
    assert linked("<p>ヘッドの幅とヘッド幅</p>", "ja") == [("ヘッドの幅", "head-width")]


def test_the_matcher_costs_little():
    """Against the machine's own speed: at most 20 times what walking the page's tags costs."""
    html = (
        "<h2>節</h2><p>注意の重みと、それを作るクエリとキー、そして<code>x</code>の往復を順に見ていきます。</p>" * 300
    )
    glossary.link_terms(html, "ja", ADDRESS)

    def best(function):
        times = []
        for _ in range(5):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        return min(times)

    walking = best(lambda: [tag[0] for tag in glossary.MARKUP.finditer(html)])
    assert best(lambda: glossary.link_terms(html, "ja", ADDRESS)) < 20 * walking


# Our glossary


def test_every_term_is_whole_and_no_fault_stands_in_the_file():
    assert len(glossary.load().terms) >= 45
    assert glossary.faults(marks.COMPUTED) == []
    words = {language: [word for term in glossary.load().terms for word in glossary.words_of(term, language)]
             for language in project.LANGUAGES}  # fmt: skip
    for language, all_words in words.items():
        assert len(all_words) == len(set(all_words)), f"a {language} word belongs to two terms"


def test_every_word_links_to_its_own_term():
    """No term is shadowed by another, and no pattern misses its own word."""
    for term in glossary.load().terms:
        for language in project.LANGUAGES:
            if language not in term.get("quiet", ()):
                for word in glossary.words_of(term, language):
                    assert linked(f"<p>{word}</p>", language) == [(word, term["id"])]


def test_no_word_of_ours_is_forbidden():
    for term in glossary.load().terms:
        for language in project.LANGUAGES:
            for word in glossary.words_of(term, language):
                source = reader.scan(word, "docs/x.md")
                assert list(checks.word_faults(source, language)) == []


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "ROOT", tmp_path)
    monkeypatch.setattr(project, "DOCS", tmp_path / "docs")
    (tmp_path / "docs").mkdir()
    return tmp_path


BROKEN = """\
terms:
  - id: head
    ja: ヘッド
    en: head
    define: {ja: 頭です。, en: A head in 0.93 of all.}
  - id: head
    ja: 頭
    en: other
    define: {ja: パラメータです。, en: Another.}
  - id: tail
    ja: 尾
    define: {ja: 尾です。}
forbidden:
  - {language: ja, pattern: 'パラメータ(?!ー)', why: long marks stay.}
"""


def test_faults_of_the_file(house):
    (house / "docs/glossary.yml").write_text(BROKEN, "utf-8")
    assert [fault.message for fault in glossary.faults(marks.COMPUTED)] == [
        "the definition of head says 0.93, which no run has made: leave it to a page",
        "the term head is there twice",
        'the definition of head says "パラメータ": long marks stay.',
        "the term tail has no word or no definition in en",
    ]
    assert all(fault.file == "docs/glossary.yml" for fault in glossary.faults(marks.COMPUTED))
    assert glossary.faults(marks.COMPUTED)[-1].line == 10


def test_a_project_without_a_glossary(house):
    assert glossary.load().terms == ()
    assert glossary.faults(marks.COMPUTED) == []
    assert glossary.link_terms("<p>ヘッド</p>", "ja", ADDRESS) == "<p>ヘッド</p>"


# The page


def rendered(language):
    return markdown.markdown(glossary.render(language), extensions=["md_in_html", "attr_list"])


@pytest.mark.parametrize("language", ["ja", "en"])
def test_the_page_holds_every_term_both_ways(language):
    html = rendered(language)
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parseFragment(html)
    terms = document.findall(".//dt")
    assert {term.get("id") for term in terms} == {f"term-{term['id']}" for term in glossary.load().terms}
    assert len(document.findall(".//dd")) == len(terms)
    other = "en" if language == "ja" else "ja"
    for term in glossary.load().terms:
        (heading,) = [node for node in terms if node.get("id") == f"term-{term['id']}"]
        assert heading.text.strip() == term[language]
        if term["ja"] != term["en"]:
            assert (heading.find("span").get("lang"), heading.find("span").text) == (other, term[other])
    assert "markdown=" not in html


def test_japanese_is_sorted_by_reading(house):
    entry = "  - {{id: {}, ja: {}, yomi: {}, en: {}, define: {{ja: あ, en: a}}}}\n"
    rows = [("c", "転置", "てんち", "zeta"), ("a", "クエリ", "くえり", "yeta"), ("b", "往復", "おうふく", "xeta")]
    (house / "docs/glossary.yml").write_text("terms:\n" + "".join(entry.format(*row) for row in rows), "utf-8")
    assert re.findall("term-(.)", glossary.render("ja")) == ["b", "a", "c"]
    assert re.findall("term-(.)", glossary.render("en")) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("terms:\n  - {id: a\nforbidden: [", r"docs/glossary\.yml:3: this is not YAML: "),
        ("- a\n- b\n", r"docs/glossary\.yml: this is no map of `terms:` and `forbidden:`"),
    ],
)
def test_a_glossary_that_cannot_be_read(house, text, said):
    (house / "docs/glossary.yml").write_text(text, "utf-8")
    with pytest.raises(Stopped, match=said):
        glossary.load()


def test_a_term_leads_to_its_page_where_that_is_written(house):
    (house / "docs/glossary.yml").write_text(
        "terms:\n  - {id: a, ja: あ, en: a, page: layouts/one.md#x, define: {ja: い。, en: b.}}\n", "utf-8"
    )
    assert "](" not in glossary.render("en")
    (house / "docs/en/layouts").mkdir(parents=True)
    (house / "docs/en/layouts/one.md").write_text("---\nhide: [toc]\n---\n\n# The map { #map }\n", "utf-8")
    assert "[The map](../layouts/one.md#x)" in glossary.render("en")


def test_a_page_and_the_glossary_page(monkeypatch):
    lesson = glossary.link("<p>ヘッド</p>", Page("ja", "layouts/paper.md"))
    assert lesson == f'<p><a class="term" href="{ADDRESS}#term-head">ヘッド</a></p>'
    for path in ("reference/glossary.md", "reference/claims.md"):
        assert glossary.link("<p>ヘッド</p>", Page("ja", path)) == "<p>ヘッド</p>"
    made = glossary.put("# 用語 { #a }\n\n```glossary\n```\n", Page("ja", glossary.PAGE))
    assert 'id="term-head"' in made
    assert "```" not in made
    monkeypatch.setattr(glossary, "PAGE", "reference/nowhere.md")
    assert glossary.link("<p>ヘッド</p>", Page("ja", "layouts/paper.md")) == "<p>ヘッド</p>"
