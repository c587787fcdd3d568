"""The built site that all tests share: built once a test run, by whichever process needs it first."""

import functools
import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
SITE = ROOT / ".cache" / "tested" / "site"
BASE = "http://127.0.0.1:8000"  # mkdocs.yml's own default


def begin():
    """Start to build the site beside the tests that do not need it."""
    command = [sys.executable, "-c", "import shared_site; shared_site.built()"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTEST_XDIST_TESTRUNUID": _run()}
    subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _run():
    """What this run of the tests is called, the same in each of its processes."""
    return os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))


@functools.cache
def built():
    """The folder of the built site. Raises RuntimeError with what MkDocs said where it does not build."""
    run = _run()
    SITE.parent.mkdir(parents=True, exist_ok=True)
    mark = SITE.parent / "run"
    with FileLock(SITE.parent / "lock"):
        if not (mark.exists() and mark.read_text().partition(" ")[0] == run):  # a failure is kept as well
            command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(SITE)]
            environment = {name: value for name, value in os.environ.items() if name not in ("SITE_URL", "REPO_URL")}
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8")
            mark.write_text(run if done.returncode == 0 else f"{run} {done.stderr}{done.stdout}")
    said = mark.read_text()
    if said != run:
        raise RuntimeError("the site does not build:\n" + said.partition(" ")[2])
    return SITE


def pages():
    """Every built page as its address below the site, the languages' pages first: ja/layouts/rosetta/."""
    site = built()
    return sorted(path.parent.relative_to(site).as_posix() + "/" for path in site.glob("??/**/index.html"))
