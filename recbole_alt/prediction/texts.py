"""Texts of new rows: the run's template and words, with the words of values that are new put behind them."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_alt.data.prompts import PromptTable

#: What stands before the name of a prompt field in the column with the entries of its words.
ENTRY = "alt_entry_"


def nameless(names: Collection[str], kind: str, column: pd.Series) -> list[list[str]]:
    """Of each cell, [n], of a column of tokens, or of sequences of them, the values that are not among ``names``."""
    cells = column if kind.endswith("seq") else ([] if cell != cell else [cell] for cell in column)
    return [[one for one in cell if one not in names] for cell in cells]


class NewWords:
    """The words of the prompt fields of a built ``dataset``, to which new ones are added.

    The entries of known words stay, so that known texts are told apart, and ordered, as in the run.
    """

    def __init__(self, dataset: Any):
        self._dataset, self._template = dataset, dataset.template
        self._words = {name: list(field.words) for name, field in dataset.field_words.items()}
        self._entry_of: dict[str, dict[str, int]] = {}

    def known(self, name: str, size: int) -> np.ndarray:
        """The entries of a field of users or items, for the run's ids below ``size``."""
        field = self._dataset.field_words[name]
        return field.read({field.key: torch.arange(size)})

    def entries(self, name: str, column: pd.Series) -> np.ndarray:
        """The entry of each cell of a column of the field ``name``, [n]; 0 where nothing is said."""
        kind = self._kind(name)
        return np.fromiter((self._entry(name, kind, cell) for cell in self._cut(name, column)), np.int64, len(column))

    def codes_without_name(self, name: str, column: pd.Series) -> list[list[str]] | None:
        """What :func:`nameless` says of a column of the field ``name``; None without ``template.values`` of it."""
        if name not in self._template.values or "float" in self._kind(name):
            return None
        return nameless(self._template.values[name], self._kind(name), self._cut(name, column))

    def _kind(self, name: str) -> str:
        return str(self._dataset.column_of(name)[1])

    def _cut(self, name: str, column: pd.Series) -> pd.Series:
        most = (self._dataset.config["seq_len"] or {}).get(name)
        if most is None or not self._kind(name).endswith("seq"):
            return column
        return pd.Series([members[:most] for members in column], dtype=object)

    def _entry(self, name: str, kind: str, cell: Any) -> int:
        if kind.endswith("seq"):
            if not len(cell):
                return 0
            if kind == "float_seq":
                return self._numbered(name, self._template.numbers(name, cell))
            members = list(map(str, cell))
            return 0 if self._nameless(name, members) else self._numbered(name, self._template.sequence(name, members))
        if isinstance(cell, float):
            return 0 if cell != cell else self._numbered(name, self._template.number(cell))
        known = self._dataset.field2token_id.get(name, {}).get(cell)
        if known:  # 0 is of ``[PAD]``, which is no value
            return int(known)
        return 0 if self._nameless(name, [cell]) else self._numbered(name, self._template.word(name, cell))

    def _nameless(self, name: str, values: Any) -> bool:
        """True if a value has no name where ``template.values`` names the others."""
        return name in self._template.values and not self._template.values[name].keys() >= set(values)

    def _numbered(self, name: str, words: str) -> int:
        entry_of = self._entry_of.get(name)
        if entry_of is None:
            entry_of = {}
            for number, known in enumerate(self._words[name]):
                if number:
                    entry_of.setdefault(known, number)
            self._entry_of[name] = entry_of
        if words not in entry_of:
            entry_of[words] = len(self._words[name])
            self._words[name].append(words)
        return entry_of[words]

    def prompts(self) -> PromptTable:
        """The prompts of batches with a column :data:`ENTRY` + name for each field."""
        run: PromptTable = self._dataset.prompts
        readers = {name: partial(_read, ENTRY + name) for name in self._words}
        grown = any(len(words) > len(self._dataset.field_words[name].words) for name, words in self._words.items())
        return run.reading(readers, self._words if grown else None)


def _read(column: str, interaction: Any) -> np.ndarray:
    return np.asarray(interaction[column].cpu())
