"""The quiet line under a block, values in sentences, sections of scripts."""

from dataclasses import replace

import pytest

from builder import project
from builder.pages import claims_page, values
from builder.scripts import records as keeper
from builder.scripts import sections
from builder.scripts.claims import Claim

CLAIM = Claim(5, "equal", "assert_close(a, b)", section="same", count=3, error=2e-16, tolerance=(1e-7, 1e-7))


@pytest.fixture
def records(monkeypatch):
    """Records as a run would leave them: two claims of one section, one value."""
    kept = {
        "claims": [CLAIM, replace(CLAIM, kind="differs", count=1, error=9.0, tolerance=None)],
        "values": {"max_error": "2.0e-16", "angle": "<60°"},
    }
    monkeypatch.setattr(keeper, "record", lambda script, part: kept[part] if script == "layouts/two_sums.py" else None)


LINE = "[4 claims hold · greatest error 2.0e-16 (allowed 1e-07 + 1e-07 |x|)](../reference/claims.md#layouts-two-sums)"
BLOCK = '```python\n--8<-- "layouts/two_sums.py:same"\n```\n'
OUTPUT = '```text\n--8<-- "layouts/two_sums.py.out:same"\n```\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BLOCK, "\nText.\n"),
        (BLOCK + "\n" + OUTPUT, "\nText.\n"),
        (BLOCK + "\n1. What the annotation says,\n   on two lines.\n2. Another.\n", "\nText.\n"),
        (BLOCK + "\n1. An annotation.\n\n" + OUTPUT, "\nText.\n"),
        (BLOCK, '\nText.\n\n```text\n--8<-- "layouts/two_sums.py.out:other"\n```\n'),
    ],
)
def test_the_quiet_line_stands_below_what_belongs_to_the_block(records, before, after):
    made = claims_page.quiet_lines(before + after, "layouts/two-sums.md", "en")
    assert made.split() == f"{before}\n{LINE}\n{{ .claims }}\n{after}".split()


def test_the_quiet_line_in_a_box_is_indented_with_it(records):
    box = '!!! trap "x"\n\n    ' + BLOCK.replace("\n", "\n    ").rstrip() + "\n\nText.\n"
    made = claims_page.quiet_lines(box, "layouts/two-sums.md", "en")
    assert f"    ```\n\n    {LINE}\n    {{ .claims }}\n" in made


def test_no_claims_no_line(records):
    block = BLOCK.replace(":same", ":setup")
    assert claims_page.quiet_lines(block, "layouts/two-sums.md", "en") == block


def test_a_whole_file_is_shown_without_colours():
    whole = '??? file "x"\n\n    ```python title="adding.py"\n    --8<-- "recipes/adding.py"\n    ```\n'
    assert claims_page.plain_listings(whole) == whole.replace("```python", "```text")
    assert claims_page.plain_listings(BLOCK) == BLOCK


def test_values(records):
    made, faults = values.fill_values(
        "{{ max_error }} {{ layouts/two-sums:angle }} {{max_error}}", "layouts/two-sums.md", "en"
    )
    assert made == "2.0e-16 &lt;60° {{max_error}}"
    assert not faults
    _, faults = values.fill_values("a\nb {{ nothing }}", "layouts/two-sums.md", "en")
    assert [str(fault) for fault in faults] == ["docs/en/layouts/two-sums.md:2: no script showed the value 'nothing'"]


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("# --8<-- [start:a]\n", 1, "section [a] is never closed"),
        ("# --8<-- [end:a]\n", 1, "[end:a] closes no section: none is open"),
        ("# --8<-- [start:a]\n# --8<-- [end:b]\n", 2, "[end:b] closes no section: open is [a] of line 1"),
        ("# --8<-- [start:a]\n# --8<-- [start:b]\n", 2, "section [b] starts inside section [a]"),
        ("x = 1\n# --8<-- start:a\n", 2, "this looks like a section marker and is none"),
    ],
)
def test_sections_that_are_not_balanced(source, line, said):
    with pytest.raises(sections.Broken, match=said.replace("[", r"\[").replace("]", r"\]")) as caught:
        sections.spans(source)
    assert caught.value.line == line


def test_sections():
    source = "import x\n# --8<-- [start:a]\ny = 1\n# --8<-- [end:a]\n    # --8<-- [start:b-2]\n    z\n    # --8<-- [end:b-2]\n"
    assert sections.spans(source) == {"a": (3, 3), "b-2": (6, 6)}


BAD = {
    'show("Bad Name", torch.ones(3).numel())': "ValueError: show: name must be a lower-case identifier, got 'Bad Name'",
    'show("tensor", torch.ones(2))': "TypeError: show: value must be a string or a number, got Tensor",
    'show("twice", torch.ones(3).numel())\nshow("twice", torch.ones(3).numel())': "ValueError: show: 'twice' was shown before",
    'figure("big", "matrix", {"a": torch.ones(300, 300)})': "figure: tensor 'a' has 90000 numbers, at most 50000",
    'figure("a", "blocks", {})\nfigure("a", "blocks", {})': "ValueError: figure: 'a' was drawn before",
}


def test_bad_input_of_show_and_figure(small):
    """One script a call, all run by one runner."""
    names = [f"snippets/bad/bad_{index}.py" for index in range(len(BAD))]
    for name, call in zip(names, BAD, strict=True):
        small.write(name, f"import torch\n{call}\n")
    output = small.run_scripts(*names)
    for name, said in zip(names, BAD.values(), strict=True):
        assert said in output.partition(f"== {name}")[2].partition("==")[0]


RECORDED_ON = {
    "atlas/compared.json": "atlas/index.md",
    "layouts/cost.json": "layouts/cost.md",
    "layouts/trace.json": "layouts/trace.md",
    "libraries.json": "weights/any-model.md",
    "model_types.json": "atlas/detective.md",
    "versions.json": "weights/per-head.md",
    "weights/hugging_face.json": "weights/hugging-face.md",
    "weights/real_model.json": "weights/real-model.md",
}


def test_data_that_no_run_has_made_are_those_that_the_site_tells_of():
    """Of each record that scripts read, the page that shows it is named where the promise is made."""
    made = [path for path in project.SNIPPETS.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert sorted(path.relative_to(project.SNIPPETS).as_posix() for path in made) == sorted(RECORDED_ON)
    for language in project.LANGUAGES:
        promise = (project.DOCS / language / "about.md").read_text("utf-8")
        assert [page for page in RECORDED_ON.values() if f"]({page}" not in promise] == []
