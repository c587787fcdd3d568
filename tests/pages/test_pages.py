"""Checks on page sources: each one is shown to fail, with the message that a writer would read."""

import inspect
import json
import re

import pytest
import torch
from torch import nn

import mkdocs_adapter
from builder import order, project
from builder.pages import banner, checks, reader
from builder.pages import lock as stamped
from builder.project import Stopped

SCRIPT = """\
# --8<-- [start:setup]
import torch  # (1)!

x = torch.zeros(5)  # (E,) (2)!
# --8<-- [end:setup]
show("error", "0")
# --8<-- [start:check]
assert torch.equal(x, 0 * x)
print(x.shape)
# --8<-- [end:check]
"""
OUTPUT = """\
# --8<-- [start:setup]
# --8<-- [end:setup]
# --8<-- [start:check]
torch.Size([5])
# --8<-- [end:check]
"""
PAGE = """\
---
hide: [toc]
---

# {title} {{ #one }}

{sentence} $x_i$ {{{{ error }}}}

$$
y = x W
$$

```figure map
title: {title}
```

```python
--8<-- "chapter/one.py:setup"
```

1.  {sentence}
2.  {sentence}

## {title} {{ #two }}

!!! trap "{title}"

    {sentence} `--8<--`

    ```python title="{title}"
    --8<-- "chapter/one.py:check"
    ```

    ```text
    --8<-- "chapter/one.py.out:check"
    ```

<rosetta-map markdown>
{sentence}
</rosetta-map>
"""
JA = PAGE.format(title="題名", sentence="文です。")
EN = PAGE.format(title="Title", sentence="A sentence.")


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A project with one sound pair of pages."""
    for name, path in {
        "ROOT": "",
        "DOCS": "docs",
        "SNIPPETS": "snippets",
        "CACHE": ".cache",
        "RECORDS": ".cache/snippets",
    }.items():
        monkeypatch.setattr(project, name, tmp_path / path)
    monkeypatch.setattr(project, "soft_faults", [])
    for path, text in {
        "docs/ja/chapter/one.md": JA,
        "docs/en/chapter/one.md": EN,
        "snippets/chapter/one.py": SCRIPT,
        ".cache/snippets/chapter/one.py.out": OUTPUT,
        "docs/shared/explorers/rosetta-map.js": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    assert stamped.stamp(["chapter/one"]) == 0
    assert checks.faults() == [], "the pair that every test breaks must be sound"
    return tmp_path


def change(house, path, old, new):
    file = house / path
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")


def told(*, locked=False):
    """The faults as text, without those about rereading, which every change brings."""
    return [str(fault) for fault in checks.faults() if locked or "was last read" not in fault.message]


def line(text, wanted):
    return text[: text.index(wanted)].count("\n") + 1


DIFFERENCES = {
    "level": ("## Title { #two }", "### Title { #two }", "headings differ", "`## { #two }`, there `### { #two }`"),
    "id": ("{ #two }", "{ #zwei }", "headings differ", "there `## { #zwei }`"),
    "include": (":check", ":setup", "includes differ", "here `chapter/one.py:check`, there `chapter/one.py:setup`"),
    "displayed": ("y = x W", "y = W x", "displayed formulas differ", "here `y = x W`, there `y = W x`"),
    "figure": ("```figure map", "```figure atlas", "figures differ", "here `map`, there `atlas`"),
    "value": ("{{ error }}", "{{ error }} {{ error }}", "values differ", "`error` stands here 1 times, there 2 times"),
    "explorer": ("<rosetta-map", "<rosetta-mop", "explorers differ", "here `rosetta-map`, there `rosetta-mop`"),
    "box": ("!!! trap", "!!! note", "boxes differ", "here `trap`, there `note`"),
    "block": ("```text", "```", "code blocks differ", "here `text`, there `no language`"),
    "annotation": ("2.  A sentence.\n", "", "annotations differ", "here `2`, there `1`"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_pair_that_differs(house, name):
    old, new, what, details = DIFFERENCES[name]
    change(house, "docs/en/chapter/one.md", old, new)
    (found,) = [text for text in told() if what in text]
    assert found.startswith("docs/ja/chapter/one.md:")
    assert "docs/en/chapter/one.md:" in found
    assert details in found
    assert all(fault.soft for fault in checks.faults() if "differ" in fault.message)


def test_a_difference_names_both_lines(house):
    change(house, "docs/en/chapter/one.md", "y = x W", "\ny = W x")
    (found,) = told()
    assert found == (
        f"docs/ja/chapter/one.md:{line(JA, '$$')}: displayed formulas differ from "
        f"docs/en/chapter/one.md:{line(EN, '$$')}: here `y = x W`, there `y = W x`"
    )


def test_inline_formulas_are_a_set_of_their_section(house):
    change(house, "docs/en/chapter/one.md", "A sentence. $x_i$", "Of $x_i$ and again $x_i$,")
    assert told() == []
    change(house, "docs/en/chapter/one.md", "again $x_i$", "also $x_j$")
    assert told() == [
        "docs/en/chapter/one.md:7: formulas differ from docs/ja/chapter/one.md: "
        "`$x_j$` does not stand there in section #one"
    ]


def test_white_space_in_formulas_does_not_count(house):
    change(house, "docs/en/chapter/one.md", "y = x W", "y  =\n  x W")
    assert told() == []


def test_dollars_in_code_are_no_formulas(house):
    change(house, "docs/en/chapter/one.md", "A sentence.", "Type `$HOME` or ``a `$b$` c``; it costs \\$5 or \\$6.")
    assert told() == []


def test_a_page_in_one_language(house):
    (house / "docs/en/chapter/one.md").unlink()
    assert "docs/ja/chapter/one.md: stands in one language only: docs/en/chapter/one.md is missing" in told()
    assert all(fault.soft for fault in checks.faults())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# Title { #one }", "# Title", "5: `# Title` has no id: end the line with `{ #an-english-id }`"),
        ("## Title { #two }", "## Title $x$ { #two }", "a formula stands in a heading: say it in words"),
        ("## Title { #two }", "## Title { #one }", "the id #one is taken by the heading in line 5"),
        ("A sentence. $x_i$", "Title\n---\n$x_i$", "8: a line of = or - makes the line above a heading"),
        ("{{ error }}", "{{error}}", "7: `{{error}}` is not a value: write `{{ name }}`"),
    ],
)
def test_headings_and_values_are_written_one_way(house, old, new, message):
    change(house, "docs/en/chapter/one.md", old, new)
    assert any(f"docs/en/chapter/one.md:{message}" in text or message in text for text in told())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "one.py:check",
            "one.py:chekc",
            'cannot include "chapter/one.py:chekc": no section chekc there; snippets/chapter/one.py has setup, check',
        ),
        (
            "one.py.out:check",
            "one.py.out:last",
            "no section last there; .cache/snippets/chapter/one.py.out has setup, check",
        ),
        ("chapter/one.py:check", "chapter/two.py:check", "there is no snippets/chapter/two.py"),
        ("chapter/one.py.out", "chapter/two.py.out", "there is no snippets/chapter/two.py to have printed it"),
        ("one.py.out:check", "one.py.out:setup", "would be an empty box: section setup prints nothing"),
        ('--8<-- "chapter/one.py:check"', '-8<- "chapter/one.py:check"', "`-8<- \"chapter/one.py:check\"` is not an"),
        ('--8<-- "chapter/one.py:check"', "--8<-- chapter/one.py:check", "is not an include: write `--8<-- \"path:"),
        ("A sentence. `--8<--`", "-- 8<-- \"x.py\"", "is not an include"),
    ],
)  # fmt: skip
def test_includes_lead_somewhere_even_under_serve(house, monkeypatch, old, new, message):
    change(house, "docs/en/chapter/one.md", old, new)
    found = [fault for fault in checks.faults() if message in fault.message]
    assert found
    assert not found[0].soft
    assert found[0].file == "docs/en/chapter/one.md"
    assert found[0].line >= line(EN, old.splitlines()[0])
    monkeypatch.setattr(project.state, "serving", True)
    with pytest.raises(Stopped, match=r"docs/en/chapter/one\.md:"):
        order.sources()


def test_a_script_that_left_no_output(house):
    (house / ".cache/snippets/chapter/one.py.out").unlink()
    assert any("snippets/chapter/one.py left no output" in text for text in told())


def test_every_section_is_shown_in_every_language(house):
    change(house, "snippets/chapter/one.py", "show(", "# --8<-- [start:more]\ny = x\n# --8<-- [end:more]\nshow(")
    (house / "snippets/recipes").mkdir()
    (house / "snippets/recipes/tool.py").write_text("# --8<-- [start:f]\nf = len\n# --8<-- [end:f]\n", "utf-8")
    for language in ("ja", "en"):
        text = (house / f"docs/{language}/chapter/one.md").read_text("utf-8")
        text += '\n```python\n--8<-- "recipes/tool.py"\n```\n'
        (house / f"docs/{language}/chapter/one.md").write_text(text, "utf-8")
    assert told() == [
        'snippets/chapter/one.py:6: section more is not shown on any page: include "chapter/one.py:more", or remove it',
        'snippets/recipes/tool.py:1: section f is not shown on any page: include "recipes/tool.py:f", or remove it',
    ]
    change(house, "docs/ja/chapter/one.md", 'tool.py"', 'tool.py:f"')
    assert any("section f is not shown on any page of docs/en" in text for text in told())


@pytest.mark.parametrize(
    "opening", ["```py", "``` python", "~~~python", "```python3", "```{.python}", "```Python", "```pycon", "````py"]
)
def test_fences_that_the_tests_would_not_read(house, opening):
    closing = opening[: 4 if opening.startswith("````") else 3]
    change(house, "docs/en/chapter/one.md", "<rosetta-map", f"{opening}\nx = 1\n{closing}\n\n<rosetta-map")
    (fault,) = [fault for fault in checks.faults() if "would escape the tests" in fault.message]
    assert not fault.soft
    assert f"`{opening}`" in fault.message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (':check"', ':check"\n    y = 1', "code is typed in: `y = 1`; a block of Python holds one include"),
        (
            '    --8<-- "chapter/one.py:check"',
            '    --8<-- "chapter/one.py:check"\n    --8<-- "chapter/one.py:check"',
            "start a block for the second",
        ),
        ('    --8<-- "chapter/one.py:check"\n', "", "a block of Python is empty"),
        ("2.  A sentence.\n", "", '"chapter/one.py:setup" has 2 annotations and the list under the block 1 items'),
    ],
)
def test_a_block_of_python_is_one_include(house, old, new, message):
    for language, text in (("ja", JA), ("en", EN)):
        old_here = old.replace("A sentence.", "文です。") if language == "ja" else old
        assert old_here in text
        change(house, f"docs/{language}/chapter/one.md", old_here, new)
    found = [fault for fault in checks.faults() if message in fault.message]
    assert [fault.file for fault in found] == ["docs/ja/chapter/one.md", "docs/en/chapter/one.md"]
    assert all(fault.soft for fault in found)


def test_a_fence_that_is_never_closed(house):
    change(house, "docs/en/chapter/one.md", "<rosetta-map", "```text\n<rosetta-map")
    assert any("the fence `````text` is never closed".replace("`````", "````") in text for text in told())


def test_other_ways_to_write_a_fence_are_read_and_refused(house):
    """What a longer fence quotes is no fence, no include and no heading of the page."""
    longer = "````text\n```python\nx\n```\n````\n\n<!--\n## Not a heading\n$z$\n-->\n"
    for language in ("ja", "en"):
        change(house, f"docs/{language}/chapter/one.md", "<rosetta-map", longer + "\n<rosetta-map")
    assert all("```text`: a fence is written with three" in text or "is typed in: it holds" in text for text in told())
    assert len(told()) == 4
    change(house, "docs/en/chapter/one.md", "-->", '-->\n;--8<-- "kept.py"')
    assert any('`;--8<-- "kept.py"` is not an include' in text for text in told())


@pytest.mark.parametrize("target", ["../../etc/passwd", "/etc/passwd", "../mkdocs.yml", "chapter/one.txt"])
def test_an_include_from_elsewhere(house, target):
    for language in ("ja", "en"):
        change(house, f"docs/{language}/chapter/one.md", "chapter/one.py:setup", target)
    assert any(
        f'cannot include "{target}": only scripts below snippets, and what they printed' in text for text in told()
    )


# The lock


def test_a_side_that_moved_is_named(house):
    change(house, "docs/en/chapter/one.md", "A sentence.", "Another sentence.")
    assert told(locked=True) == [
        "docs/en/chapter/one.md: changed since the pair was last read side by side, "
        "but docs/ja/chapter/one.md did not: reread both, then `make stamp PAGE=chapter/one`"
    ]
    change(house, "docs/ja/chapter/one.md", "文です。", "別の文です。")
    (found,) = told(locked=True)
    assert "and so did docs/en/chapter/one.md" in found
    assert stamped.stamp(["chapter/one"]) == 0
    assert told(locked=True) == []


def test_a_pair_never_read_and_an_entry_without_a_page(house):
    lock = house / "docs/translations.lock.json"
    lock.write_text('{"gone.md": {"ja": "0", "en": "0"}}', "utf-8")
    found = told(locked=True)
    assert any("never read side by side" in text and "make stamp PAGE=chapter/one" in text for text in found)
    assert any("gone.md is gone from every language: `make stamp PAGE=gone` drops its entry" in text for text in found)
    assert stamped.stamp(["gone"]) == 0
    assert json.loads(lock.read_text("utf-8")) == {}


def test_a_broken_lock_is_told(house, capsys):
    (house / "docs/translations.lock.json").write_text("<<<<<<< ours", "utf-8")
    assert any(text.startswith("docs/translations.lock.json: is not the JSON that") for text in told())
    assert stamped.stamp(["chapter/one"]) == 2
    assert capsys.readouterr().err.startswith("docs/translations.lock.json is not the JSON that `make stamp` writes")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "Name one page"),
        ([""], "Name one page"),
        (["chapter/one", "chapter/two"], "Name one page"),
        (["chapter/two"], "There is no docs/ja/chapter/two.md and no docs/en/chapter/two.md."),
        (["chapter/half"], "There is no docs/en/chapter/half.md."),
        (["chapter/one"], "chapter/one.md is not stamped: mend these first."),
    ],
)
def test_stamp_refuses(house, capsys, names, message):
    (house / "docs/ja/chapter/half.md").write_text("# 半分 { #half }\n", "utf-8")
    change(house, "docs/en/chapter/one.md", "y = x W", "y = W x")
    before = (house / "docs/translations.lock.json").read_bytes()
    assert stamped.stamp(names) == 2
    assert message in capsys.readouterr().err
    assert (house / "docs/translations.lock.json").read_bytes() == before


def test_the_lock_is_sorted_and_ends_with_a_newline(house):
    for name in ("b", "a"):
        for language in ("ja", "en"):
            (house / f"docs/{language}/{name}.md").write_text("# A { #a }\n", "utf-8")
        stamped.stamp([name])
    text = (house / "docs/translations.lock.json").read_text("utf-8")
    assert list(json.loads(text)) == ["a.md", "b.md", "chapter/one.md"]
    assert text.endswith("}\n")
    assert all(len(digest) == 16 for sides in json.loads(text).values() for digest in sides.values())


def test_stamp_is_a_plain_command(small):
    """The command of the Makefile, on a copy, so that ROOT is the copy's."""
    small.replace("docs/ja/index.md", "\n", "\n\n")
    done = small.python("-m", "builder", "stamp", "index")
    assert (done.returncode, done.stdout) == (0, "stamped index.md: ja had moved\n"), done.stderr
    refused = small.python("-m", "builder", "stamp")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    small.replace("snippets/index.py", "import torch", "import torch torch")
    refused = small.python("-m", "builder", "stamp", "index")
    assert refused.returncode == 1, "what a broken script shows is not accepted"
    assert "this is not Python" in refused.stderr


