"""The reader's way: under a title how long the page takes and what it builds on, at its end where to go next.

docs/journey.yml says for each page what it `needs`, which page comes `next`, and which `exercise` belongs to it; the first page
of a chapter shows all this as a map, where an empty fence `journey` stands. Minutes are counted here: words at a reader's
pace, lines of code and figures at a slower one, without what is folded. `[a page](…){ .minutes }` says them of another.
"""

import functools
import html
import math
import posixpath
import re
from collections.abc import Iterable, Iterator

from builder import project, words
from builder.pages import reader
from builder.pages.page import Page
from builder.project import Fault

KINDS = {"needs", "next", "exercise"}
WITHOUT = ("index", "about", "reference/")  # from these a reader goes anywhere
# what one who learns it takes in in a minute; an exercise is five
PACE = {"words": 200, "letters": 500, "lines": 30, "figures": 4, "formulas": 6, "exercises": 0.2}
JAPANESE = re.compile(r"[぀-ヿ一-鿿]")
FOLD, UNFOLD = re.compile(r"<details\b"), re.compile(r"</details>")
NUMBERED = re.compile(r"\d+\. ")  # an exercise
TIMED = re.compile(r'<a class="minutes" href="([^"]*)">.*?</a>')
WORD = re.compile(r"[A-Za-z]{2,}")


@functools.cache
def _loaded(text: str) -> dict[str, dict]:
    return {page: way or {} for page, way in (words.yaml_of(text) or {}).items()}


def ways() -> dict[str, dict]:
    """{page without .md: {"needs": [...], "next": ..., "exercise": ...}}; nothing where a project says nothing."""
    file = project.DOCS / "journey.yml"
    return _loaded(file.read_text("utf-8")) if file.is_file() else {}


def minutes(language: str, page: str) -> int:
    """How long a page takes, of whose file only that is counted which is open to see; an exercise takes its time."""
    return _minutes(reader.read(language, f"{page}.md"), page.startswith("practice/"))


def _minutes(source: reader.Source, practice: bool) -> int:
    counted, folded, prose = dict.fromkeys(PACE, 0), 0, source.prose.split("\n")
    counted["formulas"] = len(source.displayed)
    waiting = reader.blocks(source.text)[::-1]
    while waiting:
        block = waiting.pop()
        if isinstance(block, reader.Line):
            folded += len(FOLD.findall(block.text)) - len(UNFOLD.findall(block.text))
        if folded:
            continue
        if isinstance(block, reader.Box) and not block.folded:
            waiting += block.inside[::-1]
        elif isinstance(block, reader.Fence) and block.figure:
            counted["figures"] += 1
        elif isinstance(block, reader.Fence) and block.include:
            counted["lines"] += block.include.text.count("\n") + 1
        elif isinstance(block, reader.Heading | reader.Line) and not block.text.startswith("|"):  # a table is looked up
            counted["exercises"] += practice and isinstance(block, reader.Heading) and bool(NUMBERED.match(block.text))
            counted["letters"] += len(JAPANESE.findall(prose[block.line - 1]))
            counted["words"] += len(WORD.findall(prose[block.line - 1]))
    return max(2, math.ceil(sum(number / PACE[kind] for kind, number in counted.items())))


def _lead(page: Page, other: str) -> str:
    """A link to another page, by its title."""
    address = page.link(project.address_of(f"{other}.md"))
    return f'<a href="{address}">{html.escape(_title(page.language, other) or other)}</a>'


def _leads(page: Page, others: Iterable[str | None]) -> str:
    """Links to those of some pages that this language has."""
    join = words.of("journey", page.language)["join"]
    return join.join(_lead(page, other) for other in others if other and _title(page.language, other))


def put(content: str, page: Page) -> str:
    """A page's text with the line under its title, the one at its end, and the minutes of links that ask for them."""
    name, said = page.name.removesuffix(".md"), words.of("journey", page.language)
    content = TIMED.sub(lambda link: link[0] + _timed(link[1], page), content)
    way = ways().get(name)
    if way is None:
        return content
    needs = _leads(page, way.get("needs", ()))
    first = _time(name, page.language) + (said["needs"].format(pages=needs) if needs else "")
    exercises = (ways()[one].get("exercise") for one in [name, *chapter_of(name, page.language)])
    ends = {"next": [way.get("next")], "exercise": dict.fromkeys(exercises)}
    last = [said[kind].format(page=leads) for kind, others in ends.items() if (leads := _leads(page, others))]
    content = content.replace("</h1>", f'</h1>\n<p class="page-way">{first}</p>', 1)
    return content + (f'\n<p class="page-next">{"<br>".join(last)}</p>' if last else "")


