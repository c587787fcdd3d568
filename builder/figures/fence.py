"""Draws the figures that scripts kept: a fence names one and says its texts; SVG, text and tables come of it."""

import re

import yaml

from builder import project, words
from builder.figures import alone
from builder.figures.drawing import Array, Panel, Refused, clean
from builder.figures.kinds import KINDS
from builder.figures.kinds.common import missing
from builder.figures.tables import marked
from builder.pages import reader
from builder.pages.page import Page
from builder.project import Fault
from builder.scripts import records

# The keys that a fence may carry, and which kinds read them.
UNLIKELY = "numbersign"  # stands for # where YAML is not to see it
REQUIRED = ("title", "description")
KNOWN = sorted({text for kind in KINDS.values() for text in kind.texts})
# The labels whose texts a page may say in its own words.
TICKED = {"queries", "keys", "rows", "columns", "categories"}


# One figure


def _panels(data: dict, fence: dict, language: str) -> tuple[list[Panel], list[str]]:
    """The pictures of one figure and its tables; the parameters are those of `render`."""
    kind, labels = data["kind"], data.get("labels") or {}
    if kind not in KINDS:
        raise Refused(f"kind {kind!r} is unknown, there are {', '.join(KINDS)}")
    known = KINDS[kind]
    for key in sorted(set(labels) - known.labels):
        raise Refused(f"labels of kind {kind} do not know {key!r}, known are {', '.join(sorted(known.labels))}")
    for key in sorted(set(fence) & set(KNOWN) - known.texts):
        raise Refused(f"{key!r} says nothing in a figure of kind {kind}", by="page")
    labels = told(labels, fence.get("tokens") or {})
    said = words.of("figures", language)
    texts = {**said, **fence} if kind == "attention" else {**fence, "head": said["head"]}
    tensors = {name: Array.of(stored) for name, stored in (data.get("tensors") or {}).items()}
    if kind != "flow" and not tensors:
        raise Refused(f"a figure of kind {kind} needs tensors")
    checked = known.check(tensors, labels, texts)
    return known.panels(tensors, labels, texts, checked), known.tables(tensors, labels, texts, said, checked)


def render(data: dict, fence: dict, language: str, identity: str) -> str:
    """HTML of one figure.

    data      what a script kept: {"kind", "tensors": {name: {"shape", "dtype", "data"}}, "labels", "line"}
    fence     the texts of the page: title and description, and those that its kind reads
    language  "ja" or "en"
    identity  its id on the page will be figure-IDENTITY

    Raises Refused if the figure would not be honest, or a text has nothing to stand on.
    """
    panels, tables = _panels(data, fence, language)
    name = f"figure-{identity}"
    title = clean(fence["title"])
    return (
        f'<figure class="figure figure--{data["kind"]}" id="{name}">'
        f'<figcaption id="{name}-title">{marked(fence["title"])}</figcaption>'
        f"{pictures(panels, name, title)}"
        f'<details class="figure__numbers" data-search-exclude><summary>{words.of("figures", language)["table"]}</summary>'
        f'<p id="{name}-description">{clean(fence["description"])}</p>'
        f"{''.join(tables)}</details></figure>"
    )


def standing(fence: reader.Fence, page: Page) -> str:
    """The picture of a fence as one SVG that needs no page around it; empty where it cannot be drawn, which `draw` tells."""
    try:
        texts = texts_of("\n".join(fence.body))
        data, _, _ = kept(fence.figure, page.name)
        panels, _ = _panels(data, texts, page.language)
    except Refused:
        return ""
    return alone.svg(data["kind"], panels)


def told(labels: dict, tokens: dict) -> dict:
    """The labels of a script with what stands at rows and columns said in the page's words: {label: text}. Raises Refused."""
    tokens = {str(label): str(text) for label, text in tokens.items()}
    met = set()

    def said(ticks):
        met.update(map(str, ticks))
        return [tokens.get(str(tick), tick) for tick in ticks]

    out = dict(labels)
    for key in TICKED & set(labels):
        given = labels[key]
        out[key] = {name: said(ticks) for name, ticks in given.items()} if isinstance(given, dict) else said(given)
    missing(tokens, sorted(met), "tokens", by="page")
    return out


