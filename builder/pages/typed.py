"""What may stand on a page: sentences, formulas, and what a run has made. Anything else could be typed and look computed.

A fence holds one include, or is drawn by the build. An output stands below the code that printed it. Of HTML only what the
pages need is known; images, scripts, frames and drawings are made by the build alone. Code is as wide and as long as it can be
read: what is shown is held to that here.
"""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from builder import project
from builder.finished import markup
from builder.pages import exercises, reader
from builder.pages.page import Page
from builder.project import Fault

if TYPE_CHECKING:
    from builder.pages.checks import Files

OF_OTHER_PAGES = {"claims", "glossary", "sources", "journey"}  # fences that the build replaces by what other pages hold
MADE = {"figure", *OF_OTHER_PAGES}  # fences that the build replaces
WIDEST, WIDEST_TWIN, LONGEST = 72, 44, 30  # characters of a line, of one half of a pair; lines of a section

TAG = re.compile(r"<(/?)([a-zA-Z][\w-]*)(?=[\s/>])((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)>")
ATTRIBUTE = re.compile(r"""([^\s=/"']+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"']+)))?""")
KNOWN = {"details": {}, "summary": {}, "div": {"class": {"twins", "grid", "grid cards", "explorer-stage"}}}
DATA = re.compile(r"\{\{ [^{}]+ \}\}|[a-z][a-z_]*")  # of an explorer: a value, or a name
IMAGE = re.compile(r"!\[[^\]]*\][(\[]")
QUIET = re.compile(r"\{[^{}\n]*\.claims\b[^{}\n]*\}")
OPENS_TWINS, CLOSES = re.compile(r'[ \t]*<div class="twins"'), re.compile(r"[ \t]*</div>")
PRE = re.compile(r"<pre\b")
# a digit that is none of 0 to 9, a character by its number, or one that takes no room: a typed number could hide in it
HIDES = re.compile("&#\\w+;|[０-９¼-¾⅐-⅟\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")


def faults(source: reader.Source) -> Iterator[Fault]:
    """What one page, a reader.Source, has that no run has made."""
    bare = source.bare
    for fence in source.fences:
        yield from _fence_faults(source, fence)
    for match in TAG.finditer(bare):
        if why := _unknown(match):
            yield Fault(source.file, reader.line_of(bare, match.start()), f"`{match[0]}` is typed in: {why}", soft=True)
    for match in IMAGE.finditer(bare):
        message = "an image is typed in: what is seen is drawn from what a script kept, with a figure"
        yield Fault(source.file, reader.line_of(bare, match.start()), message, soft=True)
    for match in QUIET.finditer(bare):
        message = "a line about claims is typed in: the build writes it under each block that has some"
        yield Fault(source.file, reader.line_of(bare, match.start()), message, soft=True)
    for match in HIDES.finditer(source.prose):
        message = f"{match[0]!a} hides what is typed: write digits as 0 to 9, and no character by its number"
        yield Fault(source.file, reader.line_of(source.prose, match.start()), message, soft=True)
    for value in source.values:
        if ".." in value.text:
            yield Fault(source.file, value.line, f"`{value.text}` names a value outside the scripts", soft=True)


def _fence_faults(source, fence):
    if not fence.closed or fence.language in ("python", *MADE):
        return
    if not fence.opening.startswith("```") or fence.opening.startswith("````"):
        message = f"`{fence.opening}`: a fence is written with three backticks, and none stands inside another"
        yield Fault(source.file, fence.line, message, soft=True)
    written = [line for line in fence.body if line.strip()]
    if len(written) != 1 or len(fence.includes) != 1:
        message = (
            "what stands in this fence is typed in: it holds one include and nothing else, so that a run has made it"
        )
        yield Fault(source.file, fence.line, message, soft=True)
        return
    target, _, section = fence.includes[0].text.partition(":")
    code = f"{target.removesuffix('.out')}:{section}"
    if target.endswith(".out") and code not in [mark.text for mark in source.includes if mark.line < fence.line]:
        message = (
            f'"{fence.includes[0].text}" is the output of code that does not stand above it: include "{code}" first'
        )
        yield Fault(source.file, fence.line, message, soft=True)


