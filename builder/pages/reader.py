"""The one reader of a page's Markdown: its blocks, includes, boxes, values, formulas, prose, each with its line.

    scan(text, file)        what a page holds, for who checks it
    blocks(text)            the page taken apart: fences, headings, boxes, lines, for who makes something else of it
    replaced(markdown, …)   the page with something else in the place of its fences
    formulas_in, links_in   where they stand, outside code

Nobody else has a pattern for what a page is written in, but to find the line of a fault: tests/pages/test_reader.py.
"""

import functools
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from builder import project, words
from builder.pages import includes, marks, values
from builder.pages.includes import Include
from builder.pages.page import Page

# Stands in for text that is not prose (code, formulas, addresses): no letter, no digit and no space, so that
# neither a word nor the half-width spaces beside it change their neighbours.
MASK = "\ue000"
FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})(.*)$")
HEADING = re.compile(r"^[ ]{0,12}(#{1,6})[ \t]+(.*?)[ \t]*$")
HEADING_ID = re.compile(r"[ \t]*\{[^}]*#([\w.:-]+)[^}]*\}$")
SETEXT = re.compile(r"^(?:=+|-{3,})[ \t]*$")
BOX = re.compile(r'^[ \t]*(?:!!!|\?\?\?\+?)[ \t]+([\w-]+)(?:[ \t]+"(.*)")?[ \t]*$')
ALMOST_BOX = re.compile(r"^[ \t]*(?:!!!|\?\?\?)")
# an element around Markdown: `<div class="twins" markdown>`, `</div>`, `</rosetta-map>`
WRAPPER = re.compile(r"^[ \t]*(?:</?[a-z][\w-]*(?: [^>]*)?\bmarkdown\b[^>]*>|</(?:div|[a-z]+-[a-z-]+)>)$")
FRONT_MATTER = re.compile(r"\A---\n.*?\n---[ \t]*\n", re.S)
# a list on one line or on several, and not `search: {exclude: true}`
SEARCH_WORDS = re.compile(r"^search:(?: \[.*\n(?:[ \t].*\n)*|\n(?:[ \t]*- .*\n)+)", re.M)
COMMENT = re.compile(r"<!--.*?-->", re.S)
INLINE_CODE = re.compile(r"(?<![`\\])(`+)(?!`)((?:(?!\n[ \t]*\n).)+?)(?<!`)\1(?!`)", re.S)
DISPLAYED = re.compile(r"(?<!\\)\$\$(.+?)\$\$", re.S)
INLINE_FORMULA = re.compile(r"(?<!\\)\$(?!\s)((?:\\.|[^\\$\n]|\n(?![ \t]*\n))+?)(?<!\s)\$", re.S)  # in one paragraph
ALMOST_VALUE = re.compile(rf"(?!{values.VALUE.pattern}|{values.CHOICE.pattern})\{{\{{[^\n{{}}]*\}}*")
EXPLORER = re.compile(r"<([a-z][a-z0-9]*-[a-z0-9-]+)(?=[\s>/])")
ADDRESS = re.compile(
    r"(?<=\])\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*"  # of a link, but not its title
    r"|^[ \t]*\[[^\]]+\]:.*$|https?://[^\s)>\]、。」]+|<[a-zA-Z/!][^<>]*>",
    re.M,
)
ATTRIBUTES = re.compile(r"\{:?[ \t]*[#.][^}\n]*\}")
LINK = re.compile(r"\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)")  # the address, up to the title if there is one
SEEMS_PYTHON = re.compile(r"^\s*\{?\s*\.?(?:python\d*|py\d*|ipython\d*|pycon\d*)(?![\w-])", re.I)
ALMOST_INCLUDE = re.compile(r"[-–—]+[ \t]*8[ \t]*<|8<-|8&lt;-")


class Mark(NamedTuple):
    """Something on a page that its twin must have too."""

    line: int
    text: str


