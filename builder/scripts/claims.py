"""Claims: the lines of a script that compare two computations, recorded while the script runs.

`instrument(tree)` rewrites every `assert`, and every `try` that demands an error, of a script's syntax tree into a call of
a `Recorder`, which evaluates it, keeps what it found, and refuses a claim that could not have failed. The recorder also
stands in for `torch.testing.assert_close` while the script runs, so that a call inside a recipe counts for the script's line.
What cannot fail whatever is computed is refused before, by `pretence`.
"""

import ast
import contextlib
import itertools
import math
import operator
import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

COMPARISONS = {
    "Eq": operator.eq, "NotEq": operator.ne, "Lt": operator.lt, "LtE": operator.le, "Gt": operator.gt, "GtE": operator.ge,
    "Is": operator.is_, "IsNot": operator.is_not,
    "In": lambda a, b: a in b, "NotIn": lambda a, b: a not in b,
}  # fmt: skip
NEGATED = {
    "Eq": "NotEq",
    "NotEq": "Eq",
    "Lt": "GtE",
    "LtE": "Gt",
    "Gt": "LtE",
    "GtE": "Lt",
    "Is": "IsNot",
    "IsNot": "Is",
    "In": "NotIn",
    "NotIn": "In",
}
SYMBOLS = {
    "Eq": "==", "NotEq": "!=", "Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">=",
    "Is": "is", "IsNot": "is not", "In": "in", "NotIn": "not in",
}  # fmt: skip
SLIPS = (NameError, AttributeError, SyntaxError, ImportError)  # what a slip of the pen raises
FARTHEST = 1000  # how many times a value a typed bound of 1 or more may be


GUARD = re.compile(r"\s*# guard: (\w+)\s*$")  # the name of a claim that stands between the shown sections


@dataclass(frozen=True)
class Claim:
    """A line of a script that was checked while it ran; what a loop repeats is one claim.

    line       its line in the script; text: the statement, on one line
    kind       equal, exact, differs, bound or raises
    section    the shown section that holds it; None between the sections, where `guard` may name it
    count      how often it was checked
    shapes     of the tensors that were compared, each once, at most six; dtypes: theirs, each once: float64
    error      the greatest absolute difference, of kind differs the smallest of those; None where there is none
    tolerance  (rtol, atol), the loosest; None where it has none
    sides      what was compared last, or the name of the error, each in a few characters
    """

    line: int
    kind: str
    text: str
    section: str | None = None
    guard: str | None = None
    count: int = 0
    shapes: tuple[tuple[int, ...], ...] = ()
    dtypes: tuple[str, ...] = ()
    error: float | None = None
    tolerance: tuple[float, float] | None = None
    sides: tuple[str, ...] = ()

    @classmethod
    def of(cls, stored: dict) -> "Claim":
        """The claim that was written as JSON."""
        return cls(**{name: _frozen(value) for name, value in stored.items()})


def _frozen(value):
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class Vacuous(Exception):
    """A claim that cannot fail: `line` in the script, and why."""

    def __init__(self, line, why):
        super().__init__(f"this claim cannot fail: {why}")
        self.line = line


# ---------------------------------------------------------------- rewriting


def instrument(tree: ast.Module) -> ast.Module:
    """Rewrite the claims of a syntax tree into calls of `__claims__`, in place; return the tree."""
    return ast.fix_missing_locations(_Rewriter().visit(tree))


def _call(name, line, *arguments):
    function = ast.Attribute(ast.Name("__claims__", ast.Load()), name, ast.Load())
    return ast.Call(function, [ast.Constant(line), *arguments], [])


