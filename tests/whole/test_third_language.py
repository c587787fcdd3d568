"""A third language is a line and a column of docs/words.yml and a folder of pages: tried in French, with two of four pages."""

import json
import re
import shutil

import pytest
import yaml
from small_project import SmallProject

PAGE = "layouts/two-sums.md"
ONCE = pytest.mark.xdist_group("french")  # built by one process


def in_french(small):
    """The small project with a column of words and two pages in French, to be built."""
    content = yaml.safe_load(small.read("docs/words.yml"))
    languages = content.pop("languages") | {"fr": "Français"}
    for words in content.values():
        for word in words.values():
            word["fr"] = word["en"]
    content["site"]["name"]["fr"] = "Une attention, deux dispositions"
    content["claims"]["hold"]["fr"] = "{n} propositions tiennent"
    content["doors"]["open"]["fr"] = "Entrez."
    small.write(
        "docs/words.yml", yaml.safe_dump({"languages": languages, **content}, allow_unicode=True, sort_keys=False)
    )
    index = small.read("docs/en/index.md").replace("Each row sums to one.", "Chaque ligne vaut un.")
    small.write("docs/fr/index.md", index.replace(" [Try it](practice/try-it.md)", ""))
    page = small.read(f"docs/en/{PAGE}").replace("Each row sums to one", "Chaque ligne vaut un")
    small.write(f"docs/fr/{PAGE}", page.replace(", [Claims](../reference/claims.md)", ""))
    return small


@pytest.fixture
def french(small):
    return in_french(small)


@pytest.fixture(scope="module")
def built(built_small_project, tmp_path_factory):
    """It, built: what the tests that break nothing look at."""
    folder = tmp_path_factory.mktemp("french") / "project"
    small = in_french(SmallProject.at(shutil.copytree(built_small_project.folder, folder, symlinks=True)))
    done = stamped(small).build()
    assert done.returncode == 0, done.said
    return small


def stamped(small):
    small.reread("index", "layouts/two-sums")
    return small


@ONCE
def test_its_pages_stand_beside_the_others(built):
    page = built.read("site/fr/layouts/two-sums/index.html")
    assert re.search(r'<html lang="fr"', page)
    assert "Chaque ligne vaut un" in page
    assert "propositions tiennent" in page
    assert "<figure" in page
    assert "Une attention, deux dispositions" in page
    for language in ("ja", "en", "fr"):
        other = built.read(f"site/{language}/layouts/two-sums/index.html")
        alternates = re.findall(r'<link rel="alternate" href="[^"]*/(\w\w)/layouts/two-sums/" hreflang="(\w\w)"', other)
        assert [there for there, _ in alternates] == [named for _, named in alternates] == ["ja", "en", "fr"]
        switches = re.findall(r'hreflang="(\w\w)"[^>]*class="language-switch"', other)
        assert sorted([*switches, language]) == ["en", "fr", "ja"]
    index = json.loads(built.read("site/fr/search/search_index.json"))
    assert {doc["location"].partition("#")[0] for doc in index["docs"]} == {"", "layouts/two-sums/"}


@ONCE
def test_a_page_that_it_lacks_is_nowhere_named(built):
    assert not built.path("site/fr/practice").exists()
    for language in ("ja", "en"):
        page = built.read(f"site/{language}/practice/try-it/index.html")
        assert 'hreflang="fr"' not in page
        sitemap = built.read(f"site/{language}/sitemap.xml")
        assert "fr/layouts/two-sums/" in sitemap
        assert "fr/practice" not in sitemap


@ONCE
def test_the_doors_and_the_sitemap_name_it(built):
    doors = built.read("site/index.html")
    assert re.search(r'<a href="[^"]*/fr/" lang="fr" hreflang="fr"><strong>Français</strong> Entrez\.</a>', doors)
    assert re.search(r'<link rel="alternate" href="[^"]*/fr/" hreflang="fr">', doors)
    assert "/fr/sitemap.xml" in built.read("site/sitemap.xml")
    assert not built.path("site/fr/stylesheets").exists()  # all languages share one copy


def test_its_page_is_held_to_the_pair(french):
    stamped(french)
    french.replace(f"docs/fr/{PAGE}", "{ #same }", "{ #memes }")
    said = french.told()
    assert f"docs/fr/{PAGE}" in said
    assert "#memes" in said
    french.replace(f"docs/fr/{PAGE}", "{ #memes }", "{ #same }")
    assert not french.told()
    french.replace(f"docs/fr/{PAGE}", "Chaque ligne vaut un", "Toute ligne vaut un")
    assert "make stamp PAGE=layouts/two-sums" in french.told()


def test_a_word_that_it_lacks_is_named(french):
    content = yaml.safe_load(french.read("docs/words.yml"))
    del content["figures"]["table"]["fr"]
    content["figures"]["rows"]["xx"] = "?"
    french.write("docs/words.yml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    said = french.told()
    assert "docs/words.yml: figures: table: there is no fr" in said
    assert "docs/words.yml: figures: rows: there is no language xx, only ja, en, fr" in said


def test_a_page_of_it_alone_is_told(french):
    stamped(french)
    french.write("docs/fr/layouts/seule.md", "# Seule { #seule }\n")
    assert "stands in one language only: docs/ja/layouts/seule.md is missing" in french.told()
