"""What stands at the other end of every link that leaves the site: docs/sources.yml, its checks and its page.

```sources                                   the list by subject (reference/sources)
"""

import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

import yaml

from builder import project, words
from builder.pages import glossary, reader
from builder.pages.page import Page
from builder.project import Fault

PAGE = "reference/sources.md"
ADDRESS = re.compile(
    r"""(?:https?:|(?<=\]\()|(?<=["'<]))//"""  # //host, too, where a link or an attribute begins
    r"(?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)+)(?P<rest>(?::\d+)?(?:[/?#](?:(?![<>\"'`\[\]\\])[!-~])*)?)",
    re.I,
)
NOWHERE = re.compile(r"127\.|0\.0\.0\.0|(?:.*\.)?(?:example|test|invalid|localhost|example\.(?:com|net|org))\Z", re.I)
NAMESPACE = "http://www.w3.org/2000/svg"  # the name of a kind of element, which nobody fetches
THREAD = re.compile(r"https://github\.com/([^/]+/[^/]+)/(?:issues|pull|discussions)/(\d+)\Z")


class Link(NamedTuple):
    """One place that names an address outside the site."""

    file: str
    line: int
    address: str


def file() -> Path:
    """docs/sources.yml, which a project need not have."""
    return project.DOCS / "sources.yml"


@functools.lru_cache(maxsize=2)
def _parsed(path, _changed):
    return words.yaml_of(path.read_text("utf-8"))


def content() -> dict | None:
    """The parsed file; None where the project has none. Raises yaml.YAMLError."""
    return _parsed(file(), file().stat().st_mtime_ns) if file().is_file() else None


def entries() -> list[tuple[str, dict]]:
    """(subject, entry) of every source, in the file's order; only for a file without faults."""
    listed = (content() or {}).get("sources", {})
    return [(subject, entry) for subject, of_subject in listed.items() for entry in of_subject]


# Links


def addresses(text: str) -> Iterator[tuple[int, str]]:
    """(position, address) of each outside address in a text, without fragments and what the sentence adds."""
    for match in ADDRESS.finditer(text):
        if NOWHERE.match(match["host"]) or match[0] == NAMESPACE:
            continue
        rest = match["rest"].partition("#")[0]
        depth = 0
        for place, letter in enumerate(rest):  # the bracket that closes a link is not the address's
            depth += {"(": 1, ")": -1}.get(letter, 0)
            if depth < 0:
                rest = rest[:place]
                break
        scheme = "http:" if match[0].lower().startswith("http:") else "https:"
        yield match.start(), f"{scheme}//{match['host'].lower()}{rest.rstrip('.,;:!?*')}"


def _texts():
    """(path, text) of all that may link: pages, scripts and recipes, the glossary, the READMEs."""
    for language in project.LANGUAGES:
        for page in project.page_files(language):
            yield (path := project.DOCS / language / page), path.read_text("utf-8")
    for path in sorted(project.SNIPPETS.rglob("*.py")):
        yield path, path.read_text("utf-8")
    if glossary.file().is_file():
        yield glossary.file(), glossary.file().read_text("utf-8")
    for path in sorted(project.ROOT.glob("README*.md")):  # a command's addresses are the reader's to fill in
        yield path, reader.outside_fences(path.read_text("utf-8"))


def links() -> list[Link]:
    """Every outside address that a page, a script, the glossary or a README names."""
    return [link for path, text in _texts() for link in _links_of(project.relative(path), text)]


@functools.lru_cache(maxsize=512)
def _links_of(file, text):
    return [Link(file, reader.line_of(text, position), address) for position, address in addresses(text)]


# Checks


def _is_text(value):
    return isinstance(value, str) and bool(value.strip())


def _in_both(value):
    return (
        isinstance(value, dict)
        and set(project.COMPLETE) <= set(value) <= set(project.LANGUAGES)
        and all(map(_is_text, value.values()))
    )


def _entry_fault(entry):
    """What is wrong with one entry by itself, or None."""
    if not isinstance(entry, dict) or not _is_text(entry.get("url")):
        return f"`{entry}` is no entry: it needs url, ja, en and read"
    address = entry["url"]
    if [found for _, found in addresses(address)] != [address]:
        return f"`{address}` is not an address as a link has it: https://host/path, without # and what follows"
    wanted = {"url", *project.COMPLETE, "read"}
    wanted |= set() if THREAD.match(address) else {"name"}
    wanted |= {"why"} if entry.get("read", "") is None else set()
    spare = sorted(map(str, set(entry) - wanted - set(project.LANGUAGES)))
    if spare or not wanted <= set(entry):
        missing = sorted(wanted - set(entry))
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(spare)} to spare"] * bool(spare)
        return f"the entry of {address} {' and '.join(parts)}"
    for key in (wanted & {"name"}) | (set(project.LANGUAGES) & set(entry)):
        if not _is_text(entry[key]):
            return f"the entry of {address} says nothing under {key}"
    if type(entry["read"]) not in (date, type(None)):
        return f"the entry of {address} was read on `{entry['read']}`: give a day such as 2026-11-26, or null and why"
    if "why" in wanted and not _in_both(entry["why"]):
        return f"the entry of {address} gives no reason in both languages for not being read: why: {{ja: …, en: …}}"
    return None


