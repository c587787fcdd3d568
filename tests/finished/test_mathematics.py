"""Formulas: drawn for the eye, said for the ear, kept as TeX for the clipboard, with no style attribute anywhere."""

import hashlib
import html as entities
import re
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import markdown
import pytest

from builder import project
from builder.dialect import Dialect
from builder.finished import mathematics
from builder.pages import formulas
from builder.pages.page import Page

PAGE = "layouts/example.md"


@pytest.fixture(scope="module", autouse=True)
def one_v8():
    yield
    mathematics.close()


@pytest.fixture(autouse=True)
def house(tmp_path, monkeypatch):
    """A project of its own, in Japanese, with an empty cache."""
    monkeypatch.setattr(project, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(project, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(project, "LANG", "ja")
    return tmp_path


def finished(source):
    """The finished page of a Markdown source, before formulas are drawn."""
    page = Page("ja", PAGE)
    extensions = ["pymdownx.superfences", "tables", "attr_list", "admonition", "md_in_html", Dialect()]
    body = formulas.legible(markdown.markdown(formulas.put(source, page), extensions=extensions), page)
    head = '<!doctype html>\n<html lang="ja"><head><meta charset="utf-8"><title>example</title></head>'
    return f"{head}<body><main><article>{body}</article></main></body></html>"


def typeset(source):
    """The page with its formulas, which must all be right."""
    page = Page("ja", PAGE)
    html = mathematics.typeset(finished(source), page)
    assert page.faults == []
    return html


def faults(source):
    """What the build says about a page, written into the project first."""
    file = project.DOCS / "ja" / PAGE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")
    page = Page("ja", PAGE)
    mathematics.typeset(finished(source), page)
    return [str(fault) for fault in sorted(page.faults)]


def tex_of(page):
    return [entities.unescape(tex) for tex in re.findall(r'data-tex="([^"]*)"', page)]


SAMPLE = r"""
行列$W_i^Q$と$x < y$、そして($\R^{E \times D}$)。

$$
\Attention(Q, K, V) = \softmax\left(\frac{QK^\top}{\sqrt{d_k}}\right)V
$$

!!! trap "わな"

    $$
    \begin{aligned}
    \MultiHead(Q, K, V) &= \Concat(\head_1, \ldots, \head_H) W^O \\
    \boldsymbol{\alpha} &= \begin{bmatrix} 1 & 2 \\ 3 & 4 \\ 5 & 6 \\ 7 & 8 \end{bmatrix}
      \left[\begin{array}{c|c} a & b \\ \hline c & d \end{array}\right] \boxed{\mathrm{output}}
    \end{aligned}
    $$

| 式 | 形 |
| --- | --- |
| $\operatorname{rank} A$ | $\text{注意の重み}$ |
"""


def test_page_is_valid_and_says_everything_twice():
    page = typeset(SAMPLE)
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    formulas = [element for element in tree.iter() if "math" in element.get("class", "").split()]
    assert len(formulas) == 7
    for formula in formulas:
        drawing, spoken = formula
        assert drawing.tag.rpartition("}")[2] == "svg"
        assert drawing.get("aria-hidden") == "true"
        assert spoken.tag.rpartition("}")[2] == "math"
        assert "".join(spoken.itertext()).strip()
        assert formula.get("data-tex").strip()
    assert "arithmatex" not in page
    assert r"\(" not in page


def test_no_style_attribute_and_no_script():
    page = typeset(SAMPLE)
    assert not re.search(r"<[^>]*\sstyle=|<style|<script", page)


def test_one_sheet_of_letters_that_every_use_finds():
    page = typeset(SAMPLE)
    assert page.count('class="math-glyphs"') == 1
    ids = re.findall(r'<path id="([^"]*)"', page)
    used = re.findall(r'<use[^>]*href="#([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(used) == set(ids)
    assert len(used) > len(ids), "a letter that stands twice is stored once"
    assert page.rindex("<use") < page.index("math-glyphs") < page.index("</article>")


def test_a_space_is_no_letter():
    page = typeset(r"$f\,g$ and $\text{a b}$")
    assert 'd=""' not in page
    assert set(re.findall(r'<use[^>]*href="#([^"]*)"', page)) == set(re.findall(r'<path id="([^"]*)"', page))


def test_page_without_formula_is_left_alone():
    page = finished("文だけの頁。`$x$`\n\n```text\n$y$ \\(z\\)\n```\n")
    assert mathematics.typeset(page, Page("ja", PAGE)) == page


def test_code_is_left_alone():
    page = typeset('$a$ `$b$`\n\n```text\n$c$ <span class="arithmatex">\\(d\\)</span>\n```\n')
    assert tex_of(page) == ["a"]
    assert "<code>$b$</code>" in page
    assert "&lt;span class=" in page
    assert r"\(d\)" in page


@pytest.mark.parametrize("tex", [r"a < b", r"a > b \& c", r"\begin{matrix} a & b \\ c \end{matrix}", r"\text{注意}"])
@pytest.mark.parametrize("display", [False, True])
def test_copied_tex_is_what_was_written(tex, display):
    assert tex_of(typeset(f"$$\n{tex}\n$$" if display else f"語 ${tex}$ 語")) == [tex]


def test_copied_tex_keeps_its_lines():
    tex = "\\begin{aligned}\na &= b \\\\\n  &= c\n\\end{aligned}"
    assert tex_of(typeset(f"$$\n{tex}\n$$")) == [tex]


def test_formula_keeps_its_punctuation():
    page = typeset("（$x$）と$y$、また $z$ です。")
    assert page.count('<span class="math-run">') == 2
    assert re.search(r'<span class="math-run">（<span class="math"', page)
    assert re.search(r"</span>、</span>また <span class=\"math\"", page)


def test_a_formula_brings_the_gaps_that_the_browser_cannot_make():
    """Between Japanese and a formula, as between Japanese and Latin letters; none at punctuation, space, or an edge."""
    page = typeset("$a$は語$b$、語 $c$ 語（$d$）[語](x.md)$e$[語](y.md)\n\n語\n\n$f$")
    gaps = {tex: kind.split()[1:] for kind, tex in re.findall(r'<span class="(math[ be]*)" data-tex="(.)"', page)}
    assert gaps == {"a": ["e"], "b": ["b"], "c": [], "d": [], "e": ["b", "e"], "f": []}


def test_only_what_may_scroll_is_a_stop_of_the_tab_key():
    page = typeset("$$x$$\n\n$$" + " + ".join("abcdefghijklmno") + "$$")
    short, long = re.findall(r'<div class="math math--display"[^>]*>', page)
    assert "tabindex" not in short
    assert 'tabindex="0" role="group" aria-label="数式"' in long


def depth(page):
    """How far the first formula reaches below the line, in ex, by its class and the style sheet."""
    step = re.search(r'<svg class="(va-?\d+)"', page)
    if step is None:
        return 0
    return -float(re.search(rf"\.{step[1]}{{vertical-align:(.*?)ex}}", mathematics.stylesheet())[1])


def test_depth_is_a_class_of_the_style_sheet():
    assert depth(typeset("$x$")) == pytest.approx(0.025, abs=0.013)  # a round letter overshoots the line
    assert depth(typeset("$p$")) == pytest.approx(0.439, abs=0.013)  # 194 thousandths of an em
    assert depth(typeset(r"$\cdot$")) < 0 < depth(typeset("$\\frac{a}{b}$"))


def test_style_sheet_covers_every_depth_that_is_accepted():
    sheet = mathematics.stylesheet()
    for steps in {*range(mathematics.HIGHEST, mathematics.DEEPEST + 1)} - {0}:
        assert f".va{steps}{{" in sheet
    assert any(
        "too tall for a line" in fault for fault in faults("語 $\\begin{matrix}" + "a \\\\ " * 9 + "\\end{matrix}$ 語")
    )


@pytest.mark.parametrize(
    ("tex", "message"),
    [
        (r"\fracc{1}{2}", r"Undefined control sequence \fracc"),
        (r"x_1_2", "Double subscript"),
        (r"\frac{1}{", "Missing close brace"),
        (r"\left( x", r"missing \right"),
        (r"a & b", "Misplaced &"),
        (r"\newcommand{\E}{E}", r"Undefined control sequence \newcommand"),
    ],
)
@pytest.mark.parametrize("display", [False, True])
def test_wrong_tex_is_a_fault_with_file_and_line(tex, message, display):
    if display:
        source, line = f"# 題 {{ #title }}\n\n正しい $x$ 。\n\n$$\n{tex}\n$$\n", 6
    else:
        source, line = f"# 題 {{ #title }}\n\n正しい $x$ 。\n\n誤りは ${tex}$ です。\n", 5
    (fault,) = faults(source)
    assert fault.startswith(f"docs/ja/{PAGE}:{line}: formula ${tex}$: ")
    assert message in fault


@pytest.mark.parametrize("tex", [r"x \tag{1}", r'\mmlToken{mi}[style="padding: 1em"]{x}'])
def test_formula_that_needs_a_style_attribute_is_refused(tex):
    (fault,) = faults(f"$$\n{tex}\n$$\n")
    assert "no style attributes" in fault


def test_every_fault_is_told_at_once():
    told = faults('$\\alphaa$\n\n語\n\n$x_1_2$\n\n!!! trap "わな"\n\n    $$\n    a \\\\\n    \\betaa\n    $$\n')
    assert [fault.split(": ")[0] for fault in told] == [f"docs/ja/{PAGE}:{line}" for line in (1, 5, 10)]


def test_formula_that_is_nowhere_in_the_page_has_no_line():
    page = Page("ja", "reference/claims.md")
    (project.DOCS / "ja/reference").mkdir(parents=True)
    (project.DOCS / "ja" / page.name).write_text("```claims\n```\n", encoding="utf-8")
    mathematics.typeset(finished("$\\alphaa$"), page)
    (fault,) = map(str, page.faults)
    assert fault.startswith(r"docs/ja/reference/claims.md: formula $\alphaa$: Undefined")


def test_no_formula_in_a_heading():
    (fault,) = faults("語 $x$\n\n## 式$W$の題 { #matrix }\n")
    assert fault.startswith(f"docs/ja/{PAGE}:3: formula $W$: no formula in a heading")


def test_no_macro_of_one_formula_reaches_another():
    assert faults("$\\DeclareMathOperator{\\mine}{mine} \\mine$ と $\\mine$")[0].endswith(
        r"Undefined control sequence \mine"
    )


def test_two_builds_are_the_same_byte_for_byte(monkeypatch, tmp_path):
    first = typeset(SAMPLE)
    mathematics.close()
    monkeypatch.setattr(project, "CACHE", tmp_path / "other")
    # In another order, in another V8.
    typeset("$\\gamma$ $W_i^Q$ $$x$$")
    assert typeset(SAMPLE) == first


def test_cache_spares_v8(monkeypatch):
    first = typeset(SAMPLE)
    kept = sorted((project.CACHE / "mathematics").iterdir())
    assert len(kept) == 7
    assert all(file.suffix == ".json" for file in kept)

    def no_v8():
        raise AssertionError("V8 was asked")

    monkeypatch.setattr(mathematics, "_v8", no_v8)
    assert typeset(SAMPLE) == first
    kept[0].write_text("{half a fi", encoding="utf-8")  # a process that was killed
    with pytest.raises(AssertionError, match="V8 was asked"):
        typeset(SAMPLE)


def test_cache_tells_display_from_inline_and_versions_apart(monkeypatch):
    typeset("$x$")
    typeset("$$x$$")
    assert len(list((project.CACHE / "mathematics").iterdir())) == 2
    monkeypatch.setattr(mathematics, "_state", lambda: "another MathJax\n")
    typeset("$x$")
    assert len(list((project.CACHE / "mathematics").iterdir())) == 3


def test_cache_knows_mathjax_and_this_hook():
    state = mathematics._state()
    assert metadata.version("django-static-mathjax") in state
    assert hashlib.sha256(Path(mathematics.__file__).read_bytes()).hexdigest() in state


def test_nothing_is_sent_that_only_mathjax_reads():
    page = typeset(SAMPLE)
    assert not re.search(r"data-(?!tex|frame)|<g>|<mrow>(<(m[ino])>[^<]*</\2>)</mrow>|xmlns", page)


def test_wrong_tex_is_not_kept():
    faults("$\\alphaa$")
    assert not list((project.CACHE / "mathematics").glob("*"))


def outline(data):
    """Points along a path, from absolute or relative data: nine of each of its parts."""
    pen, start, handle, found = 0j, 0j, None, []
    for command, arguments in re.findall(r"([A-Za-z])([^A-Za-z]*)", data):
        kind, numbers = command.upper(), list(map(int, re.findall(r"-?\d+", arguments)))
        if kind in "HV":
            other = 0 if command.islower() else pen.imag if kind == "H" else pen.real
            numbers = [*numbers, other] if kind == "H" else [other, *numbers]
        places = [complex(a, b) + pen * command.islower() for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
        end = places[-1] if places else start
        handle = places[0] if kind == "Q" else 2 * pen - (pen if handle is None else handle) if kind == "T" else None
        for share in (step / 8 for step in range(9)):
            middle = (pen + end) / 2 if handle is None else handle
            found.append((1 - share) ** 2 * pen + 2 * share * (1 - share) * middle + share**2 * end)
        pen = end
        start = end if kind == "M" else start
    return found


def test_outlines_are_those_of_the_font():
    """To a tenth of a pixel where an em is 20."""
    font = "MathJax._.output.svg.fonts.tex_ts.TeXFont"
    chars = f"Object.values(new {font}().variant['normal'].chars)"
    code = f"JSON.stringify({chars}.map(c => c[3] && c[3].p).filter(p => p))"
    paths = [f"M{path}Z" for path in mathematics.json.loads(mathematics._v8().eval(code))]
    assert len(paths) > 300
    for path in paths:
        pairs = zip(outline(mathematics.relative_path(path)), outline(path), strict=True)
        assert max(abs(ours - theirs) for ours, theirs in pairs) < 5, path


def test_a_build_tells_every_wrong_formula_at_once(small):
    small.replace("docs/en/index.md", "{ #small-site }\n", "{ #small-site }\n\n$\\fracc$ and $x_1_2$\n")
    small.replace("docs/ja/index.md", "{ #small-site }\n", "{ #small-site }\n\n$\\fracc$と$x_1_2$\n")
    small.reread("index")
    done = small.build()
    assert done.returncode == 1
    assert r"formula $\fracc$: Undefined control sequence \fracc" in done.said
    assert "formula $x_1_2$: Double subscripts" in done.said
    assert "Traceback" not in done.said


def test_groups_of_one_thing_hand_their_place_to_it():
    """The same places with half of the elements: what is moved, turned over or made smaller stands where it stood."""
    letter = '<use href="#g-a"/>'
    drawn = ElementTree.fromstring(
        '<svg><g transform="scale(1,-1)"><g transform="translate(5,2)"><g/><g transform="translate(10.5 -0.5)">'
        f'{letter}</g></g><g transform="translate(3,0) scale(0.7)">{letter}</g><g transform="translate(1)">{letter}{letter}</g></g></svg>'
    )
    mathematics._flat(drawn)
    assert mathematics._text(drawn) == (
        '<svg><g transform="scale(1,-1)"><use href="#g-a" x="15.5" y="1.5"/>'
        f'<use href="#g-a" transform="translate(3,0) scale(0.7)"/><g transform="translate(1)">{letter}{letter}</g></g></svg>'
    )
