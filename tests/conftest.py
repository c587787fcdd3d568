"""What the tests share: the small project built once, and the built site."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any test imports torch
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["NO_MKDOCS_2_WARNING"] = "1"

import browser
import pytest
import shared_site
from small_project import SmallProject

ROOT = Path(__file__).parents[1]


def _needs_the_site(item):
    return (
        not item.path.is_relative_to(ROOT / "tests")  # a block of a page
        or "site" in item.fixturenames
        or hasattr(item.module, "shared_site")
    )


def pytest_collection_modifyitems(items):
    """What needs the site comes last."""
    items.sort(key=_needs_the_site)


def pytest_collection_finish(session):
    """Both cores have work while the site is built."""
    if session.items and _needs_the_site(session.items[-1]) and not session.config.option.collectonly:
        shared_site.begin()


@pytest.fixture(scope="session")
def built_small_project(tmp_path_factory):
    """The small project, built: what the tests of broken builds start from. Left as it is."""
    small = SmallProject(tmp_path_factory.mktemp("small") / "project")
    small.stamp()
    done = small.build()
    assert done.returncode == 0, done.said
    return small


@pytest.fixture
def small(built_small_project, tmp_path):
    """A copy of the built small project, its records and its lock with it, to break."""
    folder = tmp_path / "project"
    shutil.copytree(built_small_project.folder, folder, symlinks=True)
    return SmallProject.at(folder)


@pytest.fixture(scope="session")
def chromium():
    """The one browser of this process: Playwright runs once in a process."""
    with browser.launched_or_told() as running:
        yield running


@pytest.fixture(scope="session")
def site():
    """The folder of the built site; SITE_DIR names one that is built already."""
    return Path(os.environ["SITE_DIR"]) if "SITE_DIR" in os.environ else shared_site.built()


@pytest.fixture(scope="session")
def server(site):
    """The built site as a host serves it, counting what it sends."""
    with browser.served(site) as served:
        yield served


@pytest.fixture
def reader(chromium, server):
    """A function that opens a window of its own: reader(width=…, java_script_enabled=False, locale="ja")."""
    opened = []

    def open_window(width=1280, **options):
        window = browser.Reader(chromium, server.base, **{"viewport": {"width": width, "height": 900}, **options})
        opened.append(window)
        return window

    yield open_window
    for window in opened:
        window.context.close()
