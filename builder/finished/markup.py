"""The markup of a finished page: classes for styles, names that are heard, lines that break well, explorers' modules."""

import ast
import functools
import itertools
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

from builder import project, words

if TYPE_CHECKING:
    from builder.pages.page import Page

# The only inline styles that our Markdown makes; the style sheet gives the classes their meaning.
STYLE_CLASSES = {
    "text-align:left": "align-left",
    "text-align:center": "align-center",
    "text-align:right": "align-right",
}
STYLED = re.compile(r"""<[a-zA-Z](?:[^>"']++|"[^"]*"|'[^']*')*+>""")
STYLE_ATTRIBUTE = re.compile(r'\s+style="([^"]*)"')
CLASS_ATTRIBUTE = re.compile(r'(\sclass=")([^"]*)"')


def with_classes(html: str) -> str:
    """Style attributes that STYLE_CLASSES knows become classes; others stay, and check_site tells them."""

    def rewrite(tag):
        style = STYLE_ATTRIBUTE.search(tag[0])
        if not style:
            return tag[0]
        declarations = [re.sub(r"\s+", "", part).lower() for part in style[1].split(";") if part.strip()]
        if not all(part in STYLE_CLASSES for part in declarations):
            return tag[0]
        names = " ".join(STYLE_CLASSES[part] for part in declarations)
        bare = tag[0][: style.start()] + tag[0][style.end() :]
        if CLASS_ATTRIBUTE.search(bare):
            return CLASS_ATTRIBUTE.sub(rf'\1\2 {names}"', bare, count=1)
        return re.sub(r"(\s*/?>)$", rf' class="{names}"\1', bare) if names else bare

    return STYLED.sub(rewrite, html) if "style=" in html else html


HEADING = re.compile(
    r'<h([1-6]) id="([^"]*)">(.*?)(<a class="headerlink" href="[^"]*" title=("[^"]*"))>#</a></h\1>', re.S
)
UNBROKEN = re.compile(r"<(pre|script|svg|math|title|textarea)\b.*?</\1\s*>|<[^>]*>", re.S)
BEFORE_STOP = re.compile(r"<code>(?=[^<]*</code>[、。，．：；）」』])")
REMARKS = re.compile(r'(<span class="c1">[^<]*\(\d+\)!?</span>(?:(?!</pre>).)*</pre></div>\s*)<ol>', re.S)
NUMBER = re.compile(r"\d[\d.]*e[-−+]?\d+|\d{4}-\d\d-\d\d")


def with_names(html: str) -> str:
    """Headings are called by their text alone; the link to a section, which stands in its heading, has a name of its own."""
    numbers = itertools.count(1)

    def named(found):
        name = f"n-{next(numbers)}"
        inside = f'<span id="{name}">{found[3]}</span>{found[4]} aria-label={found[5]}>#</a>'
        return f'<h{found[1]} id="{found[2]}" aria-labelledby="{name}">{inside}</h{found[1]}>'

    return HEADING.sub(named, html)


def with_tight_code(html: str) -> str:
    """Code right before a full-width mark, which brings its own space."""
    return BEFORE_STOP.sub('<code class="tight">', html)


def with_remarks(html: str) -> str:
    """The list below a block of code that points to its items, `# (1)!`: Material makes buttons of them."""
    return REMARKS.sub(r'\1<ol class="remarks">', html) if "<ol>" in html else html


def with_whole_numbers(html: str) -> str:
    """Numbers with a minus sign or a hyphen in them, 2e-05 or a date, are kept on one line."""
    start, parts = html.find("<article"), []
    for found in UNBROKEN.finditer(html, start):
        parts += [NUMBER.sub(r'<span class="whole">\g<0></span>', html[start : found.start()]), found[0]]
        start = found.end()
    return html[: html.find("<article")] + "".join(parts) + html[start:] if parts else html


def explorers() -> list[str]:
    """The names of our custom elements: each is a module docs/shared/explorers/NAME.js, or a recipe's SCRIPT."""
    files = (project.DOCS / "shared" / "explorers").glob("*-*.js")
    return sorted([*(path.stem for path in files), *explorers_of_recipes()])


def explorers_of_recipes() -> dict[str, str]:
    """{name: module} of elements that a recipe writes into files of its own: head_view.py's <head-view> is the site's, too."""
    recipes = sorted((project.SNIPPETS / "recipes").glob("*.py"))
    scripts = ((path.stem.replace("_", "-"), _script(path, path.stat().st_mtime_ns)) for path in recipes)
    return {name: script for name, script in scripts if script is not None}


@functools.lru_cache(maxsize=1024)
def _script(recipe, changed):
    """The SCRIPT of a recipe, if it has one, read again only if the file has changed: each page asks several times."""
    source = recipe.read_text(encoding="utf-8")
    if "\nSCRIPT = " not in source:
        return None
    values = (node for node in ast.parse(source).body if isinstance(node, ast.Assign))
    return next(ast.literal_eval(node.value) for node in values if ast.unparse(node.targets[0]) == "SCRIPT").lstrip()


def with_words(html: str, name: str, language: str) -> str:
    """The element of an explorer with its words in the page's language, from docs/words.yml."""
    said = escape(words.of_explorer(name, language))
    return (
        re.sub(rf"<{re.escape(name)}(?=[\s>])", rf'<{name} data-words="{said}"'.replace("\\", r"\\"), html)
        if said
        else html
    )


def with_explorers(html: str, language: str, address: Callable[[str], str]) -> str:
    """Load the module of each explorer that stands on the page; address(name) is its URL as seen from there."""
    present = [name for name in explorers() if re.search(rf"<{re.escape(name)}[\s>]", html)]
    if not present:
        return html
    for name in present:
        html = with_words(html, name, language)
    scripts = "".join(f'<script type="module" src="{address(name)}"></script>' for name in present)
    end = html.rfind("</article>")
    end = end if end >= 0 else html.rfind("</body>")
    return html[:end] + scripts + html[end:] if end >= 0 else html + scripts


def put(html: str, page: "Page") -> str:
    """The finished page with all of it."""
    html = with_explorers(html, page.language, lambda name: page.link(f"explorers/{name}.js"))
    return with_whole_numbers(with_remarks(with_tight_code(with_names(with_classes(html)))))
