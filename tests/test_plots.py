"""Plots of campaigns: every number of the table is drawn, and on a scale on which it can be read."""

from __future__ import annotations

from typing import Any

import pytest

from recbole_alt.study import plots
from recbole_alt.study.axes import COMPLETE, PLAIN


def row(model: str, stage: str, gain: float | None) -> dict[str, Any]:
    made = {"model": model, "stage": stage, "train_share": 1.0, "language_model": None, "variant": COMPLETE}
    return made | {f"vs_plain_auc{end}": gain for end in ("", "_low", "_high")}


def test_gains_by_backbone_with_the_language_model_on_its_own_scale() -> None:
    gains = {("DCN", "ctr"): 0.001, ("DCN", "lm"): -0.05, ("LR", "ctr"): 0.002, ("LR", "lm"): -0.03}
    figure = plots.gain_by_backbone([row(*where, gain) for where, gain in gains.items()] + [row("FM", "ctr", None)])
    above, below = figure.axes
    heights = [line.get_ydata() for axes in (above, below) for line in (axes.containers[0].lines[0],)]
    assert [list(height) for height in heights] == [[0.001, 0.002], [-0.05, -0.03]]
    assert above.get_ylim()[0] > -0.01  # on one scale, the gains above could not be read
    assert [label.get_text() for label in below.get_xticklabels()] == ["DCN", "LR"]
    assert len(plots.gain_by_backbone([row("DCN", "lm", -0.05)]).axes) == 1
    assert plots.gain_by_backbone([row("FM", "ctr", None)]) is None


def test_gains_by_popularity_tell_of_how_many_rows() -> None:
    def of(stage: str, share: float, *aucs: dict[str, float]) -> dict[str, Any]:
        bins = zip(("0", "1–9", "10–49"), (10, 20, 30), aucs, strict=False)
        found = {"popularity": {name: {"rows": count, "auc": by_seed} for name, count, by_seed in bins}}
        return row("DCN", stage, 0.0) | found | {"train_share": share, "variant": PLAIN if stage == PLAIN else COMPLETE}

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
