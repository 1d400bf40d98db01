"""The words of the distinct values of a prompt field, and the entry of each row."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from recbole_alt.data.template import PromptTemplate


@dataclass(frozen=True)
class FieldWords:
    """The words of one prompt field."""

    words: list[str]  # [V], of each distinct value; entry 0 is a missing value
    key: str  # the column of a batch that determines a row's entry: the field itself, an id, or a row number
    entry_of: np.ndarray | None = None  # [K], the entry of each value of key; None if key holds the entry itself

    def read(self, interaction: Any) -> np.ndarray:
        """The entries [B] of the rows of a batch."""
        ids = np.asarray(interaction[self.key].cpu())
        return ids if self.entry_of is None else self.entry_of[ids]

    def swapped(self, order: np.ndarray) -> FieldWords:
        """The same words, with those of ``order[i]`` for value ``i`` of ``key``."""
        return replace(self, entry_of=order if self.entry_of is None else self.entry_of[order])


def float_words(template: PromptTemplate, column: pd.Series) -> tuple[list[str], np.ndarray]:
    """The words of the distinct numbers in ``column``, and the entry of each row."""
    which, numbers = pd.factorize(column.to_numpy(dtype=np.float64))  # in order of appearance: new ones come last
    entries, words = _number(map(template.number, numbers))
    return [template.missing, *words], np.append(entries, 0)[which]


def sequence_words(
    template: PromptTemplate, column: pd.Series, in_words: Callable[[tuple[Any, ...]], str]
) -> tuple[list[str], np.ndarray]:
    """The words of the distinct sequences in ``column`` by ``in_words``, and the entry of each row."""
    entries, sequences = _number(
        tuple(value) if isinstance(value, np.ndarray) and len(value) else None for value in column
    )
    return [template.missing, *map(in_words, sequences)], entries


def exchange(size: int, seed: int) -> np.ndarray:
    """A random permutation of the ids below ``size`` in which only the padding id 0 keeps its place."""
    order = np.arange(size)
    drawn = np.random.default_rng(seed).permutation(np.arange(1, size))
    order[drawn] = np.roll(drawn, 1)
    return order


def _number(keys: Iterable[Hashable | None]) -> tuple[np.ndarray, list[Any]]:
    """Number distinct keys from 1 in order of appearance, None being 0, and list them."""
    seen: dict[Hashable, int] = {}
    entries = [0 if key is None else seen.setdefault(key, len(seen) + 1) for key in keys]
    return np.asarray(entries, dtype=np.int64), list(seen)
