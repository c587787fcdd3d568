"""No variable of the environment, no flag and no stale file turns a check off, and one build at a time writes the site."""

import ast
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest
from mkdocs.exceptions import Abort
from small_project import ROOT, without_colours

import mkdocs_adapter
from builder import project, staging

INDEX = "snippets/index.py"
BROKEN = "the claim no longer holds"

# what the build's own code reads, each with a value that might be taken for a switch
READ = {
    "SITE_URL": "https://example.org/",
    "REPO_URL": "https://example.org/repository",
    "DEV_ADDR": "127.0.0.1:1",
    "SOURCE_DATE_EPOCH": "0",
    "ATTENTION_NO_FORK": "1",
    "ATTENTION_CACHE": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "active",
}
# what once was read, what other tools read, and what changes Python
OTHERS = {
    "DOCS_SERVING": "1",
    "CI": "true",
    "NO_MKDOCS_2_WARNING": "1",
    "PYTHONHASHSEED": "7",
    "PYTHONSAFEPATH": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
WAYS = {  # options of Python, of MkDocs, and the environment; from another folder than the project's
    "the environment": (["-OO"], [], READ | OTHERS | {"DOCS_LANG": "en", "PYTHONOPTIMIZE": "1"}),
    "flags": ([], ["--quiet", "--strict", "--no-strict", "--dirty"], {"DOCS_LANG": "fr"}),
}


def environment_names(tree):
    """The variables that a module reads or sets; raises where it does so in a way that this test does not know."""
    known, seen = set(), []
    for node in ast.walk(tree):
        held = getattr(node, "value", None)
        if isinstance(node, ast.Subscript) and is_environ(held) and isinstance(node.slice, ast.Constant):
            known.add(node.slice.value)
        elif isinstance(node, ast.Compare) and is_environ(node.comparators[0]):
            held = node.comparators[0]
            known.add(node.left.value)
        elif isinstance(node, ast.Call) and is_environ(getattr(node.func, "value", None)):
            held = node.func.value
            if node.func.attr == "update":
                known |= {keyword.arg for keyword in node.keywords}
            elif node.func.attr != "items":  # all of it: for the key of what is kept
                known.add(node.args[0].value)
        elif isinstance(node, ast.Dict):  # handed on to a process
            seen += [
                value for key, value in zip(node.keys, node.values, strict=True) if key is None and is_environ(value)
            ]
            continue
        else:
            assert getattr(node, "attr", "") not in ("getenv", "environb"), ast.unparse(node)
            continue
        seen.append(held)
    unknown = [node for node in ast.walk(tree) if is_environ(node) and node not in seen]
    assert not unknown, [node.lineno for node in unknown]
    return known


def is_environ(node):
    return isinstance(node, ast.Attribute) and node.attr == "environ"


def test_every_variable_that_the_build_reads_is_tried():
    found = set(re.findall(r"!ENV \[?(\w+)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    files = [ROOT / "mkdocs_adapter.py", *(ROOT / "builder").rglob("*.py"), *(ROOT / "snippets").rglob("*.py")]
    for path in files:
        found |= environment_names(ast.parse(path.read_text(encoding="utf-8")))
    assert found == set(READ)


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_claim_ends_every_way_of_building(small, tmp_path, way):
    options, flags, variables = WAYS[way]
    small.replace(INDEX, "by_columns)\n", "by_columns + 1)\n")
    before = small.read("site/en/index.html")
    flags = ["-f", small.path("mkdocs.yml"), "-d", tmp_path / "out", *flags]
    command = [sys.executable, *options, "-m", "mkdocs", "build", *flags]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = without_colours(done.stdout + done.stderr)
    assert done.returncode == 1, said
    assert f"{INDEX}:{small.line_of(INDEX, 'by_columns + 1')}: {BROKEN}" in said
    assert "Traceback" not in said
    assert small.read("site/en/index.html") == before
    assert not (tmp_path / "out").exists()


def test_what_would_make_another_site_gets_a_sentence(small):
    flags = ["--no-directory-urls", "--theme", "mkdocs"]
    done = small.build(*flags, SITE_URL="", SOURCE_DATE_EPOCH="yesterday")
    assert done.returncode == 1
    assert "Traceback" not in done.said
    assert "mkdocs.yml: use_directory_urls is off" in done.said
    assert "mkdocs.yml: the theme is mkdocs" in done.said
    assert "mkdocs.yml: the site has no address: SITE_URL is empty" in done.said
    assert "mkdocs.yml: SOURCE_DATE_EPOCH is 'yesterday', and should be a number of seconds" in done.said


def test_a_folder_that_is_no_site_of_ours_is_not_replaced(small):
    done = small.build("--site-dir", "snippets")
    assert done.returncode == 1
    assert "snippets: this folder is not empty and no site of ours: it would be replaced" in done.said
    assert small.path(INDEX).exists()


@pytest.mark.parametrize("name", ["site", "site.building", "site.old"])
def test_a_file_where_a_folder_will_be_written(tmp_path, name):
    (tmp_path / name).write_text("kept")
    (fault,) = staging.place_faults(tmp_path / "site")
    assert fault.message == "a folder will be written here, and this is none: move it away"
    assert Path(fault.file).name == name
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert not list(staging.place_faults(tmp_path / "site"))


def test_a_site_that_is_a_link_stays_one(small):
    elsewhere = small.folder.with_name("elsewhere")
    elsewhere.mkdir()
    small.path("site").rename(elsewhere / "site")
    small.path("site").symlink_to(elsewhere / "site")
    small.path("site/en/index.html").write_text("old")
    done = small.build()
    assert done.returncode == 0, done.said
    assert small.path("site").is_symlink()
    assert "old" not in small.read("site/en/index.html")[:9]
    assert not (elsewhere / "site.old").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/x/.cache/lock"), "/x/.cache/lock: read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device"), "a file: no space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", b"/x/site"), "/x/site: permission denied"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/a", None, "/x/site/a"),
            "/x/site/a: no space left on device",
        ),
    ],
)
def test_what_the_system_refuses_is_a_sentence(error, said, caplog):
    with pytest.raises(Abort):
        mkdocs_adapter.on_build_error(error)
    assert f"{said}; the build needs to read and write here" in caplog.text


