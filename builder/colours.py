"""The colours. The site's style sheets type each once, as a custom property; what loads none of them has its colours from here."""

import functools
import re

from builder import project

HOMES = ("site.css", "figures.css")  # below docs/shared/stylesheets
SCHEMES = {"light": ":root", "dark": '[data-md-color-scheme="slate"]'}
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
PROPERTY = re.compile(r"(--[\w-]+):\s*([^;]+);")
NAMED = re.compile(r"var\((--(?:md|site|figure)-[\w-]+)\)")
DARK = re.compile(r"(@media \(prefers-color-scheme: dark\) \{)(.*?\n\})", re.S)


@functools.cache
def of(scheme: str) -> dict[str, str]:
    """{custom property: value} in one scheme, "light" or "dark"."""
    found = of("light").copy() if scheme == "dark" else {}
    for home in HOMES:
        sheet = re.sub(
            r"/\*.*?\*/", "", (project.DOCS / "shared" / "stylesheets" / home).read_text("utf-8"), flags=re.S
        )
        for selectors, body in RULE.findall(sheet):
            if SCHEMES[scheme] in [selector.strip() for selector in selectors.split(",")]:
                found |= dict(PROPERTY.findall(body))
    return found


def filled(sheet: str) -> str:
    """A style sheet that stands alone, with the site's colours in the place of their names."""

    def values(text: str, scheme: str) -> str:
        return NAMED.sub(lambda name: of(scheme)[name[1]], text)

    return values(DARK.sub(lambda dark: dark[1] + values(dark[2], "dark"), sheet), "light")
