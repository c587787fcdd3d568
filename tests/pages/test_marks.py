"""What bears a sentence: marks, guards, labels of figures, and the digest of what a run showed. Each is seen to fail."""

from dataclasses import replace

import pytest
from small_project import record_of

from builder import project
from builder.pages import checks, lock, marks, reader, shown, values
from builder.scripts import records as keeper
from builder.scripts.claims import Claim

CLAIMS = [
    Claim(9, "bound", "assert low < 0", guard="below_0", count=1),
    Claim(9, "raises", "F.linear(x, W)", section="kdim", count=1),
    Claim(9, "equal", "assert_close(a, b)", section="kdim", count=1),
]
PAGE = "# Title { #title }\n\nThe share is {{ share }}. {sentence}\n"


@pytest.fixture
def records(monkeypatch):
    """What the run of chapter/one.py left, to be changed."""
    kept = {
        "claims": [*CLAIMS],
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
    monkeypatch.setattr(keeper, "record", lambda script, part: kept[part] if script == "chapter/one.py" else None)
    monkeypatch.setattr(keeper, "printed", lambda script, section: kept["out"])
    monkeypatch.setattr(project, "LANG", "en")
    return kept


def told(text, page="chapter/one.md"):
    source = reader.scan(text, f"docs/en/{page}")
    return [*map(str, marks.faults(source, text, project.script_of(page)))]


def typed(text):
    return [str(fault).partition(" is typed")[0] for fault in marks.typed_numbers(reader.scan(text, "docs/en/one.md"))]


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
        ("test: bench.py::test_nothing", "a test is named as test_capture.py::test_name, not 'bench.py::test_nothing'"),
        ("test: some test", "a test is named as test_capture.py::test_name, not 'some test'"),
        ("source: ?", "a source is named in a few words"),
    ],
)
def test_a_mark_that_nothing_bears(records, mark, why):
    (fault,) = told(PAGE.replace("{sentence}", f"It is below 0.<!-- {mark} -->"))
    assert fault.startswith(f"docs/en/chapter/one.md:3: nothing bears this sentence any more: {why}")


def test_a_test_that_never_runs_bears_nothing(tmp_path, monkeypatch):
    text = "@pytest.mark.skip('later')\ndef test_later(): ...\n\nGONE = '''\ndef test_gone(): ...\n'''\n\ndef test_it(): ...\n"
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(text, "utf-8")
    monkeypatch.setattr(project, "ROOT", tmp_path)
    assert marks._tests("test_some.py") == {"test_it"}
    assert marks._tests("test_none.py") == set()


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
        ("The error is 0.43.", "0.43"),
        ("The error is 0.43, or -0.43.", "0.43"),
        ("It falls by (-0.43).", "-0.43"),
        ("The error is 0.**43** or 0\\.43.", "0.43"),
        ("The error is 0<!-- x -->.43 there.", "0.43"),
        ("Nearly 95 percent.", "95"),
        ("9割です。", "9"),
        ("All 29952 cells agree.", "29952"),
        ("The error is 1e-5.", "1e-5"),
        ("The error is 10⁻⁵.", "10⁻"),
        ("PyTorch 99.9% of the time.", "99.9"),
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
        "PyTorch 2.13.",
        "PyTorch 2.13.0, 2.12.1.",
        "In 2017, by 1.",
    ],
)
def test_numbers_that_nothing_has_to_bear(records, sentence):
    assert typed(f"# T {{ #t }}\n\n{sentence}\n") == []


def test_a_number_of_the_front_matter_or_of_a_title_is_typed(records):
    assert typed('---\ndescription: "off by 0.43"\n---\n\n# T { #t }\n') == ["docs/en/one.md:2: `0.43`"]
    assert typed('# T { #t }\n\n```python title="off by 0.43"\n```\n') == ["docs/en/one.md:3: `0.43`"]


def test_no_reader_sees_a_mark(records):
    text, faults = values.fill_values("It is below 0.<!-- claim: below_0 --> Yes.<!-- keep -->", "chapter/one.md", "en")
    assert (text, faults) == ("It is below 0. Yes.<!-- keep -->", [])