def _led(address: str, folder: str) -> str | None:
    """The page that an address in a folder leads to, as the ways name it; None where they do not."""
    way = posixpath.normpath(posixpath.join(folder, address.partition("#")[0])).removesuffix(".md")
    return next((one for one in (way, f"{way}/index") if one in ways()), None)


def _timed(address: str, page: Page) -> str:
    if led := _led(address, page.url):
        return _aside(led, page.language)
    page.fault(f"{address} has no minutes: it is no page of docs/journey.yml")
    return ""


def _time(page: str, language: str, kind: str = "minutes") -> str:
    """How long a page takes, or a chapter, of its first page."""
    said, chapter = words.of("journey", language), chapter_of(page, language)
    if not chapter:
        return said[kind].format(n=minutes(language, page))
    return said["chapter"].format(pages=len(chapter), n=sum(minutes(language, one) for one in chapter))


def _aside(page: str, language: str) -> str:
    """The same behind a link."""
    return f' <span class="minutes">{_time(page, language, "short")}</span>'


def said(page: Page) -> str:
    """What `put` adds, of which the rest of the page knows nothing: titles and minutes of other pages."""
    links = reader.links_in(page.source)
    asked = [address for _, end, address in links if page.source.startswith("){ .minutes }", end)]
    folder = posixpath.dirname(page.name)  # links of the Markdown start there
    return put("</h1>", page) + "".join(_time(led, page.language) for link in asked if (led := _led(link, folder)))


# ---------------------------------------------------------------- the map of a chapter


def chapter_of(page: str, language: str) -> list[str]:
    """The pages of the chapter whose first page this is that a language has, in order; none for any other page."""
    folder, _, name = page.rpartition("/")
    within = [one for one in ways() if one.startswith(f"{folder}/") and one != page]
    return [one for one in within if _title(language, one)] if folder and name == "index" else []


def _title(language: str, page: str) -> str | None:
    """None where a language has no such page: only the first two need to have them all."""
    return reader.page_title(language, f"{page}.md")


def put_map(markdown: str, page: Page) -> str:
    """The first page of a chapter with its map."""
    return reader.replaced(markdown, page, lambda fence: drawn(page) if fence.language == "journey" else None)


def drawn(page: Page) -> str:
    """The map of a chapter: a line of pages that build on each other, and beside a page what else builds on it."""
    pages = chapter_of(page.name.removesuffix(".md"), page.language)
    below: dict[str, list[str]] = {one: [] for one in pages}
    above: dict[str, str] = {}
    for one in pages:
        within = [other for other in ways()[one].get("needs", ()) if other in below]
        if within:
            above[one] = max(within, key=lambda other: len(_before(other, ways())))
            below[above[one]].append(one)
    drawn = _line([one for one in pages if one not in above], below, above, page)
    return drawn.replace("<ol", "<ol data-search-exclude", 1)  # the pages themselves are found


def _line(starts: list[str], below: dict[str, list[str]], above: dict[str, str], page: Page) -> str:
    """The pages from each start on as a list, those that branch off as lists inside."""
    items = []
    for start in starts:
        one: str | None = start
        while one:
            following = sorted(below[one], key=lambda other: (-_size(other, below), other != ways()[one].get("next")))
            straight = following[0] if 0 < len(following) < 3 else None
            beside = [other for other in below[one] if other != straight]
            items.append(f"<li>{_stop(one, below, above, page)}{_line(beside, below, above, page)}</li>")
            one = straight
    return f'<ol class="page-map no-terms">{"".join(items)}</ol>' if items else ""


def _size(page: str, below: dict[str, list[str]]) -> int:
    return 1 + sum(_size(other, below) for other in below[page])


def _stop(one: str, below: dict[str, list[str]], above: dict[str, str], page: Page) -> str:
    """A page on the map: its title, its minutes, what it is about, and what else of the chapter it builds on."""
    said = words.of("journey", page.language)
    source = project.DOCS.joinpath(page.language, f"{one}.md").read_text("utf-8")
    about = html.escape(reader.front_matter(source).get("description", ""))
    needs = (other for other in ways()[one].get("needs", ()) if other in below and other != above.get(one))
    others = _leads(page, needs)
    also = said["also"].format(pages=others) if others else ""
    return f"{_lead(page, one)}{_aside(one, page.language)}<p>{about}{also}</p>"


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
            if isinstance(others, list) != (kind == "needs"):
                yield Fault(
                    file, 0, f"{page}: {kind} is {'a list of pages' if kind == 'needs' else 'one page'}, not {others!r}"
                )
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
