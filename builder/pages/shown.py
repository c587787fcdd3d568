"""What a run put on a page: its outputs, values, figures and claims, as one digest that the lock keeps.

When a script says something else than it did when the page was last read, the sentences around it may be false now.
Rounding errors are compared as such, whatever their size, and numbers of figures to three digits of the greatest:
processors differ below that.
"""

import hashlib
import json
import re

from builder import project
from builder.pages import reader, values
from builder.pages.includes import written_in
from builder.scripts import records

ROUNDING = re.compile(r"\d(?:\.\d+)?(?:e-(?:0[6-9]|[1-9]\d)|[·×]10⁻(?:[⁶⁷⁸⁹]|[¹²³][⁰¹²³⁴⁵⁶⁷⁸⁹]))")


def digest(page: str, text: str) -> str:
    """A digest of all that the run put on `page`; its Markdown is `text`."""
    parts = json.dumps([*_outputs(text), *_values(page, text), *_figures(page, text), *_claims(page, text)])
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _outputs(text):
    for include in dict.fromkeys((include.script, include.section) for include in written_in(text)):
        yield [*include, ROUNDING.sub("0", records.printed(*include))]


def _values(page, text):
    names = [match[1] for pattern in (values.VALUE, values.CHOICE) for match in pattern.finditer(text)]
    for name in dict.fromkeys(names):
        # the site's own change with every page, and a value may say that it is rounding
        if not name.startswith("site:") and not name.rpartition(":")[2].startswith("rounding_"):
            yield [name, ROUNDING.sub("0", str(values.value(name, project.script_of(page))))]


def _figures(page, text):
    for name in dict.fromkeys(fence.figure for fence in reader.fences_of(text) if fence.figure):
        place, _, short = name.rpartition(":")
        drawn = (records.record(project.script_of(f"{place}.md" if place else page), "figures") or {}).get(short, {})
        labels, tensors = drawn.get("labels") or {}, drawn.get("tensors", {})
        kept = {key: t["shape"] if labels.get("rounding") else _coarse(t) for key, t in tensors.items()}
        yield [name, drawn.get("kind"), labels, kept]


def _coarse(tensor):
    """A tensor to three digits of its greatest number; what is no number stays."""
    numbers = list(_flat(tensor.get("data")))
    size = max((abs(number) for number in numbers if isinstance(number, float)), default=0) or 1
    # the shift keeps halves from falling to both sides
    return tensor["shape"], [round(n / size + 1e-7, 3) + 0.0 if isinstance(n, float) else n for n in numbers]


def _flat(data):
    return [number for part in data for number in _flat(part)] if isinstance(data, list) else [data]


def _claims(page, text):
    """The claims of the page's script and of every section that it shows, without their errors."""
    shown = {(include.script, include.section) for include in written_in(text)}
    for script in sorted({project.script_of(page), *(script for script, _ in shown)}):
        for claim in records.claims(script):
            if claim.guard or (script, claim.section) in shown:
                yield [script, claim.section, claim.guard, claim.kind, claim.text]
