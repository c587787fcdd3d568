"""What a reader need not fetch or find: the theme's rules for what no page has, and text that stands elsewhere already."""

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import tinycss2

from builder import project
from builder.finished import markup
from builder.kept import kept

if TYPE_CHECKING:
    from builder.pages.page import Page

CLASSES = re.compile(r'class="([^"]*)"')
WORD = re.compile(r"[\w-]+")
GROUPS = {"media", "supports"}
EXPLORERS_CSS = re.compile(r'\s*<link rel="stylesheet" href="[^"]*stylesheets/explorers\.css">')
STAGE = 'class="explorer-stage"'
# What the search has seen, what says which program made the page, and a place for announcements that has none.
UNREAD = re.compile(
    r' data-search-exclude(?=[ >])|<meta name="generator"[^>]*>\s*|<div data-md-component="announce">\s*</div>\s*'
)

# Names, operators, punctuation and space are set in the code's own colour: half of a page's elements say nothing else.
BLOCK = re.compile(r"<pre\b.*?</pre>", re.S)
# Where a line ends in the markup, the templates leave many that are empty; in code each of them counts.
SPACED = re.compile(r"(<(pre|code|script|textarea)\b.*?</\2\s*>)|\s*\n\s*", re.S)
PLAIN = re.compile(r'<span class="(?:[nopw]|fm|kc|ow|sa|vm)">([^<]*)</span>')
# What the theme gives one colour is one class, and what stands side by side one span.
ALIKE = {
    kind: kinds.split()[0]
    for kinds in ("k kd kn nd", "mi mf", "nb bp", "nf nc ne nn", "s2 s1 si")
    for kind in kinds.split()
}
SPANS = re.compile(r'<span class="\w+">|</span>')
SPAN = re.compile(r'<span class="(\w+)">(?=[^<]*</span>)')
SIDE_BY_SIDE = re.compile(r'<span class="(\w+)">([^<]*)</span>([ ]*)<span class="\1">(?=[^<]*</span>)')
CHECKED = re.compile(r'(?<=<span class="hll">)(?:<span class="\w+">[^<]*</span>|[^<])*(?=</span>)')  # all of one colour


COMMENTS = {
    "stylesheets/*.css": re.compile(r"[ \t]*/\*.*?\*/\n?|^[ \t]+", re.S | re.M),
    "javascripts/*.js": re.compile(r"^[ \t]*(?://[^\n]*|/\*\*.*?\*/[ \t]*)\n", re.S | re.M),
}
COMMENTS |= {"explorers/*.js": COMMENTS["javascripts/*.js"], "explorers/*.css": COMMENTS["stylesheets/*.css"]}


def needed(css: str, words: set[str]) -> str:
    """The rules of a style sheet whose classes are all among `words`; rules without classes stay."""

    def left(rule):
        return [one for one in _cut(rule.prelude, ",") if _can_match(one, words)], tinycss2.serialize(rule.content)

    return _rules(css, left)


def without_unread(css: str, read: set[str]) -> str:
    """The style sheet less the custom properties that are not in `read`: most are icons of boxes that we do not have."""

    def left(rule):
        said = [tinycss2.serialize(one) for one in _cut(rule.content, ";")]
        return [rule.prelude], ";".join(
            one for one in said if not one.startswith("--") or one.partition(":")[0] in read
        )

    return _rules(css, left)


def _rules(css, left):
    """CSS, given as text or as tokens, of each rule what left(rule) says: its selectors and its body; nothing of an empty one."""
    kept = []
    for rule in tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True):
        if rule.type == "qualified-rule":
            selectors, body = left(rule)
            head = ",".join(map(tinycss2.serialize, selectors))
        elif rule.type == "at-rule" and rule.lower_at_keyword in GROUPS:
            head, body = f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}", _rules(rule.content, left)
        else:  # the file is sent as UTF-8 and need not say so
            said = rule.type == "at-rule" and rule.lower_at_keyword == "charset"
            kept.append("" if said else rule.serialize())
            continue
        kept.append(f"{head}{{{body}}}" if head and body else "")
    return "".join(kept)