class _Rewriter(ast.NodeTransformer):
    def visit_Assert(self, node):
        parts = (
            node.test.values if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And) else [node.test]
        )
        message = ast.Lambda(ast.arguments([], [], None, [], [], None, []), node.msg or ast.Constant(None))
        return [ast.copy_location(ast.Expr(self._claim(node.lineno, part, message)), node) for part in parts]

    def _claim(self, line, test, message, negated=False):
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return self._claim(line, test.operand, message, not negated)
        if isinstance(test, ast.Compare) and not (negated and len(test.ops) > 1):
            sides = [test.left, *test.comparators]
            names = [type(op).__name__ for op in test.ops]
            names = [NEGATED[name] for name in names] if negated else names
            operators = ast.List([ast.Constant(name) for name in names], ast.Load())
            typed = ast.Constant(
                tuple(not any(isinstance(part, ast.Name) for part in ast.walk(side)) for side in sides)
            )
            return _call("compare", line, message, operators, ast.List(sides, ast.Load()), typed)
        function = test.func if isinstance(test, ast.Call) else None
        if isinstance(function, ast.Attribute | ast.Name) and getattr(
            function, "attr", getattr(function, "id", "")
        ) in ("equal", "allclose"):
            keywords = ast.Call(ast.Name("dict", ast.Load()), [], test.keywords)
            return _call(
                "call", line, message, ast.Constant(negated), function, ast.List(test.args, ast.Load()), keywords
            )
        if isinstance(function, ast.Name) and function.id in ("all", "any") and test.args:
            test.args[0] = _call("some", line, test.args[0])
        elif isinstance(function, ast.Attribute) and function.attr in ("all", "any"):
            if getattr(function.value, "id", "") == "torch" and test.args:  # torch.all(x), as x.all()
                test.args[0] = _call("some", line, test.args[0])
            else:
                function.value = _call("some", line, function.value)
        return _call("truth", line, message, ast.Constant(negated), test)

    def visit_Try(self, node):
        self.generic_visit(node)
        if demands_error(node):
            for handler in node.handlers:
                named = ast.Constant(ast.unparse(handler.type) if handler.type else "")
                call = _call("raised", node.body[-1].lineno, named)
                handler.body.insert(0, ast.copy_location(ast.Expr(call), handler))
        return node


def demands_error(node: ast.Try) -> bool:
    """Whether a `try` claims that its body raises: without an error it would end in an AssertionError."""
    last = node.orelse[-1] if node.orelse else None
    return isinstance(last, ast.Raise) and "AssertionError" in ast.dump(last)


# ---------------------------------------------------------------- recording


