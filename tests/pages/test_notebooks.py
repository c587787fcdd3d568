"""Notebooks: a page's blocks as cells; those of the built site run in Jupyter and print what they show."""

import base64
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import markdown
import nbformat
import page_blocks
import pytest
import shared_site
from nbclient import NotebookClient
from small_project import FIXTURE

from builder import project
from builder.dialect import Dialect
from builder.pages import exercises, notebooks, reader
from builder.pages.page import Page

IN_JUPYTER = pytest.mark.xdist_group("jupyter")  # one kernel
RECIPE = "%%writefile adding.py\n"
# the right answers are told right, and of the known mistakes each says its sentence
TELL = """\
from contextlib import redirect_stdout
from io import StringIO

exercises._task({name!r})
assert all(expected == told for expected, told in exercises.outcomes())
for name, task in exercises._known.items():
    task.given = None
    with redirect_stdout(StringIO()) as heard:
        check(name, task.right[0])
    assert heard.getvalue() == exercises.SAYS["ja"]["right"] + "\\n"
    for wrong in task.wrong.values():
        check(name, wrong.example if isinstance(wrong, exercises.Like) else wrong)
"""


def cells(notebook, kind="code"):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


@pytest.fixture
def lesson(built_small_project):
    return nbformat.read(built_small_project.path("site/en/layouts/two-sums/two-sums.ipynb"), as_version=4)


def test_a_lesson_as_a_notebook(lesson):
    nbformat.validate(lesson)
    code = cells(lesson)
    assert code[0].source.startswith(RECIPE)
    assert "--8<--" not in "".join(cell.source for cell in code)
    assert [cell.source.splitlines()[0] for cell in code[1:]] == ["import torch", "ours = add_up(weights.unbind(-1))"]
    assert code[2].outputs[0].text == "ours (3,)\n"
    text = "\n".join(cell.source for cell in cells(lesson, "markdown"))
    assert "# Two sums" in text
    assert "{ #" not in text
    assert "ours (3,)" not in text, "what a cell printed stands under it, and once"
    assert "**Traps**" in text
    assert "http://127.0.0.1:8000/en/reference/claims/" in text
    (picture,) = re.findall(r'<img src="data:image/svg\+xml;base64,([\w+/=]+)" alt="', text)
    drawn = ElementTree.fromstring(base64.b64decode(picture))
    assert drawn.get("class").startswith("figure figure--")
    assert [*drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "Each row sums to one: $\\sum_j A_{ij} = 1$. 3" in text


def test_a_practice_page_is_rendered_from_its_notebook(built_small_project):
    page = built_small_project.read("site/ja/practice/try-it/index.html")
    assert 'id="answer"' in page
    assert 'data-tex="x^2 &lt; 3"' in page
    assert "<style" not in page
    assert "clipboard-copy" not in page


def test_the_text_of_a_practice_page_is_made_as_on_any_page(built_small_project):
    page = built_small_project.read("site/en/practice/try-it/index.html")
    for other in (page, built_small_project.read("site/en/layouts/two-sums/index.html")):
        assert "It costs $5 or $6 here." in other
        assert re.search(r'<h2 id="[\w-]+"[^>]*><span.*?</span><a class="headerlink" ', other)
    assert re.search(r'<a href="#answer" class="md-nav__link">\s*<span class="md-ellipsis">\s*Answer\s*<', page)
    assert "<title>Try it - " in page


def test_the_cells_of_a_practice_page_stand_where_its_text_has_them():
    page = Page("en", "practice/try-it.md", notebook='{"cells": []}')
    fence = '```python\n--8<-- "practice/try_it.py:question"\n```'
    hint = "<details><summary>Hint</summary>\n\nA *hint*.\n\n</details>"
    text = notebooks.cut(f"# A {{ #a }}\n\n{fence}\n\n{hint}\n\n{fence}\n", page)
    assert text.count(notebooks.CUT) == 2
    assert "```" not in text
    made = markdown.markdown(text, extensions=["attr_list", "md_in_html", Dialect()])
    assert "<p>A <em>hint</em>.</p>" in made
    code = [nbformat.v4.new_code_cell(source) for source in ("given", "one", "two")]
    code[0]["metadata"]["name"] = "given"
    page.notebook = json.dumps(nbformat.v4.new_notebook(cells=code))
    cells = json.loads(notebooks.around(made, page))["cells"]
    assert [cell["source"] for cell in cells if cell["cell_type"] == "code"] == ["given", "one", "two"]
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code", "code", "markdown", "code", "markdown"]
    assert cells[0]["source"] == '<h1 id="a">A</h1>'
    page.notebook = json.dumps(nbformat.v4.new_notebook(cells=code[:2]))
    with pytest.raises(ValueError, match="longer"):
        notebooks.around(made, page)


def test_a_practice_page_has_the_markup_of_every_other_page(built_small_project):
    """Blocks that Material lets one scroll by keyboard; what a cell printed right below its source; links inside the site."""
    page = built_small_project.read("site/ja/practice/try-it/index.html")
    article = page[page.index("<article") : page.index("</article>")]
    assert re.search(r"<article[^>]*>\s*<p class=\"chapter\">[^<]*</p>\s*<h1 ", article), "no box around the text"
    assert article.count("<div") == article.count("</div>")
    assert article.count("<details") == article.count("</details>") == 1
    assert "jp-Cell" not in article
    assert "zeroclipboard" not in article
    blocks = re.findall(
        r'<div class="highlight"><pre><span></span><code>(.*?)</code></pre></div>(?=(\s*<div)?)', article, re.S
    )
    assert len(blocks) == article.count("<pre") == 5
    assert [code for code, _ in blocks[2::2]] == ["tensor(15., dtype=torch.float64)\n", "6 numbers\n"]
    assert [bool(neighbour) for _, neighbour in blocks] == [False, True, False, True, False]
    assert '<a href="../../layouts/two-sums/">' in article


def test_a_practice_notebook_begins_with_what_it_needs(built_small_project):
    path = built_small_project.path("site/ja/practice/try-it/try-it.ipynb")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = cells(notebook)
    assert [cell.source == notebooks.INSTALL for cell in code] == [True, False, False]
    assert notebook.cells[1] is code[0]
    page = built_small_project.read("site/ja/practice/try-it/index.html")
    box = page[page.index('<details class="file"') : page.index("</details>", page.index('<details class="file"'))]
    assert "<summary>準備：PyTorchがなければ入れる</summary>" in box
    assert "find_spec" in box
    assert page.count("find_spec") == 1


@pytest.mark.parametrize("missing", [False, True])
def test_torch_is_installed_where_it_is_missing(missing, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if missing else object())
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append((command, check)))
    exec(notebooks.INSTALL, {})
    assert asked == ([([sys.executable, "-m", "pip", "install", "--quiet", "torch"], True)] if missing else [])
    assert capsys.readouterr() == ("", "")


