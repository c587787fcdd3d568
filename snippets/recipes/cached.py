"""Keep what is dear to compute: call a function once, and read its result the next time.

    weights, losses = cached(train, "reverse", 0)

Where the environment variable ATTENTION_CACHE names a folder, results are kept there; elsewhere the function is simply
called. A result belongs to the function's source file and the files beside it that this one imports, to the arguments,
and to the version of PyTorch: change one of them and it is computed anew. Two processes that want the same result at the
same time compute it once. Needs PyTorch 2.6 or newer.
"""

import ast
import hashlib
import inspect
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

PLAIN = (bool, int, float, str, bytes, type(None))
LOST = "{}: what it returns is not kept, for it holds more than tensors, plain values, and lists, tuples and dicts of them"


# --8<-- [start:cached]
def cached(function: Callable, *args):
    """function(*args), computed once.

    args: plain values, or lists, tuples and dicts of them. Returns what
    torch.load(weights_only=True) can read: tensors, plain values, and
    lists, tuples and dicts of them; anything else is returned with a
    warning and not kept. The caller's random numbers go on as if
    nothing had been drawn, whether it was computed or read.
    Raises TypeError for an argument that has no lasting description.
    """
    key = described(args)
    source = inspect.getsourcefile(function)
    folder = os.environ.get("ATTENTION_CACHE")
    if not folder or not source or not Path(source).is_file():
        return called(function, args)
    digest = digest_of(function.__qualname__, key, Path(source))
    path = Path(folder) / f"{function.__name__}-{digest}.pt"
    with alone(path.with_suffix(".lock")):
        if path.exists():
            return torch.load(path, weights_only=True)
        made, part = called(function, args), path.with_suffix(".part")
        torch.save(made, part)
        try:
            read = torch.load(part, weights_only=True)
        except pickle.UnpicklingError:
            part.unlink()
            warnings.warn(LOST.format(function.__name__), stacklevel=2)
            return made
        part.replace(path)  # whole, or not at all
        return read
# --8<-- [end:cached]


def called(function, args):
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        return function(*args)


# --8<-- [start:digest_of]
def digest_of(name: str, key: str, source: Path) -> str:
    parts = [torch.__version__, name, key]
    for file in sorted(files_of(source), key=lambda file: file.name):
        parts += [file.name, file.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def files_of(source: Path) -> set[Path]:
    """A file, and what it imports from beside it or beside this one."""
    found, waiting = set(), [source.resolve()]
    here = Path(__file__).resolve().parent
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in imported(file):
            beside = [file.parent / f"{name}.py", here / f"{name}.py"]
            waiting += [path for path in beside if path.is_file()][:1]
    return found


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
# --8<-- [end:digest_of]


def described(value) -> str:
    """The same text for the same arguments, in every process."""
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({','.join(map(described, value))})"
    if isinstance(value, dict):
        return f"dict({','.join(f'{described(k)}:{described(v)}' for k, v in value.items())})"
    raise TypeError(f"args: expected plain values, lists, tuples and dicts, got {type(value).__name__}")


@contextmanager
def alone(path: Path):
    """Hold a lock that the system takes back if the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        else:
            while True:
                try:
                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                    break
                except OSError:
                    time.sleep(0.2)
            yield
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
