"""What a run leaves behind, and the input it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import recbole_alt
from recbole_alt import run_recbole_alt
from recbole_alt.result import result_table

pytestmark = pytest.mark.usefixtures("one_thread")

Keys = Callable[..., dict[str, Any]]


def run(given: dict[str, Any]) -> dict[str, Any]:
    return run_recbole_alt("ALT_DCN", "tiny", None, given)


def test_result_json_and_table(keys: Keys) -> None:
    given = keys(result_file="elsewhere/copy.json", seed=5)
    result = run(given)
    record = json.loads((Path(result["folder"]) / "result.json").read_text())
    assert json.loads(Path("elsewhere/copy.json").read_text()) == record == json.loads(json.dumps(result["record"]))
    for key in ("seed", "pretrain_steps", "language_model", "embedding_size", "objectives", "threshold"):
        assert record["configuration"][key] == (given.get(key) or record["configuration"][key]), key
    assert record["configuration"]["model"] == "ALT_DCN"
    assert record["versions"]["recbole_alt"] == recbole_alt.__version__
    assert {"python", "torch", "recbole", "transformers", "numpy", "pandas"} <= record["versions"].keys()
    assert set(record["stages"]) == {"pretrain", "ctr", "lm", "joint", "plain"}
    for name, stage in record["stages"].items():
        assert stage["seconds"] > 0, name
        assert 100 < stage["peak_memory_mib"] < 100_000, name  # Python with torch alone takes the first
        assert (stage["texts_encoded"] > 0) == (name in ("pretrain", "lm", "joint")), name
    assert record["stages"]["pretrain"]["steps"] == 4
    assert {"loss/contrastive", "loss/masked_language", "loss/masked_tabular"} <= record["stages"]["pretrain"][
        "final"
    ].keys()
    assert set(record["results"]) == {"ctr", "lm", "joint", "plain"}
    for parts in record["results"].values():
        for part in ("valid", "test"):
            assert set(parts[part]) == {"auc", "logloss"}
            assert 0 <= parts[part]["auc"] <= 1
            assert parts[part]["logloss"] > 0
    assert result["best_valid_result"] == record["results"]["ctr"]["valid"]
    assert result["test_result"] == record["results"]["ctr"]["test"]
    assert result["best_valid_score"] == record["results"]["ctr"]["valid"]["auc"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result["table"].splitlines()]
    assert [row[0] for row in rows[2:]] == ["plain DCN", "alignment", "ALT_DCN ctr", "ALT_DCN lm", "ALT_DCN joint"]
    for stage, row in zip(("plain", "pretrain", "ctr", "lm", "joint"), rows[2:], strict=True):
        metrics = record["results"].get(stage)
        expected = (
            [f"{metrics[p][m]:.4f}" for p in ("valid", "test") for m in ("auc", "logloss")] if metrics else [""] * 4
        )
        assert row[1:5] == expected
        assert row[6] == f"{record['stages'][stage]['texts_encoded']:,}"
        assert row[7] == f"{record['stages'][stage]['peak_memory_mib']:,.0f}"


@pytest.mark.parametrize(
    "changes",
    [
        {"eval_step": 0},
        {"epochs": 0},
        {"eval_args": {"split": {"RS": [8, 0, 2]}, "order": "RO", "group_by": None, "mode": "labeled"}},
    ],
    ids=["eval_step", "epochs", "split"],
)
def test_without_validation_the_test_scores_stand(keys: Keys, changes: dict[str, Any]) -> None:
    result = run(keys(finetune_modes=["ctr"], **changes))
    for stage, title in (("plain", "plain DCN"), ("ctr", "ALT_DCN ctr")):
        reached = result["record"]["results"][stage]
        assert reached["valid"] == {}
        row = next(line for line in result["table"].splitlines() if title in line)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1:5] == ["", "", f"{reached['test']['auc']:.4f}", f"{reached['test']['logloss']:.4f}"]


def test_the_table_has_the_metrics_that_were_asked_for() -> None:
    reached = {"recall@5": 0.1, "recall@10": 0.2, "ndcg@5": 0.3, "ndcg@10": 0.4}
    record = {
        "configuration": {"model": "ALT_DCN", "metrics": ["NDCG", "Recall"]},
        "stages": {"plain": {"seconds": 1.0, "texts_encoded": 0, "peak_memory_mib": 1.0}},
        "results": {"plain": {"valid": reached, "test": {}}},
    }
    head, _, row = result_table(record).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, row)]
    assert cells[0][1:5] == ["valid NDCG@5", "valid NDCG@10", "valid Recall@5", "valid Recall@10"]
    assert cells[0][5:9] == ["test NDCG@5", "test NDCG@10", "test Recall@5", "test Recall@10"]
    assert cells[1][1:9] == ["0.3000", "0.4000", "0.1000", "0.2000", "", "", "", ""]


def test_only_what_is_asked_for_runs(keys: Keys) -> None:
    only_plain = run(keys(finetune_modes=[]))
    assert set(only_plain["record"]["stages"]) == {"plain"}
    assert only_plain["test_result"] == only_plain["record"]["results"]["plain"]["test"]
    assert set(run(keys(finetune_modes=[], plain_baseline=False))["record"]["stages"]) == {"pretrain"}
    assert set(run(keys(finetune_modes=["lm"], plain_baseline=False))["record"]["stages"]) == {"pretrain", "lm"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"finetune_modes": ["ctr", "jiont"]}, "jiont"),
        ({"finetune_modes": "joint"}, "finetune_modes"),
        ({"objectives": ["contrastiv"]}, "contrastiv"),
        ({"objectives": []}, "objectives"),
        ({"objective_weights": {"contrastiv": 1}}, "contrastiv"),
        ({"finetune": {"jiont": {"epochs": 1}}}, "jiont"),
        ({"finetune": {"joint": {"epoch": 1}}}, "epoch"),
        ({"finetune": {"joint": {"schedule": "cosinus"}}}, "cosinus"),
        ({"finetune_mod": ["ctr"]}, "finetune_mod"),
        ({"language_model": "no-such/model"}, "no-such/model"),
        ({"language_model_layers": 9}, "language_model_layers"),
        ({"pretrain_steps": -1}, "pretrain_steps"),
        ({"mask_ratio": 0.0}, "mask_ratio"),
    ],
)
def test_bad_input_stops_with_one_line(changes: dict[str, Any], named: str, keys: Keys) -> None:
    given = keys() | {"finetune_modes": ["joint"], "plain_baseline": False} | changes
    with pytest.raises(ValueError, match=named) as caught:
        run(given)
    assert "\n" not in str(caught.value)
