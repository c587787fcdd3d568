"""Run the scripts that changed, keep what they printed and claimed, and put it where the pages ask for it.

--8<-- "layouts/rosetta.py:round_trip"       a section's code
--8<-- "layouts/rosetta.py.out:round_trip"   what that section printed
{{ max_error }}                              a value of the page's own script
{{ beaten ? loses : wins }}                  words chosen by a value that is True or False
```claims                                    the record of every claim (reference/claims)
"""

import functools
import html
import itertools
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import project
import run_snippet
from glossary import page_title
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File
from project import Fault

RUNNER = Path(__file__).with_name("run_snippet.py")
VALUE = re.compile(r"\{\{ ([\w/:.-]+) \}\}")
CHOICE = re.compile(r"\{\{ ([\w/:.-]+) \? ([^\n{}]+?) : ([^\n{}]*?) \}\}")
MARK = re.compile(r"<!-- (claim|test|source): ([^\n]*?) -->")  # what bears a sentence: marks.py
FENCE = re.compile(r"^(?P<indent>[ ]*)```(?P<info>.*)\n(?P<body>(?:.*\n)*?)(?P=indent)```[ ]*$", re.M)
# the list below a block that says what its annotations mean
LISTED = r"\n\s*\n(?:{indent}\d+\.[ ].*(?:\n{indent}[ ]{{2,}}\S.*|\n[ ]*(?=\n{indent}(?:\d+\.[ ]|[ ]{{2,}}\S)))*\n?)+"
INCLUDE = re.compile(r'--8<-- "(?P<script>[\w/.-]+?\.py)(?P<out>\.out)?(?::(?P<section>[\w-]+))?"')

WORDS = {
    "ja": {
        "hold": "主張{n}件が成立",
        "error": "、最大誤差{error}",
        "tolerance": "（許容{tolerance}）",
        "columns": ["節", "行", "種類", "主張", "回数", "形", "型", "最大誤差", "許容"],
        "equal": "等しい",
        "exact": "完全一致",
        "differs": "異なる",
        "bound": "条件",
        "raises": "エラー",
    },
    "en": {
        "hold": "{n} claim{s} hold{v}",
        "error": " · greatest error {error}",
        "tolerance": " (allowed {tolerance})",
        "columns": ["section", "line", "kind", "claim", "times", "shapes", "dtype", "greatest error", "allowed"],
        "equal": "equal",
        "exact": "exact",
        "differs": "differs",
        "bound": "bound",
        "raises": "raises",
    },
}


# ---------------------------------------------------------------- running


def scripts():
    """Every script below snippets/, recipes too, as paths."""
    return sorted(project.SNIPPETS.rglob("*.py"))


def record(script, part):
    """A part of a script's record (entry, claims, values, figures), or None where the script has none."""
    path = _record_path(script, part)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _record_path(script, part):
    return run_snippet.record_path(project.SNIPPETS / script, project.SNIPPETS, project.RECORDS, part)


def printed(script, section):
    """What a section of a script printed when it last ran; "" where it printed nothing or has not run."""
    path = project.RECORDS / f"{script}.out"
    found = run_snippet.sections(text := path.read_text(encoding="utf-8")) if path.exists() else {}
    first, last = found.get(section, (1, 0))
    return "\n".join(text.splitlines()[first - 1 : last]) if found else ""


def run_stale(paths, base, folder):
    """Run those scripts below `base` whose records below `folder` are not current; return {path: (line, message)} of faults.

    Afterwards every record is current, or its script is among the faults: nothing else lets a script pass.
    """
    foundation = run_snippet.foundation()

    def stale():
        return [path for path in paths if not run_snippet.is_current(path, base, folder, foundation)]

    faults = {}
    if waiting := stale():
        project.log.info(f"{len(waiting)} of {len(paths)} scripts to run")
        for path in waiting:
            run_snippet.record_path(path, base, folder, "entry").unlink(missing_ok=True)
        for done, told in enumerate(_run(waiting, base, folder), 1):
            project.log.info(f"script {done} of {len(waiting)}: {project.relative(told['script'])}")
            if told["fault"]:
                faults[Path(told["script"])] = told["fault"]["line"], told["fault"]["message"]
        if not faults:
            why = "it left no whole record of this script, or the script has changed meanwhile; what it said stands above"
            faults = dict.fromkeys(stale(), (0, f"the runner has ended: {why}"))
    return faults


def _run(paths, base, folder):
    """Start the runner; yield {"script": path, "fault": {line, message} or None} as each script finishes."""
    command = [sys.executable, str(RUNNER), "--base", str(base), "--batch", str(folder), *map(str, paths)]
    # no byte code, which would wake `mkdocs serve`; the same order of sets in every process
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # its end tells the runner that this process is gone
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        cwd=project.SNIPPETS,
    ) as job:
        yield from map(json.loads, job.stdout)


