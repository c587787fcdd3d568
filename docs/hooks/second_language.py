"""The process that builds the second language. languages.py starts it, and hands it an order on standard input.

Which language, into which folder, and whether under serve: the order alone says so, nothing in the environment, no flag
and no file. What is written here becomes a site only after the process that gave the order has checked both languages;
when that process is gone, this one ends.
"""

import json
import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH would leave it out

import project
from mkdocs.__main__ import cli


def _end_with_the_first():
    sys.stdin.read()  # until the other end is closed, which its death does too
    os._exit(1)


def main():
    try:
        order = json.loads(sys.stdin.readline())
    except ValueError:
        sys.exit("This is a part of the build, which starts it with an order on standard input: run `mkdocs build`.")
    project.IS_CHILD, project.LANG = True, order["language"]
    project.state.serving = order["serving"]
    project.state.handed = tuple(project.Fault(**fault) for fault in order["soft_faults"])
    os.environ["SITE_URL"] = order["site_url"]
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    options = ["--no-strict", "--config-file", order["config_file"], "--site-dir", order["building"]]
    cli(["--quiet", "build", *options], prog_name="mkdocs")


if __name__ == "__main__":
    main()