def test_words_are_chosen_by_a_value(records):
    text = "It {{ beats ? wins : loses }}, {{ share }}."
    assert values.fill_values(text, "chapter/one.md", "en") == ("It wins, 0.41.", [])
    records["values"]["beats"] = "False"
    assert values.fill_values(text, "chapter/one.md", "en") == ("It loses, 0.41.", [])
    (fault,) = values.fill_values("\n{{ share ? more : less }}", "chapter/one.md", "en")[1]
    assert str(fault) == "docs/en/chapter/one.md:2: 'share' chooses words, so it must be True or False, and is 0.41"


def test_both_languages_carry_the_same_marks(records):
    one, other = (
        reader.scan(PAGE.replace("{sentence}", f"So.{mark}"), f"docs/{language}/one.md")
        for language, mark in (("ja", "<!-- claim: below_0 -->"), ("en", "<!-- claim: kdim -->"))
    )
    (fault,) = (fault for fault in checks.pair_faults(one, other) if "marks" in fault.message)
    assert (
        str(fault)
        == "docs/ja/one.md:3: marks differ from docs/en/one.md: `claim: below_0` bears no sentence there in section #title"
    )
    assert not [fault for fault in checks.pair_faults(one, one) if "marks" in fault.message]


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
        lambda kept: kept["claims"].append(replace(kept["claims"].pop(), kind="differs")),
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
        lambda kept: kept["claims"].append(replace(kept["claims"].pop(), error=3e-16)),
    ],
)
def test_rounding_is_not_kept(records, change):
    before = shown.digest("chapter/one.md", SHOWING)
    change(records)
    assert shown.digest("chapter/one.md", SHOWING) == before


def test_no_page_is_exempt(records):
    before = shown.digest("chapter/one.md", SHOWING)
    assert shown.digest("chapter/one.md", f"---\nhide: [toc]\ntrained: true\n---\n{SHOWING}") == before


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
# --8<-- [start:one]
import torch
torch.manual_seed(0)
w = torch.randn(6, 4, dtype=torch.float64)
upper = w[:3].clone()
assert torch.equal(upper, torch.cat([w[i : i + 1] for i in range(3)]))
# --8<-- [end:one]
lower = torch.stack([w[3], w[4], w[5]])
"""


def ran(tmp_path, more, head=HEAD):
    path = tmp_path / "one.py"
    path.write_text(head + more, encoding="utf-8")
    return record_of(path)


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
            "# --8<-- [start:two]\nassert upper.min() < 9  # guard: small\n# --8<-- [end:two]\n",
            "guard 'small' stands in section [two], whose name is enough",
        ),
    ],
)
def test_a_guard_names_one_claim(tmp_path, more, message):
    assert message in ran(tmp_path, more)["fault"]["message"]


SECTION = "# --8<-- [start:two]\n{}\n# --8<-- [end:two]\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "E = 7\n" + SECTION.format("print(E)"),
            "'E' is bound in line 9, between the sections, where no page shows it",
        ),
        ("import math\n" + SECTION.format("print(math.pi * len(w))"), "'math' is bound in line 9"),
        ("upper = 0 * upper\n" + SECTION.format("print(upper.sum())"), "'upper' is bound in line 9"),
    ],
)
def test_what_no_page_shows_changes_nothing_in_a_section(tmp_path, more, message):
    assert message in ran(tmp_path, more)["fault"]["message"]


@pytest.mark.parametrize(
    "more",
    [
        "n = [i for i in range(3)]\n" + SECTION.format("for i in range(2):\n    print(len(w[i:]))"),
        "E = 7\n" + SECTION.format("E = len(w)\nprint(E)"),
        SECTION.format("E = len(w)\nprint(E)") + "E = 7\nassert lower.max() < E\n",
    ],
)
def test_what_stands_between_the_sections_may_compute(tmp_path, more):
    assert ran(tmp_path, more)["fault"] is None


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


def test_the_lock_of_this_site_keeps_what_the_runs_show():
    kept = lock.read_lock()
    for page in project.page_files("en"):
        assert "run" in kept[page.as_posix()], page