# Words


FORBIDDEN = """\
terms: []
forbidden:
  - {language: ja, pattern: 'パラメータ(?!ー)', instead: パラメーター, why: long marks stay.}
  - {language: ja, pattern: '[ぁ-ん] +[A-Za-z`]|[A-Za-z`] +[ぁ-ん]', why: no half-width space.}
  - {language: en, word: of course, why: it says nothing.}
"""


@pytest.fixture
def strict(house):
    (house / "docs/glossary.yml").write_text(FORBIDDEN, "utf-8")
    assert told() == []
    return house


@pytest.mark.parametrize(
    ("language", "old", "new", "message"),
    [
        (
            "ja",
            "文です。",
            "パラメータです。",
            '"パラメータ" is a word the glossary forbids: write "パラメーター"; long marks',
        ),
        ("ja", "文です。", "値は `x` です。", "no half-width space"),
        ("ja", "文です。", "値はx です。", "no half-width space"),
        ("ja", "title: 題名", "title: パラメータ", "long marks stay"),
        ("en", "A sentence.", "Of\ncourse it is.", "it says nothing"),
    ],
)
def test_forbidden_words(strict, language, old, new, message):
    change(strict, f"docs/{language}/chapter/one.md", old, new)
    found = [fault for fault in checks.faults() if "forbids" in fault.message]
    assert message in found[0].message
    assert found[0].soft
    text = JA if language == "ja" else EN
    assert (found[0].file, found[0].line) == (f"docs/{language}/chapter/one.md", line(text, old))


