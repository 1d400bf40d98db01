"""Cells of frames, whose values may be of any type, as texts."""

from typing import Any

import numpy as np
import pandas as pd


def token(cell: Any) -> str | None:
    """The text of a cell, None where it is missing or empty; a whole number is written without its decimals."""
    if is_missing(cell):
        return None
    if isinstance(cell, (float, np.floating)):
        return str(int(cell)) if float(cell).is_integer() else repr(float(cell))
    return str(cell) or None


def is_missing(cell: Any) -> bool:
    """True for None, NaN, NA and NaT."""
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, (float, np.floating)) and cell != cell)
