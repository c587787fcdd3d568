"""How much of a change to the code the build would notice: `make mutants`, or `python -m tools.mutants layouts/rosetta`.

Changes one thing of a script at a time (an operator, a number, an index, a name, an argument), runs the script, and asks
what the build would ask: does a claim fail, does the script raise, or does the page show something else than when it was
last read? Prints what survives. A sample, always the same: `--all` tries every change.

A change that cannot matter is not counted: two arguments whose order says nothing, and a dimension counted from the other
end that is the same one in every call.
"""

import argparse
import ast
import builtins
import copy
import multiprocessing
import random
from pathlib import Path

from builder import project
from builder.pages import shown
from builder.scripts import claims, records, runner, sections

ROOT = Path(__file__).parents[1]


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
SYMMETRIC = {
    "equal", "allclose", "isclose", "eq", "ne", "maximum", "minimum", "logical_and", "logical_or", "cosine_similarity",
}  # fmt: skip
COUNT_DIMENSIONS = {
    "softmax", "log_softmax", "sum", "mean", "std", "var", "norm", "amax", "amin", "max", "min", "argmax", "argmin", "median",
    "quantile", "all", "any", "prod", "cumsum", "logsumexp", "cat", "stack", "transpose", "unflatten", "flatten", "unsqueeze",
    "squeeze", "size", "sort", "topk", "gather", "chunk", "split", "unbind", "diff", "flip", "select", "narrow", "movedim",
}  # fmt: skip


class FromFront(int):
    """A dimension that was counted from the end, `-k`, counted from the front instead, `k`."""


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
        number = getattr(node.operand, "value", None)
        front = type(number) is int and ast.Name(f"from_front_{number}", ast.Load())
        yield "minus dropped", (lambda n: _become(n, front)) if front else setting("op", ast.UAdd())
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield f"{node.attr} -> {NAMES[node.attr]}", setting("attr", NAMES[node.attr])
    elif isinstance(node, ast.Call) and len(node.args) > 1 and ast.dump(node.args[0]) != ast.dump(node.args[1]):
        name = getattr(node.func, "id", "")
        method = getattr(node.func, "attr", name)
        alike = name in ("max", "min") or method in SYMMETRIC or (method == "transpose" and len(node.args) == 2)
        if not alike and name not in ("figure", "show", "range", "zip", "isinstance"):
            yield "two arguments swapped", lambda n: n.args.__setitem__(slice(0, 2), [n.args[1], n.args[0]])
    elif isinstance(node, ast.Call) and node.keywords:
        yield f"{node.keywords[-1].arg}= dropped", lambda n: n.keywords.pop()


def _become(node, other):
    """Make one node of a tree another."""
    node.__class__, fields = type(other), vars(other)
    node.__dict__.update(fields)


def same_dimension():
    """A mode for torch whose `same` is True when each FromFront that a call was given names the dimension that -k names."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Watch(TorchFunctionMode):
        same = None

        def __torch_function__(self, function, kinds, arguments=(), keywords=None):
            given = [*arguments, *(keywords or {}).values()]
            name = getattr(function, "__name__", "")
            for number in (part for part in given if isinstance(part, FromFront)):
                first = given[0][0] if isinstance(given[0], list | tuple) else given[0]
                count = first.ndim + (name in ("stack", "unsqueeze")) if isinstance(first, torch.Tensor) else 0
                self.same = self.same is not False and name in COUNT_DIMENSIONS and 2 * number == count
            return function(*arguments, **(keywords or {}))

    return Watch()


def noticed(path, source, tree, digests):
    """What the build would say of a changed script: "claim", "page", or "" where nothing is noticed, "same" if nothing could be."""
    name = path.relative_to(project.SNIPPETS).as_posix()
    record = {"outputs": {}, "claims": [], "values": {}, "figures": {}}
    watch = same_dimension()
    try:
        with watch:
            runner._execute(path, source, sections.spans(source), record, tree)
    except sections.Broken:
        return "claim"
    mine = {part: record[part] for part in ("values", "figures")}
    mine["claims"] = [claims.Claim.of(claim) for claim in record["claims"]]
    kept_record, kept_printed = records.record, records.printed
    records.record = lambda script, part: mine[part] if script == name else kept_record(script, part)
    records.printed = lambda script, section: (
        record["outputs"].get(section, "").rstrip() if script == name else kept_printed(script, section)
    )
    page = any(shown.digest(page, text) != digest for (page, text), digest in digests.items())
    return "page" if page else "same" if watch.same else ""


def showing(name):
    """{(page, its text): digest} of every page that shows something of a script."""
    first = next(iter(project.LANGUAGES))
    found = {}
    for page in project.page_files(first):
        text = (project.DOCS / first / page).read_text("utf-8")
        if project.script_of(page) == name or f'"{name}' in text:
            found[page.as_posix(), text] = shown.digest(page.as_posix(), text)
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
        for path in records.scripts()
        if "recipes" not in path.parts
    ]
    vars(builtins).update({f"from_front_{number}": FromFront(number) for number in range(1, 10)})
    caught = {"claim": 0, "page": 0, "": 0, "same": 0}
    for name in names:
        path = project.SNIPPETS / f"{name.removesuffix('.py').replace('-', '_')}.py"
        source = path.read_text("utf-8")
        tried = list(changes(ast.parse(source, str(path))))
        if not arguments.all:
            tried = random.Random(name).sample(tried, min(arguments.sample, len(tried)))
        digests, survived, before = showing(path.relative_to(project.SNIPPETS).as_posix()), [], dict(caught)
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
            caught[result] += 1
            if not result:
                survived.append(f"  {project.relative(path)}:{line}: {what}: {source.splitlines()[line - 1].strip()}")
        counted = len(tried) - caught["same"] + before["same"]
        print(f"{name}: {counted - len(survived)} of {counted} noticed", *survived, sep="\n", flush=True)
    by_claim, by_page, nothing, same = caught.values()
    seen = f"{by_claim} by a claim or an error, {by_page} by what the page shows"
    print(f"{by_claim + by_page} of {by_claim + by_page + nothing} noticed: {seen}; {same} more could not matter")


if __name__ == "__main__":
    main()
