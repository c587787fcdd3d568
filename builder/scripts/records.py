"""The one keeper of what scripts left: where it lies, what it depends on, and whether it may be believed.

Of a script below snippets/ there are, below .cache/snippets: NAME.py.out for includes, NAME.{figures,values,claims}.json,
and NAME.entry.json, which is written last and names the digests of the others. Nobody else knows these names.
"""

import functools
import hashlib
import json
import os
import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from builder import project
from builder.scripts import sections
from builder.scripts.claims import Claim

HERE = Path(__file__).resolve().parent
SNIPPETS = project.SNIPPETS.resolve()
PARTS = ("out", "figures", "values", "claims")


def digest(path: Path | str) -> str:
    """The SHA-256 of a file, or of the names of the Python files in a folder, in hexadecimal. Raises OSError where there is none."""
    path = Path(path)
    said = "\n".join(sorted(one.name for one in path.glob("*.py"))).encode() if path.is_dir() else path.read_bytes()
    return hashlib.sha256(said).hexdigest()


@functools.cache
def machine() -> str:
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
ARTIFACTS = project.CACHE / "artifacts" / machine()


@functools.cache
def foundation() -> dict[str, str]:
    """What every output depends on besides its own files: the runner, the versions of Python, torch and numpy, the machine."""
    runner = b"".join(
        (HERE / name).read_bytes() for name in ("claims.py", "pretence.py", "records.py", "runner.py", "sections.py")
    )
    versions = {name: version(name) for name in ("torch", "numpy")}
    return {
        "runner": hashlib.sha256(runner).hexdigest(), "python": sys.version, "machine": machine(), **versions,
    }  # fmt: skip


def version(distribution: str) -> str:
    """The version of an installed package; "absent" where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # scripts run by hand write, too
    part.write_text(text, encoding="utf-8", newline="\n")  # the bytes that the seal was made of
    part.replace(path)


def keep(folder: Path, base: Path, path: Path, record: dict) -> None:
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


def seal(kept: Any) -> str:
    """A digest of a text, or of what can be written as JSON."""
    text = kept if isinstance(kept, str) else json.dumps(kept, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def record_path(script: Path, base: Path, folder: Path, part: str) -> Path:
    """Where `keep` puts a part of a script's record: `layouts/rosetta.py`, `claims` -> layouts/rosetta.claims.json."""
    stem = folder / Path(script).relative_to(base).with_suffix("")
    return stem.with_name(stem.name + (".py.out" if part == "out" else f".{part}.json"))


def is_current(script: Path, base: Path, folder: Path, foundation: dict[str, str]) -> bool:
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


def believe_artifacts() -> None:
    """Remove each artifact that is not as it was when it was sealed: it is made anew."""
    known = _sealed()
    for path in ARTIFACTS.glob("*.pt"):
        if not path.is_file() or known.get(path.name) != digest(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def seal_artifacts(before: set[str]) -> None:
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


def scripts() -> list[Path]:
    """Every script below snippets/, recipes too, as paths."""
    return sorted(project.SNIPPETS.rglob("*.py"))


def record(script: str, part: str) -> Any:
    """A part of a script's record (entry, claims, values, figures), as JSON has it, or None where the script has none.

    Claims are a list of Claim.
    """
    path = _record_path(script, part)
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return _loaded(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=512)
def _loaded(path, changed, size):
    kept = json.loads(path.read_text(encoding="utf-8"))
    return [Claim.of(claim) for claim in kept] if path.name.endswith(".claims.json") else kept


def _record_path(script, part):
    return _path(script, part, project.SNIPPETS, project.RECORDS)


@functools.lru_cache(maxsize=1024)
def _path(script, part, base, folder):
    return record_path(base / script, base, folder, part)


def claims(script: str) -> list[Claim]:
    """The claims of a script, by line; none where it has not run."""
    return record(script, "claims") or []


def output_file(script: str, base: Path | None = None, folder: Path | None = None) -> Path:
    """Where that lies which a script below `base` printed, section by section, as a page includes it."""
    return record_path((base or project.SNIPPETS) / script, base or project.SNIPPETS, folder or project.RECORDS, "out")


def output(script: str, base: Path | None = None, folder: Path | None = None) -> str:
    """The text of that file. Raises OSError where the script has not run."""
    return output_file(script, base, folder).read_text(encoding="utf-8")


def printed(script: str, section: str | None) -> str:
    """What a section of a script printed when it last ran; "" where it printed nothing or has not run."""
    return sections.texts(output(script)).get(section, "") if output_file(script).exists() else ""


def state() -> dict[str, str | None]:
    """{script: the seal of its record}: when anything that a script left has changed, so has this."""
    names = [path.relative_to(project.SNIPPETS).as_posix() for path in scripts()]
    return {name: (record(name, "entry") or {}).get("seal") for name in names}


def all_claims() -> list[tuple[str, Claim]]:
    """Every claim of the site: [(script, claim), …] in the order of scripts and lines."""
    names = [path.relative_to(project.SNIPPETS).as_posix() for path in scripts()]
    return [(name, claim) for name in names for claim in claims(name)]


def fingerprint() -> str:
    """A digest of every file that scripts left."""
    files = sorted(path for path in project.RECORDS.rglob("*") if path.is_file()) if project.RECORDS.exists() else []
    return seal([[str(path), digest(path)] for path in files])


def forget(script: Path, base: Path, folder: Path) -> None:
    """Believe nothing any more of what is kept of a script."""
    record_path(script, base, folder, "entry").unlink(missing_ok=True)


def forget_gone(names: list[str]) -> None:
    """Remove every record of a script that is not among `names`."""
    kept = {_record_path(name, part) for name in names for part in ("entry", *PARTS)}
    for path in project.RECORDS.rglob("*") if project.RECORDS.exists() else []:
        if path.is_file() and path not in kept:
            path.unlink()
