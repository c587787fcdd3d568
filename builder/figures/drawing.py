"""What figures are drawn with: text and numbers as SVG sets them, axes with round ticks, a panel that collects shapes.

Colours are classes (figures.css): a strict Content-Security-Policy leaves no room for style attributes.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape

TEXT = 13  # px, of every label
SMALL = 12  # px, of ticks and of numbers in cells
INDEX = 0.85  # of its symbol: an index too stays at 11 px
LEAST = 11  # px, the smallest text a phone may show
PHONE = 328  # px left for a figure on a screen 360 wide


class Refused(ValueError):
    """The figure cannot be drawn honestly. `by` says whose line must change: "script" or "page"."""

    def __init__(self, message, by="script"):
        super().__init__(message)
        self.by = by


@dataclass
class Array:
    """A tensor as a script kept it: shape, and nested lists (None where only the shape is known)."""

    shape: tuple[int, ...]
    data: list | float | None = None

    @classmethod
    def of(cls, stored: dict) -> "Array":
        """The tensor that a script kept: {"shape", "data"}, null in its numbers being NaN."""
        return cls(tuple(stored["shape"]), floats(stored.get("data")))


def floats(value: list | float | None) -> list | float | None:
    """Nested lists with null read as NaN; integers stay integers, so that a count is printed as one."""
    if isinstance(value, list):
        return [math.nan if item is None else floats(item) for item in value]
    return value


# Text


MATH = re.compile(
    r"(?<![A-Za-z0-9_])([A-Za-zα-ωΑ-Ω]|10|head(?=_[0-9a-z]\b))(?=[_^])(?:_(\{[^{}]*\}|[A-Za-z0-9]+))?(?:\^(\{[^{}]*\}|-?[A-Za-z0-9⊤]+))?"
    r"(?![A-Za-z0-9_^]|\.[A-Za-z])"
)
NARROW = {**dict.fromkeys("iljI.,:;'|!", 0.27), **dict.fromkeys('frt()[]{}/-* "', 0.34)}
NARROW |= {**dict.fromkeys("mwMW@%", 0.88), **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ", 0.7)}


def clean(text: object) -> str:
    """`text` escaped for HTML, without the control characters that HTML forbids."""
    return escape("".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in str(text)))


def width_of(text: object, size: float = TEXT, code: bool = False) -> float:
    """About how wide `text` is set, in px: the reader's font is not known here, so a little on the wide side."""

    def em(char):
        if unicodedata.combining(char):
            return 0
        if unicodedata.east_asian_width(char) in "WFA":
            return 1
        return 0.62 if code else NARROW.get(char, 0.57)

    plain = str(text)
    if not code:
        plain = MATH.sub(lambda m: m[1] + max((m[2] or "").strip("{}"), (m[3] or "").strip("{}"), key=len)[:99], plain)
    return size * sum(map(em, plain))


def typeset(text: str, size: float = TEXT) -> str:
    """`W_1^Q` and `d_k` with true subscripts and superscripts; in_proj_weight and other names stay as they are.

    The shifts are written as dy, because Firefox does not know baseline-shift.
    """
    out, end, pending = [], 0, (0.0, 0.0)  # pending: (dx, dy) that brings the pen back

    def span(content, dx, dy, small=False):
        moves = (f' dx="{trim(dx)}"' if dx else "") + (f' dy="{trim(dy)}"' if dy else "")
        slanted = content.isalpha() and (len(content) == 1 and content.islower() if small else len(content) == 1)
        kind = " ".join(name for name, given in (("s", small), ("i", slanted)) if given)
        kind = f' class="{kind}"' if kind else ""
        out.append(f"<tspan{kind}{moves}>{clean(content)}</tspan>")

    for match in MATH.finditer(str(text)):
        before = text[end : match.start()]
        if before:
            if any(pending):
                out.append(f'<tspan dx="{trim(pending[0])}" dy="{trim(pending[1])}">{clean(before)}</tspan>')
                pending = (0, 0)
            else:
                out.append(clean(before))
        span(match[1], *pending)
        low, high = ((part or "").strip("{}") for part in match.group(2, 3))
        low_width, high_width = (width_of(part, INDEX * size) for part in (low, high))
        down, up = 0.3 * size, -0.42 * size
        if low:
            span(low, 0.04 * size, down, small=True)
        if high:
            span(high, -low_width if low else 0.08 * size, up - (down if low else 0), small=True)
        pending = (max(0, low_width - high_width) if low and high else 0, -(up if high else down))
        end = match.end()
    rest = text[end:]
    if rest and any(pending):
        rest = f'<tspan dx="{trim(pending[0])}" dy="{trim(pending[1])}">{clean(rest)}</tspan>'
    else:
        rest = clean(rest)
    return "".join(out) + rest


