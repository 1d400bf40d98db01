"""``AtomicFile``: exact reading of one of RecBole's atomic files."""

import csv
import io
import re
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import FeatureType

from recbole_alt.data.encodings import read_as_utf8
from recbole_alt.data.numbers import fit, number, numbers

#: The types that a column may have.
KINDS = [kind.value for kind in FeatureType]
_SOMETHING = re.compile(rb"[^\r\n]")


class AtomicFile:
    """An atomic file: a first line of ``name:type`` columns, then one row per line and one cell per column.

    A line ends with ``\\n`` or ``\\r\\n`` and with nothing else; empty lines are skipped. Nothing is quoted. Only an
    empty cell is a missing value. The content is kept in memory from its first use until :meth:`release`. An
    ``encoding`` of None is UTF-8, whatever the locale.
    """

    def __init__(self, path: str, separator: str = "\t", encoding: str | None = None, seq_separator: str = " "):
        self.path = path
        self._separator, self._encoding, self._seq_separator = separator, encoding or "utf-8", seq_separator

    def __str__(self) -> str:
        return self.path

    @property
    def head(self) -> str:
        """Where the columns are named, as an error says it."""
        return f"{self.path}, line 1"

    def place(self, row: int) -> str:
        """The file and the line of a row, which is counted from 0."""
        return f"{self.path}, line {self.lines[row]}"

    @property
    def name(self) -> str:
        """The name of the file without its folder."""
        return Path(self.path).name

    # -- content -----------------------------------------------------------------------------------------

    @cached_property
    def _content(self) -> bytes:
        return read_as_utf8(self.path, self._encoding)

    def release(self) -> None:
        """Free the content; the file is read again when it is next used."""
        for name in ("_content", "is_plain", "_regular_lines", "_ends", "_lines", "_cells"):
            self.__dict__.pop(name, None)

    def header(self) -> dict[str, str]:
        """The columns in their order: name → type.

        Raises:
            ValueError: the first line is not of ``name:type`` columns or gives a name twice, or there is no row.
        """
        end = self._content.find(b"\n") % (len(self._content) + 1)
        line = self._content[:end].removesuffix(b"\r").decode()
        if "\0" in line:
            raise ValueError(f"{self.path}, line 1 has NUL characters: if it is UTF-16, set encoding: utf-16-le")
        columns: dict[str, str] = {}
        for typed in line.split(self._separator):
            name, _, kind = typed.partition(":")
            if not name or kind not in KINDS:
                raise ValueError(
                    f"{self.path}: its first line must name each column as name:type with a type of "
                    f"{', '.join(KINDS)}, separated by {self._separator!r} (field_separator); found {short(typed)}"
                )
            if name in columns:
                raise ValueError(f"{self.path}, line 1: two columns are called {name!r}: rename one, or take it out")
            columns[name] = kind
        if not _SOMETHING.search(self._content, end):
            raise ValueError(f"{self.path} has no rows")
        return columns

    # -- lines and cells ---------------------------------------------------------------------------------

    @cached_property
    def _regular_lines(self) -> int | None:
        """The number of lines if each has as many cells as the first line, which is quick to find out; else None."""
        content, separator = self._content, self._separator.encode()
        width = len(self.header())
        if len(separator) > 1 or width == 1:  # an empty line looks like one cell
            return None
        bounds = content.translate(None, delete=bytes(set(range(256)) - {separator[0], 10}))
        bounds += b"" if content.endswith(b"\n") else b"\n"
        count, line = len(bounds) // width, separator * (width - 1) + b"\n"
        return count if bounds == line * count else None

    @cached_property
    def _ends(self) -> np.ndarray:
        """The positions in the content at which the lines end, the first line included."""
        ends = np.flatnonzero(np.frombuffer(self._content, dtype=np.uint8) == 10)
        return ends if self._content.endswith(b"\n") else np.append(ends, len(self._content))

    @cached_property
    def _lines(self) -> np.ndarray:
        """The indices of the lines that are not empty; the first line is 0."""
        if self._regular_lines is not None:
            return np.arange(self._regular_lines)
        lengths = np.diff(self._ends, prepend=-1) - 1
        short = np.flatnonzero(lengths == 1)
        lengths[short] -= np.frombuffer(self._content, dtype=np.uint8)[self._ends[short] - 1] == 13
        return np.flatnonzero(lengths)

    @property
    def lines(self) -> np.ndarray:
        """The line number [rows] of each row, counted from 1 for the first line."""
        return self._lines[1:] + 1

    @cached_property
    def _cells(self) -> np.ndarray:
        """The number of cells [rows] of each row of a file that is not regular."""
        matches = re.finditer(re.escape(self._separator.encode()), self._content)
        found = np.array([match.start() for match in matches], dtype=np.int64)
        return np.diff(np.searchsorted(found, self._ends[self._lines])) + 1

    def copy_of(self, lines: np.ndarray) -> bytes:
        """The lines with these numbers [n], in this order, each with a ``\\n`` at its end; in UTF-8."""
        content, ends = self._content, self._ends
        starts = np.append(0, ends[:-1] + 1)
        parts = zip(starts[lines - 1].tolist(), ends[lines - 1].tolist(), strict=True)
        return b"".join(content[start:end].removesuffix(b"\r") + b"\n" for start, end in parts)

    def trails(self) -> bool:
        """True if every row ends with exactly one separator more than the first line."""
        if self._regular_lines is not None or not (self._cells == len(self.header()) + 1).all():
            return False
        separator = self._separator.encode()
        tails = (self._content[end - len(separator) - 1 : end] for end in self._ends[self._lines[1:]].tolist())
        return all(tail.removesuffix(b"\r").endswith(separator) for tail in tails)

    def fault(self) -> str | None:
        """A message about rows with another number of cells than the first line, or None."""
        width = len(self.header())
        wrong = np.flatnonzero(self._cells != width) if self._regular_lines is None else np.arange(0)
        if not len(wrong):
            return None
        count, line = int(self._cells[wrong[0]]), self.lines[wrong[0]]
        rows = "" if len(wrong) == 1 else f" (so in {len(wrong)} rows)"
        return f"{self.path}, line {line}: {count} cell{'s' * (count != 1)} where the first line names {width}{rows}"

    # -- reading -----------------------------------------------------------------------------------------

    def read(self, names: Collection[str], as_text: Collection[str] = ()) -> pd.DataFrame:
        """Read columns, in the file's order, of a file without :meth:`fault`.

        Args:
            names: columns to read by their type: float as float64, float_seq and token_seq as one array per row.
            as_text: columns to read as text, whatever their type.

        Returns:
            [rows, columns]; an empty cell is NaN, an empty sequence an array of length 0.

        Raises:
            ValueError: a cell of a float or float_seq column holds no finite number.
        """
        header, separator = self.header(), self._seq_separator
        wanted = [name for name in header if name in names or name in as_text]
        floats = [name for name in wanted if header[name] == "float" and name not in as_text]
        frame = self._read(wanted, floats)
        for name in wanted:
            kind = header[name] if name not in as_text else "token"
            if kind == "float" and not fit(frame[name].to_numpy()):
                text = self._read([name], [])[name].fillna("")
                frame[name] = np.array(self._parsed(text, number, "holds no finite number"), dtype=np.float64)
            elif kind == "token_seq":
                cells = (filter(None, cell.split(separator)) for cell in frame[name].fillna(""))
                frame[name] = [np.array(list(words), dtype=object) for words in cells]
            elif kind == "float_seq":
                why = f"holds no finite numbers separated by {separator!r} (seq_separator)"
                frame[name] = self._parsed(frame[name].fillna(""), lambda cell: numbers(cell.split(separator)), why)
        return frame

    @cached_property
    def is_plain(self) -> bool:
        """True if pandas reads the file exactly; it would cut values at NUL, and lines at a lone ``\\r``."""
        content = self._content
        lone = b"\r" in content and content.count(b"\r") != content.count(b"\r\n")
        return not lone and b"\0" not in content

    def _read(self, names: Sequence[str], floats: Collection[str]) -> pd.DataFrame:
        """Read columns as text, and those in ``floats`` as numbers if every cell of them is one."""
        header = list(self.header())
        columns = [header.index(name) for name in names]
        if not self.is_plain or len(self._separator.encode()) > 1:
            return self._read_exactly(names, columns)
        kinds = {column: np.float64 if name in floats else object for name, column in zip(names, columns, strict=True)}
        try:
            frame = pd.read_csv(
                io.BytesIO(self._content),
                sep=self._separator,
                names=range(len(header) + self.trails()),
                skiprows=1,
                usecols=columns,
                dtype=kinds,
                index_col=False,
                engine="c",
                quoting=csv.QUOTE_NONE,
                keep_default_na=False,
                na_values=[""],
                skip_blank_lines=False,
            )
        except ValueError:
            if not floats:
                raise
            return self._read(names, ())  # `read` finds the cell
        frame.columns = list(names)
        if len(frame) == len(self._lines) - 1:
            return frame
        return frame.iloc[self._lines[1:] - 1].reset_index(drop=True)

    def _read_exactly(self, names: Sequence[str], columns: Sequence[int]) -> pd.DataFrame:
        """Read columns as text, whatever characters they hold; several times slower than :meth:`_read`."""
        text = self._content.decode().split("\n")
        rows = [text[line].removesuffix("\r").split(self._separator) for line in self._lines[1:].tolist()]
        cells = {name: [row[i] or np.nan for row in rows] for name, i in zip(names, columns, strict=True)}
        return pd.DataFrame(cells, dtype=object)

    def _parsed(self, column: pd.Series, parse: Callable[[str], Any], why: str) -> list[Any]:
        """Parse the cells of a column; refuse it, saying ``why``, if a result is None."""
        read = [parse(cell) for cell in column]
        rows = [row for row, value in enumerate(read) if value is None]
        if rows:
            cell = short(column[rows[0]]) + ("" if len(rows) == 1 else f" (so do {len(rows)} rows)")
            raise ValueError(
                f"{self.path}, line {self.lines[rows[0]]}: column {column.name!r} {why}: {cell}; write numbers such as "
                "1234.5, leave the cell empty, or give the column the type token"
            )
        return read


def short(text: str) -> str:
    """A value as an error shows it."""
    return repr(text if len(text) <= 60 else text[:60] + "…")
