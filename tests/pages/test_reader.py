"""The one reader of a page: what one part takes a line for, every part takes it for."""

import ast
import re

import pytest

from builder import project
from builder.figures import fence as figures
from builder.pages import claims_page, formulas, glossary, includes, notebooks, reader, shown, typed
from builder.pages.page import Page

PAGE = """\
---
search: [x]
---

# A page { #a-page }

Text with `# code`.
<!--
# no heading
-->

!!! trap "A `title`"

    Inside.

    ```python
    --8<-- "a/b.py:one"
    ```

    1.  An annotation,
        on two lines.

    ```text
    --8<-- "a/b.py.out:one"
    ```

    ??? setup "Deeper"

        # Within { #within }

Outside.

<rosetta-map markdown>
</rosetta-map>
"""


def test_a_page_taken_apart():
    parts = reader.blocks(PAGE)
    kinds = [type(part).__name__ for part in parts if not isinstance(part, reader.Line) or part.text]
    assert kinds == ["Heading", *["Line"] * 4, "Box", *["Line"] * 3]
    (box,) = [part for part in parts if isinstance(part, reader.Box)]
    assert (box.line, box.kind, box.title) == (12, "trap", "A `title`")
    code, out = [part for part in box.inside if isinstance(part, reader.Fence)]
    assert (code.line, code.end, code.listed, code.listed_end, code.indent) == (16, 18, 1, 21, "")
    assert code.include == includes.Include("a/b.py", section="one")
    assert out.text == '--8<-- "a/b.py.out:one"'
    (deeper,) = [part for part in box.inside if isinstance(part, reader.Box)]
    assert [part for part in deeper.inside if isinstance(part, reader.Heading)] == [
        reader.Heading(29, "", 1, "Within", "within")
    ]
    assert [part.text for part in parts if isinstance(part, reader.Line) and part.wraps] == [
        "<rosetta-map markdown>",
        "</rosetta-map>",
    ]
    assert reader.title(PAGE) == "A page"


def test_every_line_of_a_page_is_read_once():
    """On every page there is."""

    def numbers(parts):
        for part in parts:
            if isinstance(part, reader.Box):
                yield part.line
                yield from numbers(part.inside)
            else:
                yield from range(part.line, getattr(part, "end", part.line) + 1)

    for language in project.LANGUAGES:
        for page in project.page_files(language):
            text = (project.DOCS / language / page).read_text("utf-8")
            assert list(numbers(reader.blocks(text))) == list(range(1, text.count("\n") + 2)), page
            source = reader.read(language, page)
            headings = [*_headings(reader.blocks(text))]
            assert [mark.line for mark in source.headings] == [part.line for part in headings if part.identity]


def _headings(parts):
    for part in parts:
        if isinstance(part, reader.Heading):
            yield part
        yield from _headings(part.inside) if isinstance(part, reader.Box) else ()


# ---------------------------------------------------------------- what parts of the build once disagreed on


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("It costs $5 or $6 here.", []),
        ("It costs $5.\n\nOr 6$.", []),
        ("With $x_i$, $y$ and `$z$`:\n\n$$\na\n+ b\n$$", ["x_i", "y", "a + b"]),
        ("Not \\$x$ and $x <!-- $ --> y$.", []),
        ("````text\n$x$\n```\n$y$\n````\n\nand $z$", ["z"]),
    ],
)
def test_what_is_a_formula_is_one_for_who_checks_and_for_who_draws(text, tex):
    page = Page("en", "a/b.md")
    made = formulas.put(text, page)
    assert made.count('class="arithmatex"') == len(tex)
    assert [" ".join(found[3].split()) for found in reader.formulas_in(text)] == tex
    source = reader.scan(text, "docs/en/a/b.md")
    assert sorted(mark.text for mark in [*source.displayed, *(mark for _, mark in source.inline)]) == sorted(tex)


QUOTED = """\
# A page { #a-page }

````text
```figure rosetta
title: A title
```

```glossary
```

# No heading { #none }

$x$ and [a recipe](../recipes/capture.py)
````

The last line.
"""


