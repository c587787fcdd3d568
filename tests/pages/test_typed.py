"""What may not stand on a page, because no run has made it: each is told with its line; and what the pages need passes."""

import pytest

from builder import project
from builder.pages import checks, reader, typed
from builder.pages.page import Page
from builder.project import Stopped

TYPED = {
    "```text\n99\n```": "what stands in this fence is typed in",
    "```\n99\n```": "what stands in this fence is typed in",
    "```console\n$ python\n99\n```": "what stands in this fence is typed in",
    "```json\n{}\n```": "what stands in this fence is typed in",
    "```bash\nmake\n```": "what stands in this fence is typed in",
    '```text\n--8<-- "a.py.out:one"\n99\n```': "what stands in this fence is typed in",
    '~~~text\n--8<-- "a.py:one"\n~~~': "a fence is written with three backticks",
    '````text\n```text\n--8<-- "a.py:one"\n```\n````': "a fence is written with three backticks",
    '```text\n--8<-- "other.py.out:one"\n```': 'is the output of code that does not stand above it: include "other.py:one" first',
    "<pre>99</pre>": "`<pre>` is typed in",
    "words <code>99</code>": "`<code>` is typed in",
    '<svg viewBox="0 0 9 9"></svg>': '`<svg viewBox="0 0 9 9">` is typed in',
    '<img src="https://example.com/x.png">': "is typed in",
    "<iframe\n  src=https://example.com></iframe>": "is typed in",
    "<script>alert(1)</script>": "`<script>` is typed in",
    "<style>p {}</style>": "`<style>` is typed in",
    '<div onclick="alert(1)"></div>': "it cannot carry onclick='alert(1)'",
    '<div class="claims">99 claims hold</div>': "it cannot carry class='claims'",
    '<div style="color: red"></div>': "it cannot carry style='color: red'",
    '<rosetta-map data-rows="0.5"></rosetta-map>': "data-rows holds '0.5', and should hold a value",
    "![the result](x.png)": "an image is typed in",
    "![the result][there]": "an image is typed in",
    "[99 claims hold](claims.md){ .claims }": "a line about claims is typed in",
    "It is ０.４３ there.": "hides what is typed: write digits as 0 to 9",
    "It is &#48;.43 there.": "'&#48;' hides what is typed",
    "It is 0\u200b.43 there.": "'\\u200b' hides what is typed",
    "It is ½ there.": "hides what is typed",
    '!!! trap "０.４３"\n': "hides what is typed",
    "{{ ../layouts/rosetta:max_error }}": "names a value outside the scripts",
}
SOUND = """\
---
hide: [toc]
---

# Title { #title }

<!-- <pre> --> A `<pre>` of $a <b> c$ and a < b > c, <https://example.org/>, {{ layouts/rosetta:max_error }}.

$$
a <b> c
$$

<div class="twins" markdown>

```python title="a"
--8<-- "a.py:one"
```

</div>

<details><summary>Answer</summary>

!!! trap "T"

    ```text
    --8<-- "a.py.out:one"
    ```

</details>

```figure one
title: x
description: <pre>
```

```claims
```

<rosetta-map markdown data-rows="{{ rows }}" data-name="head_view">
<div class="explorer-stage"></div>
</rosetta-map>

"""


def told(text):
    return [str(fault) for fault in typed.faults(reader.scan(text, "docs/en/a.md"))]


def test_what_the_pages_need_passes():
    assert told(SOUND) == []


@pytest.mark.parametrize("text", TYPED)
def test_what_is_typed_is_told_with_its_line(text):
    line = (SOUND + text).count("\n", 0, len(SOUND)) + 1
    found = told(SOUND + text + "\n")
    assert any(f"docs/en/a.md:{line}: " in fault and TYPED[text] in fault for fault in found), found


def test_an_indented_text_is_told():
    page = Page("en", "a.md", markdown='```python\nx = 1\n```\n\n    ```text title="y"\n    1\n    ```\n')
    made = '<div><pre class="x">x = 1</pre></div><pre>1</pre>'
    assert typed.check(made, page) == made
    with pytest.raises(Stopped, match=r"docs/en/a\.md: 3 blocks of code stand on the page, and 2 are included"):
        typed.check(made + "<pre>99</pre>", page)


CODE = "# --8<-- [start:one]\n{}\n# --8<-- [end:one]\n"


@pytest.mark.parametrize(
    ("code", "pair", "said"),
    [
        ("x = 1\n" + "y" * 72, False, None),
        ("x = 1\n" + "y" * 73, False, "snippets/a.py:3: this line has 73 characters, at most 72 can be read on a page"),
        ("y" * 44, True, None),
        ("y" * 45, True, "snippets/a.py:2: this line has 45 characters, at most 44 can be read in one half of a pair"),
        ("    x = 1\n    " + "y" * 72, False, None),
        ("x = 1\n" * 29 + "y = 2", False, None),
        ("x = 1\n" * 30 + "y = 2", False, "snippets/a.py:1: section one has 31 lines, at most 30 are shown at once"),
    ],
)
def test_what_is_shown_is_held_to_its_size(tmp_path, monkeypatch, code, pair, said):
    for name, folder in {"ROOT": "", "DOCS": "docs", "SNIPPETS": "snippets", "RECORDS": ".cache/snippets"}.items():
        monkeypatch.setattr(project, name, tmp_path / folder)
    (tmp_path / "snippets").mkdir()
    (tmp_path / "snippets/a.py").write_text(CODE.format(code))
    fence = '```python\n--8<-- "a.py:one"\n```\n'
    text = (
        f'<div class="twins" markdown>\n\n{fence}\n</div>\n'
        if pair
        else f'<div class="twins" markdown>\n</div>\n{fence}'
    )
    found = [str(fault) for fault in typed.size_faults([reader.scan(text, "docs/en/a.md")], checks.Files())]
    assert len(found) == (said is not None)
    if said:
        assert said in found[0]
