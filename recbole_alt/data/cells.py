"""Cells of frames, whose values may be of any type, as an atomic file writes them."""

from __future__ import annotations

import array
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from recbole_alt.data.numbers import fit, number

#: From here on, a number in floating point may stand for several whole numbers.
_EXACT = 2**53
_LISTS = (list, tuple, pd.Series, pd.Index, pd.api.extensions.ExtensionArray, array.array)
_TIMES = (datetime, date, np.datetime64)


def token(cell: Any) -> str | None:
    """The text of a cell, None where it is missing or empty.

    A whole number is written without decimals, any other with as few digits as tell it apart in its type; truth is
    ``true`` or ``false``; a point of time is written as pandas writes it.

    Raises:
        TypeError: it is of a type that has no one text, such as bytes or a list; says which.
        ValueError: a number in floating point that may have been another whole number.
    """
    if isinstance(cell, str):
        return cell or None
    if is_missing(cell):
        return None
    if isinstance(cell, (bool, np.bool_)):
        return "true" if cell else "false"
    if isinstance(cell, (float, np.floating)):
        if float(cell).is_integer() and abs(float(cell)) >= _EXACT:
            raise ValueError(f"holds {cell!r}, which may have been another whole number: give whole numbers or texts")
        return np.format_float_positional(cell, trim="-") if cell else "0"
    if isinstance(cell, Decimal):
        return str(int(cell)) if cell == cell.to_integral_value() else f"{cell.normalize():f}"
    if isinstance(cell, np.datetime64):
        return str(pd.Timestamp(cell))
    if isinstance(cell, (int, np.integer, UUID, *_TIMES)):
        return str(cell)
    raise TypeError(
        f"holds a value of type {type(cell).__name__}, which has no one text: {repr(cell)[:60]}; give a text"
    )


def quantity(cell: Any) -> float | None:
    """The number in a cell, NaN where it is missing, None where there is none that a model can hold.

    Points of time are seconds since 1970, in UTC where they have no time zone.
    """
    if isinstance(cell, str):
        return number(cell)
    if is_missing(cell):
        return np.nan
    if isinstance(cell, _TIMES):
        point = pd.Timestamp(cell)
        return float((point - pd.Timestamp(0, tz=point.tz)) / pd.Timedelta(seconds=1))
    if not isinstance(cell, (bool, np.bool_, int, float, np.integer, np.floating, Decimal)):
        return None
    try:
        value = float(cell)
    except OverflowError:
        return None
    return value if fit(np.array([value])) else None


def cells_of(column: pd.Series) -> Iterable[Any]:
    """The cells of a column; numbers in floating point keep its precision, and with it their digits."""
    return column.to_numpy() if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f" else column


def as_seconds(column: pd.Series) -> pd.Series:
    """A column of points of time as :func:`quantity` reads its cells, all at once; any other column as it is."""
    if not pd.api.types.is_datetime64_any_dtype(column):
        return column
    return (column - pd.Timestamp(0, tz=column.dt.tz)) / pd.Timedelta(seconds=1)


def members(cell: Any, separator: str | None = None) -> list[Any]:
    """The members of a sequence that are not missing; those of a text are what stands between ``separator``.

    Raises:
        TypeError: it is no list; without ``separator``, nor may it be a text.
    """
    if is_list(cell):
        return [one for one in cell if not is_missing(one)]
    if is_missing(cell):
        return []
    if separator is None:
        raise TypeError(f"holds no list: {repr(cell)[:60]}; give lists, as by frame[column].str.split()")
    return [text for text in cell.split(separator) if text] if isinstance(cell, str) else [cell]


def is_list(cell: Any) -> bool:
    """True for lists, tuples, and arrays, series and the like of one dimension; sets and dicts have no order."""
    return isinstance(cell, _LISTS) or (isinstance(cell, np.ndarray) and cell.ndim == 1)


def is_missing(cell: Any) -> bool:
    """True for None, NaN, NA and NaT."""
    return cell is None or cell is pd.NA or cell is pd.NaT or (_is_number(cell) and bool(cell != cell))


def _is_number(cell: Any) -> bool:
    return isinstance(cell, (float, np.floating, Decimal, np.datetime64))
