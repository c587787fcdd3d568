"""Draws the figures that scripts kept: a fence names one and says its texts; SVG, text and tables come of it."""

import json
import math
import re
from pathlib import Path

import figure_kinds as kinds
import project
import yaml
from drawing import MATH, Array, Refused, clean, compact, number
from mkdocs.plugins import event_priority
from project import Fault

WORDS = {
    "en": {
        "table": "As a table",
        "rows": "query",
        "columns": "key",
        "head": "head {}",
        "weight": "attention weight",
        "row": "row",
        "column": "column",
        "block": "block",
        "matrix": "matrix",
        "row range": "rows",
        "column range": "columns",
        "code": "code",
        "box": "box",
        "shape": "shape",
        "leads to": "leads to",
        "category": "category",
        "strongest": "greatest weights",
        "more": "{shown} of {all} rows",
        "corner": "{rows} (row), {columns} (column)",
        "colon": ": ",
        "aside": " ({})",
    },
    "ja": {
        "table": "表で見る",
        "rows": "クエリ",
        "columns": "キー",
        "head": "ヘッド{}",
        "weight": "注意の重み",
        "row": "行",
        "column": "列",
        "block": "ブロック",
        "matrix": "行列",
        "row range": "行の範囲",
        "column range": "列の範囲",
        "code": "コード",
        "box": "箱",
        "shape": "形",
        "leads to": "次",
        "category": "項目",
        "strongest": "大きい順の重み",
        "more": "全{all}行のうち{shown}行",
        "corner": "{rows}（行）、{columns}（列）",
        "colon": "：",
        "aside": "（{}）",
    },
}

# The keys that a fence may carry, and which kinds read them.
REQUIRED = ("title", "description")
MEANING = {
    "rows": ("matrix", "blocks", "attention"),
    "columns": ("matrix", "blocks", "attention"),
    "series": ("curves", "bars"),
    "x": ("curves", "bars"),
    "y": ("curves",),
    "heads": ("attention",),
    "nodes": ("flow",),
}
LABELS = {
    "matrix": {"groups", "rows", "columns", "operators", "digits", "mark", "rounding"},
    "blocks": {"groups", "code"},
    "attention": {"queries", "keys", "heads", "masked"},
    "curves": {"points", "log", "band", "x"},
    "bars": {"categories", "low", "high", "log", "rounding"},
    "flow": {"nodes", "edges"},
}
MOST_ROWS, MOST_COLUMNS = 200, 24


# One figure


def render(data, fence, language, identity):
    """HTML of one figure.

    data      what a script kept: {"kind", "tensors": {name: {"shape", "dtype", "data"}}, "labels", "line"}
    fence     the texts of the page: title and description, and those of MEANING
    language  "ja" or "en"
    identity  its id on the page will be figure-IDENTITY

    Raises Refused if the figure would not be honest, or a text has nothing to stand on.
    """
    kind, labels = data["kind"], data.get("labels") or {}
    if kind not in kinds.KINDS:
        raise Refused(f"kind {kind!r} is unknown, there are {', '.join(kinds.KINDS)}")
    for key in sorted(set(labels) - LABELS[kind]):
        raise Refused(f"labels of kind {kind} do not know {key!r}, known are {', '.join(sorted(LABELS[kind]))}")
    for key in sorted(set(fence) & set(MEANING)):
        if kind not in MEANING[key]:
            raise Refused(f"{key!r} says nothing in a figure of kind {kind}", by="page")
    words = WORDS[language]
    texts = {**words, **fence} if kind == "attention" else {**fence, "head": words["head"]}
    tensors = {name: Array.of(stored) for name, stored in (data.get("tensors") or {}).items()}
    if kind != "flow" and not tensors:
        raise Refused(f"a figure of kind {kind} needs tensors")
    panels = kinds.KINDS[kind](tensors, labels, texts)
    tables = TABLES[kind](tensors, labels, texts, words)
    name = f"figure-{identity}"
    title = clean(fence["title"])
    return (
        f'<figure class="figure figure--{kind}" id="{name}">'
        f'<figcaption id="{name}-title">{marked(fence["title"])}</figcaption>'
        f"{pictures(panels, name, title)}"
        f'<details class="figure__numbers" data-search-exclude><summary>{words["table"]}</summary>'
        f'<p id="{name}-description">{clean(fence["description"])}</p>'
        f"{''.join(tables)}</details></figure>"
    )


