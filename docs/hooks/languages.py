"""One build, two languages: /ja/ and /en/ with a search index each, made side by side and swapped in when both are whole.

The process that MkDocs started builds Japanese; a second one, started when the scripts have run, builds English. Both
write into SITE.building; when both have finished and the finished site has passed its checks, it takes the place of SITE.
"""

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
from mkdocs.exceptions import PluginError
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
SOFT_FAULTS = project.CACHE / "soft_faults.json"

child = None  # the process that builds the other language
building = None  # the folder that becomes the site


def on_startup(command, dirty):
    project.state.serving = command == "serve" or "DOCS_SERVING" in os.environ


@event_priority(100)  # before the search plugin reads theme.language
def on_config(config):
    global building
    building = Path(config.site_dir).with_name(Path(config.site_dir).name + ("" if project.IS_CHILD else ".building"))
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
    project.soft_faults.clear()
    if config.nav:
        if not project.IS_CHILD:
            project.stop(_nav_faults(config.nav))
        config.nav = _local_nav(config.nav, config.extra.get("sections", {}))
    if project.IS_CHILD and project.state.serving:
        project.soft_faults.extend(Fault(**fault) for fault in json.loads(SOFT_FAULTS.read_text(encoding="utf-8")))
    return config


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
    SOFT_FAULTS.parent.mkdir(parents=True, exist_ok=True)
    SOFT_FAULTS.write_text(json.dumps([asdict(fault) for fault in project.soft_faults]), encoding="utf-8")
    (other,) = project.LANGUAGES.keys() - {project.LANG}
    environment = {**os.environ, "DOCS_LANG": other, "SITE_URL": config.extra["site"] + "/"}
    if project.state.serving:
        environment["DOCS_SERVING"] = "1"
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "--quiet",
        "build",
        "--no-strict",
        "--config-file",
        config.config_file_path,
        "--site-dir",
        str(building),
    ]
    said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  (closed when the process has ended)
    child = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT, text=True), said, other


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


def _wait_for_child():
    global child
    process, said, language = child
    process.wait()
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


def _write_root(config):
    """What belongs to no language: both doors, the page for what is not there, the index of sitemaps."""
    for source in sorted((project.DOCS / "root").iterdir()):
        text = source.read_text(encoding="utf-8")
        if source.suffix in (".html", ".xml", ".txt"):
            text = text.replace("{root}", config.extra["root"]).replace("{site}", config.extra["site"])
        if source.suffix == ".html" and not project.state.serving:
            text = finish.with_policy(text)
        (building / source.name).write_text(text, encoding="utf-8")
    (building / ".nojekyll").write_text("")


def _swap(new, site):
    """Put the finished folder in the place of the old one; the old one is only removed when the new one stands."""
    old = site.with_name(site.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if site.exists():
        site.rename(old)
    new.rename(site)
    shutil.rmtree(old, ignore_errors=True)


def on_build_error(error):
    global child
    if child:
        process, said, _ = child
        process.terminate()
        process.wait()
        said.close()
        child = None
    if building and not project.IS_CHILD:
        shutil.rmtree(building, ignore_errors=True)


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
