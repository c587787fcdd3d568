"""The checks on page sources: both languages, includes, typed-in code, forbidden words. Nothing is expanded: text is compared."""

import functools
import re
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar, NamedTuple

from builder import project
from builder.finished import markup
from builder.kept import digest
from builder.pages import glossary, includes, links, lock, marks, typed
from builder.pages.includes import Include
from builder.pages.reader import ALMOST_INCLUDE, MASK, Source, line_of, scan
from builder.project import Fault
from builder.scripts import records, sections

ANNOTATION = re.compile(r"#.*?\((\d+)\)!?[ \t]*$")


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


def pair_faults(one: Source, other: Source) -> list[Fault]:
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


class Files:
    """What an include can name, each file read once; one of these for each state of scripts, outputs and words."""

    _of_state: ClassVar[dict[str, "Files"]] = {}

    def __init__(self):
        self.read = {}

    @classmethod
    def now(cls) -> "Files":
        """The files as they are: the same object as long as nothing that a page may name has changed."""
        files = [glossary.file(), *project.SNIPPETS.rglob("*.py")]
        state = digest(
            str(project.DOCS),
            records.fingerprint(),
            markup.explorers(),
            sorted((str(file), file.read_text("utf-8")) for file in files if file.is_file()),
        )
        if state not in cls._of_state:
            cls._of_state.clear()
            cls._of_state[state] = cls()
        return cls._of_state[state]

    def sections(self, target: str) -> tuple[Path, dict[str, tuple[int, str]]] | None:
        """None when there is no such file; otherwise (path, its sections)."""
        if target not in self.read:
            self.read[target] = self._sections(target)
        return self.read[target]

    @staticmethod
    def _sections(target):
        script = target.removesuffix(".out")
        path = records.output_file(script) if target.endswith(".out") else project.SNIPPETS / script
        if not path.is_file():
            return None
        source = records.output(script) if target.endswith(".out") else path.read_text("utf-8")
        spans, texts = sections.spans(source), sections.texts(source)
        return path, {name: (spans[name][0] - 1, texts[name]) for name in spans}


def _include_fault(files, mark, file):
    """The hard fault of an include that leads nowhere, or None."""
    target, _, section = mark.text.partition(":")
    if not Include.of(mark.text):
        return Fault(
            file, mark.line, f'cannot include "{mark.text}": only scripts below snippets, and what they printed'
        )
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


def source_faults(source: Source, files: Files) -> list[Fault]:
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
    plain = fence.ticks.startswith("`") and fence.info.startswith("python") and fence.language == "python"
    if fence.seems_python and not plain:
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
        if line.strip() and not includes.LINE.match(line)
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
        for language in project.COMPLETE
    }
    for script in sorted(project.SNIPPETS.rglob("*.py")):
        target = script.relative_to(project.SNIPPETS).as_posix()
        for name, (line, _) in files.sections(target)[1].items():
            missing = [language for language in project.COMPLETE if f"{target}:{name}" not in shown[language]]
            if missing:
                where = "any page" if len(missing) == len(project.COMPLETE) else f"any page of docs/{missing[0]}"
                yield Fault(
                    project.relative(script),
                    line,
                    f'section {name} is not shown on {where}: include "{target}:{name}", or remove it',
                    soft=True,
                )


# Words


def word_faults(source: Source, language: str) -> Iterator[Fault]:
    """Forbidden words of glossary.yml in a page's sentences; code, formulas and addresses are free."""
    for entry in glossary.load().forbidden.get(language, ()):
        for match in entry.regex.finditer(source.prose):
            found = match[0].strip().replace(MASK, "…")
            advice = f'write "{match.expand(entry.instead)}"; ' if entry.instead else ""
            yield Fault(
                source.file,
                line_of(source.prose, match.start()),
                f'"{found}" is a word the glossary forbids: {advice}{entry.why}',
                soft=True,
            )


# All of it


class _Text(NamedTuple):
    """A page as it is written: what a check may depend on, so that a check of it is made once, under serve too."""

    language: str
    page: str
    text: str

    @property
    def source(self):
        return scan(self.text, f"docs/{self.language}/{self.page}")


@functools.lru_cache(maxsize=512)
def _page_faults(page, files):
    """What is wrong with one page whatever its twin says."""
    source = page.source
    return [
        *source_faults(source, files),
        *word_faults(source, page.language),
        *typed.faults(source),
        *marks.faults(source, page.text, project.script_of(page.page)),
        *marks.typed_numbers(source),
    ]


@functools.lru_cache(maxsize=256)
def _twin_faults(one, other):
    return pair_faults(one.source, other.source)


def _alone(texts):
    """Pages that one of the two languages which have every page has not."""
    for page in sorted({page for pages in texts.values() for page in pages}):
        here, *more = [language for language, pages in texts.items() if page in pages]
        for there in project.COMPLETE:
            if there != here and there not in more:
                message = f"stands in one language only: docs/{there}/{page} is missing"
                yield Fault(f"docs/{here}/{page}", 0, message, soft=True)


def faults() -> list[Fault]:
    """Every fault of the Markdown sources of both languages."""
    files = Files.now()
    texts = {
        language: {
            page.as_posix(): _Text(language, page.as_posix(), (project.DOCS / language / page).read_text("utf-8"))
            for page in project.page_files(language)
        }
        for language in project.LANGUAGES
    }
    found = [*_alone(texts)]
    one, *others = texts.values()
    pairs = sorted(set(one).intersection(*(texts[language] for language in project.COMPLETE)))
    for other in others:
        for page in sorted(set(one) & set(other)):
            found += _twin_faults(one[page], other[page])
    sources = {language: {page: text.source for page, text in pages.items()} for language, pages in texts.items()}
    for pages in texts.values():
        for page in pages.values():
            found += _page_faults(page, files)
    found += typed.size_faults([source for pages in sources.values() for source in pages.values()], files)
    found += _unused(sources, files)
    try:
        found += lock.faults(pairs, lock.read_lock())
    except ValueError as error:
        found.append(Fault(project.relative(lock.lock_file()), 0, str(error)))
    found += typed.file_faults()
    found += glossary.faults(marks.COMPUTED)
    found += links.faults()
    return found
