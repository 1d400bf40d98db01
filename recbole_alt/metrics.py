"""Metrics of scored rows, in 64 bits over all rows at once: AUC, LogLoss, and AUC per user."""

from collections.abc import Callable

import numpy as np
import pandas as pd

#: Scores are clipped to [EPSILON, 1 - EPSILON] before the logarithm, as in RecBole's LogLoss.
EPSILON = 1e-15


def auc(label: np.ndarray, score: np.ndarray) -> float | None:
    """Area under the ROC curve; None if there is only one class."""
    clicked = label > 0.5
    return weighted_auc(label, score)(np.ones(len(label))) if clicked.any() and not clicked.all() else None


def weighted_auc(label: np.ndarray, score: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return a function from row weights [N] to the AUC, which does not sort the scores again.

    scikit-learn's ``roc_auc_score`` sorts in every call: a bootstrap with it takes about ten times as long.
    """
    order = np.argsort(score, kind="stable")
    clicked, ascending = (label[order] > 0.5).astype(np.float64), score[order]
    ties = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]])

    def weigh(weight: np.ndarray) -> float:
        positive = weight[order] * clicked
        negative = weight[order] - positive
        if len(ties) < len(order):
            positive, negative = np.add.reduceat(positive, ties), np.add.reduceat(negative, ties)
        below = np.cumsum(negative) - negative / 2
        return float(positive @ below / (positive.sum() * negative.sum()))

    return weigh


def log_losses(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row, [N]."""
    p = np.clip(score.astype(np.float64), EPSILON, 1 - EPSILON)
    return -np.where(label > 0.5, np.log(p), np.log1p(-p))


def gauc(label: np.ndarray, score: np.ndarray, user: np.ndarray) -> tuple[float | None, int, int]:
    """AUC per user, averaged with the users' numbers of rows as weights; then how many users count, and do not.

    Users with one class do not; the average is None if no user has both.
    """
    clicked = label > 0.5
    ranks = pd.Series(score).groupby(user).rank()
    users = pd.DataFrame({"rows": 1, "clicks": clicked, "ranks": ranks * clicked}).groupby(user).sum()
    both = users[(users.clicks > 0) & (users.clicks < users.rows)]
    values = (both.ranks - both.clicks * (both.clicks + 1) / 2) / (both.clicks * (both.rows - both.clicks))
    average = None if both.empty else float(np.average(values, weights=both.rows))
    return average, len(both), len(users) - len(both)
