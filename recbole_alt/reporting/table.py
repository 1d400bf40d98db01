"""A table of text, before it is Markdown, LaTeX or HTML, and how numbers stand in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recbole_alt.markdown import markdown_table

#: A value chosen at the end of its range; LogLoss above the entropy of the base rate; AUC below that of click rates.
AT_END, UNTRAINED, OUTDONE = "†", "‡", "§"

_NUMERIC = frozenset("0123456789+-<")
_LATEX = str.maketrans(
    {"\\": r"\textbackslash ", **{c: "\\" + c for c in "_%&#{}$"}, "±": r"$\pm$", "Δ": r"$\Delta$", "≥": r"$\ge$"}
    | {"–": "--", "~": r"\textasciitilde ", "<": "$<$", "`": "", AT_END: r"\dag", UNTRAINED: r"\ddag", OUTDONE: r"\S"}
)


@dataclass(frozen=True)
class Table:
    """A title, titles of columns, cells as text, and below them the ``facts`` that the numbers depend on."""

    title: str
    header: list[str]
    rows: list[list[str]]
    facts: str = ""

    @classmethod
    def of(cls, title: str, columns: Iterable[tuple[str, Sequence[str]]], facts: str = "") -> Table:
        """Make a table of the columns, title and cells, that say something."""
        shown = [(name, cells) for name, cells in columns if any(cells)]
        return cls(title, [name for name, _ in shown], list(map(list, zip(*(c for _, c in shown), strict=True))), facts)

    def joined(self, title: str, names: Sequence[str]) -> Table:
        """The same with the columns of these ``names`` as one, which is the first."""
        first = [place for place, name in enumerate(self.header) if name in names]
        rest = [place for place in range(len(self.header)) if place not in first]
        rows = [[" ".join(filter(None, (row[n] for n in first))), *(row[n] for n in rest)] for row in self.rows]
        return Table(self.title, [title, *(self.header[n] for n in rest)], rows, self.facts)

    @property
    def kinds(self) -> list[str]:
        """``number`` or ``words`` for each column."""
        columns = zip(*self.rows, strict=True)
        return ["number" if any(cell[:1] in _NUMERIC for cell in cells if cell) else "words" for cells in columns]

    def markdown(self) -> str:
        """Title, table and facts."""
        return f"## {self.title}\n\n{markdown_table(self.header, self.rows)}\n\n{self.facts}\n"

    def latex(self) -> str:
        """A ``tabular`` inside a ``table``."""
        head, *lines = (" & ".join(c.translate(_LATEX) for c in line) + r" \\" for line in (self.header, *self.rows))
        body = "\n".join([head, r"\hline", *lines])
        return (
            f"\\begin{{table}}\n\\caption{{{f'{self.title}. {self.facts}'.translate(_LATEX)}}}\n"
            f"\\begin{{tabular}}{{{'l' * len(self.header)}}}\n{body}\n\\end{{tabular}}\n\\end{{table}}\n"
        )


def number(value: float | None, sign: str = "") -> str:
    """A score or, with the ``sign`` ``+``, a difference; empty for None."""
    return "" if value is None else f"{value:{sign}.4f}"
