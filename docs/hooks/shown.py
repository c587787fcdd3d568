"""What a run put on a page: its outputs, values, figures and claims, as one digest that the lock keeps.

When a script says something else than it did when the page was last read, the sentences around it may be false now.
Rounding errors are compared as such, whatever their size, and numbers of figures to three digits of the greatest:
processors differ below that. A page whose script trains a model says `trained: true` in its front matter and has no
such digest: there the processor decides what is shown, and the claims are all that holds.
"""

import hashlib
import json
import re

import project

import snippets

TRAINED = re.compile(r"\A---\n(?:(?!---).*\n)*?trained: true[ ]*\n")
ROUNDING = re.compile(r"\d(?:\.\d+)?(?:e-(?:0[6-9]|[1-9]\d)|[·×]10⁻(?:[⁶⁷⁸⁹]|[¹²³][⁰¹²³⁴⁵⁶⁷⁸⁹]))")
FIGURE = re.compile(r"^[ \t]*`{3,}figure ([\w/:.-]+)", re.M)


def is_trained(text):
    """Whether a page's Markdown says that its script trains a model."""
    return bool(TRAINED.match(text))


def digest(page, text):
    """A digest of all that the run put on `page` (its Markdown is `text`), or None where the processor decides."""
    if is_trained(text):
        return None
    parts = json.dumps([*_outputs(text), *_values(page, text), *_figures(page, text), *_claims(page, text)])
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _outputs(text):
    for include in dict.fromkeys(match.group("script", "section") for match in snippets.INCLUDE.finditer(text)):
        yield [*include, ROUNDING.sub("0", snippets.printed(*include))]


def _values(page, text):
    names = [match[1] for pattern in (snippets.VALUE, snippets.CHOICE) for match in pattern.finditer(text)]
    for name in dict.fromkeys(names):
        # the site's own change with every page, and a value may say that it is rounding
        if not name.startswith("site:") and not name.rpartition(":")[2].startswith("rounding_"):
            yield [name, ROUNDING.sub("0", str(snippets.value(name, project.script_of(page))))]


def _figures(page, text):
    for name in dict.fromkeys(FIGURE.findall(text)):
        place, _, short = name.rpartition(":")
        drawn = (snippets.record(project.script_of(f"{place}.md" if place else page), "figures") or {}).get(short, {})
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
    shown = {match.group("script", "section") for match in snippets.INCLUDE.finditer(text)}
    for script in sorted({project.script_of(page), *(script for script, _ in shown)}):
        for claim in snippets.record(script, "claims") or []:
            if claim["guard"] or (script, claim["section"]) in shown:
                yield [script, claim["section"], claim["guard"], claim["kind"], claim["text"]]
