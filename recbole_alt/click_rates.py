"""What counting clicks reaches: a reference that a CTR model has to beat before texts are asked to help it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from recbole.utils import FeatureType
from sklearn.linear_model import LogisticRegression

from recbole_alt.metrics import auc

#: Rows with the overall click rate that are added to those of each value; validation chooses.
_ADDED = (1, 4, 16, 64)
#: The most training rows that the regression is fitted to, evenly spread; all are counted.
_FITTED = 1_000_000


def click_rates(loaders: Sequence[Any]) -> dict[str, float | None]:
    """AUC of a logistic regression on the click rates of a row's user, item and other single-valued token fields.

    The rate of a value is that of its training rows, with rows of the overall rate added, as a log odds; that of a
    training row leaves out the row itself. Numbers and sequences are not used.

    Args:
        loaders: RecBole's, of training, validation and test.

    Returns:
        ``valid`` and ``test``; None where these have one class only, or there is nothing to learn from.
    """
    data = [loader._dataset for loader in loaders]
    clicked = [np.asarray(part.inter_feat[part.label_field]) > 0.5 for part in data]
    best: dict[str, float | None] = {"valid": None, "test": None}
    fields = [name for name, kind in data[0].field2type.items() if kind == FeatureType.TOKEN and _holds(data[0], name)]
    if not fields or clicked[0].all() or not clicked[0].any():
        return best
    fitted = slice(None, None, -(-len(clicked[0]) // _FITTED))
    odds = [_log_odds([_column(part, name) for part in data], clicked, fitted) for name in fields]
    for added in _ADDED:
        train, *others = (np.stack([of_field[added][part] for of_field in odds], axis=1) for part in range(len(data)))
        model = LogisticRegression(max_iter=1000).fit(train, clicked[0][fitted])
        found = [
            auc(label, model.decision_function(rows)) if len(rows) else None
            for label, rows in zip(clicked[1:], others, strict=True)
        ]
        if best["valid"] is None or (found[0] is not None and found[0] > best["valid"]):
            best = dict(zip(best, found, strict=True))
    return best


def _log_odds(ids: Sequence[np.ndarray], clicked: Sequence[np.ndarray], fitted: slice) -> dict[int, list[np.ndarray]]:
    """By the rows added: for each row [N] of each part, by its id of one field. The first part, training, is cut."""
    size, overall = 1 + max(int(of_part.max(initial=0)) for of_part in ids), clicked[0].mean()
    rows, clicks = np.bincount(ids[0], minlength=size), np.bincount(ids[0], clicked[0], minlength=size)
    shown = [(ids[0][fitted], clicked[0][fitted], 1), *((of_part, 0, 0) for of_part in ids[1:])]
    found = {}
    for added in _ADDED:
        rates = [(clicks[i] - own + added * overall) / (rows[i] - of_own + added) for i, own, of_own in shown]
        found[added] = [np.log(rate / (1 - rate)) for rate in rates]
    return found


def _holds(data: Any, name: str) -> bool:
    return any(feature is not None and name in feature for feature in (data.inter_feat, data.user_feat, data.item_feat))


def _column(data: Any, name: str) -> np.ndarray:
    """One field of all interactions, as RecBole's ``join`` adds it, without the others."""
    inter = data.inter_feat
    for feature, key in ((data.user_feat, data.uid_field), (data.item_feat, data.iid_field)):
        if feature is not None and name in feature and name not in inter:
            return np.asarray(feature[name][inter[key]])
    return np.asarray(inter[name])
