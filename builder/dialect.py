"""What Python-Markdown has to know of ours: which elements hold Markdown, and what a step has drawn is left as it is."""

import re

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

from builder.finished.markup import explorers

DRAWN = re.compile(r'^([ ]*)(<figure .*|<div class="arithmatex">.*)$')


HINT = re.compile("^<details>")


class Dialect(Extension):
    """Added to the extensions that mkdocs.yml names."""

    def extendMarkdown(self, md: Markdown) -> None:
        """What Python-Markdown calls."""
        # `<rosetta-map markdown>` holds paragraphs and fences
        md.block_level_elements = [*md.block_level_elements, *explorers()]
        md.preprocessors.register(_Drawn(md), "drawn", 26)  # before md_in_html, which would take the HTML apart
        md.preprocessors.register(_Hint(md), "hint", 24)  # when fences are gone, and before md_in_html


class _Drawn(Preprocessor):
    """A figure or a formula that stands on a line of its own is kept as it is."""

    def run(self, lines):
        return [DRAWN.sub(lambda found: found[1] + self.md.htmlStash.store(found[2]), line) for line in lines]


class _Hint(Preprocessor):
    """`<details>` holds Markdown, as it does in a notebook."""

    def run(self, lines):
        return [HINT.sub('<details markdown="block">', line) for line in lines]
