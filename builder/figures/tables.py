"""A figure's numbers as tables of HTML, for who cannot see it or wants to read them."""

import math

from builder.figures.drawing import MATH, clean, compact, number

MOST_ROWS = 200


def marked(text: object) -> str:
    """`text` escaped, its symbols such as W_1^Q with indices in HTML."""

    def index(match):
        base, low, high = match[1], *((part or "").strip("{}") for part in match.group(2, 3))
        return base + (f"<sub>{low}</sub>" if low else "") + (f"<sup>{high}</sup>" if high else "")

    return MATH.sub(index, clean(text))


def table(caption: str, header: list[str], rows: list[list[str]]) -> str:
    """An HTML table whose first column heads its rows. header and rows are texts, already written."""
    head = "".join(
        f'<th scope="col">{marked(cell)}</th>' if cell or i else "<td></td>" for i, cell in enumerate(header)
    )
    body = "".join(
        f'<tr><th scope="row">{marked(row[0])}</th>' + "".join(f"<td>{marked(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    title = f"<caption>{marked(caption)}</caption>" if caption else ""
    label = f' role="group" aria-label="{clean(caption)}"' if caption else ""
    return (
        f'<div class="figure__scroll" tabindex="0"{label}><table class="figure__table">{title}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def few(rows: list[list[str]], words: dict[str, str], caption: str) -> tuple[list[list[str]], str]:
    """(rows, caption): at most MOST_ROWS, evenly chosen, and a caption that says so."""
    if len(rows) <= MOST_ROWS:
        return rows, caption
    step = math.ceil(len(rows) / MOST_ROWS)
    kept = rows[::step]
    note = words["more"].format(shown=len(kept), all=len(rows))
    return kept, caption + words["aside"].format(note) if caption else note


def shortened(value: float, digits: int) -> str:
    """A number of a matrix: whole if whole, else rounded to `digits` decimals without trailing zeros."""
    if isinstance(value, bool) or not math.isfinite(value):
        return number(value, 0)
    written = number(value, digits)
    if set(written) <= set("−0."):
        return compact(value)
    return written.rstrip("0").rstrip(".") if "." in written else written
