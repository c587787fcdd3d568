"""Links that leave the site: each one is in docs/sources.yml, each entry is whole and linked, and the page lists them."""

import re

import markdown
import pytest

from builder import project
from builder.pages import checks, links
from builder.pages.page import Page

THREAD = "https://github.com/owner/name/issues/7"
PAPER = "https://papers.org/abs/1.2"
FILE = """\
subjects:
  masks: {ja: マスク, en: Masks}
  papers: {ja: 論文, en: Papers}

sources:
  masks:
    - url: https://github.com/owner/name/issues/7
      ja: "`attn_mask`についての質問です。"
      en: "Asks about `attn_mask`. Answered: it is added."
      read: 2026-11-26
  papers:
    - url: https://papers.org/abs/1.2
      name: A paper (2017)
      ja: 論文です。
      en: A paper.
      read: null
      why: {ja: 開けなかったため, en: it could not be opened}
"""
PAGE = f"# T {{ #t }}\n\n[#7]({THREAD}#issuecomment-1), [#7]({THREAD})\n"


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A project whose every link is known, and every entry linked."""
    for name, path in {"ROOT": "", "DOCS": "docs", "SNIPPETS": "snippets"}.items():
        monkeypatch.setattr(project, name, tmp_path / path)
    for path, text in {
        "docs/sources.yml": FILE,
        "docs/ja/one.md": PAGE,
        "docs/en/one.md": PAGE,
        "docs/en/two.md": f"# Two {{ #two }}\n\nSee [#7]({THREAD}).\n",
        "docs/glossary.yml": "terms: []\nforbidden:\n  - {language: en, word: oblong, why: say not square}\n",
        "snippets/recipes/tool.py": f'"""A tool, after {PAPER}."""\n',
        "README.md": "Read it on <http://127.0.0.1:8000/>.\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    assert links.faults() == [], "the project that every test breaks must be sound"
    return tmp_path


def change(house, path, old, new):
    text = (house / path).read_text("utf-8")
    assert old in text
    (house / path).write_text(text.replace(old, new, 1), "utf-8")


def told():
    return [str(fault) for fault in links.faults()]


NEW = "https://github.com/owner/name/pull/8"


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("docs/ja/one.md", f"\n[変更]({NEW})にも。\n", 5),
        ("docs/en/one.md", f"\n<{NEW}>\n", 5),
        ("docs/en/one.md", f'\n<a href="{NEW}">8</a>\n', 5),
        ("docs/en/one.md", f"\n[8]: {NEW}\n", 5),
        ("docs/en/one.md", "\n[8](//github.com/owner/name/pull/8)\n", 5),
        ("docs/en/one.md", "\n[8](HTTPS://GitHub.com/owner/name/pull/8#diff)\n", 5),
        ("docs/en/one.md", f"\n```figure f\ndescription: {NEW}\n```\n", 6),
        ("snippets/recipes/tool.py", f"# {NEW}\n", 2),
        ("docs/glossary.yml", f"# {NEW}\n", 4),
        ("README.md", f"Thanks to `{NEW}`.\n", 2),
        ("README.ja.md", f"（{NEW}）", 1),
    ],
)
def test_a_link_that_the_file_does_not_know(house, path, text, line):
    before = (house / path).read_text("utf-8") if (house / path).is_file() else ""
    (house / path).write_text(before + text, "utf-8")
    assert told() == [
        f"{path}:{line}: links to {NEW}, which is not in docs/sources.yml: read what stands there and add it"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nSITE_URL=https://example.org/ REPO_URL=https://github.com/you/attention make build\n```\n",
        "`https://example.org/attention/`, https://sub.example.com/x, http://localhost:8000/, https://{host}/x, a // b.c\n",
    ],
)
def test_what_leads_nowhere_is_no_link(house, text):
    (house / "README.md").write_text(text, "utf-8")
    assert told() == []


def test_commands_are_left_out_of_readmes_only(house):
    (house / "docs/en/two.md").write_text(f"# Two {{ #two }}\n\n[#7]({THREAD})\n\n```sh\ncurl {NEW}\n```\n", "utf-8")
    assert [fault.line for fault in links.faults()] == [6]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"（[#7]({THREAD})、[#8]({NEW})）", [THREAD, NEW]),
        (f"[論文]({PAPER})の式、{PAPER}。", [PAPER, PAPER]),
        (f"See {PAPER}, or ({PAPER}).", [PAPER, PAPER]),
        ("[w](https://w.org/Head_(a)) (https://w.org/b)", ["https://w.org/Head_(a)", "https://w.org/b"]),
        ("https://W.org/A?b=c#d **https://w.org/e**", ["https://w.org/A?b=c", "https://w.org/e"]),
    ],
)
def test_where_an_address_ends(text, expected):
    assert [address for _, address in links.addresses(text)] == expected


def test_an_entry_that_nothing_links_to(house):
    for page in ("docs/ja/one.md", "docs/en/one.md", "docs/en/two.md"):
        (house / page).write_text("# T { #t }\n", "utf-8")
    assert told() == [f"docs/sources.yml:7: nothing links to {THREAD} any more"]


def test_a_project_without_the_file_links_nowhere(house):
    (house / "docs/sources.yml").unlink()
    assert len(told()) == 6
    assert all("which is not in docs/sources.yml" in fault for fault in told())


READ = "      read: 2026-11-26\n"
WHY = "      why: {ja: 開けなかったため, en: it could not be opened}\n"
MALFORMED = {
    "not YAML": ("  masks:\n", "  masks: [\n", r":\d+: is not YAML: "),
    "a tab": ("      ja: 論文です。", "\tja: 論文です。", ":14: is not YAML: "),
    "another key": ("subjects:\n", "topics: {}\nsubjects:\n", ": has two keys, subjects and sources, and nothing else"),
    "no mapping": (FILE, "- https://papers.org\n", ": has two keys, subjects and sources"),
    "a list of subjects": ("subjects:\n  masks: {ja: マスク, en: Masks}\n  papers: {ja: 論文, en: Papers}", "subjects: [masks, papers]",
        ": lists subjects and sources by subject"),
    "a subject's title": ("{ja: 論文, en: Papers}", "{ja: 論文}", ":3: the subject papers has no title in both languages"),
    "an empty subject": ("\n\nsources", "\n  odd: {ja: 他, en: Odd}\n\nsources", ":4: the subject odd has no sources"),
    "an unknown subject": ("  papers: {ja: 論文, en: Papers}\n", "", ":10: papers is not among the subjects"),
    "no list": (FILE[FILE.index("    - url: https://papers"):], "    nothing\n", ":11: papers holds no list of sources"),
    "no entry": ("    - url: https://papers", "    - 5\n    - url: https://papers", ": `5` is no entry: it needs url, ja, en and read"),
    "no address": (PAPER, "papers.org", ":12: `papers.org` is not an address as a link has it"),
    "a fragment": (PAPER, PAPER + "#s1", rf":12: `{PAPER}#s1` is not an address as a link has it"),
    "no day": (READ, "", f":7: the entry of {THREAD} lacks read"),
    "a day in words": (READ, "      read: today\n", f":7: the entry of {THREAD} was read on `today`: give a day such as"),
    "a reason without need": (READ, READ + WHY, f":7: the entry of {THREAD} has why to spare"),
    "no reason": (WHY, "", f":12: the entry of {PAPER} lacks why"),
    "a reason in one language": (WHY, "      why: {ja: 開けなかったため}\n", f":12: the entry of {PAPER} gives no reason in both"),
    "no name": ("      name: A paper (2017)\n", "", f":12: the entry of {PAPER} lacks name"),
    "a thread's name": (READ, READ + "      name: Seven\n", f":7: the entry of {THREAD} has name to spare"),
    "one language": ("      ja: 論文です。\n", "", f":12: the entry of {PAPER} lacks ja"),
    "an empty sentence": ("en: A paper.", 'en: ""', f":12: the entry of {PAPER} says nothing under en"),
    "a number for a sentence": ("en: A paper.", "en: 5", f":12: the entry of {PAPER} says nothing under en"),
    "twice": ("  papers:\n    - ", f"    - url: {THREAD}\n      ja: 二。\n      en: Two.\n{READ}  papers:\n    - ",
        f":7: {THREAD} is there twice"),
    "a forbidden word": ("Asks about", "Oblong", f':7: the entry of {THREAD} says "Oblong": say not square'),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_told_in_a_sentence(house, name):
    old, new, message = MALFORMED[name]
    change(house, "docs/sources.yml", old, new)
    assert len(told()) == 1, told()
    assert re.match(
        rf"docs/sources\.yml{message}" if "\\" in message else re.escape(f"docs/sources.yml{message}"), told()[0]
    ), told()


def test_a_file_that_is_not_text(house):
    (house / "docs/sources.yml").write_bytes(FILE.encode("utf-16"))
    assert len(told()) == 1
    assert told()[0].startswith("docs/sources.yml: is not UTF-8: ")


def test_the_build_asks(house):
    change(house, "docs/en/two.md", "issues/7", "issues/9")
    assert "docs/en/two.md:3: links to https://github.com/owner/name/issues/9" in "\n".join(map(str, checks.faults()))


@pytest.mark.parametrize("language", project.LANGUAGES)
def test_the_page_lists_each_source_once_with_its_day_and_its_pages(house, language):
    made = links.put("# T { #t }\n\n```sources\n```\n", Page(language, "reference/sources.md"))
    html = markdown.markdown(links.render(language), extensions=["attr_list", "md_in_html"])
    assert "```" not in made
    assert (
        re.findall(r'<h2 id="([\w-]+)">(.*?)</h2>', html)
        == {"ja": [("masks", "マスク"), ("papers", "論文")], "en": [("masks", "Masks"), ("papers", "Papers")]}[language]
    )
    assert re.findall(r'<dt><a href="(.*?)">(.*?)</a></dt>', html) == [
        (THREAD, "owner/name #7"),
        (PAPER, "A paper (2017)"),
    ]
    first, second = re.findall(r"<dd>(.*?)</dd>", html, re.S)
    assert "<code>attn_mask</code>" in first
    assert ("Read on 2026-11-26" if language == "en" else "2026-11-26に確認") in first
    assert (
        re.findall(r'href="\.\./(.*?)">(.*?)<', first)
        == [("one.md", "T"), ("two.md", "Two")][: 2 if language == "en" else 1]
    )
    assert (
        "Not read again: it could not be opened" if language == "en" else "読み直していません（開けなかったため）"
    ) in second
    assert ("There are 2. Of these 1 " if language == "en" else "全部で2件です。うち1件") in html
