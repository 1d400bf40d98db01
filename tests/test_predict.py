"""Scores of any rows: a run's own test rows as the run scored them, new ids and values, and texts of new entities."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ITEMS, USERS, interactions

import recbole_alt
from recbole_alt import Prediction, predict, run_recbole_alt
from recbole_alt.cli import main
from recbole_alt.experiment import Experiment
from recbole_alt.scores import Scores

pytestmark = pytest.mark.usefixtures("one_thread")
Keys = Callable[..., dict[str, Any]]

STAGES = ("plain", "ctr", "lm", "joint")
#: Every kind of column: of the rows, the users and the items, numbers normalised, in buckets, with gaps.
EVERYTHING = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating", "timestamp", "device", "dwell"],
        "user": ["user_id", "age", "gender", "height", "income", "visits"],
        "item": ["item_id", "year", "genre", "length", "price", "scores"],
    },
    "numerical_features": ["dwell", "height", "income", "length", "price", "visits", "scores"],
    "normalize_field": ["dwell", "price"],
    "discretization": {"height": {"method": "ED", "bucket": 3}, "length": {"method": "LD"}},
    "eval_batch_size": 7,
}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Scores]]:
    """Stage → the test scores of the runs that are made."""
    scores: dict[str, Scores] = {}
    original = Experiment._test

    def keep(self: Experiment, trainer: Any, stage: str, progress: bool) -> Any:
        result = original(self, trainer, stage, progress)
        scores[stage] = trainer.scores
        return result

    monkeypatch.setattr(Experiment, "_test", keep)
    yield scores


def rows(copies: int = 8, **changes: Any) -> pd.DataFrame:
    """The interactions of ``tiny`` as a frame of texts, without what the label is made from."""
    lines = [line.split("\t") for line in interactions(copies).splitlines()]
    frame = pd.DataFrame(lines[1:], columns=[name.split(":")[0] for name in lines[0]])
    return frame.drop(columns="rating").replace("", np.nan).assign(**changes)


def test_rows(folder: Path, keys: Any) -> pd.DataFrame:
    """The run's test rows in their order, as the files have them."""
    _, _, dataset, _, _, test = recbole_alt.load_data_and_model(folder / "plain.pth")
    part = test._dataset.inter_feat
    frame = pd.DataFrame({name: dataset.field2id_token[name][part[name]] for name in ("user_id", "item_id", "device")})
    original = rows().set_index(["user_id", "item_id", "timestamp"])
    dwell = original["dwell"].to_dict()
    times = part["timestamp"].numpy().astype(int).astype(str)
    frame["dwell"] = [dwell[(u, i, t)] for u, i, t in zip(frame.user_id, frame.item_id, times, strict=True)]
    frame["device"] = frame["device"].replace("[PAD]", np.nan)
    return frame


test_rows.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", [{}, {"template": {"exclude": []}, "prompt_scope": "interaction"}])
def test_own_test_rows_score_as_in_the_run(given: dict[str, Any], keys: Keys, kept: dict[str, Scores]) -> None:
    result = run_recbole_alt("ALT_DCN", "tiny", None, keys(**EVERYTHING, **given, epochs=1))
    own = test_rows(Path(result["folder"]), keys)
    assert len(own) > 2 * EVERYTHING["eval_batch_size"]  # type: ignore[operator]
    for stage in STAGES:
        if stage in kept:
            found = predict(result["folder"], own, mode=stage)
            assert np.array_equal(found.scores, kept[stage].score), stage
            assert found.new_values == {}
    assert set(kept) == {"plain", "ctr", "lm", "joint"}
