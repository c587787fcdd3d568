"""What counts as a claim: each form that proves nothing is refused with its line, and the forms that prove something pass."""

import pytest

INDEX = "snippets/index.py"
DEMANDED = "\nelse:\n    raise AssertionError"
CANNOT_FAIL = "this claim cannot fail: "
DID_NOT_RUN = "this claim did not run"

# x is (5, 6), w is (6, 4); `# here` marks the line that is told, where it is not the only one
EMPTY = {
    # one side, twice
    "torch.testing.assert_close(x, x)": "both sides are the same expression",
    "same_x = x\ntorch.testing.assert_close(x, same_x)  # here": "both sides are the same memory",
    "torch.testing.assert_close(x[:2], x.view(5, 6)[:2])": "both sides are the same memory",
    "assert x is x": "both sides are the same expression",
    "assert x.sum() == x.sum()": "both sides are the same expression",
    "torch.testing.assert_close(x @ w, x @ w)": "both sides are the same expression",
    "torch.testing.assert_close(actual=x @ w, expected=x @ w)": "both sides are the same expression",
    "torch.testing.assert_close(x, x.clone())": "or a copy of it",
    "assert torch.equal(+x, 1 * x.detach())": "or a copy of it",
    "assert x.clone().equal(x + 0)": "or a copy of it",
    "torch.testing.assert_close(x * 0, 0 * w)": "both sides are the same expression",
    "torch.testing.assert_close(x * torch.nan, x * torch.nan, equal_nan=True)": "both sides are the same expression",
    # no room to fail
    "torch.testing.assert_close(x, x + 1e-9, rtol=0.5, atol=1.0)": "it still holds when one side is moved by 1 %",
    "assert torch.allclose(x, x + 1e-9, atol=1.0)": "it still holds when one side is moved by 1 %",
    "torch.testing.assert_close(x.bfloat16(), x.mul(1).bfloat16())": "bfloat16 must state rtol and atol",
    "torch.testing.assert_close(x / 0, x * torch.inf)": "values are not finite",
    "assert not torch.equal(x * torch.nan, x)": "values are not finite",
    "assert not torch.equal(x, w)": "always differ",
    "assert x.abs().max() < float('inf')": "a side is not finite",
    "assert (x - w.mean()).abs().max() < 1e9": "more than 1000 times the value",
    "assert -(10**6) < w.mean()": "more than 1000 times the value",
    "assert x.numel() >= 0": "x.numel() is never negative",
    "assert -1 < len(x)": "len(x) is never negative",
    "assert x.abs().max() >= 0": "x.abs().max() is never negative",
    "assert torch.sum(x ** 2) >= 0": "torch.sum(x ** 2) is never negative",
    "assert int(torch.equal(x, x + 1)) >= 0": "is never negative",
    # one side, twice, somewhere inside
    "assert (x == x.clone()).all()": "or a copy of it",
    "assert x.eq(x).all()": "both sides are the same expression",
    "assert torch.all(x.isclose(x + 0))": "or a copy of it",
    "assert (x - x.detach()).abs().max() < 1e-9": "or a copy of it",
    # nothing there
    "torch.testing.assert_close([], x[:0].tolist())": "there is nothing to compare",
    "assert torch.equal(x[:0], x[5:] + 1)": "there is nothing to compare",
    "assert all(row.sum() > 9 for row in x[:0])": "there is nothing to judge",
    "assert not any(row.sum() > 9 for row in x[:0])": "there is nothing to judge",
    "assert (x[:0] > 9).all()": "there is nothing to judge",
    "assert torch.all(x[:0] > 9)": "there is nothing to judge",
    # constants
    "assert 1 == 1": "it compares constants",
    "ok = True\nassert ok  # here": "it compares constants",
    "a = b = 0.5\nassert a == b  # here": "it compares constants",
    # not a truth value
    "assert (torch.equal(x, x + 1), 'they agree')": "a container or a piece of code",
    "assert [x == x + 1]": "a container or a piece of code",
    "assert (value for value in x)": "a container or a piece of code",
    "assert lambda: torch.equal(x, x + 1)": "a container or a piece of code",
    "results = [x == x + 1]\nassert results  # here": "a list is no truth value",
    "assert x.sum().item()": "a float is no truth value",
    "assert torch.equal(x, x + 1) or x is not None": "one half of an `or` may hide the other",
    "assert torch.equal(x, x + 1) if len(x) > 9 else x.mean() < 1": "one half of an `if … else` may hide the other",
    # not torch's own
    "def equal(a, b):\n    return True\nassert equal(x, x + 1)  # here": "this equal is not torch's own",
    "def allclose(a, b):\n    return True\nassert allclose(x, x + 1)  # here": "this allclose is not torch's own",
    "torch.equal = lambda a, b: True\nassert torch.equal(x, x + 1)  # here": "this <lambda> is not torch's own",
    "def same(a, b):\n    return True\nassert same(x, x + 1)  # here": "what same() compares is not seen here",
    "import numpy\nassert numpy.allclose(x, x / 3 * 3)  # here": "this allclose is not torch's own",
    "import numpy\nassert numpy.array_equal(x, x / 3)  # here": "numpy.array_equal is not torch's own",
    "torch.Tensor.__eq__ = lambda a, b: True\nassert x == x + 1  # here": "has replaced what judges it: torch.Tensor.__eq__",
    "from torch.testing import _comparison\n_comparison._DTYPE_PRECISIONS[torch.float64] = (0.005, 0.005)\n"
    "torch.testing.assert_close(x, x + 1e-3)  # here": "has replaced what judges it: the tolerance of torch.float64",
    # any error would do
    f"try:\n    raise RuntimeError('8 heads')  # here\nexcept RuntimeError:\n    pass{DEMANDED}": "the script raises the RuntimeError",
    f"def forbid():\n    raise ValueError\ntry:\n    forbid()  # here\nexcept ValueError:\n    pass{DEMANDED}": (
        "the script raises the ValueError itself"
    ),
    f"try:\n    undefined\nexcept (RuntimeError, NameError):  # here\n    pass{DEMANDED}": "NameError, among other classes",
    f"try:\n    undefined\nexcept Exception:  # here\n    pass{DEMANDED}": "any error at all would do",
    f"try:\n    undefined\nexcept:  # here\n    pass{DEMANDED}": "any error at all would do",
    f"broad = Exception\ntry:\n    undefined  # here\nexcept broad:\n    pass{DEMANDED}": "any slip of the pen",
}
UNREACHED = {
    "def prove():\n    assert torch.equal(x, x + 1)  # here": DID_NOT_RUN,
    "def prove():\n    torch.testing.assert_close(x, x + 1)  # here": DID_NOT_RUN,
    "if torch.cuda.device_count() > 99:\n    assert torch.equal(x, x + 1)  # here": DID_NOT_RUN,
    "for row in x[:0]:\n    assert row.sum() > 9  # here": DID_NOT_RUN,
    "prove = lambda: torch.testing.assert_close(x, x + 1)  # here": DID_NOT_RUN,
    "torch.testing.assert_close = lambda a, b: None\ntorch.testing.assert_close(x, x + 1)  # here": DID_NOT_RUN,
    "def assert_close(a, b):\n    pass\nassert_close(x, x + 1)  # here": DID_NOT_RUN,
    f"def prove():\n    try:\n        x.view(7)  # here\n    except RuntimeError:\n        pass{DEMANDED}".replace(
        "\nelse:\n", "\n    else:\n    "
    ): DID_NOT_RUN,
    "try:\n    assert torch.equal(x, x + 1)  # here\nexcept AssertionError:\n    pass": "its failure is swallowed",
    "try:\n    torch.testing.assert_close(x, x + 1)  # here\nexcept AssertionError:\n    pass": "its failure is swallowed",
    "import contextlib\nwith contextlib.suppress(Exception):\n    assert x.sum() > 1e3  # here": "its failure is swallowed",
    "for a in (x + 0.0, x + 1):\n    try:\n        assert torch.equal(a, x)  # here\n    except AssertionError:\n        pass": (
        "its failure is swallowed"
    ),
    "class Late:\n    def __del__(self):\n        assert torch.equal(x, x + 1)  # here\nlate = Late()": DID_NOT_RUN,
}
TYPED = {
    'show("typed", "1e-99")': "the value is typed in",
    'show("typed", 0.5)': "the value is typed in",
    'show("typed", f"{1.5:.1f}")': "the value is typed in",
    'error = "1e-99"\nshow("typed", error)  # here': "the value is typed in",
    'show("typed", len("12345"))': "the value is typed in",
    'show("typed", bool(1))': "the value is typed in",
    'show(name="typed", value="1e-99")': "write `show(name, value)`",
    'show(*("typed", "1e-99"))': "write `show(name, value)`",
    'print("greatest error 1.2e-16")': "the number is typed in",
    'print(f"{3}", "heads")': "the number is typed in",
}
PROVES = [
    "torch.testing.assert_close(x * torch.nan, x / 0 * 0, equal_nan=True)",
    "torch.testing.assert_close(x.bfloat16(), (x / 3 * 3).bfloat16(), rtol=0, atol=0.01)",
    "assert x.shape == (5, 6) and not torch.equal(x, x + 1)",
    "assert torch.equal(x, other=x / 2 * 2)\nassert torch.equal(input=x, other=x / 2 * 2)",
    "assert torch.allclose(x / 0 * 0, x * torch.nan, 0, 0, True)\nassert torch.allclose(x, other=x / 3 * 3, atol=1e-9)",
    "assert torch.equal(x.bfloat16(), x.bfloat16() / 2 * 2)",
    "torch.testing.assert_close({'a': x, 'b': [w, 1]}, {'a': x / 3 * 3, 'b': [w / 3 * 3, len(x) - 4]})",
    "assert (x @ w - by_columns).abs().max() < 1e-12",
    "assert x.numel() > 0\nassert 0.2 < x.std() < 5",
    "assert all(row.numel() == 6 for row in x)\nassert not any(row.sum() > 99 for row in x)",
    "assert not x.isnan().any()\nassert x.isfinite().all()",
    "assert not (5 == len(w))",
    "assert torch.all(x.abs() > 0)\nassert (x - x.mean()).abs().max() > 0",
    "ok = True\nfor row in x:\n    ok = ok and bool(row.isfinite().all())\nassert ok",
    "for row in x:\n    assert row.numel() == 6",
    f"try:\n    x.view(7)\nexcept RuntimeError as error:\n    print(error){DEMANDED}",
    f"try:\n    undefined\nexcept NameError as error:\n    print(error){DEMANDED}",
    f"try:\n    torch.testing.assert_close(x, x + 1)\nexcept AssertionError:\n    pass{DEMANDED}",
    """B = 2\nshow("batch", B)\nshow("bytes", f"{4 * 2**10}")\nprint("i   Q   K")\nprint(f"{'':12}K")\nprint(f"{len(x)} rows")""",
]


