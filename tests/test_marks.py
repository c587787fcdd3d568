"""What bears a sentence: marks, guards, labels of figures, and the digest of what a run showed. Each is seen to fail."""

import json

import marks
import pages
import project
import pytest
import run_snippet
import shown

import snippets

CLAIM = {
    "section": None,
    "guard": None,
    "kind": "bound",
    "text": "assert low < 0",
    "line": 9,
    "count": 1,
    "error": None,
}
CLAIMS = [
    {**CLAIM, "guard": "below_0"},
    {**CLAIM, "section": "kdim", "kind": "raises", "text": "F.linear(x, W)"},
    {**CLAIM, "section": "kdim", "kind": "equal", "text": "assert_close(a, b)"},
]
PAGE = "# Title { #title }\n\nThe share is {{ share }}. {sentence}\n"


@pytest.fixture
def records(monkeypatch):
    """What the run of chapter/one.py left, to be changed."""
    kept = {
        "claims": [dict(claim) for claim in CLAIMS],
        "values": {"share": "0.41", "noise": "3.2e-16", "beats": "True"},
        "figures": {
            "map": {
                "kind": "bars",
                "labels": {"categories": ["a"]},
                "tensors": {"t": {"shape": [2], "data": [0.5, 0.25]}},
            }
        },
        "out": "0.41 apart",
    }
    monkeypatch.setattr(snippets, "record", lambda script, part: kept[part] if script == "chapter/one.py" else None)
    monkeypatch.setattr(snippets, "printed", lambda script, section: kept["out"])
    monkeypatch.setattr(project, "LANG", "en")
    return kept


def told(text, page="chapter/one.md"):
    source = pages.scan(text, f"docs/en/{page}")
    return [*map(str, marks.faults(source, text, project.script_of(page)))]


def typed(text):
    return [str(fault).partition(" is typed")[0] for fault in marks.typed_numbers(pages.scan(text, "docs/en/one.md"))]


@pytest.mark.parametrize(
    "mark",
    [
        "claim: below_0",
        "claim: kdim",
        "claim: kdim/raises",
        "claim: chapter/one:kdim/equal, below_0",
        "test: test_marks.py::test_a_mark_that_is_borne",
        "source: section 5.4, Table 3",
    ],
)
def test_a_mark_that_is_borne(records, mark):
    assert told(PAGE.replace("{sentence}", f"It is below 0.<!-- {mark} -->")) == []


@pytest.mark.parametrize(
    ("mark", "why"),
    [
        ("claim: above_0", "no claim 'above_0' was made: snippets/chapter/one.py makes below_0, kdim"),
        ("claim: kdim/exact", "no claim 'kdim/exact' was made"),
        ("claim: kdim, layouts/two:kdim", "no claim 'layouts/two:kdim' was made"),
        ("test: test_marks.py::test_nothing_of_the_kind", "there is no test test_marks.py::test_nothing_of_the_kind"),
        ("test: some test", "a test is named as test_capture.py::test_name, not 'some test'"),
        ("source: ?", "a source is named in a few words"),
    ],
)
def test_a_mark_that_nothing_bears(records, mark, why):
    (fault,) = told(PAGE.replace("{sentence}", f"It is below 0.<!-- {mark} -->"))
    assert fault.startswith(f"docs/en/chapter/one.md:3: nothing bears this sentence any more: {why}")


@pytest.mark.parametrize(
    "almost",
    ["<!-- claims: below_0 -->", "<!--claim: below_0-->", "<!-- claim: below_0,\nkdim -->", "<!-- guard: below_0 -->"],
)
def test_what_looks_like_a_mark_is_one(records, almost):
    (fault,) = told(PAGE.replace("{sentence}", f"It is below 0.{almost}"))
    assert "is not a mark: write `<!-- claim: name -->`, on one line" in fault


@pytest.mark.parametrize(
    ("sentence", "number"),
    [
        ("The error is 0.43 there.", "0.43"),
        ("It holds for 95% of the rows.", "95"),
        ("It holds for 95 % of the rows.", "95"),
        ("All 29,952 cells agree.", "29,952"),
        ("At most 2×10⁻¹⁵ apart.", "2×10"),
        ("First.<!-- claim: below_0 --> Then 0.43 apart.", "0.43"),
        ("平均は0.43です。", "0.43"),
        ("- an item of 0.43\n- another<!-- claim: below_0 -->", "0.43"),
        ("{{ beats ? 0.43 more : less }}", "0.43"),
    ],
)
def test_a_number_that_looks_computed_is_borne(records, sentence, number):
    assert typed(f"# T {{ #t }}\n\n{sentence}\n") == [f"docs/en/one.md:3: `{number}`"]
    marked = sentence.replace("<!-- claim: below_0 -->", "") + "<!-- claim: below_0 -->"
    if "- " not in sentence and "First" not in sentence:
        assert typed(f"# T {{ #t }}\n\n{marked}\n") == []


