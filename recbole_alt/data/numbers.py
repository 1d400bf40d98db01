"""What is a number in a cell of an atomic file."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_TRUTH = {"true": 1.0, "false": 0.0}
_LARGEST = float(np.finfo(np.float32).max)  # what a model's numbers can be


def fit(values: np.ndarray) -> bool:
    """Whether these are numbers [rows] that a model can hold; NaN is a missing one."""
    if values.dtype != np.float64:
        return False
    return not max(np.fmax.reduce(values), -np.fmin.reduce(values)) > _LARGEST


def number(cell: str) -> float | None:
    """The number that is written in a cell, 1 or 0 for true or false in any case, or None."""
    if _NUMBER.fullmatch(cell) is None:
        return _TRUTH.get(cell.lower())
    value = float(cell)
    return value if abs(value) <= _LARGEST else None


def numbers(cells: Iterable[str]) -> np.ndarray | None:
    """The numbers [members] of a sequence, without its empty members, or None where one holds none."""
    present = [cell for cell in cells if cell]
    try:
        values = np.array([float(cell) for cell in present], dtype=np.float64)
    except ValueError:
        return None
    written = all(cell.isascii() and "_" not in cell for cell in present)  # else Python reads more than a number
    return values if written and (np.abs(values) <= _LARGEST).all() else None
