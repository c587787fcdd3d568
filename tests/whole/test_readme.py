"""Every command of both READMEs is run, but `make test`, which is what runs this.

In the small project, which does the same: the whole is built once for all tests, by `mkdocs build` as `make build` does.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import shared_site

from builder.pages import reader

ROOT = shared_site.ROOT
COMMANDS = {
    name: [
        line
        for fence in reader.fences_of((ROOT / name).read_text(encoding="utf-8"))
        if fence.language == "sh"
        for line in fence.body
    ]
    for name in ("README.md", "README.ja.md")
}
BY_HAND = [
    "python3 -m venv .venv",
    ".venv/bin/python -m pip install -r requirements.txt",
    ".venv/bin/python -m mkdocs serve",
]
RUN_HERE = [
    "make serve",
    "PORT=8001 make serve",
    "make build",
    *BY_HAND,
    "make stamp PAGE=layouts/rosetta",
    "SITE_URL=https://example.org/attention/ REPO_URL=https://github.com/example/attention make build",
]


def test_both_readmes_hold_the_same_commands():
    assert COMMANDS["README.md"] == COMMANDS["README.ja.md"]


def test_every_command_is_run_by_a_test_of_this_file():
    assert sorted({*RUN_HERE, "make test"}) == sorted(set(COMMANDS["README.md"]))


def test_the_pages_that_lean_on_more_than_their_build_are_counted_alike():
    """The about page links to each of them; the home page and the READMEs say how many there are."""
    for language, readme, count in (
        ("en", "README.md", r"(\w+) pages lean"),
        ("ja", "README.ja.md", r"測ったページが(\w)つ"),
    ):
        about, home = (
            (ROOT / "docs" / language / f"{page}.md").read_text(encoding="utf-8") for page in ("about", "index")
        )
        told = {re.search(count, text)[1] for text in (about, home, (ROOT / readme).read_text(encoding="utf-8"))}
        listed = next(line for line in about.splitlines() if re.search(count, line))
        pages = set(re.findall(r"\]\(([\w/-]+\.md)", listed))
        words = {
            "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
            "ja": list("0123456789"),
        }
        assert told == {words[language][len(pages)]}


def test_what_the_readme_names_is_there():
    for name in COMMANDS:
        text = (ROOT / name).read_text(encoding="utf-8")
        for path in re.findall(r"^\| (`.+?) \|", text, flags=re.M):
            for part in re.findall(r"`([^`]+)`", path):
                assert (ROOT / part).exists(), f"{name} names {part}"
        for _, _, link in reader.links_in(text):
            assert link.startswith(("https:", "http:")) or (ROOT / link).exists(), f"{name} links to {link}"


@pytest.fixture
def copy(small):
    """The small project with what make reads, and the virtual environment by a link."""
    for name in ("Makefile", "requirements.txt", "constraints.txt"):
        shutil.copy2(ROOT / name, small.folder)
    small.path(".venv").symlink_to(ROOT / ".venv")
    return small.folder


def shell(command, folder, **more):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("SITE_URL", "REPO_URL", "PORT", "VIRTUAL_ENV")
    }
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, **more)


def serves(command, folder, port, **variables):
    """Whether the command serves both languages on `port`; what it said where it does not."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("SITE_URL", "REPO_URL")
    } | variables
    process = subprocess.Popen(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        for _ in range(240):
            try:
                for language in ("ja", "en"):
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{language}/", timeout=10) as answer:
                        assert f'<html lang="{language}"' in answer.read().decode()
                return
            except OSError:
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.5)
        pytest.fail("nothing was served within two minutes")
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_make_serve(copy):
    """On a port of our own: 8000 and 8001 may be taken where the tests run; `PORT=` is what the second command shows."""
    port = free_port()
    serves("make serve", copy, port, PORT=str(port))


def test_make_serve_on_a_busy_port(copy):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = shell(f"PORT={taken.getsockname()[1]} make serve", copy)
    assert done.returncode != 0
    assert "is taken by another program. Take another one: PORT=" in done.stderr


def test_make_build(copy):
    shutil.rmtree(copy / "site")
    done = shell("make build", copy)
    assert done.returncode == 0, done.stderr
    assert (copy / "site/ja/index.html").exists()
    assert 'rel="edit"' not in (copy / "site/en/layouts/two-sums/index.html").read_text(encoding="utf-8")


