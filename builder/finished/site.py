"""The finished site as a whole: links and anchors that lead somewhere, ids, leftovers, what the policy would block."""

import functools
import html as entities
import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from builder import project
from builder.finished.policy import COMMENT, POLICY, SCRIPT, inline_scripts, policy
from builder.kept import kept
from builder.project import Fault

STYLE = re.compile(r"<style\b[^>]*>.*?</style\s*>", re.S | re.I)
TAG = re.compile(r"""<([a-zA-Z][^\s/>]*)((?:[^>"']++|"[^"]*"|'[^']*')*+)>""")
ATTRIBUTE = re.compile(
    r"""\s(id|name|href|xlink:href|src|data|poster|srcset|style|on\w+)\s*=\s*("[^"]*"|'[^']*')""", re.I
)


@dataclass
class _Page:
    ids: set = field(default_factory=set)
    links: list = field(default_factory=list)  # addresses as written
    scripts: set = field(default_factory=set)  # what is executed inline
    wrong: list = field(default_factory=list)  # sentences

    @classmethod
    def of(cls, html):
        """What one finished page says of itself, read once."""
        told = kept("checked", html, lambda: {name: list(part) for name, part in vars(_read(html)).items()})
        return cls(set(told["ids"]), told["links"], set(told["scripts"]), told["wrong"])


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
    page, seen_twice = _Page(scripts=set(inline_scripts(html))), set()
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


def check_site(site: Path | str, base_path: str = "", site_url: str = "") -> list[Fault]:
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
        pages[path] = _Page.of(html)
        where = _source(path)
        name = project.relative(where) if where else path
        faults += [Fault(name, 0, sentence) for sentence in dict.fromkeys(pages[path].wrong)]
        if not project.state.serving and not _has_policy(html):
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


def _has_policy(html):
    found = POLICY.search(html)
    return found and found[1] == policy(POLICY.sub("", html))


def _foreign_scripts(pages):
    """The theme's inline scripts stand on every page of a language; one that does not was typed into this page."""
    ours = {path: page.scripts for path, page in pages.items() if path.partition("/")[0] in project.LANGUAGES}
    everywhere = set.intersection(*ours.values()) if ours else set()
    for path, scripts in ours.items():
        for code in sorted(scripts - everywhere):
            where = _source(path)
            message = f"the script `{' '.join(code.split())[:60]}` stands on this page alone: scripts are files"
            yield Fault(project.relative(where) if where else path, 0, message)


@functools.lru_cache(maxsize=65536)  # the same links again, under serve
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
