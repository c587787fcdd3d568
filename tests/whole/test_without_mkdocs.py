"""Pages outlive MkDocs: two of them built by `python -m builder` and Python-Markdown alone."""

import html
import re
import subprocess
import sys

import html5lib
import markdown
import pytest
import shared_site

from builder import project
from builder.dialect import Dialect

HEAD = '<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8"><title>bare</title></head>'
EXTENSIONS = [
    "admonition",
    "attr_list",
    "md_in_html",
    "tables",
    "pymdownx.details",
    "pymdownx.highlight",
    "pymdownx.superfences",
]
PAGES = ["en/layouts/rosetta", "ja/masks/causal"]


def step(act, page, text=""):
    done = subprocess.run(
        [sys.executable, "-m", "builder", act, page],
        cwd=project.ROOT,
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=PAGES)
def bare(request):
    """(page, its Markdown, the page that is published): what MkDocs and Material would add is not there."""
    shared_site.built()  # its scripts have run
    page = request.param
    source = step("before", page)
    text = step("content", page, markdown.markdown(source, extensions=[*EXTENSIONS, Dialect()]))
    whole = f"{HEAD.format(language=page[:2])}<body><main><article>{text}</article></main></body></html>"
    return page, source, step("after", page, whole)


def test_figures_values_formulas_and_claims_are_in_place(bare):
    page, source, made = bare
    built = (shared_site.SITE / page / "index.html").read_text("utf-8")

    def both(pattern):
        return [re.findall(pattern, text, re.S) for text in (made, built)]

    for pattern in (
        r'<figure class="figure [\w -]+" id="([^"]+)"',
        r'<svg class="figure__svg[^>]*>.*?</svg>',
        r'data-tex="([^"]*)"',
        r'<a[^>]* href="[^"]*reference/claims(?:\.md|/)#[\w-]+">([^<]*)</a>',
        r'class="page-tools"',
    ):
        ours, theirs = both(pattern)
        assert ours
        assert ours == theirs, pattern
    assert "{{" not in source
    assert "8<--" not in source
    assert "<!-- claim" not in source
    assert "arithmatex" not in made
    assert "Content-Security-Policy" in made
    html5lib.HTMLParser(namespaceHTMLElements=False).parse(made)


def test_code_is_that_of_the_scripts(bare):
    page, _, made = bare
    folder = shared_site.SITE / page
    built = (folder / "index.html").read_text("utf-8")
    fetched = [
        f"<pre>{html.escape((folder / address).read_text('utf-8'))}</pre>"
        for address in re.findall(r'<a href="([^"]*)" data-fetched>', built)
    ]
    built += "".join(fetched)

    def words(text):
        blocks = map(html.unescape, re.findall(r"<pre\b.*?</pre>", text, re.S))
        return [" ".join(re.sub(r"<[^>]*>", "", block).split()) for block in blocks]

    assert len(words(made)) > 5
    assert set(words(made)) <= set(words(built))


def test_nothing_of_it_has_imported_mkdocs():
    code = "import sys, builder.__main__ as b; b.main(['before', 'en/layouts/rosetta']); sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project.ROOT, capture_output=True, text=True)
    assert "builder.order" in done.stderr
    assert not re.search(r"\bmkdocs", done.stderr)
    for path in (project.ROOT / "builder").rglob("*.py"):
        assert not re.search(r"^\s*(?:import|from) mkdocs", path.read_text("utf-8"), re.M), path
