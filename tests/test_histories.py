"""Histories: of earlier rows of the same user alone; worth something where they tell, and nothing where not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from histories import histories, main, measure, refitted
from hypothesis import given
from hypothesis import strategies as st

from recbole_alt.metrics import auc
from recbole_alt.study import Campaign, run_campaign

pytestmark = pytest.mark.usefixtures("one_thread")

Made = Callable[..., Campaign]
ROWS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 1)), min_size=2, max_size=40)


@given(ROWS, st.data())
def test_a_click_shows_in_later_rows_of_its_user_alone(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    users, clicks = (np.asarray(column) for column in zip(*rows, strict=True))
    first = data.draw(st.integers(1, len(rows) - 1))
    changed = data.draw(st.integers(first, len(rows) - 1))
    other = clicks.copy()
    other[changed] = 1 - other[changed]
    differs = (histories(users, clicks, first) != histories(users, other, first)).any(1)
    later = np.arange(first, len(rows)) > changed
    assert np.array_equal(differs, later & (users[first:] == users[changed]))


@given(ROWS)
def test_the_count_is_of_all_earlier_rows(rows: list[tuple[int, int]]) -> None:
    users, clicks = (np.asarray(column) for column in zip(*rows, strict=True))
    found = histories(users, clicks, 1)
    for row in range(1, len(rows)):
        assert np.expm1(found[row - 1, 0]) == pytest.approx((users[:row] == users[row]).sum())


def test_histories_are_worth_what_they_tell() -> None:
    rng = np.random.default_rng(3)
    users = rng.integers(0, 200, 8000)
    score = rng.normal(size=8000)
    for taste in (0.0, 1.5):
        truth = score + taste * rng.normal(size=200)[users]
        clicks = (rng.random(8000) < 1 / (1 + np.exp(-truth))).astype(int)
        past = histories(users, clicks, 4000)
        users_now, clicks_now, score_now = users[4000:], clicks[4000:], score[4000:, None]
        alone = refitted(score_now, clicks_now, users_now)
        gain = refitted(np.hstack([score_now, past]), clicks_now, users_now) - alone
        best = auc(clicks_now, truth[4000:])
        assert best is not None
        assert abs(gain) < 0.02 if taste == 0 else 0.05 < gain < best - alone + 0.01


@pytest.mark.slow
def test_a_campaign_is_measured(campaign: Made, monkeypatch: pytest.MonkeyPatch, data_path: Path, capsys: Any) -> None:
    run_campaign(campaign(datasets=["tiny@time"], modes=["ctr"], params_file="none"), Path("out"))
    monkeypatch.setattr(sys, "argv", ["histories", "out", f"--data_path={data_path}", "--json=found.json"])
    assert main() == 0
    printed, found = capsys.readouterr().out, json.loads(Path("found.json").read_text())
    assert [(gain["model"], len(gain["alone"])) for gain in found] == [("DCN", 2), ("DeepFM", 2)]
    for gain in found:
        tested = [
            json.loads(file.read_text())["test"]["auc"]
            for file in sorted(Path("out/runs").glob(f"*_{gain['model']}_plain_*.json"))
        ]
        assert gain["alone"] == tested
        assert f"| {np.mean(gain['with_histories']):.4f} ± " in printed


def test_what_cannot_be_measured_is_said(
    campaign: Made, monkeypatch: pytest.MonkeyPatch, data_path: Path, capsys: Any
) -> None:
    with pytest.raises(ValueError, match=r"'nowhere' holds no campaign: campaign\.json is missing"):
        measure(Path("nowhere"))
    run_campaign(campaign(datasets=["tiny@random"], models=["DCN"], seeds=1, modes=[], params_file="none"), Path("out"))
    monkeypatch.setattr(sys, "argv", ["histories", "out", f"--data_path={data_path}"])
    assert main() == 2
    assert "histories need a split by time: give the dataset as tiny@time" in capsys.readouterr().err
    for file in Path("out").glob("runs/*.json"):
        file.unlink()
    with pytest.raises(ValueError, match="'out' has no finished run of a plain model"):
        measure(Path("out"), str(data_path))
