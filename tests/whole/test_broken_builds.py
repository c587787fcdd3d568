"""Every fault stops the build: exit status 1, one message with file and line, no traceback, the last good site untouched.

That is shown once for each step of builder/order.py; what scripts and sources are told is asked of those steps alone.
"""

import json
import re

import pytest

from builder.scripts import recorded

SUMS = "snippets/layouts/two_sums.py"
INDEX = "snippets/index.py"


def breaks(small, *said, **environment):
    """Build, and check that it failed as it should, saying each of `said`."""
    before = small.read("site/ja/index.html")
    done = small.build(**environment)
    assert done.returncode == 1, done.said
    assert "Traceback" not in done.said, done.said
    for text in said:
        assert text in done.said, done.said
    assert small.read("site/ja/index.html") == before, "the last good site was touched"
    assert not small.path("site.building").exists(), "a half-built site was left"
    return done


def refused(small, *said):
    """The steps before the first page end the build, saying each of `said`."""
    told = small.told()
    for text in said:
        assert text in told, told
    return told


def test_the_small_project_builds_twice(small):
    """What the others break does build, and a second build runs no script."""
    done = small.build()
    assert done.returncode == 0, done.said
    assert "scripts to run" not in done.said


def test_a_claim_no_longer_holds(small):
    small.replace(SUMS, "ours = add_up(weights.unbind(-1))", "ours = add_up(weights.unbind(-1)) + 1e-3")
    line = small.line_of(SUMS, "assert_close")
    breaks(
        small,
        f"{SUMS}:{line}: the claim no longer holds: greatest difference 0.001 at",
        "allowed 1e-07 + 1e-07 * |expected|",
    )


def test_a_claim_breaks_through_a_recipe(small):
    """A recipe is a dependency: changing it runs its importers again."""
    small.replace("snippets/recipes/adding.py", "total = total + value", "total = total + 1.01 * value")
    refused(small, f"{SUMS}:{small.line_of(SUMS, 'assert_close')}: the claim no longer holds: greatest difference 0.01")


def test_a_claim_of_difference_no_longer_holds(small):
    small.replace(
        SUMS, "assert not torch.allclose(ours, weights.mean(-1))", "assert not torch.allclose(ours, weights.sum(-1))"
    )
    refused(small, f"{SUMS}:{small.line_of(SUMS, 'assert not')}: the claim no longer holds: they do not differ")


def test_a_bare_assert_no_longer_holds(small):
    small.replace(INDEX, "# --8<-- [end:proof]", "assert x.shape == (5, 7)\n# --8<-- [end:proof]")
    line = small.line_of(INDEX, "assert x.shape")
    refused(small, f"{INDEX}:{line}: the claim no longer holds: torch.Size([5, 6]) == (5, 7) is false")


def test_an_error_is_not_raised_any_more(small):
    demand = "try:\n    x.view(30)\nexcept RuntimeError as error:\n    print(error)\nelse:\n    raise AssertionError('view')\n"
    small.replace(INDEX, "# --8<-- [end:proof]", demand + "# --8<-- [end:proof]")
    refused(
        small,
        f"{INDEX}:{small.line_of(INDEX, 'raise AssertionError')}: the claim no longer holds: AssertionError: view",
    )


def test_a_script_raises(small):
    small.replace(INDEX, "x = torch.randn(5, 6, dtype=torch.float64)", "x = torch.randn(5, 7, dtype=torch.float64)")
    refused(small, f"{INDEX}:{small.line_of(INDEX, 'by_columns =')}: the script raises: RuntimeError: ")


def test_a_script_is_not_python(small):
    small.replace(INDEX, "import torch", "import torch torch")
    refused(small, f"{INDEX}:2: this is not Python")


def test_a_script_dies(small):
    small.replace(INDEX, "import torch\n", "import os, torch\nos._exit(3)\n")
    breaks(small, f"{INDEX}: its process died with exit code 3")


def test_a_record_of_another_program(small):
    """What no build makes is refused when what made it has changed, or is gone."""
    recipe, tool = "snippets/recipes/adding.py", "snippets/recipes/tool.py"
    small.write(tool, "TOOL = 1\n")
    of = {name: recorded.digest(small.path(name)) for name in (recipe, tool)}
    made = {"made": {"command": "make these", "of": of}, "numbers": [1]}
    small.write("snippets/these.json", json.dumps(made, indent=1))
    assert not small.told()
    small.replace(recipe, "total = total + value", "total = value + total")
    said = "snippets/these.json:{}: this record was made with another {} than is here: `make these` makes it anew"
    refused(small, said.format(5, recipe))
    small.path(tool).unlink()
    refused(small, said.format(5, recipe), said.format(6, tool))


def test_a_section_is_never_closed(small):
    small.replace(INDEX, "# --8<-- [end:proof]\n", "")
    refused(small, f"{INDEX}:1: section [proof] is never closed")


