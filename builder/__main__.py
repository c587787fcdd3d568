"""The build by hand, without MkDocs: `python -m builder run snippets/layouts/rosetta.py`, and what else USAGE names."""

import sys

USAGE = """\
python -m builder run SCRIPT…     run scripts: what each section printed, each claim, each value and figure
python -m builder stamp PAGE      accept one page pair after rereading it: layouts/rosetta
python -m builder marks PAGE…     the sentences of a page that look like verdicts and that nothing bears
python -m builder before PAGE     a page as Markdown that any renderer takes: en/layouts/rosetta
python -m builder content PAGE    what a renderer made of that, on standard input -> the text of the page
python -m builder after PAGE      a whole page of HTML around that text, on standard input -> the page that is published
python -m builder port NUMBER     say in one sentence what is wrong with a port, if anything"""


def step(act: str, name: str) -> int:
    """One step of builder/order.py on one page, which has to be built once before: the records of its scripts are read."""
    from builder import order, project
    from builder.pages import reader
    from builder.pages.page import Page

    language, _, path = name.removesuffix(".md").partition("/")
    if not (project.DOCS / language / f"{path}.md").is_file():
        print(f"There is no docs/{language}/{path}.md", file=sys.stderr)
        return 2
    page = Page(language, f"{path}.md", site="http://127.0.0.1:8000")
    page.meta = reader.front_matter(page.source)
    try:
        made = order.before(reader.without_front_matter(page.source), page)
        if act != "before":
            made = {"content": order.content, "after": order.after}[act](sys.stdin.read(), page)
        project.stop(page.faults)
    except project.Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 1
    sys.stdout.write(made)
    return 0


def main(arguments: list[str]) -> int:
    """Do what the first argument names; returns the exit status."""
    act, *rest = arguments or [""]
    if act == "run" and rest:
        from builder.scripts import runner

        return runner.main(rest)
    if act == "stamp":
        from builder.pages import lock

        return lock.main(rest)
    if act == "marks" and rest:
        from builder.pages import marks

        return marks.main(rest)
    if act in ("before", "content", "after") and len(rest) == 1:
        return step(act, rest[0])
    if act == "port":
        from builder import port_is_free

        return port_is_free.main(rest)
    print(USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
