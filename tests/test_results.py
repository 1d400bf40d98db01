"""What a run leaves behind, and the input it refuses."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import recbole_alt
from recbole_alt import make_config, run_recbole_alt
from recbole_alt.cli import main
from recbole_alt.reporting.run_table import result_table
from recbole_alt.study import Campaign

pytestmark = pytest.mark.usefixtures("one_thread")

Keys = Callable[..., dict[str, Any]]


def cells(table: str) -> list[list[str]]:
    """The cells of a Markdown table, its header first."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|--")]


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
            assert parts["slices"][part]["all"]["auc"] == pytest.approx(parts[part]["auc"], abs=1e-6)
            assert 0 <= parts[part]["auc"] <= 1
            assert parts[part]["logloss"] > 0
    assert 0 < record["click_rates"]["valid"] < 1 and 0 < record["click_rates"]["test"] < 1
    assert result["best_valid_result"] == record["results"]["ctr"]["valid"]
    assert result["test_result"] == record["results"]["ctr"]["test"]
    assert result["best_valid_score"] == record["results"]["ctr"]["valid"]["auc"]
    assert result["table"]._repr_markdown_() == result["table"]  # what a notebook shows
    head, *rows = cells(result["table"])
    assert head[:5] == ["DCN", "valid AUC", "test AUC", "Δ", "LogLoss"] and head[-3:] == ["time", "texts", "MiB"]
    for stage, row in zip(("plain", "ctr", "lm", "joint"), rows, strict=True):
        of, cost = record["results"][stage], record["stages"][stage]
        gain = of["test"]["auc"] - record["results"]["plain"]["test"]["auc"]
        expected = [f"{of[part]['auc']:.4f}" for part in ("valid", "test")]
        expected += ["" if stage == "plain" else f"{gain:+.4f}", f"{of['test']['logloss']:.4f}"]
        assert row[:5] == [stage, *expected]
        assert row[-3:] == [f"{cost['seconds']:.0f} s", f"{cost['texts_encoded']:,}", f"{cost['peak_memory_mib']:,.0f}"]
    assert "Alignment, from which all but plain start: 4 steps, " in result["table"]


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
    head, *rows = cells(result["table"])
    assert head[:4] == ["DCN", "test AUC", "Δ", "LogLoss"]
    for stage, row in zip(("plain", "ctr"), rows, strict=True):
        reached = result["record"]["results"][stage]
        assert reached["valid"] == {} and set(reached["slices"]) == {"test"}
        assert [row[1], row[3]] == [f"{reached['test'][name]:.4f}" for name in ("auc", "logloss")]
    assert "best mode" not in result["table"]  # nothing chooses, least of all the test set


def record_of(results: dict[str, Any], **configuration: Any) -> dict[str, Any]:
    """A record with what :func:`result_table` reads, of stages that took 2, 120 and 7,200 seconds."""
    stages = {name: {"seconds": seconds, "texts_encoded": 1234, "peak_memory_mib": 1100.4}
              for name, seconds in zip(results, (2.0, 120.0, 7200.0), strict=False)}  # fmt: skip
    defaults = {"model": "ALT_DCN", "dataset": "d", "metrics": ["AUC", "LogLoss"], "valid_metric": "AUC"}
    return {"configuration": defaults | configuration, "stages": stages, "results": results}


def reached(valid: float, test: float, logloss: float = 0.5, **slices: float | None) -> dict[str, Any]:
    """What a mode reached; of ``slices`` the AUC of 12 rows each."""
    of = {"all": {"rows": 1234, "auc": test}} | {name: {"rows": 12, "auc": auc} for name, auc in slices.items()}
    scores = {part: {"auc": auc, "logloss": logloss} for part, auc in (("valid", valid), ("test", test))}
    return scores | {"slices": {"test": of}}


def test_the_table_says_what_text_gave_and_where_and_at_what_cost() -> None:
    plain = reached(0.80, 0.70, rare_items=0.6, new_items=0.5, new_users=None)
    ctr = reached(0.81, 0.71, rare_items=0.65, new_items=None, new_users=None)
    joint = reached(0.79, 0.75, rare_items=0.7, new_items=0.6, new_users=None)
    record = record_of({"plain": plain, "ctr": ctr, "joint": joint})
    record["stages"]["pretrain"] = {"seconds": 30.0, "texts_encoded": 9, "peak_memory_mib": None, "steps": 1000}
    record["arguments"] = ["--model=ALT_DCN", "--dataset=d", "--seed=3", "--config_files=a.yaml", "--mask_ratio=0.3"]
    record["arguments"] += ["--nproc=2", "--train_share=0.5"]
    text = result_table(record)
    assert cells(text) == [
        ["DCN", "valid AUC", "test AUC", "Δ", "LogLoss", "rare items", "new items", "time", "texts", "MiB"],
        ["plain", "0.8000", "0.7000", "", "0.5000", "0.6000", "0.5000", "2 s", "1,234", "1,100"],
        ["ctr", "0.8100", "0.7100", "+0.0100", "0.5000", "0.6500", "", "2.0 min", "1,234", "1,100"],
        ["joint", "0.7900", "0.7500", "+0.0500", "0.5000", "0.7000", "0.6000", "2.0 h", "1,234", "1,100"],
    ]
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) <= 110
    assert text.splitlines()[-6:] == [
        "",
        "Test rows: 1,234; 12 of rare items (1 to 9 training rows); 12 of new items (none); 12 of new users (none).",
        "Alignment, from which all but plain start: 1,000 steps, 30 s, 9 texts.",
        "",
        # the best on validation, though the test set prefers joint
        "ctr is the best mode on validation; in test AUC it is 0.0100 better than plain (rare items +0.0500).",
        "One seed proves nothing; to compare over five: `recbole-alt compare --out=campaigns/d --models=DCN "
        "--datasets=d:a.yaml --seeds=5 --modes=ctr,joint --params_file=none --train_shares=0.5 --mask_ratio=0.3`",
    ]


