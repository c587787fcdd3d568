"""What bears a sentence: a mark right behind it, which the build resolves and a reader does not see.

    The interval does not hold 0.<!-- claim: layer_1_below_0 -->

A verdict is a sentence whose truth depends on what was computed. Either its words are filled in by the run
(`{{ name }}`, `{{ name ? yes : no }}`) or a mark names what would fail if it were false:

    <!-- claim: layer_1_below_0 -->         a guard of the page's script: `assert …  # guard: layer_1_below_0`
    <!-- claim: round_trip -->              the claims of a shown section
    <!-- claim: kdim/raises -->             those of one kind
    <!-- claim: layouts/rosetta:kdim -->    of another script; several names are parted by commas
    <!-- test: test_capture.py::test_gqa --> a test, where no script can run it; the file stands somewhere below tests/
    <!-- source: section 5.4, Table 3 -->   not computed here: whose word it is

`report` tells what stands on a page: `python -m builder marks layouts/rosetta`.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from builder import project
from builder.pages import values
from builder.project import Fault
from builder.scripts import records
from builder.scripts.claims import Claim

if TYPE_CHECKING:
    from builder.pages.reader import Source

ALMOST = re.compile(r"<!--\s*(?:claims?|tests?|sources?|guard)\b.*?-->", re.S | re.I)
CLAIM = re.compile(r"(?:(?P<page>[\w/-]+):)?(?P<name>[\w-]+)(?:/(?P<kind>\w+))?")
TEST = re.compile(r"(?P<file>(?:\w+/)*test_\w+\.py)::(?P<name>test_\w+)")
NEVER_RUN = re.compile(r"mark\.(?:skip|xfail)\b")
FLAG = "\ue001"  # stands in prose for a mark
FILLED = "\ue002"  # and for a value
HIDDEN = re.compile("[\ue000-\ue002]+")

# A sentence ends at a full stop, at the end of its paragraph, list item or table row; its marks stand behind the stop.
SENTENCE = re.compile(
    rf".+?(?:[。！？](?:[」）)*_]*)|[.!?][\"”’)*_]*(?=\s|{FLAG}|$)|(?=\n\s*\n|\n[ \t]*(?:[-*|>]|\d+\.)\s)|\Z)"
    rf"(?:[{FLAG}\ue000])*",
    re.S,
)
# A number that looks computed: a decimal, a share, a thousand, a power of ten. Versions, sections and years are not.
COMPUTED = re.compile(
    r"(?<![A-Za-z0-9_.§#,/-])"
    r"(?:\d{1,3}(?:,\d{3})+|\d+\.\d+(?!\.?\d)|\d+(?=[ ]?(?:%|percent|割))|(?!(?:19|20)\d\d(?!\d))\d{4,})(?!節|章|\.\d)"
    r"|\d+(?:\.\d+)?[×·][ ]?10|10⁻|\b\d+e[-+]?\d+|(?<=[\s（(])-\d+\.\d+(?!\.?\d)"
)
MARKUP = re.compile(r"[*_\\\ue000]")  # what may stand in the middle of a number
CITED = re.compile(
    r"(?:PyTorch|Python|torch|NumPy|MathJax|BY|arXiv:|§|[Ss]ections?|[Vv]ersions?|バージョン)[ ]?(?:\d[\d.]*[、,]?[ ]?)*$"
)
SEEMS_A_VERDICT = {
    "en": re.compile(
        r"\b(?:hold|holds|same|equal|equals|differ|differs|never|always|all|none|nothing|no|every|only|first|last|most|more|less|"
        r"fewer|larger|smaller|greater|faster|slower|longer|alike|exactly|bit for bit|raises?|silent|silently|error|wrong|right|"
        r"agree|agrees|reaches|beats|wins|worse|better|leaks?|ignored|changes?|unchanged|off by|up to|zero|NaN)\b",
        re.I,
    ),
    "ja": re.compile(
        r"等し|同じ|一致|違い|異な|ずれ|常に|すべて|どれも|必ず|決して|だけ|最初|最後|最も|いちばん|より(?:大き|小さ|速|遅|長|短)|"
        r"大き|小さ|速く|速い|遅い|変わら|変わり|エラー|例外|黙|正しい|間違|勝|負|届|漏れ|無視|ゼロ|NaN|成り立|含み|含ま|超え"
    ),
}


class Found(NamedTuple):
    """A mark of a page: its line, what it is and what it names."""

    line: int
    kind: str
    text: str


def marks_of(text: str) -> list[Found]:
    """Every mark in a page's Markdown."""
    return [Found(text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in values.MARK.finditer(text)]


def flagged(text: str) -> str:
    """`text` of the same length, FLAG and then blanks of no width where its marks are."""
    return values.MARK.sub(lambda match: FLAG + "\ue000" * (len(match[0]) - 1), text)


# Resolving


def claims_of(name: str, script: str) -> list[Claim]:
    """The claims that `name`, written on the page of `script`, stands for; empty when there are none."""
    match = CLAIM.fullmatch(name)
    if not match:
        return []
    script = f"{match['page'].replace('-', '_')}.py" if match["page"] else script
    return [
        claim
        for claim in records.claims(script)
        if match["name"] in (claim.guard, claim.section) and match["kind"] in (None, claim.kind)
    ]


def _tests(file):
    """The tests of a file; one that is always skipped, or may fail, bears nothing."""
    path = next((project.ROOT / "tests").rglob(file), None)
    return _tests_in(path.read_text("utf-8")) if path else set()


@cache
def _tests_in(source):
    tests = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {node.name for node in tests if not any(NEVER_RUN.search(ast.unparse(by)) for by in node.decorator_list)}


def _unborne(mark, script):
    """Why a mark bears nothing, or None."""
    if mark.kind == "source":
        return None if len(mark.text) > 3 else "a source is named in a few words"
    for name in (part.strip() for part in mark.text.split(",")):
        if mark.kind == "claim" and not claims_of(name, script):
            near = sorted({claim.guard or claim.section or "" for claim in records.claims(script)} - {""})
            return f"no claim {name!r} was made: snippets/{script} makes {', '.join(near) or 'none'}"
        if mark.kind == "test":
            match = TEST.fullmatch(name)
            if not match:
                return f"a test is named as test_capture.py::test_name, not {name!r}"
            if match["name"] not in _tests(match["file"]):
                return f"there is no test {name} that runs"
    return None


def faults(source: "Source", text: str, script: str) -> Iterator[Fault]:
    """What is wrong with the marks of one page."""
    found = marks_of(text)
    for mark in found:
        if why := _unborne(mark, script):
            yield Fault(source.file, mark.line, f"nothing bears this sentence any more: {why}")
    for match in ALMOST.finditer(text):
        if not values.MARK.fullmatch(match[0]):
            line = text.count("\n", 0, match.start()) + 1
            yield Fault(source.file, line, f"`{match[0]}` is not a mark: write `<!-- claim: name -->`, on one line")


def typed_numbers(source: "Source") -> Iterator[Fault]:
    """The numbers of a page's sentences that look computed and that nothing bears."""
    for line, sentence in (*sentences(source.prose), *source.labels):
        plain = MARKUP.sub("", sentence)
        for number in COMPUTED.finditer(plain):
            cited = CITED.search(plain[: number.start()]) and not re.match(r"[ ]?%", plain[number.end() :])
            if FLAG not in sentence and not cited:
                at = line + plain.count("\n", 0, number.start())
                yield Fault(
                    source.file,
                    at,
                    f"`{number[0]}` is typed: fill it in with `{{{{ name }}}}`, or name what bears the sentence behind it: "
                    "`<!-- claim: name -->` or `<!-- source: whose -->`",
                    soft=True,
                )
                break


def sentences(prose: str) -> Iterator[tuple[int, str]]:
    """(line, sentence) of a page's prose, as `reader.scan` leaves it."""
    for match in SENTENCE.finditer(prose):
        text = match[0]
        if re.search(r"\w", text.replace("\ue000", "")):
            lead = len(text) - len(text.lstrip())
            yield prose.count("\n", 0, match.start() + lead) + 1, text.strip()


# What the two languages must share


def by_section(text: str, headings: list[tuple[int, str]]) -> dict[tuple[str, str, str], int]:
    """{(section, kind, name): line} of a page's marks; `headings` are (line, id) in order."""
    found = {}
    for mark in marks_of(text):
        within = [name for line, name in headings if line <= mark.line]
        for name in mark.text.split(",") if mark.kind != "source" else [""]:
            found.setdefault((within[-1] if within else "", mark.kind, name.strip()), mark.line)
    return found


# For who writes


def main(pages: list[str]) -> int:
    """`python -m builder marks PAGE…`; the exit status."""
    for page in (page.removesuffix(".md") for page in pages):
        files = (f"docs/{language}/{page}.md" for language in project.COMPLETE)
        if missing := [file for file in files if not (project.ROOT / file).is_file()]:
            print(f"There is no {' and no '.join(missing)}.", file=sys.stderr)
            return 2
        report(page)
    return 0


def report(page: str) -> None:
    """Print each sentence of a page that nothing bears and that looks like a verdict, and how many are borne."""
    from builder.pages import reader  # which imports this

    for language in project.COMPLETE:
        path = project.DOCS / language / f"{page}.md"
        text = path.read_text("utf-8")
        source, count = reader.scan(text, project.relative(path)), Counter()
        for fault in (*faults(source, text, project.script_of(page)), *typed_numbers(source)):
            print(fault)
        for line, sentence in sentences(source.prose):
            filled, seems = FILLED in sentence, SEEMS_A_VERDICT[language].search(sentence)
            kind = "marked" if FLAG in sentence else "look at" if seems else "filled in" if filled else "plain"
            count[kind] += 1
            if kind == "look at":
                print(f"{source.file}:{line}: {HIDDEN.sub('…', sentence)}")
        print(f"{source.file}: " + ", ".join(f"{number} {kind}" for kind, number in count.most_common()))
