"""Whether plain RecBole reads atomic files as this package does.

Its ``Dataset._load_feat`` leaves them to pandas, which has words for missing values and takes quotation marks out.
"""

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import numpy as np
import pandas as pd

from recbole_alt.data.atomic import AtomicFile, short
from recbole_alt.data.columns import Header, loaded_columns
from recbole_alt.data.files import atomic_files
from recbole_alt.data.parquet import ParquetFile

_MARK = '"'
_LEFT_OPEN = r'"(?!(?:[^"]|"")*"$)'  # a cell that begins with a mark, and does not just stand between two of them
_WORD = "[A-Za-z]"
_STAYS = "the model stays as it is"
_SAME = 1e-12  # relative difference of numbers, which pandas' parsers round otherwise


def check_plain_reading(config: Mapping[str, Any]) -> None:
    """Refuse data of which plain RecBole reads a loaded column otherwise than this package.

    A quotation mark in a column that is not loaded, for which it refuses the file, is only warned about: the model is
    the same without it.

    Raises:
        ValueError: names the file, the line, the column and the value, and what to do.
    """
    for suffix, of_suffix in atomic_files(config).items():
        for file in of_suffix:
            columns = loaded_columns(config, suffix, file.header())
            if columns and isinstance(file, ParquetFile):
                raise ValueError(
                    f"{file}: plain RecBole reads no Parquet: write the same values as text in its place, as "
                    f"{file.name.removesuffix('.parquet')}; {_STAYS}"
                )
            if columns and isinstance(file, AtomicFile):
                _Reading(config, file, columns).check()
            file.release()


@dataclass(frozen=True)
class _Reading:
    """A text file, and the columns that the CTR model loads from it."""

    config: Mapping[str, Any]
    file: AtomicFile
    columns: Header

    def check(self) -> None:
        """Refuse it as :func:`check_plain_reading` says."""
        self._check_start()
        ours = self.file.read(self.columns, [name for name, kind in self.columns.items() if kind != "float"])
        self._check_ends(ours)
        self._compare(ours, *self._theirs())

    def _check_start(self) -> None:
        """Refuse a byte order mark before a loaded column."""
        with open(self.file.path, encoding=self.config["encoding"]) as stream:
            marked = stream.read(1) == "\ufeff"
        name = next(iter(self.file.header()))
        if marked and name in self.columns:
            raise ValueError(
                f"{self.file.head}: plain RecBole takes the byte order mark '\\ufeff' for a part of the name of column "
                f"{name!r}: save the file without it; {_STAYS}"
            )

    def _check_ends(self, ours: pd.DataFrame) -> None:
        """Refuse superfluous separators, for which pandas takes the first column for row labels."""
        if self.file.trails():
            name = next(iter(self.columns))
            raise ValueError(
                f"{self.file.place(0)}: column {name!r} is {_shown(ours[name].iloc[0])}, and plain RecBole takes "
                "another cell for it, as each row ends with a separator more than the first line has: take these out; "
                f"{_STAYS}"
            )

    def _theirs(self) -> tuple[pd.DataFrame, bool]:
        """The columns as plain RecBole reads them, and whether it minds marks.

        False says that it would read them so without a mark in a column that is not loaded, which is warned about.
        """
        try:
            return self._parsed(csv.QUOTE_MINIMAL), True
        except ValueError as error:  # of pandas' parser
            mark, open_mark = self._mark(self.columns, _MARK), self._mark(self.file.header(), _LEFT_OPEN)
            if mark is not None or open_mark is None:
                raise ValueError(mark or self._unreadable(error)) from None
            getLogger().warning(f"plain RecBole can't read the file: {open_mark}")
            return self._parsed(csv.QUOTE_NONE), False

    def _unreadable(self, error: ValueError) -> str:
        """What is wrong where marks are not: words for truth values in a column that also has numbers, as a rule."""
        word = self._first([name for name, kind in self.columns.items() if kind == "float"], _WORD)
        if word is None:
            return f"plain RecBole can't read {self.file} ({error}): write it in another way and train again"
        return (
            f"{word[0]}, where plain RecBole reads only numbers ({error}): write 1 for true and 0 for false; {_STAYS}"
        )

    def _parsed(self, quoting: int) -> pd.DataFrame:
        """As ``Dataset._load_feat`` calls pandas, which has ``QUOTE_MINIMAL`` by default; sequences as text."""
        kinds = {f"{name}:{kind}": np.float64 if kind == "float" else str for name, kind in self.columns.items()}
        frame = pd.read_csv(
            self.file.path,
            delimiter=self.config["field_separator"],
            usecols=list(kinds),
            dtype=kinds,
            encoding=self.config["encoding"],
            engine="python",
            quoting=quoting,
        )
        frame.columns = list(self.columns)
        return frame

    def _compare(self, ours: pd.DataFrame, theirs: pd.DataFrame, minds_marks: bool) -> None:
        """Refuse the first cell [rows, columns] that differs, or the quotation mark that is the cause."""
        rows = min(len(ours), len(theirs))
        wrong = {name: np.flatnonzero(_differ(ours[name][:rows], theirs[name][:rows])) for name in self.columns}
        found = [(int(at[0]), name) for name, at in wrong.items() if len(at)]
        if not found and len(ours) == len(theirs):
            return
        row, name = min(found, default=(rows - 1, next(iter(self.columns))), key=lambda one: one[0])
        marks = (self._mark(self.columns, _MARK, row), self._mark(self.file.header(), _LEFT_OPEN, row))
        read = _shown(theirs[name].iloc[row]) if found else f"one of {len(theirs)} rows, not {len(ours)}"
        count = f" (so in {len(wrong[name])} rows)" if len(wrong[name]) > 1 else ""
        raise ValueError(
            (minds_marks and (marks[0] or marks[1]))
            or f"{self.file.place(row)}: column {name!r} is {_shown(ours[name].iloc[row])}, which plain RecBole reads "
            f"as {read}{count}: write another word and train again"
        )

    def _mark(self, names: Collection[str], pattern: str, last: int | None = None) -> str | None:
        """What is wrong with the first mark in ``names`` that is as ``pattern``; see :meth:`_first`."""
        if len(self.config["field_separator"]) > 1:  # where pandas knows no quotation marks
            return None
        if (found := self._first(names, pattern, last)) is None:
            return None
        place, name = found
        mend = " and train again" if name in self.columns else f"; {_STAYS}"
        return (
            f"{place}, whose quotation mark plain RecBole takes for the start of a quoted text: write it without the "
            f"mark{mend}"
        )

    def _first(self, names: Collection[str], pattern: str, last: int | None = None) -> tuple[str, str] | None:
        """Place and column of the first cell of ``names`` that begins with ``pattern``, in rows up to ``last``."""
        if not names:
            return None
        cells = self.file.read((), names).loc[:last].fillna("")
        found = cells.apply(lambda column: column.str.match(pattern)).to_numpy()
        if not found.any():
            return None
        row, column = np.argwhere(found)[0]
        name = cells.columns[column]
        return f"{self.file.place(row)}: column {name!r} is {_shown(cells.iat[row, column])}", name


def _differ(ours: pd.Series, theirs: pd.Series) -> np.ndarray:
    if ours.dtype == np.float64:
        return ~np.isclose(ours, theirs, rtol=_SAME, atol=0, equal_nan=True)
    return ours.fillna("").to_numpy() != theirs.fillna("").to_numpy()


def _shown(cell: Any) -> str:
    return short(cell) if isinstance(cell, str) else "missing" if pd.isna(cell) else f"{cell:g}"
