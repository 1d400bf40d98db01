"""Hooks of mkdocs.yml.

On the site, links to folders and to files outside ``docs/`` become plain text: they lead somewhere in a checkout, where
the same pages are read as Markdown, and nowhere on the site. What is folded away (``<details>``) is read as Markdown,
and roles in docstrings (``:func:`name```) become plain code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:func|class|meth|attr|data|mod):<code>~?([^<]*)</code>")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return the page's Markdown as the site needs it; MkDocs calls this for every page."""
    docs = Path(config.docs_dir).resolve()
    folder = (docs / page.file.src_uri).parent

    def shown(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        leaves = docs not in target.parents
        return match[1] if target.exists() and (leaves or target.is_dir()) else match[0]

    return _LINK.sub(shown, markdown).replace("<details>", '<details markdown="1">')


def on_page_content(html: str, **_: Any) -> str:
    """Return the page's HTML without the names of roles; MkDocs calls this for every page."""
    return _ROLE.sub(r"<code>\1</code>", html)