def _unknown(match):
    """Why a tag may not stand in a page's Markdown, or None."""
    closing, name, attributes = match.groups()
    explorer = name not in KNOWN and name in markup.explorers()
    if name not in KNOWN and not explorer:
        return f"known are {', '.join(f'<{tag}>' for tag in KNOWN)} and the explorers"
    if closing:
        return None
    for attribute, *values in ATTRIBUTE.findall(attributes.rstrip("/")):
        value = "".join(values)
        if attribute == "markdown":
            continue
        if explorer and attribute.startswith("data-"):
            if not DATA.fullmatch(value):
                return f"{attribute} holds {value!r}, and should hold a value, `{{{{ name }}}}`"
        elif value not in KNOWN.get(name, {}).get(attribute, ()):
            return f"it cannot carry {attribute}={value!r}"
    return None


def file_faults() -> Iterator[Fault]:
    """Files that would be published as they are: a page has come through the checks of pages, and nothing else is one."""
    holds = {language: {".md"} for language in project.LANGUAGES} | {"shared": {".css", ".js", ".svg"}}
    for folder, kinds in holds.items():
        for path in sorted((project.DOCS / folder).rglob("*")):
            if path.is_file() and path.suffix not in kinds and not path.name.startswith("."):
                message = f"would be published as it is: docs/{folder} holds {', '.join(sorted(kinds))} alone"
                yield Fault(project.relative(path), 0, message)


# ---------------------------------------------------------------- what is shown of scripts


def size_faults(sources: Iterable[reader.Source], files: "Files") -> Iterator[Fault]:
    """Sections that are too long, and lines that are too wide for the place where one of these pages shows them."""
    seen = set()
    for source in sources:
        twins = _twins(source.bare)
        for fence in source.fences:
            for mark in fence.includes:
                target, _, section = mark.text.partition(":")
                wide = WIDEST_TWIN if fence.line in twins else WIDEST
                _, sections = files.sections(target) or (None, {})
                if target.endswith(".out") or section not in sections or (mark.text, wide) in seen:
                    continue
                seen.add((mark.text, wide))
                start, text = sections[section]
                yield from _section_faults(project.relative(project.SNIPPETS / target), start, section, text, wide)


def _section_faults(file, start, section, text, wide):
    lines = textwrap.dedent(text).split("\n")
    if len(lines) > LONGEST:
        message = f"section {section} has {len(lines)} lines, at most {LONGEST} are shown at once: make two of it"
        yield Fault(file, start, message, soft=True)
    for number, line in enumerate(lines, start + 1):
        if len(line) > wide:
            place = "in one half of a pair" if wide == WIDEST_TWIN else "on a page"
            message = f"this line has {len(line)} characters, at most {wide} can be read {place}: break it"
            yield Fault(file, number, message, soft=True)


def _twins(text):
    """The lines of a page that stand in a pair side by side."""
    inside, found = False, set()
    for number, line in enumerate(text.split("\n"), 1):
        inside = bool(OPENS_TWINS.match(line)) or (inside and not CLOSES.match(line))
        if inside:
            found.add(number)
    return found


# ---------------------------------------------------------------- what Markdown made of it


def check(content: str, page: Page) -> str:
    """As many blocks of code as there are fences of it: a text indented by four spaces would be one more."""
    if page.notebook:
        cells = [cell for cell in json.loads(page.notebook)["cells"] if not exercises.is_packed(cell)]
        known = sum(
            1 + len(cell["outputs"]) if cell["cell_type"] == "code" else _shown_code("".join(cell["source"]))
            for cell in cells
        )
    else:
        known = _shown_code(page.markdown)
    if (found := len(PRE.findall(content))) != known:
        message = (
            f"{found} blocks of code stand on the page, and {known} are included: a text indented by four is one too"
        )
        project.stop([Fault(page.file, 0, message, soft=True)])
    return content


def _shown_code(markdown):
    return sum(fence.language in ("python", "text") for fence in reader.fences_of(markdown))
