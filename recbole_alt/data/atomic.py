"""RecBole's atomic files: what is checked before RecBole reads one, and the text columns that it need not read."""

from __future__ import annotations

import csv
from dataclasses import dataclass

import pandas as pd
from recbole.utils import FeatureType

_KINDS = [kind.value for kind in FeatureType]


@dataclass(frozen=True)
class AtomicFile:
    """One atomic file: a first line of ``name:type`` columns, a row a line, nothing quoted.

    Attributes:
        path: of the file.
        separator: between columns (RecBole's ``field_separator``).
        encoding: of the file.
    """

    path: str
    separator: str
    encoding: str

    def check(self) -> None:
        """Refuse what RecBole would stumble over.

        Raises:
            ValueError: a first line without types, or no row below it.
        """
        header, row = self._two_lines()
        for typed in header:
            name, _, kind = typed.partition(":")
            if not name or kind not in _KINDS:
                raise ValueError(
                    f"{self.path}: its first line must name each column as name:type with a type of "
                    f"{', '.join(_KINDS)}, separated by {self.separator!r}; found {typed!r}"
                )
        if not row.strip():
            raise ValueError(f"{self.path} has no rows")

    def _two_lines(self) -> tuple[list[str], str]:
        with open(self.path, encoding=self.encoding) as file:
            return file.readline().rstrip("\r\n").split(self.separator), file.readline()

    def text(self, name: str) -> pd.Series:
        """The column ``name`` as it stands, one text a row; missing where empty.

        Raises:
            ValueError: there is no such column.
        """
        header, _ = self._two_lines()
        column = next((typed for typed in header if typed.split(":")[0] == name), None)
        if column is None:
            raise ValueError(f"prompt_only: {self.path} has no field {name!r}; it has {', '.join(header)}")
        return pd.read_csv(
            self.path,
            sep=self.separator,
            usecols=[column],
            dtype=str,
            encoding=self.encoding,
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            na_values=[""],
        )[column]
