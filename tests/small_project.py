"""The fixture project, laid out in a folder of its own with the real hooks: what every test of a broken build breaks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIXTURE = Path(__file__).parent / "fixture"


class SmallProject:
    """A copy of tests/fixture with the real hooks, theme, style sheets and configuration (less its navigation)."""

    def __init__(self, folder):
        self.folder = Path(folder)
        shutil.copytree(FIXTURE, self.folder, dirs_exist_ok=True)
        for name in ("hooks", "theme", "shared", "root"):
            shutil.copytree(
                ROOT / "docs" / name, self.folder / "docs" / name, ignore=shutil.ignore_patterns("__pycache__")
            )
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

    def reread(self, page):
        """Accept a page pair that was changed on purpose, as `make stamp` does."""
        self.python("docs/hooks/pages.py", "stamp", page, check=True)

    def stamp(self):
        for page in sorted(self.path("docs/ja").rglob("*.md")):
            name = page.relative_to(self.path("docs/ja")).with_suffix("").as_posix()
            self.reread(name)

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
        """`mkdocs build`; returns the finished process, `said` being all that it printed, without colours."""
        done = self.python("-m", "mkdocs", "build", *arguments, **environment)
        done.said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        return done
