"""The fixture project, laid out in a folder of its own with the real hooks: what every test of a broken build breaks."""

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import filelock
from mkdocs.__main__ import cli

from builder import order, project
from builder.pages import lock, notebooks
from builder.scripts import records

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "fixture"
PROGRAM = [
    "mkdocs_adapter.py",
    "docs/words.yml",
    *(path.relative_to(ROOT).as_posix() for path in (ROOT / "builder").rglob("*.py")),
]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["small_project", "mkdocs_jupyter.plugin", "builder.order"])


def _run(folder, said, act, given):
    """In the fork: act(*given), in the project at `folder`; what it prints, and what ends it, stands in the file `said`."""
    with open(said, "w", encoding="utf-8", buffering=1) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        sys.stdout = sys.stderr = file
        os.chdir(folder)
        SmallProject.at(folder)._be_the_project()
        try:
            act(*given)
        except project.Stopped as stopped:
            print(stopped)
            sys.exit(1)


def _build(arguments):
    cli(["build", *arguments])


def _before_a_page():
    order.scripts()
    order.sources()


def _stamp(pages):
    for page in pages:
        assert lock.main([page]) == 0


def _without_colours(said):
    return re.sub(r"\x1b\[[0-9;]*m", "", said)


class SmallProject:
    """A copy of tests/fixture with the real hooks, theme, style sheets and configuration (less its navigation)."""

    def __init__(self, folder):
        self.folder = Path(folder)
        shutil.copytree(FIXTURE, self.folder, dirs_exist_ok=True)
        for name in ("builder", "docs/theme", "docs/shared", "docs/root"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "mkdocs_adapter.py", self.folder)
        shutil.copy(ROOT / "docs" / "words.yml", self.folder / "docs")
        configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
        (self.folder / "mkdocs.yml").write_text(configuration.partition("\nnav:\n")[0] + "\n", encoding="utf-8")

    @classmethod
    def at(cls, folder):
        """The project that lies at `folder` already."""
        small = cls.__new__(cls)
        small.folder = Path(folder)
        return small

    def path(self, name):
        return self.folder / name

    def read(self, name):
        return self.path(name).read_text(encoding="utf-8")

    def write(self, name, text):
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text, encoding="utf-8")

    def replace(self, name, old, new):
        """Replace text that must be there, so that a test breaks what it means to break."""
        text = self.read(name)
        assert old in text, f"{name} does not hold {old!r}"
        self.write(name, text.replace(old, new))

    def line_of(self, name, text):
        """The number of the first line that holds `text`."""
        return next(number for number, line in enumerate(self.read(name).splitlines(), 1) if text in line)

    def reread(self, *pages):
        """Accept page pairs that were changed on purpose, as `make stamp` does, one after the other."""
        done = self._forked(_stamp, pages)
        assert done.returncode == 0, done.said

    def stamp(self):
        folder = self.path("docs/ja")
        self.reread(*sorted(page.relative_to(folder).with_suffix("").as_posix() for page in folder.rglob("*.md")))

    def python(self, *arguments, check=False, stdin=None, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdin=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=check,
        )

    def build(self, *arguments, **environment):
        """`mkdocs build`; what it returned as `returncode`, and as `said` all that it printed, without colours.

        In a process of its own where the environment or the build itself is another.
        """
        if environment or any(self.read(name) != (ROOT / name).read_text("utf-8") for name in PROGRAM):
            done = self.python("-m", "mkdocs", "build", *arguments, **environment)
            done.said = _without_colours(done.stdout + done.stderr)
            return done
        return self._forked(_build, arguments)

    def told(self):
        """What a build says before it makes a page, of the scripts and of the sources; nothing where nothing is wrong."""
        done = self._forked(_before_a_page)
        assert "Traceback" not in done.said, done.said
        return done.said if done.returncode else ""

    def _forked(self, act, *given):
        """What act(*given) comes to in this project: `returncode`, and `said`, all that it printed, without colours.

        In a fork of a process that has imported what a build imports and has done nothing else: this one may have V8
        running, which no fork survives.
        """
        with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as said:
            process = FORKS.Process(target=_run, args=(self.folder, said.name, act, given))
            process.start()
            process.join()
            return SimpleNamespace(returncode=process.exitcode, said=_without_colours(said.read()))

    def _be_the_project(self):
        project.ROOT = self.folder
        project.DOCS, project.SNIPPETS, project.CACHE = map(self.path, ("docs", "snippets", ".cache"))
        project.RECORDS, project.LOCK = project.CACHE / "snippets", filelock.FileLock(project.CACHE / "lock")
        notebooks.NOTEBOOKS = project.CACHE / "notebooks"
        records.SNIPPETS = project.SNIPPETS.resolve()