def test_a_file_where_the_records_are_kept(small):
    for name in (".cache/snippets", ".cache"):
        shutil.rmtree(small.path(name))
        small.write(name, "")
        done = small.build()
        assert done.returncode == 1
        assert f"ERROR   -  {name}: file exists; the build needs to read and write here" in done.said
        assert "Traceback" not in done.said
        small.path(name).unlink()
        small.path(name).mkdir()


def test_the_second_language_is_built_by_nobody_else(small):
    done = small.python("mkdocs_adapter.py", DOCS_LANG="en", stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert done.stderr.startswith("This is a part of the build")
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- what dies with the build


def ends_with_its_caller(process):
    """Whether a process ends when the other end of its standard input is closed."""
    time.sleep(1)
    assert process.poll() is None, process.communicate()
    process.stdin.close()
    return process.wait(20) == 1


def test_the_second_language_ends_with_the_first(small):
    order = {
        "language": "en",
        "building": str(small.path("left")),
        "config_file": str(small.path("mkdocs.yml")),
        "site_url": "http://127.0.0.1/",
        "serving": False,
        "soft_faults": [],
    }
    small.replace(
        "builder/order.py",
        "def before(markdown: str, page: Page) -> str:\n",
        "def before(markdown: str, page: Page) -> str:\n    __import__('time').sleep(60)\n",
    )
    command = [sys.executable, "mkdocs_adapter.py"]
    process = subprocess.Popen(command, cwd=small.folder, stdin=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    assert ends_with_its_caller(process)


def test_the_runner_ends_with_the_build(small):
    small.write(
        "snippets/slow.py", "import time\nopen('began', 'w').close()\ntime.sleep(60)\nopen('ended', 'w').close()\n"
    )
    command = [sys.executable, "-m", "builder", "run", "--batch", "kept", "snippets/slow.py"]
    process = subprocess.Popen(command, cwd=small.folder, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while not small.path("began").exists():
        time.sleep(0.1)
    assert ends_with_its_caller(process)
    assert not small.path("ended").exists()


# ---------------------------------------------------------------- one at a time


def test_the_lock_lies_beside_the_records():
    """Of this checkout: the two tests below give their project one of its own."""
    assert Path(project.LOCK.lock_file) == ROOT / ".cache" / "lock"


def test_a_second_build_waits(small):
    lock = filelock.FileLock(small.path(".cache/lock"))
    with lock:
        build = small.begin("build", stdout=subprocess.PIPE)
        assert any("Another build of this checkout is running" in line for line in build.stdout)
        shutil.rmtree(small.path("site"))
        time.sleep(1)
        assert not small.path("site").exists()
    with build:
        build.stdout.read()
    assert build.returncode == 0
    assert small.path("site/en/index.html").exists()


def test_two_builds_at_once_do_not_mix(small, tmp_path):
    with (tmp_path / "said").open("w+", encoding="utf-8") as said:
        builds = [small.begin("build", stdout=said, SITE_URL=f"https://{name}.example/") for name in ("aaa", "bbb")]
        assert [build.wait() for build in builds] == [0, 0], (tmp_path / "said").read_text("utf-8")
    pages = [path.read_text(encoding="utf-8") for path in small.path("site").rglob("index.html")]
    canonical = {match for page in pages for match in re.findall(r'rel="canonical" href="https://(\w+)\.example', page)}
    assert len(pages) > 10
    assert len(canonical) == 1


# ---------------------------------------------------------------- each room once


def test_each_room_is_there_once(small):
    """A page and its notebook are written by the same `values`, with one memory."""
    code = """
import os, sys
from mkdocs.config import load_config
load_config("mkdocs.yml")
files = [os.path.realpath(m.__file__) for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
here = os.getcwd() + os.sep
ours = sorted(file for file in files if file.startswith((here + "builder", here + "mkdocs_adapter")))
print(len(ours), len(set(ours)))
"""
    done = small.python("-c", code)
    ours, different = map(int, done.stdout.split())
    assert ours == different > 15, done.stderr
