"""The process that builds another language than the first: started, waited for and ended by the first one.

It gets its order on standard input: which language, into which folder, whether under serve. Nothing in the environment, no
flag and no file says so, and what it writes becomes a site only after the first process has checked both languages. When
the first process is gone, its end of standard input closes, and the second ends as well.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path

from builder import project
from builder.project import Fault, Stopped


class Second:
    """The running process, as the first one sees it."""

    def __init__(self, program: Path, language: str, order: dict):
        """Start `program`, which calls `obey`, and hand it `order`, to build `language`."""
        self.language = language
        told = {
            **order,
            "language": self.language,
            "serving": project.state.serving,
            "soft_faults": [asdict(fault) for fault in project.soft_faults],
        }
        self._output = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  (closed when the process has ended)
        self._process = subprocess.Popen(
            [sys.executable, str(program)],
            stdin=subprocess.PIPE, stdout=self._output, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", env=project.environment(),
        )  # fmt: skip
        with contextlib.suppress(BrokenPipeError):  # it died at once: what it said is told when it is waited for
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()

    def wait(self) -> None:
        """Until it has ended; raises Stopped with what it said where it did not build."""
        self._process.wait()
        self._hang_up()
        self._output.seek(0)
        text = self._output.read().strip()
        self._output.close()
        if self._process.returncode:
            lines = [line.removeprefix("ERROR   -  ").rstrip() for line in text.splitlines()]
            lines = [line for line in lines if line and not line.startswith(("Aborted", "Error building page"))]
            raise Stopped("\n".join(lines) or f"the {project.LANGUAGES[self.language]} site did not build")
        if text:
            project.log.warning(text)

    def end(self) -> None:
        """At once, whatever it does."""
        self._process.terminate()
        self._process.wait()
        self._hang_up()
        self._output.close()

    def _hang_up(self):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()


def obey() -> dict:
    """In the second process: take the order, which is returned, and end when the first process is gone."""
    try:
        order = json.loads(sys.stdin.readline())
    except ValueError:
        sys.exit("This is a part of the build, which starts it with an order on standard input: run `mkdocs build`.")
    project.IS_CHILD, project.LANG = True, order["language"]
    project.state.serving = order["serving"]
    project.state.handed = tuple(Fault(**fault) for fault in order["soft_faults"])
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    return order


def _end_with_the_first():
    sys.stdin.read()  # until the other end is closed, which its death does too
    os._exit(1)
