"""The finished page: Content-Security-Policy, classes for styles, explorers' modules, links that lead somewhere."""

import base64
import hashlib
import html as entities
import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import project
from markdown import Extension
from mkdocs.plugins import event_priority
from mkdocs.utils import get_relative_url
from project import Fault

# The only inline styles that our Markdown makes; the style sheet gives the classes their meaning.
STYLE_CLASSES = {
    "text-align:left": "align-left",
    "text-align:center": "align-center",
    "text-align:right": "align-right",
}

COMMENT = re.compile(r"<!--.*?-->", re.S)
SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script\s*>", re.S | re.I)
STYLE = re.compile(r"<style\b[^>]*>.*?</style\s*>", re.S | re.I)
CHARSET = re.compile(r"<meta\s+charset=[^>]*>", re.I)
POLICY = re.compile(r'\n?[ \t]*<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
STYLED = re.compile(r"""<[a-zA-Z](?:[^>"']++|"[^"]*"|'[^']*')*+>""")
STYLE_ATTRIBUTE = re.compile(r'\s+style="([^"]*)"')
CLASS_ATTRIBUTE = re.compile(r'(\sclass=")([^"]*)"')
TAG = re.compile(r"""<([a-zA-Z][^\s/>]*)((?:[^>"']++|"[^"]*"|'[^']*')*+)>""")
ATTRIBUTE = re.compile(
    r"""\s(id|name|href|xlink:href|src|data|poster|srcset|style|on\w+)\s*=\s*("[^"]*"|'[^']*')""", re.I
)
TYPE = re.compile(r"""\btype\s*=\s*["']?([^\s"'>]*)""", re.I)
# What a browser executes, or obeys, when it stands inline; anything else is data, to which no policy applies.
EXECUTED_TYPES = {"", "text/javascript", "application/javascript", "module", "importmap", "speculationrules"}


# Content-Security-Policy


def _inline(html):
    """The code of each script that stands in a page and is executed."""
    for attributes, code in SCRIPT.findall(COMMENT.sub("", html)):
        kind = TYPE.search(attributes)
        if code and not re.search(r"\bsrc\s*=", attributes) and (not kind or kind[1].lower() in EXECUTED_TYPES):
            yield code


def policy(html):
    """The Content-Security-Policy of a page: its own host, and exactly the inline scripts that stand on it."""
    hashes = []
    for code in _inline(html):
        # Browsers hash what the parser leaves: line ends are \n.
        digest = hashlib.sha256(code.replace("\r\n", "\n").replace("\r", "\n").encode()).digest()
        hashes.append(f" 'sha256-{base64.b64encode(digest).decode()}'")
    scripts = "".join(dict.fromkeys(hashes))
    return (
        f"default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'{scripts}; "
        "base-uri 'self'; form-action 'self'; object-src 'none'"
    )


def with_policy(html):
    """The page with its policy right after `<meta charset>`; raises ValueError where there is none to follow."""
    html = POLICY.sub("", html)
    charset = CHARSET.search(html)
    if not charset:
        raise ValueError("a page without <meta charset> has no place for its Content-Security-Policy")
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy(html)}">'
    return html[: charset.end()] + meta + html[charset.end() :]


# Styles


def with_classes(html):
    """Style attributes that STYLE_CLASSES knows become classes; others stay, and check_site tells them."""

    def rewrite(tag):
        style = STYLE_ATTRIBUTE.search(tag[0])
        if not style:
            return tag[0]
        declarations = [re.sub(r"\s+", "", part).lower() for part in style[1].split(";") if part.strip()]
        if not all(part in STYLE_CLASSES for part in declarations):
            return tag[0]
        names = " ".join(STYLE_CLASSES[part] for part in declarations)
        bare = tag[0][: style.start()] + tag[0][style.end() :]
        if CLASS_ATTRIBUTE.search(bare):
            return CLASS_ATTRIBUTE.sub(rf'\1\2 {names}"', bare, count=1)
        return re.sub(r"(\s*/?>)$", rf' class="{names}"\1', bare) if names else bare

    return STYLED.sub(rewrite, html) if "style=" in html else html


