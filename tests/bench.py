#!/usr/bin/env python3
"""What the site costs: times of the build, and each page's bytes, requests, movement and blocking time, as tables.

    make bench                      everything (some minutes)
    .venv/bin/python tests/bench.py pages --site site     the pages of a site that is built already
    .venv/bin/python tests/bench.py builds                the builds only

Builds are made in a copy of the working tree, whose .cache and site stay as they are. Times depend on the machine and
on what else runs on it; bytes and requests do not.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import browser

ROOT = Path(__file__).parents[1]
COPIED = ("docs", "snippets", "tests", "mkdocs.yml", "LICENSE", "LICENSE-docs")
SLOWER = 4
ROUNDS = 3
WATCH = """
window.cost = { shift: 0, blocking: 0 };
const watch = (type, add) => new PerformanceObserver((list) => list.getEntries().forEach(add)).observe({ type, buffered: true });
watch("layout-shift", (entry) => { if (!entry.hadRecentInput) cost.shift += entry.value; });
watch("longtask", (entry) => { cost.blocking += Math.max(0, entry.duration - 50); });
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
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, folder / name)


def timed(folder):
    """Seconds that one build takes, and how many scripts it ran; raises SystemExit with what it said where it fails."""
    before = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build"],
        cwd=folder,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    seconds = time.perf_counter() - before
    said = done.stdout + done.stderr
    if done.returncode:
        raise SystemExit(f"the site does not build, so there is nothing to measure:\n{said}")
    return seconds, sum("INFO    -  script " in line for line in said.splitlines())


def builds(folder, page, script):
    """Print how long a build takes from nothing, unchanged, after one page and after one script; returns the site."""
    copied(folder)
    rows = []

    def measure(name):
        seconds, scripts = timed(folder)
        rows.append((name, f"{seconds:.1f}", scripts))
        print(f"{name}: {seconds:.1f} s", file=sys.stderr)

    measure("cold")
    measure("warm, nothing changed")
    for language in ("ja", "en"):
        source = folder / "docs" / language / page
        source.write_text(source.read_text("utf-8").rstrip() + "\n\n2.13.0\n", encoding="utf-8")
    stamp = [sys.executable, "docs/hooks/pages.py", "stamp", page.removesuffix(".md")]
    subprocess.run(stamp, cwd=folder, check=True, capture_output=True)
    measure(f"after one page, {page}")
    source = folder / "snippets" / script
    source.write_text(source.read_text("utf-8") + "\n# one line more\n", encoding="utf-8")
    measure(f"after one script, {script}")
    print(f"## Builds of both languages ({os.cpu_count()} cores)\n")
    table(("build", "seconds", "scripts run"), rows)
    return folder / "site"


# The pages


def visited(chromium, server, address, first=None):
    """What one visit costs: bytes and requests counted at the server, movement, and blocking time on a slow machine."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    if first:
        browser.visit(page, f"{server.base}/{first}")
    page.add_init_script(WATCH)
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    server.sent.clear()
    browser.visit(page, f"{server.base}/{address}")
    cost = page.evaluate("cost") | {"bytes": sum(size for _, size, _ in server.sent), "requests": len(server.sent)}
    context.close()
    return cost


def pages(site, chosen):
    """Print what each page costs on a first visit and after the home page."""
    addresses = chosen or sorted(path.parent.relative_to(site).as_posix() + "/" for path in site.glob("??/**/index.html"))
    rows = []
    with browser.served(site) as server, browser.launched() as chromium:
        visited(chromium, server, addresses[0])  # the first start of everything is nobody's cost
        for address in addresses:
            visits = [visited(chromium, server, address) for _ in range(ROUNDS)]
            after = visited(chromium, server, address, first=f"{address[:2]}/about/")
            middle = {name: statistics.median(visit[name] for visit in visits) for name in visits[0]}
            rows.append(
                (
                    address,
                    f"{middle['bytes'] / 1000:.1f}",
                    f"{after['bytes'] / 1000:.1f}",
                    int(middle["requests"]),
                    f"{middle['shift']:.3f}",
                    f"{middle['blocking']:.0f}",
                )
            )
            print(f"{address}: {middle['bytes'] / 1000:.1f} kB", file=sys.stderr)
    print(f"## Pages (gzip; blocking time with the CPU slowed {SLOWER} times, middle of {ROUNDS})\n")
    table(("page", "first visit, kB", "next page, kB", "requests", "layout shift", "blocking, ms"), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("all", "builds", "pages"), default="all")
    parser.add_argument("--site", type=Path, help="a site that is built already, for the pages")
    parser.add_argument("--only", action="append", help="the address of a page, such as ja/layouts/rosetta/; may be repeated")
    parser.add_argument("--page", default="layouts/rosetta.md", help="the page that is changed")
    parser.add_argument("--script", default="layouts/rosetta.py", help="the script that is changed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        site = asked.site
        if asked.part != "pages":
            built = builds(Path(folder), asked.page, asked.script)
            site = site or built
        if asked.part != "builds":
            site = site or ROOT / "site"
            if not (site / "index.html").exists():
                raise SystemExit(f"there is no site in {site}: `make build` first, or name one with --site")
            pages(site, asked.only)


if __name__ == "__main__":
    main()