def _file_faults(text):
    """What is wrong with sources.yml whatever the pages say."""
    name = project.relative(file())
    try:
        listed = content()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        yield Fault(name, mark.line + 1 if mark else 0, f"is not YAML: {said}")
        return
    if not isinstance(listed, dict) or set(listed) != {"subjects", "sources"}:
        yield Fault(name, 0, "has two keys, subjects and sources, and nothing else")
        return
    subjects, sources = listed["subjects"], listed["sources"]
    if not isinstance(subjects, dict) or not isinstance(sources, dict):
        yield Fault(
            name, 0, "lists subjects and sources by subject: `subjects: {key: {ja: …, en: …}}`, `sources: {key: [...]}`"
        )
        return
    for key, title in subjects.items():
        if not _in_both(title):
            yield Fault(name, _line(text, f"{key}:"), f"the subject {key} has no title in both languages")
        if key not in sources:
            yield Fault(name, _line(text, f"{key}:"), f"the subject {key} has no sources")
    seen = set()
    for key, of_subject in sources.items():
        if key not in subjects:
            yield Fault(name, _line(text, f"{key}:", "sources"), f"{key} is not among the subjects")
        if not isinstance(of_subject, list) or not of_subject:
            yield Fault(name, _line(text, f"{key}:", "sources"), f"{key} holds no list of sources")
            continue
        for entry in of_subject:
            address = entry.get("url") if isinstance(entry, dict) else None
            line = _line(text, f"url: {address}", "sources")
            if said := _entry_fault(entry):
                yield Fault(name, line, said)
                continue
            if address in seen:
                yield Fault(name, line, f"{address} is there twice")
            seen.add(address)
            for language in project.LANGUAGES:
                for forbidden in glossary.load().forbidden.get(language, ()):
                    if match := forbidden.regex.search(re.sub(r"`[^`]*`", "", entry[language])):
                        yield Fault(
                            name, line, f'the entry of {address} says "{match[0].strip()}": {forbidden.why}', soft=True
                        )


def _line(text, start, under="subjects"):
    """The number of the first line under a key of the file that begins with `start`; 0 when there is none."""
    head = re.search(rf"^{under}:", text, re.M)
    match = re.compile(rf"^[ \t]*(?:- )?{re.escape(start)}(?=\s|$)", re.M).search(text, head.end() if head else 0)
    return reader.line_of(text, match.start()) if match else 0


def faults() -> list[Fault]:
    """What is wrong with sources.yml, and each link that it does not know, and each entry that nothing links to."""
    name = project.relative(file())
    try:
        text = file().read_text("utf-8") if file().is_file() else ""
    except UnicodeDecodeError as error:
        return [Fault(name, 0, f"is not UTF-8: {error.reason} at byte {error.start}")]
    found = list(_file_faults(text)) if text else []
    if any(not fault.soft for fault in found):
        return found
    known = {entry["url"] for _, entry in entries()}
    linked = links()
    for link in linked:
        if link.address not in known:
            found.append(
                Fault(
                    link.file,
                    link.line,
                    f"links to {link.address}, which is not in {name}: read what stands there and add it",
                    soft=True,
                )
            )
    for address in sorted(known - {link.address for link in linked}):
        found.append(
            Fault(name, _line(text, f"url: {address}", "sources"), f"nothing links to {address} any more", soft=True)
        )
    return found


# The page


def _shown_name(entry):
    thread = THREAD.match(entry["url"])
    return f"{thread[1]} #{thread[2]}" if thread else entry["name"]


def _linking_pages(language):
    """{address: pages of this language that link to it}, in the order of the file tree."""
    found = defaultdict(list)
    start = f"docs/{language}/"
    for link in links():
        page = link.file.removeprefix(start)
        if link.file.startswith(start) and page not in found[link.address]:
            found[link.address].append(page)
    return found


def render(language: str) -> str:
    """The list as Markdown: a heading for each subject, and for each source its sentence, its day, its pages."""
    said, listed, pages = words.of("sources", language), entries(), _linking_pages(language)
    read = sum(entry["read"] is not None for _, entry in listed)
    lines = [said["count"].format(all=len(listed), read=read, rest=len(listed) - read), ""]
    subject = None
    for key, entry in listed:
        if key != subject:
            subject = key
            lines += ["</dl>", ""] if len(lines) > 2 else []
            lines += [
                f"## {words.said(content()['subjects'][key], language)} {{ #{key} }}",
                "",
                '<dl class="glossary sources" markdown>',
            ]
        when = (
            said["read"].format(day=entry["read"])
            if entry["read"]
            else said["unread"].format(why=words.said(entry["why"], language))
        )
        titles = [f"[{reader.page_title(language, page)}](../{page})" for page in pages[entry["url"]]]
        origin = f" · {said['from']}{said['join'].join(titles)}" if titles else ""
        lines += [
            f'<dt markdown="span">[{_shown_name(entry)}]({entry["url"]})</dt>',
            '<dd markdown="block">',
            "",
            words.said(entry, language).strip(),
            "",
            f"{when}{origin}",
            "",
            "</dd>",
        ]
    return "\n".join([*lines, "</dl>"] if listed else lines)


def put(markdown: str, page: Page) -> str:
    """The page of sources with its list."""
    return reader.replaced(markdown, page, lambda fence: render(page.language) if fence.language == "sources" else None)
