"""THE order: what happens to the scripts, to the sources, to each page, to the finished site, and what swaps it in.

Nothing here knows MkDocs. `mkdocs_adapter.py` calls these; `python -m builder before`, `content` and `after` let any other
renderer of Markdown stand between them.

    once        scripts()    run what changed; a claim that does not hold ends the build
                sources()    everything that is wrong with the Markdown of both languages, told at once
    each page   before()     Markdown in, Markdown out: includes, values, figures are put in
                content()    the HTML that a renderer made of it: links to terms and notebooks
                after()      the finished page: formulas drawn, markup made good, its policy last
    language    written()    what stands beside the pages: notebooks, data, the index of the search
    once        site()       the whole is checked; only then does it take the place of the last one
"""

import functools
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from builder import languages, project, staging
from builder.figures import fence as figures
from builder.finished import lean, markup, mathematics, once, policy
from builder.finished import site as finished_site
from builder.kept import kept
from builder.languages import with_whole_addresses
from builder.pages import (
    banner,
    checks,
    claims_page,
    exercises,
    explorer_data,
    formulas,
    glossary,
    includes,
    journey,
    links,
    notebooks,
    reader,
    search,
    typed,
    values,
)  # fmt: skip
from builder.pages.page import Page
from builder.project import Fault
from builder.scripts import current, recorded, records

SCRIPTS = (
    current.run_scripts,  # every record is current, or the build has ended
    notebooks.execute,  # practice pages, whose cells use the records
)
SOURCES = (
    recorded.faults,
    languages.faults,
    checks.faults,  # after the scripts: includes name their outputs
    search.faults,
    exercises.faults,
    explorer_data.faults,
    journey.faults,
)
BEFORE = (
    notebooks.cut,  # a practice page's cells
    claims_page.put,  # quiet lines first: they look for the blocks as they are written
    values.put,  # marks go with it
    glossary.put,
    journey.put_map,
    links.put,
    formulas.put,
    figures.put,  # before the includes, whose code may show a fence
    includes.put,
)
CONTENT = (
    typed.check,  # before anything is added
    formulas.legible,
    journey.put,  # its line stands under that of the notebook
    notebooks.put,
    banner.put,
    glossary.link,
    lean.unsearched,
)
THEME = (  # what only the pages of the theme have
    search.serve_ours,
    with_whole_addresses,
)
AFTER = (
    lean.lighter,
    mathematics.typeset,  # after the search has seen the TeX
    markup.put,
    staging.from_the_root,
    policy.put,  # after everything that writes into the page
)


def scripts() -> None:
    """Run what is not current; the build ends with every claim that no longer holds."""
    values.site_values.cache_clear()
    _state.cache_clear()
    for step in SCRIPTS:
        project.stop(step())


def sources(nav_faults: Iterable[Fault] = ()) -> None:
    """The build ends with everything that is wrong with the navigation and the Markdown of both languages, together."""
    project.stop([*nav_faults, *(fault for step in SOURCES for fault in step())])


_state = functools.cache(records.state)  # of this build


def before(markdown: str, page: Page) -> str:
    """A page's Markdown without front matter -> Markdown and HTML that any renderer takes."""

    def made():
        text = markdown
        for step in BEFORE:
            text = step(text, page)
        return text

    if typed.OF_OTHER_PAGES & {fence.language for fence in reader.fences_of(markdown)}:
        page.markdown = made()
    else:
        listed = claims_page.is_there(page.language)
        parts = [page.name, markdown, page.source, bool(page.notebook), listed, _state(), values.site_values()]
        page.markdown = kept(f"{page.language}/sources", parts, made, lambda _: not page.faults)
    return page.markdown


def content(html: str, page: Page) -> str:
    """What a renderer made of it -> what stands between the page's head and its foot."""
    for step in CONTENT:
        html = step(html, page)
    return html


def around_text(page: Page) -> list[str]:
    """What a page's text is made of besides its own Markdown, as a digest can be taken of it."""
    return [project.DOCS.joinpath("glossary.yml").read_text("utf-8"), banner.put("", page), journey.said(page)]


def found(html: str, page: Page) -> list[dict]:
    """What the search finds on a page, given its text after `content`; nothing where a page is left out of the search."""
    return [] if lean.is_unsearched(html) or search.is_excluded(page) else search.sections(html)


def after(html: str, page: Page) -> str:
    """A whole page of HTML -> the page that is published."""
    for step in AFTER:
        html = step(html, page)
    return html


def after_theme(html: str, page: Page) -> str:
    """A whole page as Material makes it -> the page that is published."""
    for step in THEME:
        html = step(html, page)
    return after(html, page)


def written(folder: Path, language: str, pages: list[Page]) -> None:
    """When every page of a language stands in its folder; the build ends with what the pages' steps noted."""
    mathematics.close()
    project.stop(fault for page in pages for fault in page.faults)
    notebooks.write(folder, pages, figures.standing)
    explorer_data.write(folder)
    search.write(folder, language, {page.name: page.found for page in pages if page.found})


def site(building: Path, address: str) -> None:
    """When both languages stand: the doors are written, the whole is checked, and it takes the last site's place."""
    project.stop(staging.share(building))
    if not project.state.serving:
        lean.theme_css(building)
        lean.without_comments(building)
        once.take_out(building)
    staging.write_root(building, address)
    project.stop(finished_site.check_site(building, urlsplit(address).path, address))
    staging.swap(building)
