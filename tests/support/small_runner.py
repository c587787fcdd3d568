"""The runner of scripts in a fork: no more is imported here than a runner imports."""

import json
import os
import sys
from pathlib import Path

from builder import project
from builder.scripts import records, runner


def run(folder, *arguments):
    """`python -m builder.scripts.runner` in the project at `folder`."""
    folder = Path(folder)
    sys.path[0] = str(folder)
    project.ROOT = folder
    project.DOCS, project.SNIPPETS, project.CACHE = folder / "docs", folder / "snippets", folder / ".cache"
    project.RECORDS = project.CACHE / "snippets"
    records.SNIPPETS = runner.SNIPPETS = project.SNIPPETS.resolve()
    records.ARTIFACTS = project.CACHE / "artifacts" / records.machine()
    os.environ["ATTENTION_CACHE"] = str(records.ARTIFACTS)
    return runner.main([*arguments])


def tell(script):
    """The record of one script of this project, as JSON on standard output."""
    json.dump(runner.run(script), sys.stdout)