# A reader's kernel is new. This one forgets what a notebook left instead: another costs what a lesson costs.
FORGET = f"""\
%reset -f
import os, sys, warnings
left = [name for name, module in sys.modules.items() if (getattr(module, "__file__", None) or "").startswith(os.getcwd())]
for name in left:
    del sys.modules[name]
os.chdir({{folder!r}})
warnings.resetwarnings()
{inspect.getsource(page_blocks.as_imported)}
as_imported()
%reset -f
"""


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    """A function (notebook, folder) that executes a notebook in an empty folder, in the one kernel of this process."""
    begun = {"metadata": {"path": str(tmp_path_factory.mktemp("kernel"))}}
    client = NotebookClient(
        nbformat.v4.new_notebook(), kernel_name="python3", timeout=300, interrupt_on_timeout=True, resources=begun
    )

    def execute(notebook, folder):
        forget = nbformat.v4.new_code_cell(FORGET.format(folder=str(folder)))
        notebook.cells.insert(0, forget)
        client.nb = notebook
        client.reset_execution_trackers()
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        notebook.cells.remove(forget)
        assert not forget.outputs

    # Playwright, where it runs in this process, keeps the main thread's event loop
    with ThreadPoolExecutor(1) as thread:
        running = client.setup_kernel()
        thread.submit(running.__enter__).result()
        yield lambda *given: thread.submit(execute, *given).result()
        thread.submit(running.__exit__, None, None, None).result()


