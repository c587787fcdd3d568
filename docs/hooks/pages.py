"""The checks on page sources: both languages, includes, typed-in code, reread pairs, forbidden words.

Everything here reads Markdown as text, before MkDocs does. Run as a script, it accepts one reread pair:
`python docs/hooks/pages.py stamp layouts/rosetta`.
"""

import hashlib
import html
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import glossary
import marks
import project
import shown
import sources as elsewhere
import typed
from mkdocs.plugins import event_priority
from project import Fault

import snippets

# Stands in for text that is not prose (code, formulas, addresses): no letter, no digit and no space, so that
# neither a word nor the half-width spaces beside it change their neighbours.
MASK = "\ue000"

FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})(.*)$")
HEADING = re.compile(r"^[ ]{0,12}(#{1,6})[ \t]+(.*?)[ \t]*$")
HEADING_ID = re.compile(r"[ \t]*\{[^}]*#([\w.:-]+)[^}]*\}$")
SETEXT = re.compile(r"^(?:=+|-{3,})[ \t]*$")
BOX = re.compile(r"^[ \t]*(?:!!!|\?\?\?\+?)[ \t]+([\w-]+)")
FRONT_MATTER = re.compile(r"\A---\n.*?\n---[ \t]*\n", re.S)
SEARCH_WORDS = re.compile(rb"\A(---\n(?:(?!---)[^\n]+\n)*?)search: \[[^\n]*\n")
COMMENT = re.compile(r"<!--.*?-->", re.S)
INLINE_CODE = re.compile(r"(?<![`\\])(`+)(?!`)((?:(?!\n[ \t]*\n).)+?)(?<!`)\1(?!`)", re.S)
DISPLAYED = re.compile(r"(?<!\\)\$\$(.+?)\$\$", re.S)
INLINE_FORMULA = re.compile(r"(?<!\\)\$(?!\s)((?:\\.|[^\\$\n]|\n(?![ \t]*\n))+?)(?<!\s)\$", re.S)  # in one paragraph
ALMOST_VALUE = re.compile(rf"(?!{snippets.VALUE.pattern}|{snippets.CHOICE.pattern})\{{\{{[^\n{{}}]*\}}*")
EXPLORER = re.compile(r"<([a-z][a-z0-9]*-[a-z0-9-]+)(?=[\s>/])")
ADDRESS = re.compile(
    r"(?<=\])\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*"  # of a link, but not its title
    r"|^[ \t]*\[[^\]]+\]:.*$|https?://[^\s)>\]、。」]+|<[a-zA-Z/!][^<>]*>",
    re.M,
)
ATTRIBUTES = re.compile(r"\{:?[ \t]*[#.][^}\n]*\}")

INCLUDE = re.compile(r'^[ \t]*--8<--[ \t]+"([^"\n]+)"[ \t]*$')
ALMOST_INCLUDE = re.compile(r"[-–—]+[ \t]*8[ \t]*<|8<-|8&lt;-")
START = re.compile(r"^[ \t]*(?:#[ \t]*)?--8<--[ \t]*\[start:([\w.-]+)\]")
END = re.compile(r"^[ \t]*(?:#[ \t]*)?--8<--[ \t]*\[end:([\w.-]+)\]")
ANNOTATION = re.compile(r"#.*?\((\d+)\)!?[ \t]*$")
LOOKS_LIKE_PYTHON = re.compile(r"^\s*\{?\s*\.?(?:python\d*|py\d*|ipython\d*|pycon\d*)(?![\w-])", re.I)


class Mark(NamedTuple):
    """Something on a page that its twin must have too."""

    line: int
    text: str


@dataclass
class Fence:
    line: int  # of the opening backticks
    opening: str  # "```" or "~~~" and what follows, without indentation
    body: list[str]
    listed: int = 0  # items of the ordered list that follows: what its annotations say
    closed: bool = True

    @property
    def info(self):
        return self.opening.lstrip("`~")

    @property
    def language(self):
        return (self.info.split() or [""])[0]

    @cached_property
    def includes(self):
        """(line, target) of each include in the fence."""
        found = ((number, INCLUDE.match(line)) for number, line in enumerate(self.body, self.line + 1))
        return [Mark(number, match[1]) for number, match in found if match]


