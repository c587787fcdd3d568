"""Formulas of a page, marked so that any renderer of Markdown leaves them alone. finished/mathematics.py draws what is marked.

A formula becomes `<span class="arithmatex">\\(…\\)</span>`, or `<div class="arithmatex">\\[…\\]</div>` on a line of its own, as
MathJax's readers of plain pages know them. What Markdown would read in it is written by its number.
"""

import html
import re

from builder.pages import reader
from builder.pages.page import Page

PLAIN = set(" ,.;:=+-/()'")
MARKED = re.compile(r'<(span|div) class="arithmatex">([^<]*)</\1>')


def put(markdown: str, page: Page) -> str:
    """A page whose formulas are marked."""
    made, end = [], 0
    for start, stop, displayed, tex in reader.formulas_in(markdown):
        before = markdown[end:start]
        alone = displayed and not before.rpartition("\n")[2].strip() and not markdown[stop:].partition("\n")[0].strip()
        name, opening, closing = ("div" if alone else "span", *((r"\[", r"\]") if displayed else (r"\(", r"\)")))
        made += [before, f'<{name} class="arithmatex">{_quiet(opening + tex + closing)}</{name}>']
        end = stop
    return "".join([*made, markdown[end:]])


def _quiet(text):
    return "".join(letter if letter.isalnum() or letter in PLAIN else f"&#{ord(letter)};" for letter in text)


def legible(content: str, page: Page) -> str:
    """What a renderer made of it, its formulas' letters as letters again: the search and the next steps read TeX."""

    def plain(match):
        return f'<{match[1]} class="arithmatex">{html.escape(html.unescape(match[2]), quote=False)}</{match[1]}>'

    return MARKED.sub(plain, content)