def run(kernel, path, folder, more=""):
    """Execute a notebook, and `more` behind it, in an empty folder; return it with what it printed."""
    notebook = nbformat.read(path, as_version=4)
    behind = [nbformat.v4.new_code_cell(more)] if more else []
    shown = [[output.text for output in cell.outputs] for cell in cells(notebook)]
    notebook.cells += behind
    kernel(notebook, folder)
    printed = [
        ["".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")]
        for cell in cells(notebook)
    ]
    for before, after, cell in zip(shown, printed, cells(notebook), strict=not more):
        if not cell.source.startswith("%%writefile"):
            assert "".join(before).strip() == after[0].strip(), cell.source
    return notebook


LEAVES = """\
import torch, warnings
open("left.py", "w").close()
import left
warnings.simplefilter("ignore")
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
torch.set_printoptions(precision=1)
torch.set_grad_enabled(False)
torch.backends.mha.set_fastpath_enabled(False)
"""
ASKS = """\
import importlib.util, torch, warnings
print("left" in globals(), importlib.util.find_spec("left"), warnings.filters)
print(torch.initial_seed() == 0, torch.get_default_dtype(), torch.tensor(1 / 3))
print(torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled())
"""


@IN_JUPYTER
def test_the_kernel_forgets(kernel, tmp_path):
    for name, source in {"first": LEAVES, "second": ASKS}.items():
        (tmp_path / name).mkdir()
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        kernel(notebook, tmp_path / name)
    told = notebook.cells[0].outputs[0].text
    assert told == "False None []\nFalse torch.float32 tensor(0.3333)\nTrue True\n"


@IN_JUPYTER
def test_a_downloaded_lesson_runs_in_jupyter(built_small_project, kernel, tmp_path):
    run(kernel, built_small_project.path("site/ja/layouts/two-sums/two-sums.ipynb"), tmp_path)
    assert (tmp_path / "adding.py").exists()


@IN_JUPYTER
def test_a_notebook_that_prints_something_else_is_noticed(built_small_project, kernel, tmp_path):
    source = built_small_project.read("site/ja/layouts/two-sums/two-sums.ipynb")
    assert "ours (3,)" in source
    changed = tmp_path / "changed.ipynb"
    changed.write_text(source.replace("ours (3,)", "ours (4,)"), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"ours \(4,\)"):
        run(kernel, changed, tmp_path)


@IN_JUPYTER
@pytest.mark.parametrize("page", ["ja/layouts/rosetta", "en/layouts/pytorch"])
def test_a_lesson_of_the_site_runs_in_jupyter(page, kernel, tmp_path):
    name = page.rpartition("/")[2]
    notebook = run(kernel, shared_site.built() / page / f"{name}.ipynb", tmp_path)
    assert len(cells(notebook)) > 5


def test_every_notebook_of_the_site_has_its_figures_and_no_output_twice():
    seen = 0
    for path in sorted(shared_site.built().glob("??/*/*/*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        text = "\n".join(cell.source for cell in cells(notebook, "markdown"))
        images = text.count('<img src="data:image/svg+xml;base64,')
        assert images == len(re.findall(r"^> (?:Figure: |図：)\*\*", text, re.M)), path
        seen += images
        printed = ["".join(output.text for output in cell.outputs).strip() for cell in cells(notebook)]
        blocks = re.findall(r"^```text\n(.*?)\n```$", text, re.M | re.S)
        assert not [block for block in blocks if block.strip() in printed], path
    assert seen > 100


PRACTICE = sorted(path.stem for path in (project.DOCS / "ja" / "practice").glob("*.md") if path.stem != "index")


@IN_JUPYTER
@pytest.mark.parametrize("name", PRACTICE)
def test_a_practice_notebook_runs_in_jupyter(name, kernel, tmp_path):
    """One of each pair, whose other has the same cells."""
    pair = [shared_site.built() / language / "practice" / name / f"{name}.ipynb" for language in ("ja", "en")]
    sources = [
        [cell.source for cell in cells(nbformat.read(one, as_version=4)) if not exercises.is_packed(cell)]
        for one in pair
    ]
    assert sources[0] == sources[1]
    asked = next(match[1] for source in sources[0] if (match := re.search(r'^check\("(.+?)",', source, re.M)))
    code = cells(run(kernel, pair[0], tmp_path, TELL.format(name=asked)))
    assert code[0].source == notebooks.INSTALL
    told = "".join(output.text for output in code[-1].outputs).splitlines()
    says = reader.front_matter((project.DOCS / f"ja/practice/{name}.md").read_text("utf-8"))["exercises"]
    assert sorted(told) == sorted(sentence for known in says.values() for sentence in known.values())
    for cell in code[1:]:
        imports = re.findall(r"^from (capture|checks) import", cell.source, re.M)
        assert all((tmp_path / f"{recipe}.py").exists() for recipe in imports)


def test_outputs_of_the_practice_notebooks_are_those_of_the_run(built_small_project):
    notebook = json.loads(built_small_project.read("site/en/practice/try-it/try-it.ipynb"))
    texts = [
        "".join("".join(output["text"]) for output in cell["outputs"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
    assert texts == ["", "tensor(15., dtype=torch.float64)\n", "6 numbers\n"]


def test_the_fixture_is_whole():
    """The small project's own page has each thing that the tests above look for."""
    text = (FIXTURE / "docs/en/layouts/two-sums.md").read_text(encoding="utf-8")
    for part in ("```figure", "$$", "!!! trap", "recipes/adding.py", "--8<--"):
        assert part in text


@pytest.mark.parametrize(
    "fence", ["```py", "``` python", "~~~python", "```{.python}", '```python title="x"', "```pycon"]
)
def test_a_fence_that_would_escape_the_tests_is_a_failure(fence, tmp_path, monkeypatch):
    """A fence that looks like Python is collected, or pytest stops."""
    monkeypatch.setattr(page_blocks, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{fence}\nprint(1)\n{fence[:3]}\n", encoding="utf-8")
    with pytest.raises(pytest.Collector.CollectError, match="1 fences look like Python, but 0 blocks"):
        page_blocks.Page(page)


@pytest.mark.parametrize(("language", "word"), [("en", "Solution."), ("ja", "解答。")])
def test_solutions_are_closed_until_they_are_asked_for(language, word):
    """Each with what follows it in its exercise; text that only speaks of solutions stays open."""
    exercise = f"<h2>1</h2>\n<p>Do it.</p>\n<p><strong>{word}</strong> So.</p>\n<pre>code</pre>\n<p><strong>Wrong.</strong></p>\n"
    last = "<h2>Further</h2>\n<p>There is a solution.</p>"
    made = notebooks.folded(exercise * 2 + last, Page(language, "practice/masks.md"))
    boxes = re.findall(r'<details class="question"><summary>[^<]+</summary>\n(.*?)</details>', made, re.S)
    assert [box.count("<pre>code</pre>") for box in boxes] == [1, 1]
    assert all(box.startswith(f"<p><strong>{word}") and "Wrong." in box and "<h2" not in box for box in boxes)
    assert made.endswith(last)


def test_a_solution_is_hidden_under_a_heading_of_its_own():
    """In Jupyter and in Colab; the heading of the next exercise begins a cell, and ends what is hidden."""
    text = "Do it.\n\n**Solution.** So.\n\nIt is so.\n\n## 2. Next\n\nDo that."
    said = {"solution": "Solution.", "fold": "Solution, and a wrong answer"}
    made = notebooks._hiding_solutions(notebooks.Cell("markdown", text), said)
    assert [cell.text for cell in made] == [
        "Do it.",
        "### Solution, and a wrong answer",
        "**Solution.** So.\n\nIt is so.",
        "## 2. Next\n\nDo that.",
    ]
    parts = notebooks.Parts([notebooks.Cell("markdown", "# A"), *made])
    written = json.loads(notebooks.notebook(parts, Page("en", "practice/masks.md")))
    hidden = [cell for cell in written["cells"] if cell["metadata"].get("jp-MarkdownHeadingCollapsed")]
    assert [cell["source"] for cell in hidden] == ["### Solution, and a wrong answer"]
    assert written["metadata"]["colab"]["collapsed_sections"] == [hidden[0]["metadata"]["id"]]
    code = notebooks.Cell("code", text)
    assert notebooks._hiding_solutions(code, said) == [code]
