"""Values of scripts in sentences: `{{ max_error }}`, and words chosen by one: `{{ beaten ? loses : wins }}`."""

import functools
import html
import platform
import re

from builder import project
from builder.pages.page import Page
from builder.project import Fault
from builder.scripts import records

VALUE = re.compile(r"\{\{ ([\w/:.-]+) \}\}")
CHOICE = re.compile(r"\{\{ ([\w/:.-]+) \? ([^\n{}]+?) : ([^\n{}]*?) \}\}")
MARK = re.compile(r"<!-- (claim|test|source): ([^\n]*?) -->")  # what bears a sentence: marks.py


@functools.cache
def site_values() -> dict[str, str]:
    """The site's own values, for `{{ site:name }}`."""
    claims = [claim for _, claim in records.all_claims()]
    # a claim that states a tolerance of its own (a rate, a bound) says nothing about rounding
    errors = {
        dtype: max(
            (
                claim.error or 0
                for claim in claims
                if claim.kind == "equal" and claim.dtypes == (dtype,) and claim.tolerance == tolerance
            ),
            default=0,
        )
        for dtype, tolerance in (("float64", (1e-7, 1e-7)), ("float32", (1.3e-6, 1e-5)))
    }
    return {
        "torch": records.version("torch").partition("+")[0],
        "python": platform.python_version(),
        "built": project.built().strftime("%Y-%m-%d"),
        "claims": str(sum(claim.count for claim in claims)),
        "claim_lines": str(len(claims)),
        "scripts": str(sum(1 for path in records.scripts() if "recipes" not in path.parts)),
        "greatest_error": f"{errors['float64']:.1e}",
        "greatest_error_float32": f"{errors['float32']:.1e}",
    }


def value(name: str, script: str) -> str | None:
    """The value `name` of `script`, of another script (`layouts/rosetta:name`) or of the site (`site:name`); None if there is none."""
    place, _, key = name.rpartition(":")
    if place == "site":
        return site_values().get(key)
    return (records.record(f"{place.replace('-', '_')}.py" if place else script, "values") or {}).get(key)


def fill_values(markdown: str, page: str, language: str) -> tuple[str, list[Fault]]:
    """Put each `{{ name }}` in and take the marks out; return the text and a fault for each value that no script showed."""
    script, faults = project.script_of(page), []

    def found(match):
        shown = value(match[1], script)
        line = markdown.count("\n", 0, match.start()) + 1
        if shown is None:
            faults.append(Fault(f"docs/{language}/{page}", line, f"no script showed the value {match[1]!r}"))
        elif match.re is CHOICE and shown not in ("True", "False"):
            told = f"{match[1]!r} chooses words, so it must be True or False, and is {shown}"
            faults.append(Fault(f"docs/{language}/{page}", line, told))
        return shown

    chosen = CHOICE.sub(lambda match: match[2] if found(match) == "True" else match[3], markdown)
    filled = VALUE.sub(lambda match: html.escape(str(found(match)), quote=False), chosen)
    return MARK.sub("", filled), faults


def put(markdown: str, page: Page) -> str:
    """A page with its values filled in and without the marks that bear its sentences."""
    markdown, faults = fill_values(markdown, page.name, page.language)
    project.stop(faults)
    return markdown