@pytest.mark.parametrize(
    "new",
    [
        "`パラメータ`です。",
        "パラメーターです。",
        "$\\text{パラメータ}$です。",
        "[文](https://example.org/パラメータ)です。",
        "<https://example.org/パラメータ>です。",
        "<!-- パラメータ -->です。",
        "値は`a b`です。",
        "は{{ error }}x。",
    ],
)
def test_code_formulas_and_addresses_may_hold_any_word(strict, new):
    change(strict, "docs/ja/chapter/one.md", "    文です。", "    " + new)
    assert not [text for text in told() if "forbids" in text]


def test_our_own_pages_obey_the_glossary():
    """The real forbidden words find the planted ones, so their silence on our pages means something."""
    planted = reader.scan("# 見出しです { #a }\n\nパラメータと変圧器、埋込。値は `x` です。\n", "docs/ja/a.md")
    assert len(list(checks.word_faults(planted, "ja"))) == 6
    titles = reader.scan("「ひとつの注意、ふたつの配置」の「ふたつの配置、ひとつの関数」。\n", "docs/ja/a.md")
    assert not list(checks.word_faults(titles, "ja"))
    planted = reader.scan("ふたつのライブラリの許容差。\n", "docs/ja/a.md")
    assert len(list(checks.word_faults(planted, "ja"))) == 3
    planted = reader.scan("引き直したエンベディングの刈り込み。\n", "docs/ja/a.md")
    assert len(list(checks.word_faults(planted, "ja"))) == 3
    planted = reader.scan("# A { #a }\n\nOf course, self attention is a weights matrix.\n", "docs/en/a.md")
    assert len(list(checks.word_faults(planted, "en"))) == 3


