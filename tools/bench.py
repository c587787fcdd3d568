#!/usr/bin/env python3
"""What the site costs: CPU seconds of the build, beside peers, and each page's bytes, requests, movement and blocking time;
and what recording attention costs a model.

    make bench                      everything (some minutes)
    .venv/bin/python -m tools.bench pages --site site     the pages of a site that is built already
    .venv/bin/python -m tools.bench builds --peers BIN    the builds only, peers by the programs in BIN as well
    .venv/bin/python -m tools.bench many                  200 generated pages
    PYTHONPATH=snippets/recipes .venv/bin/python -m tools.bench recording    capture.py on a model of six layers

Builds are made in a copy of the working tree, whose .cache and site stay as they are. Times depend on the machine, CPU
seconds less than seconds; bytes and requests do not. Peers render the same pages, with includes, values and figures put
in as this site's `before` does it: they draw no figure, set no formula and check no link.
"""

import argparse
import bisect
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support import browser

ROOT = Path(__file__).parents[1]
COPIED = (
    "builder",
    "docs",
    "snippets",
    "tests",
    "tools",  # what records were made with
    "requirements-libraries.txt",
    "mkdocs_adapter.py",
    "mkdocs.yml",
    "README.md",
    "README.ja.md",
    "LICENSE",
    "LICENSE-docs",
)
SLOWER = 4
# Tasks count from 50 ms on, so the slower the machine, the more of them count. What Material's empty page blocked where the bar
# was set, in milliseconds: pages are also compared at the slowness at which it blocks as long here.
BAR = 115
ROUNDS = 3
WATCH = """
window.shift = 0;
new PerformanceObserver((list) => list.getEntries().forEach((entry) => { if (!entry.hadRecentInput) shift += entry.value; }))
  .observe({ type: "layout-shift", buffered: true });
"""
# Material's own empty page with this site's settings: what a page cannot do without.
EMPTY = """
site_name: Empty
theme:
  name: material
  font: false
  features:
    [content.code.annotate, content.code.copy, navigation.footer, navigation.indexes, navigation.tabs, navigation.top, toc.follow]
  palette:
    - {media: "(prefers-color-scheme: light)", scheme: default, toggle: {icon: material/weather-night, name: dark}}
    - {media: "(prefers-color-scheme: dark)", scheme: slate, toggle: {icon: material/weather-sunny, name: light}}
plugins: [search]
"""


def table(heads, rows):
    """Print a Markdown table; the first column is text, the others are numbers."""
    print(f"| {' | '.join(heads)} |\n| --- |{' ---: |' * (len(heads) - 1)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    print()


# The build


def copied(folder):
    """Lay the working tree, without what was built from it, into `folder`."""
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, folder / name)


def timed(command, folder):
    """(seconds of CPU, seconds, what it said) of a command; raises SystemExit with that where it fails."""
    before, start = _cpu(), time.perf_counter()
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise SystemExit(f"{command}: it fails, so there is nothing to measure:\n{done.stdout}{done.stderr}")
    return _cpu() - before, time.perf_counter() - start, done.stdout + done.stderr


def _cpu():
    """Seconds of CPU that the processes which have ended took, theirs as well."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


BUILD = (sys.executable, "-m", "mkdocs", "build")
PYTHON = (sys.executable, "-c")
HEADS = ("build", "CPU, s", "wall, s", "pages", "CPU a page, ms")


def row(name, taken, number):
    """One line of the table, told at once."""
    cpu, seconds, _ = taken
    print(f"{name}: {cpu:.1f} s", file=sys.stderr)
    return name, f"{cpu:.1f}", f"{seconds:.1f}", number, f"{1000 * cpu / number:.0f}"


def number_of_pages(folder):
    return sum(1 for language in ("ja", "en") for _ in (folder / "docs" / language).rglob("*.md"))


def builds(folder, page, script, programs):
    """Print what a build takes from nothing, unchanged, after one page and after one script, and its peers; the site."""
    copied(folder)
    rows = []

    def measure(name):
        rows.append(row(name, timed(BUILD, folder), number_of_pages(folder)))

    measure("cold")
    for _ in range(ROUNDS):
        measure("warm, nothing changed")
    for language in ("ja", "en"):
        source = folder / "docs" / language / page
        source.write_text(source.read_text("utf-8").rstrip() + "\n\n2.13.0\n", encoding="utf-8")
    timed([sys.executable, "-m", "builder", "stamp", page.removesuffix(".md")], folder)
    measure(f"after one page, {page}")
    source = folder / "snippets" / script
    source.write_text(source.read_text("utf-8") + "\n# one line more\n", encoding="utf-8")
    measure(f"after one script, {script}")
    shutil.rmtree(folder / ".cache" / "pages")
    measure("all pages anew, no script")
    rows += peers(folder, programs)
    print(f"## Builds of both languages ({os.cpu_count()} cores)\n")
    table(HEADS, rows)
    return folder / "site"


# Every page as `before` leaves it, for renderers that know nothing of this site.
PLAIN = """
import sys
from pathlib import Path
from builder import order, project
from builder.pages import reader
from builder.pages.page import Page

