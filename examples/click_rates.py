"""Write a copy of a dataset whose interactions know how often their user, item, … were clicked.

``python examples/click_rates.py ml-1m --out=rates --data_path=dataset --train_share=0.01`` writes ``rates/ml-1m/``, the
same files with a column ``FIELD_clicks`` more in ``.inter`` for each token field that the CTR model reads; keys of the
configuration, which say what the training rows are, may follow.

A value is the log odds of the clicks of the training rows that have the same user, item, … as the row, less the log
odds of all of them; 0 where there is none. Rows at the average are added, so that rates of few rows are held back, and
a sequence, such as genres, has the mean of its members'. No training row counts for itself: each pair of a user and an
item is in one of 20 folds, and the rows of a pair that has training rows have the rates of the other folds. Each column
is divided by its standard deviation over the training rows.

Name the columns in ``load_col`` and ``numerical_features`` to use them, with any model and any mode, for the same
training rows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from more_columns import pairs, read_rows, require_new, run, write_copy
from recbole.utils import FeatureType
from scipy.special import logit

from recbole_alt.config import ALTConfig
from recbole_alt.loading import load_data

_FOLDS = 20
#: Rows with the overall click rate that are added to those of each value.
_ADDED = 16


def log_odds(values: np.ndarray, clicks: np.ndarray, folds: np.ndarray, size: int) -> np.ndarray:
    """By fold and value, from the training rows of the other folds; 0 for no value, [21, ``size``]; the last from all.

    Args:
        values: of one field in each training row, [N, L], below ``size``; 0 is none.
        clicks, folds: of the training rows, [N].
    """
    place = (folds[:, None] * size + values).ravel()
    weights = (None, np.repeat(clicks.astype(float), values.shape[1]))
    rows, clicked = (np.bincount(place, weight, (_FOLDS + 1) * size).reshape(-1, size) for weight in weights)
    overall = clicks.mean()
    rate = (clicked.sum(0) - clicked + _ADDED * overall) / (rows.sum(0) - rows + _ADDED)
    found: np.ndarray = logit(rate) - logit(overall)
    found[:, 0] = 0
    return found


def rates(odds: np.ndarray, values: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """The mean over the ``values`` [M, L] of each row of what :func:`log_odds` has for its fold, [M]."""
    sums: np.ndarray = odds[folds[:, None], values].sum(1)
    return sums / np.maximum((values > 0).sum(1), 1)


def add_columns(config: ALTConfig, out: Path) -> Path:
    """Write the files of the dataset of ``config`` with these columns into ``out/NAME/``, and return that folder.

    Raises:
        ValueError: the data have such a column, or a field of several values is in the interactions.
    """
    dataset, loader, *_ = load_data(config)
    train, rows = loader._dataset, read_rows(config)
    kinds = (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)
    fields = [name for name, kind in dataset.field2type.items() if kind in kinds]
    require_new(config, rows, [f"{name}_clicks" for name in fields])
    clicks = np.asarray(train.inter_feat[dataset.label_field]) > 0.5
    of_train, of_all = pairs(dataset, train, rows)
    folds, all_folds = of_train % _FOLDS, np.where(np.isin(of_all, of_train), of_all % _FOLDS, _FOLDS)
    columns = {}
    for name in fields:
        values = _in_rows(np.asarray(train.column(name)))
        odds = log_odds(values, clicks, folds, len(dataset.field2id_token[name]))
        scale = rates(odds, values, folds).std() or 1.0
        columns[f"{name}_clicks"] = rates(odds, _values(dataset, rows, name), all_folds) / scale
    return write_copy(config, out, rows, columns)


def _values(dataset: Any, rows: pd.DataFrame, name: str) -> np.ndarray:
    """The ids that rows of the file have in one field, [M, L]; 0 for those that the dataset does not know."""
    for feature, key in ((dataset.user_feat, dataset.uid_field), (dataset.item_feat, dataset.iid_field)):
        if name == key or (feature is not None and name in feature):
            ids = _ids(dataset, rows, key)
            return ids[:, None] if name == key else _in_rows(np.asarray(feature[name]))[ids]
    if dataset.field2type[name] == FeatureType.TOKEN_SEQ:
        raise ValueError(f"{name}: interactions with several values of a field are not supported: leave it out")
    return _ids(dataset, rows, name)[:, None]


def _ids(dataset: Any, rows: pd.DataFrame, name: str) -> np.ndarray:
    number = {token: place for place, token in enumerate(dataset.field2id_token[name])}
    return rows[name].map(number).fillna(0).to_numpy(dtype=int)


def _in_rows(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 2 else values[:, None]


def main() -> int:
    """Write the files."""
    return run((__doc__ or "").splitlines()[0], add_columns)


if __name__ == "__main__":
    sys.exit(main())
