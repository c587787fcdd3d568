"""Formulas, typeset while the site is built: an SVG for the eye, MathML for a screen reader, the TeX for copying.

`pages/formulas.py` leaves each formula on the page as TeX. This works on the finished page, so that
search has indexed the TeX, and lets MathJax, in V8, draw it. No script and no style attribute reaches the reader: how
far a formula reaches below the line is one of a fixed grid of classes. Outlines of letters stand once on each page.
"""

import atexit
import hashlib
import html as entities
import json
import math
import os
import re
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from builder import project, words
from builder.scripts import records

if TYPE_CHECKING:
    from builder.pages.page import Page

STYLESHEET = "assets/mathematics.css"

MACROS = {
    "softmax": r"\operatorname{softmax}",
    "Attention": r"\operatorname{Attention}",
    "MultiHead": r"\operatorname{MultiHead}",
    "Concat": r"\operatorname{Concat}",
    "head": r"\mathrm{head}",
    "R": r"\mathbb{R}",
}

DISTRIBUTION = "django-static-mathjax"  # MathJax's own files as a wheel
PARTS = [
    "loader.js",
    "core.js",
    "adaptors/liteDOM.js",
    "input/tex.js",
    "input/tex/extensions/boldsymbol.js",
    "output/svg.js",
    "output/svg/fonts/tex.js",  # without it every letter is a <text> in no font
]

STEP = 0.025  # ex: a tenth of a pixel of error at most where an ex is 8 pixels
DEEPEST, HIGHEST = 160, -60  # steps below the line; what is deeper is for a line of its own
GRID = 5  # thousandths of an em: half of it is a twentieth of a pixel where an em is 20
LENIENT = 5  # thousandths of an em
NARROW = 24  # ex: what fits the narrowest column, so that it need not be a scroll box with a stop of the Tab key

BEFORE_MATHJAX = """
var window = globalThis, self = globalThis;
var location = {protocol: "file:", host: "", pathname: "/", href: "file:///", search: ""};
var console = {log() {}, warn() {}, error() {}, info() {}};
var URL = function (url) { this.href = url; this.pathname = url; };
var MathJax = {loader: {load: []}, startup: {typeset: false}};
"""

AFTER_MATHJAX = """
var typeset = (function (macros) {
    const parts = MathJax._;
    const adaptor = parts.adaptors.liteAdaptor.liteAdaptor();
    parts.handlers.html_ts.RegisterHTMLHandler(adaptor);
    const output = new parts.output.svg_ts.SVG({
        fontCache: "global", internalSpeechTitles: false, font: new parts.output.svg.fonts.tex_ts.TeXFont(),
    });
    const visitor = new parts.core.MmlTree.SerializedMmlVisitor.SerializedMmlVisitor();
    let mathml = "";
    function input() {
        return new parts.input.tex_ts.TeX({
            packages: ["base", "ams", "boldsymbol", "configmacros"], macros: macros, tags: "none",
            formatError: (jax, error) => { throw error; },
        });
    }
    return function (tex, display) {
        // An input jax of its own for each formula: no macro of one reaches another.
        // A new document empties the cache of glyphs too, so that it holds this formula's alone.
        const page = parts.mathjax.mathjax.document("", {InputJax: input(), OutputJax: output});
        try {
            const state = parts.core.MathItem.STATE;
            const tree = page.convert(tex, {display: display, end: state.CONVERT});
            const drawn = page.convert(tex, {display: display, em: 16, ex: 8, containerWidth: 1e6, lineWidth: 1e6});
            return JSON.stringify({
                mathml: visitor.visitTree(tree),
                svg: adaptor.innerHTML(drawn),
                container: adaptor.getAttribute(drawn, "style") || "",
                glyphs: adaptor.innerHTML(output.fontCache.getCache()),
            });
        } catch (error) {
            return JSON.stringify({error: error.message});
        }
    };
})
"""

