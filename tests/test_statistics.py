"""Metrics, intervals and tests against brute force and well-known libraries, and the file of scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_rel
from sklearn.metrics import log_loss, roc_auc_score

from recbole_alt import metrics, scores, statistics, study
from recbole_alt.scores import Scores, popularity_bins

LABELS = st.lists(st.integers(0, 1), min_size=2, max_size=40)


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(0, 2**31), st.integers(1, 12))
def test_auc_and_logloss_with_ties(labels: list[int], seed: int, levels: int) -> None:
    label, score = np.array(labels), np.random.default_rng(seed).integers(0, levels, len(labels)) / levels
    if len(set(labels)) == 1:
        assert metrics.auc(label, score) is None
        return
    assert metrics.auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    weight = np.random.default_rng(seed + 1).integers(0, 4, len(labels)).astype(float)
    if len(set(label[weight > 0])) == 2:
        expected = roc_auc_score(label, score, sample_weight=weight)
        assert metrics.weighted_auc(label, score)(weight) == pytest.approx(expected, abs=1e-12)
    clipped = np.clip(score, metrics.EPSILON, 1 - metrics.EPSILON)
    assert metrics.log_losses(label, score).mean() == pytest.approx(log_loss(label, clipped), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(0, 2**31))
def test_gauc_and_cold_slices_against_loops(labels: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    label, n = np.array(labels), len(labels)
    score, user = rng.integers(0, 5, n) / 5, rng.integers(3, 8, n)
    values, weights, left_out = [], [], 0
    for one in np.unique(user):
        rows = user == one
        if len(set(label[rows])) == 2:
            values.append(roc_auc_score(label[rows], score[rows]))
            weights.append(rows.sum())
        else:
            left_out += 1
    found = metrics.gauc(label, score, user)
    assert found[1:] == (len(values), left_out)
    assert (found[0] is None) == (not values)
    if values:
        assert found[0] == pytest.approx(np.average(values, weights=weights), abs=1e-12)
    seen = rng.integers(0, 2, n)
    made = scores.flat_metrics(Scores(score.astype(np.float32), label, user, user, seen, 1 - seen))
    for name, cold in (
        ("user", [i for i in range(n) if seen[i] == 0]),
        ("item", [i for i in range(n) if seen[i] == 1]),
    ):
        assert made[f"new_{name}_rows"] == len(cold)
        both = len({labels[i] for i in cold}) == 2
        expected = roc_auc_score(label[cold], score[cold]) if both else None
        assert made[f"new_{name}_auc"] == (None if expected is None else pytest.approx(expected, abs=1e-12))
    bins = popularity_bins(rng.integers(0, 3000, n))
    assert sum(inside.sum() for inside in bins.values()) == n


def test_bootstrap_covers() -> None:
    """The interval holds the difference of endless rows about as often as it says; brute force gives the same one."""
    rng = np.random.default_rng(3)

    def rows(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = rng.normal(size=n)
        label = (rng.random(n) < 1 / (1 + np.exp(-x))).astype(int)
        logits = x + rng.normal(size=n), x + 0.8 * rng.normal(size=n)
        return label, *(1 / (1 + np.exp(-z)) for z in logits)

    label, base, other = rows(400_000)
    true = roc_auc_score(label, other) - roc_auc_score(label, base)
    covered = 0
    for _ in range(60):
        label, base, other = rows(300)
        interval = statistics.bootstrap_differences(label, [base], [other], resamples=200)["auc"]
        assert interval is not None
        covered += interval[0] <= true <= interval[1]
    assert 50 <= covered <= 60
    draws, again = [], np.random.default_rng(0)
    for _ in range(50):
        drawn = again.integers(0, 300, 300)
        draws.append(roc_auc_score(label[drawn], other[drawn]) - roc_auc_score(label[drawn], base[drawn]))
    interval = statistics.bootstrap_differences(label, [base, base], [other, other], resamples=50)["auc"]
    assert interval is not None
    assert interval == pytest.approx(tuple(np.quantile(draws, (0.025, 0.975))), abs=1e-12)


def test_p_of_paired_differences() -> None:
    rng = np.random.default_rng(1)
    for n in (2, 3, 5, 30):
        a, b = rng.normal(size=n), rng.normal(0.3, 1, size=n)
        assert statistics.p_value(b - a) == pytest.approx(ttest_rel(b, a).pvalue, abs=1e-12)
    assert statistics.p_value([0.1]) is None
    assert statistics.p_value([0.0, 0.0]) is None
    assert statistics.p_value([0.1 + 0.2, 0.3]) is None  # the same but for rounding


def test_reliability_and_scores_files(tmp_path: Path) -> None:
    score = np.arange(100, dtype=np.float32) / 100
    curve = statistics.reliability((score > 0.5).astype(np.uint8), score)
    assert curve["predicted"] == pytest.approx([0.045 + i / 10 for i in range(10)], abs=1e-6)
    assert curve["clicked"] == pytest.approx([0, 0, 0, 0, 0, 0.9, 1, 1, 1, 1])
    np.savez(tmp_path / "bad.npz", score=np.array([object()], dtype=object), label=score)
    with pytest.raises(ValueError, match="holds no scores"):
        Scores.load(tmp_path / "bad.npz")
    files = [Path(metrics.__file__).with_name("scores.py"), *Path(study.__file__).parent.glob("*.py")]
    source = "".join(file.read_text() for file in files)
    assert "allow_pickle=False" in source and "import pickle" not in source and "torch.load" not in source


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_an_interval_leaves_out_0_where_p_is_below_5_percent(values: list[float]) -> None:
    p = statistics.p_value(values)
    if p is None:
        return
    low, high = statistics.t_interval(float(np.mean(values)), float(np.std(values, ddof=1)), len(values))
    interval = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((interval.low, interval.high))
    if abs(p - 0.05) > 1e-9:
        assert (low <= 0 <= high) == (p > 0.05)


@given(st.lists(st.none() | st.floats(0, 1), max_size=12))
def test_holm_rejects_what_the_stepwise_procedure_rejects(p_values: list[float | None]) -> None:
    corrected = statistics.holm(p_values)
    assert [p is None for p in corrected] == [p is None for p in p_values]
    known = sorted(p for p in p_values if p is not None)
    for level in (0.01, 0.05, 0.2):
        rejected = 0
        while rejected < len(known) and known[rejected] <= level / (len(known) - rejected):
            rejected += 1
        assert sum(p is not None and p <= level * (1 + 1e-12) for p in corrected) == rejected
    pairs = sorted((p, c) for p, c in zip(p_values, corrected, strict=True) if p is not None and c is not None)
    assert all(p <= c <= 1 for p, c in pairs) and [c for _, c in pairs] == sorted(c for _, c in pairs)
