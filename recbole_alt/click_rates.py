"""What counting clicks reaches: a reference that a CTR model has to beat before texts are asked to help it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from recbole.utils import FeatureType
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from recbole_alt.metrics import auc

#: Rows with the overall click rate that are added to those of each value; validation chooses.
_ADDED = (1, 4, 16, 64)
#: The most training rows that the regression is fitted to, evenly spread; all are counted.
_FITTED = 1_000_000


def click_rates(loaders: Sequence[Any]) -> dict[str, float | None]:
    """AUC of a logistic regression on the click rates of a row's user, item and other token fields.

    The rate of a value is that of its training rows, with rows of the overall rate added, as a log odds; that of a
    training row leaves out the row itself. A sequence, such as genres, has the mean of its members'. Numbers are not
    used.

    Args:
        loaders: RecBole's, of training, validation and test.

    Returns:
        ``valid`` and ``test``; None where these have one class only, or there is nothing to learn from.
    """
    data = [loader._dataset for loader in loaders]
    clicked = [np.asarray(part.inter_feat[part.label_field]) > 0.5 for part in data]
    best: dict[str, float | None] = {"valid": None, "test": None}
    kinds = (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)
    fields = [name for name, kind in data[0].field2type.items() if kind in kinds and _holds(data[0], name)]
    if not fields or clicked[0].all() or not clicked[0].any():
        return best
    fitted = slice(None, None, -(-len(clicked[0]) // _FITTED))
    odds = [_log_odds(*_places(data, name), clicked, fitted) for name in fields]
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


def _log_odds(
    places: Sequence[np.ndarray], values: np.ndarray, clicked: Sequence[np.ndarray], fitted: slice
) -> dict[int, list[np.ndarray]]:
    """By the rows added: the mean log odds of the values of each row, [N] of each part. The first, training, is cut.

    Args:
        places: of the rows of each part in ``values``, [N].
        values: of one field, [n, L]; -1 is none.
    """
    overall, known = clicked[0].mean(), values >= 0
    of_places = (np.bincount(places[0], weights, len(values)) for weights in (None, clicked[0]))
    size = int(values.max(initial=-1)) + 2  # the last is of -1
    rows, clicks = (np.bincount(values[known], counts[np.nonzero(known)[0]], size) for counts in of_places)
    count = np.maximum(known.sum(axis=1), 1)
    base, found = logit(overall), {}

    def more(added: int, clicks: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """By place: the log odds beyond those of all rows."""
        with np.errstate(divide="ignore", invalid="ignore"):  # where a value without rows is to leave one out
            of_values = logit((clicks + added * overall) / (rows + added)) - base
        of_values[-1] = 0
        sums: np.ndarray = of_values[values].sum(axis=1)
        return sums / count

    for added in _ADDED:
        others = more(added, clicks, rows)
        without = np.where(
            clicked[0][fitted],
            more(added, clicks - 1, rows - 1)[places[0][fitted]],
            more(added, clicks, rows - 1)[places[0][fitted]],
        )
        found[added] = [base + part for part in (without, *(others[place] for place in places[1:]))]
    return found


def _places(data: Sequence[Any], name: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The values of one field, [n, L] with -1 for none, and where among these those of each part's rows are, [N]."""
    if data[0].field2type[name] == FeatureType.TOKEN:
        ids = [_column(part, name) for part in data]
        return ids, np.arange(1 + max(int(of_part.max(initial=0)) for of_part in ids))[:, None]
    for feature, key in _sides(data[0]):
        if feature is not None and name in feature and name not in data[0].inter_feat:
            return [np.asarray(part.inter_feat[key]) for part in data], _distinct(np.asarray(feature[name]))
    of_rows = [np.asarray(part.inter_feat[name]) for part in data]
    ends = np.cumsum([len(rows) for rows in of_rows])
    return np.split(np.arange(ends[-1]), ends[:-1]), _distinct(np.concatenate(of_rows))


def _distinct(members: np.ndarray) -> np.ndarray:
    """The sequences [n, L], each member once, and -1 for padding."""
    found = np.sort(members, axis=1)
    again = found[:, 1:] == found[:, :-1]
    found[:, 1:][again] = 0
    found[found == 0] = -1
    return found


def _sides(data: Any) -> tuple[tuple[Any, str], tuple[Any, str]]:
    return (data.user_feat, data.uid_field), (data.item_feat, data.iid_field)


def _holds(data: Any, name: str) -> bool:
    return any(feature is not None and name in feature for feature in (data.inter_feat, data.user_feat, data.item_feat))


def _column(data: Any, name: str) -> np.ndarray:
    """One field of all interactions, as RecBole's ``join`` adds it, without the others."""
    inter = data.inter_feat
    for feature, key in _sides(data):
        if feature is not None and name in feature and name not in inter:
            return np.asarray(feature[name][inter[key]])
    return np.asarray(inter[name])
