"""AUC by ranks, GAUC, calibration, and what a paired comparison needs: bootstrap over test rows, t-test over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

#: Least distance of a probability to 0 and 1 when its logarithm is taken, as in RecBole's LogLoss.
EPSILON = 1e-15


def auc(label: np.ndarray, score: np.ndarray) -> float | None:
    """Share of pairs of a click and a non-click in the right order, ties counting half; None with one class only."""
    positive = label > 0.5
    n_positive = int(positive.sum())
    n_negative = len(label) - n_positive
    if not (n_positive and n_negative):
        return None
    ranks = rankdata(score)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def log_losses(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row, [N]."""
    p = np.clip(score.astype(np.float64), EPSILON, 1 - EPSILON)
    return -np.where(label > 0.5, np.log(p), np.log1p(-p))


def reliability(label: np.ndarray, score: np.ndarray, bins: int = 10) -> tuple[list[float], list[float]]:
    """Mean score and share of clicks of bins with as many rows each, from the lowest scores to the highest."""
    parts = np.array_split(np.argsort(score, kind="stable"), min(bins, len(score)))
    return [float(score[rows].mean(dtype=np.float64)) for rows in parts], [float(label[rows].mean()) for rows in parts]


@dataclass(frozen=True)
class GAUC:
    """AUC per user, weighted by rows.

    Attributes:
        value: None where no user has both classes.
        users: that have both classes.
        left_out: users with one class only.
    """

    value: float | None
    users: int
    left_out: int


def gauc(label: np.ndarray, score: np.ndarray, user: np.ndarray) -> GAUC:
    """AUC of each user's rows, averaged with the rows as weights."""
    order = np.lexsort((score, user))
    label, score, user = label[order] > 0.5, score[order], user[order]
    first = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    rows = np.diff(np.r_[first, len(user)])
    which = np.repeat(np.arange(len(first)), rows)
    tied = np.flatnonzero(np.r_[True, (user[1:] != user[:-1]) | (score[1:] != score[:-1])])
    size = np.diff(np.r_[tied, len(user)])
    rank = np.repeat(tied + (size + 1) / 2, size) - first[which]  # from 1 within the user, averaged over ties
    positive = np.bincount(which, label)
    negative = rows - positive
    both = (positive > 0) & (negative > 0)
    if not both.any():
        return GAUC(None, 0, len(first))
    sums = np.bincount(which, rank * label)
    values = (sums - positive * (positive + 1) / 2)[both] / (positive * negative)[both]
    return GAUC(float(np.average(values, weights=rows[both])), int(both.sum()), int((~both).sum()))


class _Ranked:
    """A model's scores, sorted once, so that the AUC of a resample takes one pass."""

    def __init__(self, label: np.ndarray, score: np.ndarray):
        self.order = np.argsort(score, kind="stable")
        ascending = score[self.order]
        self.label = (label[self.order] > 0.5).astype(np.float64)
        self.ties = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]])
        self.distinct = len(self.ties) == len(score)

    def auc(self, weight: np.ndarray) -> float:
        weight = weight[self.order]
        positive = weight * self.label
        negative = weight - positive
        if not self.distinct:
            positive, negative = np.add.reduceat(positive, self.ties), np.add.reduceat(negative, self.ties)
        below = np.cumsum(negative) - negative / 2
        return float(positive @ below / (positive.sum() * negative.sum()))


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def bootstrap_differences(
    label: np.ndarray,
    base: Sequence[np.ndarray],
    other: Sequence[np.ndarray],
    *,
    resamples: int = 400,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """How far ``other - base`` moves when the test rows are drawn anew.

    A resample draws the same rows for every model and seed, so the interval is of the paired difference, averaged
    over seeds.

    Args:
        label: [N].
        base, other: scores [N] by seed, in the same order.
        resamples: draws of N rows with replacement.
        seed: of the draws.

    Returns:
        intervals of the differences of ``auc`` (None with one class only) and ``logloss``.
    """
    rng = np.random.default_rng(seed)
    n = len(label)
    classes = len(np.unique(label > 0.5)) == 2
    ranked = [(_Ranked(label, b), _Ranked(label, o)) for b, o in zip(base, other, strict=True)] if classes else []
    pairs = zip(base, other, strict=True)
    losses = np.mean([log_losses(label, o) - log_losses(label, b) for b, o in pairs], axis=0)
    aucs: list[float] = []
    means: list[float] = []
    for _ in range(resamples):
        weight = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        means.append(float(weight @ losses) / n)
        hits = weight @ (label > 0.5)
        if ranked and 0 < hits < n:
            aucs.append(float(np.mean([o.auc(weight) - b.auc(weight) for b, o in ranked])))
    return {"auc": _interval(aucs), "logloss": _interval(means)}


def _interval(draws: Sequence[float]) -> Interval | None:
    return Interval(*map(float, np.quantile(draws, (0.025, 0.975)))) if len(draws) else None


def paired_t_test(base: Sequence[float], other: Sequence[float]) -> float | None:
    """Two-sided p of the paired t-test; None for fewer than two pairs, or where all differ by the same."""
    difference = np.asarray(other, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    n = len(difference)
    if n < 2:
        return None
    deviation = float(difference.std(ddof=1))
    if deviation <= 1e-15 * max(1.0, float(np.abs(difference).max())):
        return None
    return float(2 * student.sf(abs(difference.mean()) / (deviation / math.sqrt(n)), n - 1))