# Without `overflow: visible` the outermost strokes would be cut. Stretched brackets are made of an <svg> in the <svg>:
# there the theme's `height: auto` must not win over their own height.
STYLES = """\
.math{position:relative}
.math>svg{fill:currentColor;stroke:currentColor;stroke-width:0;overflow:visible;max-width:100%;height:auto}
.math svg svg{height:revert-layer;max-width:none}
.math use,.math-glyphs path{stroke-width:3}
.math line,.math rect[data-frame]{fill:none;stroke-width:70}
.math .mjx-dashed{stroke-dasharray:140}
.math .mjx-dotted{stroke-linecap:round;stroke-dasharray:0,140}
.math math{position:absolute;top:0;left:0;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);\
white-space:nowrap;user-select:none;-webkit-user-select:none}
.math--display{display:block;margin:1em 0;padding:.25em 0;overflow-x:auto;overflow-y:hidden}
.math--display>svg{display:block;margin:0 auto;max-width:none}
td .math>svg,th .math>svg{max-width:none}
.math-run{white-space:nowrap}
.math.b{margin-left:.15em}
.math.e{margin-right:.15em}
.math-glyphs{display:none}
@media print{.math use,.math-glyphs path{stroke:none}}
"""

FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*(\\\(|\\\[)([^<]*)\\[)\]]\s*</\1>')
# A browser would break the line between a picture and its comma.
RUN = re.compile(r'([(（「『]*)(<span class="arithmatex">\\\([^<]*</span>)([,.;:!?)、。，．：；！？）」』]*)')
# Between Japanese and Latin letters the browser makes a gap by itself; a picture of a formula has to bring its own.
JAPANESE = "[ぁ-ゖァ-ヺー々〆一-鿿]"
INLINE = r"(?:</?(?:a|em|strong|span)\b[^<>]*>)*"
AFTER_JAPANESE, BEFORE_JAPANESE = re.compile(JAPANESE + INLINE + "$"), re.compile(INLINE + JAPANESE)
LEFTOVER = re.compile(r'<\w+[^<>]* class="[^"]*\barithmatex\b[^"]*"[^<>]*>[^<]*')
HEADING = re.compile(r"<(h[1-6])\b[^>]*>.*?</\1>", re.DOTALL)
MOVED = re.compile(r"(?: ?translate\([^()]*\))+")
TRANSLATION = re.compile(r"translate\(([^()]*)\)")
LENGTH = re.compile(r"-?\d+(?:\.\d+)?")
USE = re.compile(r'<use\b[^>]* href="#([^"]*)"[^>]*/>')
SVG_NAME = "{http://www.w3.org/2000/svg}"
XLINK_HREF = "{http://www.w3.org/1999/xlink}href"

_engine = None


class TeXError(ValueError):
    """What MathJax, or this room, has against a formula."""


# --------------------------------------------------------------------------------------------------------- V8


def _source():
    """The scripts that make `typeset(tex, display)` in V8, in order."""
    files = {str(file).replace("\\", "/"): file for file in metadata.files(DISTRIBUTION)}
    parts = [Path(files[f"mathjax/static/mathjax/es5/{part}"].locate()) for part in PARTS]
    yield BEFORE_MATHJAX
    for part in parts:
        yield part.read_text(encoding="utf-8")
    yield AFTER_MATHJAX + f"({json.dumps(MACROS)});"


def _v8():
    """V8 with MathJax in it, started when a formula is first missing from the cache; `close()` ends it."""
    global _engine
    if _engine is None:
        from py_mini_racer import MiniRacer

        _engine = MiniRacer()
        for script in _source():
            _engine.eval(script)
    return _engine


def close() -> None:
    """End V8, if it runs: its thread and its memory are not needed between builds."""
    global _engine
    if _engine is not None:
        _engine.close()
        _engine = None


atexit.register(close)


# -------------------------------------------------------------------------------------------- from MathJax to ours


def _needs_style(style):
    return TeXError(f"it needs the style {style!r}, and pages have no style attributes")


def _ex(length):
    return float(length.removesuffix("ex"))


def _without_idle_groups(element, tag):
    """Put the children of every `tag` that says nothing in its place."""
    children = []
    for child in element:
        _without_idle_groups(child, tag)
        children.extend(child if child.tag == tag and not child.attrib else [child])
    element[:] = children


