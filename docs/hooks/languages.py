"""One build, two languages: /ja/ and /en/ with a search index each, made side by side and swapped in when both are whole.

The process that MkDocs started builds Japanese; a second one, started when the scripts have run, builds English. Both
write into SITE.building; when both have finished and the finished site has passed its checks, it takes the place of SITE.
One build of a checkout at a time: they share .cache, and would share SITE.building.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import finish
import project
from mkdocs.exceptions import Abort, PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File
from project import Fault

LOCAL = {
    "ja": {
        "name": "ひとつの注意、ふたつの配置",
        "permalink": "この節へのリンク",
        "default": "暗い配色にする",
        "slate": "明るい配色にする",
        "copyright": "文章はCC BY 4.0、コードはMIT",
        "description": "論文のマルチヘッド注意とPyTorchのnn.MultiheadAttentionは同じ関数です。"
        "重み行列の並べ方の対応を、ビルドのたびに実行して確かめます。",
    },
    "en": {
        "name": "One attention, two layouts",
        "permalink": "Link to this section",
        "default": "Switch to dark",
        "slate": "Switch to light",
        "copyright": "Text: CC BY 4.0, code: MIT",
        "description": "The paper's multi-head attention and PyTorch's nn.MultiheadAttention are one function "
        "with its weight matrices laid out differently. Every build runs the check.",
    },
}
SECOND = Path(__file__).with_name("second_language.py")

child = None  # the process that builds the other language
building = None  # the folder that becomes the site


def _hooks():
    """{file: digest} of the hooks as they stand on the disk."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return {project.relative(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


LOADED = _hooks()


def on_startup(command, dirty):
    if not project.IS_CHILD:
        project.state.serving = command == "serve"


@event_priority(100)  # before the search plugin reads theme.language
def on_config(config):
    global building
    project.stop(_configuration_faults(config))
    if project.IS_CHILD:
        building = Path(config.site_dir)
    else:
        project.lock()
        site = Path(config.site_dir).resolve()  # where a link leads: the link itself stays
        building = _building(site)
        project.stop(place_faults(site))
    config.extra["scope"] = urlsplit(config.site_url).path  # one memory of the colour scheme for both languages
    for palette in config.theme["palette"]:
        palette["toggle"]["name"] = LOCAL[project.LANG][palette["scheme"]]
    config.extra["root"] = urlsplit(config.site_url).path.rstrip("/")
    config.extra["site"] = config.site_url.rstrip("/")
    config.docs_dir = str(project.DOCS / project.LANG)
    config.site_dir = str(building / project.LANG)
    config.site_url = f"{config.site_url.rstrip('/')}/{project.LANG}/"
    config.site_name = LOCAL[project.LANG]["name"]
    config.site_description = LOCAL[project.LANG]["description"]  # a page's own stands in its front matter
    config.copyright = LOCAL[project.LANG]["copyright"]
    config.theme["language"] = project.LANG
    config.mdx_configs["toc"] = {
        **config.mdx_configs.get("toc", {}),
        "permalink_title": LOCAL[project.LANG]["permalink"],
    }
    if config.repo_url:
        config.edit_uri = f"edit/main/docs/{project.LANG}/"
    project.soft_faults[:] = project.state.handed
    if config.nav:
        if not project.IS_CHILD:
            project.stop(_nav_faults(config.nav))
        config.nav = _local_nav(config.nav, config.extra.get("sections", {}))
    return config


def _configuration_faults(config):
    """What would make another site than the one that the checks know, or none."""
    now = _hooks()
    for name in sorted(name for name in {*now, *LOADED} if now.get(name) != LOADED.get(name)):
        # the other language's process would obey the new one, this process the old one
        yield Fault(name, 0, "this hook has changed since `mkdocs serve` began: restart it")
    if not config.site_url:
        yield Fault("mkdocs.yml", 0, "the site has no address: SITE_URL is empty; give it one, or do not set it")
    try:
        project.built()
    except (ValueError, OverflowError, OSError):
        epoch = os.environ["SOURCE_DATE_EPOCH"]
        yield Fault("mkdocs.yml", 0, f"SOURCE_DATE_EPOCH is {epoch!r}, and should be a number of seconds since 1970")
    if not config.use_directory_urls:
        yield Fault("mkdocs.yml", 0, "use_directory_urls is off: every link of this site leads to a folder")
    if config.theme.name != "material":
        yield Fault("mkdocs.yml", 0, f"the theme is {config.theme.name}: this site's templates are Material's")


def place_faults(site):
    """What stands where the site is to be written, and is not ours to remove."""
    for path in (site, _building(site), _old(site)):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            yield Fault(project.relative(path), 0, "a folder will be written here, and this is none: move it away")
    if site.is_dir() and any(site.iterdir()) and not (site / ".nojekyll").is_file():
        yield Fault(project.relative(site), 0, "this folder is not empty and no site of ours: it would be replaced")


def _nav_faults(nav):
    """Pages that the navigation forgets, and names in it that are no page."""
    named = set(_names(nav))
    pages = {page.as_posix() for language in project.LANGUAGES for page in project.page_files(language)}
    missing = [f"the nav names {name}, and there is no such page" for name in sorted(named - pages)]
    forgotten = [f"the nav does not name {name}: no reader would find it" for name in sorted(pages - named)]
    return [Fault("mkdocs.yml", 0, message, soft=True) for message in [*missing, *forgotten]]


def _names(nav):
    for item in nav:
        yield from _names(next(iter(item.values()))) if isinstance(item, dict) else [item]