# What a screen reader hears, and where a line may break


HEADING = re.compile(r'<h([1-6]) id="([^"]*)">(.*?)(<a class="headerlink" href="[^"]*" title=("[^"]*"))>#</a></h\1>', re.S)
UNBROKEN = re.compile(r"<(pre|script|svg|math|title|textarea)\b.*?</\1\s*>|<[^>]*>", re.S)
BEFORE_STOP = re.compile(r"<code>(?=[^<]*</code>[、。，．：；）」』])")
NUMBER = re.compile(r"\d[\d.]*e[-−+]?\d+|\d{4}-\d\d-\d\d")


def with_names(html):
    """Headings are called by their text alone; the link to a section, which stands in its heading, has a name of its own."""
    named = r'<h\1 id="\2" aria-labelledby="\2-name"><span id="\2-name">\3</span>\4 aria-label=\5>#</a></h\1>'
    return HEADING.sub(named, html)


def with_tight_code(html):
    """Code right before a full-width mark, which brings its own space."""
    return BEFORE_STOP.sub('<code class="tight">', html)


def with_whole_numbers(html):
    """Numbers with a minus sign or a hyphen in them, 2e-05 or a date, are kept on one line."""
    start, parts = html.find("<article"), []
    for found in UNBROKEN.finditer(html, start):
        parts += [NUMBER.sub(r'<span class="whole">\g<0></span>', html[start : found.start()]), found[0]]
        start = found.end()
    return html[: html.find("<article")] + "".join(parts) + html[start:] if parts else html


# Explorers


def explorers():
    """The names of our custom elements: each is a module docs/shared/explorers/NAME.js."""
    return sorted(path.stem for path in (project.DOCS / "shared" / "explorers").glob("*-*.js"))


class BlockExplorers(Extension):
    """Makes our custom elements block-level, so that `<rosetta-map markdown>` holds paragraphs and fences."""

    def extendMarkdown(self, md):
        md.block_level_elements = [*md.block_level_elements, *explorers()]


def with_explorers(html, address):
    """Load the module of each explorer that stands on the page; address(name) is its URL as seen from there."""
    present = [name for name in explorers() if re.search(rf"<{re.escape(name)}[\s>]", html)]
    if not present:
        return html
    scripts = "".join(f'<script type="module" src="{address(name)}"></script>' for name in present)
    end = html.rfind("</article>")
    end = end if end >= 0 else html.rfind("</body>")
    return html[:end] + scripts + html[end:] if end >= 0 else html + scripts


def on_config(config, **_):
    config.markdown_extensions.append(BlockExplorers())
    return config


@event_priority(-100)  # after everything that still writes into the page
def on_post_page(output, page, **_):
    output = with_explorers(output, lambda name: get_relative_url(f"explorers/{name}.js", page.url))
    output = with_whole_numbers(with_tight_code(with_names(with_classes(output))))
    return output if project.state.serving else with_policy(output)


# The whole site


@dataclass
class _Page:
    ids: set = field(default_factory=set)
    links: list = field(default_factory=list)  # addresses as written
    scripts: set = field(default_factory=set)  # what is executed inline
    wrong: list = field(default_factory=list)  # sentences


EMBEDDED = {"iframe", "frame", "object", "embed", "base", "applet"}
LEFTOVERS = {
    "8<--": 'an include was not carried out: it stands alone on its line, as `--8<-- "path:section"`',
    "{{ ": 'a value was not filled in: `{{ name }}` needs show("name", …) in the page\'s script',
    "Traceback (most recent call last)": "a traceback stands in the text",
}
UNREAD = re.compile(r"<(pre|code|textarea|svg|math)\b.*?</\1\s*>", re.S | re.I)
BOX = re.compile(r"<pre\b.*?</pre\s*>", re.S | re.I)
ANY_TAG = re.compile(r"<[^>]*>")
RAW_INCLUDE = re.compile(r'^\s*-+8<-+\s+"', re.M)