def _flat(element):
    """A group of nothing goes; a group of one thing hands its place to it; a letter that is only moved says where it stands."""
    children = []
    for child in element:
        _flat(child)
        if child.tag == "g" and not len(child):
            continue
        if child.tag == "g" and len(child) == 1 and set(child.attrib) <= {"transform"}:
            (only,) = child
            only.set("transform", f"{child.get('transform', '')} {only.get('transform', '')}".strip())
            child = only
        children.append(child)
    element[:] = children
    for child in children:
        moved = MOVED.fullmatch(child.get("transform", "")) if child.tag == "use" else None
        if moved:
            del child.attrib["transform"]
            steps = [[float(child.get(axis, 0)) for axis in "xy"]]
            steps += [[*map(float, one.replace(",", " ").split()), 0] for one in TRANSLATION.findall(moved[0])]
            for axis, name in enumerate("xy"):
                if length := round(sum(step[axis] for step in steps), 1):
                    child.set(name, f"{length:.1f}".removesuffix(".0"))


def _on_grid(element):
    """Letters and rules stand on a grid that no eye tells from where they stood: a tenth less to send once compressed.

    Brackets stretched by an <svg> of their own keep what stretches them.
    """

    def nearest(found):
        return str(round(float(found[0]) / GRID) * GRID)

    for child in element:
        if child.tag == "svg":
            continue
        for name in ("x", "y") if child.tag in ("use", "rect") else ():
            if name in child.attrib:
                child.set(name, nearest([child.get(name)]))
                if child.get(name) == "0":
                    del child.attrib[name]
        if moved := child.get("transform"):
            child.set("transform", TRANSLATION.sub(lambda step: f"translate({LENGTH.sub(nearest, step[1])})", moved))
        _on_grid(child)


def _in_sight(root):
    """The size of a drawing in whole thousandths, its width in hundredths; its height follows (`height: auto`)."""
    x, y, width, height = (float(length) for length in root.get("viewBox").split())
    left, top = math.floor(x), math.floor(y)
    root.set("viewBox", f"{left} {top} {math.ceil(x + width) - left} {math.ceil(y + height) - top}")
    root.set("width", f"{_ex(root.get('width')):.2f}".rstrip("0").rstrip(".") + "ex")
    del root.attrib["height"]


def _without_single_rows(element):
    """A row of one thing is that thing: in MathML this never changes the meaning, and readers announce less."""
    for index, child in enumerate(element):
        _without_single_rows(child)
        if child.tag == "mrow" and not child.attrib and len(child) == 1:
            element[index] = child[0]


def _drop_attributes(root, *prefixes):
    for element in root.iter():
        for name in [name for name in element.attrib if name.startswith(prefixes)]:
            del element.attrib[name]


def _text(root):
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True).replace(" />", "/>")


def _glyph(identifier):
    """MathJax's name of a letter's outline, shorter: MJX-1-TEX-I-1D465 -> g-I-1D465."""
    return re.sub(r"^#?MJX-(\d+-)?TEX-", "g-", identifier)


def relative_path(data: str) -> str:
    """The same outline in steps instead of places and on the grid of `GRID`: half of it is to be sent once compressed.

    Each point is at most half a step of the grid away, the handle of a curve LENIENT, which moves the curve by half of that.
    """

    def on_grid(*point):
        return tuple(round(length / GRID) * GRID for length in point)

    def mirrored(centre, handle):
        """The handle that follows by itself; behind what is no curve it is the place itself."""
        return tuple(2 * a - b for a, b in zip(centre, handle or centre, strict=True))

    def step(command, *places):
        lengths = [place - pen[axis % 2] for axis, place in enumerate(places)]
        steps.append(command + " ".join(map(str, lengths)).replace(" -", "-"))

    steps, pen, true, start, handle, true_handle = [], (0, 0), (0, 0), (0, 0), None, None
    for command, arguments in re.findall(r"([A-Z])([^A-Z]*)", data):
        numbers = [int(number) for number in re.findall(r"-?\d+", arguments)]
        size = {"H": 1, "V": 1, "M": 2, "L": 2, "T": 2, "Q": 4, "Z": 0}[command]
        assert len(numbers) == size, f"an outline that is not read right: {command}{arguments}"
        if command == "Z":
            steps.append("z")
            pen = true = start
            continue
        before = true
        true = {"H": (*numbers, true[1]), "V": (true[0], *numbers)}.get(command, tuple(numbers[-2:]))
        there = on_grid(*true)
        if command in "QT":
            true_handle = tuple(numbers[:2]) if command == "Q" else mirrored(before, true_handle)
            implied = mirrored(pen, handle)
            if max(abs(a - b) for a, b in zip(implied, true_handle, strict=True)) <= LENIENT:
                handle = implied
                step("t", *there)
            else:
                handle = on_grid(*true_handle)
                step("q", *handle, *there)
        else:
            handle = true_handle = None
            if command == "M":
                start = there
                step("m", *there)
            elif there[1] == pen[1]:
                steps.append(f"h{there[0] - pen[0]}")
            elif there[0] == pen[0]:
                steps.append(f"v{there[1] - pen[1]}")
            else:
                step("l", *there)
        pen = there
    return "".join(steps)