def test_make_build_for_publishing(copy):
    done = shell(RUN_HERE[-1], copy)
    assert done.returncode == 0, done.stderr
    page = (copy / "site/en/layouts/two-sums/index.html").read_text(encoding="utf-8")
    assert '<link rel="canonical" href="https://example.org/attention/en/layouts/two-sums/">' in page
    assert 'href="https://github.com/example/attention/edit/main/docs/en/layouts/two-sums.md"' in page
    assert 'href="/attention/ja/layouts/two-sums/"' in page
    assert 'href="/attention/ja/"' in (copy / "site/index.html").read_text(encoding="utf-8")


def test_make_stamp(copy):
    page = copy / "docs/en/layouts/two-sums.md"
    page.write_text(page.read_text(encoding="utf-8") + "\nOne more sentence.\n", encoding="utf-8")
    before = (copy / "docs/translations.lock.json").read_text(encoding="utf-8")
    done = shell("make stamp PAGE=layouts/two-sums", copy)
    assert done.returncode == 0, done.stderr
    assert (copy / "docs/translations.lock.json").read_text(encoding="utf-8") != before


@pytest.mark.ci  # another environment of 100 packages
def test_by_hand_and_half_made(copy):
    """The three plain commands, then make, over a .venv that has no mark of being whole.

    The packages are those that `make` has just installed for this run: fetching a hundred of them again proves nothing.
    """
    (copy / ".venv").unlink()
    done = shell(BY_HAND[0], copy)
    assert done.returncode == 0, done.stderr
    (own,) = (copy / ".venv").glob("lib/python*/site-packages")
    (own / "installed.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    done = shell(BY_HAND[1], copy)
    assert done.returncode == 0, done.stderr
    fetched = set(re.findall(r"^Collecting ([\w-]+)", done.stdout, flags=re.M))
    assert fetched <= {"setuptools"}, "it asks for what make did not install"  # a new .venv brings an old one
    port = free_port()
    templates = str(Path(sys.prefix) / "share" / "jupyter")  # they lie beside the packages, where no .pth leads
    serves(BY_HAND[2], copy, port, DEV_ADDR=f"127.0.0.1:{port}", JUPYTER_PATH=templates)
    done = shell("make --dry-run build", copy)
    assert "rm -rf .venv" in done.stdout


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        ("no-such-python", "There is no no-such-python. Install Python 3.11 or newer"),
        ("./old-python", "Python 3.10.0 is too old"),
    ],
)
def test_a_python_that_will_not_do(tmp_path, python, sentence):
    for name in ("Makefile", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.0\n[ "$1" != -c ]\n')
    old.chmod(0o755)
    done = shell(f"PYTHON={python} make build", tmp_path)
    assert done.returncode != 0
    assert sentence in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_pip_that_fails_leaves_no_half_made_environment(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").write_text("no-such-file-here.whl\n")
    (tmp_path / "constraints.txt").write_text("")
    done = shell(f"PYTHON={sys.executable} make build", tmp_path)
    assert done.returncode != 0
    assert "pip could not install requirements.txt" in done.stdout
    assert not (tmp_path / ".venv").exists()


LEFT_TO_CI = {  # as make test says it, and where it is
    "every cell of the grid": "test_grid.py",
    "another processor": "test_processors.py",
    "another environment": "test_readme.py",
    "another browser": "test_firefox.py",
    "axe on pages that differ in their text alone": "test_browser.py",
}


@pytest.mark.parametrize(
    ("variables", "arguments", "whole"),
    [({}, [], False), ({"CI": "true"}, [], True), ({}, ["TESTS=tests/recipes/test_grid.py"], True)],
)
def test_make_test_says_what_it_leaves_to_ci(variables, arguments, whole):
    """CI leaves out nothing, nor does who names a test."""
    environment = {**os.environ, "MAKEFLAGS": "", "TESTS": "", "CI": "", **variables}  # a make may have begun this
    told = subprocess.check_output(
        ["make", "--dry-run", "--no-print-directory", "test", *arguments], cwd=ROOT, env=environment, text=True
    ).splitlines()
    assert any(line.endswith('-m "not ci"') for line in told) != whole
    assert any(f"Left to CI: {', '.join(LEFT_TO_CI)}. " in line for line in told) != whole
    assert ("-m pytest" in told[-1]) == whole


def test_ci_runs_what_is_left_to_it():
    assert "CI=true make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    tests = (ROOT / "tests").rglob("*.py")
    marked = [path.name for path in tests if re.search(r"\bmark\.ci\b", path.read_text("utf-8"))]
    assert sorted(marked) == sorted(LEFT_TO_CI.values())
