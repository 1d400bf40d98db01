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


def click_rates(loaders: Sequence[Any]) -> dict[str, float | None]:
    """AUC of a logistic regression on the click rates of a row's user, item and other single-valued token fields.

    The rate of a value is that of its training rows, with rows of the overall rate added, as a log odds; that of a
    training row leaves out the row itself. Numbers and sequences are not used.

    Args:
        loaders: RecBole's, of training, validation and test.

    Returns:
        ``valid`` and ``test``; None where these have one class only, or there is nothing to learn from.
    """
    dataset = loaders[0]._dataset
    parts = [loader._dataset.join(loader._dataset.inter_feat) for loader in loaders]
    clicked = [np.asarray(part[dataset.label_field]) > 0.5 for part in parts]
    if clicked[0].all() or not clicked[0].any():
        return {"valid": None, "test": None}
    fields = [name for name, kind in dataset.field2type.items() if kind == FeatureType.TOKEN and name in parts[0]]
    ids = [[np.asarray(part[name]) for part in parts] for name in fields]
    best: dict[str, float | None] = {"valid": None, "test": None}
    for added in _ADDED:
        odds = [_log_odds(of_field, clicked, added) for of_field in ids]
        train, *others = (np.stack(of_part, axis=1) for of_part in zip(*odds, strict=True))
        model = LogisticRegression(max_iter=1000).fit(train, clicked[0])
        found = [auc(label, model.decision_function(rows)) for label, rows in zip(clicked[1:], others, strict=True)]
        if best["valid"] is None or (found[0] is not None and found[0] > best["valid"]):
            best = dict(zip(best, found, strict=True))
    return best


def _log_odds(ids: Sequence[np.ndarray], clicked: Sequence[np.ndarray], added: float) -> list[np.ndarray]:
    """Of each row [N] of each part, by the id of one field; the first part is training."""
    size, overall = 1 + max(int(of_part.max(initial=0)) for of_part in ids), clicked[0].mean()
    rows, clicks = np.bincount(ids[0], minlength=size), np.bincount(ids[0], clicked[0], minlength=size)
    found = []
    for part, of_part in enumerate(ids):
        own, of_own = (clicked[0], 1) if part == 0 else (0, 0)
        rate = (clicks[of_part] - own + added * overall) / (rows[of_part] - of_own + added)
        found.append(np.log(rate / (1 - rate)))
    return found