@dataclass
class Source:
    """What a page's Markdown holds, each thing with its line; `prose` is its sentences alone, line for line."""

    file: str  # docs/ja/layouts/rosetta.md
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
    prose: str = ""
    bare: str = ""  # its text without front matter, comments, fences, code and formulas, line for line
    marked: dict = field(default_factory=dict)  # (section, kind, name) of each mark: its line

    @property
    def figures(self):
        return [
            Mark(fence.line, fence.info.split()[1])
            for fence in self.fences
            if fence.language == "figure" and len(fence.info.split()) > 1
        ]

    @property
    def blocks(self):
        return [
            Mark(fence.line, fence.language or "no language") for fence in self.fences if fence.language != "figure"
        ]

    @property
    def annotations(self):
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


def _line_of(text, position):
    return text.count("\n", 0, position) + 1


def _listed_after(lines, start, indent):
    """How many items the ordered list has that follows line number `start` (from 0) at this indentation."""
    count = 0
    for line in lines[start:]:
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if depth == indent and re.match(r"\d+\.[ \t]", line.lstrip()):
            count += 1
        elif not (count and depth > indent):
            break
    return count


def _fences(lines):
    """The fences of a page, and its lines with every line of a fence blanked."""
    fences, outside, number = [], list(lines), 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if not opening or (opening[2][0] == "`" and "`" in opening[3]):
            number += 1
            continue
        indent, ticks = len(opening[1]), opening[2]
        end = number + 1
        closing = re.compile(rf"^[ \t]*{ticks[0]}{{{len(ticks)},}}[ \t]*$")
        while end < len(lines) and not closing.match(lines[end]):
            end += 1
        closed = end < len(lines)
        fences.append(
            Fence(
                number + 1,
                (ticks + opening[3]).rstrip(),
                lines[number + 1 : end],
                _listed_after(lines, end + 1, indent),
                closed,
            )
        )
        outside[number : end + 1] = [""] * (min(end + 1, len(lines)) - number)
        number = end + 1
    return fences, outside


