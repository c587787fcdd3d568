"""Notebooks: every lesson page as a download, and the practice pages, which are shown as the notebooks they are.

A page's Python blocks are the code cells, the text between them the Markdown cells. The outputs in a lesson's notebook are
those that its script's sections printed; a practice page is executed as it stands, cell after cell, by our own runner under
the runner's own cache key, and mkdocs-jupyter only renders what came of it.
"""

import hashlib
import html
import json
import re
import textwrap
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nbformat
import pages
import project
import run_snippet
import yaml
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File
from mkdocs.structure.toc import get_toc
from mkdocs.utils import get_relative_url
from mkdocs.utils.meta import get_data
from project import Fault

import snippets

NOTEBOOKS = project.CACHE / "notebooks"
BOX = re.compile(r'^(?:!!!|\?\?\?\+?) +[\w-]+(?: +"(?P<title>.*)")? *$')
HEADING = re.compile(r"^(#{1,6}) (.*?)\s*(?:\{ *#([\w-]+)[^}]*\})?\s*$", re.M)
HEADING_ID = re.compile(r"^(#{1,6} .*?)\s*\{ *#[\w-]+[^}]*\}\s*$")
WRAPPER = re.compile(r"^</?[a-z][\w-]*(?: [^>]*)?\bmarkdown\b[^>]*>$|^</(?:div|[a-z]+-[a-z-]+)>$")
WORDS = {
    "ja": {
        "download": "このページをノートブックでダウンロード",
        "figure": "図：",
        "install": "準備：PyTorchがなければ入れる",
    },
    "en": {
        "download": "Download this page as a notebook",
        "figure": "Figure: ",
        "install": "Set-up: install PyTorch if it is missing",
    },
}
INSTALL = """\
import importlib.util, subprocess, sys

if importlib.util.find_spec("torch") is None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "torch"]
    subprocess.run(pip, check=True)"""


# ---------------------------------------------------------------- a page as cells


@dataclass
class Cell:
    kind: str  # markdown or code
    text: str
    line: int = 0  # in the page
    output: str = ""
    include: dict = field(default_factory=dict)
    folded: str = ""  # what stands for it while it is folded


@dataclass
class Parts:
    cells: list[Cell] = field(default_factory=list)
    recipes: list[str] = field(default_factory=list)  # files that the page shows or links to, in order
    listings: int = 0  # blocks that show a part of a recipe and are not run

    def say(self, line, number):
        if self.cells and self.cells[-1].kind == "markdown":
            self.cells[-1].text += f"\n{line}"
        else:
            self.cells.append(Cell("markdown", line, number))


def included(include):
    """The text that an include stands for: a section, a whole file without its markers, or a section's output."""
    path = (project.RECORDS / f"{include['script']}.out") if include["out"] else project.SNIPPETS / include["script"]
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    if include["section"]:
        first, last = run_snippet.sections(source)[include["section"]]
        lines = lines[first - 1 : last]
    return textwrap.dedent("\n".join(line for line in lines if not run_snippet.MARKER.match(line))).strip("\n")


def output_of(include):
    """What a section printed when its script last ran; "" where it printed nothing or has not run."""
    path = project.RECORDS / f"{include['script']}.out"
    printed = run_snippet.sections(path.read_text(encoding="utf-8")) if path.exists() else {}
    return included({**include, "out": ".out"}) if include["section"] in printed else ""


def cells_of(markdown):
    """Cut a page (values filled in) into cells; boxes and layout are undone, folded code is code like any other."""
    parts = Parts()
    body = re.sub(r"\A---\n.*?\n---\n", lambda match: "\n" * match[0].count("\n"), markdown, flags=re.S)
    _walk(body.splitlines(), 1, parts)
    parts.recipes = list(dict.fromkeys([*parts.recipes, *re.findall(r"\]\((?:\.\./)*recipes/([\w.]+\.py)\)", body)]))
    for cell in parts.cells:
        cell.text = re.sub(r"\n{3,}", "\n\n", cell.text).strip("\n")
    parts.cells = [cell for cell in parts.cells if cell.text.strip()]
    return parts


