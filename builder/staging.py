"""Where the site is written before it is one: SITE.building, which takes the place of SITE when everything in it holds."""

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from builder import colours, project, words
from builder.finished import policy
from builder.project import Fault

if TYPE_CHECKING:
    from builder.pages.page import Page


def building_of(site: Path) -> Path:
    """The folder in which SITE is made."""
    return site.with_name(site.name + ".building")


def site_of(building: Path) -> Path:
    """The folder whose place it will take."""
    return building.with_name(building.name.removesuffix(".building"))


def old_of(site: Path) -> Path:
    """Where the last site stands for a moment, while the new one takes its place."""
    return site.with_name(site.name + ".old")


def place_faults(site: Path) -> Iterator[Fault]:
    """What stands where the site is to be written, and is not ours to remove."""
    for path in (site, building_of(site), old_of(site)):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            yield Fault(project.relative(path), 0, "a folder will be written here, and this is none: move it away")
    if site.is_dir() and any(site.iterdir()) and not (site / ".nojekyll").is_file():
        yield Fault(project.relative(site), 0, "this folder is not empty and no site of ours: it would be replaced")


SHARED = ("assets", "data", "explorers", "images", "javascripts", "stylesheets")  # what both languages fetch
LINK = re.compile(rf'((?:href|src)="|"search": ")((?:\.\./)*)(?=(?:{"|".join(SHARED)})/)')


def from_the_root(html: str, page: "Page") -> str:
    """A page that fetches what both languages share from the site's root, so that a reader of both fetches it once."""
    up = "../" * page.url.count("/")  # a page may be called images, too
    return LINK.sub(lambda link: f"{link[1]}../{up}" if link[2] == up else link[0], html)


def share(folder: Path) -> Iterator[Fault]:
    """Put what every language has written alike into the root of the site; a fault for each file that differs."""
    for name in SHARED:
        ours = [folder / language / name for language in project.LANGUAGES if (folder / language / name).is_dir()]
        for one, other in itertools.pairwise(ours):
            for path in sorted(path for path in one.rglob("*") if path.is_file()):
                twin = other / path.relative_to(one)
                if not twin.is_file() or twin.read_bytes() != path.read_bytes():
                    place = path.relative_to(folder).as_posix()
                    yield Fault(
                        place, 0, "both languages fetch one copy of it, and the other language has not the same"
                    )
        for one in ours:
            if (folder / name).exists():
                shutil.rmtree(one)
            else:
                one.rename(folder / name)


def write_root(folder: Path, site: str) -> None:
    """What belongs to no language: both doors, the page for what is not there, the index of sitemaps.

    folder    where the finished site is made
    site      its address, without a slash at its end
    """
    root = urlsplit(site).path
    for source in sorted((project.DOCS / "root").iterdir()):
        text = source.read_text(encoding="utf-8")
        if source.suffix in (".html", ".xml", ".txt"):
            for name, made in _doors(root, site).items():
                text = text.replace(f"{{{name}}}", made)
        if source.suffix == ".css":
            text = colours.filled(text)
        if source.suffix == ".html" and not project.state.serving:
            text = policy.with_policy(text)
        (folder / source.name).write_text(text, encoding="utf-8")
    shutil.copyfile(project.DOCS / "shared" / "images" / "icon.svg", folder / "icon.svg")
    (folder / ".nojekyll").write_text("")


def _doors(root, site):
    """{placeholder of docs/root: what stands there}: English first in titles, the languages in their order in lists."""
    doors = {language: words.of("doors", language) for language in project.LANGUAGES}
    names = {language: words.of("site", language)["name"] for language in project.LANGUAGES}

    def titles(texts):
        others = [f' <span lang="{language}">{text}</span>' for language, text in texts.items() if language != "en"]
        return texts["en"] + "".join(others)

    def listed(name):
        return "\n".join(
            f'<li><a href="{root}/{language}/" lang="{language}" hreflang="{language}">'
            f"<strong>{project.LANGUAGES[language]}</strong> {door[name]}</a></li>"
            for language, door in doors.items()
        )

    def joined(texts):
        return " · ".join([texts["en"], *(text for language, text in texts.items() if language != "en")])

    def each(template):
        return "\n".join(template.format(language=language, site=site) for language in project.LANGUAGES)

    missing, no_page = ({language: door[name] for language, door in doors.items()} for name in ("missing", "no_page"))
    return {
        "names": joined(names),
        "title": titles(names),
        "doors": listed("open"),
        "names_missing": joined(missing),
        "title_missing": titles(no_page),
        "doors_missing": listed("nowhere"),
        "alternates": each('<link rel="alternate" href="{site}/{language}/" hreflang="{language}">'),
        "sitemaps": each("  <sitemap><loc>{site}/{language}/sitemap.xml</loc></sitemap>"),
        "root": root,
        "site": site,
    }


def swap(building: Path) -> None:
    """Put the finished folder in the place of the old one; the old one is only removed when the new one stands."""
    site = site_of(building)
    old = old_of(site)
    shutil.rmtree(old, ignore_errors=True)
    if site.exists():
        site.rename(old)
    building.rename(site)
    shutil.rmtree(old, ignore_errors=True)
