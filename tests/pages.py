"""The pages of the documentation as tests read them: their blocks of code, and the commands in these."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "evidence").glob("*.md"))]

_BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_CODE = re.compile(_BLOCK.pattern + r"|(?<!`)`([^`]+)`(?!`)", _BLOCK.flags)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: what stands behind the opening fence, such as ``python``; commands have ``bash`` or nothing.
        file: the name of the file that the block is to be saved as, or nothing.
        text: the code.
    """

    language: str
    file: str
    text: str

    def commands(self) -> Iterator[list[str]]:
        """The words of each line; comments and what precedes ``&&`` or ``|`` apart."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                ends = [n for n, word in enumerate(words) if word in ("&&", "|")] or [len(words)]
                yield words[: ends[0]]
                words = words[ends[0] + 1 :]


def blocks(page: Path) -> list[Block]:
    """The blocks of code of a page, in their order."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def code(page: Path) -> list[Block]:
    """The blocks of code of a page, and the code within its sentences as blocks of the language ``inline``."""
    found = _CODE.findall(page.read_text(encoding="utf-8"))
    return [Block("inline", "", " ".join(span.split())) if span else Block(*block) for *block, span in found]