def _read(html):
    """What one finished page offers, links to, and gets wrong by itself."""
    page, seen_twice = _Page(scripts=set(_inline(html))), set()
    body = COMMENT.sub("", html)
    if STYLE.search(body):
        page.wrong.append("a <style> element would be blocked: put its rules into the style sheet")
    body = STYLE.sub("", SCRIPT.sub(lambda script: f"<script{script[1]}></script>", body))
    for tag, attributes in TAG.findall(body):
        if tag.lower() in EMBEDDED:
            page.wrong.append(f"a <{tag}> would be blocked, and nothing of ours makes one")
        if "=" not in attributes:
            continue
        for name, quoted in ATTRIBUTE.findall(attributes):
            name, value = name.lower(), entities.unescape(quoted[1:-1])
            if name == "id":
                if value in page.ids:
                    seen_twice.add(value)
                page.ids.add(value)
            elif name == "name":
                if tag == "a":
                    page.ids.add(value)
            elif name == "style":
                page.wrong.append(f'<{tag} style="{value}"> would be blocked: STYLE_CLASSES has no class for it')
            elif name == "srcset":
                page.links += [candidate.split()[0] for candidate in value.split(",") if candidate.strip()]
            elif name.startswith("on"):
                page.wrong.append(f"<{tag} {name}=…> would be blocked: add a listener in a script instead")
            elif name != "data":
                page.links.append(value)
            if name in ("src", "poster", "srcset") and re.match(r"\s*(?:https?:)?//", value):
                page.wrong.append(f"<{tag} {name}={value}> would be blocked: what a page loads stands on the same host")
    page.wrong += [f"the id {value} stands on the page more than once" for value in sorted(seen_twice)]
    text = ANY_TAG.sub("", UNREAD.sub("", body))
    page.wrong += [message for leftover, message in LEFTOVERS.items() if leftover in entities.unescape(text)]
    if "8" in body and any(
        RAW_INCLUDE.search(entities.unescape(ANY_TAG.sub("", box)))
        for box in BOX.findall(body)
        if "8" in box and "-" in box
    ):
        page.wrong.append(LEFTOVERS["8<--"])
    return page


def _source(path):
    """The Markdown that made an HTML file of the site, or None: ja/a/b/index.html -> docs/ja/a/b.md."""
    language, *rest = path.split("/")
    if language not in project.LANGUAGES or not rest or rest[-1] != "index.html":
        return None
    page = "/".join(rest[:-1])
    candidates = [f"{page}.md", f"{page}/index.md"] if page else ["index.md"]
    return next((file for name in candidates if (file := project.DOCS / language / name).is_file()), None)


WRITTEN = re.compile(r"""\]\(\s*<?([^)\s>]+)|(?:href|src)=["']([^"']+)""")


def _place(path, address, resolved):
    """(file, line) where a link is written: in the Markdown if it is found there, otherwise the HTML file itself."""
    source = _source(path)
    if not source:
        return path, 0
    folder = source.parent.relative_to(project.DOCS).as_posix()
    target, _, fragment = resolved.partition("#")
    for number, line in enumerate(source.read_text("utf-8").splitlines(), 1):
        for written in (link or attribute for link, attribute in WRITTEN.findall(line)):
            file, _, wanted = unquote(entities.unescape(written)).partition("#")
            if written == address:
                return project.relative(source), number
            if wanted != fragment:
                continue
            if file:
                meant = posixpath.normpath(posixpath.join(folder, file))
            else:
                meant = source.relative_to(project.DOCS).as_posix()
            made = meant.removesuffix(".md").removesuffix("/index") if meant.endswith(".md") else meant
            if target.strip("/") in (made, meant):
                return project.relative(source), number
    return path, 0


