"""Terms: the first occurrence in a section links to the glossary, and the glossary page is made from docs/glossary.yml.

Markdown's own abbreviations need word boundaries, which Japanese does not have; this matcher knows how each script
of Japanese joins words.
"""

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from builder import project, words
from builder.pages import reader
from builder.pages.page import Page
from builder.project import Fault

PAGE = "reference/glossary.md"
UNLINKED_PAGES = {PAGE, "reference/claims.md"}

# Inside these a link would be invalid, would break copying, or would be noise.
CLOSED_ELEMENTS = {
    "a", "button", "code", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "kbd", "label", "math", "pre", "script",
    "select", "style", "summary", "svg", "textarea",
}  # fmt: skip
CLOSED_CLASSES = re.compile(r"""class=["'][^"']*\b(?:arithmatex|admonition-title|build-faults|claims|no-terms)\b""")
MARKUP = re.compile(r"""<!--.*?-->|<(/?)([a-zA-Z][\w-]*)((?:"[^"]*"|'[^']*'|[^>"'])*)>""", re.S)

KATAKANA = "ァ-ヺーヽヾ"
KANJI = "一-鿿々〆"


@dataclass(frozen=True)
class Forbidden:
    regex: re.Pattern
    instead: str
    why: str


@dataclass(frozen=True)
class Glossary:
    terms: tuple = ()
    forbidden: dict = field(default_factory=dict)  # language: [Forbidden]


def file() -> Path:
    """docs/glossary.yml, which a project need not have."""
    return project.DOCS / "glossary.yml"


def load() -> Glossary:
    """The glossary; empty where the project has none. Read again when the file has changed."""
    path = file()
    return _load(path, path.stat().st_mtime_ns) if path.is_file() else Glossary()


