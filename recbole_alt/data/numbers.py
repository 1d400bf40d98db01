"""Numbers as they are written in the cells of atomic files and in the intervals of keys."""

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

_DECIMAL = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOUND = rf"\s*({_DECIMAL}|[+-]?inf)\s*"
_NUMBER = re.compile(rf"\s*{_DECIMAL}\s*", re.ASCII)
_INTERVAL = re.compile(rf"\s*([\[(]){_BOUND},{_BOUND}([\])])\s*", re.ASCII)
_TRUTH = {"true": 1.0, "false": 0.0}
_LARGEST = float(np.finfo(np.float32).max)  # that a model can hold

#: A bracket, the two bounds and a bracket, as RecBole's datasets hold an interval.
Interval = tuple[str, float, float, str]


def fit(values: np.ndarray) -> bool:
    """True if ``values`` [rows] are numbers that a model can hold; NaN is a missing one."""
    if values.dtype != np.float64:
        return False
    return not len(values) or not max(np.fmax.reduce(values), -np.fmin.reduce(values)) > _LARGEST


def number(cell: str) -> float | None:
    """The number in a cell, 1 or 0 for true or false in any case, NaN for an empty cell; None for any other text."""
    if not cell:
        return math.nan
    if _NUMBER.fullmatch(cell) is None:
        return _TRUTH.get(cell.lower())
    value = float(cell)
    return value if abs(value) <= _LARGEST else None


def numbers(cells: Iterable[str]) -> np.ndarray | None:
    """The numbers [members] of a sequence without its empty members, or None if a member is no number."""
    present = [cell for cell in cells if cell]
    try:
        values = np.array([float(cell) for cell in present], dtype=np.float64)
    except ValueError:
        return None
    written = all(cell.isascii() and "_" not in cell for cell in present)  # float() reads more than that
    return values if written and (np.abs(values) <= _LARGEST).all() else None


def parse_intervals(given: Any, where: str) -> list[Interval]:
    """Parse the value of the key ``where``, a text such as ``"(0,3];[5,inf)"`` or a list of two numbers.

    RecBole only warns about what it can't read, and goes on without it; here, that is a ValueError.
    """
    intervals = []
    for part in str(given).split(";") if isinstance(given, (str, list, tuple)) else [""]:
        match = _INTERVAL.fullmatch(part)
        if match is None:
            form = 'a text such as "[1,5]", or "(0,3];[5,inf)" for several intervals'
            raise ValueError(f"{where} must be {form}, not {given!r}")
        left, right, lower, upper = match[1], match[4], float(match[2]), float(match[3])
        if lower > upper or lower == math.inf or upper == -math.inf or (lower == upper and left + right != "[]"):
            raise ValueError(f"{where}: {part.strip()!r} holds no number: its lower bound stands first, as in [1,5]")
        intervals.append((left, lower, upper, right))
    return intervals