def run_scripts():
    """Run what is not current; return the faults. Records of scripts that are gone are removed."""
    project.RECORDS.mkdir(parents=True, exist_ok=True)
    names = [path.relative_to(project.SNIPPETS).as_posix() for path in scripts()]
    if not names:
        return [Fault("snippets", 0, "there is no script, so nothing would be checked")]
    _forget_gone(names)
    told = run_stale([project.SNIPPETS / name for name in names], project.SNIPPETS, project.RECORDS)
    faults = [Fault(project.relative(path), line, message) for path, (line, message) in told.items()]
    for name in names:
        entry = record(name, "entry")
        if entry and entry["no_claim"]:
            faults.append(
                Fault(f"snippets/{name}", 0, "it has no claim: nothing on its page would be proved", soft=True)
            )
    return faults


def _forget_gone(names):
    kept = {_record_path(name, part) for name in names for part in ("entry", *run_snippet.PARTS)}
    for path in project.RECORDS.rglob("*") if project.RECORDS.exists() else []:
        if path.is_file() and path not in kept:
            path.unlink()


# ---------------------------------------------------------------- what the pages ask for


def all_claims():
    """Every claim of the site: [(script, claim), …] in the order of scripts and lines."""
    names = [path.relative_to(project.SNIPPETS).as_posix() for path in scripts()]
    return [(name, claim) for name in names for claim in record(name, "claims") or []]


@functools.cache
def site_values():
    """The site's own values, for `{{ site:name }}`."""
    claims = [claim for _, claim in all_claims()]
    # a claim that states a tolerance of its own (a rate, a bound) says nothing about rounding
    errors = {
        dtype: max(
            (
                claim["error"] or 0
                for claim in claims
                if claim["kind"] == "equal" and claim["dtypes"] == [dtype] and claim["tolerance"] == tolerance
            ),
            default=0,
        )
        for dtype, tolerance in (("float64", [1e-7, 1e-7]), ("float32", [1.3e-6, 1e-5]))
    }
    return {
        "torch": run_snippet.version("torch").partition("+")[0],
        "python": platform.python_version(),
        "built": project.built().strftime("%Y-%m-%d"),
        "claims": str(sum(claim["count"] for claim in claims)),
        "claim_lines": str(len(claims)),
        "scripts": str(sum(1 for path in scripts() if "recipes" not in path.parts)),
        "greatest_error": f"{errors['float64']:.1e}",
        "greatest_error_float32": f"{errors['float32']:.1e}",
    }


def value(name, script):
    """The value `name` of `script`, of another script (`layouts/rosetta:name`) or of the site (`site:name`); None if there is none."""
    place, _, key = name.rpartition(":")
    if place == "site":
        return site_values().get(key)
    return (record(f"{place.replace('-', '_')}.py" if place else script, "values") or {}).get(key)


def fill_values(markdown, page):
    """Put each `{{ name }}` in and take the marks out; return the text and a fault for each value that no script showed."""
    script, faults = project.script_of(page), []

    def found(match):
        shown = value(match[1], script)
        line = markdown.count("\n", 0, match.start()) + 1
        if shown is None:
            faults.append(Fault(f"docs/{project.LANG}/{page}", line, f"no script showed the value {match[1]!r}"))
        elif match.re is CHOICE and shown not in ("True", "False"):
            told = f"{match[1]!r} chooses words, so it must be True or False, and is {shown}"
            faults.append(Fault(f"docs/{project.LANG}/{page}", line, told))
        return shown

    chosen = CHOICE.sub(lambda match: match[2] if found(match) == "True" else match[3], markdown)
    filled = VALUE.sub(lambda match: html.escape(str(found(match)), quote=False), chosen)
    return MARK.sub("", filled), faults


def _quiet_lines(markdown, page):
    """One line under each block that has claims: after its annotations and its output, if they follow."""
    root = "../" * (len(Path(page).parts) - 1)
    fences = list(FENCE.finditer(markdown))
    edits = []
    for fence, following in itertools.zip_longest(fences, fences[1:]):
        include = INCLUDE.search(fence["body"])
        if not include or include["out"] or not include["section"]:
            continue
        claims = [
            claim for claim in record(include["script"], "claims") or [] if claim["section"] == include["section"]
        ]
        if not claims:
            continue
        # a line between a block and its annotations would part them
        listed = re.compile(LISTED.format(indent=fence["indent"])).match(markdown, fence.end())
        after = listed.end() if listed else fence.end()
        if following and following["indent"] == fence["indent"] and not markdown[after : following.start()].strip():
            out = INCLUDE.search(following["body"])
            if out and out["out"] and out["section"] == include["section"] and out["script"] == include["script"]:
                after = following.end()
        link = f"{root}reference/claims.md#{include['script'].removesuffix('.py').replace('/', '-').replace('_', '-')}"
        indent = fence["indent"]
        edits.append((after, f"\n\n{indent}[{quiet_line(claims)}]({link})\n{indent}{{ .claims }}\n"))
    for place, text in reversed(edits):
        markdown = markdown[:place] + text + markdown[place:]
    return markdown


