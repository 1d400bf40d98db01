"""Plots of campaigns: every number of the table is drawn, and on a scale on which it can be read."""

from __future__ import annotations

from typing import Any

import pytest

from recbole_alt.reporting import plots
from recbole_alt.reporting.runs import COMPLETE, PLAIN


def row(model: str, stage: str, gain: float | None, **more: Any) -> dict[str, Any]:
    made = {"model": model, "stage": stage, "train_share": 1.0, "language_model": None, "variant": COMPLETE}
    return made | {"vs_plain_auc": gain, "vs_plain_auc_sd": 0.001, "vs_plain_pairs": 5} | more


def test_gains_by_arm_with_own_texts_and_with_others() -> None:
    rows = [
        row("DCN", "ctr", 0.003, vs_plain_rare_item_auc=0.02, vs_plain_rare_item_auc_sd=0.01),
        row("DCN", "ctr", 0.001, variant="ALT_shuffled"),
        row("DCN", "lm", -0.05),
        row("DCN", "plain", None, variant=PLAIN),
    ]
    everything, rare = plots.gains(rows).axes
    assert [axes.get_title() for axes in (everything, rare)] == ["all rows", "rare items"]
    assert [text.get_text() for text in everything.get_yticklabels()] == ["DCN ctr", "DCN lm"]
    control, own = (list(container.lines[0].get_xdata()) for container in everything.containers)
    assert (control, own) == ([0.001], [0.003, -0.05])
    ends = everything.containers[1].lines[2][0].get_segments()[0][:, 0]
    assert ends == pytest.approx([0.003 - 2.7764 * 0.001 / 5**0.5, 0.003 + 2.7764 * 0.001 / 5**0.5], abs=1e-6)
    assert list(rare.containers[-1].lines[0].get_xdata()) == [0.02]
    shares = plots.gains([*rows, row("DCN", "ctr", 0.1, train_share=0.05)]).axes
    assert shares[2].get_title() == "all rows, 5% of the clicks"
    assert plots.gains([row("FM", "ctr", None)]) is None


def test_gains_by_popularity_tell_of_how_many_rows() -> None:
    def of(stage: str, share: float, *aucs: dict[str, float]) -> dict[str, Any]:
        bins = zip(("0", "1–9", "10–49"), (10, 20, 30), aucs, strict=False)
        found = {"popularity": {name: {"rows": count, "auc": by_seed} for name, count, by_seed in bins}}
        return row("DCN", stage, 0.0, train_share=share, variant=PLAIN if stage == PLAIN else COMPLETE) | found

    rows = [of("plain", 0.5, {"1": 0.9}), of("ctr", 0.5, {"1": 0.1})]  # of half of the training data
    rows.append(of("plain", 1.0, {"1": 0.5}, {}, {"1": 0.5, "2": 0.6}))
    rows.append(of("ctr", 1.0, {"1": 0.75}, {}, {"2": 0.5, "1": 0.75}))
    (axes,) = plots.gain_by_popularity(rows).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0\n10 rows", "1–9\n20 rows", "10–49\n30 rows"]
    line = axes.containers[0].lines[0]
    assert list(line.get_xdata()) == [0, 2]  # one class in the second
    assert line.get_ydata() == pytest.approx([0.25, (0.25 - 0.1) / 2])  # each seed less its own plain model
    assert plots.gain_by_popularity(rows[2:3]) is None


def test_calibration_is_of_one_model_and_all_of_the_data() -> None:
    def of(model: str, stage: str, share: float, clicked: list[float] | None) -> dict[str, Any]:
        curve = None if clicked is None else {"predicted": [0.2, 0.6], "clicked": clicked}
        return row(model, stage, 0.0) | {"train_share": share, "calibration": curve}

    rows = [of("DCN", "ctr", 0.5, [0.1, 0.1]), of("DCN", "lm", 1.0, None)]  # all of its runs diverged
    rows += [of("DCN", "ctr", 1.0, [0.3, 0.5]), of("LR", "ctr", 1.0, [0.2, 0.2])]
    (axes,) = plots.calibration(rows).axes
    (curve, diagonal) = axes.lines
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([0.2, 0.6], [0.3, 0.5])
    assert curve.get_label() == "ctr" and "DCN" in axes.get_xlabel() and diagonal.get_slope() == 1
    assert plots.calibration(rows[1:2]) is None
