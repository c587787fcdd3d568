"""`mkdocs serve`: both languages from one server, rebuilt on a change, the last good site up while something is broken."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from small_project import ROOT

PATIENCE = 90  # seconds; a rebuild takes two or three


class Server:
    def __init__(self, small):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.said = ""
        command = [sys.executable, "-m", "mkdocs", "serve", "--dev-addr", f"127.0.0.1:{self.port}"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, cwd=small.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            self.said += re.sub(r"\x1b\[[0-9;]*m", "", line)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""

    def until(self, holds):
        """Wait until `holds()`; fail with what the server said."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if holds():
                return
            time.sleep(0.2)
        pytest.fail(f"waited in vain; the server said:\n{self.said}")


@pytest.fixture
def server(small):
    running = Server(small)
    running.until(lambda: "small-site" in running.get("/ja/"))
    yield running
    running.process.terminate()
    running.process.wait(10)


def test_serve(server, small):
    assert "Each row sums to one" in server.get("/en/")
    assert 'href="/ja/"' in server.get("/")
    assert "There is no such page" in server.get("/nowhere/")
    assert "Content-Security-Policy" not in server.get("/ja/"), "MkDocs' reload script is inline"

    # a page changes, in one language: it is shown, with a banner that the pair was not reread
    small.replace("docs/en/index.md", "Each row sums", "Every row sums")
    server.until(lambda: "Every row sums" in server.get("/en/"))
    assert re.findall("Changed: (.*)\n", server.said)[-1] == "English"
    assert "build-faults" in server.get("/en/")
    assert "make stamp PAGE=index" in server.get("/en/")

    # a heading has no id: a warning, so that writing is possible, on a practice page as well
    small.replace("docs/en/practice/try-it.md", "## Answer { #answer }", "## Answer and more")
    server.until(lambda: 'id="answer-and-more"' in server.get("/en/practice/try-it/"))
    assert "`## Answer and more` has no id" in server.get("/en/practice/try-it/")

    # a script changes: its page shows what it prints now
    small.replace("snippets/index.py", "{tuple((x @ w).shape)}", "{tuple((x @ w).shape)} and more")
    server.until(lambda: "and more" in server.get("/ja/"))

    # a claim breaks: it is told, and the last good site stays up, in both languages
    small.replace("snippets/index.py", "by_columns)\n", "by_columns + 1)\n")
    server.until(lambda: "The last good site stays up" in server.said)
    assert "the claim no longer holds" in server.said
    assert "Traceback" not in server.said
    assert "and more" in server.get("/ja/")
    assert "Every row sums" in server.get("/en/")

    for page in ("/ja/", "/en/", "/en/practice/try-it/"):  # it is shown wherever the writer looks
        server.until(lambda page=page: server.get(page).count("greatest difference 1 at") == 1)

    # it is mended
    small.replace("snippets/index.py", "by_columns + 1)\n", "by_columns)\n")
    small.replace("snippets/index.py", "and more", "and much more")
    server.until(lambda: "and much more" in server.get("/ja/"))
    assert "build-stopped" not in server.get("/ja/") + server.get("/en/")

    # a hook changes: one process would obey it and the other would not
    small.replace("builder/finished/lean.py", "import", "# changed\nimport")
    told = "builder/finished/lean.py: this part of the build has changed since `mkdocs serve` began: restart it"
    server.until(lambda: told in server.said)
    assert "and much more" in server.get("/en/") + server.get("/ja/")
    small.replace("docs/words.yml", "languages:", "# changed\nlanguages:")
    server.until(lambda: told.replace("builder/finished/lean.py", "docs/words.yml") in server.said)


def test_a_first_build_that_fails_ends_serve(small):
    small.replace("snippets/index.py", "by_columns)\n", "by_columns + 1)\n")
    server = Server(small)
    assert server.process.wait(PATIENCE) == 1
    server.until(lambda: "the claim no longer holds" in server.said)


def test_a_busy_port_gets_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "builder", "port", str(port)], cwd=ROOT, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert done.stderr == f"Port {port} is taken by another program. Take another one: PORT={port + 1} make serve\n"
