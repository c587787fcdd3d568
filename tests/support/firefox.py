"""Firefox for the tests, as it is installed: a small client of WebDriver BiDi, which it speaks without a driver.

Playwright drives only a Firefox of its own making; here it is the reader's.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

ABSENT = "no Firefox: `apt-get install firefox-esr`, or name one in FIREFOX"
PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.w3c_touch_events.enabled": 1,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
    "ui.prefersReducedMotion": 1,
}
KEYS = {
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
}


def executable():
    """The Firefox to use: the environment's, an installed one, or None."""
    if named := os.environ.get("FIREFOX"):
        return named
    return next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)


class Firefox:
    """One window of a running Firefox; what its log says is in `noticed()`."""

    def __init__(self, socket):
        self.socket, self.sent, self.entries = socket, 0, []
        self.send("session.new", capabilities={})
        self.send("session.subscribe", events=["log.entryAdded"])
        self.context = self.send("browsingContext.create", type="tab")["context"]  # the first tab never has the focus

    def send(self, method, **parameters):
        """Send one command and wait for its result; raises RuntimeError with what Firefox has against it."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": parameters}))
        while True:
            told = json.loads(self.socket.recv(timeout=60))
            if told.get("method") == "log.entryAdded":
                self.entries.append(told["params"])
            if told.get("id") == self.sent:
                if told["type"] == "error":
                    raise RuntimeError(f"{method}: {told['error']}: {told['message']}")
                return told["result"]

    def open(self, address, width=1280):
        self.resize(width)
        self.send("browsingContext.navigate", context=self.context, url=address, wait="complete")

    def resize(self, width, height=900):
        self.send("browsingContext.setViewport", context=self.context, viewport={"width": width, "height": height})

    def run(self, function, *arguments):
        """What a JavaScript function gives for arguments that JSON can write."""
        call = f"async (text) => JSON.stringify((await ({function})(...JSON.parse(text))) ?? null)"
        done = self.send(
            "script.callFunction",
            functionDeclaration=call,
            arguments=[{"type": "string", "value": json.dumps(arguments)}],
            target={"context": self.context},
            awaitPromise=True,
        )
        if done["type"] == "exception":
            raise RuntimeError(done["exceptionDetails"]["text"])
        return json.loads(done["result"]["value"])

    def until(self, function, *arguments):
        """Ask a function until it gives something true, and return that; raises RuntimeError after ten seconds.

        Asked anew each time: a promise that waits in the page has once been left without an answer.
        """
        asked = f"async (...given) => {{ const value = await ({function})(...given); return value ? [value] : null; }}"
        for _ in range(300):
            if found := self.run(asked, *arguments):
                return found[0]
            time.sleep(0.033)
        raise RuntimeError(f"not within 10 s: {function}")

    def middle(self, selector, index=0):
        """Bring an element to the middle of the window; (x, y) of its own middle."""
        return self.run(
            """(selector, index) => {
              const element = document.querySelectorAll(selector)[index];
              element.scrollIntoView({ block: "center", behavior: "instant" });
              const { left, top, width, height } = element.getBoundingClientRect();
              return [left + width / 2, top + height / 2];
            }""",
            selector,
            index,
        )

    def pointer(self, *actions, kind="mouse"):
        """Pointer actions: (x, y) moves there, "down" and "up" press and lift."""
        steps = [
            {"type": f"pointer{one.title()}", "button": 0}
            if isinstance(one, str)
            else {"type": "pointerMove", "x": round(one[0]), "y": round(one[1])}
            for one in actions
        ]
        source = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}
        self.send("input.performActions", context=self.context, actions=[source])

    def click(self, selector, index=0):
        self.pointer(self.middle(selector, index), "down", "up")

    def press(self, *keys):
        values = [KEYS.get(key, key) for key in keys]
        steps = [{"type": kind, "value": value} for value in values for kind in ("keyDown", "keyUp")]
        self.send(
            "input.performActions", context=self.context, actions=[{"type": "key", "id": "keys", "actions": steps}]
        )

    def noticed(self):
        """Errors and warnings of the log since it was last asked."""
        told = [entry["text"] for entry in self.entries if entry["level"] in ("error", "warn")]
        self.entries = []
        return told


@contextmanager
def launched():
    """A running Firefox with a profile of its own; raises FileNotFoundError where there is none."""
    if not executable():
        raise FileNotFoundError(ABSENT)
    with tempfile.TemporaryDirectory() as profile:
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
        (Path(profile) / "user.js").write_text("\n".join(lines))
        command = [executable(), "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
        said = Path(profile) / "said"
        with said.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            with connect(f"{_address(process, said)}/session", max_size=None) as socket:
                yield Firefox(socket)
        finally:
            process.terminate()
            process.wait()


def _address(process, said, seconds=60):
    """Where Firefox listens, from what it says; raises RuntimeError with that where it does not come up."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if found := re.search(r"BiDi listening on (ws://\S+)", said.read_text()):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"Firefox did not come up: {said.read_text()}")


@contextmanager
def launched_or_told():
    """A running Firefox for tests: where there is none, they fail in CI and are skipped elsewhere, saying how to get it."""
    if not executable():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(ABSENT)
    with launched() as running:
        yield running
