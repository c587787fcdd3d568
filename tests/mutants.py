"""How much of a change to the code the build would notice: `make mutants`, or `python tests/mutants.py layouts/rosetta`.

Changes one thing of a script at a time (an operator, a number, an index, a name, an argument), runs the script, and asks
what the build would ask: does a claim fail, does the script raise, or does the page show something else than when it was
last read? Prints what survives. A sample, always the same: `--all` tries every change.
"""

import argparse
import ast
import copy
import multiprocessing
import random
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "hooks"))

import project
import run_snippet
import shown

import snippets

OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add, ast.MatMult: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NAMES = {
    "max": "min", "min": "max", "amax": "amin", "amin": "amax", "sum": "mean", "mean": "sum", "argmax": "argmin",
    "median": "max", "ones": "zeros", "zeros": "ones", "tril": "triu", "triu": "tril", "softmax": "log_softmax", "exp": "log",
    "chunk": "tensor_split", "all": "any", "any": "all", "triu_indices": "tril_indices", "mT": "T", "std": "var", "log": "exp",
}  # fmt: skip


def changes(tree):
    """(line, what, tree) of every changed copy; claims and what only writes are left as they are."""
    nodes = list(_code(tree))
    for place, node in enumerate(nodes):
        for what, change in _of(node):
            changed = copy.deepcopy(tree)
            change(next(n for i, n in enumerate(_code(changed)) if i == place))
            yield node.lineno, what, ast.fix_missing_locations(changed)


def _code(node):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            continue
        if isinstance(child, ast.Call):
            name = getattr(child.func, "attr", getattr(child.func, "id", ""))
            if name in (
                "print",
                "assert_close",
                "manual_seed",
                "set_printoptions",
                "randn",
                "rand",
                "normal_",
                "randint",
            ):
                continue
        if isinstance(child, ast.expr):
            yield child
        yield from _code(child)


def _of(node):
    def setting(name, value):
        return lambda n: setattr(n, name, value)

    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield f"{node.value} -> {node.value + 1}", setting("value", node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is float:
        yield f"{node.value} -> {node.value * 1.1:.4g}", setting("value", node.value * 1.1 or 0.1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield f"{node.value} -> {not node.value}", setting("value", not node.value)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield (
            f"{type(node.op).__name__} -> {OPERATORS[type(node.op)].__name__}",
            setting("op", OPERATORS[type(node.op)]()),
        )
    elif isinstance(node, ast.BoolOp):
        yield "and <-> or", setting("op", OPERATORS[type(node.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        yield "comparison", setting("ops", [OPERATORS[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "minus dropped", setting("op", ast.UAdd())
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield f"{node.attr} -> {NAMES[node.attr]}", setting("attr", NAMES[node.attr])
    elif isinstance(node, ast.Call) and len(node.args) > 1 and ast.dump(node.args[0]) != ast.dump(node.args[1]):
        if getattr(node.func, "id", "") not in ("figure", "show", "range", "zip", "isinstance"):
            yield "two arguments swapped", lambda n: n.args.__setitem__(slice(0, 2), [n.args[1], n.args[0]])
    elif isinstance(node, ast.Call) and node.keywords:
        yield f"{node.keywords[-1].arg}= dropped", lambda n: n.keywords.pop()


def noticed(path, source, tree, digests):
    """What the build would say of a changed script: "claim", "page", or "" where nothing is noticed."""
    name = path.relative_to(project.SNIPPETS).as_posix()
    record = {"outputs": {}, "claims": [], "values": {}, "figures": {}}
    try:
        run_snippet._execute(path, source, run_snippet.sections(source), record, tree)
    except run_snippet.Broken:
        return "claim"
    mine = {part: record[part] for part in ("claims", "values", "figures")}
    kept_record, kept_printed = snippets.record, snippets.printed
    snippets.record = lambda script, part: mine[part] if script == name else kept_record(script, part)
    snippets.printed = lambda script, section: (
        record["outputs"].get(section, "").rstrip() if script == name else kept_printed(script, section)
    )
    return "page" if any(shown.digest(page, text) != digest for (page, text), digest in digests.items()) else ""


def showing(name):
    """{(page, its text): digest} of every page that shows something of a script and has a digest."""
    first = next(iter(project.LANGUAGES))
    found = {}
    for page in project.page_files(first):
        text = (project.DOCS / first / page).read_text("utf-8")
        if project.script_of(page) == name or f'"{name}' in text:
            digest = shown.digest(page.as_posix(), text)
            if digest:
                found[page.as_posix(), text] = digest
    return found


def _try(connection, path, source, tree, digests):
    import contextlib
    import io

    with contextlib.redirect_stderr(io.StringIO()):
        try:
            connection.send(noticed(path, source, tree, digests))
        except BaseException:
            connection.send("claim")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", help="layouts/rosetta; every script if none is named")
    parser.add_argument("--all", action="store_true", help="every change, not a sample")
    parser.add_argument("--sample", type=int, default=12, help="changes a script")
    parser.add_argument("--seconds", type=int, default=60, help="a changed script that runs longer counts as noticed")
    arguments = parser.parse_args()
    import torch.distributed.tensor  # noqa: F401  (each try is forked from here)

    names = arguments.scripts or [
        path.relative_to(project.SNIPPETS).with_suffix("").as_posix()
        for path in snippets.scripts()
        if "recipes" not in path.parts
    ]
    total, caught = 0, {"claim": 0, "page": 0}
    for name in names:
        path = project.SNIPPETS / f"{name.removesuffix('.py').replace('-', '_')}.py"
        source = path.read_text("utf-8")
        tried = list(changes(ast.parse(source, str(path))))
        if not arguments.all:
            tried = random.Random(name).sample(tried, min(arguments.sample, len(tried)))
        digests, survived = showing(path.relative_to(project.SNIPPETS).as_posix()), []
        for line, what, tree in sorted(tried, key=lambda change: change[:2]):
            mine, theirs = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.get_context("fork").Process(
                target=_try, args=(theirs, path, source, tree, digests)
            )
            process.start()
            theirs.close()
            try:
                result = mine.recv() if mine.poll(arguments.seconds) else "claim"
            except EOFError:
                result = "claim"
            process.kill()
            process.join()
            total += 1
            if result:
                caught[result] += 1
            else:
                survived.append(f"  {project.relative(path)}:{line}: {what}: {source.splitlines()[line - 1].strip()}")
        print(f"{name}: {len(tried) - len(survived)} of {len(tried)} noticed", *survived, sep="\n", flush=True)
    print(
        f"{sum(caught.values())} of {total} noticed: {caught['claim']} by a claim or an error, {caught['page']} by what the page shows"
    )


if __name__ == "__main__":
    main()