def _plain_listings(markdown):
    """Show a whole file without colours: folded, and to be downloaded, it need not weigh ten kilobytes."""

    def plain(fence):
        include = INCLUDE.search(fence["body"])
        if not include or include["section"] or include["out"]:
            return fence[0]
        return fence[0].replace("```python", "```text", 1)

    return FENCE.sub(plain, markdown)


def quiet_line(claims, language=None):
    """What the line under a block says of its claims."""
    words = WORDS[language or project.LANG]
    count = sum(claim["count"] for claim in claims)
    text = words["hold"].format(n=count, s="" if count == 1 else "s", v="s" if count == 1 else "")
    compared = [claim for claim in claims if claim["kind"] == "equal" and claim["error"] is not None]
    if compared:
        worst = max(compared, key=lambda claim: claim["error"])
        text += words["error"].format(error=_number(worst["error"]))
        text += words["tolerance"].format(tolerance=_tolerance(worst))
    return text


def _number(value):
    return "0" if value == 0 else f"{value:.1e}"


def _tolerance(claim):
    if not claim["tolerance"]:
        return "0"
    rtol, atol = claim["tolerance"]
    parts = [f"{atol:.2g}"] if atol else []
    return " + ".join([*parts, *([f"{rtol:.2g} |x|"] if rtol else [])]) or "0"


def _shape(shape):
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _shown_on(language):
    """Which page shows a script: the one with its path, else the first that includes it: {script: page}."""
    shown = {}
    for page in project.page_files(language):
        text = (project.DOCS / language / page).read_text(encoding="utf-8")
        for include in INCLUDE.finditer(text):
            shown.setdefault(include["script"], page)
    return shown | {
        project.script_of(page): page for page in project.page_files(language) if project.script_of(page) in shown
    }


def claims_table(language, root):
    """The record of every claim as HTML: one table a script, `root` leading from the page to the language's root."""
    words, tables, by_script = WORDS[language], [], {}
    for script, claim in all_claims():
        by_script.setdefault(script, []).append(claim)
    heads = "".join(f'<th scope="col">{name}</th>' for name in words["columns"])
    shown = _shown_on(language)
    for script, claims in by_script.items():
        title = f"<small>{html.escape(script)}</small>"
        if page := shown.get(script):
            address = page.with_suffix("").as_posix()
            link = f"{root}{'' if address == 'index' else address + '/'}"
            title = f'<a href="{link}">{html.escape(page_title(language, page.as_posix()))}</a> {title}'
        rows = []
        for claim in claims:
            kind = words[claim["kind"]]
            said = html.escape(claim["text"])
            if claim.get("sides") and claim["kind"] in ("bound", "raises"):
                said += f'</code> <code class="claims-sides">{html.escape(" · ".join(claim["sides"]))}'
            cells = [
                (claim["section"] or claim["guard"] or "").replace("_", "_<wbr>"),
                claim["line"],
                kind,
                f"<code>{said}</code>",
                claim["count"],
                " ".join(map(_shape, claim["shapes"])),
                " ".join(claim["dtypes"]),
                "" if claim["error"] is None else _number(claim["error"]),
                _tolerance(claim) if claim["tolerance"] else "",
            ]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        identity = script.removesuffix(".py").replace("_", "-").replace("/", "-")
        tables.append(
            f'<h2 id="{identity}">{title}</h2>\n<div class="claims-scroll" tabindex="0" role="region" aria-labelledby="{identity}">'
            f'<table class="claims-table"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        )
    return "\n".join(tables)


# ---------------------------------------------------------------- MkDocs


def on_config(config):
    config.mdx_configs["pymdownx.snippets"] = {
        **config.mdx_configs.get("pymdownx.snippets", {}),
        "base_path": [str(project.SNIPPETS), str(project.RECORDS)],
        "check_paths": True,
    }


def on_pre_build(config):
    site_values.cache_clear()
    if not project.IS_CHILD:
        project.stop(run_scripts())


def on_files(files, config):
    for path in sorted((project.SNIPPETS / "recipes").glob("*.py")):
        files.append(
            File(
                path.relative_to(project.SNIPPETS).as_posix(),
                str(project.SNIPPETS),
                config.site_dir,
                config.use_directory_urls,
            )
        )


@event_priority(50)
def on_page_markdown(markdown, page, config, files):
    name = page.file.src_uri
    markdown = _plain_listings(_quiet_lines(markdown, name))
    markdown = re.sub(
        r"^```claims\n+```$", lambda _: claims_table(project.LANG, "../" * len(Path(name).parts)), markdown, flags=re.M
    )
    markdown, faults = fill_values(markdown, name)
    project.stop(faults)
    return markdown