@pytest.mark.parametrize(
    "name", ["en/lie.html", "ja/chapter/lie.ipynb", "en/lie.md.txt", "shared/lie.md", "shared/lie.html"]
)
def test_a_file_that_no_check_has_seen_is_not_published(house, name):
    (house / "docs" / name).write_text("0.93 of all", "utf-8")
    assert any(text.startswith(f"docs/{name}: would be published as it is") for text in told())


def test_what_an_editor_leaves_is_no_page(house):
    (house / "docs" / "en" / ".one.md.swp").write_text("0.93 of all", "utf-8")
    assert told() == []


# Under serve


def test_soft_faults_are_a_banner_under_serve(house, monkeypatch):
    change(house, "docs/en/chapter/one.md", "y = x W", "y < W x")
    monkeypatch.setattr(project, "IS_CHILD", False)
    monkeypatch.setattr(project.state, "serving", True)
    order.sources()
    for language, title in (("ja", "このページには直すところがあります"), ("en", "This page has faults to mend")):
        shown = banner.banner(f"docs/{language}/chapter/one.md", language)
        assert '<div class="admonition warning build-faults">' in shown
        assert title in shown
        assert "there `y &lt; W x`" in shown
    assert banner.banner("docs/en/chapter/two.md", "en") == ""
    monkeypatch.setattr(project.state, "serving", False)
    with pytest.raises(Stopped, match="displayed formulas differ"):
        order.sources()


