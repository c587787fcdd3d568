"""What the search field looks through: less than the pages say, and the words that readers use for it.

Of the sections of the pages each block of code becomes its distinct words, markup goes, every
term of the glossary becomes an entry of its own, and a page gets the words of its front matter (`search: [枝刈り, prune]`)
and those that the glossary knows for what it explains. docs/shared/javascripts/search.js looks for a query in that.
"""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from builder import project
from builder.pages import glossary, reader
from builder.pages.page import Page
from builder.project import Fault

VOID = {"br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]")  # of TeX, which is shown as it is
WORD = re.compile(r"[^\W\d]\w+(?:\.[^\W\d]\w*)*")
MATERIALS_WORKER = re.compile(r'"search": "[^"]*/workers/search\.[^"]*"')
# Where several pages answer: practice repeats what the lessons say, reference lists what they explain.
WEIGHTS = {"practice/": 0.6, "reference/": 0.5}


def words_of(language: str, page: Path | str) -> list[str]:
    """The words that a page's front matter wants it to be found by; a mapping takes it out."""
    words = reader.front_matter((project.DOCS / language / page).read_text("utf-8")).get("search", [])
    return [] if isinstance(words, dict) else words


def is_excluded(page: Page) -> bool:
    """Whether the front matter takes a page out of the search: `search: {exclude: true}`."""
    said = page.meta.get("search")
    return isinstance(said, dict) and bool(said.get("exclude"))


def faults() -> Iterator[Fault]:
    """Lists of words that are no lists of words: `True` or `1` without quotes, a word twice."""
    for language in project.LANGUAGES:
        for page in project.page_files(language):
            words, name = words_of(language, page), project.relative(project.DOCS / language / page)
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                told = f"search: {words!r} is no list of words: write `search: [one, two words]`"
                yield Fault(name, 1, told, soft=True)
            elif twice := sorted({word for word in words if words.count(word) > 1}):
                yield Fault(name, 1, f"search names {twice[0]} more than once", soft=True)


def serve_ours(html: str, page: Page) -> str:
    """The search field is served by our own worker; Material's, its segmenter and its stemmers are never fetched."""
    html, count = MATERIALS_WORKER.subn(f'"search": "{page.link("javascripts/search.js")}"', html)
    if count != 1:
        project.stop(
            [Fault("builder/pages/search.py", 0, f"{page.url} names {count} search workers of Material, not 1")]
        )
    return html


def sections(html: str) -> list[dict[str, str]]:
    """What there is to be found on a page: [{"id", "title", "text", "code"}], the part before its second heading first.

    html    a page's text. What carries `data-search-exclude` is left out, markup goes, TeX loses its delimiters, and of
            each block of code every word is there once.
    """
    reader = _Sections()
    reader.feed(html)
    reader.close()
    found = []
    for section in reader.found:
        text = DELIMITER.sub("", "".join(section["text"]))
        code = dict.fromkeys(word for block in section["code"] for word in WORD.findall(block))
        title = "".join(section["title"]).strip()
        found.append({"id": section["id"], "title": title, "text": " ".join(text.split()), "code": " ".join(code)})
    return found


class _Sections(HTMLParser):
    """Collects the titles, sentences and blocks of code of a page, section by section."""

    def __init__(self):
        super().__init__()
        self.found = [{"id": "", "title": [], "text": [], "code": []}]
        self.open, self.excluded, self.titled, self.block = [], 0, None, None

    def handle_starttag(self, tag, attributes):
        if tag in VOID:
            return
        self.open.append(tag)
        named = dict(attributes)
        if not self.excluded and ("data-search-exclude" in named or tag in ("script", "style")):
            self.excluded = len(self.open)
        if self.excluded:
            return
        if re.fullmatch("h[1-6]", tag) and "id" in named:
            first = self.found[-1]
            if first["title"] or "".join(first["text"]).strip() or first["code"]:
                self.found.append({"id": named["id"], "title": [], "text": [], "code": []})
            self.titled = len(self.open)
        elif tag == "a" and named.get("class") == "headerlink":
            self.excluded = len(self.open)
        elif tag == "pre":
            self.found[-1]["text"].append(" ")
            self.found[-1]["code"].append("")
            self.block = len(self.open)

    def handle_endtag(self, tag):
        if tag not in self.open:
            return
        while self.open:
            if self.excluded == len(self.open):
                self.excluded = 0
            if self.titled == len(self.open):
                self.titled = None
            if self.block == len(self.open):
                self.block = None
            if self.open.pop() == tag:
                break

    def handle_data(self, data):
        if self.excluded:
            return
        section = self.found[-1]
        if self.block:
            section["code"][-1] += data
        else:
            section["title" if self.titled else "text"].append(data)


def write(folder: Path, language: str, found: dict[str, list[dict[str, str]]]) -> None:
    """The index of a language, in its folder of the site.

    found    {page: the sections of its text}, in the order of the pages
    """
    names, docs = names_by_page(language), []
    for page, parts in found.items():
        address = project.address_of(page)
        for number, part in enumerate(parts):
            location = address + (f"#{part['id']}" if part["id"] else "")
            doc = {
                "location": location,
                "title": part["title"],
                "text": part["text"],
                "code": part["code"],
                "boost": weight(page),
            }
            if not number:  # the page itself, before its sections
                doc |= {"words": words_of(language, page), "names": names.get(page, [])}
                if page == glossary.PAGE:
                    doc["text"] = ""
            docs.append(doc)
            if page == glossary.PAGE and not number:
                docs += terms(language, location)
    for unused in ("lunr", "workers"):
        shutil.rmtree(folder / "assets" / "javascripts" / unused)
    path = folder / "search" / "search_index.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"docs": docs}, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def weight(page: str) -> float:
    """What a hit on a page counts beside one on a lesson."""
    return next((less for folder, less in WEIGHTS.items() if page.startswith(folder)), 1)


def names_by_page(language: str) -> dict[str, list[str]]:
    """What the glossary calls the things that a page explains, in this language, in its reading and in the paper's English."""
    names = {}
    for term in glossary.load().terms:
        page = term.get("page", "").partition("#")[0]
        names.setdefault(page, []).extend(_names(term, language))
    return {page: list(dict.fromkeys(words)) for page, words in names.items() if page}


def _names(term, language):
    elsewhere = term.get("elsewhere", {}).get(language, [])
    reading = [term["yomi"]] if language == "ja" and "yomi" in term else []
    english = glossary.words_of(term, "en") if language != "en" else []
    return [*glossary.words_of(term, language), *elsewhere, *reading, *english]


def terms(language: str, page: str) -> Iterator[dict]:
    """An entry for each term of the glossary, apart: two words in two definitions are not side by side."""
    for term in (term for term in glossary.load().terms if term.get(language)):
        yield {
            "location": f"{page}#term-{term['id']}",
            "title": term[language],
            "text": " ".join(term["define"][language].replace("`", "").split()),
            "names": _names(term, language)[1:],
            "boost": weight(page),
            "apart": True,
        }