def test_a_section_is_named_twice(small):
    small.replace(SUMS, "start:same", "start:setup")
    small.replace(SUMS, "end:same", "end:setup")
    refused(small, f"{SUMS}:{small.line_of(SUMS, 'ours =') - 1}: section [setup] is named twice")


def test_a_statement_crosses_the_edge_of_a_section(small):
    small.replace(INDEX, "# --8<-- [end:proof]\n", "if True:\n    x = 1\n# --8<-- [end:proof]\n    y = 2\n")
    refused(small, f"{INDEX}:{small.line_of(INDEX, 'if True')}: this statement stands across the edge of a section")


def test_a_page_includes_what_is_not_there(small):
    for language in ("ja", "en"):
        small.replace(f"docs/{language}/index.md", "index.py:proof", "index.py:prof")
    line = small.line_of("docs/en/index.md", "index.py:prof")
    refused(small, f"docs/en/index.md:{line}: ", "prof", "proof")


def test_a_page_includes_output_that_was_not_printed(small):
    for language in ("ja", "en"):
        small.replace(
            f"docs/{language}/index.md", '--8<-- "index.py.out:proof"', '--8<-- "layouts/two_sums.py.out:setup"'
        )
    refused(small, f"docs/ja/index.md:{small.line_of('docs/ja/index.md', 'two_sums.py.out')}: ", "setup")


def test_a_section_is_included_nowhere(small):
    small.replace(INDEX, "show(", "# --8<-- [start:more]\nprint(len(x))\n# --8<-- [end:more]\nshow(")
    refused(small, f"{INDEX}:{small.line_of(INDEX, 'start:more')}: ", "more")


def test_a_vacuous_claim_stops_the_build(small):
    small.replace(INDEX, "# --8<-- [end:proof]", "torch.testing.assert_close(x, x)\n# --8<-- [end:proof]")
    refused(
        small, f"{INDEX}:{small.line_of(INDEX, '(x, x)')}: this claim cannot fail: both sides are the same expression"
    )


def test_a_script_has_no_claim(small):
    small.replace(INDEX, "torch.testing.assert_close(x @ w, by_columns)\n", "")
    refused(small, f"{INDEX}: it has no claim")


def test_a_formula_is_not_tex(small):
    for language in ("ja", "en"):
        small.replace(f"docs/{language}/layouts/two-sums.md", r"\frac{e^{x_j}}", r"\fracc{e^{x_j}}")
    small.reread("layouts/two-sums")
    done = breaks(small, r"Undefined control sequence \fracc")
    assert f"docs/ja/layouts/two-sums.md:{small.line_of('docs/ja/layouts/two-sums.md', 'fracc')}" in done.said


def test_a_formula_of_the_second_language_is_not_tex(small):
    """The other process's fault is told as plainly as the first one's."""
    small.replace("docs/en/index.md", "Each row", "$x_1_2$ Each row")
    small.replace("docs/ja/index.md", "行の和", "$x_1_2$ 行の和")
    small.replace("docs/ja/index.md", "$x_1_2$", "$x_{12}$")
    small.replace("docs/en/index.md", "$x_1_2$", "$x_{12}$")
    small.reread("index")
    small.replace("builder/order.py", "    checks.faults,", "")  # only the check of pairs would come first
    small.replace("docs/en/index.md", "$x_{12}$", "$x_1_2$")
    breaks(small, "docs/en/index.md:3", "ouble subscript")


def test_a_page_in_one_language_only(small):
    small.path("docs/en/layouts/two-sums.md").unlink()
    refused(small, "layouts/two-sums.md", "docs/en")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("{ #same }", "{ #other }", "#other"),
        ('```python\n--8<-- "layouts/two_sums.py:same"\n```\n', "", "two_sums.py:same"),
        (r"\sum_j A_{ij} = 1", r"\sum_j A_{ij} = 2", "formulas differ"),
        ("```figure weights\n", "```figure weight\n", "weight"),
        ("1. Row by row.", "1. Row by row. # (1)!", ""),
    ],
)
def test_a_pair_differs(small, old, new, what):
    page = "docs/en/layouts/two-sums.md"
    if what:
        small.replace(page, old, new)
    else:
        small.replace(SUMS, "ours = add_up(weights.unbind(-1))", "ours = add_up(weights.unbind(-1))  # (1)!")
        small.replace(page, "1. Row by row.\n", "")
    refused(small, page, what)


def test_a_pair_moved_without_being_reread(small):
    small.replace("docs/en/index.md", "Each row", "Every row")
    refused(small, "docs/en/index.md", "make stamp PAGE=index")
    small.reread("index")
    assert small.build().returncode == 0


def test_a_forbidden_word(small):
    small.replace("docs/en/index.md", "Each row", "Obviously each row")
    small.reread("index")
    breaks(small, "docs/en/index.md:3: ", "bviously")


