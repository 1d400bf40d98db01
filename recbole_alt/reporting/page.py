"""Pages: one HTML file each that needs no other file, no network and no script, for any screen.

Their templates, beside this module, escape all text that they are given; a policy in the page keeps a browser from
loading or executing anything.
"""

import re
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from typing import Any

_PIXELS_PER_POINT, _SMALLEST = 4 / 3, 0.58


@dataclass(frozen=True)
class Plot:
    """An SVG in a page, with the words that say what it shows."""

    about: str
    svg: bytes

    @property
    def address(self) -> str:
        """The image as a ``data:`` address."""
        return f"data:image/svg+xml;base64,{b64encode(self.svg).decode()}"

    @property
    def least_width(self) -> int:
        """The pixels below which its words can't be read; where there are fewer, it is scrolled."""
        found = re.search(rb'<svg [^>]*width="([0-9.]+)pt"', self.svg)
        return round(float(found[1]) * _PIXELS_PER_POINT * _SMALLEST) if found else 0


def make_page(template: str, **content: Any) -> str:
    """Fill in a template; a name that it reads and ``content`` lacks is an error."""
    return str(_environment().get_template(template).render(content))


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # late: only runs that end need it

    options: dict[str, Any] = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=PackageLoader(__package__, ""), undefined=StrictUndefined, **options)
    environment.filters["code"] = _mark_code
    return environment


def _mark_code(text: str) -> Any:
    """Escaped text in which what stands between backticks is code; of several words, it is a command."""
    from markupsafe import Markup, escape

    def mark(found: re.Match[str]) -> str:
        kind = ' class="command"' if " " in found[1] else ""
        return f"<code{kind}>{found[1]}</code>"

    return Markup(re.sub("`([^`]+)`", mark, str(escape(text))))
