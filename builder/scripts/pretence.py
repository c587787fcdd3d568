"""What only looks like a claim or a result, told from a script's syntax tree before it runs.

`refuse(tree)` raises for a claim that cannot fail whatever is computed, and for a number that is typed where one is
shown. `demanded(tree)` tells which lines must have left a record when the script has run: a claim that was never reached,
or whose failure was swallowed, is no claim.
"""

import ast
import builtins
import copy
import itertools
import re

from builder.scripts import claims

ALWAYS_TRUE = (
    ast.Tuple, ast.List, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda,
    ast.JoinedStr, ast.Await, ast.Yield, ast.Starred,
)  # fmt: skip
COMPARES = re.compile("equal|close|same|match|agree|alike|identical", re.I)  # what a comparison of one's own is called
COPIES = {"clone", "detach", "contiguous", "cpu", "copy", "deepcopy"}  # the same values again
NEVER_NEGATIVE = {
    "len", "abs", "numel", "dim", "ndim", "norm", "count_nonzero", "square", "nbytes", "softmax", "exp", "sigmoid", "relu",
    "equal", "allclose", "isclose", "eq", "ne", "isnan",
}  # fmt: skip
# of what is never negative, these are not either
KEEP_THE_SIGN = {"max", "min", "amax", "amin", "sum", "mean", "median", "item", "float", "int", "sqrt", "double"}
COMPARED = {"eq", "ne", "equal", "allclose", "isclose", "dist", "sub"}  # calls that a claim may be made around


class Typed(Exception):
    """A result that was typed instead of computed: `line`, and a message."""

    def __init__(self, line, message):
        super().__init__(message)
        self.line = line


def refuse(tree: ast.Module) -> None:
    """Raise claims.Vacuous or Typed for the first thing that pretends."""
    constants = _constants(tree)
    imported = _imported(tree)
    for node in sorted((node for node in ast.walk(tree) if hasattr(node, "lineno")), key=lambda node: node.lineno):
        if isinstance(node, ast.Assert):
            for part in _parts(node.test):
                if why := _empty(part, constants, imported):
                    raise claims.Vacuous(node.lineno, why)
        elif isinstance(node, ast.Try) and claims.demands_error(node):
            for handler in node.handlers:
                if handler.type is None or _names(handler.type) & {"Exception", "BaseException"}:
                    raise claims.Vacuous(handler.lineno, "any error at all would do: name the class that is demanded")
                slips = _names(handler.type) & {kind.__name__ for kind in claims.SLIPS}
                if slips and isinstance(handler.type, ast.Tuple):
                    why = f"{slips.pop()}, among other classes, would be any slip of the pen: demand one"
                    raise claims.Vacuous(handler.lineno, why)
        elif isinstance(node, ast.Call):
            name = _name(node.func)
            if name == "assert_close" and (why := _same(_pair(node))):
                raise claims.Vacuous(node.lineno, why)
            plain = len(node.args) == 2 and not node.keywords and not isinstance(node.args[1], ast.Starred)
            if isinstance(node.func, ast.Name) and name == "show" and not plain:
                raise Typed(node.lineno, "write `show(name, value)`, so that what is shown can be seen here")
            if name == "show" and len(node.args) == 2 and _typed(node.args[1:], constants):
                raise Typed(node.lineno, "the value is typed in: `show` keeps what the script has computed")
            if name == "print" and _typed(node.args, constants) and any(map(_has_digit, node.args)):
                raise Typed(node.lineno, "the number is typed in: what is printed stands on the page as a result")


def demanded(tree: ast.Module) -> list[tuple[int, str | None]]:
    """[(line, kind or None)]: what must be recorded once the script has run; the line is that of the statement."""
    found, statement = [], {}
    for node in ast.walk(tree):  # outer statements come first, so that the innermost stays
        if isinstance(node, ast.stmt):
            statement.update({id(inner): node.lineno for inner in ast.walk(node)})
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            found.append((node.lineno, None))
        elif isinstance(node, ast.Call) and _name(node.func) == "assert_close":
            found.append((statement[id(node)], None))
        elif isinstance(node, ast.Try) and claims.demands_error(node):
            found.append((node.body[-1].lineno, "raises"))
    return sorted(set(found), key=lambda pair: pair[0])


# ---------------------------------------------------------------- claims


def _parts(test):
    return test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]


def _empty(test, constants, imported):
    """Why this test cannot fail, or None."""
    while isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test = test.operand
    if isinstance(test, ALWAYS_TRUE):
        return "what is asserted is a container or a piece of code, true or false whatever was computed"
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return "one half of an `or` may hide the other: make it one claim, or two"
    if isinstance(test, ast.IfExp):
        return "one half of an `if … else` may hide the other: make it two claims"
    names = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    if names <= {*constants, *vars(builtins)}:
        return "it compares constants with one another, and nothing that is computed"
    if why := next(filter(None, map(_nothing_against_itself, ast.walk(test))), None):
        return why
    if isinstance(test, ast.Compare):
        return _empty_comparison(test)
    if isinstance(test, ast.Call):
        name = _name(test.func)
        if name in ("equal", "allclose"):  # whose they are is seen when they run
            return None
        owner = (
            test.func.value.id
            if isinstance(test.func, ast.Attribute) and isinstance(test.func.value, ast.Name)
            else None
        )
        if isinstance(test.func, ast.Name) and COMPARES.search(name):
            return f"what {name}() compares is not seen here: use ==, torch.equal or torch.testing.assert_close"
        if owner in imported - {"torch"}:
            return f"{owner}.{name} is not torch's own: compare with torch.equal or torch.testing.assert_close"
    return None