def pictures(panels, name, title):
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


def clustered(markups, panels):
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


# Tables


def marked(text):
    """`text` escaped, its symbols such as W_1^Q with indices in HTML."""

    def index(match):
        base, low, high = match[1], *((part or "").strip("{}") for part in match.group(2, 3))
        return base + (f"<sub>{low}</sub>" if low else "") + (f"<sup>{high}</sup>" if high else "")

    return MATH.sub(index, clean(text))


def table(caption, header, rows):
    """An HTML table whose first column heads its rows. header and rows are texts, already written."""
    head = "".join(
        f'<th scope="col">{marked(cell)}</th>' if cell or i else "<td></td>" for i, cell in enumerate(header)
    )
    body = "".join(
        f'<tr><th scope="row">{marked(row[0])}</th>' + "".join(f"<td>{marked(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    title = f"<caption>{marked(caption)}</caption>" if caption else ""
    label = f' role="group" aria-label="{clean(caption)}"' if caption else ""
    return (
        f'<div class="figure__scroll" tabindex="0"{label}><table class="figure__table">{title}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def few(rows, words, caption):
    """(rows, caption): at most MOST_ROWS, evenly chosen, and a caption that says so."""
    if len(rows) <= MOST_ROWS:
        return rows, caption
    step = math.ceil(len(rows) / MOST_ROWS)
    kept = rows[::step]
    note = words["more"].format(shown=len(kept), all=len(rows))
    return kept, caption + words["aside"].format(note) if caption else note


def matrix_tables(tensors, labels, texts, words):
    for name, tensor in tensors.items():
        rows, columns = kinds.two_axes(name, tensor)
        data = tensor.data if len(tensor.shape) == 2 else [[value] for value in tensor.data]
        row_names = labels.get("rows", {}).get(name) or range(rows)
        column_names = labels.get("columns", {}).get(name) or range(columns)
        digits = max(labels.get("digits", 0), 4)
        lines = [[str(r), *(shortened(v, digits) for v in line)] for r, line in zip(row_names, data, strict=True)]
        lines, caption = few(lines, words, f"{name} {tensor.shape}")
        yield table(caption, ["", *map(str, column_names)], lines)


def shortened(value, digits):
    """A number of a matrix: whole if whole, else rounded to `digits` decimals without trailing zeros."""
    if isinstance(value, bool) or not math.isfinite(value):
        return number(value, 0)
    written = number(value, digits)
    if set(written) <= set("−0."):
        return compact(value)
    return written.rstrip("0").rstrip(".") if "." in written else written


def blocks_tables(tensors, labels, texts, words):
    code = labels.get("code", {})
    lines = []
    for name, found in kinds.groups_of(tensors, labels).items():
        for block in found:
            ranges = ("{}:{}".format(*span) for span in (block.rows, block.columns))
            lines.append([block.text, name, *ranges, code.get(block.text, "")])
    lines, caption = few(lines, words, ", ".join(f"{name} {tensor.shape}" for name, tensor in tensors.items()))
    header = [words["block"], words["matrix"], words["row range"], words["column range"], words["code"]]
    if not code:
        header, lines = header[:-1], [line[:-1] for line in lines]
    yield table(caption, header, lines)


def attention_tables(tensors, labels, texts, words):
    _, maps, queries, keys, heads = kinds.attention_maps(tensors, labels, texts)
    corner = words["corner"].format(rows=texts["rows"], columns=texts["columns"])
    small = len(keys) <= MOST_COLUMNS and kinds.are_few(maps)
    if small:
        for head, weights in zip(heads, maps, strict=True):
            lines = [[q, *(shortened(v, 4) for v in row)] for q, row in zip(queries, weights, strict=True)]
            yield table(f"{head}{words['colon']}{corner}" if head else corner, ["", *keys], lines)
        return
    # Too many numbers to read: of every query the keys that it attends to most.
    lines = []
    for head, weights in zip(heads, maps, strict=True):
        for i, row in enumerate(weights):
            best = sorted((j for j in range(len(row)) if row[j] > 0), key=lambda j: -row[j])[:3]
            said = ", ".join(f"{keys[j]} {shortened(row[j], 4)}" for j in best)
            lines.append([f"{head} {queries[i]}".strip(), said or "–"])
    lines, caption = few(lines, words, f"{texts['rows']}{words['colon']}{words['strongest']}{words['aside'].format(texts['columns'])}")
    yield table(caption, [texts["rows"], words["strongest"]], lines)


def curves_tables(tensors, labels, texts, words):
    series = kinds.series_of(tensors, labels, texts)
    own = labels.get("x", {})
    said = texts.get("series", {})
    for key in dict.fromkeys(own.get(name, "x") for name in series):
        names = [name for name in series if own.get(name, "x") == key]
        lines = [
            [compact(x), *(compact(series[name][1][i]) for name in names)] for i, x in enumerate(tensors[key].data)
        ]
        lines, caption = few(lines, words, texts.get("y", ""))
        axis = texts.get("x", "x") if key == "x" else said.get(key, texts.get("x", key))
        yield table(caption, [axis, *(said.get(name, name) for name in names)], lines)


def bars_tables(tensors, labels, texts, words):
    categories, *_ = kinds.bar_series(tensors, labels, texts)
    said = texts.get("series", {})
    lines = [[c, *(compact(t.data[i]) for t in tensors.values())] for i, c in enumerate(categories)]
    lines, caption = few(lines, words, texts.get("x", ""))
    yield table(caption, [words["category"], *(said.get(name, name) for name in tensors)], lines)


def flow_tables(tensors, labels, texts, words):
    nodes, edges = kinds.flow_nodes(labels, texts)
    lines = []
    for node in sorted(nodes.values(), key=lambda n: (n.row, n.column)):
        onward = ", ".join(" ".join(nodes[b].lines) for a, b in edges if a == node.id)
        lines.append([" ".join(node.lines), node.shape, onward or "–"])
    yield table("", [words["box"], words["shape"], words["leads to"]], lines)


TABLES = {
    "matrix": matrix_tables,
    "blocks": blocks_tables,
    "attention": attention_tables,
    "curves": curves_tables,
    "bars": bars_tables,
    "flow": flow_tables,
}


# Fences of a page


OPENING = re.compile(r"^(?P<indent>[ \t>]*)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")


class _Page:
    """The page that is being turned into HTML: MkDocs does one at a time."""

    source = ""  # src_uri: layouts/rosetta.md
    file = ""  # for messages: docs/en/layouts/rosetta.md
    seen: dict[str, int] = {}
    faults: list[Fault] = []


page_now = _Page()


def fences(markdown):
    """(index, indent, fence, name) of every line that opens a figure; one inside another fence is only shown."""
    outer = None
    for i, line in enumerate(markdown.split("\n")):
        match = OPENING.match(line)
        if not match:
            continue
        info = match["info"].strip()
        if outer:
            if match["fence"].startswith(outer) and not info:
                outer = None
            continue
        outer = match["fence"]
        if info == "figure" or info.startswith("figure "):
            yield i, match["indent"], match["fence"], info[len("figure") :].strip()


def opened(markdown, source):
    """`markdown` with headers that SuperFences can read: it takes neither slashes nor line numbers in "figure NAME".

    source is the file as written, front matter included: the lines of messages are counted there.
    """
    lines = markdown.split("\n")
    written = [i + 1 for i, *_ in fences(source)]
    for k, (i, indent, fence, name) in enumerate(fences(markdown)):
        line = written[k] if k < len(written) else 0
        lines[i] = f'{indent}{fence}{{ .figure name="{name}" line="{line}" }}'
    return "\n".join(lines)


def kept(name, source):
    """(what the script kept, its script, the short name); name may be `layouts/rosetta:name`. Raises Refused."""
    page, _, short = name.rpartition(":")
    script = project.script_of(page + ".md" if page else source)
    record = (project.RECORDS / script).with_suffix(".figures.json")
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if short not in known:
        there = ", ".join(known) or "none"
        raise Refused(f"snippets/{script} keeps no figure {short!r}; it keeps: {there}", by="page")
    return known[short], script, short


def texts_of(source):
    """The YAML of a fence, checked. Raises Refused, whose `line` counts from the fence."""
    try:
        texts = yaml.safe_load(source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or error
        refused = Refused(f"the YAML of a figure cannot be read: {problem} (quote a text with a colon)", by="page")
        refused.line = mark.line + 1 if mark else 0
        raise refused from None
    if not isinstance(texts, dict):
        raise Refused("a figure needs at least the lines title: and description:", by="page")
    for key in REQUIRED:
        if not str(texts.get(key) or "").strip():
            raise Refused(f"a figure needs {key}:", by="page")
    for key, value in texts.items():
        if key not in REQUIRED and key not in MEANING:
            raise Refused(f"a figure does not know {key!r}, known are {', '.join((*REQUIRED, *MEANING))}", by="page")
        if key in ("series", "nodes") and not isinstance(value, dict):
            raise Refused(f"{key}: is a map of names to texts", by="page")
        if key == "heads" and not isinstance(value, list):
            raise Refused("heads: is a list of texts", by="page")
        if key in (*REQUIRED, "x", "y") and not isinstance(value, (str, int, float)):
            raise Refused(f"{key}: is one text", by="page")
    return texts | {key: str(texts[key]) for key in REQUIRED}


def fence(source, language, css_class, options, md, **kwargs):
    """SuperFences calls this for every figure of a page. A fault is kept: SuperFences would swallow it."""
    name, line = options.get("name", ""), int(options.get("line") or 0)
    try:
        texts = texts_of(source)
        data, script, short = kept(name, page_now.source)
    except Refused as refused:
        page_now.faults.append(Fault(page_now.file, line + getattr(refused, "line", 0), str(refused)))
        return "<p></p>"
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", short)
    page_now.seen[slug] = times = page_now.seen.get(slug, 0) + 1
    try:
        return render(data, texts, project.LANG, slug if times == 1 else f"{slug}-{times}")
    except Refused as refused:
        if refused.by == "page":
            page_now.faults.append(Fault(page_now.file, line, f"figure {short!r}: {refused}"))
        else:
            said = f"figure {short!r}, shown by {page_now.file}:{line}: {refused}"
            page_now.faults.append(Fault(f"snippets/{script}", data.get("line", 0), said))
        return "<p></p>"


def accept(language, inputs, options, attrs, md):
    """SuperFences' validator: the name of the figure and its line are ours, everything else is refused."""
    options.update({key: inputs[key] for key in ("name", "line") if key in inputs})
    return set(inputs) <= {"name", "line"}


# MkDocs


def on_config(config):
    settings = config.mdx_configs.setdefault("pymdownx.superfences", {})
    known = settings.setdefault("custom_fences", [])
    if not any(entry.get("name") == "figure" for entry in known):
        known.append({"name": "figure", "class": "figure", "format": fence, "validator": accept})
    return config


@event_priority(-50)
def on_page_markdown(markdown, page, config, files):
    """Late, so that what other hooks write into a page is seen too."""
    page_now.source = page.file.src_uri
    page_now.file = project.relative(page.file.abs_src_path) if page.file.abs_src_path else page.file.src_uri
    page_now.seen, page_now.faults = {}, []
    path = Path(page.file.abs_src_path or "")
    source = path.read_text(encoding="utf-8-sig") if path.is_file() else markdown
    return opened(markdown, source)


def on_page_content(html, page, config, files):
    if page_now.faults:
        project.stop(page_now.faults)
    return html
