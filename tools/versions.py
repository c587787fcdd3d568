"""Run the recipes' tests under other versions of PyTorch and write what passes to snippets/versions.json: `make versions`.

    make versions PYTHONS="/tmp/torch-2.6/bin/python /tmp/torch-2.14/bin/python"

Each interpreter needs torch, numpy, matplotlib, pytest and hypothesis, and nothing of the site. A recipe's tests are those of
tests/recipes/test_NAME.py and test_NAME_*.py; what a version cannot do at all they skip, with a reason. Kept are, for each
recipe and version, how many tests passed, failed and were skipped, the day, and a digest of the recipe and its tests, by
which a record of an older recipe can be told: one of the recipe and the tests as they are stands, and its tests are not
run again. So do records of versions that are not named.
"""

import argparse
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "snippets" / "recipes"
DATA = ROOT / "snippets" / "versions.json"
# {recipe: what it is tested with}; test_versions.py says of each other recipe why it is not among them
TESTED = {
    "attention_map": ["attention_map"],
    "cached": ["cached"],
    "capture": ["capture"],
    "checks": ["checks"],
    "kernels": ["kernels"],
    "known_tasks": ["known_tasks"],
    "paper_attention": ["paper_attention", "paper_module", "attention_inputs"],
    "paper_layout": ["paper_layout", "paper_attention", "attention_inputs"],
    "six_ways": ["six_ways", "paper_layout", "paper_attention", "attention_inputs"],
}


def tests_of(recipe: str) -> list[Path]:
    tests = ROOT / "tests" / "recipes"
    return sorted([tests / f"test_{recipe}.py", *tests.glob(f"test_{recipe}_*.py")])


def digest(recipe: str) -> str:
    """Of the files that its tests run, and of the tests."""
    files = [*(RECIPES / f"{name}.py" for name in TESTED[recipe]), *tests_of(recipe)]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def version_of(python: str) -> str:
    """What pip calls it: 2.6.0, without the +cpu or +cu124 of its build."""
    ask = [python, "-c", "import torch; print(torch.__version__)"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip().split("+")[0]


def run(python: str, recipe: str) -> dict:
    """How many tests of a recipe pass, fail and are skipped under an interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            python, "-m", "pytest", "-q", "-c", os.devnull, f"--rootdir={folder}", "--noconftest", "-p", "no:cacheprovider",
            "-o", f"pythonpath={ROOT} {ROOT / 'tests' / 'support'} {RECIPES}", f"--junitxml={report}", *map(str, tests_of(recipe)),
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        if not report.exists():
            sys.exit(f"{python}: pytest did not run: {(done.stderr or done.stdout).strip()[-500:]}")
        suite = xml.parse(report).getroot().find("testsuite").attrib
        for line in done.stdout.splitlines():
            if line.startswith(("FAILED", "ERROR")):
                print(f"    {line}")
    failed = int(suite["failures"]) + int(suite["errors"])
    skipped = int(suite["skipped"])
    return {"passed": int(suite["tests"]) - failed - skipped, "failed": failed, "skipped": skipped}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("pythons", nargs="*", default=[sys.executable], help="interpreters, this one if none is named")
    data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    for python in map(os.path.abspath, parser.parse_args().pythons):
        version = version_of(python)
        print(f"PyTorch {version}")
        for recipe in TESTED:
            if data.get(recipe, {}).get(version, {}).get("digest") == digest(recipe):
                print(f"  {recipe:16} as recorded")
                continue
            found = run(python, recipe)
            print(f"  {recipe:16}{found['passed']:4} passed {found['failed']:4} failed {found['skipped']:4} skipped")
            record = found | {"day": datetime.date.today().isoformat(), "digest": digest(recipe)}
            data.setdefault(recipe, {})[version] = record
    ordered = {
        recipe: dict(sorted(versions.items(), key=lambda item: [int(n) for n in re.findall(r"\d+", item[0])]))
        for recipe, versions in sorted(data.items())
    }
    DATA.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {DATA.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
