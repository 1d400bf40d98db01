"""What a CTR model reads of new rows: ids and numbers as the run's dataset has them, and which values it never had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from recbole.utils import FeatureType
from torch import Tensor

from recbole_alt.data.as_trained import numbers_as_trained


@dataclass
class Features:
    """Columns of n rows, or of n users or items.

    Attributes:
        columns: field → what the run's interactions hold of it, [n], [n, L] or with pairs (value, row).
        unknown: token field or token sequence field → True where a value is new to the run, [n]; of fields that only
            prompts read, where it has no name in ``template.values``.
        new_values: field → the values that are new.
    """

    columns: dict[str, Tensor] = field(default_factory=dict)
    unknown: dict[str, np.ndarray] = field(default_factory=dict)
    new_values: dict[str, set[str]] = field(default_factory=dict)

    def add_new(self, name: str, new: Sequence[Sequence[str]]) -> None:
        """Count the values of a field that are new to the run, by row, [n]."""
        self.unknown[name] = np.array([bool(values) for values in new], dtype=bool)
        self.new_values[name] = {value for values in new for value in values}


def read_features(dataset: Any, frame: pd.DataFrame, names: Sequence[str]) -> Features:
    """The columns ``names`` of ``frame`` as ``dataset`` has them.

    A value that the run's data do not have becomes id 0, and in a sequence it is left out. Sequences are cut to the
    length of the run's longest one.
    """
    made, found = {}, Features()
    for name in names:
        column, kind = frame[name], dataset.field2type[name]
        if kind == FeatureType.TOKEN:
            made[name] = _ids(dataset, name, column, found)
        elif kind == FeatureType.TOKEN_SEQ:
            made[name] = _id_sequences(dataset, name, column, found)
        else:
            made[name] = numbers_as_trained(dataset, name, column)
    if len(frame) and names:
        found.columns = dataset._dataframe_to_interaction(pd.DataFrame(made)).interaction
    return found


def known_ids(dataset: Any, name: str) -> dict[str, int]:
    """Value of a token field → its id in the run; id 0, ``[PAD]``, is of none."""
    return {value: number for value, number in dataset.field2token_id.get(name, {}).items() if number}


def _ids(dataset: Any, name: str, column: pd.Series, found: Features) -> np.ndarray:
    ids = column.map(known_ids(dataset, name)).astype(np.float64)
    found.unknown[name] = (ids.isna() & column.notna()).to_numpy()
    found.new_values[name] = set(column[found.unknown[name]])
    return ids.fillna(0).to_numpy(dtype=np.int64)


def _id_sequences(dataset: Any, name: str, column: pd.Series, found: Features) -> pd.Series:
    id_of = known_ids(dataset, name)
    new = [[member for member in members if member not in id_of] for members in column]
    found.add_new(name, new)
    known = ([id_of[member] for member in members if member in id_of] for members in column)
    return pd.Series([np.array(ids, dtype=np.int64) for ids in known], dtype=object)


def below(first: Tensor, second: Tensor | None) -> Tensor:
    """``second`` [m, ...] below ``first`` [n, ...]; sequences are filled up to the longer ones."""
    if second is None or not len(second):
        return first
    if first.dim() > 1:
        length = max(first.shape[1], second.shape[1])
        first, second = (_filled(part, length) for part in (first, second))
    return torch.cat([first, second])


def _filled(column: Tensor, length: int) -> Tensor:
    return F.pad(column, (*[0] * (2 * (column.dim() - 2)), 0, length - column.shape[1]))
