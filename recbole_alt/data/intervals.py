"""Intervals of numbers as RecBole's keys give them: ``"[1,5]"``, ``"(0,3];[5,inf)"``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_NUMBER = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf)"
_INTERVAL = re.compile(rf"\s*([\[(])\s*({_NUMBER})\s*,\s*({_NUMBER})\s*([\])])\s*", re.ASCII)


@dataclass(frozen=True)
class Interval:
    """The numbers from ``lower`` to ``upper``, the bounds themselves only where they are closed."""

    lower: float
    upper: float
    lower_closed: bool
    upper_closed: bool

    @property
    def empty(self) -> bool:
        """Whether no finite number is within."""
        if self.lower == self.upper:
            return abs(self.lower) == float("inf") or not (self.lower_closed and self.upper_closed)
        return self.lower > self.upper


def parse_intervals(given: Any, where: str) -> list[Interval]:
    """The intervals of a text such as ``"(0,3];[5,inf)"``, of which a number must be in one.

    RecBole skips what it can't read with a warning, and reads a list or a tuple of two numbers as its text.

    Args:
        given: the value of a key.
        where: the key, as the error names it.

    Raises:
        ValueError: an interval of another form, or one that holds no number.
    """
    parts = str(given).split(";") if isinstance(given, (str, list, tuple)) else [""]
    intervals = []
    for part in parts:
        match = _INTERVAL.fullmatch(part)
        if match is None:
            raise ValueError(
                f'{where} must be a text such as "[1,5]", or "(0,3];[5,inf)" for several intervals, not {given!r}'
            )
        left, lower, upper, right = match.groups()
        interval = Interval(float(lower), float(upper), left == "[", right == "]")
        if interval.empty:
            raise ValueError(f"{where}: {part.strip()!r} holds no number: its lower bound stands first, as in [1,5]")
        intervals.append(interval)
    return intervals
