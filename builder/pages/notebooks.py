"""Notebooks: every lesson page as a download, and the practice pages, which are shown as the notebooks they are.

A page's Python blocks are the code cells, the text between them the Markdown cells. The outputs in a lesson's notebook are
those that its script's sections printed; a practice page is executed as it stands, cell after cell, by our own runner under
the runner's own cache key, and mkdocs-jupyter only renders what came of it, by the template in jupyter/: its text is what
Markdown makes of it on any page.
"""

import base64
import hashlib
import json
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import nbformat

from builder import project, words
from builder.kept import kept
from builder.pages import exercises, reader, values
from builder.pages.includes import Include
from builder.pages.page import Page
from builder.project import Fault
from builder.scripts import current, records, sections

NOTEBOOKS = project.CACHE / "notebooks"
TEMPLATES = Path(__file__).with_name("jupyter")
CUT = "<!-- cell -->"
RECIPE = re.compile(r"(?:\.\./)*recipes/([\w.]+\.py)")  # the address of one
OUTSIDE = re.compile(r"\w+:|/")  # how an address begins that is none of this site's
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
    include: Include | None = None
    folded: str = ""  # what stands for it while it is folded
    hides: bool = False  # a heading under which cells are hidden until it is opened


@dataclass
class Parts:
    cells: list[Cell] = field(default_factory=list)
    recipes: list[str] = field(default_factory=list)  # files that the page shows or links to, in order
    listings: int = 0  # blocks that show a part of a recipe and are not run
    picture: Callable[[reader.Fence], str] = lambda fence: ""  # the SVG of a figure's fence

    def say(self, line: str, number: int) -> None:
        """Add a line of the page to the cell of text that is open, or open one."""
        if self.cells and self.cells[-1].kind == "markdown":
            self.cells[-1].text += f"\n{line}"
        else:
            self.cells.append(Cell("markdown", line, number))


def output_of(include: Include) -> str:
    """What a section printed when its script last ran; "" where it printed nothing or has not run."""
    printed = Include(include.script, True, include.section)
    try:
        return printed.text.strip("\n")
    except (OSError, KeyError):
        return ""


def cells_of(markdown: str, language: str, picture: Callable[[reader.Fence], str] | None = None) -> Parts:
    """Cut a page (values filled in) into cells; boxes and layout are undone, folded code is code like any other.

    picture  draws the fence of a figure as an SVG that stands alone
    """
    parts = Parts(picture=picture) if picture else Parts()
    _add(reader.blocks(markdown), parts, language)
    linked = [match for _, _, address in reader.links_in(markdown) if (match := RECIPE.fullmatch(address))]
    parts.recipes = list(dict.fromkeys([*parts.recipes, *(match[1] for match in linked)]))
    for cell in parts.cells:
        cell.text = re.sub(r"\n{3,}", "\n\n", cell.text).strip("\n")
    parts.cells = [cell for cell in parts.cells if cell.text.strip()]
    return parts


def _add(blocks, parts, language):
    for block in blocks:
        match block:
            case reader.Box():
                parts.say(f"\n**{block.title}**\n" if block.title else "", block.line)
                _add(block.inside, parts, language)
                parts.say("", block.end)
            case reader.Fence():
                _add_fence(block, parts, language)
            case reader.Heading():
                parts.say(f"{block.indent}{'#' * block.level} {block.text}", block.line)
            case reader.Line(wraps=False):
                parts.say(block.text, block.line)


def _add_fence(fence, parts, language):
    include = fence.include
    if include and include.out:
        ran = [(cell.include.script, cell.include.section) for cell in parts.cells if cell.include]
        if (include.script, include.section) not in ran:  # else it stands under its cell
            parts.say(f"```text\n{output_of(include)}\n```", fence.line)
    elif include and include.is_recipe:
        parts.recipes.append(Path(include.script).name)
        parts.listings += 1
        if include.section:
            parts.say(f"```python\n{_code(include)}\n```", fence.line)
    elif _is_cell(fence):
        code = re.sub(r"  # \(\d+\)!?$", "", _code(include), flags=re.M)
        parts.cells.append(Cell("code", code, fence.line, output_of(include), include))
    elif fence.language == "figure":
        told = words.yaml_of(fence.text) or {}
        title = f"{words.of('notebooks', language)['figure']}**{told.get('title', '')}**"
        drawn = parts.picture(fence)
        image = f"\n{_image(drawn, told.get('title', ''))}\n" if drawn else ""
        parts.say(f"{image}\n> {title} {told.get('description', '')}\n", fence.line)
    else:
        written = "\n".join([fence.opening, *fence.text.splitlines(), fence.ticks])
        parts.say(textwrap.indent(written, fence.indent), fence.line)


