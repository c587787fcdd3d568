"""A reader's browser for the tests and the benchmark: Chromium, and a server that counts what it sends."""

import functools
import gzip
import http.server
import json
import os
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LANGUAGES = ("ja", "en")
ROOT = Path(__file__).parents[2]
AXE = Axe().axe_script
RULES = ["wcag2a", "wcag2aa", "best-practice"]
# What sticks out of the window, but for what scrolls inside a box of its own.
TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const cut = (e) => e !== document.body && (getComputedStyle(e).overflowX !== "visible" || cut(e.parentElement));
  const out = [...document.body.querySelectorAll("*")]
    .filter((e) => e.getBoundingClientRect().right > width + 0.5 && !cut(e.parentElement ?? document.body));
  return [`${document.documentElement.scrollWidth} px: ` + out.slice(-3).map((e) => e.outerHTML.slice(0, 120)).join(" | ")];
}"""
SHELL = "chromium-headless-shell"  # Chromium without windows: the same pages for half of the processor's time
ABSENT = f"no Chromium: `apt-get install {SHELL}`, or `.venv/bin/playwright install chromium`, or name one in CHROMIUM"
PACKED = ("text/", "application/javascript", "application/json", "image/svg+xml", "application/xml")


def executable():
    """The Chromium to use: the environment's, an installed one, or None for Playwright's own."""
    if named := os.environ.get("CHROMIUM"):
        return named
    return next(filter(None, map(shutil.which, (SHELL, "chromium", "google-chrome", "chromium-browser"))), None)


@contextmanager
def launched():
    """A running Chromium; raises playwright's Error where there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def launched_or_told():
    """A running Chromium for tests: where there is none, they fail in CI and are skipped elsewhere, saying how to get it."""
    from playwright.sync_api import Error

    running = launched()
    try:
        browser = running.__enter__()
    except Error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(ABSENT)
    try:
        yield browser
    finally:
        running.__exit__(None, None, None)


@functools.lru_cache(maxsize=512)
def _gzipped(file, stamp):
    return gzip.compress(Path(file).read_bytes(), 9, mtime=0)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files as a host like GitHub Pages sends them: gzip, a cache for ten minutes, the site's own 404."""

    protocol_version = "HTTP/1.1"
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".ipynb": "application/json"}

    def log_message(self, *_):
        pass

    def do_GET(self):
        address = urlsplit(self.path).path
        file = Path(self.translate_path(address))
        if file.is_dir() and not address.endswith("/"):
            self.send_response(301)
            self.send_header("Location", address + "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        file = file / "index.html" if file.is_dir() else file
        status = 200 if file.is_file() else 404
        file = file if status == 200 else Path(self.directory) / "404.html"
        kind = self.guess_type(file)
        packed = kind.startswith(PACKED)
        body = _gzipped(str(file), file.stat().st_mtime_ns) if packed else file.read_bytes()
        self.server.sent.append((address, len(body), status))
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if packed else kind)
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        with suppress(ConnectionError):  # the reader has gone on
            self.wfile.write(body)


@contextmanager
def served(folder):
    """Serve a built site on a free port; yields the server, with `base` (its address), `folder`, and `sent` [(path, bytes, status)]."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    server.sent, server.folder = [], Path(folder)
    server.base = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def until(page, expression, argument=None, seconds=20):
    """Wait until a JavaScript function gives something true, and return it; raises TimeoutError.

    Playwright's own wait_for_function evaluates text inside the page, which the site's policy forbids.
    """
    end = time.monotonic() + seconds
    while not (value := page.evaluate(expression, argument)):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {expression}")
        page.wait_for_timeout(30)
    return value


def visit(page, address):
    """Open an address and wait until it is loaded and asks for nothing more (a busy machine is idle before it is loaded)."""
    from playwright.sync_api import TimeoutError

    page.goto(address, wait_until="load", timeout=60_000)
    # Once in some hundred visits of a busy machine Playwright goes on waiting for a request that was answered long ago.
    with suppress(TimeoutError):
        page.wait_for_load_state("networkidle", timeout=10_000)
    page.wait_for_timeout(300)


def addresses():
    """Every page's address below the site, from the sources: nothing is built to collect tests."""
    found = ["", "404.html"]
    for language in LANGUAGES:
        folder = ROOT / "docs" / language
        for source in sorted(folder.rglob("*.md")):
            name = source.relative_to(folder).with_suffix("").as_posix()
            found.append(f"{language}/" if name == "index" else f"{language}/{name.removesuffix('/index')}/")
    return found


