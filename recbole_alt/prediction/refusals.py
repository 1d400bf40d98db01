"""Rows about users and items that are refused, in one line with the file, the row, the column and the value."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_alt.prediction.tables import Source


def refuse(place: Callable[[int], str], which: pd.Series, name: str, why: str, values: pd.Series | None = None) -> None:
    """Refuse the first of the rows in ``which`` [n].

    Args:
        place: from a row to its file and line; see :func:`~recbole_alt.prediction.tables.place_of`.
        which: True for the rows to refuse.
        name: of the column.
        why: what is wrong with it, and what to do.
        values: of the column, to be named.

    Raises:
        ValueError: a row is refused.
    """
    rows = np.flatnonzero(which.to_numpy(dtype=bool))
    if len(rows):
        value = "" if values is None else f" {str(values.iloc[rows[0]])[:60]!r}"
        more = f" (so in {len(rows)} rows)" if len(rows) > 1 else ""
        raise ValueError(f"{place(int(rows[0]))}: column {name!r}{value} {why}{more}")


def refuse_no_source(**sources: Any) -> None:
    """Refuse an argument that is neither a file nor a frame.

    Raises:
        ValueError: names the argument and what it takes.
    """
    for name, given in sources.items():
        if not isinstance(given, (str, os.PathLike, pd.DataFrame)):
            raise ValueError(f"{name} must be a pandas DataFrame, or the name of a file, not a {type(given).__name__}")


def refuse_empty(source: Source, what: str, frame: pd.DataFrame) -> None:
    """Refuse a ``frame`` without rows, read from ``source``; a frame is called one of ``what``.

    Raises:
        ValueError: there is no row.
    """
    if not len(frame):
        where = f"the frame of {what}" if isinstance(source, pd.DataFrame) else str(Path(source))
        raise ValueError(f"{where} has no rows: give one at least")


def refuse_repeated(place: Callable[[int], str], ids: pd.Series) -> None:
    """Refuse ids [n], in the column of their name, of which one stands in two rows; missing ones are passed over.

    Raises:
        ValueError: an id stands in two rows, which are named.
    """
    again = ids.duplicated() & ids.notna()
    if again.any():
        first = int(np.argmax(ids == ids[again].iloc[0]))
        refuse(place, again, str(ids.name), f"has the id of {place(first)}: leave one of them out", ids)
