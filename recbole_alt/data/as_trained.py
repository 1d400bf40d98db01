"""How a dataset made features of its numbers (gaps filled, normalised, put into buckets), and the same for new ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import FeatureType

from recbole_alt.data.reading import AtomicDataset


class MeasuredDataset(AtomicDataset):
    """A dataset that keeps what it made of its numbers.

    Attributes:
        number_ranges: numeric field that is normalised or discretised → its least and greatest value.
        number_means: numeric field → the mean that its gaps are filled with.
        number_levels: field that is discretised by ``LD`` → what its buckets stand for, ascending.
    """

    def __init__(self, config: Any):
        self.number_ranges: dict[str, tuple[float, float]] = {}
        self.number_means: dict[str, float] = {}
        self.number_levels: dict[str, np.ndarray] = {}
        super().__init__(config)

    def _fill_nan(self) -> None:
        for feat in (getattr(self, name) for name in self.feat_name_list):
            numeric = [name for name in feat if self.field2type[name] == FeatureType.FLOAT]
            self.number_means |= {name: float(feat[name].mean()) for name in numeric}
        super()._fill_nan()

    def _normalize(self) -> None:
        by_range = set(self.config["normalize_field"] or []) | set(self.config["discretization"] or {})
        numerical = self.config["numerical_features"] or []
        for name in numerical if self.config["normalize_all"] else [name for name in numerical if name in by_range]:
            for feat in self.field2feats(name):
                if len(values := self._numbers(feat, name)):
                    self.number_ranges[name] = float(values.min()), float(values.max())
        super()._normalize()

    def _discretization(self) -> None:
        for name, how in (self.config["discretization"] or {}).items():
            if how["method"] == "LD":
                (feat,) = self.field2feats(name)
                self.number_levels[name] = np.unique(logarithms(self._numbers(feat, name)))
        super()._discretization()

    def _numbers(self, feat: Any, name: str) -> np.ndarray:
        is_sequence = self.field2type[name] == FeatureType.FLOAT_SEQ
        return np.concatenate(feat[name].tolist()) if is_sequence else feat[name].to_numpy()


def numbers_as_trained(dataset: Any, name: str, column: pd.Series) -> pd.Series:
    """A column of a ``float`` or ``float_seq`` field in the form that the frames of ``dataset`` have once built.

    What the run took from its own data is used again: the mean that fills gaps, the range, the buckets. A number beyond
    the range goes on as the others do, and where there are buckets it is in the first or the last one.

    Args:
        column: numbers, or an array for each sequence; NaN is a missing number.
    """
    if dataset.field2type[name] == FeatureType.FLOAT:
        values = column.to_numpy(dtype=np.float64)
        return _paired(dataset, name, np.where(np.isnan(values), dataset.number_means[name], values))
    lengths = [len(cell) for cell in column]
    made = _paired(dataset, name, np.concatenate([*column, np.zeros(0)]).astype(np.float64))
    ends = np.cumsum(lengths)[:-1]
    if name not in (dataset.config["numerical_features"] or []):
        return pd.Series(np.split(made.to_numpy(), ends), dtype=object)
    pairs = np.array(made.tolist(), dtype=np.float64).reshape(-1, 2)
    return pd.Series(list(zip(np.split(pairs[:, 0], ends), np.split(pairs[:, 1], ends), strict=True)), dtype=object)


def _paired(dataset: Any, name: str, values: np.ndarray) -> pd.Series:
    """``values`` [n] normalised; for a feature of the CTR model in pairs (value, row of the embedding).

    Source: ``_normalize`` and ``_discretization`` of RecBole's ``Dataset``.
    """
    config = dataset.config
    low, high = dataset.number_ranges.get(name, (0.0, 1.0))
    if name in (config["normalize_field"] or []) or config["normalize_all"]:
        values = np.ones_like(values) if low == high else (values - low) / (high - low)
        low, high = (1.0, 1.0) if low == high else (0.0, 1.0)
    if name not in (config["numerical_features"] or []):
        return pd.Series(values)
    rows, how = np.ones_like(values), (config["discretization"] or {}).get(name)
    if how is not None:
        levels = dataset.number_levels.get(name)
        if levels is not None:  # LD
            rows = np.searchsorted(levels, logarithms(values), side="right")  # the level at or below it
        elif (high := high + 1e-9) == low:
            rows = np.full_like(values, how["bucket"])
        else:
            rows = np.floor((values - low) * how["bucket"] / (high - low) + 1)
        rows = np.clip(rows, 1, dataset.field2bucketnum[name] - 1).astype(np.float64)
        values = np.ones_like(values)
    return pd.Series(np.stack([values, rows], axis=-1).tolist())


def logarithms(values: np.ndarray) -> np.ndarray:
    """What RecBole's method ``LD`` numbers the distinct values of."""
    large = values > 2
    return np.where(large, np.floor(np.log(values * large + 1e-9) ** 2 + 1), values)