for language in project.LANGUAGES:
    for name in project.page_files(language):
        page = Page(language, name.as_posix(), site="http://127.0.0.1:8000")
        page.meta = reader.front_matter(page.source)
        target = Path(sys.argv[1], language, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(order.before(reader.without_front_matter(page.source), page), encoding="utf-8")
"""
MATERIAL = """
site_name: peer
theme: {name: material, font: false}
plugins: [search]
markdown_extensions:
  [admonition, attr_list, def_list, md_in_html, tables, toc, pymdownx.details, pymdownx.highlight, pymdownx.superfences]
"""
SPHINX = """
extensions = ["myst_parser"]
root_doc = "en/index"
myst_enable_extensions = ["attrs_inline", "deflist"]
suppress_warnings = ["*"]
"""


def peers(folder, programs):
    """A row for each peer that is installed: MkDocs Material alone always is; Zensical and Sphinx with MyST in `programs`."""
    plain = folder / "peers"
    timed([*PYTHON, PLAIN, plain / "docs"], folder)
    (plain / "mkdocs.yml").write_text(MATERIAL, encoding="utf-8")
    (plain / "docs" / "conf.py").write_text(SPHINX, encoding="utf-8")
    commands = {
        "MkDocs Material alone": [*BUILD, "--quiet"],
        "Zensical": [programs / "zensical", "build", "--clean"],
        "Sphinx with MyST": [programs / "sphinx-build", "-q", "-E", "docs", "sphinx"],
    }
    for name, command in commands.items():
        if Path(command[0]).exists():
            yield row(name, timed(command, plain), number_of_pages(plain))
        else:
            print(f"{name}: not in {programs}", file=sys.stderr)


GENERATED = 100  # pairs
STAMP = "import sys; from builder.pages import lock; sys.exit(any([lock.main([name]) for name in sys.argv[1:]]))"


def many(folder, page):
    """Print what a page costs among many: `page` and its script copied 100 times, in both languages."""
    copied(folder)
    name, script = page.removesuffix(".md"), page.removesuffix(".md").replace("-", "_") + ".py"
    timed(BUILD, folder)
    rows = []

    def measure(what):
        rows.append(row(what, timed(BUILD, folder), number_of_pages(folder)))

    measure("warm, nothing changed")
    configuration = (folder / "mkdocs.yml").read_text("utf-8")
    journey = folder / "docs" / "journey.yml"
    (way,) = (line for line in journey.read_text("utf-8").splitlines() if line.startswith(f"{name}: "))
    for number in range(GENERATED):
        copy = f"{name}-{number}"
        with journey.open("a", encoding="utf-8") as ways:
            ways.write(way.replace(name, copy, 1) + "\n")
        copied_script = copy.replace("-", "_") + ".py"
        shutil.copy(folder / "snippets" / script, folder / "snippets" / copied_script)
        for language in ("ja", "en"):
            text = (folder / "docs" / language / page).read_text("utf-8").replace(script, copied_script)
            (folder / "docs" / language / f"{copy}.md").write_text(text, encoding="utf-8")
        configuration = configuration.replace(f"      - {page}\n", f"      - {page}\n      - {copy}.md\n")
    (folder / "mkdocs.yml").write_text(configuration, encoding="utf-8")
    names = [f"{name}-{number}" for number in range(GENERATED)]
    timed([*PYTHON, STAMP, *names], folder)
    measure(f"{2 * GENERATED} pages more, made for the first time")
    measure("warm, nothing changed")
    print(f"## Among many pages ({os.cpu_count()} cores)\n")
    table(HEADS, rows)


# The pages


def visited(chromium, base, address, folder, sent=(), first=None):
    """What one visit costs: bytes and requests counted at the server, and movement; and its Work."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    if first:
        browser.visit(page, f"{base}/{first}")
    page.add_init_script(WATCH)
    if sent:
        sent.clear()
    with browser.at_work(chromium, page, folder) as work:
        browser.visit(page, f"{base}/{address}")
        page.wait_for_timeout(1000)
    cost = {
        "bytes": sum(size for _, size, _ in sent),
        "requests": len(sent),
        "shift": page.evaluate("shift"),
        "styled": work.styled,
    }
    context.close()
    return cost, work


def empty_page(folder):
    """The folder of a site that is Material's empty page."""
    source = folder / "empty"
    (source / "docs").mkdir(parents=True)
    (source / "docs" / "index.md").write_text("# Empty\n", encoding="utf-8")
    (source / "mkdocs.yml").write_text(EMPTY, encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet"]
    subprocess.run(command, cwd=source, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    return source / "site"


def blocked(works, slower):
    """Milliseconds that the middle one of some visits blocks on a processor so many times slower."""
    return statistics.median(work.blocking(slower) for work in works)


def pages(site, chosen, folder):
    """Print what each page costs on a first visit and as the next page, beside Material's empty page in the same run."""
    addresses = chosen or sorted(
        path.parent.relative_to(site).as_posix() + "/" for path in site.glob("??/**/index.html")
    )
    rows, ratios, at_the_bar = [], [], []
    with browser.served(site) as server, browser.served(empty_page(folder)) as bare, browser.launched() as chromium:

        def middle(base, address, sent=()):
            costs, works = zip(*(visited(chromium, base, address, folder, sent) for _ in range(ROUNDS)), strict=True)
            return {name: statistics.median(cost[name] for cost in costs) for name in costs[0]}, works

        visited(chromium, server.base, addresses[0], folder)  # the first start of everything is nobody's cost
        for address in addresses:
            _, empty = middle(bare.base, "", bare.sent)  # beside each page: the machine's load changes
            cost, works = middle(server.base, address, server.sent)
            after, _ = visited(chromium, server.base, address, folder, server.sent, first=f"{address[:2]}/about/")
            blocking = blocked(works, SLOWER)
            ratios.append(blocking / blocked(empty, SLOWER))
            slower = bisect.bisect_left(range(1000), BAR, key=lambda hundredth: blocked(empty, hundredth / 100)) / 100
            at_the_bar.append(blocked(works, slower) / BAR)
            rows.append(
                (
                    address,
                    f"{cost['bytes'] / 1000:.1f}",
                    f"{after['bytes'] / 1000:.1f}",
                    int(cost["requests"]),
                    f"{cost['shift']:.3f}",
                    int(cost["styled"]),
                    f"{blocking:.0f}",
                    f"{ratios[-1]:.1f}",
                    f"{at_the_bar[-1]:.1f}",
                )
            )
            print(f"{address}: {cost['bytes'] / 1000:.1f} kB, blocking {ratios[-1]:.1f}", file=sys.stderr)
    print(
        f"## Pages (gzip; blocking: processor time of tasks beyond 50 ms, {SLOWER} times slower, middle of {ROUNDS})\n"
    )
    heads = (
        "page",
        "first visit, kB",
        "next page, kB",
        "requests",
        "layout shift",
        "styled",
        "blocking, ms",
        "to empty",
        f"where that is {BAR} ms",
    )
    table(heads, rows)
    for told, found in (("", ratios), (f", where that blocks {BAR} ms", at_the_bar)):
        print(f"to Material's empty page{told}: middle {statistics.median(found):.1f}, most {max(found):.1f}\n")


def recording():
    """Print what capture.py costs a model, beside attention that is written out."""
    from tools import bench_recording  # PyTorch, and a recipe, which no other part needs

    print(f"## Recording ({bench_recording.MAPS:.1f} MB of maps, a sixth of that for one layer's scores)\n")
    table(bench_recording.HEADS, bench_recording.rows())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("all", "builds", "many", "pages", "recording"), default="all")
    parser.add_argument("--site", type=Path, help="a site that is built already, for the pages")
    parser.add_argument(
        "--only", action="append", help="the address of a page, such as ja/layouts/rosetta/; may be repeated"
    )
    parser.add_argument("--page", default="layouts/rosetta.md", help="the page that is changed")
    parser.add_argument("--peers", type=Path, default=Path(sys.executable).parent, help="the folder of peers' programs")
    parser.add_argument("--script", default="layouts/rosetta.py", help="the script that is changed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        site = asked.site
        if asked.part in ("all", "builds"):
            built = builds(Path(folder, "builds"), asked.page, asked.script, asked.peers.absolute())
            site = site or built
        if asked.part in ("all", "many"):
            many(Path(folder, "many"), asked.page)
        if asked.part in ("all", "recording"):
            recording()
        if asked.part in ("all", "pages"):
            site = site or ROOT / "site"
            if not (site / "index.html").exists():
                raise SystemExit(f"there is no site in {site}: `make build` first, or name one with --site")
            pages(site, asked.only, Path(folder))


if __name__ == "__main__":
    main()