@pytest.mark.parametrize(
    ("old", "new"), [("two-sums.md#same", "two-sums.md#nowhere"), ("practice/try-it.md", "practice/gone.md")]
)
def test_a_link_leads_nowhere(small, old, new):
    for language in ("ja", "en"):
        small.replace(f"docs/{language}/index.md", old, new)
    small.reread("index")
    line = small.line_of("docs/en/index.md", new)
    breaks(
        small,
        f"docs/ja/index.md:{line}: ",
        f"docs/en/index.md:{line}: ",
        new.rpartition("/")[2].removesuffix(".md").rpartition("#")[2],
    )


def test_a_practice_notebook_raises(small):
    """The script runs, the page does not: it leaves out what its later cell needs."""
    small.replace(
        "snippets/practice/try_it.py",
        "values = torch.arange(6",
        "# --8<-- [end:question]\n# --8<-- [start:values]\nvalues = torch.arange(6",
    )
    small.replace(
        "snippets/practice/try_it.py",
        "print(values.sum())\n# --8<-- [end:question]",
        "print(values.sum())\n# --8<-- [end:values]",
    )
    for language in ("ja", "en"):
        text = small.read(f"docs/{language}/practice/try-it.md")
        small.write(
            f"docs/{language}/practice/try-it.md", text + '\n```python\n--8<-- "practice/try_it.py:values"\n```\n'
        )
    small.reread("practice/try-it")
    line = small.line_of("docs/en/practice/try-it.md", "try_it.py:answer") - 1
    breaks(
        small,
        f"docs/en/practice/try-it.md:{line}: this practice notebook does not run",
        "NameError: name 'values' is not defined",
    )


def test_a_value_that_no_script_shows(small):
    for language in ("ja", "en"):
        small.replace(f"docs/{language}/index.md", "{{ error }}", "{{ terror }}")
    small.reread("index")
    breaks(small, "docs/ja/index.md:3: no script showed the value 'terror'")


def test_attention_that_does_not_sum_to_one(small):
    small.replace(SUMS, '{"weights": weights}', '{"weights": weights * 2}')
    breaks(small, "layouts/two-sums.md", "weights")


def test_a_page_that_the_navigation_forgets(small):
    configuration = small.read("mkdocs.yml")
    small.write("docs/en/index.md", small.read("docs/en/index.md") + "\nThe error is 0.123.\n")
    small.write("mkdocs.yml", configuration + "nav:\n  - index.md\n  - layouts:\n      - layouts/gone.md\n")
    breaks(
        small,
        "mkdocs.yml: the nav names layouts/gone.md, and there is no such page",
        "mkdocs.yml: the nav does not name layouts/two-sums.md",
        "`0.123` is typed",  # and what is wrong with the pages, in the same round
    )


def test_a_first_build_that_fails_leaves_nothing(small):
    import shutil

    shutil.rmtree(small.path("site"))
    small.replace(INDEX, "by_columns)", "by_columns + 1)")
    assert small.build().returncode == 1
    assert not small.path("site").exists()
    assert not small.path("site.building").exists()


def test_several_faults_are_told_at_once(small):
    small.replace(INDEX, "by_columns)", "by_columns + 1)")
    small.replace(SUMS, "weights.sum(-1))", "weights.sum(-1) + 1)")
    done = breaks(small, INDEX, SUMS)
    assert done.said.count("the claim no longer holds") == 2


def test_records_of_a_script_that_is_gone_are_removed(small):
    small.write(
        "snippets/layouts/gone.py",
        small.read(INDEX).replace("[start:proof]", "[start:p]").replace("[end:proof]", "[end:p]"),
    )
    small.build()
    assert small.path(".cache/snippets/layouts/gone.claims.json").exists()
    small.path("snippets/layouts/gone.py").unlink()
    assert small.build().returncode == 0
    assert not list(small.path(".cache/snippets/layouts").glob("gone*"))


def test_only_what_changed_runs_again(small):
    small.replace("snippets/recipes/adding.py", '"""Add numbers', '"""Add some numbers')
    done = small.build()
    assert done.returncode == 0, done.said
    assert "2 of 4 scripts to run" in done.said  # the recipe and its importer
    assert "two_sums.py" in done.said


def test_no_fork(small):
    """Where there is no fork a fresh process each gives the same."""
    scripts = "snippets/index.py", "snippets/layouts/two_sums.py"
    done = small.python("-m", "builder", "run", *scripts, ATTENTION_NO_FORK="1", check=True)
    told = [
        sorted(re.sub(r"\d+\.\d+ s$", "", said, flags=re.M).splitlines())
        for said in (done.stdout, small.run_scripts(*scripts))
    ]
    assert told[0] == told[1]
    assert sum(line.startswith("claim ") for line in told[0]) > 2


def test_claims_are_recorded(small):
    claims = json.loads(small.read(".cache/snippets/layouts/two_sums.claims.json"))
    assert [(claim["kind"], claim["section"], claim["shapes"], claim["dtypes"]) for claim in claims] == [
        ("equal", "same", [[3]], ["float64"]),
        ("differs", "same", [[3]], ["float64"]),
    ]
    assert claims[0]["tolerance"] == [1e-7, 1e-7]
    assert claims[1]["error"] > 0.1