@dataclass
class Fence:
    line: int  # of the opening backticks
    opening: str  # "```" or "~~~" and what follows, without indentation
    body: list[str]
    indent: str = ""
    end: int = 0  # the line of the closing backticks, or the page's last
    listed: int = 0  # items of the ordered list that follows: what its annotations say
    listed_end: int = 0  # the last line of that list; `end` where there is none
    closed: bool = True

    @property
    def info(self) -> str:
        """What is written behind the opening backticks."""
        return self.opening.lstrip("`~")

    @property
    def ticks(self) -> str:
        """The backticks or tildes that open it."""
        return self.opening[: len(self.opening) - len(self.info)]

    @property
    def text(self) -> str:
        """What stands in it, without the fence's own indentation."""
        return "\n".join(line.removeprefix(self.indent) for line in self.body)

    @property
    def language(self) -> str:
        """The first word behind the backticks; empty where there is none."""
        return (self.info.split() or [""])[0]

    @cached_property
    def includes(self) -> list[Mark]:
        """(line, target) of each include in the fence."""
        found = ((number, includes.LINE.match(line)) for number, line in enumerate(self.body, self.line + 1))
        return [Mark(number, match["target"]) for number, match in found if match]

    @property
    def include(self) -> Include | None:
        """What its first include names."""
        return next((include for mark in self.includes if (include := Include.of(mark.text))), None)

    @property
    def figure(self) -> str:
        """The name of the figure that is drawn in its place; empty where it is no figure's."""
        return self.info.strip().removeprefix("figure").strip() if self.language == "figure" else ""

    @property
    def seems_python(self) -> bool:
        """Whether somebody may have meant Python by it, however it is spelt."""
        return bool(SEEMS_PYTHON.match(self.info))


@dataclass
class Heading:
    line: int
    indent: str
    level: int
    text: str  # as it is written, without its id
    identity: str  # empty where it has none


@dataclass
class Box:
    line: int
    kind: str  # trap
    title: str
    end: int  # its last line
    inside: list["Block"]
    folded: bool = False  # ??? and not !!!


@dataclass
class Line:
    """A line that is none of the others: of a paragraph, a list, a table, or an empty one."""

    line: int
    text: str
    wraps: bool  # it opens or closes an element that holds Markdown


Block = Fence | Heading | Box | Line


@dataclass
class Source:
    """What a page's Markdown holds, each thing with its line; `prose` is its sentences alone, line for line."""

    file: str  # docs/ja/layouts/rosetta.md
    text: str = ""  # as it is written
    headings: list[Mark] = field(default_factory=list)
    unmarked: list[Mark] = field(default_factory=list)  # headings without an id, or not written with #
    includes: list[Mark] = field(default_factory=list)
    misspelt: list[Mark] = field(default_factory=list)
    displayed: list[Mark] = field(default_factory=list)
    inline: list[tuple[str, Mark]] = field(default_factory=list)  # id of the section, formula
    values: list[Mark] = field(default_factory=list)
    misvalued: list[Mark] = field(default_factory=list)
    explorers: list[Mark] = field(default_factory=list)
    boxes: list[Mark] = field(default_factory=list)
    fences: list[Fence] = field(default_factory=list)
    labels: list[Mark] = field(default_factory=list)  # lines that are shown elsewhere: front matter, titles of code
    prose: str = ""
    bare: str = ""  # its text without front matter, comments, fences, code and formulas, line for line
    marked: dict = field(default_factory=dict)  # (section, kind, name) of each mark: its line

    @property
    def figures(self) -> list[Mark]:
        """The name of each figure that it draws."""
        return [Mark(fence.line, fence.figure) for fence in self.fences if fence.figure]

    @property
    def blocks(self) -> list[Mark]:
        """The language of each fence that is no figure's."""
        return [
            Mark(fence.line, fence.language or "no language") for fence in self.fences if fence.language != "figure"
        ]

    @property
    def annotations(self) -> list[Mark]:
        """For each block of Python how many items the list under it has."""
        return [Mark(fence.line, str(fence.listed)) for fence in self.fences if fence.language == "python"]


def _blank(match):
    return re.sub(r"[^\n]", "", match[0])


def _mask(match):
    return re.sub(r"[^\n]", MASK, match[0])


def _mask_inside(match):
    return match[1] + re.sub(r"[^\n]", MASK, match[2]) + match[1]