def check_site(site, base_path="", site_url=""):
    """Faults of the whole built site: links and anchors that lead nowhere, ids, leftovers, what the policy would block.

    site: folder with both languages; base_path: the address's path under which it is served ("" or "/repository");
    site_url: the address that canonical links begin with, "" where there is none.
    """
    site, base = Path(site), "/" + base_path.strip("/")
    base = base if base.endswith("/") else base + "/"
    home = site_url.rstrip("/") + "/" if site_url else None
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    faults, pages, asked = [], {}, {}
    for path in sorted(name for name in files if name.endswith(".html")):
        html = (site / path).read_text("utf-8")
        pages[path] = _read(html)
        where = _source(path)
        name = project.relative(where) if where else path
        faults += [Fault(name, 0, sentence) for sentence in dict.fromkeys(pages[path].wrong)]
        found = POLICY.search(html)
        if not project.state.serving and (not found or found[1] != policy(POLICY.sub("", html))):
            faults.append(Fault(name, 0, "the finished page has no Content-Security-Policy that fits its scripts"))
        for address in dict.fromkeys(pages[path].links):
            asked.setdefault(_resolve(path, address, base, home), []).append((path, address))
    faults += _foreign_scripts(pages)
    for path in sorted(name for name in files if name.endswith("sitemap.xml")):
        for address in re.findall(r'<loc>([^<]+)</loc>|href="([^"]+)"', (site / path).read_text("utf-8")):
            address = entities.unescape("".join(address)).strip()
            asked.setdefault(_resolve(path, address, base, home), []).append((path, address))
    for resolved, places in asked.items():
        if resolved is not None and (why := _nowhere(resolved, files, pages)):
            faults += _told(resolved, why, places)
    return sorted(set(faults))


def _foreign_scripts(pages):
    """The theme's inline scripts stand on every page of a language; one that does not was typed into this page."""
    ours = {path: page.scripts for path, page in pages.items() if path.partition("/")[0] in project.LANGUAGES}
    everywhere = set.intersection(*ours.values()) if ours else set()
    for path, scripts in ours.items():
        for code in sorted(scripts - everywhere):
            where = _source(path)
            message = f"the script `{' '.join(code.split())[:60]}` stands on this page alone: scripts are files"
            yield Fault(project.relative(where) if where else path, 0, message)


def _resolve(path, address, base, home):
    """An address as a path inside the site, with its fragment; None for another site's; "!" and why where it cannot."""
    parts = urlsplit(address)
    if home and (address + "/").startswith(home):
        inside = base + address[len(home) :]
    elif parts.scheme == "javascript":
        return "!a javascript: address would be blocked"
    elif parts.scheme or parts.netloc:
        return None
    else:
        here = base + (path if not path.endswith("index.html") else path.removesuffix("index.html"))
        inside = urljoin(here, address)
        if not address or address.startswith("?"):
            inside = here
    split = urlsplit(inside)
    if not split.path.startswith(base):
        return f"!it leaves the site's own folder {base}" if split.path + "/" != base else ""
    return unquote(split.path[len(base) :]) + (f"#{unquote(split.fragment)}" if split.fragment else "")


def _nowhere(resolved, files, pages):
    """Why an address inside the site leads nowhere; "" when it leads somewhere."""
    if resolved.startswith("!"):
        return resolved[1:]
    path, _, fragment = resolved.partition("#")
    target = path + "index.html" if not path or path.endswith("/") else path
    if target not in files:
        if f"{path}/index.html" in files:
            return "the address of a folder ends with a slash"
        return f"there is no {target}"
    if fragment and target in pages and fragment not in pages[target].ids and not fragment.startswith(":~:"):
        return f"there is no id {fragment} on {target}"
    return ""


def _told(resolved, why, places):
    """One fault for each line that was written; one in all for what the theme repeats on many pages."""
    repeated = []
    for path, address in places:
        file, line = _place(path, address, resolved)
        if line:
            page = address.partition("#")[0]
            if page.endswith(".md") and not page.startswith("/"):  # MkDocs leaves it as written
                why = f"there is no {posixpath.normpath(posixpath.join(posixpath.dirname(file), page))}"
            yield Fault(file, line, f"the link to {address} leads nowhere: {why}")
        else:
            repeated.append((path, address))
    if repeated:
        (path, address), more = repeated[0], len(repeated) - 1
        others = f" (and on {more} more pages)" if more else ""
        yield Fault(path, 0, f"the link to {address} leads nowhere: {why}{others}")