@dataclass
class Work:
    """What the main thread of a page did, counted by the thread's own clock.

    That clock stands still while other programs run: on a busy machine it tells what a stop watch does not.
    """

    tasks: list[float] = field(default_factory=list)  # milliseconds of the processor, one for each task
    styled: int = 0  # elements that were given their style, as often as they were

    def blocking(self, slower: int) -> float:
        """Milliseconds that an answer would wait on a processor so many times slower: what each task takes beyond 50."""
        return sum(max(0.0, slower * task - 50) for task in self.tasks)


@contextmanager
def at_work(chromium, page, folder, tasks=True):
    """Yields the Work of a page, which is known afterwards; folder: where the trace is kept meanwhile.

    tasks: also what each task took, which makes the page as much slower as all the rest of it
    """
    work, trace = Work(), Path(folder) / "trace.json"
    chromium.start_tracing(page=page, path=str(trace), categories=["devtools.timeline", *["toplevel"] * tasks])
    try:
        yield work
    finally:
        chromium.stop_tracing()
    told = json.loads(trace.read_text("utf-8"))["traceEvents"]
    whose = {
        (event["pid"], event["tid"])
        for event in told
        if event["name"] == "ParseHTML" and event["args"].get("beginData", {}).get("url") == page.url.partition("#")[0]
    }
    events = [event for event in told if event["ph"] == "X" and (event["pid"], event["tid"]) in whose]
    work.tasks = [event.get("tdur", 0) / 1000 for event in events if event["name"].endswith("RunTask")]
    work.styled = sum(event["args"].get("elementCount", 0) for event in events if event["name"] == "UpdateLayoutTree")


WATCH = """
window.violations = [];
window.shift = 0;
addEventListener("securitypolicyviolation", (e) => violations.push(`${e.violatedDirective}: ${e.blockedURI} ${e.sample}`));
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


class Reader:
    """A browser window that notes everything that goes wrong in it."""

    def __init__(self, chromium, base, **options):
        self.options = {
            "viewport": {"width": 1280, "height": 900}, "color_scheme": "light", "reduced_motion": "no-preference", **options
        }  # fmt: skip
        self.context = chromium.new_context(**self.options)
        self.page = self.context.new_page()
        self.base = base
        self.faults = []
        self.scripted = options.get("java_script_enabled", True)
        if self.scripted:
            self.page.add_init_script(WATCH)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._request)
        self.page.on("response", self._response)

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text} {message.location.get('url', '')}")

    def _request(self, request):
        host = urlsplit(request.url)
        if host.scheme not in ("data", "blob") and not request.url.startswith(self.base + "/"):
            self.faults.append(f"a request to another host: {request.url}")

    def _response(self, response):
        if response.status >= 400:
            self.faults.append(f"{response.status} for {response.url}")

    def usable(self):
        """Whether another test may have this window: it shows the one page of the site that it was opened for."""
        return self.context.pages == [self.page] and self.page.url.startswith(self.base)

    def renew(self):
        """As it was opened: an empty page, nothing remembered, the pointer in its corner. What was fetched stays in its cache."""
        if self.scripted:
            self.page.evaluate("localStorage.clear(); sessionStorage.clear()")
        self.page.goto("about:blank")
        self.page.set_viewport_size(self.options["viewport"])
        seen = {name: self.options[name] for name in ("color_scheme", "reduced_motion")}
        self.page.emulate_media(media="null", **seen)
        self.page.mouse.move(0, 0)
        self.faults = []

    def forgets(self):
        """From now on every visit is the first: nothing is taken from the browser's cache."""
        self.context.new_cdp_session(self.page).send("Network.setCacheDisabled", {"cacheDisabled": True})

    def open(self, address):
        self.page.goto(f"{self.base}/{address}")
        return self.whole()

    def whole(self):
        """The page with all of it laid out, also what waits until there is time or until it is seen."""
        if self.scripted:
            self.page.evaluate("document.documentElement.classList.remove('coming')")
        return self.page

    def noticed(self):
        """What has gone wrong since it was last asked."""
        faults = self.faults + [f"policy: {told}" for told in self.page.evaluate("window.violations ?? []")]
        self.faults = []
        return faults