def _chosen(match):
    """Both wordings of a choice are prose."""
    return marks.FILLED + "".join(
        char if match.start(2) <= place < match.end(2) or match.start(3) <= place < match.end(3) else MASK
        for place, char in enumerate(match[0][1:], match.start() + 1)
    )


def line_of(text: str, position: int) -> int:
    """The number of the line that holds a position, from 1."""
    return text.count("\n", 0, position) + 1


def _listed_after(lines, start, indent):
    """The ordered list that follows line number `start` (from 0) at this indentation: its items, and its last line (from 1)."""
    count, end = 0, start
    for number, line in enumerate(lines[start:], start + 1):
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if depth == indent and re.match(r"\d+\.[ \t]", line.lstrip()):
            count += 1
        elif not (count and depth > indent):
            break
        end = number
    return count, end


def fences_of(text: str) -> list[Fence]:
    """Every fence of a page's Markdown; what is fenced in another fence is its text."""
    return _fences(text.split("\n"))[0]


def outside_fences(text: str) -> str:
    """A text line for line, its fences empty."""
    return "\n".join(_fences(text.split("\n"))[1])


def _fences(lines):
    """The fences of a page, and its lines with every line of a fence blanked."""
    fences, outside, number = [], list(lines), 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if not opening or (opening[2][0] == "`" and "`" in opening[3]):
            number += 1
            continue
        indent, ticks = opening[1], opening[2]
        end = number + 1
        closing = re.compile(rf"^[ \t]*{ticks[0]}{{{len(ticks)},}}[ \t]*$")
        while end < len(lines) and not closing.match(lines[end]):
            end += 1
        body, after = lines[number + 1 : end], min(end + 1, len(lines))
        listed, listed_end = _listed_after(lines, after, len(indent))
        written = (ticks + opening[3]).rstrip()
        fences.append(Fence(number + 1, written, body, indent, after, listed, listed_end, closed=end < len(lines)))
        outside[number:after] = [""] * (after - number)
        number = after
    return fences, outside


def _masked(whole):
    """Text outside fences (comments masked), line for line: without front matter and what is code in it, and without formulas."""
    bare = INLINE_CODE.sub(_mask_inside, FRONT_MATTER.sub(_blank, whole))
    return bare, DISPLAYED.sub(_mask, bare)


def _formulas(coded):
    """The formulas of a text whose code and comments are masked: what holds some of either is none."""
    found = [(match.start(), match.end(), True, match[1]) for match in DISPLAYED.finditer(coded)]
    text = DISPLAYED.sub(_mask, coded)
    found += [(match.start(), match.end(), False, match[1]) for match in INLINE_FORMULA.finditer(text)]
    return sorted(formula for formula in found if MASK not in formula[3])


def _heading(number, line, masked):
    """The heading that a line is, or None; `masked` is the same line without code, comments and formulas."""
    found = HEADING.match(line) if HEADING.match(masked) else None
    if not found:
        return None
    name = HEADING_ID.search(found[2])
    indent = line[: len(line) - len(line.lstrip())]
    return Heading(number, indent, len(found[1]), HEADING_ID.sub("", found[2]), name[1] if name else "")


