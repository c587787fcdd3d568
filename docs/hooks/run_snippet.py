"""Run scripts and keep what they printed, claimed, showed and drew. Works without MkDocs:

    python docs/hooks/run_snippet.py snippets/layouts/rosetta.py

prints what each section printed and each claim. The build calls it with `--batch FOLDER` and many scripts: then it writes
its records below FOLDER and tells its progress on standard output, one line of JSON a script.
"""

import os

# one thread: two scripts at once with two threads each on two cores take fifty times as long
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")

import argparse
import ast
import contextlib
import functools
import hashlib
import io
import json
import math
import multiprocessing
import platform
import re
import shutil
import sys
import tempfile
import time
import traceback
import types
from importlib import metadata
from multiprocessing.connection import wait
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH would leave it out

import claims
import pretence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SNIPPETS = (ROOT / "snippets").resolve()
MARKER = re.compile(r"^\s*# --8<-- \[(start|end):([\w-]+)\]\s*$")
LARGEST_FIGURE = 50_000  # numbers
PARTS = ("out", "figures", "values", "claims")
NOT_SOURCES = {".cache", ".git", ".venv", "__pycache__", "site"}  # folders of the project whose files are made


class Broken(Exception):
    """What is wrong with a script: `line` (0 for the whole file) and a message."""

    def __init__(self, line, message):
        super().__init__(message)
        self.line = line


# ---------------------------------------------------------------- sections


def sections(source):
    """Map each section's name to its first and last line (markers excluded).

    Raises Broken when a section is opened twice, inside another, closed without being open, or never closed.
    """
    found, opened, start = {}, None, 0
    for number, line in enumerate(source.splitlines(), 1):
        marker = MARKER.match(line)
        if not marker:
            if "--8<--" in line:
                raise Broken(number, f"this looks like a section marker and is none: {line.strip()}")
            continue
        edge, name = marker.groups()
        if edge == "start":
            if opened:
                raise Broken(
                    number,
                    f"section [{name}] starts inside section [{opened}], which line {start} opened and nothing closed",
                )
            if name in found:
                raise Broken(number, f"section [{name}] is named twice: its first stands at line {found[name][0] - 1}")
            opened, start = name, number
        else:
            if name != opened:
                raise Broken(
                    number,
                    f"[end:{name}] closes no section: "
                    + (f"open is [{opened}] of line {start}" if opened else "none is open"),
                )
            found[name], opened = (start + 1, number - 1), None
    if opened:
        raise Broken(start, f"section [{opened}] is never closed")
    return found


def section_at(found, line):
    """The name of the section that holds `line`, or None."""
    return next((name for name, (first, last) in found.items() if first <= line <= last), None)


# ---------------------------------------------------------------- one script


def run(path):
    """Run one script in this process; return its record as a JSON-able dict, `fault` telling what went wrong, if anything."""
    began = time.perf_counter()
    path = Path(path).resolve()
    record = {"outputs": {}, "claims": [], "values": {}, "figures": {}, "fault": None}
    opened = set()
    try:
        source = path.read_text(encoding="utf-8")
        found = sections(source)
        record["sections"] = {name: list(span) for name, span in found.items()}
        if path.parent != SNIPPETS / "recipes":
            before = set(sys.modules)
            _watch_files(opened)
            _execute(path, source, found, record)
            record["files"], record["packages"] = _dependencies(opened, before)
    except Broken as error:
        record["fault"] = {"line": error.line, "message": str(error)}
    except SyntaxError as error:
        record["fault"] = {"line": error.lineno or 0, "message": f"this is not Python: {error.msg}"}
    record["seconds"] = time.perf_counter() - began
    return record


