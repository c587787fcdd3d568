"""The named sections of a script, or of what it printed: runs of whole lines between two markers."""

import functools
import re

MARKER = re.compile(r"^\s*# --8<-- \[(start|end):([\w-]+)\]\s*$")


class Broken(Exception):
    """What is wrong with a script: `line` (0 for the whole file) and a message."""

    def __init__(self, line, message):
        super().__init__(message)
        self.line = line


def spans(source: str) -> dict[str, tuple[int, int]]:
    """Map each section's name to its first and last line (markers excluded).

    Raises Broken when a section is opened twice, inside another, closed without being open, or never closed.
    """
    found, opened, start = {}, None, 0
    for number, line in enumerate(source.splitlines(), 1):
        marker = MARKER.match(line)
        if not marker:
            if "--8<--" in line:
                raise Broken(number, f"this looks like a section marker and is none: {line.strip()}")
            continue
        edge, name = marker.groups()
        if edge == "start":
            if opened:
                raise Broken(
                    number,
                    f"section [{name}] starts inside section [{opened}], which line {start} opened and nothing closed",
                )
            if name in found:
                raise Broken(number, f"section [{name}] is named twice: its first stands at line {found[name][0] - 1}")
            opened, start = name, number
        else:
            if name != opened:
                raise Broken(
                    number,
                    f"[end:{name}] closes no section: "
                    + (f"open is [{opened}] of line {start}" if opened else "none is open"),
                )
            found[name], opened = (start + 1, number - 1), None
    if opened:
        raise Broken(start, f"section [{opened}] is never closed")
    return found


def at(found: dict[str, tuple[int, int]], line: int) -> str | None:
    """The name of the section that holds `line`, or None."""
    return next((name for name, (first, last) in found.items() if first <= line <= last), None)


@functools.lru_cache(maxsize=256)
def texts(source: str) -> dict[str, str]:
    """{name: its lines as one text} of every section, markers excluded."""
    lines = source.splitlines()
    return {name: "\n".join(lines[first - 1 : last]) for name, (first, last) in spans(source).items()}
