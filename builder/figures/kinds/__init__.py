"""The kinds of figure, one file each. They know tensors and labels, nothing of MkDocs or of pages.

A kind's file has three functions. All take tensors {name: Array}, the labels as the script gave them, and the texts of the
page in its language; all raise Refused where the picture would not be honest.

    check(tensors, labels, texts)                    what the other two work on, checked once
    panels(tensors, labels, texts, checked)          small pictures that stand side by side and wrap on a narrow screen
    tables(tensors, labels, texts, words, checked)   the same as tables of HTML; words: the house's own in that language
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from builder.figures.drawing import Panel
from builder.figures.kinds import attention, bars, blocks, curves, flow, matrix


@dataclass(frozen=True)
class Kind:
    """How one kind is drawn, and what it may be told."""

    check: Callable
    panels: Callable[..., list[Panel]]
    tables: Callable[..., Iterable[str]]
    labels: frozenset[str]  # what a script may say
    texts: frozenset[str]  # what a page may say, beside a title and a description


def _kind(module, labels, texts):
    return Kind(module.check, module.panels, module.tables, frozenset(labels.split()), frozenset(texts.split()))


KINDS = {
    "matrix": _kind(matrix, "groups rows columns operators digits mark rounding", "rows columns tokens"),
    "blocks": _kind(blocks, "groups code", "rows columns"),
    "attention": _kind(attention, "queries keys heads masked grid extra", "rows columns heads tokens"),
    "curves": _kind(curves, "points log band x", "series x y"),
    "bars": _kind(bars, "categories low high log rounding", "series x tokens"),
    "flow": _kind(flow, "nodes edges", "nodes"),
}
