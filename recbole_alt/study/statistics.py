"""Metrics of scored rows, and the statistics of a paired comparison: bootstrap over test rows, t-test over seeds."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

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


def reliability(label: np.ndarray, score: np.ndarray, bins: int = 10) -> dict[str, list[float]]:
    """Mean score, ``predicted``, and share of clicks, ``clicked``, of bins of equally many rows, by rising score.

    scikit-learn's ``calibration_curve`` joins bins where scores are tied.
    """
    parts = np.array_split(np.argsort(score, kind="stable"), min(bins, len(score)))
    return {
        "predicted": [float(score[rows].mean(dtype=np.float64)) for rows in parts],
        "clicked": [float(label[rows].mean()) for rows in parts],
    }


def bootstrap_differences(
    label: np.ndarray, base: Sequence[np.ndarray], other: Sequence[np.ndarray], *, resamples: int = 400, seed: int = 0
) -> dict[str, list[float] | None]:
    """95 % bootstrap intervals, over test rows, of ``other - base``, averaged over seeds.

    Each resample draws N rows with replacement, the same for every model and seed, so that the comparison stays paired.

    Args:
        label: [N].
        base, other: Scores [N] of each seed, in the same order.
        resamples: Number of draws.
        seed: Seed of the draws.

    Returns:
        Low and high end for ``auc`` (None if there is only one class) and ``logloss``.
    """
    rng, n, clicked = np.random.default_rng(seed), len(label), label > 0.5
    pairs = list(zip(base, other, strict=True))
    losses = np.mean([log_losses(label, o) - log_losses(label, b) for b, o in pairs], axis=0)
    ranked = [(weighted_auc(label, b), weighted_auc(label, o)) for b, o in pairs]
    draws: dict[str, list[float]] = {"auc": [], "logloss": []}
    for _ in range(resamples):
        weight = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        draws["logloss"].append(float(weight @ losses) / n)
        if 0 < weight @ clicked < n:
            draws["auc"].append(float(np.mean([o(weight) - b(weight) for b, o in ranked])))
    return {name: np.quantile(drawn, (0.025, 0.975)).tolist() if drawn else None for name, drawn in draws.items()}


def p_value(differences: Sequence[float]) -> float | None:
    """Two-sided p of the t-test of paired ``differences``; None for fewer than two, or if all are the same."""
    if len(differences) < 2 or np.ptp(differences) <= 1e-15 * max(1.0, np.abs(differences).max()):
        return None
    return float(ttest_1samp(differences, 0.0).pvalue)
