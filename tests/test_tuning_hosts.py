"""Tuning started by its command, by RecBole's own ``HyperTuning`` and by Ray."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from interruptions import counted
from recbole.trainer import HyperTuning
from tunings import RATES, SPACE, Keys, checkpoints, outcomes

import recbole_alt
from recbole_alt.cli import main
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

for package in ("hyperopt", "matplotlib"):
    pytest.importorskip(package, reason="pip install 'recbole_alt[tune]'")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--params_file=nowhere"], "nowhere"),
        (["--algo=anneal"], "exhaustive, random, bayes"),
        (["--max_evals=0", "--algo=random"], "max_evals must be 1 or more"),
        (["--max_evals=3"], "makes all 18 trials"),
        (["--stage=both"], "plain, ctr, lm, joint"),
        (["--cpus_per_trial=1"], "--tool=ray"),
        (["--tool=ray", "--early_stop=3"], "early_stop"),
        (["--result_file=x.json"], "result_file"),
        (["--learning_rat=1"], "learning_rate"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], named: str, capsys: Any) -> None:
    assert main(["tune", "--state=ERROR", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and named in line


@pytest.mark.parametrize("package", ["hyperopt", "matplotlib.figure", "ray.tune"])
def test_a_missing_package_is_named(package: str, tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"pip install 'recbole_alt\[tune\]'"):
        tune(RATES, tool="ray" if package.startswith("ray") else "hyperopt")


def test_stock_hypertuning_drives_our_objective(keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    aligned = counted(monkeypatch, ALTPretrainTrainer, "fit")
    given = keys(finetune_modes=["joint", "ctr"]) | {"model": "ALT_DCN", "dataset": "tiny"}
    Path("fixed.yaml").write_text(yaml.safe_dump(given))
    Path("ranges").write_text("learning_rate choice [1e-3,1e-2]\nmlp_hidden_size choice ['[16,8]','[8]']\n")
    tuning = HyperTuning(
        recbole_alt.objective_function, params_file="ranges", fixed_config_file_list=["fixed.yaml"], early_stop=9
    )
    tuning.run()
    tuning.export_result("result.txt")
    results = list(tuning.params2result.values())
    assert len(results) == 4 and len(aligned) == 2  # the network's width matters to pretraining, the rate does not
    assert tuning.model == "ALT_DCN" and tuning.best_score == max(r["best_valid_score"] for r in results)
    assert {key for r in results for key in r["test_result"]} == {"auc", "logloss"}
    assert all("/pretraining/" in file.as_posix() for file in checkpoints())  # nothing of a trial is left
    one = keys(finetune_modes=["joint"], plain_baseline=False, **tuning.best_params)
    alone = recbole_alt.run_recbole_alt("ALT_DCN", "tiny", None, one)
    assert alone["best_valid_score"] == tuning.best_score


def test_recboles_own_objective_works_but_keeps_every_checkpoint(keys: Keys) -> None:
    """RecBole's reports to Ray, which warns that it is not running, and pretrains in every trial."""
    stock = pytest.importorskip("recbole.quick_start", reason="RecBole's quick_start imports ray")
    Path("ranges").write_text(RATES.replace(", ", ",") + "\n")
    given = keys(finetune_mode="ctr") | {"model": "ALT_DCN", "dataset": "tiny"}
    Path("fixed.yaml").write_text(yaml.safe_dump(given))
    tuning = HyperTuning(stock.objective_function, params_file="ranges", fixed_config_file_list=["fixed.yaml"])
    tuning.run()
    assert sorted(tuning.params_list) == ["learning_rate:0.001", "learning_rate:0.01"]
    assert tuning.best_score == max(tuning.score_list)
    assert any("-pretrain" in file.stem for file in checkpoints())


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["exhaustive", "random", "bayes"])
def test_ray_makes_the_same_trials(algo: str, tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    assert not ray.is_initialized()
    ranges = f"{RATES}\nweight_decay choice [0.0, 0.3]\n" if algo == "exhaustive" else SPACE
    options = {"algo": algo, "tool": "ray"} | ({} if algo == "exhaustive" else {"max_evals": 3})
    result = tune(ranges, **options, cpus_per_trial=1)
    assert not ray.is_initialized()
    assert len(result["trials"]) == (4 if algo == "exhaustive" else 3)
    assert len([trial for trial in result["trials"] if trial["pretrain_seconds"]]) == 1
    (file,) = checkpoints()
    assert file.parent.name == result["trials"][0]["pretraining"]
    if algo == "exhaustive":
        one = {str(trial["parameters"]): trial["valid"] for trial in tune(ranges)["trials"]}
        assert one == {str(trial["parameters"]): trial["valid"] for trial in result["trials"]}
    again = tune(ranges, **options, resume=result["folder"])
    assert outcomes(again) == outcomes(result)
    assert [trial["begun"] for trial in again["trials"]] == [trial["begun"] for trial in result["trials"]]