def scan(text, file):
    """Read one page's Markdown. Nothing is expanded: what is written is what is compared."""
    source = Source(file)
    text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    source.fences, outside = _fences(lines)
    whole = "\n".join(outside)
    whole = COMMENT.sub(_mask, whole)
    body = FRONT_MATTER.sub(_blank, whole)
    bare = INLINE_CODE.sub(_mask_inside, body)

    formulas = [(match.start(), "displayed", match[1]) for match in DISPLAYED.finditer(bare)]
    bare = DISPLAYED.sub(_mask, bare)
    source.bare = INLINE_FORMULA.sub(_mask, bare)
    formulas += [(match.start(), "inline", match[1]) for match in INLINE_FORMULA.finditer(bare)]

    section, sections = "", []
    for number, (line, original) in enumerate(zip(bare.split("\n"), outside, strict=True), 1):
        heading = HEADING.match(original) if HEADING.match(line) else None
        if heading:
            name = HEADING_ID.search(heading[2])
            if name:
                section = name[1]
                source.headings.append(Mark(number, f"{heading[1]} {{ #{section} }}"))
                sections.append((number, section))
            else:
                source.unmarked.append(
                    Mark(
                        number,
                        f"`{heading[0].strip()}` has no id: end the line with "
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
        if include := INCLUDE.match(line):
            source.includes.append(Mark(number, include[1]))
        elif ALMOST_INCLUDE.search(line):
            source.misspelt.append(Mark(number, line.strip()))

    for position, kind, tex in sorted(formulas):
        mark = Mark(_line_of(bare, position), " ".join(tex.split()))
        if kind == "displayed":
            source.displayed.append(mark)
        else:
            within = [name for line, name in sections if line <= mark.line]
            source.inline.append((within[-1] if within else "", mark))

    for fence in source.fences:
        for number, line in enumerate(fence.body, fence.line + 1):
            if include := INCLUDE.match(line):
                source.includes.append(Mark(number, include[1]))
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
        Mark(_line_of(told, match.start()), match[1] + "?" * (pattern is snippets.CHOICE))
        for pattern in (snippets.VALUE, snippets.CHOICE)
        for match in pattern.finditer(told)
    ]
    source.marked = marks.by_section("\n".join(written), sections)
    source.explorers = [Mark(_line_of(bare, match.start()), match[1]) for match in EXPLORER.finditer(bare)]
    told = INLINE_CODE.sub(_mask_inside, told)
    without_formulas = INLINE_FORMULA.sub(_mask, DISPLAYED.sub(_mask, told))
    source.misvalued = [
        Mark(_line_of(told, match.start()), match[0]) for match in ALMOST_VALUE.finditer(without_formulas)
    ]
    told = snippets.CHOICE.sub(_chosen, told)
    told = snippets.VALUE.sub(lambda match: marks.FILLED + MASK * (len(match[0]) - 1), told)
    for pattern in (DISPLAYED, INLINE_FORMULA, ATTRIBUTES, ADDRESS):
        told = pattern.sub(_mask, told)
    source.prose = told
    return source


def read(language, page):
    path = project.DOCS / language / page
    return scan(path.read_text("utf-8"), project.relative(path))


# Pairs


def _shown(mark):
    return f"`{mark.text}`" if mark else "nothing more"


def _ordered(what, one, other, ones, others, advice=""):
    """At most one fault: the first place where two ordered lists differ."""
    for mine, theirs in zip_longest(ones, others):
        if not mine or not theirs or mine.text != theirs.text:
            where = f"{other.file}:{theirs.line}" if theirs else other.file
            line = mine.line if mine else 0
            yield Fault(
                one.file,
                line,
                f"{what} differ from {where}: here {_shown(mine)}, there {_shown(theirs)}" + advice,
                soft=True,
            )
            return


def _counted(what, one, other, ones, others):
    """At most one fault: the first thing that stands more often on one side."""
    count, counts = Counter(mark.text for mark in ones), Counter(mark.text for mark in others)
    for mark in [*ones, *others]:
        if count[mark.text] != counts[mark.text]:
            places = [
                f"{source.file}:{found.line}"
                for source, marks in ((one, ones), (other, others))
                for found in marks
                if found.text == mark.text
            ]
            here = next((found.line for found in ones if found.text == mark.text), 0)
            yield Fault(
                one.file,
                here,
                f"{what} differ from {other.file}: `{mark.text}` stands here "
                f"{count[mark.text]} times, there {counts[mark.text]} times ({', '.join(places)})",
                soft=True,
            )
            return


def _inline_formulas(one, other):
    """Each language orders and repeats formulas in its sentences as it likes: inline ones are a set per section."""
    mine, theirs = ({(section, mark.text) for section, mark in source.inline} for source in (one, other))
    shared = {mark.text for mark in one.headings} & {mark.text for mark in other.headings}
    sections = {text.split("#")[-1].rstrip(" }") for text in shared} | {""}
    for source, twin, extra in ((one, other, mine - theirs), (other, one, theirs - mine)):
        for section, mark in source.inline:
            if section in sections and (section, mark.text) in extra:
                place = f"section #{section}" if section else "the part before the first heading"
                yield Fault(
                    source.file,
                    mark.line,
                    f"formulas differ from {twin.file}: `${mark.text}$` does not stand there in {place}",
                    soft=True,
                )
                return


def _marks(one, other):
    """What bears the sentences of a section bears those of the other language."""
    for source, twin in ((one, other), (other, one)):
        for (section, kind, name), line in source.marked.items():
            if (section, kind, name) not in twin.marked:
                where = f"section #{section}" if section else "the part before the first heading"
                told = f"marks differ from {twin.file}: `{kind}: {name}` bears no sentence there in {where}"
                yield Fault(source.file, line, told, soft=True)
                return


def pair_faults(one, other):
    """How the two languages of a page differ in what is no matter of language; all soft."""
    faults = list(
        _ordered(
            "headings", one, other, one.headings, other.headings, " (levels and ids are the same in both languages)"
        )
    )
    faults += _ordered("includes", one, other, one.includes, other.includes)
    faults += _ordered("displayed formulas", one, other, one.displayed, other.displayed)
    if not any("headings" in fault.message for fault in faults):
        faults += _inline_formulas(one, other)
        faults += _marks(one, other)
    faults += _ordered("figures", one, other, one.figures, other.figures)
    faults += _counted("values", one, other, one.values, other.values)
    faults += _ordered("explorers", one, other, one.explorers, other.explorers)
    faults += _ordered("boxes", one, other, one.boxes, other.boxes)
    blocks = list(_ordered("code blocks", one, other, one.blocks, other.blocks))
    faults += blocks
    if not blocks:
        faults += _ordered(
            "annotations", one, other, one.annotations, other.annotations, " (items of the list under the block)"
        )
    return faults


# Includes


def sections_of(path):
    """The sections of a script or of its recorded output, by name: (line, text)."""
    found, open_name, start, kept = {}, None, 0, []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if match := START.match(line):
            open_name, start, kept = match[1], number, []
        elif END.match(line):
            if open_name:
                found[open_name] = (start, "\n".join(kept))
            open_name = None
        elif open_name:
            kept.append(line)
    return found


class _Files:
    """What an include can name, each file read once."""

    def __init__(self):
        self.read = {}

    def sections(self, target):
        """None when there is no such file; otherwise (path, its sections)."""
        if target not in self.read:
            path = (project.RECORDS if target.endswith(".out") else project.SNIPPETS) / target
            self.read[target] = (path, sections_of(path)) if path.is_file() else None
        return self.read[target]


def _include_fault(files, mark, file):
    """The hard fault of an include that leads nowhere, or None."""
    target, _, section = mark.text.partition(":")
    if target.startswith("/") or ".." in target or not snippets.INCLUDE.fullmatch(f'--8<-- "{mark.text}"'):
        return Fault(file, mark.line, f'cannot include "{mark.text}": only scripts below snippets, and what they printed')
    found = files.sections(target)
    if not found:
        if target.endswith(".out"):
            script = project.SNIPPETS / target.removesuffix(".out")
            why = (
                f"{project.relative(script)} left no output"
                if script.is_file()
                else f"there is no {project.relative(script)} to have printed it"
            )
        else:
            why = f"there is no {project.relative(project.SNIPPETS / target)}"
        return Fault(file, mark.line, f'cannot include "{mark.text}": {why}')
    path, sections = found
    if not section:
        return None
    if section not in sections:
        there = f"has {', '.join(sections)}" if sections else "has no sections"
        return Fault(
            file,
            mark.line,
            f'cannot include "{mark.text}": no section {section} there; {project.relative(path)} {there}',
        )
    if target.endswith(".out") and not sections[section][1].strip():
        return Fault(file, mark.line, f'"{mark.text}" would be an empty box: section {section} prints nothing')
    return None


def source_faults(source, files):
    """What is wrong on one page whatever its twin says."""
    faults = [Fault(source.file, line, message, soft=True) for line, message in source.unmarked]
    seen = {}
    for mark in source.headings:
        name = mark.text.split("#")[-1].rstrip(" }")
        if name in seen:
            faults.append(
                Fault(source.file, mark.line, f"the id #{name} is taken by the heading in line {seen[name]}", soft=True)
            )
        seen.setdefault(name, mark.line)
    for mark in source.misspelt:
        faults.append(
            Fault(
                source.file,
                mark.line,
                f'`{mark.text}` is not an include: write `--8<-- "path:section"` alone on its line',
            )
        )
    for mark in source.misvalued:
        faults.append(
            Fault(
                source.file,
                mark.line,
                f"`{mark.text}` is not a value: write `{{{{ name }}}}`, with one space on each side",
            )
        )
    for mark in source.includes:
        if fault := _include_fault(files, mark, source.file):
            faults.append(fault)
    for fence in source.fences:
        faults += _fence_faults(source.file, fence, files)
    return faults


def _fence_faults(file, fence, files):
    if not fence.closed:
        yield Fault(file, fence.line, f"the fence `{fence.opening}` is never closed")
        return
    if LOOKS_LIKE_PYTHON.match(fence.info) and not re.match(r"`{3,}python(?=\s|$)", fence.opening):
        yield Fault(
            file,
            fence.line,
            f"`{fence.opening}` would escape the tests: a block of Python starts with "
            "```python, without a space and without braces",
        )
        return
    if fence.language != "python":
        return
    typed = [
        (number, line)
        for number, line in enumerate(fence.body, fence.line + 1)
        if line.strip() and not INCLUDE.match(line)
    ]
    if typed and not ALMOST_INCLUDE.search(typed[0][1]):
        yield Fault(
            file,
            typed[0][0],
            f"code is typed in: `{typed[0][1].strip()}`; a block of Python holds "
            "one include and nothing else, so that all code is run",
            soft=True,
        )
    elif len(fence.includes) > 1:
        yield Fault(
            file, fence.includes[1].line, "a block of Python holds one include: start a block for the second", soft=True
        )
    elif not fence.includes and not typed:
        yield Fault(file, fence.line, "a block of Python is empty: it holds one include", soft=True)
    if len(fence.includes) != 1:
        return
    target, _, section = fence.includes[0].text.partition(":")
    _, sections = files.sections(target) or (None, {})
    text = sections.get(section, (0, ""))[1] if section else ""
    numbers = {int(match[1]) for line in text.splitlines() if (match := ANNOTATION.search(line))}
    if numbers and fence.listed < max(numbers):
        yield Fault(
            file,
            fence.line,
            f'"{fence.includes[0].text}" has {max(numbers)} annotations and the list under '
            f"the block {fence.listed} items",
            soft=True,
        )


def _unused(sources, files):
    """A fault for every section of a script that no page of some language shows."""
    shown = {
        language: {mark.text for source in sources.get(language, {}).values() for mark in source.includes}
        for language in project.LANGUAGES
    }
    for script in sorted(project.SNIPPETS.rglob("*.py")):
        target = script.relative_to(project.SNIPPETS).as_posix()
        for name, (line, _) in files.sections(target)[1].items():
            missing = [language for language in project.LANGUAGES if f"{target}:{name}" not in shown[language]]
            if missing:
                where = "any page" if len(missing) == len(project.LANGUAGES) else f"any page of docs/{missing[0]}"
                yield Fault(
                    project.relative(script),
                    line,
                    f'section {name} is not shown on {where}: include "{target}:{name}", or remove it',
                    soft=True,
                )


# The lock: which pairs were read side by side


def lock_file():
    return project.DOCS / "translations.lock.json"


def digests(page):
    """{language: digest} of a page's Markdown, and `run`, of what its scripts put there; code itself is not kept.

    The words that search finds a page by may change without rereading.
    """
    texts = {
        language: SEARCH_WORDS.sub(rb"\1", (project.DOCS / language / page).read_bytes()).removeprefix(b"---\n---\n\n")
        for language in project.LANGUAGES
    }
    found = {language: hashlib.sha256(text).hexdigest()[:16] for language, text in texts.items()}
    run = shown.digest(page, next(iter(texts.values())).decode("utf-8"))
    return {**found, "run": run} if run else found


def read_lock():
    return json.loads(lock_file().read_text("utf-8")) if lock_file().is_file() else {}


def _lock_faults(pairs, lock):
    for page in pairs:
        command = f"make stamp PAGE={page.removesuffix('.md')}"
        then, now = lock.get(page), digests(page)
        if not then:
            yield Fault(
                f"docs/{next(iter(now))}/{page}",
                0,
                f"this pair was never read side by side: read both languages, then `{command}`",
                soft=True,
            )
            continue
        moved = [language for language in project.LANGUAGES if then.get(language) != now[language]]
        if not moved and then.get("run") != now.get("run"):
            yield Fault(
                f"docs/{next(iter(now))}/{page}",
                0,
                "its scripts say something else than when the pair was last read (outputs, values, figures or claims): "
                f"reread both, then `{command}`",
                soft=True,
            )
        if moved:
            still = [f"docs/{language}/{page}" for language in project.LANGUAGES if language not in moved]
            what = (
                f"but {still[0]} did not"
                if still
                else "and so did " + ", ".join(f"docs/{language}/{page}" for language in moved[1:])
            )
            yield Fault(
                f"docs/{moved[0]}/{page}",
                0,
                f"changed since the pair was last read side by side, {what}: reread both, then `{command}`",
                soft=True,
            )
    for page in sorted(set(lock) - set(pairs)):
        if not any((project.DOCS / language / page).is_file() for language in project.LANGUAGES):
            yield Fault(
                project.relative(lock_file()),
                0,
                f"{page} is gone from every language: `make stamp PAGE={page.removesuffix('.md')}` drops its entry",
                soft=True,
            )


def stamp(names):
    """Accept one reread pair. Returns the exit status: 0, or 2 when refused, with the reason on stderr."""

    def refuse(reason):
        print(reason, file=sys.stderr)
        return 2

    names = [name for name in names if name]
    if len(names) != 1:
        return refuse(
            "Name one page, for example: make stamp PAGE=layouts/rosetta "
            "(one at a time, because each pair is to be reread)."
        )
    page = names[0].removesuffix(".md") + ".md"
    known = {language: {file.as_posix() for file in project.page_files(language)} for language in project.LANGUAGES}
    lock = read_lock()
    missing = [language for language in known if page not in known[language]]
    if missing == list(known) and page in lock:
        del lock[page]
        print(f"dropped {page}: it is gone from every language")
    elif missing:
        return refuse(f"There is no {' and no '.join(f'docs/{language}/{page}' for language in missing)}.")
    else:
        one, other = (read(language, page) for language in project.LANGUAGES)
        if faults := pair_faults(one, other):
            return refuse("\n".join([*map(str, faults), f"{page} is not stamped: mend these first."]))
        now, then = digests(page), lock.get(page, {})
        moved = [name for name in dict.fromkeys([*now, *then]) if then.get(name) != now.get(name)]
        lock[page] = now
        print(f"stamped {page}: " + (f"{', '.join(moved)} had moved" if moved else "nothing had moved"))
    lock_file().write_text(json.dumps(lock, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    return 0


# Words


def word_faults(source, language):
    """Forbidden words of glossary.yml in a page's sentences; code, formulas and addresses are free."""
    for entry in glossary.load().forbidden.get(language, ()):
        for match in entry.regex.finditer(source.prose):
            found = match[0].strip().replace(MASK, "…")
            advice = f'write "{match.expand(entry.instead)}"; ' if entry.instead else ""
            yield Fault(
                source.file,
                _line_of(source.prose, match.start()),
                f'"{found}" is a word the glossary forbids: {advice}{entry.why}',
                soft=True,
            )


# All of it


def faults():
    """Every fault of the Markdown sources of both languages."""
    found, files = [], _Files()
    sources = {
        language: {page.as_posix(): read(language, page) for page in project.page_files(language)}
        for language in project.LANGUAGES
    }
    one, other = project.LANGUAGES
    for page in sorted(set(sources[one]) | set(sources[other])):
        for here, there in ((one, other), (other, one)):
            if page not in sources[there]:
                found.append(
                    Fault(
                        sources[here][page].file,
                        0,
                        f"stands in one language only: docs/{there}/{page} is missing",
                        soft=True,
                    )
                )
    pairs = sorted(set(sources[one]) & set(sources[other]))
    for page in pairs:
        found += pair_faults(sources[one][page], sources[other][page])
    for language, pages in sources.items():
        for source in pages.values():
            found += source_faults(source, files)
            found += word_faults(source, language)
            found += typed.faults(source)
    found += typed.size_faults([source for pages in sources.values() for source in pages.values()], files)
    for language, pages in sources.items():
        for page, source in pages.items():
            text = (project.DOCS / language / page).read_text("utf-8")
            found += [*marks.faults(source, text, project.script_of(page)), *marks.typed_numbers(source)]
    found += _unused(sources, files)
    try:
        found += _lock_faults(pairs, read_lock())
    except (ValueError, AttributeError) as error:
        found.append(Fault(project.relative(lock_file()), 0, f"is not the JSON that `make stamp` writes: {error}"))
    found += glossary.faults()
    found += elsewhere.faults()
    return found


@event_priority(-10)  # after the scripts have run: includes name their outputs
def on_pre_build(config, **_):
    if not project.IS_CHILD:  # the parent reads both languages, and hands its soft faults on
        project.stop(faults())


BANNER = {"ja": "このページには直すところがあります", "en": "This page has faults to mend"}


def banner(file, language):
    """The soft faults that name a page or its script, as a box; empty where there are none."""
    script = project.relative(project.SNIPPETS / project.script_of(Path(file).relative_to(f"docs/{language}")))
    told = [fault for fault in sorted(set(project.soft_faults)) if file in str(fault) or fault.file == script]
    items = "".join(f"<li>{html.escape(str(fault))}</li>" for fault in told)
    return (
        f'<div class="admonition warning build-faults"><p class="admonition-title">{BANNER[language]}</p>'
        f"<ul>{items}</ul></div>\n"
        if told
        else ""
    )


def on_page_content(content, page, **_):
    if not project.soft_faults:
        return content
    return banner(f"docs/{project.LANG}/{page.file.src_uri}", project.LANG) + content


if __name__ == "__main__":
    if sys.argv[1:2] != ["stamp"]:
        sys.exit("usage: python docs/hooks/pages.py stamp layouts/rosetta")
    project.lock()
    if broken := snippets.run_scripts():  # what they say now is what is accepted
        sys.exit("\n".join(map(str, broken)))
    sys.exit(stamp(sys.argv[2:]))
