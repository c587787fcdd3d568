"""Run the scripts that changed, so that every record is current, or its script is among the faults."""

import json
import re
import subprocess
import sys
from pathlib import Path

from builder import project
from builder.project import Fault
from builder.scripts import records


def run_stale(paths: list[Path], base: Path, folder: Path) -> dict[Path, tuple[int, str]]:
    """Run those scripts below `base` whose records below `folder` are not current; return {path: (line, message)} of faults.

    Afterwards every record is current, or its script is among the faults: nothing else lets a script pass.
    """
    foundation = records.foundation()

    def stale():
        return [path for path in paths if not records.is_current(path, base, folder, foundation)]

    faults = {}
    if waiting := sorted(stale(), key=_trains_nothing):
        project.log.info(f"{len(waiting)} of {len(paths)} scripts to run")
        for path in waiting:
            records.forget(path, base, folder)
        for done, told in enumerate(_run(waiting, base, folder), 1):
            project.log.info(f"script {done} of {len(waiting)}: {project.relative(told['script'])}")
            if told["fault"]:
                faults[Path(told["script"])] = told["fault"]["line"], told["fault"]["message"]
        if not faults:
            why = (
                "it left no whole record of this script, or the script has changed meanwhile; what it said stands above"
            )
            faults = dict.fromkeys(stale(), (0, f"the runner has ended: {why}"))
    return faults


TRAINS = re.compile(r"\.backward\(\)")
IMPORTED = re.compile(r"^(?:from|import) (\w+)", re.M)


def _trains_nothing(path):
    """Scripts that look at a model which a recipe trains take longest: begun last, they would be waited for alone."""
    recipes = (records.SNIPPETS / "recipes" / f"{name}.py" for name in IMPORTED.findall(path.read_text("utf-8")))
    return not any(recipe.exists() and TRAINS.search(recipe.read_text("utf-8")) for recipe in recipes)


def _run(paths, base, folder):
    """Start the runner; yield {"script": path, "fault": {line, message} or None} as each script finishes."""
    command = [
        sys.executable,
        "-m",
        "builder.scripts.runner",
        "--base",
        str(base),
        "--batch",
        str(folder),
        *map(str, paths),
    ]
    # no byte code, which would wake `mkdocs serve`; the same order of sets in every process
    environment = {**project.environment(), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # its end tells the runner that this process is gone
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        cwd=project.SNIPPETS,
    ) as job:
        yield from map(json.loads, job.stdout)


def run_scripts() -> list[Fault]:
    """Run what is not current; return the faults. Records of scripts that are gone are removed."""
    project.RECORDS.mkdir(parents=True, exist_ok=True)
    names = [path.relative_to(project.SNIPPETS).as_posix() for path in records.scripts()]
    if not names:
        return [Fault("snippets", 0, "there is no script, so nothing would be checked")]
    records.forget_gone(names)
    told = run_stale([project.SNIPPETS / name for name in names], project.SNIPPETS, project.RECORDS)
    faults = [Fault(project.relative(path), line, message) for path, (line, message) in told.items()]
    for name in names:
        entry = records.record(name, "entry")
        if entry and entry["no_claim"]:
            faults.append(
                Fault(f"snippets/{name}", 0, "it has no claim: nothing on its page would be proved", soft=True)
            )
    return faults
