"""What a reader need not fetch or find: the theme's rules for what no page has, and text that stands elsewhere already."""

import re
from pathlib import Path

import finish
from mkdocs.plugins import event_priority

CLASSES = re.compile(r'class="([^"]*)"')
WORD = re.compile(r"[\w-]+")
SELECTED = re.compile(r"\.((?:[\w-]|\\.)+)")
# Inside :not(…), :is(…) and the like a class need not be there for the selector to hold; [attributes] are not classes.
CONDITIONAL = re.compile(r":[\w-]+\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|\[[^\]]*\]")
EXPLORERS_CSS = re.compile(r'\s*<link rel="stylesheet" href="[^"]*stylesheets/explorers\.css">')

# Names, operators, punctuation and space are set in the code's own colour: half of a page's elements say nothing else.
BLOCK = re.compile(r"<pre\b.*?</pre>", re.S)
PLAIN = re.compile(r'<span class="[nopw]">([^<]*)</span>')


def cut(text, mark):
    """Split CSS at a mark that stands outside of strings, brackets and blocks."""
    parts, start, depth, quote, index = [], 0, 0, "", 0
    while index < len(text):
        letter = text[index]
        if letter == "\\":
            index += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if mark == "}" and letter == "}" and not depth:
                parts.append(text[start:index])
                start = index + 1
        elif letter == mark and not depth:
            parts.append(text[start:index])
            start = index + 1
        index += 1
    return [part for part in [*parts, text[start:]] if part.strip()]


def needed(css, words):
    """The rules of a minified style sheet whose classes are all among `words`; rules without classes stay."""
    kept = []
    for rule in cut(re.sub(r'@charset "[^"]*";', "", css), "}"):
        head, _, body = rule.partition("{")
        if head.startswith(("@media", "@supports")):
            body = needed(body, words)
        elif not head.startswith("@"):
            selectors = [one for one in cut(head, ",") if _can_match(one, words)]
            head, body = ",".join(selectors), body if selectors else ""
        if body:
            kept.append(f"{head}{{{body}}}")
    return "".join(kept)


def _can_match(selector, words):
    return all(name.replace("\\", "") in words for name in SELECTED.findall(CONDITIONAL.sub("", selector)))


def without_unread(css, read):
    """The style sheet less the custom properties that are not in `read`: most are icons of boxes that we do not have."""
    kept = []
    for rule in cut(css, "}"):
        head, _, body = rule.partition("{")
        if head.startswith(("@media", "@supports")):
            body = without_unread(body, read)
        else:
            said = [one for one in cut(body, ";") if not one.startswith("--") or one.partition(":")[0] in read]
            body = ";".join(said)
        if body:
            kept.append(f"{head}{{{body}}}")
    return "".join(kept)


def plainer(block):
    """A block of code without spans that colour nothing; the last one stays, by which style sheets know code from output."""
    bare = PLAIN.sub(r"\1", block)
    return bare if '<span class="' in bare else block


@event_priority(-50)  # the boxes and the claims stand
def on_page_content(html, page, **_):
    """Whole recipe files (their sections are shown), links to notebooks, claims and numbers in figures are not searched.

    Each SVG is marked, though its box is: the search plugin ends an exclusion at the first end tag of the same name.
    """
    if 'class="claims-scroll"' in html:
        page.meta["search"] = {"exclude": True}
    return re.sub(r'<(details class="file"|p class="(?:page-tools|claims)"|svg(?= class="figure__svg))', r"<\1 data-search-exclude", html)


def on_post_page(output, **_):
    """Code is coloured where colours differ; the explorers' style sheet goes only where one of them stands."""
    output = BLOCK.sub(lambda block: plainer(block[0]), output)
    if any(f"<{name}" in output for name in finish.explorers()):
        return output
    return EXPLORERS_CSS.sub("", output)


@event_priority(-50)  # every page of this language is written, the whole site is not yet checked
def on_post_build(config, **_):
    site = Path(config.site_dir)
    html = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    scripts = [path.read_text(encoding="utf-8") for path in site.rglob("*.js")]
    ours = [path.read_text(encoding="utf-8") for path in site.rglob("*.css") if path.parent.name != "assets" and "assets" not in path.parts]
    words = {name for text in html for names in CLASSES.findall(text) for name in names.split()}
    words |= {word for text in scripts + ours for word in WORD.findall(text)}
    for sheet in site.glob("assets/stylesheets/main.*.css"):
        css = needed(sheet.read_text(encoding="utf-8"), words)
        read = {name for text in [css, *ours, *scripts] for name in re.findall(r"--[\w-]+", re.sub(r"(--[\w-]+)\s*:", "", text))}
        sheet.write_text(without_unread(css, read), encoding="utf-8")
