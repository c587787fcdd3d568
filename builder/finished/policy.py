"""Content-Security-Policy: a page loads from its own host alone, and runs exactly the inline scripts that it came with."""

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder import project

if TYPE_CHECKING:
    from builder.pages.page import Page

COMMENT = re.compile(r"<!--.*?-->", re.S)
SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script\s*>", re.S | re.I)
CHARSET = re.compile(r"<meta\s+charset=[^>]*>", re.I)
POLICY = re.compile(r'\n?[ \t]*<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
TYPE = re.compile(r"""\btype\s*=\s*["']?([^\s"'>]*)""", re.I)
# What a browser executes, or obeys, when it stands inline; anything else is data, to which no policy applies.
EXECUTED_TYPES = {"", "text/javascript", "application/javascript", "module", "importmap", "speculationrules"}


def inline_scripts(html: str) -> Iterator[str]:
    """The code of each script that stands in a page and is executed."""
    for attributes, code in SCRIPT.findall(COMMENT.sub("", html)):
        kind = TYPE.search(attributes)
        if code and not re.search(r"\bsrc\s*=", attributes) and (not kind or kind[1].lower() in EXECUTED_TYPES):
            yield code


def policy(html: str) -> str:
    """The Content-Security-Policy of a page: its own host, and exactly the inline scripts that stand on it."""
    hashes = []
    for code in inline_scripts(html):
        # Browsers hash what the parser leaves: line ends are \n.
        digest = hashlib.sha256(code.replace("\r\n", "\n").replace("\r", "\n").encode()).digest()
        hashes.append(f" 'sha256-{base64.b64encode(digest).decode()}'")
    scripts = "".join(dict.fromkeys(hashes))
    return (
        f"default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'{scripts}; "
        "base-uri 'self'; form-action 'self'; object-src 'none'"
    )


def with_policy(html: str) -> str:
    """The page with its policy right after `<meta charset>`; raises ValueError where there is none to follow."""
    html = POLICY.sub("", html)
    charset = CHARSET.search(html)
    if not charset:
        raise ValueError("a page without <meta charset> has no place for its Content-Security-Policy")
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy(html)}">'
    return html[: charset.end()] + meta + html[charset.end() :]


def put(html: str, page: "Page") -> str:
    """The finished page with its policy; not under serve, where MkDocs adds a script of its own."""
    return html if project.state.serving else with_policy(html)
