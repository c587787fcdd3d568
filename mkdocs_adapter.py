"""All that MkDocs and this project know of each other: MkDocs' events, in the order that builder/order.py gives.

The process that MkDocs starts builds Japanese, and starts this file as a program for each other language.
"""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from mkdocs.exceptions import Abort, PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File
from mkdocs.structure.toc import get_toc
from mkdocs_jupyter.config import settings as jupyter

from builder import archives, kept, languages, order, project, second_language, staging, words
from builder.dialect import Dialect
from builder.finished import markup, mathematics
from builder.pages import banner, notebooks, reader
from builder.pages.page import Page
from builder.project import Fault

BUILDER = Path(__file__).with_name("builder")


class _Build:
    """The one build that runs in this process; under serve, one language after the other."""

    begun = False  # whether another language of this build is done already
    more = False  # whether another one comes
    kept_languages: list[str] | None = None  # those that stay as they are; None where a second process builds one

    folder: Path | None = None  # in which the site is made
    others: list[second_language.Second] = []  # the processes that build the other languages
    pages: dict[str, Page] = {}  # of this language, by name
    practice: dict[str, Path] = {}  # the executed notebooks, by page
    nav_faults: list[Fault] = []  # told with what is wrong with the sources
    site = ""  # the address, without a slash at its end
    stopped = ""  # what ended the last build
    around = ""  # a digest of what stands on every page
    templates = None  # the environment of Jinja's, with what it has compiled


build = _Build()


@contextlib.contextmanager
def told():
    """What ends the build, as MkDocs tells it: a sentence a line, no traceback."""
    try:
        yield
    except project.Stopped as stopped:
        build.stopped = str(stopped)  # MkDocs logs it and goes on with an Abort, which says nothing
        raise PluginError(build.stopped) from None


