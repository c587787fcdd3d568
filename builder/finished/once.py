"""What many pages carry alike is taken out of the finished site's pages, into files that a reader fetches once.

Letters of formulas: what stands on many pages stands in one sheet, by whose address a formula names it; a page keeps the
others. Icons: a class, whose picture stands in the style sheet. Whole files: a folded box that shows one fetches it when
it is opened (site.js), and holds a link to it till then.

Under serve nothing is taken out: each page is whole by itself.
"""

import hashlib
import html as entities
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

FOLDER = "assets"
STYLES = "stylesheets/site.css"
MANY = 12  # pages, of both languages together
LETTERS = re.compile(r'(<svg class="math-glyphs"[^>]*>)<defs>(.*?)</defs></svg>')
LETTER = re.compile(r'<path id="([^"]*)"[^>]*>')
USED = re.compile(r'(<use\b[^>]* href=")#([^"]*)"')
ICON = re.compile(r'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><path d="([^"]*)"/></svg>')
ICONS = ".icon{background:currentcolor;mask:var(--icon) center/contain no-repeat;forced-color-adjust:none;print-color-adjust:exact}"
BOX = re.compile(r'<details class="file"[^>]*>.*?</details>', re.S)
NAME = re.compile(r"<summary>(.*?)</summary>")
SHOWN = re.compile(r"<pre>(?:<span></span>)?<code>([^<]*)</code></pre>")


def take_out(folder: Path) -> None:
    """All three, of every page of the site in `folder`."""
    pages = {path: path.read_text("utf-8") for path in sorted(folder.rglob("*.html"))}
    letters = [
        letter for html in pages.values() for sheet in LETTERS.findall(html) for letter in LETTER.finditer(sheet[1])
    ]
    outlines = {letter[1]: letter[0] for letter in letters}
    shared = {name: outlines[name] for name in _on_many(letter[1] for letter in letters)}
    sheet = "".join(shared.values())
    sheet = _write(folder, "letters.svg", f'<svg xmlns="http://www.w3.org/2000/svg">{sheet}</svg>\n') if shared else ""
    icons = _on_many(outline for html in pages.values() for outline in set(ICON.findall(html)))
    for path, html in pages.items():
        root = "../" * (len(path.relative_to(folder).parts) - 1)
        made = BOX.sub(lambda box: _with_a_link(box[0], folder, root), html)  # noqa: B023
        made = ICON.sub(lambda icon: _named(icon, icons), made)
        made = _with_shared_letters(made, shared, root + sheet)
        if made != html:
            path.write_text(made, encoding="utf-8")
    if icons:
        with (folder / STYLES).open("a", encoding="utf-8") as styles:
            styles.write(ICONS + "".join(map(_rule, icons, range(len(icons)))) + "\n")


def _on_many(things: Iterable[str]) -> list[str]:
    """Those of which there are many, in an order that is always the same."""
    return sorted(thing for thing, number in Counter(things).items() if number >= MANY)


def _write(folder, name, text):
    """A file named by what it holds, so that no page is ever shown with another's; its address from the site's root."""
    stem, _, kind = name.rpartition(".")
    address = f"{FOLDER}/{stem}.{hashlib.sha256(text.encode()).hexdigest()[:8]}.{kind}"
    (folder / FOLDER).mkdir(exist_ok=True)
    (folder / address).write_text(text, encoding="utf-8")
    return address


def _with_shared_letters(html, shared, sheet):
    def own(found):
        letters = "".join(letter[0] for letter in LETTER.finditer(found[2]) if letter[1] not in shared)
        return f"{found[1]}<defs>{letters}</defs></svg>" if letters else ""

    named = USED.sub(lambda use: f'{use[1]}{sheet if use[2] in shared else ""}#{use[2]}"', html)
    return LETTERS.sub(own, named)


def _named(icon, icons):
    return f'<svg class="icon icon-{icons.index(icon[1])}"></svg>' if icon[1] in icons else icon[0]


def _rule(outline, number):
    picture = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'><path d='{outline}'/></svg>"
    return f'.icon-{number}{{--icon:url("data:image/svg+xml,{quote(picture, safe=" =:/")}")}}'


def _with_a_link(box, folder, root):
    name = NAME.search(box)[1]

    def linked(shown):
        address = root + _write(folder, f"{name}.txt", entities.unescape(shown[1]))
        return f'<pre><a href="{address}" data-fetched>{name}</a></pre>'

    return SHOWN.sub(linked, box)