@functools.lru_cache(maxsize=512)  # of pages that did not change, under serve
def scan(text: str, file: str) -> Source:
    """Read one page's Markdown. Nothing is expanded: what is written is what is compared."""
    text = text.replace("\r\n", "\n")
    source = Source(file, text)
    lines = text.split("\n")
    source.fences, outside = _fences(lines)
    whole = COMMENT.sub(_mask, "\n".join(outside))
    front = FRONT_MATTER.match(whole)
    source.labels = [Mark(number, line) for number, line in enumerate(front[0].split("\n") if front else (), 1)]
    source.labels += [Mark(fence.line, fence.info) for fence in source.fences]
    coded, bare = _masked(whole)
    source.bare = INLINE_FORMULA.sub(_mask, bare)

    sections = []
    for number, (line, original) in enumerate(zip(bare.split("\n"), outside, strict=True), 1):
        if heading := _heading(number, original, line):
            if section := heading.identity:
                source.headings.append(Mark(number, f"{'#' * heading.level} {{ #{section} }}"))
                sections.append((number, section))
            else:
                source.unmarked.append(
                    Mark(
                        number,
                        f"`{original.strip()}` has no id: end the line with "
                        "`{ #an-english-id }`, the same in both languages",
                    )
                )
            if INLINE_FORMULA.search(line):
                source.unmarked.append(Mark(number, "a formula stands in a heading: say it in words"))
        elif SETEXT.match(line) and number > 1 and bare.split("\n")[number - 2].strip(MASK + " \t"):
            source.unmarked.append(
                Mark(
                    number,
                    "a line of = or - makes the line above a heading: "
                    "write `## … { #id }`, or leave a blank line before a rule",
                )
            )
        if box := BOX.match(line):
            source.boxes.append(Mark(number, box[1]))
        elif ALMOST_BOX.match(line):
            told = f'`{original.strip()}` is no box: write `!!! trap "a title"` or `??? setup "a title"`, its text indented by four'
            source.unmarked.append(Mark(number, told))
        if include := includes.LINE.match(line):
            source.includes.append(Mark(number, include["target"]))
        elif ALMOST_INCLUDE.search(line):
            source.misspelt.append(Mark(number, line.strip()))

    for position, _, displayed, tex in _formulas(coded):
        mark = Mark(line_of(bare, position), " ".join(tex.split()))
        if displayed:
            source.displayed.append(mark)
        else:
            within = [name for line, name in sections if line <= mark.line]
            source.inline.append((within[-1] if within else "", mark))

    for fence in source.fences:
        for number, line in enumerate(fence.body, fence.line + 1):
            if include := includes.LINE.match(line):
                source.includes.append(Mark(number, include["target"]))
            elif ALMOST_INCLUDE.search(line):
                source.misspelt.append(Mark(number, line.strip()))
    source.includes.sort()
    source.misspelt.sort()

    written = list(outside)
    for fence in source.fences:
        if fence.language == "figure":
            written[fence.line : fence.line + len(fence.body)] = fence.body
    told = COMMENT.sub(_mask, marks.flagged(FRONT_MATTER.sub(_blank, "\n".join(written))))
    source.values = [
        Mark(line_of(told, match.start()), match[1] + "?" * (pattern is values.CHOICE))
        for pattern in (values.VALUE, values.CHOICE)
        for match in pattern.finditer(told)
    ]
    source.marked = marks.by_section("\n".join(written), sections)
    source.explorers = [Mark(line_of(bare, match.start()), match[1]) for match in EXPLORER.finditer(bare)]
    told = INLINE_CODE.sub(_mask_inside, told)
    without_formulas = INLINE_FORMULA.sub(_mask, DISPLAYED.sub(_mask, told))
    source.misvalued = [
        Mark(line_of(told, match.start()), match[0]) for match in ALMOST_VALUE.finditer(without_formulas)
    ]
    told = values.CHOICE.sub(_chosen, told)
    told = values.VALUE.sub(lambda match: marks.FILLED + MASK * (len(match[0]) - 1), told)
    for pattern in (DISPLAYED, INLINE_FORMULA, ATTRIBUTES, ADDRESS):
        told = pattern.sub(_mask, told)
    source.prose = told
    return source


def read(language: str, page: str) -> Source:
    """Read the file of a page. Raises OSError where there is none."""
    path = project.DOCS / language / page
    return scan(path.read_text("utf-8"), project.relative(path))


def front_matter(text: str) -> dict:
    """The front matter of a page's Markdown as a dict; empty where there is none."""
    head = FRONT_MATTER.match(text.lstrip("\ufeff"))
    return dict(_loaded(head[0]) or {}) if head else {}


@functools.lru_cache(maxsize=512)
def _loaded(head):
    return words.yaml_of(head.strip().strip("-"))


def without_front_matter(text: str) -> str:
    """A page's Markdown below its front matter."""
    return FRONT_MATTER.sub("", text.lstrip("\ufeff"))