def _image(svg, title):
    """A picture as Jupyter shows it in a cell of text; an attachment may be no SVG there."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(str(title))}">'


def _is_cell(fence):
    """Whether a fence is code that is run."""
    include = fence.include
    return bool(include and not include.out and not include.is_recipe and fence.language == "python")


def _code(include):
    return include.text.strip("\n")


def notebook(parts: Parts, page: Page) -> str:
    """The notebook of a page, its recipes written by first cells, as deterministic JSON text."""
    made = []
    for name in parts.recipes:
        source = (project.SNIPPETS / "recipes" / name).read_text(encoding="utf-8")
        text = "\n".join(line for line in source.splitlines() if not sections.MARKER.match(line))
        made.append(Cell("code", f"%%writefile {name}\n{text}", folded=name))
    head = 1 + any(cell.folded for cell in parts.cells)  # what the page itself folds may need the recipes
    cells, hidden = [], []
    for index, cell in enumerate([*parts.cells[:head], *made, *parts.cells[head:]]):
        identity = hashlib.sha256(f"{index}{cell.text}".encode()).hexdigest()[:8]
        if cell.kind == "markdown":
            about = {"jp-MarkdownHeadingCollapsed": True, "id": identity} if cell.hides else {}  # Jupyter, and Colab
            hidden += [identity] * cell.hides
            cells.append(nbformat.v4.new_markdown_cell(_absolute_links(cell.text, page), id=identity, metadata=about))
        else:
            printed = cell.output and nbformat.v4.new_output("stream", name="stdout", text=cell.output + "\n")
            said = [printed] if printed else []
            about = {"name": cell.folded, "jupyter": {"source_hidden": True}} if cell.folded else {}
            cells.append(nbformat.v4.new_code_cell(cell.text, id=identity, outputs=said, metadata=about))
    kernel = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        **({"colab": {"collapsed_sections": hidden}} if hidden else {}),
    }
    return (
        json.dumps(nbformat.v4.new_notebook(cells=cells, metadata=kernel), ensure_ascii=False, indent=1, sort_keys=True)
        + "\n"
    )


def _absolute_links(text, page):
    """Links between pages lead to the site: a notebook is read elsewhere."""

    for start, end, address in reversed([*reader.links_in(text)]):
        if OUTSIDE.match(address):
            continue
        target, _, anchor = address.partition("#")
        path = (Path("/") / Path(page.name).parent / target).resolve().relative_to("/") if target else Path(page.name)
        url = project.address_of(path) if path.suffix == ".md" else path.as_posix()
        text = f"{text[:start]}{page.site}/{page.language}/{url}{'#' + anchor if anchor else ''}{text[end:]}"
    return text


# ---------------------------------------------------------------- practice: executed


def practice_pages(language: str) -> list[Path]:
    """The pages of a language that are shown as notebooks."""
    return [page for page in project.page_files(language) if page.parts[0] == "practice" and page.stem != "index"]


def _practice(language, page):
    text = (project.DOCS / language / page).read_text(encoding="utf-8")
    text, faults = values.fill_values(text, page.as_posix(), language)
    parts = cells_of(text, language)
    said = words.of("notebooks", language)
    parts.cells = [one for cell in parts.cells for one in _hiding_solutions(cell, said)]
    given = [Cell("code", INSTALL, folded=said["install"])]
    if checked := exercises.cell(language, page):
        given.append(Cell("code", checked, folded=said["answers"]))
    parts.cells[1:1] = given
    return parts, faults


def _hiding_solutions(cell, said):
    """A cell of text as one for each exercise that begins in it, and a heading that hides the solution, up to the next exercise."""
    if cell.kind != "markdown":
        return [cell]
    made = []
    for text in re.split(r"(?m)^(?=## )", cell.text):
        before, mark, after = text.partition(f"**{said['solution']}**")
        heading = [Cell("markdown", f"### {said['fold']}", cell.line, hides=True)] if mark else []
        made += [
            Cell("markdown", before.strip(), cell.line),
            *heading,
            Cell("markdown", (mark + after).strip(), cell.line),
        ]
    return [one for one in made if one.text]


def _as_script(parts):
    """The script that runs a notebook's code cells, each a section: where it lies, by its content, and its text."""
    source = "".join(
        f"# --8<-- [start:cell_{i}]\n{cell.text}\n# --8<-- [end:cell_{i}]\n"
        for i, cell in enumerate(parts.cells)
        if cell.kind == "code"
    )
    return NOTEBOOKS / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.py", source


def execute() -> list[Fault]:
    """Run the practice notebooks of both languages, once where their code is the same; return the faults."""
    pending, faults = {}, []
    for language in project.LANGUAGES:
        for page in practice_pages(language):
            try:
                parts, wrong = _practice(language, page)
            except (OSError, KeyError, sections.Broken):
                continue  # an include that leads nowhere: checks.py names it
            faults += wrong
            script, source = _as_script(parts)
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(source, encoding="utf-8")
            pending.setdefault(script, []).append((language, page, parts))
    told = current.run_stale(list(pending), NOTEBOOKS, NOTEBOOKS)
    for script, waiting in pending.items():
        if script not in told:
            continue
        number, message = told[script]
        section = sections.at(sections.spans(script.read_text(encoding="utf-8")), number)
        for language, page, parts in waiting:
            line = parts.cells[int(section.removeprefix("cell_"))].line if section else 0
            faults.append(
                Fault(f"docs/{language}/{page.as_posix()}", line, f"this practice notebook does not run: {message}")
            )
    _forget(pending)
    return faults


