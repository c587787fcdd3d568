"""The one hook that MkDocs loads: every room's part in each event; their priorities decide the order.

Were the rooms listed in mkdocs.yml, those that others import would be there twice in a process, each with a memory of its
own: a page could say one number of claims and its notebook another.
"""

import explorer_data
import figures
import finish
import glossary
import languages
import lean
import mathematics
import notebooks
import pages
import search
import sources
import typed
from mkdocs.plugins import EVENTS, CombinedEvent

import snippets

ROOMS = (
    languages, snippets, typed, pages, figures, glossary, sources, notebooks, search, lean, mathematics, explorer_data, finish,
)  # fmt: skip


def _parts(event):
    return [getattr(room, event) for room in ROOMS if hasattr(room, event)]


globals().update({f"on_{event}": CombinedEvent(*parts) for event in EVENTS if (parts := _parts(f"on_{event}"))})