def _glyphs(markup):
    """{id: path data} of the outlines that a formula uses."""
    root = ElementTree.fromstring(f"<defs>{markup}</defs>")
    return {_glyph(path.get("id")): relative_path(path.get("d")) for path in root if path.get("d")}


def _drawing(markup):
    """(SVG, width in ex, depth in ex) from MathJax's SVG."""
    root = ElementTree.fromstring(markup)
    style = re.fullmatch(r"vertical-align: (-?[\d.]+(?:ex)?);", root.attrib.pop("style", ""))
    if style is None or not root.get("width", "").endswith("ex"):
        raise TeXError(r"it asks for the width of the column (\tag does), which is not known beforehand")
    depth = -_ex(style[1])
    for element in root.iter():
        if "style" in element.attrib:
            raise _needs_style(element.get("style"))
        element.tag = element.tag.removeprefix(SVG_NAME)
        if XLINK_HREF in element.attrib:
            element.set("href", "#" + _glyph(element.attrib.pop(XLINK_HREF)))
        if element.get("stroke") == element.get("fill") == "currentColor":
            del element.attrib["stroke"], element.attrib["fill"], element.attrib["stroke-width"]
    _drop_attributes(root, "data-mml", "data-c", "data-mjx", "data-variant", "data-line", "role")
    _without_idle_groups(root, "g")
    _flat(root)
    _on_grid(root)
    width = _ex(root.get("width"))
    _in_sight(root)
    root.set("aria-hidden", "true")
    return _text(root), width, depth


def _mathml(markup):
    """MathML for assistive technology, without what only MathJax reads."""
    # Without the namespace while it is worked on, or every name would carry it.
    root = ElementTree.fromstring(markup.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "", 1))
    for element in root.iter():
        if not (element.text or "").strip() and len(element):
            element.text = None
        element.tail = None
    _drop_attributes(root, "data-")
    _without_single_rows(root)
    return _text(root)


def _draw(tex, display):
    """What the cache keeps of one formula; TeXError if it is not one."""
    made = json.loads(_v8().eval(f"typeset({json.dumps(tex)}, {json.dumps(display)})"))
    if "error" in made:
        raise TeXError(made["error"])
    if made["container"]:
        raise _needs_style(made["container"])
    svg, width, depth = _drawing(made["svg"])
    glyphs = _glyphs(made["glyphs"])
    svg = USE.sub(lambda use: use[0] if use[1] in glyphs else "", svg)  # some spaces are letters without an outline
    steps = round(depth / STEP)
    if not display:
        if not HIGHEST <= steps <= DEEPEST:
            raise TeXError("it is too tall for a line of text: give it a line of its own, between $$")
        if steps:
            svg = svg.replace("<svg ", f'<svg class="va{steps}" ', 1)
    return {"svg": svg, "mathml": _mathml(made["mathml"]), "glyphs": glyphs, "width": width}


# ------------------------------------------------------------------------------------------------------- the cache


@cache
def _state():
    """What a drawing depends on besides its TeX: MathJax's version and this file."""
    return f"{metadata.version(DISTRIBUTION)}\n{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}\n"