def _local_nav(nav, titles):
    """The navigation in this language: section ids become titles; a page not written in it yet is left out."""
    local = []
    for item in nav:
        if isinstance(item, dict):
            ((section, pages),) = item.items()
            pages = _local_nav(pages, titles)
            if pages:
                local.append({titles[section][project.LANG]: pages})
        elif (project.DOCS / project.LANG / item).exists():
            local.append(item)
    return local


@event_priority(-20)  # after the scripts have run and the sources are checked
def on_pre_build(config):
    global child
    if project.IS_CHILD:
        return
    shutil.rmtree(building, ignore_errors=True)
    (other,) = project.LANGUAGES.keys() - {project.LANG}
    order = {
        "language": other,
        "building": str(building),
        "config_file": config.config_file_path,
        "site_url": config.extra["site"] + "/",
        "serving": project.state.serving,
        "soft_faults": [asdict(fault) for fault in project.soft_faults],
    }
    said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  (closed when the process has ended)
    process = subprocess.Popen(
        [sys.executable, str(SECOND)],
        stdin=subprocess.PIPE,
        stdout=said,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    child = process, said, other
    with contextlib.suppress(BrokenPipeError):  # it died at once: what it said is told when it is waited for
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()


def on_files(files, config):
    shared = project.DOCS / "shared"
    for path in sorted(path for path in shared.rglob("*") if path.is_file()):
        files.append(File(path.relative_to(shared).as_posix(), str(shared), config.site_dir, config.use_directory_urls))
    return files


def on_page_context(context, page, config, nav):
    """The same page in each language, as a path from the site's root."""
    config.extra["alternate"] = [
        {"name": name, "lang": language, "link": f"{config.extra['root']}/{language}/{page.url}"}
        for language, name in project.LANGUAGES.items()
        if (project.DOCS / language / page.file.src_uri).exists()
    ]


@event_priority(-90)
def on_post_page(output, page, config):
    """hreflang must be whole addresses; x-default is the page that asks for a language."""
    site, root = config.extra["site"], config.extra["root"]
    for language in project.LANGUAGES:
        link = f'<link rel="alternate" href="{root}/{language}/{page.url}"'
        output = output.replace(link, f'<link rel="alternate" href="{site}/{language}/{page.url}"')
    default = (
        f'<link rel="alternate" href="{site}/" hreflang="x-default">'
        if page.is_homepage
        else f'<link rel="alternate" href="{site}/en/{page.url}" hreflang="x-default">'
    )
    return output.replace('<link rel="icon"', default + '\n      <link rel="icon"', 1)


@event_priority(-100)
def on_post_build(config):
    (Path(config.site_dir) / "404.html").unlink(missing_ok=True)  # the root's serves both languages
    (Path(config.site_dir) / "sitemap.xml.gz").unlink(missing_ok=True)
    if project.IS_CHILD:
        return
    _wait_for_child()
    _write_root(config)
    project.stop(finish.check_site(building, config.extra["root"], config.extra["site"]))
    _swap(building, building.with_name(building.name.removesuffix(".building")))
    project.LOCK.release(force=True)


def _wait_for_child():
    global child
    process, said, language = child
    process.wait()
    _hang_up(process)
    said.seek(0)
    text, child = said.read().strip(), None
    said.close()
    if process.returncode:
        lines = [line.removeprefix("ERROR   -  ").rstrip() for line in text.splitlines()]
        raise PluginError(
            "\n".join(line for line in lines if line and not line.startswith(("Aborted", "Error building page")))
            or f"the {project.LANGUAGES[language]} site did not build"
        )
    if text:
        project.log.warning(text)


def _hang_up(process):
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _write_root(config):
    """What belongs to no language: both doors, the page for what is not there, the index of sitemaps."""
    for source in sorted((project.DOCS / "root").iterdir()):
        text = source.read_text(encoding="utf-8")
        if source.suffix in (".html", ".xml", ".txt"):
            text = text.replace("{root}", config.extra["root"]).replace("{site}", config.extra["site"])
        if source.suffix == ".html" and not project.state.serving:
            text = finish.with_policy(text)
        (building / source.name).write_text(text, encoding="utf-8")
    shutil.copyfile(project.DOCS / "shared" / "images" / "icon.svg", building / "icon.svg")
    (building / ".nojekyll").write_text("")


def _swap(new, site):
    """Put the finished folder in the place of the old one; the old one is only removed when the new one stands."""
    old = _old(site)
    shutil.rmtree(old, ignore_errors=True)
    if site.exists():
        site.rename(old)
    new.rename(site)
    shutil.rmtree(old, ignore_errors=True)


def _building(site):
    return site.with_name(site.name + ".building")


def _old(site):
    return site.with_name(site.name + ".old")


@event_priority(-100)  # it may end the build before MkDocs prints a traceback
def on_build_error(error):
    global child, building
    if child:
        process, said, _ = child
        process.terminate()
        process.wait()
        _hang_up(process)
        said.close()
        child = None
    if not project.IS_CHILD:
        if building and project.LOCK.is_locked:
            shutil.rmtree(building, ignore_errors=True)
        project.LOCK.release(force=True)
    building = None
    if isinstance(error, OSError):
        project.log.error(project.failed(error))
        raise Abort("Aborted because the system refused") from None


def on_serve(server, config, builder):
    """Keep the last good site up: MkDocs itself would answer nothing until the fault is mended."""

    def build_or_keep():
        try:
            builder()
        except (Exception, SystemExit) as error:
            if not isinstance(error, SystemExit):
                project.log.error(str(error))
            project.log.error("The last good site stays up until this is mended.")

    server.builder = build_or_keep
    return server