def test_a_plain_model_worse_than_counting_is_told() -> None:
    record = record_of({"plain": reached(0.80, 0.70), "ctr": reached(0.81, 0.71)})
    *_, judged, doubt, advice = result_table(record | {"click_rates": {"valid": 0.8123, "test": 0.7}}).splitlines()
    assert judged.startswith("ctr is the best") and advice.startswith("One seed")
    assert "click rates alone reach a validation AUC of 0.8123, it 0.8000" in doubt
    assert result_table(record | {"click_rates": {"valid": 0.79, "test": 0.9}}) == result_table(record)
    alone = result_table(record_of({"plain": reached(0.80, 0.70)}) | {"click_rates": {"valid": 0.9, "test": 0.9}})
    assert alone.splitlines()[-1].startswith("plain has not learned what counting finds")


def test_a_run_from_python_is_compared_from_python() -> None:
    assert make_config(None, None, None, {"epochs": 3}).in_python
    assert not make_config("ALT_DCN", "ml-100k", arguments=["--epochs=3"]).in_python
    record = record_of({"plain": reached(0.8, 0.7), "ctr": reached(0.9, 0.7)}, dataset="d")
    assert result_table(record | {"arguments": ["--mask_ratio=0.3"], "in_python": True}).splitlines()[-1] == (
        "One seed proves nothing; to compare over five: `recbole_alt.compare(['DCN'], [dataset], 'campaigns/d', "
        "keys=keys, seeds=5, modes=['ctr'], params_file='none')`, with the dataset and the keys of this run, "
        "less those that a comparison sets itself."
    )


@pytest.mark.parametrize(
    ("metric", "valid", "test", "said"),
    [
        ("AUC", 0.9, 0.6, "in test AUC it is 0.1000 worse than plain"),
        ("LogLoss", 0.4, 0.6, "in test LogLoss it is 0.1000 better than plain"),
    ],
)
def test_losses_are_told_like_gains(metric: str, valid: float, test: float, said: str) -> None:
    """Of two modes, 0.9 is the better AUC and the worse LogLoss; plain has 0.7 on the test set."""
    name, other = metric.lower(), 1.3 - valid
    of = {"plain": (0.5, 0.7), "ctr": (valid, test), "joint": (other, 0.5)}
    results = {mode: {"valid": {name: v}, "test": {name: t}, "slices": {}} for mode, (v, t) in of.items()}
    text = result_table(record_of(results, metrics=[metric], valid_metric=metric))
    assert f"ctr is the best mode on validation; {said}." in text


def test_without_test_rows_the_table_is_of_validation() -> None:
    results = {mode: {"valid": reached(0.8, 0.7)["valid"], "test": {}, "slices": {}} for mode in ("plain", "ctr")}
    assert cells(result_table(record_of(results)))[0] == [
        "DCN", "valid AUC", "Δ", "LogLoss", "time", "texts", "MiB",
    ]  # fmt: skip


def test_the_table_has_the_metrics_that_were_asked_for() -> None:
    scores = {"recall@5": 0.1, "recall@10": 0.2, "ndcg@5": 0.3, "ndcg@10": 0.4}
    results = {mode: {"valid": scores, "test": scores, "slices": {}} for mode in ("plain", "ctr")}
    text = result_table(record_of(results, metrics=["NDCG", "Recall"], valid_metric="Recall@10"))
    head, plain, _ = cells(text)
    assert head[1:7] == ["valid Recall@10", "test Recall@10", "Δ", "NDCG@5", "NDCG@10", "Recall@5"]
    assert plain[1:7] == ["0.2000", "0.2000", "", "0.3000", "0.4000", "0.1000"]
    assert text.splitlines()[-2:] == [
        "ctr is the best mode on validation; in test Recall@10 it is 0.0000 better than plain.",
        "One seed proves nothing; to compare over five: make the run with four other values of `seed`, too.",
    ]


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


def test_the_command_that_compares_over_seeds_is_understood(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the keys of the run, all of which a campaign takes."""
    made: list[Campaign] = []

    def keep(campaign: Campaign, folder: Path, command: Any = ()) -> None:
        made.append(campaign)
        (folder / "report").mkdir(parents=True)
        (folder / "report" / "tables.md").write_text("done")

    arguments = ["--model=ALT_FM", "--dataset=tiny", "--seed=3", "--finetune_modes=[ctr]", "--mask_ratio=0.3"]
    results = {"plain": reached(0.5, 0.5), "ctr": reached(0.5, 0.5)}
    record = record_of(results, model="ALT_FM", dataset="tiny") | {"arguments": [*arguments, "--config_files=k.yaml"]}
    Path("k.yaml").write_text(yaml.safe_dump(keys()))
    command = result_table(record).splitlines()[-1].partition("`")[2].removesuffix("`")
    monkeypatch.setattr("recbole_alt.study.run_campaign", keep)
    assert main(shlex.split(command)[1:]) == 0
    (campaign,) = made
    assert (campaign.models, campaign.seeds, campaign.modes) == (["FM"], list(range(2020, 2025)), ["ctr"])
    config = campaign.config(campaign.runs()[0], {})
    assert config["mask_ratio"] == 0.3 and config["pretrain_steps"] == 4