def _forget(pending):
    kept = {script.stem for script in pending}
    for path in NOTEBOOKS.glob("*") if NOTEBOOKS.exists() else []:
        if path.is_file() and path.name.partition(".")[0] not in kept:
            path.unlink()


def write_practice(language: str, site: str) -> dict[str, Path]:
    """The executed notebook of each practice page of a language, for mkdocs-jupyter to render: {page: its file}."""
    written = {}
    for page in practice_pages(language):
        parts, _ = _practice(language, page)
        outputs = _outputs(parts)
        for index, cell in enumerate(parts.cells):
            cell.output = outputs.get(f"cell_{index}", "")
        shown = Page(language, page.as_posix(), site=site)
        cells = [[cell.kind, cell.text, cell.output, cell.folded, cell.hides] for cell in parts.cells]
        text = kept(
            f"{language}/practice", [shown.name, site, cells, _recipes()], lambda p=parts, s=shown: notebook(p, s)
        )
        target = NOTEBOOKS / language / page.with_suffix(".ipynb")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        written[page.as_posix()] = target
    return written


def _recipes():
    return {path.name: path.read_text("utf-8") for path in sorted((project.SNIPPETS / "recipes").glob("*.py"))}


def _outputs(parts):
    return sections.texts(records.output(_as_script(parts)[0].name, NOTEBOOKS, NOTEBOOKS))


# ---------------------------------------------------------------- what a page shows of it


def cut(markdown: str, page: Page) -> str:
    """A practice page's Markdown with a mark in the place of each cell: what a renderer makes of the text around them."""
    return (
        reader.replaced(markdown, page, lambda fence: CUT if _is_cell(fence) else None) if page.notebook else markdown
    )


def around(html: str, page: Page) -> str:
    """The notebook that mkdocs-jupyter renders: a practice page's cells, and for text what a renderer has made of it."""
    notebook = json.loads(page.notebook)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    first, *texts = ([nbformat.v4.new_markdown_cell(text.strip())] for text in html.split(CUT))
    given = [cell for cell in cells if "name" in cell["metadata"] and not exercises.is_packed(cell)]
    ran = [cell for cell in cells if "name" not in cell["metadata"]]
    rest = [cell for pair in zip(ran, texts, strict=True) for cell in (pair[0], *pair[1])]
    return json.dumps({**notebook, "cells": [*first, *given, *rest]}, ensure_ascii=False)


def put(content: str, page: Page) -> str:
    """A page's text with the link to its notebook; a practice page's without the style sheet that mkdocs-jupyter adds."""
    if page.notebook:
        content = folded(content.rpartition("<style>")[0], page)
    elif not _shows_code(page.markdown):
        return content
    stem = Path(page.name).stem
    link = f'<p class="page-tools"><a href="{stem}.ipynb" download>{words.of("notebooks", page.language)["download"]}</a></p>'
    return content.replace("</h1>", f"</h1>\n{link}", 1)


def folded(content: str, page: Page) -> str:
    """A practice page's solutions, each with what follows it in its exercise, closed until the reader opens them."""
    said = words.of("notebooks", page.language)
    solution = re.compile(rf"(<p><strong>{re.escape(said['solution'])}</strong>.*?)(?=<h2\b|\Z)", re.S)
    box = f'<details class="question"><summary>{said["fold"]}</summary>\n'
    return solution.sub(lambda match: f"{box}{match[1]}</details>\n", content)


def _shows_code(markdown):
    return any(fence.language == "python" for fence in reader.fences_of(markdown))


def write(folder: Path, pages: list[Page], picture: Callable[[reader.Fence, Page], str]) -> None:
    """The notebook of every page that shows code, beside the page in its language's folder of the site.

    picture  draws the fence of a page's figure as an SVG that stands alone
    """
    recipes = _recipes()
    sheet = (project.DOCS / "shared" / "stylesheets" / "figures.css").read_text("utf-8")
    for page in pages:
        if not page.notebook and not _shows_code(page.source):
            continue

        def made(page=page):
            markdown, _ = values.fill_values(page.source, page.name, page.language)
            return notebook(cells_of(markdown, page.language, lambda fence: picture(fence, page)), page)

        parts = [page.name, page.site, page.source, page.markdown, recipes, sheet]
        target = folder / page.url / f"{Path(page.name).stem}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page.notebook or kept(f"{page.language}/notebooks", parts, made), encoding="utf-8")