def _cut(tokens, mark):
    """Lists of the tokens between the marks; marks within brackets or strings are in tokens of their own."""
    parts = [[]]
    for token in tokens:
        if token == mark:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _can_match(selector, words):
    """What stands in :not(…), :is(…) or [attributes] is in tokens of its own and asks for no class."""
    names = [token.value for dot, token in pairwise(selector) if dot == "." and token.type == "ident"]
    return words.issuperset(names)


def plainer(block: str) -> str:
    """A block of code without spans that colour nothing; the last one stays, by which style sheets know code from output."""
    bare = PLAIN.sub(r"\1", block)
    bare = SPAN.sub(lambda span: f'<span class="{ALIKE.get(span[1], span[1])}">', bare)
    while (joined := SIDE_BY_SIDE.sub(r'<span class="\1">\2\3', bare)) != bare:
        bare = joined
    bare = CHECKED.sub(lambda line: SPANS.sub("", line[0]), bare)
    return bare if '<span class="' in bare else block


def unsearched(html: str, page: "Page") -> str:
    """Whole recipe files (their sections are shown), links to notebooks and claims are not searched."""
    left_out = r'<(details class="file"|p class="(?:page-tools|page-way|page-next|claims)")'
    return re.sub(left_out, r"<\1 data-search-exclude", html)


def is_unsearched(html: str) -> bool:
    """Whether a page's text is left out of the search as a whole: the record of all claims."""
    return 'class="claims-scroll"' in html


def lighter(html: str, page: "Page") -> str:
    """Code is coloured where colours differ; an explorer's style sheet goes only where it stands."""
    html = UNREAD.sub("", html)
    html = SPACED.sub(lambda found: found[1] or "\n", BLOCK.sub(lambda block: plainer(block[0]), html))
    own = "".join(
        f'\n<link rel="stylesheet" href="{page.link(f"explorers/{name}.css")}">'
        for name in markup.explorers()
        if f"<{name}" in html and (project.DOCS / "shared" / "explorers" / f"{name}.css").is_file()
    )
    return EXPLORERS_CSS.sub(lambda link: f"{link[0] if STAGE in html else ''}{own}", html)


def without_comments(folder: Path) -> None:
    """Our own style sheets and scripts in `folder` less what only their writers read; line by line they stay as they are."""
    for name, pattern in COMMENTS.items():
        for path in folder.glob(name):
            text = pattern.sub("", path.read_text(encoding="utf-8"))
            path.write_text(_not_indented(text) if path.suffix == ".js" else text, encoding="utf-8")


def _not_indented(script):
    """The lines of a script from their first letter on, but for those of a text in backticks."""
    inside, lines = False, []
    for line in script.splitlines(keepends=True):
        lines.append(line if inside else line.lstrip(" \t"))
        inside ^= line.count("`") % 2 == 1
    return "".join(lines)


def theme_css(folder: Path) -> None:
    """The theme's style sheets of the site in `folder` less the rules for what none of its pages has."""
    html = [path.read_text(encoding="utf-8") for path in folder.rglob("*.html")]
    scripts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.js"))]
    ours = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.css")) if "assets" not in path.parts]
    words = {name for text in html for names in CLASSES.findall(text) for name in names.split()}
    words |= {word for text in scripts + ours for word in WORD.findall(text)}
    for sheet in folder.glob("assets/stylesheets/main.*.css"):
        whole = sheet.read_text(encoding="utf-8")
        css = kept("styles", [whole, sorted(words), ours, scripts], lambda: _less(whole, words, ours + scripts))  # noqa: B023
        sheet.write_text(css, encoding="utf-8")


def _less(css, words, readers):
    css = needed(css, words)
    read = {name for text in [css, *readers] for name in re.findall(r"--[\w-]+", re.sub(r"(--[\w-]+)\s*:", "", text))}
    return without_unread(css, read)