@pytest.fixture(scope="module")
def answers(built_small_project, tmp_path_factory):
    """{source: (file, what the runner said of it)}: one script each, all run by one runner, out of the project's way."""
    small = built_small_project
    folder = tmp_path_factory.mktemp("claims")
    sources = [*EMPTY, *UNREACHED, *TYPED, *PROVES]
    files = {source: folder / f"claim_{number}.py" for number, source in enumerate(sources)}
    whole = small.read(INDEX)
    for source, file in files.items():
        file.write_text(whole.replace("# --8<-- [end:proof]", f"{source}\n# --8<-- [end:proof]"), encoding="utf-8")
    said = small.run_scripts(*files.values())
    return {source: (file, said.partition(f"== {file}\n")[2].partition("\n== ")[0]) for source, file in files.items()}


def line_of(file, source):
    mark = "# here" if "# here" in source else source.splitlines()[0]
    return next(number for number, line in enumerate(file.read_text().splitlines(), 1) if mark in line)


@pytest.mark.parametrize("source", [*EMPTY, *UNREACHED, *TYPED])
def test_what_proves_nothing_is_refused(answers, source):
    file, said = answers[source]
    why = {**EMPTY, **UNREACHED, **TYPED}[source]
    start = CANNOT_FAIL if source in EMPTY else ""
    message = said.partition(f"{file}:{line_of(file, source)}: {start}")[2].partition("\n")[0]
    assert message, f"it was accepted, or told elsewhere:\n{said}"
    assert why in message


@pytest.mark.parametrize("source", PROVES)
def test_what_proves_something_is_accepted(answers, source):
    file, said = answers[source]
    assert f"{file}:" not in said
