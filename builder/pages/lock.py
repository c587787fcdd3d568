"""The lock: which pairs of pages were read side by side, and what the run had put on them then."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from builder import languages, project
from builder.pages import checks, reader, shown
from builder.project import Fault
from builder.scripts import current


def lock_file() -> Path:
    """docs/translations.lock.json, which the first stamp makes."""
    return project.DOCS / "translations.lock.json"


def digests(page: str) -> dict[str, str]:
    """{language: digest} of a page's Markdown, and `run`, of what its scripts put there; code itself is not kept.

    The words that search finds a page by may change without rereading.
    """
    texts = {
        language: reader.without_search_words((project.DOCS / language / page).read_bytes().decode("utf-8"))
        for language in languages.having(page)
    }
    found = {language: hashlib.sha256(text.encode()).hexdigest()[:16] for language, text in texts.items()}
    return {**found, "run": shown.digest(page, next(iter(texts.values())))}


def read_lock() -> dict[str, dict[str, str]]:
    """{page: its digests} when it was last read. Raises ValueError, with what to tell, where the file is none of ours."""
    try:
        lock = json.loads(lock_file().read_text("utf-8")) if lock_file().is_file() else {}
        if not all(isinstance(then, dict) for then in lock.values()):
            raise ValueError("a page has no digests")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"is not the JSON that `make stamp` writes: {error}") from None
    return lock


def faults(pairs: list[str], lock: dict[str, dict[str, str]]) -> Iterator[Fault]:
    """Pairs that have changed since they were read, or were never read, and entries of pages that are gone."""
    for page in pairs:
        command = f"make stamp PAGE={page.removesuffix('.md')}"
        then, now = lock.get(page), digests(page)
        if not then:
            yield Fault(
                f"docs/{next(iter(now))}/{page}",
                0,
                f"this pair was never read side by side: read both languages, then `{command}`",
                soft=True,
            )
            continue
        moved = [language for language in languages.having(page) if then.get(language) != now[language]]
        if not moved and then.get("run") != now.get("run"):
            yield Fault(
                f"docs/{next(iter(now))}/{page}",
                0,
                "its scripts say something else than when the pair was last read (outputs, values, figures or claims): "
                f"reread both, then `{command}`",
                soft=True,
            )
        if moved:
            still = [f"docs/{language}/{page}" for language in languages.having(page) if language not in moved]
            what = (
                f"but {still[0]} did not"
                if still
                else "and so did " + ", ".join(f"docs/{language}/{page}" for language in moved[1:])
            )
            yield Fault(
                f"docs/{moved[0]}/{page}",
                0,
                f"changed since the pair was last read side by side, {what}: reread both, then `{command}`",
                soft=True,
            )
    for page in sorted(set(lock) - set(pairs)):
        if not any((project.DOCS / language / page).is_file() for language in project.LANGUAGES):
            yield Fault(
                project.relative(lock_file()),
                0,
                f"{page} is gone from every language: `make stamp PAGE={page.removesuffix('.md')}` drops its entry",
                soft=True,
            )


def stamp(names: list[str]) -> int:
    """Accept one reread pair. Returns the exit status: 0, or 2 when refused, with the reason on stderr."""

    def refuse(reason):
        print(reason, file=sys.stderr)
        return 2

    names = [name for name in names if name]
    if len(names) != 1:
        return refuse(
            "Name one page, for example: make stamp PAGE=layouts/rosetta "
            "(one at a time, because each pair is to be reread)."
        )
    page = names[0].removesuffix(".md") + ".md"
    known = {language: {file.as_posix() for file in project.page_files(language)} for language in project.LANGUAGES}
    try:
        lock = read_lock()
    except ValueError as error:
        return refuse(f"{project.relative(lock_file())} {error}")
    missing = [language for language in project.COMPLETE if page not in known[language]]
    if missing == project.COMPLETE and page in lock:
        del lock[page]
        print(f"dropped {page}: it is gone from every language")
    elif missing:
        return refuse(f"There is no {' and no '.join(f'docs/{language}/{page}' for language in missing)}.")
    else:
        one, *others = (reader.read(language, page) for language in languages.having(page))
        if wrong := [fault for other in others for fault in checks.pair_faults(one, other)]:
            return refuse("\n".join([*map(str, wrong), f"{page} is not stamped: mend these first."]))
        now, then = digests(page), lock.get(page, {})
        moved = [name for name in dict.fromkeys([*now, *then]) if then.get(name) != now.get(name)]
        lock[page] = now
        print(f"stamped {page}: " + (f"{', '.join(moved)} had moved" if moved else "nothing had moved"))
    lock_file().write_text(json.dumps(lock, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    return 0


def main(names: list[str]) -> int:
    """`make stamp`: run what is not current, for what the scripts say now is what is accepted, then stamp. The exit status."""
    project.lock()
    if broken := current.run_scripts():
        print("\n".join(map(str, broken)), file=sys.stderr)
        return 1
    return stamp(names)
