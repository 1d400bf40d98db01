"""Markdown tables."""

from collections.abc import Sequence


class Markdown(str):
    """Text in Markdown, which a notebook shows as it is meant to be read."""

    def _repr_markdown_(self) -> str:
        return str(self)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "l", *, pad: bool = True) -> str:
    """Format a table, without a line break at its end.

    Args:
        header: titles of the columns.
        rows: cells as text; a ``|`` in one is escaped.
        align: ``l`` or ``r`` for each column; the last letter stands for all columns that follow.
        pad: make every cell as wide as the widest of its column, so that the source can be read as a table, too.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    lines = [[cell.replace("|", r"\|") for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) if pad else 0 for column in zip(*lines, strict=True)]
    sides = align.ljust(len(header), align[-1])
    columns = []
    for cells, width, side in zip(zip(*lines, strict=True), widths, sides, strict=True):
        rule = "-" * (width + 1 if pad else 3) + (":" if side == "r" else "-" * pad)
        title, *values = (f" {cell.rjust(width) if side == 'r' else cell.ljust(width)} " for cell in cells)
        columns.append([title, rule, *values])
    return "\n".join(f"|{'|'.join(line)}|" for line in zip(*columns, strict=True))