def _walk(lines, number, parts):
    index = 0
    while index < len(lines):
        line = lines[index]
        if box := BOX.match(line):
            end = index + 1
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
                end += 1
            parts.say(f"\n**{box['title']}**\n" if box["title"] else "", number + index)
            _walk(textwrap.dedent("\n".join(lines[index + 1 : end])).splitlines(), number + index + 1, parts)
            parts.say("", number + end)
            index = end
        elif line.lstrip().startswith("```"):
            indent = line[: len(line) - len(line.lstrip())]
            end = next((i for i in range(index + 1, len(lines)) if lines[i].rstrip() == f"{indent}```"), len(lines) - 1)
            _fence(line.strip().strip("`").strip(), lines[index + 1 : end], number + index, parts)
            index = end + 1
        else:
            if not WRAPPER.match(line):
                parts.say(HEADING_ID.sub(r"\1", line), number + index)
            index += 1


def _fence(info, body, number, parts):
    include = snippets.INCLUDE.search("\n".join(body))
    if include and include["out"]:
        ran = [(cell.include["script"], cell.include["section"]) for cell in parts.cells if cell.include]
        if (include["script"], include["section"]) not in ran:  # else it stands under its cell
            parts.say(f"```text\n{output_of(include.groupdict())}\n```", number)
    elif include and include["script"].startswith("recipes/"):
        parts.recipes.append(Path(include["script"]).name)
        parts.listings += 1
        if include["section"]:
            parts.say(f"```python\n{included(include)}\n```", number)
    elif include and info.startswith("python"):
        code = re.sub(r"  # \(\d+\)!?$", "", included(include.groupdict()), flags=re.M)
        parts.cells.append(Cell("code", code, number, output_of(include.groupdict()), include.groupdict()))
    elif info.startswith("figure"):
        told = yaml.safe_load("\n".join(body)) or {}
        parts.say(
            f"\n> {WORDS[project.LANG]['figure']}**{told.get('title', '')}** {told.get('description', '')}\n", number
        )
    else:
        parts.say("\n".join([f"```{info}", *body, "```"]), number)


def notebook(parts, page, outputs=True):
    """The notebook of a page, its recipes written by first cells, as deterministic JSON text."""
    made = []
    for name in parts.recipes:
        source = (project.SNIPPETS / "recipes" / name).read_text(encoding="utf-8")
        text = "\n".join(line for line in source.splitlines() if not run_snippet.MARKER.match(line))
        made.append(Cell("code", f"%%writefile {name}\n{text}", folded=name))
    head = 1 + sum(bool(cell.folded) for cell in parts.cells)
    cells = []
    for index, cell in enumerate([*parts.cells[:head], *made, *parts.cells[head:]]):
        identity = hashlib.sha256(f"{index}{cell.text}".encode()).hexdigest()[:8]
        if cell.kind == "markdown":
            cells.append(nbformat.v4.new_markdown_cell(_absolute_links(cell.text, page), id=identity))
        else:
            said = (
                [nbformat.v4.new_output("stream", name="stdout", text=cell.output + "\n")]
                if outputs and cell.output
                else []
            )
            about = {"name": cell.folded, "jupyter": {"source_hidden": True}} if cell.folded else {}
            cells.append(nbformat.v4.new_code_cell(cell.text, id=identity, outputs=said, metadata=about))
    kernel = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return (
        json.dumps(nbformat.v4.new_notebook(cells=cells, metadata=kernel), ensure_ascii=False, indent=1, sort_keys=True)
        + "\n"
    )


def _absolute_links(text, page):
    """Links between pages lead to the site: a notebook is read elsewhere."""

    def absolute(match):
        target, _, anchor = match[1].partition("#")
        path = (Path("/") / Path(page).parent / target).resolve().relative_to("/") if target else Path(page)
        url = (
            path.as_posix().removesuffix("index.md")
            if path.name == "index.md"
            else path.as_posix().removesuffix(".md") + "/" * (path.suffix == ".md")
        )
        return f"]({_site}/{project.LANG}/{url}{'#' + anchor if anchor else ''})"

    return re.sub(r"\]\((?!\w+:|/)([^)\s]*)\)", absolute, text)


_site = ""


# ---------------------------------------------------------------- practice: executed


def practice_pages(language):
    return [page for page in project.page_files(language) if page.parts[0] == "practice"]


