"""What a page says of claims: a quiet line under each block that has some, and the record of them all (reference/claims)."""

import ast
import html
import itertools
from dataclasses import replace
from pathlib import Path

from builder import project, words
from builder.pages import reader
from builder.pages.includes import written_in
from builder.pages.page import Page
from builder.scripts import records
from builder.scripts.claims import Claim

PAGE = "reference/claims.md"


def is_there(language: str) -> bool:
    """Whether a language has the page: it need not."""
    return (project.DOCS / language / PAGE).is_file()


def quiet_lines(markdown: str, page: str, language: str) -> str:
    """One line under each block that has claims: after its annotations and its output, if they follow."""
    root = "../" * (len(Path(page).parts) - 1)
    lines, fences = markdown.split("\n"), reader.fences_of(markdown)
    edits = []
    for fence, following in itertools.zip_longest(fences, fences[1:]):
        include = fence.include
        if not include or include.out or not include.section:
            continue
        claims = [claim for claim in records.claims(include.script) if claim.section == include.section]
        if not claims:
            continue
        after = fence.listed_end  # a line between a block and its annotations would part them
        if (
            following
            and following.indent == fence.indent
            and following.include == replace(include, out=True)
            and not "".join(lines[after : following.line - 1]).strip()
        ):
            after = following.end
        link = f"{root}{PAGE}#{include.script.removesuffix('.py').replace('/', '-').replace('_', '-')}"
        line = quiet_line(claims, language)
        if is_there(language):
            line = f"[{line}]({link})"
        said = [f"{fence.indent}{line}", f"{fence.indent}{{ .claims }}"]
        edits.append((after, ["", *said, ""]))
    for after, said in reversed(edits):
        lines[after:after] = said
    return "\n".join(lines)


def plain_listings(markdown: str) -> str:
    """Show a whole file without colours: folded, and to be downloaded, it need not weigh ten kilobytes."""
    lines = markdown.split("\n")
    for fence in reader.fences_of(markdown):
        if fence.language == "python" and fence.include and not fence.include.section and not fence.include.out:
            lines[fence.line - 1] = lines[fence.line - 1].replace("python", "text", 1)
    return "\n".join(lines)


def set_off(markdown: str) -> str:
    """Mark the lines of code that only check, so that the eye finds those that compute."""
    lines = markdown.split("\n")
    for fence in reader.fences_of(markdown):
        include = fence.include
        if fence.language != "python" or not include or include.out or include.is_recipe or not include.section:
            continue
        if checking := checking_lines(include.text):
            lines[fence.line - 1] += f' hl_lines="{" ".join(map(str, checking))}"'
    return "\n".join(lines)


def checking_lines(code: str) -> list[int]:
    """The lines of asserts and of assert_close, wherever they stand; none where these are all that there is."""
    tree = ast.parse(code)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Assert) or _asks_for_equality(node)]
    checking = {line for node in found for line in range(node.lineno, node.end_lineno + 1)}
    written = {number for number, line in enumerate(code.splitlines(), 1) if line.strip()}
    return sorted(checking) if checking < written else []


def _asks_for_equality(node):
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "assert_close"


def quiet_line(claims: list[Claim], language: str) -> str:
    """What the line under a block says of its claims."""
    said = words.of("claims", language)
    count = sum(claim.count for claim in claims)
    text = said["hold"].format(n=count, s="" if count == 1 else "s", v="s" if count == 1 else "")
    compared = [claim for claim in claims if claim.kind == "equal" and claim.error is not None]
    if compared:
        worst = max(compared, key=lambda claim: claim.error)
        text += said["error"].format(error=_number(worst.error))
        text += said["tolerance"].format(tolerance=_tolerance(worst))
    return text


def _number(value):
    return "0" if value == 0 else f"{value:.1e}"


def _tolerance(claim):
    if not claim.tolerance:
        return "0"
    rtol, atol = claim.tolerance
    parts = [f"{atol:.2g}"] if atol else []
    return " + ".join([*parts, *([f"{rtol:.2g} |x|"] if rtol else [])]) or "0"


def _shape(shape):
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _shown_on(language):
    """Which page shows a script: the one with its path, else the first that includes it: {script: page}."""
    shown = {}
    for page in project.page_files(language):
        text = (project.DOCS / language / page).read_text(encoding="utf-8")
        for include in written_in(text):
            shown.setdefault(include.script, page)
    return shown | {
        project.script_of(page): page for page in project.page_files(language) if project.script_of(page) in shown
    }


def claims_table(language: str, root: str) -> str:
    """The record of every claim as HTML: one table a script, `root` leading from the page to the language's root."""
    said, tables, by_script = words.of("claims", language), [], {}
    for script, claim in records.all_claims():
        by_script.setdefault(script, []).append(claim)
    heads = "".join(f'<th scope="col">{name}</th>' for name in said["columns"])
    shown = _shown_on(language)
    for script, claims in by_script.items():
        title = f"<small>{html.escape(script)}</small>"
        if page := shown.get(script):
            link = root + project.address_of(page)
            title = f'<a href="{link}">{html.escape(reader.page_title(language, page.as_posix()))}</a> {title}'
        rows = []
        for claim in claims:
            kind = said[claim.kind]
            text = html.escape(claim.text)
            if claim.sides and claim.kind in ("bound", "raises"):
                text += f'</code> <code class="claims-sides">{html.escape(" · ".join(claim.sides))}'
            cells = [
                (claim.section or claim.guard or "").replace("_", "_<wbr>"),
                claim.line,
                kind,
                f"<code>{text}</code>",
                claim.count,
                " ".join(map(_shape, claim.shapes)),
                " ".join(claim.dtypes),
                "" if claim.error is None else _number(claim.error),
                _tolerance(claim) if claim.tolerance else "",
            ]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        identity = script.removesuffix(".py").replace("_", "-").replace("/", "-")
        tables.append(
            f'<h2 id="{identity}">{title}</h2>\n<div class="claims-scroll" tabindex="0" role="region" aria-labelledby="{identity}">'
            f'<table class="claims-table"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        )
    return "\n".join(tables)


def put(markdown: str, page: Page) -> str:
    """A page with its quiet lines, and on reference/claims with the record of all claims."""
    markdown = set_off(plain_listings(quiet_lines(markdown, page.name, page.language)))
    root = "../" * len(Path(page.name).parts)
    return reader.replaced(
        markdown, page, lambda fence: claims_table(page.language, root) if fence.language == "claims" else None
    )