@functools.lru_cache(maxsize=2)
def _load(path, _changed):
    try:
        content = words.yaml_of(path.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        message = f"this is not YAML: {getattr(error, 'problem', None) or error}"
        project.stop([Fault(project.relative(path), mark.line + 1 if mark else 0, message)])
    if not isinstance(content, dict):
        project.stop([Fault(project.relative(path), 0, "this is no map of `terms:` and `forbidden:`")])
    forbidden = {}
    for entry in content.get("forbidden", ()):
        language = entry["language"]
        forbidden.setdefault(language, []).append(
            Forbidden(_forbidden_pattern(entry, language), entry.get("instead", ""), entry["why"])
        )
    return Glossary(tuple(content.get("terms", ())), forbidden)


def _forbidden_pattern(entry, language):
    flags = re.M if language == "ja" else re.M | re.I
    if "pattern" in entry:
        return re.compile(entry["pattern"], flags)
    word = r"\s+".join(map(re.escape, entry["word"].split()))
    return re.compile(word if language == "ja" else rf"\b{word}\b", flags)


def faults(computed: re.Pattern) -> list[Fault]:
    """What is wrong with glossary.yml itself; `computed` finds a number that only a run could make."""
    found, text = [], file().read_text("utf-8") if file().is_file() else ""
    name, seen = project.relative(file()), set()
    for term in load().terms:
        line = text[: text.find(f"id: {term['id']}\n")].count("\n") + 1
        if term["id"] in seen:
            found.append(Fault(name, line, f"the term {term['id']} is there twice"))
        seen.add(term["id"])
        for language in project.COMPLETE:
            if not term.get(language) or not term.get("define", {}).get(language):
                found.append(Fault(name, line, f"the term {term['id']} has no word or no definition in {language}"))
            definition = term.get("define", {}).get(language, "")
            for entry in load().forbidden.get(language, ()):
                if match := entry.regex.search(definition):
                    found.append(Fault(name, line, f'the definition of {term["id"]} says "{match[0]}": {entry.why}'))
            if number := computed.search(definition):
                told = f"the definition of {term['id']} says {number[0]}, which no run has made: leave it to a page"
                found.append(Fault(name, line, told))
    return found


# Links


def _english(word):
    """The pattern of an English word or phrase, plural and line break included."""
    *first, last = word.split()
    if re.search(r"[_\d]|[a-z][A-Z]|^[A-Z]+$", word):  # a name in code, or an abbreviation: as it is
        return rf"(?<![\w-]){re.escape(word)}(?![\w-])"
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        ending = re.escape(last[:-1]) + "(?:y|ies)"
    elif last.endswith("ix"):
        ending = re.escape(last[:-2]) + "(?:ix|ices|ixes)"
    else:
        ending = re.escape(last) + ("(?:es)?" if re.search(r"(?:s|x|ch|sh)$", last) else "s?")
    return r"(?<![\w-])(?i:" + r"\s+".join([*map(re.escape, first), ending]) + r")(?![\w-])"


def _japanese(word):
    """The pattern of a Japanese word: never a part of a longer run of katakana, of kanji or of Latin letters."""
    return _edge(word[0], "(?<!") + re.escape(word) + _edge(word[-1], "(?!")


def _edge(letter, look):
    for letters in (f"[{KATAKANA}]", f"[{KANJI}]", "[A-Za-z0-9_-]"):
        if re.match(letters, letter):
            return f"{look}{letters})"
    return ""


def words_of(term: dict, language: str) -> list[str]:
    """What a term is called in a language: its word, and the others that mean it."""
    return [*filter(None, [term.get(language)]), *term.get("also", {}).get(language, ())]


@functools.lru_cache(maxsize=8)
def _matcher(path, changed, language):
    """One pattern for all terms of a language, longest first, and the term's id by group."""
    make = _japanese if language == "ja" else _english
    known = sorted(
        (
            (word, term["id"])
            for term in _load(path, changed).terms
            if language not in term.get("quiet", ())
            for word in words_of(term, language)
        ),
        key=lambda pair: (-len(pair[0]), pair[0]),
    )
    if not known:
        return None, []
    # Most places are ruled out by their first letter, before any of the words is tried.
    first = "".join({letter for word, _ in known for letter in (word[0].lower(), word[0].upper())})
    pattern = "|".join(f"({make(word)})" for word, _ in known)
    before = "" if language == "ja" else r"(?<![\w-])"
    return re.compile(f"{before}(?=[{re.escape(first)}])(?:{pattern})"), [name for _, name in known]


def link_terms(html: str, language: str, glossary_url: str) -> str:
    """Link the first occurrence of each term in each section (up to the next h2) of a page's content.

    glossary_url is the glossary page's address as seen from this page. Nothing changes inside links, code, formulas,
    headings, figures and controls.
    """
    path = file()
    pattern, names = _matcher(path, path.stat().st_mtime_ns, language) if path.is_file() else (None, [])
    if not pattern:
        return html
    seen, out, position, closed, depth = set(), [], 0, None, 0

    def link(match):
        name = names[match.lastindex - 1]
        if name in seen:
            return match[0]
        seen.add(name)
        return f'<a class="term" href="{glossary_url}#term-{name}">{match[0]}</a>'

    for tag in MARKUP.finditer(html):
        text = html[position : tag.start()]
        out += [text if closed else pattern.sub(link, text), tag[0]]
        position = tag.end()
        element = tag[2]
        if not element:
            continue
        if closed:
            if element == closed and not tag[3].endswith("/"):
                depth += -1 if tag[1] else 1
                if not depth:
                    closed = None
        elif not tag[1]:
            if element == "h2":
                seen.clear()
            if (element in CLOSED_ELEMENTS or CLOSED_CLASSES.search(tag[3])) and not tag[3].endswith("/"):
                closed, depth = element, 1
    rest = html[position:]
    out.append(rest if closed else pattern.sub(link, rest))
    return "".join(out)


# The page


def _sort_key(term, language):
    word = term.get("yomi") or term["ja"] if language == "ja" else term[language]
    # One order for both kana, so that readings sort as in a Japanese index; Latin words come first.
    return "".join(chr(ord(letter) - 0x60) if "ァ" <= letter <= "ヶ" else letter for letter in word.casefold())


def render(language: str) -> str:
    """The whole glossary as Markdown: a definition list in the language's order, each term with the id term-ID."""
    other = next(name for name in project.COMPLETE if name != language)
    said = words.of("glossary", language)
    lines = ['<dl class="glossary" markdown>']
    for term in sorted(
        (term for term in load().terms if term.get(language)), key=lambda term: _sort_key(term, language)
    ):
        twin = "" if term[other] == term[language] else f' <span lang="{other}">{term[other]}</span>'
        lines += [f'<dt id="term-{term["id"]}" markdown="span">{term[language]}{twin}</dt>']
        lines += ['<dd markdown="block">', "", term["define"][language].strip(), ""]
        if elsewhere := term.get("elsewhere", {}).get(language):
            lines += [f"{said['elsewhere']}{said['join'].join(elsewhere)}{said['stop']}", ""]
        page, _, fragment = term.get("page", "").partition("#")
        if page and (title := reader.page_title(language, page)):
            target = _from_glossary(page) + (f"#{fragment}" if fragment else "")
            lines += [f"{said['more']}[{title}]({target})", ""]
        lines += ["</dd>"]
    return "\n".join([*lines, "</dl>"])


def _from_glossary(page):
    return f"../{page}" if not page.startswith("reference/") else Path(page).name


def put(markdown: str, page: Page) -> str:
    """The glossary page with its terms."""
    return reader.replaced(
        markdown, page, lambda fence: render(page.language) if fence.language == "glossary" else None
    )


def link(html: str, page: Page) -> str:
    """A page's text with its terms linked to the glossary."""
    if page.name in UNLINKED_PAGES or not (project.DOCS / page.language / PAGE).is_file():
        return html
    return link_terms(html, page.language, page.link(project.address_of(PAGE)))
