"""The reader's way: under a title how long the page takes and what it builds on, at its end where to go next.

docs/journey.yml says for each page what it `needs`, which page comes `next`, and which `exercise` belongs to it. Minutes are
counted here: words at a reader's pace, lines of code and figures at a slower one, without what is folded.
"""

import functools
import html
import math
import re
from collections.abc import Iterator

import yaml

from builder import project, words
from builder.pages import reader
from builder.pages.page import Page
from builder.project import Fault

KINDS = {"needs", "next", "exercise"}
WITHOUT = ("index", "about", "reference/")  # from these a reader goes anywhere
PACE = {"words": 240, "letters": 600, "lines": 40, "figures": 5}  # a minute
JAPANESE = re.compile(r"[぀-ヿ一-鿿]")
FOLDED = re.compile(r"<details\b(?:(?!<details\b).)*?</details>", re.S)
CODE = re.compile(r"<pre\b.*?</pre>", re.S)
UNREAD = re.compile(r"<svg\b.*?</svg>|<(?:table|style|script)\b.*?</(?:table|style|script)>|<[^>]+>", re.S)


@functools.cache
def _loaded(text: str) -> dict[str, dict]:
    return yaml.safe_load(text) or {}


def ways() -> dict[str, dict]:
    """{page without .md: {"needs": [...], "next": ..., "exercise": ...}}; nothing where a project says nothing."""
    file = project.DOCS / "journey.yml"
    return _loaded(file.read_text("utf-8")) if file.is_file() else {}


def minutes(content: str) -> int:
    """How long a page takes, from its HTML."""
    while FOLDED.search(content):  # from the innermost outwards
        content = FOLDED.sub("", content)
    lines = sum(block.count("\n") + 1 for block in CODE.findall(content))
    text = html.unescape(UNREAD.sub(" ", CODE.sub("", content)))
    letters = len(JAPANESE.findall(text))
    rest = len(re.findall(r"[A-Za-z]{2,}", text))
    time = (
        rest / PACE["words"]
        + letters / PACE["letters"]
        + lines / PACE["lines"]
        + content.count("<figure") / PACE["figures"]
    )
    return max(2, math.ceil(time))


def _lead(page: Page, other: str) -> str:
    """A link to another page, by its title."""
    title = reader.page_title(page.language, f"{other}.md") or other
    return f'<a href="{page.link(project.address_of(f"{other}.md"))}">{html.escape(title)}</a>'


def put(content: str, page: Page) -> str:
    """A page's text with the line under its title and the one at its end."""
    way = ways().get(page.name.removesuffix(".md"))
    if way is None:
        return content
    said = words.of("journey", page.language)
    needs = said["join"].join(_lead(page, other) for other in way.get("needs", ()))
    first = said["minutes"].format(n=minutes(content)) + (said["needs"].format(pages=needs) if needs else "")
    last = []
    if other := way.get("next"):
        last.append(said["next"].format(page=_lead(page, other)))
    if other := way.get("exercise"):
        last.append(said["exercise"].format(page=_lead(page, other)))
    content = content.replace("</h1>", f'</h1>\n<p class="page-way">{first}</p>', 1)
    return content + (f'\n<p class="page-next">{"<br>".join(last)}</p>' if last else "")


def said(page: Page) -> str:
    """What `put` adds, of which the rest of the page knows nothing: the titles of other pages."""
    return put("</h1>", page)


def faults() -> Iterator[Fault]:
    """Pages that are not there, a page that has no way, and a page that builds on itself."""
    found, file = ways(), "docs/journey.yml"
    if not found:
        return
    pages = {path.with_suffix("").as_posix() for path in project.page_files(project.COMPLETE[0])}
    for page, way in found.items():
        if page not in pages:
            yield Fault(file, 0, f"{page!r} is no page")
            continue
        for kind, others in way.items():
            if kind not in KINDS:
                yield Fault(file, 0, f"{page}: {kind!r} is none of {', '.join(sorted(KINDS))}")
                continue
            for other in others if isinstance(others, list) else [others]:
                if other not in pages:
                    yield Fault(file, 0, f"{page}: {kind} {other!r} is no page")
                elif other == page:
                    yield Fault(file, 0, f"{page}: it cannot be its own {kind}")
    for page in sorted(pages - found.keys()):
        if not page.startswith(WITHOUT):
            yield Fault(file, 0, f"{page} is not there: say what it needs and where its reader goes next")
    for page in found:
        if page in _before(page, found):
            yield Fault(file, 0, f"{page} needs, in the end, itself")


def _before(page: str, found: dict[str, dict]) -> set[str]:
    """All pages that a page builds on, and those that they build on."""
    seen: set[str] = set()
    waiting = list(found[page].get("needs", ()))
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += found.get(one, {}).get("needs", ())
    return seen