def _drawn(tex, display):
    """The drawing of a formula, from the cache where it is there."""
    key = hashlib.sha256(f"{_state()}{display}\n{tex}".encode()).hexdigest()
    file = project.CACHE / "mathematics" / f"{key}.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["seal"] == records.seal([key, kept["drawing"]]):
            return kept["drawing"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        pass
    drawing = _draw(tex, display)
    file.parent.mkdir(parents=True, exist_ok=True)
    # The other language's process may write the same file: each replaces it whole.
    with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8", delete=False) as part:
        json.dump({"drawing": drawing, "seal": records.seal([key, drawing])}, part, ensure_ascii=False)
    os.replace(part.name, file)
    return drawing


# -------------------------------------------------------------------------------------------------------- the page


def _gaps(found):
    """The classes of a formula for the gaps beside it: b (begin) after a Japanese letter, e (end) before one."""
    before = found.string[max(0, found.start() - 300) : found.start()]
    after = found.string[found.end() : found.end() + 300]
    return (" b" if AFTER_JAPANESE.search(before) else "") + (" e" if BEFORE_JAPANESE.match(after) else "")


def _markup(tex, display, tag, language, gaps=""):
    """(HTML of one formula, {id: path} of its letters)."""
    drawing = _drawn(tex, display)
    source = entities.escape(tex).replace("\n", "&#10;")
    inner = drawing["svg"] + drawing["mathml"]
    if not display:
        return f'<{tag} class="math{gaps}" data-tex="{source}">{inner}</{tag}>', drawing["glyphs"]
    # What may scroll must be within reach of the keyboard; what cannot should not be a stop.
    label = words.of("page", language)["formula"]
    scroll = f' tabindex="0" role="group" aria-label="{label}"' if drawing["width"] > NARROW else ""
    return f'<{tag} class="math math--display" data-tex="{source}"{scroll}>{inner}</{tag}>', drawing["glyphs"]


def _sheet(glyphs):
    paths = "".join(f'<path id="{name}" d="{glyphs[name]}"/>' for name in glyphs)
    hidden = 'aria-hidden="true" focusable="false" width="0" height="0"'
    return f'<svg class="math-glyphs" {hidden}><defs>{paths}</defs></svg>'


def _line(page, tex):
    """Where the formula stands in the page's Markdown; 0 if nowhere (another step wrote it)."""
    text = page.source
    # Markdown takes the indentation of a box away: any white space is as good as another.
    body = r"\s+".join(map(re.escape, tex.split()))
    for pattern in (rf"(?:\$|\\[(\[])\s*({body})\s*(?:\$|\\[)\]])", f"({body})"):
        found = re.search(pattern, text)
        if found:
            return text.count("\n", 0, found.start(1)) + 1
    return 0


def _end_of_content(html):
    """Where the letters' outlines are put: behind what uses them."""
    places = (html.rfind(tag) for tag in ("</article>", "</main>", "</body>"))
    return next((place for place in places if place >= 0), len(html))


def typeset(html: str, page: "Page") -> str:
    """The finished page `html` with every formula drawn.

    A formula that MathJax refuses, or that stands in a heading, stays as it is and becomes a fault of the page.
    """
    if "arithmatex" not in html:
        return html
    glyphs = {}

    def fault(tex, message):
        shown = " ".join(tex.split())
        page.fault(f"formula ${shown}$: {message}", _line(page, tex))

    def draw(found):
        display = found[2] == r"\["
        tex = entities.unescape(found[3]).strip()
        try:
            markup, letters = _markup(tex, display, found[1], page.language, _gaps(found))
        except TeXError as error:
            fault(tex, str(error))
            return found[0]
        glyphs.update(letters)
        return markup

    for heading in HEADING.finditer(html):
        for found in FORMULA.finditer(heading[0]):
            fault(entities.unescape(found[3]).strip(), "no formula in a heading, because menus show only text")
    before = len(page.faults)
    html = RUN.sub(lambda run: f'<span class="math-run">{run[0]}</span>' if run[1] or run[3] else run[0], html)
    html = FORMULA.sub(draw, html)
    if len(page.faults) == before:
        for found in LEFTOVER.finditer(html):
            fault(found[0], "this is marked as a formula and is not one")
    if glyphs:
        place = _end_of_content(html)
        html = html[:place] + _sheet(glyphs) + html[place:]
    return html


def stylesheet() -> str:
    """The style sheet of formulas: the same for every site, because the depths are a fixed grid."""
    depths = (f".va{step}{{vertical-align:{-step * STEP:.3f}ex}}" for step in range(HIGHEST, DEEPEST + 1) if step)
    return STYLES + "".join(depths) + "\n"
