"""What a page became is made once, believed only when whole, and forgotten when nothing asks for it."""

import json

import pytest

from builder import kept, project


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "CACHE", tmp_path)
    monkeypatch.setattr(kept, "_memory", {})
    kept.begin()


def made(parts, what="made", keep=lambda _: True):
    """(what came of it, whether it was made now)."""
    calls = []
    return kept.kept("ja/texts", parts, lambda: calls.append(1) or {"html": what}, keep)["html"], bool(calls)


def files(tmp_path):
    return sorted((tmp_path / "pages").rglob("*.json"))


def test_it_is_made_once_in_this_process_and_in_the_next(monkeypatch):
    assert made(["a"]) == ("made", True)
    assert made(["a"], "other") == ("made", False)
    assert made(["b"], "other") == ("other", True)
    monkeypatch.setattr(kept, "_memory", {})
    assert made(["a"], "other") == ("made", False)


def test_the_program_belongs_to_what_it_is_made_of(monkeypatch):
    made(["a"])
    monkeypatch.setattr(kept, "program", lambda: "another build")
    assert made(["a"], "anew") == ("anew", True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-2],
        lambda text: text.replace("made", "typed"),
        lambda text: json.dumps({"html": "typed"}),
        lambda text: "0" * 64 + "\n" + json.dumps({"html": "typed"}),
    ],
)
def test_what_is_damaged_is_made_anew(tmp_path, monkeypatch, damage):
    made(["a"])
    monkeypatch.setattr(kept, "_memory", {})
    (file,) = files(tmp_path)
    file.write_text(damage(file.read_text("utf-8")), "utf-8")
    assert made(["a"], "anew") == ("anew", True)


def test_what_stands_under_another_name_is_not_believed(tmp_path, monkeypatch):
    made(["a"])
    made(["b"], "other")
    monkeypatch.setattr(kept, "_memory", {})
    one, other = files(tmp_path)
    one.write_bytes(other.read_bytes())
    other.unlink()
    assert {made(["a"], "anew"), made(["b"], "anew")} == {("anew", True)}


def test_what_has_faults_is_not_kept(tmp_path):
    assert made(["a"], keep=lambda _: False) == ("made", True)
    assert made(["a"], keep=lambda _: False) == ("made", True)
    assert not files(tmp_path)


def test_what_no_build_asks_for_goes(tmp_path):
    made(["a"])
    made(["b"])
    kept.kept("en/texts", ["a"], lambda: 1)
    kept.begin()
    made(["b"])
    kept.forget()
    assert len(files(tmp_path)) == 2, "of the other kind nobody has asked"
    assert made(["a"], "anew") == ("anew", True)
    assert made(["b"], "anew") == ("made", False)
