"""Under serve, what is wrong with a page is told on the page."""

import html
import re
from pathlib import Path

from builder import project, words
from builder.pages.page import Page


def banner(file: str, language: str) -> str:
    """The soft faults that name a page or its script, as a box; empty where there are none."""
    script = project.relative(project.SNIPPETS / project.script_of(Path(file).relative_to(f"docs/{language}")))
    told = [fault for fault in sorted(set(project.soft_faults)) if file in str(fault) or fault.file == script]
    items = "".join(f"<li>{html.escape(str(fault))}</li>" for fault in told)
    return (
        f'<div class="admonition warning build-faults"><p class="admonition-title">{words.of("faults", language)["page"]}</p>'
        f"<ul>{items}</ul></div>\n"
        if told
        else ""
    )


def put(content: str, page: Page) -> str:
    """The page's text below its banner."""
    return banner(page.file, page.language) + content if project.soft_faults else content


OPENING = '<div class="admonition warning build-faults" id="build-stopped">'
BOX = re.compile(re.escape(OPENING) + r".*?</div>\n", re.S)
ARTICLE = re.compile(r"<article\b[^>]*>")


def show_everywhere(site: Path, message: str) -> None:
    """Write what ended a build above every page of the last good site, wherever the writer looks."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in message.splitlines())
    for language in project.LANGUAGES:
        title = words.of("faults", language)["stopped"]
        box = f'{OPENING}<p class="admonition-title">{title}</p><ul>{items}</ul></div>\n'
        for path in (site / language).rglob("*.html"):
            text = BOX.sub("", path.read_text("utf-8"))
            if article := ARTICLE.search(text):
                path.unlink()  # the next site may share it
                path.write_text(text[: article.end()] + box + text[article.end() :], "utf-8")