class Recorder:
    """What a script claimed. `records` maps (line, kind) to a Claim; calls in a loop are folded with a count."""

    def __init__(self, path, source):
        import torch

        self.path = str(path)
        self.lines = source.splitlines()
        self.records = {}
        self.failed = {}  # line: how, of claims whose failure nobody has demanded
        self.torchs = torch.equal, torch.allclose
        self.judges = _judges()
        statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
        self.raising = {node.lineno for node in statements if isinstance(node, ast.Raise)}
        self.spans = sorted(((node.lineno, node.end_lineno) for node in statements), key=lambda span: span[1] - span[0])

    @contextlib.contextmanager
    def watching(self) -> "Iterator[Recorder]":
        """Stand in for torch.testing.assert_close while the script runs."""
        import torch

        self.assert_close = torch.testing.assert_close
        torch.testing.assert_close = self._assert_close
        try:
            yield self
        finally:
            torch.testing.assert_close = self.assert_close

    # -- the calls that instrument() writes into the script

    def raised(self, line: int, named: str) -> None:
        """The body of a `try` raised what it should, and is caught: `named` is how its handler names the class."""
        error = sys.exc_info()[1]
        if isinstance(error, SLIPS) and not any(kind.__name__ in named for kind in type(error).__mro__[:-3]):
            raise Vacuous(line, f"{type(error).__name__} would be any slip of the pen: {error}")
        trace = error.__traceback__
        while trace.tb_next:
            trace = trace.tb_next
        if trace.tb_frame.f_code.co_filename == self.path and trace.tb_lineno in self.raising:
            raise Vacuous(line, f"the script raises the {type(error).__name__} itself, in line {trace.tb_lineno}")
        self.failed.pop(getattr(error, "claim", (None,))[0], None)
        self._keep(line, "raises", told=[type(error).__name__])

    def some(self, line: int, values: Any) -> Any:
        """What all() or any() is asked of: a verdict on nothing is refused."""
        import torch

        if not isinstance(values, torch.Tensor):
            values = list(values)
        if not (values.numel() if isinstance(values, torch.Tensor) else values):
            raise Vacuous(line, "there is nothing to judge")
        return values

    def truth(self, line: int, message: Callable[[], Any], negated: bool, value: Any) -> None:
        """`assert value`, or `assert not value` where negated; `message` gives what the assert says when it fails."""
        import torch

        if bool(value) == negated:
            self._fail(line, message(), "it is false")
        plain = isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", str(torch.bool))
        if not plain and not isinstance(vars(type(value)).get("__bool__"), types.FunctionType):
            raise Vacuous(line, f"a {type(value).__name__} is no truth value: compare it with something")
        self._keep(line, "bound", value)

    def compare(
        self, line: int, message: Callable[[], Any], names: list[str], sides: list, typed: tuple[bool, ...]
    ) -> None:
        """`assert a < b < c`: names are those of the operators in ast, `typed` tells which sides hold no name."""
        import torch

        for index, (name, (left, right)) in enumerate(zip(names, itertools.pairwise(sides), strict=True)):
            if not bool(COMPARISONS[name](left, right)):
                error = _greatest_error(left, right) if name == "Eq" else math.nan
                told = "" if math.isnan(error) else f", {error:.3g} apart"
                self._fail(line, message(), f"{_short(left)} {SYMBOLS[name]} {_short(right)} is false{told}")
            numbers = [side for side in (left, right) if isinstance(side, float | int | torch.Tensor)]
            if any(not math.isfinite(x) for side in numbers for x in torch.as_tensor(side).flatten().tolist()):
                raise Vacuous(line, "a side is not finite")
            if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor) and _same_memory(left, right):
                raise Vacuous(line, "both sides are the same memory")
            if name in ("Lt", "LtE", "Gt", "GtE") and typed[index] != typed[index + 1]:
                self._check_bound(line, *((right, left) if typed[index] else (left, right)))
        kinds = {
            "Eq": "exact",
            "Is": "exact",
            "In": "exact",
            "NotEq": "differs",
            "IsNot": "differs",
            "NotIn": "differs",
        }
        kind = kinds.get(names[0], "bound")
        error = _greatest_error(sides[0], sides[1])
        self._keep(
            line,
            kind,
            *sides,
            error=None if math.isnan(error) or kind == "bound" else error,
            told=[_short(side) for side in sides],
        )

    def call(
        self, line: int, message: Callable[[], Any], negated: bool, function: Callable, arguments: list, keywords: dict
    ) -> None:
        """`assert torch.allclose(a, b)`, `assert not a.equal(b)`: only torch's own functions judge."""
        import torch

        name = getattr(function, "__name__", "it")
        owner = getattr(function, "__self__", None)
        tensors = isinstance(owner, torch.Tensor) and isinstance(function, types.BuiltinMethodType)
        if not tensors and function not in self.torchs:
            raise Vacuous(line, f"this {name} is not torch's own: what it compares is not known")
        given = [owner, *arguments] if isinstance(owner, torch.Tensor) else arguments
        asked = dict(zip(("input", "other", "rtol", "atol", "equal_nan"), given, strict=False)) | keywords
        left, right, equal_nan = asked["input"], asked["other"], bool(asked.get("equal_nan"))
        tolerance = None
        if name == "allclose":
            tolerance = [float(asked.get("rtol", 1e-5)), float(asked.get("atol", 1e-8))]
        holds = bool(function(*arguments, **keywords)) != negated
        error = _greatest_error(left, right)
        if not holds:
            how = "they do not differ" if negated else _apart(left, right, *(tolerance or (0, 0)))
            self._fail(line, message(), how)
        if left.shape != right.shape:
            raise Vacuous(line, f"the shapes {tuple(left.shape)} and {tuple(right.shape)} always differ")
        if not left.numel():
            raise Vacuous(line, "there is nothing to compare")
        self._check_pair(line, left, right, equal_nan)
        if not negated:
            # torch.equal has no tolerance: every move is seen
            check = {
                "allclose": lambda a, b: torch.allclose(a, b, rtol=tolerance[0], atol=tolerance[1], equal_nan=equal_nan)
            }
            stated = name == "equal" or {"rtol", "atol"} <= asked.keys()
            self._check_moves(line, left, right, check.get(name, torch.equal), stated)
        kind = "differs" if negated else {"equal": "exact", "allclose": "equal"}[name]
        self._keep(line, kind, left, right, error=error, tolerance=tolerance)

    # -- the stand-in for torch.testing.assert_close

    def _assert_close(self, actual, expected, *, rtol=None, atol=None, equal_nan=False, **others):

        options = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, **others}
        line = self._line()
        try:
            self.assert_close(actual, expected, **options)
        except AssertionError as error:
            with contextlib.suppress(Exception):
                worst = max(_pairs(actual, expected), key=lambda pair: _greatest_error(*pair))
                error.claim = (line, _apart(*worst, *_tolerance(*worst, rtol, atol)))
            if sys._getframe(1).f_code.co_filename == self.path:
                self.failed[line] = getattr(error, "claim", (line, "they differ"))[1]
            raise
        if line is None:
            return
        pairs = [(a, b) for a, b in _pairs(actual, expected) if a.numel()]
        if not pairs:
            raise Vacuous(line, "there is nothing to compare")
        for left, right in pairs:
            self._check_pair(line, left, right, equal_nan)

            def holds(a, b):
                try:
                    self.assert_close(a, b, **options)
                except AssertionError:
                    return False
                return True

            self._check_moves(line, left, right, holds, stated=rtol is not None and atol is not None)
            tolerance = _tolerance(left, right, rtol, atol)
            exact = tolerance == [0, 0]
            error = _greatest_error(left, right)
            self._keep(
                line,
                "exact" if exact else "equal",
                left,
                right,
                error=error,
                tolerance=None if exact else tolerance,
                count=(left is pairs[0][0]),
            )

    # -- what a figure's labels say

    def labelled(self, line: int, place: str, made: "torch.Tensor", right: "torch.Tensor", turned: bool) -> None:
        """A block of a figure, or what its line of code gives, is the matrix that its label says; if `turned`, or its transpose.

        made, right  (R, C) each. Raises AssertionError, which says `place`.
        """
        for option in [right, right.mT] if turned and made.shape == right.mT.shape else [right]:
            if made.shape == option.shape and self._agree(made, option):
                self._check_moves(line, made, option, self._agree, stated=False)
                tolerance = _tolerance(made, option, None, None)
                self._keep(line, "equal", made, option, error=_greatest_error(made, option), tolerance=tolerance)
                return
        error = AssertionError(f"{place} is not what its label says")
        error.claim = (line, f"{place} is not what its label says")
        raise error

    def _agree(self, left, right):
        try:
            self.assert_close(left, right)
        except AssertionError:
            return False
        return True

    # -- what makes a claim empty

    def _check_pair(self, line, left, right, equal_nan):
        if _same_memory(left, right):
            raise Vacuous(line, "both sides are the same memory")
        if not equal_nan:
            for side in (left, right):
                if side.is_floating_point() and not bool(side.isfinite().all()):
                    raise Vacuous(line, "values are not finite (say equal_nan=True where that is meant)")

    def _check_moves(self, line, left, right, holds, stated):
        import torch

        left, right = left.detach(), right.detach()
        if left.dtype == torch.bfloat16 and not stated:
            raise Vacuous(line, "bfloat16 must state rtol and atol: its default would pass a difference of 1 %")
        if holds(_moved(left), right) or holds(left, _moved(right)):
            raise Vacuous(line, "it still holds when one side is moved by 1 %")

    def _check_bound(self, line, value, bound):
        """A typed bound must be near enough to what it bounds: `error < 1e9` says nothing."""
        if _is_number(value) and _is_number(bound) and abs(bound) >= 1 and abs(value) * FARTHEST <= abs(bound):
            raise Vacuous(line, f"the bound is more than {FARTHEST} times the value, {_short(value)}")

    # -- keeping

    def _line(self):
        """The script's line that led here: the innermost frame of the script itself."""
        frame = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename != self.path:
            frame = frame.f_back
        return frame and self._statement(frame.f_lineno)[0]

    def _statement(self, line):
        return next((span for span in self.spans if span[0] <= line <= span[1]), (line, line))

    def _fail(self, line, message, how):
        error = AssertionError(message if message is not None else self._text(line))
        error.claim = (line, how)
        self.failed[line] = how
        raise error

    def _text(self, line):
        start, end = self._statement(line)
        lines = [GUARD.sub("", part).strip() for part in self.lines[start - 1 : end]]
        return lines[0] if end == start else " ".join(lines)[:160]

    def _guard(self, line):
        start, end = self._statement(line)
        return next((found[1] for part in self.lines[start - 1 : end] if (found := GUARD.search(part))), None)

    def _keep(self, line, kind, *sides, error=None, tolerance=None, count=True, told=()):
        import torch

        if (now := _judges()) != self.judges:
            changed = ", ".join(sorted(name for name in now if now[name] != self.judges.get(name)))
            raise Vacuous(line, f"the script has replaced what judges it: {changed}")
        claim = self.records.get((line, kind)) or Claim(line, kind, self._text(line), guard=self._guard(line))
        tensors = [side for side in sides if isinstance(side, torch.Tensor)][:2]
        shapes = (*claim.shapes, *(tuple(tensor.shape) for tensor in tensors))
        dtypes = (*claim.dtypes, *(str(tensor.dtype).removeprefix("torch.") for tensor in tensors))
        if error is None or not math.isfinite(error):
            error = claim.error
        elif claim.error is not None:
            # of a difference the smallest is the telling one, of an error the greatest
            error = (min if kind == "differs" else max)(claim.error, error)
        if tolerance is not None:
            tolerance = tuple(max(pair) for pair in zip(tolerance, claim.tolerance or tolerance, strict=True))
        self.records[line, kind] = replace(
            claim,
            count=claim.count + count,
            shapes=tuple(dict.fromkeys(shapes))[:6],
            dtypes=tuple(dict.fromkeys(dtypes)),
            error=error,
            tolerance=tolerance or claim.tolerance,
            sides=tuple(told) or claim.sides,
        )