@pytest.mark.parametrize(
    "sentence",
    [
        "Section 3.2.2, page 5.",
        "In PyTorch 2.13 it raises.",
        "3.2節です。",
        "CC BY 4.0.",
        "Take `0.43`.",
        "$x = 0.43$",
        "{{ share }}",
        "Two of 4 heads.",
    ],
)
def test_numbers_that_nothing_has_to_bear(records, sentence):
    assert typed(f"# T {{ #t }}\n\n{sentence}\n") == []


def test_no_reader_sees_a_mark(records):
    text, faults = snippets.fill_values("It is below 0.<!-- claim: below_0 --> Yes.<!-- keep -->", "chapter/one.md")
    assert (text, faults) == ("It is below 0. Yes.<!-- keep -->", [])


def test_words_are_chosen_by_a_value(records):
    text = "It {{ beats ? wins : loses }}, {{ share }}."
    assert snippets.fill_values(text, "chapter/one.md") == ("It wins, 0.41.", [])
    records["values"]["beats"] = "False"
    assert snippets.fill_values(text, "chapter/one.md") == ("It loses, 0.41.", [])
    (fault,) = snippets.fill_values("\n{{ share ? more : less }}", "chapter/one.md")[1]
    assert str(fault) == "docs/en/chapter/one.md:2: 'share' chooses words, so it must be True or False, and is 0.41"


def test_both_languages_carry_the_same_marks(records):
    one, other = (
        pages.scan(PAGE.replace("{sentence}", f"So.{mark}"), f"docs/{language}/one.md")
        for language, mark in (("ja", "<!-- claim: below_0 -->"), ("en", "<!-- claim: kdim -->"))
    )
    (fault,) = (fault for fault in pages.pair_faults(one, other) if "marks" in fault.message)
    assert (
        str(fault)
        == "docs/ja/one.md:3: marks differ from docs/en/one.md: `claim: below_0` bears no sentence there in section #title"
    )
    assert not [fault for fault in pages.pair_faults(one, one) if "marks" in fault.message]


# What a run showed

SHOWING = (
    '# T { #t }\n\n{{ share }} {{ noise }}\n\n```text\n--8<-- "chapter/one.py.out:kdim"\n```\n\n```figure map\n```\n'
)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept["values"].update(share="0.42"),
        lambda kept: kept.update(out="0.42 apart"),
        lambda kept: kept["figures"]["map"]["labels"].update(categories=["b"]),
        lambda kept: kept["figures"]["map"]["tensors"]["t"].update(data=[0.25, 0.5]),
        lambda kept: kept["claims"].pop(0),
        lambda kept: kept["claims"][2].update(kind="differs"),
    ],
)
def test_what_a_run_shows_is_kept(records, change):
    before = shown.digest("chapter/one.md", SHOWING)
    change(records)
    assert shown.digest("chapter/one.md", SHOWING) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept["values"].update(noise="7.1e-15"),
        lambda kept: kept["figures"]["map"]["tensors"]["t"].update(data=[0.5, 0.25 + 1e-9]),
        lambda kept: kept["figures"]["map"]["tensors"]["t"].update(data=[0.5, 0.25 - 1e-9]),
        lambda kept: kept["claims"][2].update(error=3e-16),
    ],
)
def test_rounding_is_not_kept(records, change):
    before = shown.digest("chapter/one.md", SHOWING)
    change(records)
    assert shown.digest("chapter/one.md", SHOWING) == before


def test_where_a_model_is_trained_the_processor_decides(records):
    assert shown.digest("chapter/one.md", f"---\nhide: [toc]\ntrained: true\n---\n{SHOWING}") is None
    assert shown.digest("chapter/one.md", f"---\nhide: [toc]\n---\n\ntrained: true\n---\n{SHOWING}")


def test_a_run_that_shows_something_else_asks_for_a_reading(small):
    """The sentences stand as they were, the script says something else: the build stops until the pair is reread."""
    assert small.build().returncode == 0
    small.replace("snippets/index.py", "torch.manual_seed(0)", "torch.manual_seed(1)")
    small.replace("snippets/index.py", 'print(f"x @ w {tuple((x @ w).shape)}")', 'print(f"{x[0, 0]:.4f}")')
    done = small.build()
    assert done.returncode == 1
    assert "docs/ja/index.md: its scripts say something else than when the pair was last read" in done.said
    small.reread("index")
    assert small.build().returncode == 0


def test_the_build_stops_at_a_mark_that_nothing_bears(small):
    for language in ("ja", "en"):
        small.write(
            f"docs/{language}/index.md", small.read(f"docs/{language}/index.md") + "\n5 = 5<!-- claim: proof -->\n"
        )
    small.reread("index")
    done = small.build()
    assert done.returncode == 0, done.said
    assert "claim: proof" not in small.read("site/en/index.html")
    for language in ("ja", "en"):
        small.replace(f"docs/{language}/index.md", "claim: proof", "claim: proof/raises")
    small.reread("index")
    done = small.build()
    assert done.returncode == 1
    assert "nothing bears this sentence any more: no claim 'proof/raises' was made" in done.said