def _execute(path, source, found, record, tree=None):
    import torch

    tree = tree or ast.parse(source, str(path))
    try:
        pretence.refuse(tree)
    except (claims.Vacuous, pretence.Typed) as error:
        raise Broken(error.line, f"{error}\n    {source.splitlines()[error.line - 1].strip()}") from None
    demanded = pretence.demanded(tree)
    for statement in tree.body:
        inside = {section_at(found, line) for line in (statement.lineno, statement.end_lineno)}
        if len(inside) > 1 or any(
            statement.lineno <= first <= last <= statement.end_lineno
            for first, last in found.values()
            if inside == {None}
        ):
            raise Broken(
                statement.lineno, "this statement stands across the edge of a section; a section holds whole statements"
            )
    recorder = claims.Recorder(path, source)
    outputs = {name: io.StringIO() for name in [*found, None]}
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=str(path), __claims__=recorder, show=_show(record))
    module.figure = _figure(record, path, recorder, module.__dict__)
    previous = sys.modules["__main__"]
    sys.modules["__main__"] = module
    sys.path.insert(0, str(SNIPPETS / "recipes"))
    torch.set_num_threads(1)
    try:
        with recorder.watching():
            for statement in claims.instrument(tree).body:
                with contextlib.redirect_stdout(outputs[section_at(found, statement.lineno)]):
                    exec(compile(ast.Module([statement], []), str(path), "exec"), module.__dict__)
    except claims.Vacuous as error:
        raise Broken(error.line, f"{error}\n    {recorder._text(error.line)}") from None
    except BaseException as error:
        raise _told(error, path, recorder) from error
    finally:
        sys.path.remove(str(SNIPPETS / "recipes"))
        sys.modules["__main__"] = previous
    for line, how in recorder.failed.items():
        raise Broken(line, f"the claim no longer holds, and its failure is swallowed: {how}\n    {recorder._text(line)}")
    made = {line for line, _ in recorder.records}
    for line, kind in demanded:
        if (line, kind) not in recorder.records and not (kind is None and line in made):
            why = "never reached, or not made with torch's own assert_close"
            raise Broken(line, f"this claim did not run, so it proves nothing: {why}\n    {recorder._text(line)}")
    if not recorder.records:
        record["no_claim"] = True
    record["outputs"] = {name: text.getvalue() for name, text in outputs.items() if name and text.getvalue()}
    record["claims"] = [
        {**claim, "section": section_at(found, claim["line"])} for _, claim in sorted(recorder.records.items())
    ]
    _check_guards(source, found, record["claims"])


def _check_guards(source, found, made):
    """A guard names one claim that stands between the sections; a shown claim is named by its section."""
    named = [(number, match[1]) for number, line in enumerate(source.splitlines(), 1) if (match := claims.GUARD.search(line))]
    for place, (line, name) in enumerate(named):
        if section_at(found, line):
            raise Broken(line, f"guard {name!r} stands in section [{section_at(found, line)}], whose name is enough")
        if name in found or name in [other for _, other in named[:place]]:
            raise Broken(line, f"the name {name!r} is taken: a guard has a name of its own")
        if name not in [claim["guard"] for claim in made]:
            raise Broken(line, f"guard {name!r} names no claim: put it behind an assert, an assert_close or what must raise")