def test_a_section_nobody_shows_is_on_its_own_page_s_banner(house, monkeypatch):
    monkeypatch.setattr(project, "soft_faults", [project.Fault("snippets/chapter/one.py", 3, "not shown", soft=True)])
    assert "not shown" in banner.banner("docs/ja/chapter/one.md", "ja")


def test_the_other_process_does_not_tell_the_same_faults_again(house, monkeypatch):
    change(house, "docs/en/chapter/one.md", "y = x W", "y = W x")
    monkeypatch.setattr(project, "IS_CHILD", True)
    mkdocs_adapter.on_pre_build(None)


@pytest.mark.parametrize("language", project.COMPLETE)
def test_the_tables_of_arguments_have_every_one(language):
    """Which there are, the page's script asks PyTorch; whether each has its row is asked here."""
    text = (project.DOCS / language / "reference" / "arguments.md").read_text("utf-8")
    tables = [re.findall(r"^\| ((?:`\w+`[、, ]*)+) \|", part, re.M) for part in text.split("\n## ")[1:4]]
    found = [[name for cell in table for name in re.findall(r"`(\w+)`", cell)] for table in tables]
    function = torch.ops.aten.scaled_dot_product_attention.default._schema
    assert found[0] == [*inspect.signature(nn.MultiheadAttention).parameters]
    assert sorted(found[1]) == sorted([*inspect.signature(nn.MultiheadAttention.forward).parameters][1:])
    assert found[2] == [argument.name for argument in function.arguments]