def blocks(text: str) -> list[Block]:
    """A page's Markdown taken apart: its fences, headings and boxes (with what is inside them), and every other line, in order."""
    lines = FRONT_MATTER.sub(_blank, text.replace("\r\n", "\n")).split("\n")
    fences, outside = _fences(lines)
    masked = _masked(COMMENT.sub(_mask, "\n".join(outside)))[1].split("\n")
    return list(_blocks(lines, masked, {fence.line: fence for fence in fences}, range(1, len(lines) + 1), 0))


def _blocks(lines, masked, fences, numbers, depth):
    """The blocks of the lines with these numbers, which are indented by `depth`."""
    number = numbers.start
    while number < numbers.stop:
        line = lines[number - 1][depth:]
        end = number
        if number in fences:
            fence = fences[number]
            fence.indent = fence.indent[depth:]
            fence.body = [text[depth:] for text in fence.body]
            yield fence
            end = fence.end
        elif box := BOX.match(masked[number - 1]) and BOX.match(lines[number - 1]):
            inner = depth + len(line) - len(line.lstrip()) + 4
            while end < numbers.stop - 1 and not lines[end][:inner].strip():
                end += 1
            inside = _blocks(lines, masked, fences, range(number + 1, end + 1), inner)
            folded = re.match(r"\?{3}(?!\+)", line.lstrip()) is not None
            yield Box(number, box[1], box[2] or "", end, list(inside), folded)
        elif heading := _heading(number, line, masked[number - 1][depth:]):
            yield heading
        else:
            yield Line(number, line, bool(WRAPPER.match(masked[number - 1])))
        number = end + 1


def without_search_words(text: str) -> str:
    """A page's file without what its front matter says that the search finds it by, on one line or on several."""
    head = FRONT_MATTER.match(text)
    if not head:
        return text
    return (SEARCH_WORDS.sub("", head[0]) + text[head.end() :]).removeprefix("---\n---\n\n")


@functools.lru_cache(maxsize=512)
def title(text: str) -> str | None:
    """What a page is called: its first heading of the first level, without its id."""
    return next((part.text for part in blocks(text) if isinstance(part, Heading) and part.level == 1), None)


def page_title(language: str, page: str) -> str | None:
    """The title of a page, without its id; None when there is no such page."""
    path = project.DOCS / language / page
    return title(path.read_text("utf-8")) if path.is_file() else None


def _figures_in_file(page):
    for fence in fences_of(page.source):
        if fence.language == "figure":
            yield fence.line


def replaced(markdown: str, page: Page, make: Callable[[Fence], str | None]) -> str:
    """A page with what `make` gives in the place of each fence, between empty lines; None leaves the fence.

    Lines of figures are told as they stand in the file: what went before has changed as much above the text as below.
    """
    lines, written = markdown.split("\n"), _figures_in_file(page)
    edits = []
    for fence in fences_of(markdown):
        first, last = fence.line - 1, fence.end
        if fence.language == "figure":
            fence.line = next(written, 0)
        made = make(fence)
        if made is not None:
            edits.append((first, last, textwrap.indent(made, fence.indent)))
    for first, last, made in reversed(edits):
        lines[first:last] = ["", made, ""]
    return "\n".join(lines)


def _outside_code(markdown):
    """A page's Markdown, letter for letter, with nothing in the place of code, comments and drawn figures."""
    lines = markdown.split("\n")
    for fence in fences_of(markdown):
        for number in range(fence.line - 1, fence.end):
            lines[number] = MASK * len(lines[number])
    text = "\n".join(MASK * len(line) if line.lstrip().startswith("<figure ") else line for line in lines)
    return INLINE_CODE.sub(_mask_inside, COMMENT.sub(_mask, text))


def formulas_in(markdown: str) -> list[tuple[int, int, bool, str]]:
    """(start, end, whether it stands on a line of its own, TeX) of each formula of a text, in order; none in code or figures."""
    return _formulas(_outside_code(markdown))


def links_in(markdown: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, address) of each link's address in a text, in order; none in code."""
    for match in LINK.finditer(_outside_code(markdown)):
        yield match.start(1), match.end(1), match[1]
