"""Numbers that an explorer fetches when it needs them: what a page's script kept, as a file beside the site's own.

A page that says `data: [head_view]` in its front matter gets `data/head_view.json` below its language's root: the tensors
and labels that its script kept with figure("head_view", ...).
"""

import json
from pathlib import Path

import project
from mkdocs.plugins import event_priority
from project import Fault

import snippets

wanted = {}  # name -> page


def on_pre_build(config):
    wanted.clear()


@event_priority(60)  # before a page is anything but its source
def on_page_markdown(markdown, page, config, files):
    kept = snippets.record(project.script_of(page.file.src_uri), "figures") or {}
    for name in page.meta.get("data", []):
        if name not in kept:
            there = ", ".join(kept) or "nothing"
            message = f"data: no figure {name!r} is kept by snippets/{project.script_of(page.file.src_uri)}; it keeps {there}"
            project.stop([Fault(f"docs/{project.LANG}/{page.file.src_uri}", 1, message)])
        if wanted.setdefault(name, page.file.src_uri) != page.file.src_uri:
            message = f"data: {name!r} is the name of another page's data, {wanted[name]}"
            project.stop([Fault(f"docs/{project.LANG}/{page.file.src_uri}", 1, message)])


def on_post_build(config):
    for name, page in wanted.items():
        kept = snippets.record(project.script_of(page), "figures")[name]
        data = {"tensors": {key: tensor["data"] for key, tensor in kept["tensors"].items()}, "labels": kept["labels"]}
        path = Path(config.site_dir) / "data" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
