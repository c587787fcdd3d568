"""What .cache keeps is believed only when it is whole and was made here: else it is made anew, and nobody is told."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest
from cached import files_of, imported
from small_project import ROOT

from builder import project
from builder.scripts import records
from builder.scripts.claims import Claim

RECORDS = ".cache/snippets"
TWO_SUMS = f"{RECORDS}/layouts/two_sums"


def notebook(small, ending):
    """A record of the practice page's notebook, relative to the project."""
    (found,) = small.path(".cache/notebooks").glob(f"*{ending}")
    return found.relative_to(small.folder).as_posix()


# each as (file, what becomes of it); None: it is gone
DAMAGE = {
    "a number of an output": (f"{TWO_SUMS}.py.out", lambda text: text.replace("3", "4")),
    "an output cut off": (f"{TWO_SUMS}.py.out", lambda text: text[: len(text) // 2]),
    "an empty output": (f"{TWO_SUMS}.py.out", lambda text: ""),
    "an output that is no text": (f"{TWO_SUMS}.py.out", lambda text: b"\xff\xfe"),
    "an output that is gone": (f"{TWO_SUMS}.py.out", None),
    "a value": (f"{TWO_SUMS}.values.json", lambda text: text.replace("3", "4")),
    "values as a list": (f"{TWO_SUMS}.values.json", lambda text: "[]"),
    "values that are gone": (f"{TWO_SUMS}.values.json", None),
    "a count of claims": (f"{TWO_SUMS}.claims.json", lambda text: text.replace('"count": 1', '"count": 777')),
    "empty claims": (f"{TWO_SUMS}.claims.json", lambda text: ""),
    "figures that are gone": (f"{TWO_SUMS}.figures.json", None),
    "an entry as a list": (f"{TWO_SUMS}.entry.json", lambda text: "[]"),
    "an entry as a number": (f"{TWO_SUMS}.entry.json", lambda text: "7"),
    "an entry cut off": (f"{TWO_SUMS}.entry.json", lambda text: text[:40]),
    "an entry without a part": (f"{TWO_SUMS}.entry.json", lambda text: text.replace('"no_claim"', '"claim"')),
    "an entry without dependencies": (
        f"{TWO_SUMS}.entry.json",
        lambda text: json.dumps({**json.loads(text), "files": {}}, indent=1),
    ),
    "an entry whose files are null": (
        f"{TWO_SUMS}.entry.json",
        lambda text: json.dumps({**json.loads(text), "files": None}, indent=1),
    ),
}


def damage(small, name, change):
    path = small.path(name)
    if change is None:
        path.unlink()
        return
    before = path.read_text(encoding="utf-8")
    after = change(before)
    assert after != before, f"{name} was not damaged"
    path.write_bytes(after if isinstance(after, bytes) else after.encode())


@pytest.mark.parametrize("case", DAMAGE)
def test_a_record_that_is_not_whole_is_not_current(small, monkeypatch, case):
    monkeypatch.setattr(records, "SNIPPETS", small.path("snippets"))
    arguments = small.path("snippets/layouts/two_sums.py"), small.path("snippets"), small.path(RECORDS)
    assert records.is_current(*arguments, records.foundation())
    damage(small, *DAMAGE[case])
    assert not records.is_current(*arguments, records.foundation())


def test_what_is_damaged_is_made_anew_and_nothing_is_told(small):
    """A part of each kind at once, and one build: the same site, byte for byte."""
    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    assert small.build(**epoch).returncode == 0
    assert "2023-11-14" in small.read("site/en/reference/claims/index.html"), "the clock that was set is not obeyed"
    before = small.digests()
    damage(small, f"{RECORDS}/index.values.json", lambda text: text.replace("e-", "e-9"))
    damage(small, *DAMAGE["an output that is no text"])
    damage(small, f"{RECORDS}/practice/try_it.entry.json", lambda text: "[]")
    damage(small, notebook(small, ".py.out"), lambda text: "")
    formulas = sorted(small.path(".cache/mathematics").glob("*.json"))
    assert len(formulas) > 2
    for number, path in enumerate(formulas):
        text = path.read_text(encoding="utf-8")
        path.write_text(
            ["[]", text.replace("<mn>", "<mn>7", 1).replace("<mi>", "<mi>q", 1)][number % 2], encoding="utf-8"
        )
    done = small.build("--quiet", **epoch)
    assert done.returncode == 0, done.said
    assert done.said == ""
    assert small.digests() == before


def test_the_machine_belongs_to_what_is_kept():
    """A .cache that comes from another processor is made anew."""
    code = "from builder.scripts import records; print(records.foundation())"

    def foundation(**environment):
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
        ).stdout

    assert foundation() == foundation()
    for name in ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA"):
        assert foundation(**{name: "avx2"}) != foundation(), name


def test_artifacts_are_believed_only_with_their_seal(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ARTIFACTS", tmp_path)
    (tmp_path / "planted.pt").write_bytes(b"from elsewhere")
    before = {path.name for path in tmp_path.glob("*.pt")}
    for name in ("whole.pt", "edited.pt"):
        (tmp_path / name).write_bytes(b"trained")
    records.seal_artifacts(before)
    records.seal_artifacts({path.name for path in tmp_path.glob("*.pt")})  # a run that made nothing
    (tmp_path / "edited.pt").write_bytes(b"trained by hand")
    records.believe_artifacts()
    assert [path.name for path in tmp_path.glob("*.pt")] == ["whole.pt"]
    (tmp_path / "seals.json").write_text("[]", encoding="utf-8")
    records.believe_artifacts()
    assert not list(tmp_path.glob("*.pt"))


def test_whatever_way_data_is_opened_it_is_a_dependency(small):
    small.write("data/far.txt", "1")
    for name in ("bytes.txt", "path.txt", "relative.txt"):
        small.write(f"snippets/{name}", "1")
    lines = [
        "import pathlib",
        "here = pathlib.Path(__file__).parent",
        'opened = [open(bytes(here / "bytes.txt")), open(here / "path.txt"), open("relative.txt")]',
        'opened.append((here / ".." / "data" / "far.txt").open())',
    ]
    small.replace("snippets/index.py", 'show("error"', "\n".join(lines) + '\nshow("error"')
    assert small.build().returncode == 0
    entry = json.loads(small.read(f"{RECORDS}/index.entry.json"))
    assert set(entry["files"]) >= {"bytes.txt", "path.txt", "relative.txt", "../data/far.txt"}
    assert not [name for name in entry["files"] if name.startswith(("../.cache", "../docs"))]
    small.write("data/far.txt", "2")
    assert "1 of 4 scripts to run" in small.build().said


def test_a_folder_that_was_looked_through_is_a_dependency(small):
    small.write("snippets/recipes/rows_a.py", "ROWS = 1\n")
    small.replace(
        "snippets/index.py",
        'show("error"',
        'import pathlib\n[*pathlib.Path("recipes").glob("rows_*.py")]\nshow("error"',
    )
    assert small.build().returncode == 0
    small.write("snippets/recipes/rows_b.py", "ROWS = 2\n")
    assert "snippets/index.py" in small.build().said


def test_scripts_behind_a_link(small):
    """snippets/ may be a link: recipes are recipes, and dependencies are seen."""
    scripts = small.folder.with_name("scripts")
    small.path("snippets").rename(scripts)
    small.path("snippets").symlink_to(scripts)
    small.replace("snippets/recipes/adding.py", '"""Add numbers', '"""Add some numbers')
    done = small.build()
    assert done.returncode == 0, done.said
    assert "2 of 4 scripts to run" in done.said


def test_a_claim_is_kept_whole():
    claim = Claim(
        7, "equal", "assert_close(a, b)", "same", None, 3, ((2, 3), ()), ("float64",), 2e-16, (1e-7, 0.0), ("a",)
    )
    assert Claim.of(json.loads(json.dumps(dataclasses.asdict(claim)))) == claim
    with pytest.raises(dataclasses.FrozenInstanceError):
        claim.count = 4


def test_one_keeper_knows_where_records_lie():
    """The order of a build makes their folder; nobody else names it, nor a file in it."""
    named = {
        project.relative(path): set(
            re.findall(r"\bRECORDS\b|\brecord_path\b|\.(?:claims|values|figures|entry)\.json", text)
        )
        for path in (project.ROOT / "builder").rglob("*.py")
        if (text := path.read_text("utf-8"))
    }
    assert {path for path, names in named.items() if names} == {
        "builder/project.py",
        "builder/scripts/current.py",
        "builder/scripts/records.py",
    }


# what a tool's recipes import, and what changes nothing that its record says: it draws, or reads files and numbers
ASIDE = {
    "tools/hugging_face.py": ("attention_map",),
    "tools/model_types.py": ("convert", "convert_file", "detective_numbers", "headers", "layout_trace", "paper_heads"),
}


def made_with(tool):
    """A tool, and the recipes that it imports with all that these import; it may be named as one of them is."""
    recipes = [ROOT / "snippets" / "recipes" / f"{name}.py" for name in imported(tool)]
    return {tool}.union(*(files_of(recipe) for recipe in recipes if recipe.is_file()))


def test_a_record_that_no_build_makes_names_all_that_it_was_made_with():
    tried = 0
    for path in project.SNIPPETS.rglob("*.json"):
        record = json.loads(path.read_text("utf-8"))
        if not isinstance(record, dict) or not isinstance(record.get("made"), dict):
            continue
        of = record["made"]["of"]
        tools = [name for name in of if name.startswith("tools/")]
        aside = {f"snippets/recipes/{name}.py" for tool in tools for name in ASIDE.get(tool, ())}
        used = {project.relative(file) for tool in tools for file in made_with(ROOT / tool)}
        assert tools
        assert used - aside <= of.keys(), f"{project.relative(path)} says nothing of {used - aside - of.keys()}"
        assert aside <= used - of.keys(), f"{tools}: not aside"
        tried += 1
    assert tried >= 5