def trim(value: float) -> str:
    """A coordinate in as few letters as a tenth of a pixel needs."""
    return f"{round(value, 1) + 0:.1f}".rstrip("0").rstrip(".")


STEPS = re.compile(r"([A-Za-z])([^A-Za-z]*)")
LENGTH = re.compile(r"-?\d*\.?\d+")
REACH = {"M": 2, "L": 2, "H": 1, "V": 1, "Q": 4}  # numbers of a command


def in_steps(d: str) -> str:
    """The same path in steps instead of places, but for where each part of it begins: what is alike is written alike.

    Exact: coordinates are whole tenths of a pixel. A part that says its first step in letters of its own stays as it is.
    """
    out, x, y, last, start = [], 0, 0, "", (0, 0)
    for command, said in STEPS.findall(d):
        numbers = [round(10 * float(length)) for length in LENGTH.findall(said)]
        if command == "a" or (command.isupper() and len(numbers) != REACH.get(command, 0)):
            return d
        if command in "zZ":
            (x, y), step = start, []
        elif command == "M":
            (x, y), step = numbers, numbers
            start = x, y
        elif command in "Hh":
            step = [numbers[0] - x * command.isupper()]
            x += step[0]
        elif command in "Vv":
            step = [numbers[0] - y * command.isupper()]
            y += step[0]
        else:
            if command.isupper():
                step = [number - (y if place % 2 else x) for place, number in enumerate(numbers)]
            else:
                step = numbers
                if len(step) != REACH.get(command.upper(), 0):
                    return d
            x, y = x + step[-2], y + step[-1]
            if command in "Ll" and 0 in step:
                command = "h" if step[1] == 0 else "v"
                step = [step[command == "v"]]
        command = command if command == "M" else command.lower()
        lengths = " ".join(trim(length / 10) for length in step).replace(" -", "-")
        if command == last and command in "lq":
            out.append(lengths if lengths.startswith("-") else " " + lengths)
        else:
            out.append(command + lengths)
        last = command
    return "".join(out)


def number(value: float, digits: int) -> str:
    """A number with a fixed count of decimals and a true minus sign."""
    if isinstance(value, bool):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return re.sub(r"^-(?=0\.?0*$)", "", f"{value:.{digits}f}").replace("-", "−")


def compact(value: float) -> str:
    """A number with four digits that count, as short as it can be read."""
    if isinstance(value, bool) or not math.isfinite(value):
        return number(value, 0)
    if value == int(value) and abs(value) < 1e6:
        return number(value, 0)
    return re.sub(r"e([+-])0*(\d)", r"e\1\2", f"{value:.4g}").replace("e+", "e").replace("-", "−")


EXPONENTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def written(value: float, plain: bool | None = None) -> str:
    """A number as a picture shows it: three digits that count, powers of ten where it is very small or large."""
    if plain is None:
        plain = 1e-3 <= abs(value) < 1e5
    if value == 0 or not math.isfinite(value) or plain:
        return f"{value:.10g}".replace("-", "−") if value == round(value, 3) else compact(float(f"{value:.3g}"))
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    factor = f"{value / 10.0**exponent:.2f}".rstrip("0").rstrip(".").replace("-", "−")
    lead = {"1": "", "−1": "−"}.get(factor, f"{factor}×")
    return f"{lead}10{str(exponent).translate(EXPONENTS)}"


def flat(value: list | float) -> Iterator[float]:
    """Every number of nested lists, in order."""
    if isinstance(value, list):
        for item in value:
            yield from flat(item)
    else:
        yield value


# A panel


