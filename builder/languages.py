"""Several languages, one site: how each names itself, which pages its navigation has, and where the other one's twin is."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from builder import project, words
from builder.project import Fault

if TYPE_CHECKING:
    from builder.pages.page import Page


def faults() -> Iterator[Fault]:
    """Words of ours that a language lacks, and languages that have no pages."""
    for told in words.faults():
        yield Fault(project.relative(words.FILE), 0, told)
    for language in project.LANGUAGES.keys() - project.COMPLETE:
        if not (project.DOCS / language / "index.md").is_file():
            yield Fault(
                f"docs/{language}", 0, f"there is no index.md, and docs/words.yml names the language {language}"
            )


def nav_faults(nav: list) -> list[Fault]:
    """Pages that the navigation forgets, and names in it that are no page."""
    named = set(_names(nav))
    pages = {page.as_posix() for language in project.LANGUAGES for page in project.page_files(language)}
    missing = [f"the nav names {name}, and there is no such page" for name in sorted(named - pages)]
    forgotten = [f"the nav does not name {name}: no reader would find it" for name in sorted(pages - named)]
    return [Fault("mkdocs.yml", 0, message, soft=True) for message in [*missing, *forgotten]]


def _names(nav):
    for item in nav:
        yield from _names(next(iter(item.values()))) if isinstance(item, dict) else [item]


def local_nav(nav: list, titles: dict[str, dict[str, str]], language: str) -> list:
    """The navigation in this language: section ids become titles; a page not written in it yet is left out."""
    local = []
    for item in nav:
        if isinstance(item, dict):
            ((section, pages),) = item.items()
            pages = local_nav(pages, titles, language)
            if pages:
                local.append({titles[section]: pages})
        elif (project.DOCS / language / item).exists():
            local.append(item)
    return local


def having(page: str) -> list[str]:
    """The languages that have a page."""
    return [language for language in project.LANGUAGES if (project.DOCS / language / page).is_file()]


def twins(page: "Page", root: str) -> list[dict[str, str]]:
    """The same page in each language, as addresses from the host's root: what Material's switch lists."""
    return [
        {"name": name, "lang": language, "link": f"{root}/{language}/{page.url}"}
        for language, name in project.LANGUAGES.items()
        if (project.DOCS / language / page.name).exists()
    ]


def with_whole_addresses(html: str, page: "Page") -> str:
    """hreflang must be whole addresses; x-default is the page that asks for a language."""
    root = urlsplit(page.site).path
    for language in project.LANGUAGES:
        link = f'<link rel="alternate" href="{root}/{language}/{page.url}"'
        html = html.replace(link, f'<link rel="alternate" href="{page.site}/{language}/{page.url}"')
    address = f"{page.site}/en/{page.url}" if page.url else f"{page.site}/"
    default = f'<link rel="alternate" href="{address}" hreflang="x-default">'
    return html.replace('<link rel="icon"', default + '\n      <link rel="icon"', 1)
