"""The small grid that every model and mode is tuned with, in keys of stage 2, so that one alignment serves it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from math import ceil
from typing import Any

from recbole_alt.keys import KEYS, check_values
from recbole_alt.tuning.ranges import find_ranges, read_ranges

_DROPOUT = "dropout_prob"
_ITS_NAMES = tuple(name for name in KEYS if "drop" in name)


def read_grid(name: str) -> list[dict[str, Any]]:
    """Ranges of RecBole's format: each key's ``name`` and ``values``.

    Raises:
        ValueError: a range that is no ``choice``, or a key that stage 2 does not read.
    """
    found = []
    for tuned in read_ranges(find_ranges(name)):
        if tuned.kind != "choice":
            raise ValueError(f"{tuned.where}: every combination is tried; write {tuned.name} choice [...]")
        if tuned.name not in KEYS or not KEYS[tuned.name].stages:
            raise ValueError(
                f"{tuned.where}: {tuned.name} is no key of stage 2, which alone is tuned here, so that all modes share "
                "one alignment"
            )
        for value in tuned.values:
            check_values({tuned.name: value})
        found.append({"name": tuned.name, "values": list(tuned.values)})
    return found


def combinations(ranges: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Every combination of ``ranges``; where these are more than ``most``, so many of them, evenly spread.

    They are of as few diagonals of the grid as hold enough (on one diagonal, positions add up to the same modulo the
    most values of a key, and each value of that key meets each of another equally often); among these, values that were
    taken least often come next.
    """
    sizes = [len(tuned["values"]) for tuned in ranges]
    kept = list(product(*map(range, sizes)))
    if len(kept) > most:
        widest = max(sizes)
        diagonals = ceil(most * widest / len(kept))
        near = [drawn for drawn in kept if sum(drawn) % widest < diagonals]
        taken, kept = Counter[tuple[int, int]](), []
        while len(kept) < most:
            kept.append(min(near, key=lambda drawn: sum(taken[value] for value in enumerate(drawn))))
            near.remove(kept[-1])
            taken.update(enumerate(kept[-1]))
    return [{r["name"]: r["values"][p] for r, p in zip(ranges, drawn, strict=True)} for drawn in sorted(kept)]


def as_override(name: str, value: Any, config: Any) -> dict[str, Any]:
    """The keys of a model that ``name`` stands for; ``dropout_prob`` has other names in some, and none in others."""
    if name != _DROPOUT:
        return {name: value}
    theirs = [key for key in _ITS_NAMES if config[key] is not None]
    return {key: [value] * len(config[key]) if isinstance(config[key], (list, tuple)) else value for key in theirs}
