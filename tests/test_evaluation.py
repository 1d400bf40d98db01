"""Splits, modes, metrics and sampling that do not go together are refused before data are read."""

from __future__ import annotations

from typing import Any

import pytest

from recbole_alt.config import ALTConfig

SPLIT = {"RS": [0.8, 0.1, 0.1]}
LABELED = {"split": SPLIT, "order": "RO", "group_by": None, "mode": "labeled"}


def configure(**keys: Any) -> ALTConfig:
    return ALTConfig("ALT_DCN", "anything", None, keys)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"eval_args": {"order": "TO"}}, "eval_args lacks mode"),
        ({"eval_args": [1]}, "eval_args must be like"),
        ({"eval_args": {**LABELED, "splt": SPLIT}}, "eval_args: unknown part 'splt': did you mean 'split'"),
        ({"eval_args": {**LABELED, "split": {"RSS": [8, 1, 1]}}}, "split: 'RSS' must be one of RS"),
        ({"eval_args": {**LABELED, "split": {"RS": [0.8, 0.2]}}}, r"RS must be three shares.*\[0.8, 0.2\]"),
        ({"eval_args": {**LABELED, "split": {"RS": [0, 0.5, 0.5]}}}, "leaves nothing to train on"),
        ({"eval_args": {**LABELED, "split": {"RS": ["a", 1, 1]}}}, "three shares"),
        ({"eval_args": {**LABELED, "split": {"RS": [8, -1, 1]}}}, "three shares"),
        ({"eval_args": {**LABELED, "split": {"LS": "all"}}}, "LS must be one of"),
        ({"eval_args": {**LABELED, "split": {"RS": [8, 1, 1], "LS": "test_only"}}}, "split must be like"),
        ({"eval_args": {**LABELED, "order": "time"}}, "order must be one of RO .*, TO .*'time'"),
        ({"eval_args": {**LABELED, "group_by": "users"}}, "group_by must be user or empty.*'users'"),
        ({"eval_args": {**LABELED, "mode": "uni"}}, "mode .valid. must be one of.*'uni'"),
        ({"eval_args": {**LABELED, "mode": {"valdi": "full"}}}, "mode must be like"),
        ({"eval_args": {**LABELED, "mode": "full"}}, "mode: full .*AUC.*labeled"),
        ({"metrics": ["Recall"], "valid_metric": "Recall@10"}, "Recall.* rank items.*labeled"),
        ({"metrics": ["GAUC"], "valid_metric": "GAUC"}, "GAUC.* rank items.*labeled"),
        ({"metrics": ["ACU"]}, "metrics: 'ACU' is no metric.*'AUC'"),
        ({"metrics": ["AUC", "Recall"]}, "Recall rank items"),
        ({"metrics": ["AUC", "auc"]}, "twice"),
        ({"metrics": []}, "metrics must be a list"),
        ({"valid_metric": "F1"}, "valid_metric: 'F1' is no metric"),
        ({"valid_metric": "RMSE"}, "valid_metric: 'RMSE' is not among metrics"),
        ({"valid_metric": "AUC@10"}, "valid_metric: 'AUC@10' has a depth"),
        (
            {"metrics": ["Recall"], "valid_metric": "Recall@3", "eval_args": {**LABELED, "mode": "full"}},
            "valid_metric: 'Recall@3' needs a depth of topk.*Recall@10",
        ),
        ({"topk": [0]}, "topk must be"),
        ({"topk": None}, "topk must be"),
        ({"topk": []}, "topk must be"),
        ({"train_neg_sample_args": {"distribution": "even"}}, "distribution must be one of uniform.*'even'"),
        ({"train_neg_sample_args": {"sample_nums": 1}}, "unknown part 'sample_nums': did you mean 'sample_num'"),
        ({"train_neg_sample_args": {"sample_num": 0}}, "sample_num must be a whole number"),
        ({"train_neg_sample_args": "uniform"}, "train_neg_sample_args must be like"),
    ],
)
def test_what_can_not_be_meant_is_refused(keys: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        configure(**keys)
    assert "\n" not in str(caught.value)


def test_what_goes_together_is_kept() -> None:
    assert configure(eval_args=LABELED)["eval_args"]["mode"] == {"valid": "labeled", "test": "labeled"}
    assert configure(eval_args={**LABELED, "split": {"RS": [8, 0, 2]}})["eval_args"]["split"] == {"RS": [8, 0, 2]}
    ranked = configure(
        metrics=["Recall", "NDCG"], valid_metric="NDCG@5", topk=[5], eval_args={**LABELED, "mode": "full"}
    )
    assert ranked["metrics"] == ["Recall", "NDCG"]
    assert configure(metrics="LogLoss", valid_metric="AUC")["metrics"] == ["LogLoss", "AUC"]


def test_what_recbole_fills_in_is_said() -> None:
    config = configure(eval_args={"split": SPLIT, "order": "RO", "mode": "labeled"})
    assert config["eval_args"]["group_by"] == "user"
    assert config.notes == ["eval_args gives no group_by: RecBole takes group_by: user"]
    assert configure(eval_args=LABELED).notes == []


@pytest.mark.parametrize(("metric", "own"), [("AUC", True), ("LogLoss", False)])
def test_a_metric_has_its_own_direction(metric: str, own: bool) -> None:
    given = {"valid_metric": metric}
    assert ALTConfig("ALT_DCN", "anything", None, given | {"valid_metric_bigger": own})["valid_metric_bigger"] is own
    assert ALTConfig("ALT_DCN", "anything", None, given)["valid_metric_bigger"] is own
    with pytest.raises(ValueError, match=f"valid_metric_bigger: {not own} .*{metric} is better: leave it out"):
        ALTConfig("ALT_DCN", "anything", None, given | {"valid_metric_bigger": not own})