def _told(error, path, recorder):
    """What went wrong in a script, as Broken: the claim with its difference, or the error with the script's own line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = frames[-1].lineno if frames else 0
    claim = getattr(error, "claim", None)
    if claim:
        where, how = claim[0] or line, claim[1]
        said = str(error).splitlines()[0] if str(error) else ""
        text = recorder._text(where)
        note = f"\n    {said}" if said and said != text and not said.startswith("Tensor-likes") else ""
        return Broken(where, f"the claim no longer holds: {how}\n    {text}{note}")
    what = "the claim no longer holds" if isinstance(error, AssertionError) else "the script raises"
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = "" if last.filename == str(path) else f"\n    in {Path(last.filename).name}:{last.lineno}"
    return Broken(line, f"{what}: {type(error).__name__}: {error}\n    {recorder._text(line) if line else ''}{place}")


def _show(record):
    def show(name, value):
        """Keep a string or number for `{{ name }}` in a sentence."""
        if not re.fullmatch(r"[a-z]\w*", name):
            raise ValueError(f"show: name must be a lower-case identifier, got {name!r}")
        if not isinstance(value, str | int | float):
            raise TypeError(f"show: value must be a string or a number, got {type(value).__name__}")
        if name in record["values"]:
            raise ValueError(f"show: {name!r} was shown before")
        record["values"][name] = str(value)

    return show


def _figure(record, path, recorder, names):
    def figure(name, kind, tensors, labels=None):
        """Keep tensors for a picture that a page draws with a ```figure fence; compare what its labels say of them."""
        if name in record["figures"]:
            raise ValueError(f"figure: {name!r} was drawn before")
        line = next(frame.lineno for frame in reversed(traceback.extract_stack()) if frame.filename == str(path))
        labels = _checked(name, tensors, labels or {}, recorder, names, line)
        kept = {key: _plain(key, tensor, shape_only=kind == "blocks") for key, tensor in tensors.items()}
        record["figures"][name] = {
            "kind": kind,
            "tensors": kept,
            "labels": json.loads(json.dumps(labels)),
            "line": line,
        }

    return figure


def _checked(figure, tensors, labels, recorder, names, line):
    """The labels of a figure without `of` and `gives`, after a claim for each block that says whose it is.

    A part of a matrix that is labelled as a head's or as one of Q, K, V, O carries `of`: the same matrix, come by another
    way, as it stands or transposed. Its line of code, run with the figure's tensors by name, gives `of` (or `gives`).
    """
    code, groups = labels.get("code", {}), labels.get("groups", {})
    scope = {**names, **{name.partition(".")[0]: _dotted(name, tensor) for name, tensor in tensors.items()}}
    for name, group in ((name, group) for name, some in groups.items() for group in some):
        text = group.get("text", "")
        place = f"figure {figure!r}: {text or 'a block'} of {name!r}"
        spans = [slice(*group.get(axis, (None, None))) for axis in ("rows", "columns")]
        part = tensors[name][tuple(spans[: tensors[name].ndim])]
        owned = group.get("head") is not None or group.get("role") in (*"qkvo",)
        if "of" in group:
            recorder.labelled(line, place, part, group["of"], turned=True)
        elif owned and part.shape != tensors[name].shape:
            raise ValueError(f"{place} says whose it is: give the same matrix, come by another way, as `of`")
        if text in code:
            if not {"of", "gives"} & set(group):
                raise ValueError(f"{place} has a line of code: say what it gives, as `of` or `gives`")
            made = eval(code[text], scope)
            recorder.labelled(line, f"{place}: {code[text]}", made, group.get("gives", group.get("of")), turned=False)
    bare = {name: [{k: v for k, v in group.items() if k not in ("of", "gives")} for group in some] for name, some in groups.items()}
    return {**labels, "groups": bare} if groups else labels


def _dotted(name, tensor):
    """A tensor so that code finds it by its name: `out_proj.weight` as an object with a weight."""
    rest = name.partition(".")[2]
    return types.SimpleNamespace(**{rest: _dotted(rest, tensor)}) if rest else tensor


def _plain(name, tensor, shape_only):
    import torch

    tensor = torch.as_tensor(tensor).detach()
    if tensor.numel() > LARGEST_FIGURE and not shape_only:
        raise ValueError(f"figure: tensor {name!r} has {tensor.numel()} numbers, at most {LARGEST_FIGURE} can be drawn")
    plain = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    return plain if shape_only else {**plain, "data": _rounded(tensor.tolist())}


def _rounded(value):
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


# ---------------------------------------------------------------- what an output depends on


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@functools.cache
def machine():
    """What decides the last digits besides versions: the processor, and what the environment lets PyTorch use of it."""
    told = {"vendor_id", "flags", "Features", "CPU implementer", "CPU part"}
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
        lines = [line for line in first.splitlines() if line.partition(":")[0].strip() in told]
    except OSError:  # not Linux
        lines = [platform.processor()]
    names = re.compile("(ATEN|MKL|DNNL|ONEDNN|OPENBLAS|BLIS|KMP|OMP|GOMP|TORCH|PYTORCH)_")
    lines += sorted(f"{name}={value}" for name, value in os.environ.items() if names.match(name))
    return hashlib.sha256("\n".join([platform.machine(), *lines]).encode()).hexdigest()[:16]


# where recipes keep what is dear to make, whatever the environment says: it would be believed
ARTIFACTS = ROOT / ".cache" / "artifacts" / machine()
os.environ["ATTENTION_CACHE"] = str(ARTIFACTS)


@functools.cache
def foundation():
    """What every output depends on besides its own files: the runner, the versions of Python, torch and numpy, the machine."""
    runner = b"".join((HERE / name).read_bytes() for name in ("claims.py", "pretence.py", "run_snippet.py"))
    versions = {name: version(name) for name in ("torch", "numpy")}
    return {
        "runner": hashlib.sha256(runner).hexdigest(), "python": sys.version, "machine": machine(), **versions,
    }  # fmt: skip


def version(distribution):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"


def _watch_files(opened):
    """Note every file of the project that the script opens: data is a dependency like an import."""

    def note(event, arguments):
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            name = os.path.realpath(os.fsdecode(arguments[0]))
            if _is_source(name):
                opened.add(name)

    sys.addaudithook(note)


def _is_source(name):
    """Whether a file is one that somebody wrote: below snippets/, or elsewhere in the project."""
    for folder in (SNIPPETS, ROOT):
        if name.startswith(f"{folder}{os.sep}"):
            inside = Path(name).relative_to(folder).parts
            return not NOT_SOURCES & set(inside) and not name.startswith(sys.prefix + os.sep)
    return False


def _dependencies(opened, before):
    files = {
        str(Path(module.__file__))
        for module in list(sys.modules.values())
        if str(getattr(module, "__file__", None) or "").startswith(str(SNIPPETS))
    }
    files = {
        Path(os.path.relpath(name, SNIPPETS)).as_posix(): digest(name)
        for name in sorted(files | opened)
        if Path(name).is_file()
    }
    fresh = (
        {name.partition(".")[0] for name in set(sys.modules) - before}
        - set(sys.stdlib_module_names)
        - {"torch", "numpy"}
    )
    owners = metadata.packages_distributions() if fresh else {}
    packages = {owner: version(owner) for name in sorted(fresh) for owner in sorted(set(owners.get(name, [])))}
    return files, packages


# ---------------------------------------------------------------- many scripts


def _to_file(path, result):
    sys.stdout.flush()
    os.dup2(2, 1)  # what C code prints belongs to nobody's output
    Path(result).write_text(json.dumps(run(path)), encoding="utf-8")


def batch(paths, jobs, fork, caller=None):
    """Run scripts side by side, each in a process of its own; yield (path, record) as they finish.

    caller: a file descriptor that can be read when the process that wants the records is gone; then everything ends.

    Processes are forked from this one after it has imported torch, which costs a tenth of importing it each time;
    without fork (Windows, macOS) each is a fresh process.
    """
    if fork:
        import torch.distributed.tensor  # noqa: F401  (the first assert_close would import it)
    context = multiprocessing.get_context("fork" if fork else "spawn")
    waiting, running = list(paths), {}
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < jobs:
                path = waiting.pop(0)
                result = Path(folder) / hashlib.sha256(str(path).encode()).hexdigest()
                process = context.Process(target=_to_file, args=(path, result))
                process.start()
                running[process.sentinel] = process, path, result
            ready = wait([*running, *([] if caller is None else [caller])])
            if caller in ready:
                for process, *_ in running.values():
                    process.terminate()
                sys.exit("The process that asked for these records is gone.")
            for sentinel in ready:
                process, path, result = running.pop(sentinel)
                process.join()
                if result.exists():
                    yield path, json.loads(result.read_text(encoding="utf-8"))
                else:
                    yield path, {"fault": {"line": 0, "message": f"its process died with exit code {process.exitcode}"}}


def can_fork():
    return sys.platform == "linux" and "ATTENTION_NO_FORK" not in os.environ


# ---------------------------------------------------------------- what is kept, and believed only when whole


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # scripts run by hand write, too
    part.write_text(text, encoding="utf-8", newline="\n")  # the bytes that the seal was made of
    part.replace(path)


def keep(folder, base, path, record):
    """Write the record of a script below `base` below `folder`: NAME.py.out for includes, NAME.{figures,values,claims,entry}.json."""
    blocks = "".join(
        f"# --8<-- [start:{name}]\n{text.rstrip()}\n# --8<-- [end:{name}]\n" for name, text in record["outputs"].items()
    )
    texts = {part: json.dumps(record[part], ensure_ascii=False, indent=1) for part in PARTS[1:]} | {"out": blocks}
    entry = {
        "script": digest(path),
        "foundation": foundation(),
        "files": record.get("files", {}),
        "packages": record.get("packages", {}),
        "seconds": round(record["seconds"], 3),
        "no_claim": record.get("no_claim", False),
        "parts": {part: seal(text) for part, text in texts.items()},
    }
    for part, text in texts.items():
        _write(record_path(Path(path).resolve(), base, folder, part), text)
    text = json.dumps({**entry, "seal": seal(entry)}, indent=1)
    _write(record_path(Path(path).resolve(), base, folder, "entry"), text)


def seal(kept):
    """A digest of a text, or of what can be written as JSON."""
    text = kept if isinstance(kept, str) else json.dumps(kept, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def record_path(script, base, folder, part):
    """Where `keep` puts a part of a script's record: `layouts/rosetta.py`, `claims` -> layouts/rosetta.claims.json."""
    stem = folder / Path(script).relative_to(base).with_suffix("")
    return stem.with_name(stem.name + (".py.out" if part == "out" else f".{part}.json"))


def is_current(script, base, folder, foundation):
    """Whether what is kept of `script` is whole, and was made by the same script, imports, data, runner and versions."""
    try:
        entry = json.loads(record_path(script, base, folder, "entry").read_text(encoding="utf-8"))
        return (
            entry.pop("seal") == seal(entry)
            and entry["foundation"] == foundation
            and entry["script"] == digest(script)
            and all(digest(SNIPPETS / name) == known for name, known in entry["files"].items())
            and all(version(name) == known for name, known in entry["packages"].items())
            and all(digest(record_path(script, base, folder, part)) == entry["parts"][part] for part in PARTS)
        )
    except (OSError, KeyError, ValueError, TypeError, AttributeError):
        return False


def believe_artifacts():
    """Remove each artifact that is not as it was when it was sealed: it is made anew."""
    known = _sealed()
    for path in ARTIFACTS.glob("*.pt"):
        if not path.is_file() or known.get(path.name) != digest(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def seal_artifacts(before):
    """Remember every artifact that was not there before: {name: digest}. One that was keeps the seal it has, or none."""
    if ARTIFACTS.is_dir():
        known = {name: seal for name, seal in _sealed().items() if (ARTIFACTS / name).exists()}
        known |= {path.name: digest(path) for path in ARTIFACTS.glob("*.pt") if path.name not in before}
        if known != _sealed():
            _write(ARTIFACTS / "seals.json", json.dumps({"known": known, "seal": seal(known)}, indent=1))


def _sealed():
    try:
        kept = json.loads((ARTIFACTS / "seals.json").read_text(encoding="utf-8"))
        return kept["known"] if kept["seal"] == seal(kept["known"]) else {}
    except (OSError, KeyError, ValueError, TypeError):
        return {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="+", type=Path)
    parser.add_argument(
        "--batch", type=Path, metavar="FOLDER", help="keep records below FOLDER and tell progress as JSON"
    )
    parser.add_argument(
        "--base",
        type=Path,
        default=SNIPPETS,
        metavar="FOLDER",
        help="the folder that the scripts' records are named from",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    failed, caller = False, None
    if arguments.batch:
        believe_artifacts()
        caller = 0 if sys.platform != "win32" else None
    before = {path.name for path in ARTIFACTS.glob("*.pt")}
    for path, record in batch(arguments.scripts, arguments.jobs, can_fork(), caller):
        fault = record["fault"]
        failed |= bool(fault)
        if arguments.batch:
            if not fault:
                keep(arguments.batch, arguments.base.resolve(), path, record)
            print(
                json.dumps({"script": str(path), "fault": fault, "no_claim": record.get("no_claim", False)}), flush=True
            )
        else:
            _print(path, record)
    seal_artifacts(before)
    return int(failed)


def _print(path, record):
    print(f"== {path}")
    for name, text in record.get("outputs", {}).items():
        print(f"-- {name}\n{text.rstrip()}")
    for claim in record.get("claims", []):
        error = "" if claim["error"] is None else f" greatest error {claim['error']:.2g}"
        print(f"claim {claim['line']}: {claim['kind']} x{claim['count']}{error}  {claim['text']}")
    for name, value in record.get("values", {}).items():
        print(f"value {name} = {value}")
    for name, data in record.get("figures", {}).items():
        print(
            f"figure {name}: {data['kind']} "
            + ", ".join(f"{key} {tuple(t['shape'])}" for key, t in data["tensors"].items())
        )
    if record.get("no_claim"):
        print(f"{path}: it has no claim")
    if record["fault"]:
        print(f"{path}:{record['fault']['line']}: {record['fault']['message']}")
    else:
        print(f"   {record['seconds']:.2f} s")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"{error.filename}: {(error.strerror or str(error)).lower()}; the records are written here")
