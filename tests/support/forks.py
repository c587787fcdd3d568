"""A process that has imported some modules and has done nothing else: what would start Python anew is done in a fork of it.

Importing torch, or MkDocs and its plugins, takes longer than what most tests do with them. A fork begins where a fresh
process stands after its imports; it gets its own folder, environment and streams, as a fresh process would.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).parent
OURS = ("builder", "small_project", "small_runner")  # modules of this project that a fork may have from its parent


class Forks:
    """The process that is forked, started at once, and ended with this one; it imports when the first fork is asked for."""

    def __init__(self, modules, **environment):
        self.address = str(Path(tempfile.mkdtemp()) / "socket")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.address)
            listening.listen(100)
            code = f"import forks; forks.serve({listening.fileno()}, {modules!r})"
            paths = [str(HERE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.PIPE,
                pass_fds=[listening.fileno()],
            )


class Fork:
    """act(*given), "module:name", in a fork of the process at `address`: as much of subprocess.Popen as a build uses."""

    def __init__(self, address, act, given, cwd, env, stdin=None, stdout=None, stderr=None):
        self.stdin = self.stdout = self.returncode = None
        with contextlib.ExitStack() as theirs:
            streams = []
            for place, stream in enumerate((stdin, stdout, stderr)):
                if stream == subprocess.PIPE:
                    ends = os.pipe()
                    ours, their = ends if place else ends[::-1]
                    theirs.callback(os.close, their)
                    setattr(self, ("stdin", "stdout")[place], open(ours, "r" if place else "w", encoding="utf-8"))  # noqa: SIM115
                    streams.append(their)
                elif stream == subprocess.STDOUT:
                    streams.append(streams[1])
                else:
                    streams.append(place if stream is None else stream.fileno())
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
            told = {"act": act, "given": [*map(str, given)], "cwd": str(cwd), "env": dict(env)}
            socket.send_fds(self.socket, [b"."], streams)
            self.answers = self.socket.makefile("rw", encoding="utf-8")
            print(json.dumps(told), file=self.answers, flush=True)
            self.pid = int(self.answers.readline())

    def wait(self):
        if self.returncode is None:
            self.returncode = int(self.answers.readline())
            self.answers.close()
            self.socket.close()
        return self.returncode

    def terminate(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for stream in filter(None, (self.stdin, self.stdout)):
            stream.close()
        self.wait()


def serve(listening, modules):
    """In the process that is forked: fork for each order, the first time with these modules imported, until standard input ends."""
    sys.path.remove(str(HERE))
    listening = socket.socket(fileno=listening)
    waiting = selectors.DefaultSelector()
    waiting.register(0, selectors.EVENT_READ)
    waiting.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fd == 0:
                return
            if key.data is None:
                asking, _ = listening.accept()
                _, streams, _, _ = socket.recv_fds(asking, 1, 3)
                answers = asking.makefile("rw", encoding="utf-8")
                order = json.loads(answers.readline())
                if modules:
                    _import(modules)
                pid = os.fork()
                if not pid:
                    waiting.close()
                    listening.close()
                    answers.close()
                    asking.close()
                    _obey(order, streams)
                for stream in streams:
                    os.close(stream)
                print(pid, file=answers, flush=True)
                waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, answers, asking))
            else:
                pid, answers, asking = key.data
                waiting.unregister(key.fd)
                os.close(key.fd)
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(OSError):  # nobody waits for it any more
                    print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
                    answers.close()
                asking.close()


def anew(act, folder, *given):
    """In the fork: act(folder, *given) with the build that lies in `folder`, imported as a fresh process would import it."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:0] = [folder, str(HERE)]
    module, _, name = act.partition(":")
    act = getattr(importlib.import_module(module), name)
    for here in (HERE, HERE.parents[1]):  # from now on the folder's alone
        sys.path.remove(str(here))
    return act(folder, *given)


def _import(modules):
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]
    for name in modules:
        importlib.import_module(name)
    sys.path.remove(str(HERE))
    modules.clear()
    gc.freeze()  # a fork need not look for garbage among it


def _obey(order, streams):
    status = 1
    try:
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
        for stream in streams:
            if stream > 2:
                os.close(stream)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(open(place, "wb", 0, closefd=False), encoding="utf-8", write_through=True)  # noqa: SIM115
            for place in (1, 2)
        )
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        module, _, name = order["act"].partition(":")
        status = getattr(importlib.import_module(module), name)(*order["given"])
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            if isinstance(status, str):
                print(status, file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(1 if isinstance(status, str) else status or 0)