def _practice(language, page):
    text = (project.DOCS / language / page).read_text(encoding="utf-8")
    text, faults = snippets.fill_values(text, page.as_posix())
    parts = cells_of(text)
    parts.cells.insert(1, Cell("code", INSTALL, folded=WORDS[language]["install"]))
    return parts, faults


def _as_script(parts):
    """The script that runs a notebook's code cells, each a section: where it lies, by its content, and its text."""
    source = "".join(
        f"# --8<-- [start:cell_{i}]\n{cell.text}\n# --8<-- [end:cell_{i}]\n"
        for i, cell in enumerate(parts.cells)
        if cell.kind == "code"
    )
    return NOTEBOOKS / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.py", source


def execute_practice():
    """Run the practice notebooks of both languages, once where their code is the same; return the faults."""
    pending, faults = {}, []
    for language in project.LANGUAGES:
        for page in practice_pages(language):
            try:
                parts, wrong = _practice(language, page)
            except (OSError, KeyError, run_snippet.Broken):
                continue  # an include that leads nowhere: pages.py names it
            faults += wrong
            script, source = _as_script(parts)
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(source, encoding="utf-8")
            pending.setdefault(script, []).append((language, page, parts))
    told = snippets.run_stale(list(pending), NOTEBOOKS, NOTEBOOKS)
    for script, waiting in pending.items():
        if script not in told:
            continue
        number, message = told[script]
        section = run_snippet.section_at(run_snippet.sections(script.read_text(encoding="utf-8")), number)
        for language, page, parts in waiting:
            line = parts.cells[int(section.removeprefix("cell_"))].line if section else 0
            faults.append(
                Fault(
                    f"docs/{language}/{page.as_posix()}",
                    line,
                    f"this practice notebook does not run: {message}",
                )
            )
    _forget(pending)
    return faults


def _forget(pending):
    kept = {script.stem for script in pending}
    for path in NOTEBOOKS.glob("*") if NOTEBOOKS.exists() else []:
        if path.is_file() and path.name.partition(".")[0] not in kept:
            path.unlink()


class PracticeFile(File):
    """A practice page: Markdown by its address, a notebook by what is rendered."""

    @cached_property
    def abs_src_path(self):
        return str(NOTEBOOKS / project.LANG / Path(self.src_uri).with_suffix(".ipynb"))


# ---------------------------------------------------------------- MkDocs


def on_config(config):
    global _site
    _site = config.extra["site"]


@event_priority(-5)  # after the scripts, whose values the pages use
def on_pre_build(config):
    if not project.IS_CHILD:
        project.stop(execute_practice())


@event_priority(-60)  # after mkdocs-jupyter has wrapped what it takes for notebooks: its wrapper forgets abs_src_path
def on_files(files, config):
    for page in practice_pages(project.LANG):
        parts, _ = _practice(project.LANG, page)
        outputs = _outputs(parts)
        for index, cell in enumerate(parts.cells):
            cell.output = outputs.get(f"cell_{index}", "")
        target = NOTEBOOKS / project.LANG / page.with_suffix(".ipynb")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(notebook(parts, page.as_posix()), encoding="utf-8")
        old = files.get_file_from_path(page.as_posix())
        files.remove(old)
        files.append(
            PracticeFile(page.as_posix(), str(project.DOCS / project.LANG), config.site_dir, config.use_directory_urls)
        )
    return files


def _outputs(parts):
    path = _as_script(parts)[0].with_suffix(".py.out")
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    return {name: "\n".join(lines[first - 1 : last]) for name, (first, last) in run_snippet.sections(text).items()}


@event_priority(40)
def on_page_content(content, page, config, files):
    name = page.file.src_uri
    if isinstance(page.file, PracticeFile):
        content = _plain_notebook(content, page)
    elif not page.markdown or "```python" not in page.markdown:
        return content
    stem = Path(name).stem
    link = f'<p class="page-tools"><a href="{stem}.ipynb" download>{WORDS[project.LANG]["download"]}</a></p>'
    return content.replace("</h1>", f"</h1>\n{link}", 1)