def pictures(panels: list[Panel], name: str, title: str) -> str:
    """The panels, each an SVG of its own, so that a narrow screen stacks them; one too wide for a phone scrolls."""
    pictured = [panel for panel in panels if not panel.legend]
    described = f'aria-describedby="{name}-description"'
    out = []
    for panel in panels:
        if panel.legend:
            naming = 'class="figure__svg figure__legend" aria-hidden="true"'
        elif len(pictured) == 1:
            naming = f'class="figure__svg" role="img" aria-labelledby="{name}-title" {described}'
        else:
            label = clean(f"{panel.label}")
            naming = f'class="figure__svg" role="img" aria-label="{label}"'
        if panel.fits_phone:
            out.append(panel.svg(naming))
        else:
            region = title if len(pictured) == 1 else f"{title}: {clean(panel.label)}"
            out.append(
                f'<div class="figure__scroll" tabindex="0" role="group" aria-label="{region}">'
                + panel.svg(naming.replace("figure__svg", "figure__svg figure__svg--wide"))
                + "</div>"
            )
    # Pairs break together: four heads stand as 4, 2 + 2 or 1 each, never as 3 + 1.
    heads = [markup for markup, panel in zip(out, panels, strict=True) if not panel.legend]
    heads = clustered(heads, pictured)
    legends = [markup for markup, panel in zip(out, panels, strict=True) if panel.legend]
    if len(heads) >= 4 and len(heads) % 2 == 0 and len({(p.width, p.height) for p in pictured}) == 1:
        heads = [f'<div class="figure__pair">{a}{b}</div>' for a, b in zip(heads[::2], heads[1::2], strict=True)]
    group = f' role="group" aria-labelledby="{name}-title" {described}' if len(pictured) > 1 else ""
    return f'<div class="figure__panels" data-search-exclude{group}>{"".join(heads + legends)}</div>'


def clustered(markups: list[str], panels: list[Panel]) -> list[str]:
    """Neighbours of one cluster in a line of their own, and such lines under each other beside what stands alone."""
    out, lines, key = [], [], ""

    def close():
        if lines:
            rows = "".join(f'<div class="figure__row">{"".join(line)}</div>' for line in lines)
            out.append(f'<div class="figure__rows">{rows}</div>')
            lines.clear()

    for markup, panel in zip(markups, panels, strict=True):
        if not panel.cluster:
            close()
            out.append(markup)
        elif lines and panel.cluster == key:
            lines[-1].append(markup)
        else:
            lines.append([markup])
        key = panel.cluster
    close()
    return out


# Fences of a page


def kept(name: str, source: str) -> tuple[dict, str, str]:
    """(what the script kept, its script, the short name); name may be `layouts/rosetta:name`. Raises Refused."""
    page, _, short = name.rpartition(":")
    script = project.script_of(page + ".md" if page else source)
    known = records.record(script, "figures") or {}
    if short not in known:
        there = ", ".join(known) or "none"
        raise Refused(f"snippets/{script} keeps no figure {short!r}; it keeps: {there}", by="page")
    return known[short], script, short


def texts_of(source: str) -> dict:
    """The YAML of a fence, checked. Raises Refused, whose `line` counts from the fence."""
    try:
        texts = words.yaml_of(source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or error
        refused = Refused(f"the YAML of a figure cannot be read: {problem} (quote a text with a colon)", by="page")
        refused.line = mark.line + 1 if mark else 0
        raise refused from None
    if "#" in source and repr(words.yaml_of(source.replace("#", UNLIKELY))).replace(UNLIKELY, "#") != repr(texts):
        raise Refused("to YAML, what stands behind ' #' is a comment: quote a text that has one", by="page")
    if not isinstance(texts, dict):
        raise Refused("a figure needs at least the lines title: and description:", by="page")
    for key in REQUIRED:
        if not str(texts.get(key) or "").strip():
            raise Refused(f"a figure needs {key}:", by="page")
    for key, value in texts.items():
        if key not in REQUIRED and key not in KNOWN:
            raise Refused(f"a figure does not know {key!r}, known are {', '.join((*REQUIRED, *KNOWN))}", by="page")
        if key in ("series", "nodes", "tokens") and not isinstance(value, dict):
            raise Refused(f"{key}: is a map of names to texts", by="page")
        if key == "heads" and not isinstance(value, list):
            raise Refused("heads: is a list of texts", by="page")
        if key in (*REQUIRED, "x", "y") and not isinstance(value, (str, int, float)):
            raise Refused(f"{key}: is one text", by="page")
    return texts | {key: str(texts[key]) for key in REQUIRED}


def draw(fence: reader.Fence, page: Page) -> str:
    """HTML of the figure that a fence of the page names; a paragraph and a fault of the page where it cannot be drawn."""
    name = fence.figure
    try:
        texts = texts_of("\n".join(fence.body))
        data, script, short = kept(name, page.name)
    except Refused as refused:
        page.fault(str(refused), fence.line + getattr(refused, "line", 0))
        return "<p></p>"
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", short)
    page.drawn[slug] = times = page.drawn.get(slug, 0) + 1
    try:
        return render(data, texts, page.language, slug if times == 1 else f"{slug}-{times}")
    except Refused as refused:
        if refused.by == "page":
            page.fault(f"figure {short!r}: {refused}", fence.line)
        else:
            said = f"figure {short!r}, shown by {page.file}:{fence.line}: {refused}"
            page.faults.append(Fault(f"snippets/{script}", data.get("line", 0), said))
        return "<p></p>"


def put(markdown: str, page: Page) -> str:
    """Every figure's fence replaced by its HTML, on one line, as any renderer of Markdown leaves it."""
    return reader.replaced(markdown, page, lambda fence: draw(fence, page) if fence.language == "figure" else None)