def test_a_quoted_fence_is_text_for_every_part(monkeypatch):
    """A fence of four backticks around what would be a figure, a glossary, a heading, a formula and a link."""
    monkeypatch.setattr(Page, "source", QUOTED)
    page = Page("en", "layouts/rosetta.md")
    for put in (figures.put, glossary.put, formulas.put, claims_page.put, includes.put):
        assert put(QUOTED, page) == QUOTED
    assert not page.faults
    source = reader.scan(QUOTED, "docs/en/layouts/rosetta.md")
    assert (source.figures, source.inline, [mark.text for mark in source.headings]) == ([], [], ["# { #a-page }"])
    assert not list(shown._figures("layouts/rosetta.md", QUOTED))
    assert [str(fault).partition(": ")[0] for fault in typed.faults(source)] == ["docs/en/layouts/rosetta.md:3"] * 2
    parts = notebooks.cells_of(QUOTED, "en")
    assert [cell.text for cell in parts.cells] == [QUOTED.replace(" { #a-page }", "").strip()]
    assert not parts.recipes


@pytest.mark.parametrize("line", [';--8<-- "a/b.py:one"', '> --8<-- "a/b.py:one"', '--8<-- "a/b.py:one" # x'])
def test_what_only_looks_like_an_include_is_none_and_told(line):
    text = f"````text\n{line}\n````\n"
    source = reader.scan(text, "docs/en/a.md")
    assert [mark.line for mark in source.misspelt] == [2]
    assert not source.includes
    assert not includes.written_in(text)
    assert includes.put(text, Page("en", "a.md")) == text
    assert reader.fences_of(text)[0].include is None


@pytest.mark.parametrize("line", ['!!! trap "a title', "???setup", "!!!"])
def test_what_only_looks_like_a_box_is_none_and_told(line):
    text = f"{line}\n\n    Text.\n"
    source = reader.scan(text, "docs/en/a.md")
    assert not source.boxes
    assert ["is no box" in mark.text for mark in source.unmarked] == [True]
    assert not [part for part in reader.blocks(text) if isinstance(part, reader.Box)]


def test_a_heading_without_an_id_is_one():
    """Under `mkdocs serve` it is a warning, so that writing is possible."""
    parts = notebooks.cells_of("# One { #first }\n\n```sh\n# a comment\n```\n\n## Two\n", "en")
    assert [cell.text for cell in parts.cells] == ["# One\n\n```sh\n# a comment\n```\n\n## Two"]


@pytest.mark.parametrize(
    "words", ["search: [a, b]\n", "search:\n  - a\n  - b\n", "search:\n- a\n", "search: [a,\n  b]\n"]
)
def test_what_the_search_finds_a_page_by_is_none_of_its_text(words):
    page = "---\ndescription: One.\n{}hide: [toc]\n---\n\n# A\n"
    assert reader.without_search_words(page.format(words)) == page.format("")
    assert reader.without_search_words("---\n" + words + "---\n\n# A { #a }\n") == "# A { #a }\n"


def test_a_link_is_one_outside_code_only():
    text = '[a](b.md#c) `[d](e.md)` [f](g_(h).md "a title")\n\n```text\n[i](j.md)\n```\n'
    assert [address for _, _, address in reader.links_in(text)] == ["b.md#c", "g_(h).md"]
    assert all(text[start:end] == address for start, end, address in reader.links_in(text))


MARKDOWN = re.compile(r"```|`\{3|8<|\\\$|!!!|\\\?\\\?\\\?|#\{1,6\}|\^# ")  # in the source of a pattern


def test_nobody_else_has_a_pattern_for_what_a_page_is_written_in():
    readers = {"builder/pages/reader.py", "builder/pages/includes.py"}
    others = {
        "builder/scripts/sections.py",
        "builder/finished/site.py",
    }  # of scripts; of what is left on a finished page
    found = {
        project.relative(path)
        for path in [*(project.ROOT / "builder").rglob("*.py"), project.ROOT / "mkdocs_adapter.py"]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(getattr(node.func, "value", None), "id", "") == "re"
        for part in ast.walk(node.args[0])
        if isinstance(part, ast.Constant) and MARKDOWN.search(str(part.value))
    }
    assert found == readers | others
