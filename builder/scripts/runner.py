"""Run scripts and keep what they printed, claimed, showed and drew:

    python -m builder run snippets/layouts/rosetta.py

prints what each section printed and each claim. The build calls it with `--batch FOLDER` and many scripts: then it writes
its records below FOLDER and tells its progress on standard output, one line of JSON a script.
"""

import argparse
import ast
import contextlib
import gc
import hashlib
import io
import json
import math
import multiprocessing
import os
import re
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from importlib import metadata
from multiprocessing.connection import wait
from pathlib import Path

from builder import project
from builder.scripts import claims, pretence, records, sections
from builder.scripts.sections import Broken

SNIPPETS = records.SNIPPETS
os.environ["ATTENTION_CACHE"] = str(records.ARTIFACTS)  # whatever it says: it would be believed
LARGEST_FIGURE = 50_000  # numbers
MANY = 12  # scripts: where so many are run, it pays to import once what some of them need
# folders of the project whose files are made
NOT_SOURCES = {".cache", ".git", ".libraries", ".venv", "__pycache__", "site"}


# ---------------------------------------------------------------- one script


def run(path: Path | str) -> dict:
    """Run one script in this process; return its record as a JSON-able dict, `fault` telling what went wrong, if anything."""
    began = time.perf_counter()
    path = Path(path).resolve()
    record = {"outputs": {}, "claims": [], "values": {}, "figures": {}, "fault": None}
    opened = set()
    try:
        source = path.read_text(encoding="utf-8")
        found = sections.spans(source)
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
        inside = {sections.at(found, line) for line in (statement.lineno, statement.end_lineno)}
        if len(inside) > 1 or any(
            statement.lineno <= first <= last <= statement.end_lineno
            for first, last in found.values()
            if inside == {None}
        ):
            raise Broken(
                statement.lineno, "this statement stands across the edge of a section; a section holds whole statements"
            )
    _check_names(tree, found)
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
                with contextlib.redirect_stdout(outputs[sections.at(found, statement.lineno)]):
                    exec(compile(ast.Module([statement], []), str(path), "exec"), module.__dict__)
    except claims.Vacuous as error:
        raise Broken(error.line, f"{error}\n    {recorder._text(error.line)}") from None
    except BaseException as error:
        raise _told(error, path, recorder) from error
    finally:
        sys.path.remove(str(SNIPPETS / "recipes"))
        sys.modules["__main__"] = previous
    for line, how in recorder.failed.items():
        raise Broken(
            line, f"the claim no longer holds, and its failure is swallowed: {how}\n    {recorder._text(line)}"
        )
    made = {line for line, _ in recorder.records}
    for line, kind in demanded:
        if (line, kind) not in recorder.records and not (kind is None and line in made):
            why = "never reached, or not made with torch's own assert_close"
            raise Broken(line, f"this claim did not run, so it proves nothing: {why}\n    {recorder._text(line)}")
    if not recorder.records:
        record["no_claim"] = True
    record["outputs"] = {name: text.getvalue() for name, text in outputs.items() if name and text.getvalue()}
    made = [recorder.records[key] for key in sorted(recorder.records)]
    _check_guards(source, found, [claim.guard for claim in made])
    record["claims"] = [asdict(replace(claim, section=sections.at(found, claim.line))) for claim in made]


def _check_names(tree, found):
    """A section reads no name that was last bound between the sections: pasted one after another, it would read another."""
    bound = {}
    for statement in tree.body:
        parts = list(ast.walk(statement))
        names = [part for part in parts if isinstance(part, ast.Name)]
        own = {name.id for name in names if isinstance(name.ctx, ast.Store)} | {
            p.arg for p in parts if isinstance(p, ast.arg)
        }
        if sections.at(found, statement.lineno):
            for name in names:
                if name.id in bound and name.id not in own:
                    message = (
                        f"{name.id!r} is bound in line {bound[name.id]}, between the sections, where no page shows it"
                    )
                    raise Broken(name.lineno, message)
            bound = {name: line for name, line in bound.items() if name not in _bound_by(statement)}
        else:
            bound |= dict.fromkeys(_bound_by(statement), statement.lineno)


