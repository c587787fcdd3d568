"""What many pages carry alike is taken out of the finished site's pages, into files that a reader fetches once.

Letters of formulas: what stands on many pages stands in one sheet, by whose address a formula names it; a page keeps the
others. Icons: a class, whose place in the one picture of all icons stands in the style sheet: a browser makes a document of
each picture, which takes as long as laying out a screen of text. Scripts: a file, and the page's policy names them no more.
What scripts read: a script that puts it where they look for it. Whole files, and the numbers of figures: a folded box that
shows them fetches them when it is opened (site.js), and holds a link to them till then. What an explorer reads, where it is
much: a file, which the explorer fetches when it is used; `data-NAME-at` says where it lies. The dialog of the search, which
does nothing without script: the script behind the header puts it in.

Under serve nothing is taken out: each page is whole by itself.
"""

import hashlib
import html as entities
import itertools
import json
import re
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from builder.finished import policy

FOLDER = "assets"
STYLES = "stylesheets/site.css"
MANY = 8  # pages, of both languages together
LITTLE = 500  # letters: less is not worth a request
LETTERS = re.compile(r'(<svg class="math-glyphs"[^>]*>)<defs>(.*?)</defs></svg>')
LETTER = re.compile(r'<path id="([^"]*)"[^>]*>')
USED = re.compile(r'(<use\b[^>]* href=")#([^"]*)"')
ICON = re.compile(r'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><path d="([^"]*)"/></svg>')
SIDE = 24  # of an icon; as much is left between two
ICONS = '.icon{{background:currentcolor;mask:url("{}") 0 0/{}% 100% no-repeat;forced-color-adjust:none;print-color-adjust:exact}}'
SCRIPT = re.compile(r"<script>(.*?)</script>", re.S)
SCRIPTS = re.compile(r"(?:<script>(?:(?!</script>).)*</script>\s*)+", re.S)
BOX = re.compile(r'<details class="file"[^>]*>.*?</details>', re.S)
FIGURE = re.compile(
    r'(?P<before><figure class="figure[^"]*" id="(?P<id>[^"]*)">'
    r"<figcaption[^>]*>(?P<title>(?:(?!</figcaption>).)*)</figcaption>(?:(?!</figure>).)*"
    r'<summary>(?P<summary>[^<]*)</summary><p id="[^"]*">(?:(?!</p>).)*</p>)'
    r"(?P<tables>(?:(?!</figure>).)*)</details></figure>",
    re.S,
)
DATA = re.compile(r'<script id="([^"]*)" type="application/json">([^<]+)</script>')
READ = re.compile(r' data-([a-z]+)="([^"&]{2000,})"')
DIALOG = re.compile(r'(<div class="md-search"[^>]*>)(.*?</ol>(?:\s*</div>){4})(\s*</div>.*?<script>)', re.S)
LANGUAGE = re.compile(r'<html lang="([^"]*)"')
TAGS = re.compile(r"<[^>]*>")
TABLES = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex"><title>{title}</title></head><body><main>{tables}</main></body></html>
"""
NAME = re.compile(r"<summary>(.*?)</summary>")
SHOWN = re.compile(r"<pre>(?:<span></span>)?<code>([^<]*)</code></pre>")


def take_out(folder: Path) -> None:
    """All of it, of every page of the site in `folder`."""
    pages = {path: path.read_text("utf-8") for path in sorted(folder.rglob("*.html"))}
    letters = [
        letter for html in pages.values() for sheet in LETTERS.findall(html) for letter in LETTER.finditer(sheet[1])
    ]
    outlines = {letter[1]: letter[0] for letter in letters}
    # Each letter of a formula names the sheet: its name is one letter, and so are those of what is in it.
    shared = dict(zip(_on_many(letter[1] for letter in letters), _short_names(), strict=False))
    sheet = "".join(outlines[name].replace(f'"{name}"', f'"{short}"', 1) for name, short in shared.items())
    sheet = _write(folder, "l.svg", f'<svg xmlns="http://www.w3.org/2000/svg">{sheet}</svg>\n') if shared else ""
    data = _data(folder, pages)
    icons = _on_many(outline for html in pages.values() for outline in set(ICON.findall(html)))
    dialogs = _dialogs(pages.values(), icons)
    for path, html in pages.items():
        root = "../" * (len(path.relative_to(folder).parts) - 1)
        made = BOX.sub(lambda box: _with_a_link(box[0], folder, root), html)  # noqa: B023
        made = FIGURE.sub(lambda figure: _without_tables(figure, made, folder, root), made)  # noqa: B023
        made = READ.sub(lambda read: f' data-{read[1]}-at="{root}{_write(folder, f"{read[1]}.txt", read[2])}"', made)  # noqa: B023
        made = ICON.sub(lambda icon: _named(icon, icons), made)
        made = _with_shared_letters(made, shared, root + sheet)
        if path.parent != folder:  # the site's own doors are shown at any address
            made = _with_scripts_as_files(
                _with_data(_without_dialog(made, dialogs), data.get(root), root), folder, root
            )
        if made != html:
            path.write_text(made, encoding="utf-8")
    if icons:
        with (folder / STYLES).open("a", encoding="utf-8") as styles:
            styles.write(_rules(icons) + "\n")


def _on_many(things: Iterable[str]) -> list[str]:
    """Those of which there are many, the most first, in an order that is always the same."""
    return [
        thing for thing, number in sorted(Counter(things).items(), key=lambda one: (-one[1], one[0])) if number >= MANY
    ]


def _short_names():
    """a, b, … z, aa, ab, …"""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_letters, repeat=length))


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

    named = USED.sub(lambda use: f'{use[1]}{sheet}#{shared[use[2]]}"' if use[2] in shared else use[0], html)
    return LETTERS.sub(own, named)


def _data(folder, pages):
    """{way up to the root: (the file of it, {(language, id): data})}: what all pages of a language at one depth are told alike."""
    told = {}
    for path, html in pages.items():
        language, *below = path.relative_to(folder).parts
        for name, data in DATA.findall(html) if below else []:
            told.setdefault("../" * len(below), {}).setdefault((language, name), []).append(data)
    files = {}
    for root, datas in told.items():
        alike = {key: found[0] for key, found in datas.items() if len(set(found)) == 1}
        names = sorted({name for _, name in alike})
        texts = {name: {language: text for (language, one), text in alike.items() if one == name} for name in names}
        script = f"for(const[id,told]of Object.entries({json.dumps(texts, ensure_ascii=False)}))"
        script += "document.getElementById(id).textContent=told[document.documentElement.lang]\n"
        files[root] = (_write(folder, "data.js", script), alike) if alike else None
    return files


def _with_data(html, found, root):
    if not found:
        return html
    (file, alike), language = found, LANGUAGE.search(html)[1]
    end = 0

    def emptied(data):
        nonlocal end
        if (language, data[1]) not in alike:
            return data[0]
        end = len(html) - data.end()
        return f'<script id="{data[1]}" type="application/json"></script>'

    made = DATA.sub(emptied, html)
    return f'{made[: len(made) - end]}<script src="{root}{file}"></script>{made[len(made) - end :]}' if end else html


def _dialogs(pages, icons):
    """{language: the dialog of the search}, as all of its pages have it; nothing where they differ."""
    told = {}
    for html in pages:
        if found := DIALOG.search(html):
            told.setdefault(LANGUAGE.search(html)[1], set()).add(ICON.sub(lambda icon: _named(icon, icons), found[2]))
    return {language: next(iter(alike)) for language, alike in sorted(told.items()) if len(alike) == 1}


def _without_dialog(html, dialogs):
    """The dialog of the search is what the next script begins with: it stands there before anything is drawn."""
    language = LANGUAGE.search(html)
    if not (language and language[1] in dialogs):
        return html
    told = f"document.querySelector('.md-search').innerHTML={json.dumps(dialogs, ensure_ascii=False)}[document.documentElement.lang]\n"
    return DIALOG.sub(lambda found: found[1] + found[3] + told, html, count=1)


def _with_scripts_as_files(html, folder, root):
    """Scripts that follow one another are one file; a script of data stays, and so does one that names its source."""

    def filed(found):
        address = _write(folder, "page.js", "\n".join(SCRIPT.findall(found[0])) + "\n")
        return f'<script src="{root}{address}"></script>\n'

    return policy.with_policy(SCRIPTS.sub(filed, html))


def _named(icon, icons):
    return f'<svg class="icon icon-{icons.index(icon[1])}"></svg>' if icon[1] in icons else icon[0]


def _rules(icons):
    """The style of all icons: a picture in which they stand side by side, and the place of each."""
    width = SIDE * (2 * len(icons) - 1)
    outlines = "".join(
        f"<path transform='translate({2 * SIDE * number})' d='{outline}'/>" for number, outline in enumerate(icons)
    )
    picture = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {SIDE}'>{outlines}</svg>"
    one = ICONS.format(f"data:image/svg+xml,{quote(picture, safe=' =:/')}", 100 * width // SIDE)
    places = (100 * number / (len(icons) - 1) for number in range(1, len(icons)))
    return one + "".join(f".icon-{number}{{mask-position:{place:.4g}% 0}}" for number, place in enumerate(places, 1))


def _without_tables(figure, page, folder, root):
    """A figure whose tables are a page of their own."""
    if len(figure["tables"]) < LITTLE:
        return figure[0]
    title, summary = TAGS.sub("", figure["title"]), figure["summary"]
    language = LANGUAGE.search(page)
    html = TABLES.format(language=language[1] if language else "", title=title, tables=figure["tables"])
    address = root + _write(folder, f"{figure['id']}.html", policy.with_policy(html))
    return f'{figure["before"]}<p><a href="{address}" data-fetched>{summary}</a></p></details></figure>'


def _with_a_link(box, folder, root):
    name = NAME.search(box)[1]

    def linked(shown):
        if len(shown[1]) < LITTLE:
            return shown[0]
        address = root + _write(folder, f"{name}.txt", entities.unescape(shown[1]))
        return f'<pre><a href="{address}" data-fetched>{name}</a></pre>'

    return SHOWN.sub(linked, box)