def _program():
    """{file: digest} of the build as it stands on the disk."""
    return {project.relative(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in kept.program_files()}


LOADED = _program()


def on_startup(command, dirty):
    if not project.IS_CHILD:
        project.state.serving = command == "serve"


@event_priority(100)  # before the search plugin reads theme.language
def on_config(config):
    with told():
        project.stop(_configuration_faults(config))
        if project.IS_CHILD:
            build.folder = Path(config.site_dir)
        elif not build.begun:
            project.lock()
            site = Path(config.site_dir).resolve()  # where a link leads: the link itself stays
            build.folder = staging.building_of(site)
            project.stop(staging.place_faults(site))
            project.soft_faults.clear()
        if project.IS_CHILD:
            project.soft_faults[:] = project.state.handed
        build.nav_faults = languages.nav_faults(config.nav) if config.nav else []
    _localize(config)
    config.markdown_extensions.append(Dialect())
    jupyter.templates_dir = str(notebooks.TEMPLATES)
    config.extra_css.append(mathematics.STYLESHEET)
    config.theme.static_templates.discard("404.html")  # the root's serves both languages
    if project.state.serving and not project.IS_CHILD:
        config.theme.get_env = _templates(config.theme.get_env)
    return config


def _templates(make):
    """Under serve: the environment of Jinja's with what it has compiled, and the list of the theme's files, made once."""

    def templates():
        if build.templates is None:
            build.templates, names = make(), []
            listed = build.templates.list_templates

            def list_once(filter_func):  # the same of fourteen thousand names each time
                names[:] = names or listed(filter_func=filter_func)
                return names

            build.templates.list_templates = list_once
        return build.templates

    return templates


def _localize(config):
    """One configuration becomes that of this process's language."""
    language, said = project.LANG, words.of("site", project.LANG)
    build.site = config.site_url.rstrip("/")
    config.extra["site"], config.extra["root"] = build.site, urlsplit(build.site).path
    config.extra["scope"] = f"{config.extra['root']}/"  # one memory of the colour scheme for both languages
    for palette in config.theme["palette"]:
        palette["toggle"]["name"] = said[palette["scheme"]]
    config.docs_dir = str(project.DOCS / language)
    config.site_dir = str(build.folder / language)
    config.site_url = f"{build.site}/{language}/"
    config.site_name = said["name"]
    config.site_description = said["description"]  # a page's own stands in its front matter
    config.copyright = said["copyright"]
    config.theme["language"] = language
    config.extra["words"] = {room: words.of(room, language) for room in ("page", "search")}
    config.extra["languages"] = project.LANGUAGES
    config.mdx_configs["toc"] = {**config.mdx_configs.get("toc", {}), "permalink_title": said["permalink"]}
    if config.repo_url:
        config.edit_uri = f"edit/main/docs/{language}/"
    if config.nav:
        config.nav = languages.local_nav(config.nav, words.of("chapters", language), language)


def _configuration_faults(config):
    """What would make another site than the one that the checks know, or none."""
    now = _program()
    for name in sorted(name for name in {*now, *LOADED} if now.get(name) != LOADED.get(name)):
        # the other language's process would obey the new one, this process the old one
        yield Fault(name, 0, "this part of the build has changed since `mkdocs serve` began: restart it")
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


def on_pre_build(config):
    if project.IS_CHILD or build.begun:
        return
    with told():
        order.scripts()
        order.sources(build.nav_faults)
    kept.begin()
    shutil.rmtree(build.folder, ignore_errors=True)
    if build.kept_languages is not None:
        site = staging.site_of(build.folder)
        for language in build.kept_languages:
            shutil.copytree(site / language, build.folder / language, copy_function=os.link)
        return
    told_others = {"building": str(build.folder), "config_file": config.config_file_path, "site_url": build.site + "/"}
    others = [language for language in project.LANGUAGES if language != project.LANG]
    build.others = [second_language.Second(Path(__file__), language, told_others) for language in others]


class PracticeFile(File):
    """A practice page: Markdown by its address, the executed notebook by what mkdocs-jupyter renders."""

    @property
    def abs_src_path(self):
        return str(build.practice[self.src_uri])

    @abs_src_path.setter
    def abs_src_path(self, path):
        pass


@event_priority(-60)  # after mkdocs-jupyter has wrapped what it takes for notebooks: its wrapper forgets abs_src_path
def on_files(files, config):
    def add(path, folder, kind=File):
        files.append(kind(Path(path).as_posix(), str(folder), config.site_dir, config.use_directory_urls))

    shared = project.DOCS / "shared"
    for path in sorted(path for path in shared.rglob("*") if path.is_file()):
        add(path.relative_to(shared), shared)
    for path in sorted((project.SNIPPETS / "recipes").glob("*.py")):
        add(path.relative_to(project.SNIPPETS), project.SNIPPETS)
    for name in archives.WHOLE:
        files.append(File.generated(config, f"recipes/{name}.zip", content=archives.packed(name)))
    for name, module in markup.explorers_of_recipes().items():
        files.append(File.generated(config, f"explorers/{name}.js", content=module))
    files.append(File.generated(config, mathematics.STYLESHEET, content=mathematics.stylesheet()))
    config.extra["languages_of"] = {name: languages.having(name) for name in map(str, project.page_files(project.LANG))}
    build.pages = {}
    build.practice = notebooks.write_practice(project.LANG, build.site)
    for page in build.practice:
        files.remove(files.get_file_from_path(page))
        add(page, project.DOCS / project.LANG, PracticeFile)
    return files


def page_of(page):
    """The page of ours that stands for one of MkDocs'."""
    name = page.file.src_uri
    if name not in build.pages:
        ours = build.pages[name] = Page(project.LANG, name, site=build.site)
        if name in build.practice:
            ours.notebook = build.practice[name].read_text(encoding="utf-8")
            page.meta = reader.front_matter(ours.source)  # MkDocs has read the notebook
        ours.meta = dict(page.meta)
    return build.pages[name]


def on_nav(nav, config, files):
    """When it is known which pages there are, and in which order, but not yet what they say."""
    theme = [path.read_text("utf-8") for path in sorted((project.DOCS / "theme").rglob("*.*"))]
    settings = [Path(config.config_file_path).read_text("utf-8"), config.repo_url, build.site, project.LANG]
    build.around = kept.digest(theme, settings, markup.explorers(), sorted(file.src_uri for file in files))
    return nav


def on_page_markdown(markdown, page, config, files):
    """A page's text is made here, from its source to HTML, or taken from what is kept: MkDocs finds it rendered."""
    ours = page_of(page)
    page.meta["search"] = {"exclude": True}  # by the plugin: the index is ours
    with told():
        source = order.before(reader.without_front_matter(ours.source) if ours.notebook else markdown, ours)

        def text():
            page.markdown = source
            _render(page, ours, config, files)
            html = order.content(page.content, ours)
            toc = _tokens(page.toc.items)
            return {"html": html, "title": page.title, "toc": toc, "found": order.found(html, ours)}

        parts = [ours.name, build.around, source, ours.notebook, ours.meta, order.around_text(ours)]
        made = kept.kept(f"{project.LANG}/texts", parts, text, lambda _: not ours.faults)
    page.content, page.toc, page._title_from_render = made["html"], get_toc(made["toc"]), made["title"]
    ours.found = made["found"]
    page.render = lambda config, files: None
    return source


def _render(page, ours, config, files):
    """MkDocs renders the text of a page; of a practice page mkdocs-jupyter renders the cells around it."""
    type(page).render(page, config, files)
    if ours.notebook:
        toc = page.toc
        build.practice[ours.name].write_text(notebooks.around(page.content, ours), encoding="utf-8")
        page.render(config, files)
        page.toc = toc


def _tokens(items):
    return [{"level": one.level, "id": one.id, "name": one.title, "children": _tokens(one.children)} for one in items]


def on_env(env, config, files):
    """A whole page likewise: from its text to what is published, or taken from what is kept."""
    whole, navigation = type(env).get_template.__get__(env), kept.digest(list(_titles(files)))

    def made(context, ours):
        return order.after_theme(whole("main.html").render(context), ours)

    class Published:
        def render(self, context):
            page = context["page"]
            ours = page_of(page)
            parts = [
                ours.name, build.around, navigation, page.content, page.title, page.meta, page.edit_url, config.extra["alternate"],
                project.state.serving,
            ]  # fmt: skip
            with told():
                return kept.kept(f"{project.LANG}/pages", parts, lambda: made(context, ours), lambda _: not ours.faults)

    env.get_template = lambda name, *rest, **more: Published() if name == "main.html" else whole(name, *rest, **more)
    return env


def _titles(files):
    """What the navigation says of the pages."""
    for file in files.documentation_pages():
        yield [file.url, file.page.title, [parent.title for parent in file.page.ancestors]]


def on_page_context(context, page, config, nav):
    config.extra["alternate"] = languages.twins(page_of(page), config.extra["root"])


@event_priority(-100)  # when the search plugin has written its index, which ours replaces
def on_post_build(config):
    folder = Path(config.site_dir)
    (folder / "sitemap.xml.gz").unlink(missing_ok=True)
    with told():
        order.written(folder, project.LANG, list(build.pages.values()))
        build.begun = True
        if project.IS_CHILD:
            kept.forget()
        elif not build.more:
            while build.others:
                build.others[0].wait()
                del build.others[0]
            order.site(build.folder, build.site)
            kept.forget()
            build.begun = False
            project.LOCK.release(force=True)


@event_priority(-100)  # it may end the build before MkDocs prints a traceback
def on_build_error(error):
    mathematics.close()
    for other in build.others:
        other.end()
    build.others = []
    if not project.IS_CHILD:
        if build.folder and project.LOCK.is_locked:
            shutil.rmtree(build.folder, ignore_errors=True)
        project.LOCK.release(force=True)
    build.folder, build.begun = None, False
    if isinstance(error, OSError):
        project.log.error(project.failed(error))
        raise Abort("Aborted because the system refused") from None


def on_serve(server, config, builder):
    """From the second build on: the language that changed alone, here; what is wrong is shown where the writer looks."""
    folder, state, first = Path(config.site_dir).parent, _state(), project.LANG
    site = staging.site_of(folder)
    good = True

    def build_what_changed():
        nonlocal state, good
        before, state = state, _state()
        changed = [path for path in {*before, *state} if before.get(path) != state.get(path)]
        wanted = _languages_of(changed) if good and set(before) == set(state) else [*project.LANGUAGES]
        build.kept_languages = [language for language in project.LANGUAGES if language not in wanted]
        build.stopped = ""
        project.log.info(f"Changed: {' and '.join(map(project.LANGUAGES.get, wanted))}")
        try:
            for language in wanted:
                project.LANG, build.more = language, language != wanted[-1]
                builder()
            good = True
        except (Exception, SystemExit) as error:
            state, good = before, False  # what was not built has still changed
            if not isinstance(error, SystemExit):
                project.log.error(str(error))
            project.log.error("The last good site stays up until this is mended.")
            banner.show_everywhere(site, build.stopped or str(error))
        finally:
            project.LANG = first

    server.builder = build_what_changed
    return server


def _state():
    """{path: when it changed} of all that a build is made of."""
    folders = [project.DOCS, project.SNIPPETS, BUILDER]
    files = [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    return {path: path.stat().st_mtime_ns for path in [*files, project.ROOT / "mkdocs.yml"]}


def _languages_of(changed):
    """The languages to build: one, where nothing but its pages has changed."""
    for language in project.LANGUAGES:
        if changed and all(path.is_relative_to(project.DOCS / language) for path in changed):
            return [language]
    return [*project.LANGUAGES]


def build_second_language():
    """What the second process does: MkDocs, on the order that it gets."""
    from mkdocs.__main__ import cli

    told = second_language.obey()
    os.environ["SITE_URL"] = told["site_url"]
    options = ["--no-strict", "--config-file", told["config_file"], "--site-dir", told["building"]]
    cli(["--quiet", "build", *options], prog_name="mkdocs")


if __name__ == "__main__":
    build_second_language()
