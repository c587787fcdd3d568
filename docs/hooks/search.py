"""What the search field looks through: less than the pages say, and the words that readers use for it.

Material's plugin collects the sections of the pages. Here each block of code becomes its distinct words, markup goes, every
term of the glossary becomes an entry of its own, and a page gets the words of its front matter (`search: [枝刈り, prune]`)
and those that the glossary knows for what it explains. docs/shared/javascripts/search.js looks for a query in that.
"""

import html
import json
import re
import shutil
from pathlib import Path

import glossary
import project
from mkdocs.plugins import event_priority
from mkdocs.utils import get_relative_url
from mkdocs.utils.meta import get_data
from project import Fault

BLOCK = re.compile(r"<pre>(.*?)</pre>", re.S)
TAG = re.compile(r"<[^>]*>")
DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]")  # of TeX, which is shown as it is
WORD = re.compile(r"[^\W\d]\w+(?:\.[^\W\d]\w*)*")
MATERIALS_WORKER = re.compile(r'"search": "[^"]*/workers/search\.[^"]*"')
# Where several pages answer: practice repeats what the lessons say, reference lists what they explain.
WEIGHTS = {"practice/": 0.6, "reference/": 0.5}


def words_of(language, page):
    """The words that a page's front matter wants it to be found by; a mapping is meant for Material's plugin."""
    words = get_data((project.DOCS / language / page).read_text("utf-8"))[1].get("search", [])
    return [] if isinstance(words, dict) else words


def faults():
    """Lists of words that are no lists of words: `True` or `1` without quotes, a word twice."""
    for language in project.LANGUAGES:
        for page in project.page_files(language):
            words, name = words_of(language, page), project.relative(project.DOCS / language / page)
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                told = f"search: {words!r} is no list of words: write `search: [one, two words]`"
                yield Fault(name, 1, told, soft=True)
            elif twice := sorted({word for word in words if words.count(word) > 1}):
                yield Fault(name, 1, f"search names {twice[0]} more than once", soft=True)


def on_pre_build(config):
    if not project.IS_CHILD:
        project.stop(faults())


@event_priority(100)  # before the plugin reads the key
def on_page_markdown(markdown, page, **_):
    if not isinstance(page.meta.get("search"), dict):
        page.meta.pop("search", None)


@event_priority(-50)
def on_post_page(output, page, **_):
    """The search field is served by our own worker; Material's, its segmenter and its stemmers are never fetched."""
    ours = f'"search": "{get_relative_url("javascripts/search.js", page.url)}"'
    output, count = MATERIALS_WORKER.subn(ours, output)
    if count != 1:
        project.stop([Fault("docs/hooks/search.py", 0, f"{page.url} names {count} search workers of Material, not 1")])
    return output


@event_priority(-50)  # when the plugin has written it, before the site is checked
def on_post_build(config):
    path = Path(config.site_dir) / "search" / "search_index.json"
    index = json.loads(path.read_text("utf-8"))
    names = names_by_page(project.LANG)
    addresses = {_address(page): page for page in map(Path.as_posix, project.page_files(project.LANG))}
    docs, seen = [], set()
    for entry in index["docs"]:
        address = entry["location"].partition("#")[0]
        page = addresses[address]
        doc = {"location": entry["location"], **told(entry), "boost": weight(page)}
        if address not in seen:  # the page itself, before its sections
            doc |= {"words": words_of(project.LANG, page), "names": names.get(page, [])}
        elif doc["title"] == docs[-1]["title"] and docs[-1]["location"] == address:  # a notebook's title is a section
            docs[-1] |= {"text": doc["text"], "code": doc["code"]}
            continue
        seen.add(address)
        docs.append(doc)
        if page == glossary.PAGE:
            doc["text"] = ""
            docs += terms(project.LANG, entry["location"])
    index["docs"] = docs
    for unused in ("lunr", "workers"):
        shutil.rmtree(Path(config.site_dir) / "assets" / "javascripts" / unused)
    path.write_text(json.dumps(index, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _address(page):
    """layouts/rosetta.md -> layouts/rosetta/, index.md -> nothing."""
    return page.removesuffix("index.md") if page.endswith("index.md") else page.removesuffix(".md") + "/"


def told(entry):
    """An entry of the plugin's without markup: its title, its sentences with their TeX, and each word of its code once."""
    code = dict.fromkeys(word for block in BLOCK.findall(entry["text"]) for word in WORD.findall(_plain(block)))
    return {
        "title": _plain(entry["title"]).strip(),
        "text": " ".join(DELIMITER.sub("", _plain(BLOCK.sub(" ", entry["text"]))).split()),
        "code": " ".join(code),
    }


def weight(page):
    return next((less for folder, less in WEIGHTS.items() if page.startswith(folder)), 1)


def _plain(markup):
    return html.unescape(TAG.sub("", markup))


def names_by_page(language):
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


def terms(language, page):
    """An entry for each term of the glossary, apart: two words in two definitions are not side by side."""
    for term in glossary.load().terms:
        yield {
            "location": f"{page}#term-{term['id']}",
            "title": term[language],
            "text": " ".join(term["define"][language].replace("`", "").split()),
            "names": _names(term, language)[1:],
            "boost": weight(page),
            "apart": True,
        }
