"""What the tests share: the small project built once, and the built site."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any test imports torch
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["NO_MKDOCS_2_WARNING"] = "1"

import browser
import pytest
import shared_site
from filelock import FileLock
from small_project import SmallProject, forked_from

ROOT = Path(__file__).parents[1]
# Where a file is made in a tenth of the time, if there is such a place: the small project's are copied for each test.
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > 2**28 else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than there are cores: a test of a browser waits half of its time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores + 1


def pytest_configure(config):
    """What is forked is one for all processes of a run."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        os.environ.update(forked_from())


def _needs_the_site(item):
    return (
        not item.path.is_relative_to(ROOT / "tests")  # a block of a page
        or "site" in item.fixturenames
        or hasattr(item.module, "shared_site")
    )


def pytest_collection_modifyitems(items):
    """What needs the site comes last; of either half, what one process has to do as a whole comes first."""
    items.sort(key=lambda item: (_needs_the_site(item), not item.get_closest_marker("xdist_group")))


def pytest_collection_finish(session):
    """Both cores have work while the site is built."""
    needed = session.items and _needs_the_site(session.items[-1]) and "SITE_DIR" not in os.environ
    if needed and not session.config.option.collectonly:
        shared_site.begin()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish():
    """pytest looks for garbage five times in the end, among all that torch and the tests hold: that is none."""
    gc.freeze()


@pytest.fixture(scope="session")
def built_small_project(tmp_path_factory):
    """The small project, built once for all processes of a run: what the tests of broken builds start from. Left as it is."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    folder = (
        tmp_path_factory.getbasetemp() if alone else tmp_path_factory.getbasetemp().parent
    ) / "built_small_project"
    with FileLock(folder.with_name("built_small_project.lock")):
        if not folder.exists():
            small = SmallProject(folder.with_name("built_small_project.now"))
            small.stamp()
            done = small.build()
            assert done.returncode == 0, done.said
            small.folder.rename(folder)
    return SmallProject.at(folder)


@pytest.fixture
def small(built_small_project):
    """A copy of the built small project, its records and its lock with it, to break."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        yield SmallProject.at(shutil.copytree(built_small_project.folder, Path(folder) / "project", symlinks=True))


@pytest.fixture(scope="session")
def chromium():
    """The one browser of this process: Playwright runs once in a process."""
    with browser.launched_or_told() as running:
        yield running


@pytest.fixture(scope="session")
def site():
    """The folder of the built site; SITE_DIR names one that is built already."""
    return Path(os.environ["SITE_DIR"]).resolve() if "SITE_DIR" in os.environ else shared_site.built()


@pytest.fixture(scope="session")
def server(site):
    """The built site as a host serves it, counting what it sends."""
    with browser.served(site) as served:
        yield served


@pytest.fixture(scope="session")
def windows(chromium, server):
    """Windows that tests have left, by their options: opening a page in a new one takes twice as long."""
    left = {}
    yield left
    for window in left.values():
        window.context.close()


@pytest.fixture
def reader(chromium, server, windows):
    """A function that opens a window: reader(width=…, java_script_enabled=False, locale="ja").

    In a new one, reader(new=True), nothing has been fetched or granted before.
    """
    opened = []

    def open_window(width=1280, new=False, **options):
        options = {"viewport": {"width": width, "height": 900}, **options}
        key = str(sorted(options.items()))
        window = None if new else windows.pop(key, None)
        if window:
            window.renew()
        else:
            window = browser.Reader(chromium, server.base, **options)
        opened.append((None if new else key, window))
        return window

    yield open_window
    for key, window in opened:
        if key and key not in windows and window.usable():
            windows[key] = window
        else:
            window.context.close()
