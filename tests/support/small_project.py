"""The fixture project, laid out in a folder of its own with the real hooks: what every test of a broken build breaks."""

import functools
import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import filelock
import forks
from mkdocs.__main__ import cli

from builder import order, project, second_language
from builder.pages import lock, notebooks
from builder.scripts import current, records

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "fixture"
PROGRAM = [
    "mkdocs_adapter.py",
    "docs/words.yml",
    *(path.relative_to(ROOT).as_posix() for path in (ROOT / "builder").rglob("*.py")),
]
BUILDS = ["small_project", "mkdocs_jupyter.plugin", "builder.order"]  # what a build has imported before it begins
RUNNERS = ["small_runner", "torch.distributed.tensor"]  # and what a runner has, before its first script
READ_LATE = {"SITE_URL", "REPO_URL", "SOURCE_DATE_EPOCH"}  # what a build reads when it has imported all
# whether this is the build of a project of a test: see forks.anew
ANEW = not Path(project.__file__).is_relative_to(ROOT / "builder")
HELD = []  # what ends when this process does
ADDRESSES = ("FORKS_OF_BUILDS", "FORKS_OF_RUNNERS")


@functools.cache
def forked_from():
    """{variable of the environment: address} of the processes that builds and runners are forks of, started here once."""
    if ADDRESSES[0] in os.environ:
        return {name: os.environ[name] for name in ADDRESSES}
    builds = forks.Forks(BUILDS)
    runners = forks.Forks(
        RUNNERS, PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1"
    )  # as builder/scripts/current.py says
    HELD.extend([builds, runners])
    return dict(zip(ADDRESSES, (builds.address, runners.address), strict=True))


def _popen(command, env, cwd=None, text=True, encoding="utf-8", **streams):
    """subprocess.Popen for what a build starts: the runner, and itself for another language."""
    _, first, *more = command
    if first == "-m":
        assert more[0] == "builder.scripts.runner", command
        forked, act, given = "FORKS_OF_RUNNERS", "small_runner:run", more[1:]
    else:
        forked, act, given = "FORKS_OF_BUILDS", "small_project:_program", [first, *more]
    given = [project.ROOT, *given]
    if ANEW:
        act, given = "forks:anew", [act, *given]
    return forks.Fork(forked_from()[forked], act, given, cwd or os.getcwd(), env, **streams)


def record_of(script):
    """What the runner makes of a script that lies anywhere. Not in this process: the runner goes on to look at each file that it opens."""
    environment = {**os.environ, **forked_from()}
    given = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE}
    with forks.Fork(environment["FORKS_OF_RUNNERS"], "small_runner:tell", [script], **given) as fork:
        return json.load(fork.stdout)


def _program(folder, file, *arguments):
    SmallProject.at(folder)._be_the_project()
    sys.argv = [file, *arguments]
    runpy.run_path(file, run_name="__main__")


def _act(folder, act, *given):
    """In the fork: what `act` names, in the project at `folder`; what ends it is printed."""
    SmallProject.at(folder)._be_the_project()
    try:
        ACTS[act](given)
    except project.Stopped as stopped:
        print(stopped)
        return 1


def _build(arguments):
    cli(["build", *arguments])


def _before_a_page(_):
    order.scripts()
    order.sources()


def _stamp(pages):
    for page in pages:
        assert lock.main([page]) == 0


ACTS = {"build": _build, "before a page": _before_a_page, "stamp": _stamp}


def without_colours(said):
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

    def digests(self):
        """{file of the built site: what it holds, as a digest}."""
        site = self.path("site")
        files = [path for path in site.rglob("*") if path.is_file()]
        return {path.relative_to(site).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

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
        done = self._forked("stamp", *pages)
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

        In a process of its own where variables are set that Python or torch read as they begin.
        """
        if any(name.startswith(("PYTHON", "OMP_")) for name in environment):
            done = self.python("-m", "mkdocs", "build", *arguments, **environment)
            done.said = without_colours(done.stdout + done.stderr)
            return done
        return self._forked("build", *arguments, **environment)

    def _as_it_is(self):
        return all(self.read(name) == (ROOT / name).read_text("utf-8") for name in PROGRAM)

    def run_scripts(self, *scripts):
        """What `python -m builder run` prints of these scripts."""
        environment = {**os.environ, **forked_from()}
        given = {"cwd": self.folder, "env": environment, "stdout": subprocess.PIPE}
        with forks.Fork(environment["FORKS_OF_RUNNERS"], "small_runner:run", [self.folder, *scripts], **given) as fork:
            return fork.stdout.read()

    def told(self):
        """What a build says before it makes a page, of the scripts and of the sources; nothing where nothing is wrong."""
        done = self._forked("before a page")
        assert "Traceback" not in done.said, done.said
        return done.said if done.returncode else ""

    def begin(self, act, *given, stdout, **environment):
        """An act in this project, as a forks.Fork: "build" with its arguments, "before a page", "stamp" with pages.

        In a fork of a process that has imported what a build imports and has done nothing else: this one may have V8
        running, which no fork survives.
        """
        act, given = "small_project:_act", [self.folder, act, *given]
        if environment.keys() - READ_LATE or not self._as_it_is():
            act, given = "forks:anew", [act, *given]
        environment = {**os.environ, **forked_from(), **environment}
        address = environment["FORKS_OF_BUILDS"]
        with open(os.devnull) as nothing:
            return forks.Fork(address, act, given, self.folder, environment, nothing, stdout, subprocess.STDOUT)

    def _forked(self, act, *given, **environment):
        """What an act comes to: `returncode`, and `said`, all that it printed, without colours."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
            returned = self.begin(act, *given, stdout=said, **environment).wait()
            said.seek(0)
            return SimpleNamespace(returncode=returned, said=without_colours(said.read()))

    def _be_the_project(self):
        project.ROOT = self.folder
        project.DOCS, project.SNIPPETS, project.CACHE = map(self.path, ("docs", "snippets", ".cache"))
        project.RECORDS, project.LOCK = project.CACHE / "snippets", filelock.FileLock(project.CACHE / "lock")
        notebooks.NOTEBOOKS = project.CACHE / "notebooks"
        records.SNIPPETS = project.SNIPPETS.resolve()
        current.subprocess = second_language.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": _popen})
