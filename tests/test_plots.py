"""Plots of campaigns: every number of the table is drawn, and on a scale on which it can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pip install 'recbole_alt[tune]'")

from recbole_alt.benchmark import plots
from recbole_alt.benchmark.axes import COMPLETE
from recbole_alt.benchmark.scores import Scores


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
    label, seen = np.tile([0, 1], 40).astype(np.uint8), np.repeat([0, 5], [10, 70])

    def run(stage: str, share: float, score: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
        folder = Path(f"{stage}-{share}")
        folder.mkdir()
        Scores(score.astype(np.float32), label, np.ones(80, dtype=int), item_seen=seen).save(folder / "scores.npz")
        variant = "plain" if stage == "plain" else COMPLETE
        what = {"data": "d", "train_share": share, "model": "DCN", "language_model": None, "variant": variant}
        return {"run": what | {"stage": stage, "seed": 1}, "folder": str(folder)}

    records = [run("plain", 0.5, label, 0 * seen), run("ctr", 0.5, label, 0 * seen)]  # in half of it no item was seen
    records += [run("plain", 1.0, 1.0 - label, seen), run("ctr", 1.0, label, seen)]
    (axes,) = plots.gain_by_popularity(records).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0\n10 rows", "1–9\n70 rows"]
    assert list(axes.containers[0].lines[0].get_ydata()) == [1.0, 1.0]  # from all pairs wrong to all right
