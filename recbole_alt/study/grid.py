"""The grid of a search: which combinations of choices are tried, and which keys of a model they stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from math import ceil
from typing import Any

from recbole_alt.keys import KEYS, check_values
from recbole_alt.study.ranges import find_ranges, read_ranges

_DROPOUT = "dropout_prob"
_DROPOUTS = tuple(name for name in KEYS if "drop" in name)


def read_grid(name: str) -> dict[str, list[Any]]:
    """The choices of each key in a file of ranges, all of them keys of finetuning, so that they share an alignment.

    Raises:
        ValueError: A range is not a ``choice``, or of a key that alignment reads.
    """
    grid = {}
    for tuned in read_ranges(find_ranges(name)):
        if tuned.kind != "choice":
            raise ValueError(f"{tuned.where}: every combination is tried; write {tuned.name} choice [...]")
        if tuned.name not in KEYS or not KEYS[tuned.name].stages:
            raise ValueError(
                f"{tuned.where}: {tuned.name} is no key of stage 2; only such keys are tuned here, so that all modes "
                "share one alignment"
            )
        for value in tuned.values:
            check_values({tuned.name: value})
        grid[tuned.name] = list(tuned.values)
    return grid


def combinations(choices: Mapping[str, Sequence[Any]], most: int) -> list[dict[str, Any]]:
    """Every combination of ``choices``, the last key changing fastest; ``most`` of them if there are more.

    These are spread evenly. They are taken from as few diagonals of the grid as hold enough (on one diagonal, positions
    add up to the same modulo the most values of a key, and each value of that key meets each of another equally often);
    among these, values that were taken least often come next.
    """
    sizes = [len(values) for values in choices.values()]
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
    return [{n: values[p] for (n, values), p in zip(choices.items(), drawn, strict=True)} for drawn in sorted(kept)]


def as_override(name: str, value: Any, config: Any) -> dict[str, Any]:
    """The keys of a model that ``name`` stands for; ``dropout_prob`` has other names in some, and none in others."""
    if name != _DROPOUT:
        return {name: value}
    theirs = [key for key in _DROPOUTS if config[key] is not None]
    return {key: [value] * len(config[key]) if isinstance(config[key], (list, tuple)) else value for key in theirs}