# Guards and labels of figures, as the runner checks them

HEAD = """\
import torch
torch.manual_seed(0)
w = torch.randn(6, 4, dtype=torch.float64)
# --8<-- [start:one]
upper = w[:3].clone()
assert torch.equal(upper, torch.cat([w[i : i + 1] for i in range(3)]))
# --8<-- [end:one]
lower = torch.stack([w[3], w[4], w[5]])
"""


def ran(tmp_path, more, head=HEAD):
    path = tmp_path / "one.py"
    path.write_text(head + more, encoding="utf-8")
    return run_snippet.run(path)


def test_a_guard_is_recorded_by_its_name(tmp_path):
    record = ran(tmp_path, "assert (lower - upper).abs().max() > 0.5  # guard: apart\n")
    assert record["fault"] is None
    assert [(claim["section"], claim["guard"], claim["text"]) for claim in record["claims"]][1:] == [
        (None, "apart", "assert (lower - upper).abs().max() > 0.5")
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("lower = lower + 1  # guard: apart\n", "guard 'apart' names no claim"),
        ("assert lower.min() < 9  # guard: one\n", "the name 'one' is taken"),
        ("for _ in ():\n    assert lower.min() < 9  # guard: never\n", "this claim did not run"),
        (
            "# --8<-- [start:two]\nassert lower.min() < 9  # guard: small\n# --8<-- [end:two]\n",
            "guard 'small' stands in section [two], whose name is enough",
        ),
    ],
)
def test_a_guard_names_one_claim(tmp_path, more, message):
    assert message in ran(tmp_path, more)["fault"]["message"]


FIGURE = """\
figure("map", "blocks", {{"w": w}}, {{"groups": {{"w": [
    {{"rows": [0, 3], "role": "q", "head": 0, "text": "upper", "of": {upper}}},
    {{"rows": [3, 6], "role": "q", "head": 1, "text": "lower"{lower}}},
]}}, "code": {{"upper": "{code}"}}}})
"""


def drawn(tmp_path, upper="upper", lower=', "of": lower', code="w[0:3]"):
    return ran(tmp_path, FIGURE.format(upper=upper, lower=lower, code=code))


def test_labels_of_a_figure_are_compared_with_what_they_label(tmp_path):
    record = drawn(tmp_path)
    assert record["fault"] is None
    assert record["claims"][-1]["count"] == 3
    assert "of" not in record["figures"]["map"]["labels"]["groups"]["w"][0]
    assert drawn(tmp_path, upper="upper.T", code="w[0:3].T")["fault"] is None, "a block may stand transposed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upper": "lower"}, "figure 'map': upper of 'w' is not what its label says"),
        ({"lower": ', "of": upper'}, "figure 'map': lower of 'w' is not what its label says"),
        (
            {"lower": ""},
            "figure 'map': lower of 'w' says whose it is: give the same matrix, come by another way, as `of`",
        ),
        ({"code": "w[3:6]"}, "figure 'map': upper of 'w': w[3:6] is not what its label says"),
        ({"code": "w[0:3].T"}, "figure 'map': upper of 'w': w[0:3].T is not what its label says"),
        ({"upper": "upper + 1e-3"}, "figure 'map': upper of 'w' is not what its label says"),
    ],
)
def test_a_label_that_is_wrong(tmp_path, change, message):
    assert message in drawn(tmp_path, **change)["fault"]["message"]


def test_the_map_of_this_site_is_checked(tmp_path):
    """The rows of the Rosetta figure, reversed, and its letters, swapped: the script stops."""
    source = (project.SNIPPETS / "layouts" / "rosetta.py").read_text("utf-8")
    for old, new, why in (
        ("first = t * E + i * D", "first = t * E + (H - 1 - i) * D", "is not what its label says"),
        ('"Q": w_q, "K": w_k', '"K": w_q, "Q": w_k', "the claim no longer holds"),
    ):
        assert old in source
        assert why in ran(tmp_path, "", head=source.replace(old, new))["fault"]["message"]


def test_every_trained_page_says_so_in_both_languages():
    for page in project.page_files("en"):
        said = {shown.is_trained((project.DOCS / language / page).read_text("utf-8")) for language in project.LANGUAGES}
        assert len(said) == 1, page


def test_the_lock_of_this_site_keeps_what_the_runs_show():
    lock = json.loads(pages.lock_file().read_text("utf-8"))
    for page in project.page_files("en"):
        text = (project.DOCS / "en" / page).read_text("utf-8")
        assert ("run" in lock[page.as_posix()]) != shown.is_trained(text), page