@dataclass
class Panel:
    """One picture: draws into `parts`, remembers its smallest text."""

    width: float = 0
    height: float = 0
    label: str = ""  # what the picture is, when a figure has several
    legend: bool = False
    cluster: str = ""  # neighbours of one cluster stand in one line
    least: float = TEXT
    parts: list[str] = field(default_factory=list)

    def add(self, markup: str) -> None:
        """Draw what is SVG already."""
        self.parts.append(markup)

    def text(
        self,
        x: float,
        y: float,
        content: object,
        classes: str = "",
        size: float = TEXT,
        code: bool = False,
        extra: str = "",
    ) -> None:
        """Text whose baseline is at y; classes m and e set it around or before x."""
        self.least = min(self.least, size)
        classes = " ".join(filter(None, (classes, "z" if size == SMALL else "", "c" if code else "")))
        body = clean(content) if code else typeset(str(content), size)
        kind = f' class="{classes}"' if classes else ""
        self.add(f'<text{kind} x="{trim(x)}" y="{trim(y)}"{extra}>{body}</text>')

    def rect(self, x: float, y: float, w: float, h: float, classes: str = "", extra: str = "") -> None:
        """A rectangle whose upper left corner is (x, y), in px; `extra` are further attributes."""
        kind = f' class="{classes}"' if classes else ""
        self.add(f'<rect{kind} x="{trim(x)}" y="{trim(y)}" width="{trim(w)}" height="{trim(h)}"{extra}/>')

    def path(self, d: str, classes: str = "", extra: str = "") -> None:
        """A path, as SVG writes one."""
        kind = f' class="{classes}"' if classes else ""
        self.add(f'<path{kind} d="{in_steps(d)}"{extra}/>')

    @property
    def fits_phone(self) -> bool:
        """Whether it may shrink to a phone's width and its smallest text still be at least 11 px."""
        return self.width * LEAST / self.least <= PHONE

    def svg(self, naming: str) -> str:
        """The whole picture; `naming` are the attributes that say what it is called."""
        width, height = math.ceil(self.width), math.ceil(self.height)
        size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        return f"<svg {naming} {size}>{''.join(self.parts)}</svg>"


def arrow(x: float, y: float, dx: float, dy: float, size: float = 4) -> str:
    """Path of an arrow head whose tip is (x, y), flying along (dx, dy)."""
    return (
        f"M{trim(x - size * dx - size * dy * 0.8)} {trim(y - size * dy - size * dx * 0.8)}"
        f"L{trim(x)} {trim(y)}L{trim(x - size * dx + size * dy * 0.8)} {trim(y - size * dy + size * dx * 0.8)}"
    )


# Axes


@dataclass
class Axis:
    """A scale from numbers to pixels, with ticks at round numbers."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __post_init__(self):
        if self.log and self.low <= 0:
            raise Refused(f"a logarithmic axis cannot show {self.low:g}")
        if not self.low < self.high:
            self.low, self.high = (self.low / 2, self.high * 2) if self.log else (self.low - 0.5, self.high + 0.5)

    def __call__(self, value):
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """About `most` round numbers that lie on the axis, in order; powers of ten and their parts where it is logarithmic."""
        if self.log:
            first, last = math.floor(math.log10(self.low) + 1e-9), math.ceil(math.log10(self.high) - 1e-9)
            step = max(1, math.ceil((last - first) / most))
            factors = (1,) if last - first > 3 else (1, 2, 5) if last - first > 1 else (1, 2, 3, 5, 7)
            marks = [f * 10.0**e for e in range(first, last + 1, step) for f in factors]
        else:
            raw = (self.high - self.low) / most
            power = 10.0 ** math.floor(math.log10(raw))
            step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            marks = [k * step for k in range(first, last + 1)]
        start, end = sorted((self.start, self.end))
        return [m for m in marks if m > 0 or not self.log if start - 0.01 <= self(m) <= end + 0.01]

    def names(self, ticks: Iterable[float]) -> dict[float, str]:
        """{tick: how it is written}: on one axis either all powers of ten are spelled out, or none is."""
        plain = all(t == 0 or 1e-3 <= abs(t) < 1e5 for t in ticks)
        return {t: written(t, plain) for t in ticks}

    def rounded(self, room: int) -> "Axis":
        """The same axis widened to the next ticks, so that the first and last grid lines close the picture."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)) - 1, math.ceil(math.log10(self.high)) + 2)
            steps = [f * 10.0**e for e in decades for f in (1, 2, 5)]
            self.low = max(s for s in steps if s <= self.low * (1 + 1e-9))
            self.high = min(s for s in steps if s >= self.high * (1 - 1e-9))
        else:
            marks = self.ticks(room)
            step = marks[1] - marks[0] if len(marks) > 1 else 1
            self.low, self.high = math.floor(self.low / step + 1e-9) * step, math.ceil(self.high / step - 1e-9) * step
        return self
