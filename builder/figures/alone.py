"""A figure that stands alone, in a notebook: one SVG, its panels in lines, the style sheet's rules and colours inside."""

import functools
import math
import re

from builder import colours, project
from builder.figures.drawing import Panel

SHEET = project.DOCS / "shared" / "stylesheets" / "figures.css"
RULE = re.compile(r"^([^{}@/]+?)\s*\{([^{}]*)\}", re.M)
# a rule about the parts of a picture
DRAWS = re.compile(r"\.figure__svg [.\w]|\.figure--attention \.n|\.figure \.[rs]-")
WIDEST, GAP, EDGE = 720, 24, 8  # px


@functools.cache
def style(sheet: str) -> str:
    """The rules of the figures' style sheet that draw, in the light colours: a notebook's own scheme is not known."""
    found = [(" ".join(selector.split()), " ".join(body.split())) for selector, body in RULE.findall(sheet)]
    rules = [f"{selector}{{{body}}}" for selector, body in found if DRAWS.match(selector)]
    return colours.filled("".join(rules)).replace(".figure__svg ", ".figure ")


def svg(kind: str, panels: list[Panel]) -> str:
    """The panels as one picture, as many side by side as a notebook is wide."""
    lines: list[list[Panel]] = []
    for panel in panels:
        if lines and not panel.legend and sum(one.width + GAP for one in lines[-1]) + panel.width <= WIDEST:
            lines[-1].append(panel)
        else:
            lines.append([panel])
    parts, y, width = [], EDGE, 0
    for line in lines:
        x = EDGE
        for panel in line:
            parts.append(panel.svg(f'x="{x}" y="{y}" overflow="visible"'))
            x += math.ceil(panel.width) + GAP
        width = max(width, x - GAP + EDGE)
        y += math.ceil(max(panel.height for panel in line)) + GAP
    height = y - GAP + EDGE
    paper = f'<rect width="{width}" height="{height}" fill="{colours.of("light")["--figure-paper"]}"/>'
    rules = "text{font:13px sans-serif}" + style(SHEET.read_text("utf-8"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="figure figure--{kind}" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}"><style>{rules}</style>{paper}{"".join(parts)}</svg>'
    )