# ---------------------------------------------------------------- tensors


def _judges():
    """{name: object} of what decides in torch whether a claim holds: a script that replaces any of it judges itself."""
    import torch
    from torch.testing import _comparison

    orders = ("eq", "ne", "lt", "le", "gt", "ge")
    names = ("equal", "allclose", "isclose", "isfinite", "all", "any", *orders)
    found = {f"torch.{name}": getattr(torch, name) for name in names}
    methods = (*names, *(f"__{name}__" for name in orders), "__bool__", "item")
    found |= {f"torch.Tensor.{name}": getattr(torch.Tensor, name) for name in methods}
    for name, part in vars(_comparison).items():
        if getattr(part, "__module__", None) == _comparison.__name__:
            members = vars(part) if isinstance(part, type) else {}
            found |= {name: part, **{f"{name}.{key}": value for key, value in members.items() if callable(value)}}
    return found | {f"the tolerance of {dtype}": pair for dtype, pair in _comparison._DTYPE_PRECISIONS.items()}


def _is_number(value):
    import torch

    return isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def _pairs(actual, expected):
    """The pairs of tensors that assert_close compares: through sequences and mappings, numbers as tensors."""
    import torch

    if isinstance(actual, dict):
        return [pair for key in actual for pair in _pairs(actual[key], expected[key])]
    if isinstance(actual, list | tuple):
        return [pair for a, b in zip(actual, expected, strict=True) for pair in _pairs(a, b)]
    return [(torch.as_tensor(actual), torch.as_tensor(expected))]


