"""Every version that makes an output is pinned, and is the one that is installed; what the code imports is named."""

import ast
import re
import subprocess
import sys
from importlib import metadata

import pytest
from small_project import ROOT

INSTALLERS = {"pip", "setuptools", "wheel"}


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def lines(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for part in text.splitlines() if (line := part.partition("#")[0].strip())]


def pinned():
    """{name: version} of constraints.txt, without what only another system has."""
    found = {}
    for line in lines("constraints.txt"):
        name, version, system = re.fullmatch(r'([\w.-]+)==([\w.]+)(?:; sys_platform == "(\w+)")?', line).groups()
        if system in (None, sys.platform):
            found[plain(name)] = version
    return found


def needed():
    """The names of requirements.txt, which says no versions of its own."""
    first, *names = lines("requirements.txt")
    assert first == "-c constraints.txt"
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
    return {plain(name) for name in names}


def test_what_is_installed_is_what_is_pinned():
    """PyTorch's wheels with CUDA bring NVIDIA's packages and Triton along, and pin them themselves."""
    by_torch = {
        plain(re.match(r"[\w.-]+", line)[0]) for line in metadata.requires("torch") if "==" in line.partition(";")[0]
    }
    installed = {plain(one.name): one.version.partition("+")[0] for one in metadata.distributions()}
    ours = {name: version for name, version in installed.items() if name not in INSTALLERS | by_torch}
    assert ours == pinned()


def test_what_the_code_imports_is_named():
    owners, imported = metadata.packages_distributions(), set()
    for folder in ("builder", "snippets", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add(node.module.partition(".")[0])
    owned = {plain(owner) for name in imported for owner in owners.get(name, [])}
    assert len(owned) > 15
    assert owned <= needed(), "an import that requirements.txt does not name"
    plugins = {"mkdocs-jupyter", "pymdown-extensions", "pytest-xdist", "ruff", "django-static-mathjax"}
    assert needed() <= owned | plugins, "a name in requirements.txt that nothing imports"
    assert needed() <= set(pinned())


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ("abc", "PORT is 'abc', and should be a number from 1 to 65535"),
        ("", "PORT is '', and should be a number"),
        ("-1", "PORT is '-1', and should be a number"),
        ("99999", "PORT is '99999', and should be a number"),
    ],
)
def test_a_port_that_is_none(port, said):
    done = subprocess.run([sys.executable, "-m", "builder", "port", port], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