def _plain_notebook(content, page):
    """The cells as nbconvert made them, in the markup of every other page: no boxes in boxes, style sheets or buttons."""
    content = content[content.index('<div class="jupyter-wrapper">') :]
    content = re.sub(r"<(style|script|clipboard-copy)\b.*?</\1>", "", content, flags=re.S)
    content = re.sub(
        r'<div class="(?:clipboard-copy-txt|jp-(?:In|Out)putPrompt)[^>]*>.*?</div>', "", content, flags=re.S
    )
    content = re.sub(r'<a class="anchor-link"[^>]*>.*?</a>', "", content, flags=re.S)
    content = re.sub(r' (?:style|tabindex|data-mime-type|data-jp-theme-[\w-]+|data-type)="[^"]*"', "", content)
    content = re.sub(
        r'<div class="(?:highlight-ipynb|jp-RenderedText)[^>]*>\s*<pre>(?:<span></span>)?(.*?)\n*</pre>\s*</div>',
        r'<div class="highlight"><pre><span></span><code>\1\n</code></pre></div>',
        content,
        flags=re.S,
    )
    content = _unboxed(content, json.loads(Path(page.file.abs_src_path).read_text(encoding="utf-8"))["cells"])
    here = f'href="{_site}/{project.LANG}/'
    content = re.sub(
        re.escape(here) + r'([^"#]*)',
        lambda match: f'href="{get_relative_url(match[1] or ".", page.url)}',
        content,
    )
    source = (project.DOCS / project.LANG / page.file.src_uri).read_text(encoding="utf-8")
    page.meta["description"] = get_data(source)[1].get("description")
    content, page.toc = _headings(content, source)
    return _formulas(content)


def _headings(content, source):
    """The headings' ids as the page's Markdown gives them, and the table of contents; one without keeps nbconvert's."""
    written = iter(HEADING.findall(re.sub(r"^```.*?^```", "", source, flags=re.S | re.M)))
    tokens, stack = [], []

    def named(match):
        _, title, identity = next(written, ("", match[2], ""))
        token = {"level": int(match[1][1:]), "id": identity or match[2], "name": html.escape(title.replace("`", "")), "children": []}
        while stack and stack[-1]["level"] >= token["level"]:
            stack.pop()
        (stack[-1]["children"] if stack else tokens).append(token)
        stack.append(token)
        return f'<{match[1]} id="{token["id"]}">'

    return re.sub(r'<(h[1-6]) id="([^"]*)">', named, content), get_toc(tokens)


def _formulas(content):
    """Formulas as arithmatex marks them on every other page, and as little else: "$5 or $6" is none."""
    pieces = re.split(r"(<pre\b.*?</pre>|<code\b.*?</code>|<[^<>]*>)", content, flags=re.S)
    for index in range(0, len(pieces), 2):
        text = re.sub(r"\n\s*\n", "\n", pieces[index])
        text = pages.DISPLAYED.sub(r'<span class="arithmatex">\\[\1\\]</span>', text)
        pieces[index] = pages.INLINE_FORMULA.sub(r'<span class="arithmatex">\\(\1\\)</span>', text)
    return "".join(pieces)


def _unboxed(content, cells):
    """Without nbconvert's boxes, so that a cell's source and output are neighbours; folded cells in a box of ours."""
    folded = {f'id="cell-id={cell["id"]}"': cell["metadata"].get("name") for cell in cells}
    kept, closing = [], []
    for piece in re.split(r"(<div\b[^>]*>|</div>)", content):
        if piece == "</div>":
            piece = closing.pop()
        elif piece.startswith("<div"):
            name = next((folded[identity] for identity in folded if identity in piece), None)
            if name:
                piece, end = f'<details class="file"><summary>{html.escape(name)}</summary>', "</details>"
            elif re.search(r'class="(?:jp-(?!Notebook)|CodeMirror|zeroclipboard)', piece):
                piece, end = "", ""
            else:
                end = "</div>"
            closing.append(end)
        kept.append(piece)
    return "".join(kept)


@event_priority(30)
def on_post_page(output, page, config):
    """Lay the notebook beside the page."""
    target = Path(page.file.abs_dest_path).parent / f"{Path(page.file.src_uri).stem}.ipynb"
    if 'class="page-tools"' not in output:
        return output
    if isinstance(page.file, PracticeFile):
        text = Path(page.file.abs_src_path).read_text(encoding="utf-8")
    else:
        markdown, _ = snippets.fill_values(
            (project.DOCS / project.LANG / page.file.src_uri).read_text(encoding="utf-8"), page.file.src_uri
        )
        text = notebook(cells_of(markdown), page.file.src_uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return output
