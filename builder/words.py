"""Every word of ours that the build, the theme or an explorer shows, in each language: docs/words.yml, read once.

It is a part of the program: under serve, a change of it asks for a restart, and what was made with other words is not kept.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[1] / "docs" / "words.yml"


def yaml_of(text: str) -> Any:
    """What a text of YAML says, read by libyaml, in a tenth of the time, where PyYAML brings it. Raises yaml.YAMLError."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _read():
    content = yaml_of(FILE.read_text(encoding="utf-8"))
    return content.pop("languages"), content


LANGUAGES, _rooms = _read()


def said(texts: dict[str, Any], language: str) -> Any:
    """What a language says, in English where it says nothing: those that need to be complete lack nothing."""
    return texts.get(language, texts["en"])


def of(room: str, language: str) -> dict[str, Any]:
    """{name: word} of one room in one language, in English where the language lacks it: `faults` has told so."""
    return {name: said(word, language) for name, word in _rooms.get(room, {}).items()}


def faults() -> Iterator[str]:
    """A sentence for each word that a language lacks, or has in a language that the site has not."""
    for room, words in _rooms.items():
        for name, word in words.items():
            for language in LANGUAGES.keys() - word.keys():
                yield f"{room}: {name}: there is no {language}"
            for language in word.keys() - LANGUAGES.keys():
                yield f"{room}: {name}: there is no language {language}, only {', '.join(LANGUAGES)}"
            kinds = {str(type(text)) + str(len(text) if isinstance(text, list) else "") for text in word.values()}
            if len(kinds) > 1:
                yield f"{room}: {name}: expected a text, or as many texts in a list, in every language"


def of_explorer(name: str, language: str) -> str:
    """The words of an explorer as its element carries them, in JSON; an empty text where a recipe brings its own."""
    said = of(f"explorers/{name}", language)
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")) if said else ""