def _bound_by(node):
    """The names that a statement binds for those after it; what a function or a comprehension binds stays inside."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return set()
    if isinstance(node, ast.alias):
        return {node.asname or node.name.partition(".")[0]}
    own = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
    return own.union(*map(_bound_by, ast.iter_child_nodes(node)))


def _check_guards(source, found, guards):
    """A guard names one claim that stands between the sections; a shown claim is named by its section."""
    named = [
        (number, match[1]) for number, line in enumerate(source.splitlines(), 1) if (match := claims.GUARD.search(line))
    ]
    for place, (line, name) in enumerate(named):
        if sections.at(found, line):
            raise Broken(line, f"guard {name!r} stands in section [{sections.at(found, line)}], whose name is enough")
        if name in found or name in [other for _, other in named[:place]]:
            raise Broken(line, f"the name {name!r} is taken: a guard has a name of its own")
        if name not in guards:
            raise Broken(
                line, f"guard {name!r} names no claim: put it behind an assert, an assert_close or what must raise"
            )


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
    bare = {
        name: [{k: v for k, v in group.items() if k not in ("of", "gives")} for group in some]
        for name, some in groups.items()
    }
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


def _watch_files(opened):
    """Note every file of the project that the script opens, and every folder that it looks through: data is a dependency.

    Not os.listdir, by which Python itself looks through the folders that it imports from.
    """

    def note(event, arguments):
        if event in ("open", "os.scandir") and isinstance(arguments[0], str | bytes | os.PathLike):
            name = os.path.realpath(os.fsdecode(arguments[0]))
            if _is_source(name):
                opened.add(name)

    sys.addaudithook(note)


def _is_source(name):
    """Whether a file is one that somebody wrote: below snippets/, or elsewhere in the project."""
    for folder in (SNIPPETS, project.ROOT.resolve()):
        if name.startswith(f"{folder}{os.sep}"):
            inside = Path(name).relative_to(folder).parts
            return not NOT_SOURCES & set(inside) and not name.startswith(sys.prefix + os.sep)
    return False


def _dependencies(opened, before):
    ours = {
        name: str(Path(module.__file__))
        for name, module in list(sys.modules.items())
        if str(getattr(module, "__file__", None) or "").startswith(str(SNIPPETS))
    }
    files = {
        Path(os.path.relpath(name, SNIPPETS)).as_posix(): records.digest(name)
        for name in sorted({*ours.values()} | opened)
        if Path(name).exists()
    }
    fresh = (
        {name.partition(".")[0] for name in sys.modules.keys() - before - ours.keys()}
        - set(sys.stdlib_module_names)
        - {"torch", "numpy"}
    )
    owners = metadata.packages_distributions() if fresh else {}  # half of what an ordinary script takes
    packages = {owner: records.version(owner) for name in sorted(fresh) for owner in sorted(set(owners.get(name, [])))}
    return files, packages


# ---------------------------------------------------------------- many scripts


def _to_file(path, result):
    sys.stdout.flush()
    os.dup2(2, 1)  # what C code prints belongs to nobody's output
    Path(result).write_text(json.dumps(run(path)), encoding="utf-8")


def batch(paths: Iterable[Path], jobs: int, fork: bool, caller: int | None = None) -> Iterator[tuple[Path, dict]]:
    """Run scripts side by side, each in a process of its own; yield (path, record) as they finish.

    caller: a file descriptor that can be read when the process that wants the records is gone; then everything ends.

    Processes are forked from this one after it has imported torch, which costs a tenth of importing it each time;
    without fork (Windows, macOS) each is a fresh process.
    """
    waiting, running = list(paths), {}
    if fork:
        import torch.distributed.tensor  # (the first assert_close would import it)
    if fork and len(waiting) > MANY:
        import torch._dynamo  # noqa: F401  (so would the first optimizer, and one script in four has one)
    gc.freeze()  # what is imported by now is no garbage
    context = multiprocessing.get_context("fork" if fork else "spawn")
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


def can_fork() -> bool:
    """Whether a script can run in a copy of this process, which has imported torch."""
    return sys.platform == "linux" and "ATTENTION_NO_FORK" not in os.environ


def main(arguments: list[str] | None = None) -> int:
    """Run the scripts that are named on the command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="builder run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    arguments = parser.parse_args(arguments)
    try:
        return _run_all(arguments)
    except OSError as error:
        sys.exit(f"{error.filename}: {(error.strerror or str(error)).lower()}; the records are written here")


def _run_all(arguments):
    failed, caller = False, None
    if arguments.batch:
        records.believe_artifacts()
        caller = 0 if sys.platform != "win32" else None
    before = {path.name for path in records.ARTIFACTS.glob("*.pt")}
    for path, record in batch(arguments.scripts, arguments.jobs, can_fork(), caller):
        fault = record["fault"]
        failed |= bool(fault)
        if arguments.batch:
            if not fault:
                records.keep(arguments.batch, arguments.base.resolve(), path, record)
            print(
                json.dumps({"script": str(path), "fault": fault, "no_claim": record.get("no_claim", False)}), flush=True
            )
        else:
            _print(path, record)
    records.seal_artifacts(before)
    return int(failed)


def _print(path, record):
    print(f"== {path}")
    for name, text in record.get("outputs", {}).items():
        print(f"-- {name}\n{text.rstrip()}")
    for claim in map(claims.Claim.of, record.get("claims", [])):
        error = "" if claim.error is None else f" greatest error {claim.error:.2g}"
        print(f"claim {claim.line}: {claim.kind} x{claim.count}{error}  {claim.text}")
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
    sys.exit(main())