def _tolerance(left, right, rtol, atol):
    from torch.testing._comparison import default_tolerances

    if rtol is None and atol is None:
        return list(map(float, default_tolerances(left, right)))
    return [float(rtol or 0), float(atol or 0)]


def _same_memory(left, right):
    if left is right:
        return True
    return (
        left.numel() > 0
        and left.layout == right.layout
        and left.data_ptr() == right.data_ptr()
        and left.stride() == right.stride()
        and left.shape == right.shape
    )


def _moved(tensor):
    """`tensor` moved by 1 % of max(spread, greatest magnitude), by 0.01 where that is 0; by 10 % in bfloat16, whose step is 0.8 %."""
    import torch

    if tensor.dtype == torch.bool:
        return ~tensor
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor + 1
    finite = tensor[tensor.isfinite()].double() if not tensor.is_complex() else tensor.abs()
    if finite.numel() == 0:
        return torch.zeros_like(tensor)
    size = float(max(finite.max() - finite.min(), finite.abs().max()))
    share = 0.1 if tensor.dtype == torch.bfloat16 else 0.01
    return (tensor.double() + (size * share or 0.01)).to(tensor.dtype)


def _greatest_error(left, right):
    """The greatest absolute difference of two tensors or numbers; nan where there is none."""
    import torch

    try:
        left, right = torch.as_tensor(left).detach(), torch.as_tensor(right).detach()
        if left.shape != right.shape or left.numel() == 0:
            return math.nan
        difference = (left.double() - right.double()).abs()
        difference = difference[~difference.isnan()]
        return float(difference.max()) if difference.numel() else 0.0
    except (TypeError, ValueError, RuntimeError):
        return math.nan


def _apart(left, right, rtol, atol):
    if left.shape != right.shape:
        return f"the shapes are {tuple(left.shape)} and {tuple(right.shape)}"
    difference = (left.detach().double() - right.detach().double()).abs()
    where = tuple(int(i) for i in _worst_index(difference))
    return f"greatest difference {_greatest_error(left, right):.3g} at {where}, allowed {atol:.3g} + {rtol:.3g} * |expected|"


def _worst_index(difference):
    """The index of the greatest entry."""
    import torch

    return torch.unravel_index(difference.nan_to_num(posinf=math.inf).argmax(), difference.shape)


def _short(value):
    """A side of a comparison in a few characters."""
    import torch

    if isinstance(value, torch.Tensor):
        return f"{value.item():.6g}" if value.numel() == 1 else f"tensor{tuple(value.shape)}"
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
