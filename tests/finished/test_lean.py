"""What is left out of the theme's style sheet, and what is not."""

import pytest

from builder.finished import lean


@pytest.mark.parametrize(
    ("css", "left"),
    [
        (".a{x:1}.gone{x:2}", ".a{x:1}"),
        (".a,.gone{x:1}", ".a{x:1}"),
        (".a .gone{x:1}p{y:2}", "p{y:2}"),
        (".a:not(.gone){x:1}", ".a:not(.gone){x:1}"),
        (".a>:is(.gone,.b:not(.c)){x:1}", ".a>:is(.gone,.b:not(.c)){x:1}"),
        ('[class*=".gone"]{x:1}', '[class*=".gone"]{x:1}'),
        (r".a\:b{x:1}", r".a\:b{x:1}"),
        ("@media print{.gone{x:1}}", ""),
        ("@media print{.a{x:1}.gone{x:1}}.a{y:1}", "@media print{.a{x:1}}.a{y:1}"),
        ("@keyframes turn{from{x:1}to{x:2}}", "@keyframes turn{from{x:1}to{x:2}}"),
        ('@charset "UTF-8";.a{content:"}.gone{"}.gone{x:1}', '.a{content:"}.gone{"}'),
        (".a{x:url('data:,<p d=\"M(0)}\"/>')}", r""".a{x:url("data:,<p d=\"M(0)}\"/>")}"""),
    ],
)
def test_rules_of_classes_that_no_page_has_are_left_out(css, left):
    assert lean.needed(css, {"a", "b", "a:b"}) == left


def test_code_is_coloured_only_where_colours_differ():
    def span(kind, text):
        return f'<span class="{kind}">{text}</span>'

    told = span("k", "def") + " " + span("fm", "f") + "(" + span("kc", "None") + "): " + span("bp", "self")
    told += " = " + span("sa", "f") + span("s2", '"a ') + span("si", "{") + "b" + span("si", "}") + span("s2", '"')
    block = (
        f"<pre><code>{told}\n{span('kn', 'import')} {span('nn', 'a')} {span('k', 'as')} {span('k', 'b')}</code></pre>"
    )
    plain = (
        f"{span('k', 'def')} f(None): {span('nb', 'self')} = f{span('s2', chr(34) + 'a {')}b{span('s2', '}' + chr(34))}"
    )
    assert (
        lean.plainer(block)
        == f"<pre><code>{plain}\n{span('k', 'import')} {span('nf', 'a')} {span('k', 'as b')}</code></pre>"
    )
    checked = f'<pre><code>{span("mi", "1")}\n<span class="hll">    {span("k", "assert")} a == {span("mi", "1")}\n</span></code></pre>'
    assert (
        lean.plainer(checked)
        == f'<pre><code>{span("mi", "1")}\n<span class="hll">    assert a == 1\n</span></code></pre>'
    )
    block = '<pre><code><span class="n">x</span> <span class="o">=</span> <span class="mi">1</span></code></pre>'
    assert lean.plainer(block) == '<pre><code>x = <span class="mi">1</span></code></pre>'
    names = '<pre><span></span><code><span class="n">x</span></code></pre>'
    assert lean.plainer(names) == names, "code without any span would look like what code printed"


def test_custom_properties_that_nothing_reads_are_left_out():
    css = ":root{--box:url('data:;{x}');--ink:red;color:var(--ink)}@media print{:root{--box:0}p{--ink:0}}"
    assert lean.without_unread(css, {"--ink"}) == ":root{--ink:red;color:var(--ink)}@media print{p{--ink:0}}"


def test_a_style_sheet_that_is_all_needed_keeps_every_rule():
    css = ".a{x:1}.a .b,p{y:2;--z:3}"
    assert lean.without_unread(lean.needed(css, {"a", "b"}), {"--z"}) == css


def test_comments_are_for_writers(tmp_path):
    for path, text in {
        "stylesheets/a.css": "/* one\n two */\np { /* three */\n  color: red; /* four */\n}\n",
        "javascripts/a.js": "// one\nconst a = 1; // two\n  /** three\n   * four */\nconst b = 'http://x/* */'; /* five */\n",
        "explorers/a.js": "  // one\n  const a = `\n    x`;\n    b();\n",
        "assets/a.js": "// theirs\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    lean.without_comments(tmp_path)
    assert (tmp_path / "stylesheets/a.css").read_text("utf-8") == "p {color: red;}\n"
    assert (tmp_path / "javascripts/a.js").read_text(
        "utf-8"
    ) == "const a = 1; // two\nconst b = 'http://x/* */'; /* five */\n"
    assert (tmp_path / "explorers/a.js").read_text("utf-8") == "const a = `\n    x`;\nb();\n"
    assert (tmp_path / "assets/a.js").read_text("utf-8") == "// theirs\n"
