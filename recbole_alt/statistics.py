"""The statistics of a paired comparison: t-test and interval over seeds, bootstrap over rows; and calibration."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t, ttest_1samp

from recbole_alt.metrics import log_losses, weighted_auc


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


def t_interval(mean: float, deviation: float, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a mean by Student's t: it leaves out 0 where :func:`p_value` is below .05.

    Args:
        mean: of ``count`` values, 2 or more.
        deviation: their standard deviation, with ``count`` − 1 degrees of freedom.
        count: their number.
    """
    half = float(t.ppf(0.975, count - 1)) * deviation / count**0.5
    return mean - half, mean + half


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p after Holm's correction for as many tests as there are p; in the order given, None where there is none.

    The k-th smallest of n is multiplied by n − k + 1, and none is smaller than the one before it, or larger than 1
    (S. Holm, A simple sequentially rejective multiple test procedure, 1979).
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    most = 0.0
    for rank, (p, i) in enumerate(known):
        corrected[i] = most = max(most, min(1.0, (len(known) - rank) * p))
    return corrected
