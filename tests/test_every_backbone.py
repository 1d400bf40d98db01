"""Every backbone through the whole job: real weights, real data, a few steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from recbole_alt import run_recbole_alt
from recbole_alt.model.captures import CAPTURES


def whole_job(name: str, **keys: Any) -> Path:
    """A run whose record is sound; its folder."""
    short = {"pretrain_steps": 2, "epochs": 1, "finetune": {"lm": {"epochs": 1}, "joint": {"epochs": 1}}}
    given = short | {"show_progress": False, "show_plan": False} | keys
    run = run_recbole_alt(f"ALT_{name}", "ml-100k", config_dict=given)
    record = run["record"]
    assert set(record["results"]) == {"ctr", "lm", "joint", "plain"}
    for stage, result in record["results"].items():
        assert 0.4 < result["test"]["auc"] < 1, stage
        assert math.isfinite(result["test"]["logloss"]), stage
    for objective in ("contrastive", "masked_language", "masked_tabular"):
        assert math.isfinite(record["stages"]["pretrain"]["final"][f"loss/{objective}"])
    return Path(run["folder"])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CAPTURES))
def test_whole_job_on_ml_100k(name: str) -> None:
    folder = whole_job(name)
    if name == "KD_DAGFM":  # a teacher so far; then its student
        whole_job(name, phase="finetuning", warm_up=str(folder / "plain.pth"))