def _nothing_against_itself(node):
    """Why an expression anywhere in a claim compares nothing: both its sides are one; None where they are not."""
    if isinstance(node, ast.Compare):
        return next(filter(None, map(_same, itertools.pairwise([node.left, *node.comparators]))), None)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        return _same((node.left, node.right))
    return _same(_pair(node)) if isinstance(node, ast.Call) and _name(node.func) in COMPARED else None


def _is_never_negative(node):
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return (_number(node.right) or 1) % 2 == 0
    name = _name(node.func if isinstance(node, ast.Call) else node)
    if isinstance(node, ast.Call) and name in KEEP_THE_SIGN:
        method = isinstance(node.func, ast.Attribute) and _name(node.func.value) != "torch"
        return all(map(_is_never_negative, [node.func.value] if method else node.args[:1] or [node.func]))
    return name in NEVER_NEGATIVE


def _empty_comparison(test):
    sides = [test.left, *test.comparators]
    for (left, right), operator in zip(itertools.pairwise(sides), test.ops, strict=True):
        low, high = (right, left) if isinstance(operator, ast.GtE | ast.Gt) else (left, right)
        strict = isinstance(operator, ast.Gt | ast.Lt)
        bound = _number(low)
        if (
            isinstance(operator, ast.GtE | ast.Gt | ast.LtE | ast.Lt)
            and bound is not None
            and (bound < 0 or (bound == 0 and not strict))
            and _is_never_negative(high)
        ):
            return f"{ast.unparse(high)} is never negative"
    return None


def _pair(call):
    """The two sides that a call compares: its first two arguments, or its owner and the first."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    sides = [*call.args, *(named[key] for key in ("actual", "input", "expected", "other") if key in named)]
    if len(sides) == 1 and isinstance(call.func, ast.Attribute):
        sides = [call.func.value, *sides]
    return tuple(sides[:2])


def _same(sides):
    if len(sides) < 2 or any(isinstance(side, ast.Starred) for side in sides):
        return None
    left, right = (ast.dump(_Plain().visit(copy.deepcopy(side))) for side in sides)
    return "both sides are the same expression, or a copy of it" if left == right else None


class _Plain(ast.NodeTransformer):
    """An expression without what leaves its values as they are: copies, + x, x * 1, x + 0; x * 0 is 0."""

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        return node.operand if isinstance(node.op, ast.UAdd) else node

    def visit_BinOp(self, node):
        self.generic_visit(node)
        left, right = _number(node.left), _number(node.right)
        if isinstance(node.op, ast.Mult) and 0 in (left, right):
            return ast.Constant(0)
        if isinstance(node.op, ast.Mult | ast.Div | ast.Pow) and right == 1:
            return node.left
        if isinstance(node.op, ast.Add | ast.Sub) and right == 0:
            return node.left
        if (isinstance(node.op, ast.Mult) and left == 1) or (isinstance(node.op, ast.Add) and left == 0):
            return node.right
        return node

    def visit_Call(self, node):
        self.generic_visit(node)
        if _name(node.func) not in COPIES:
            return node
        if len(node.args) == 1:
            return node.args[0]
        return node.func.value if isinstance(node.func, ast.Attribute) and not node.args else node


# ---------------------------------------------------------------- results


def _typed(values, constants):
    """Whether nothing in these expressions is computed: literals, and names of literal texts."""
    texts = {name for name, value in constants.items() if isinstance(value, str)}
    parts = [part for value in values for part in ast.walk(value)]
    if any(isinstance(part, ast.BinOp) and not isinstance(part.op, ast.Add) for part in parts):
        return False
    return bool(values) and {part.id for part in parts if isinstance(part, ast.Name)} <= vars(builtins).keys() | texts


def _has_digit(value):
    """Whether a literal holds a digit, the widths of its fields aside."""
    if isinstance(value, ast.Constant):
        return bool(re.search(r"\d", str(value.value)))
    if isinstance(value, ast.FormattedValue):
        return _has_digit(value.value)
    return any(map(_has_digit, ast.iter_child_nodes(value)))


# ---------------------------------------------------------------- names


def _constants(tree):
    """{name: value} of the names that are bound once in the whole script, to a literal."""
    bound = {}

    def bind(target, value):
        if isinstance(target, ast.Tuple | ast.List):
            several = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            for index, part in enumerate(target.elts):
                bind(part, value.elts[index] if several else None)
        elif isinstance(target, ast.Name):
            bound.setdefault(target.id, []).append(value)

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                bind(target, node.value)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
            bind(node.target, node.value)
        elif isinstance(node, ast.AugAssign | ast.For | ast.comprehension):
            bind(node.target, None)
        elif isinstance(node, ast.withitem) and node.optional_vars:
            bind(node.optional_vars, None)
        elif isinstance(node, ast.arg):
            bound.setdefault(node.arg, []).append(None)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name:
            bound.setdefault(node.name, []).append(None)
        elif isinstance(node, ast.alias):
            bound.setdefault(node.asname or node.name.partition(".")[0], []).append(None)
    return {
        name: _literal(values[0])
        for name, values in bound.items()
        if len(values) == 1 and values[0] is not None and _literal(values[0]) is not Ellipsis
    }


def _literal(node):
    """The value of a literal number, text or truth value; Ellipsis where it is none."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        node = node.operand
    return node.value if isinstance(node, ast.Constant) else Ellipsis


def _number(node):
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    value = _literal(node)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return -value if negative else value


def _imported(tree):
    """The names of modules that the script imports whole."""
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.Import))
    return {alias.asname or alias.name.partition(".")[0] for node in imports for alias in node.names}


def _name(node):
    return getattr(node, "attr", getattr(node, "id", ""))


def _names(node):
    return {_name(part) for part in ast.walk(node)} - {""}
