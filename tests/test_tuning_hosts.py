"""Tuning started by its command, by RecBole's own ``HyperTuning`` and by Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from interruptions import counted
from recbole.trainer import HyperTuning
from tunings import RATES, Keys, checkpoints

import recbole_alt
from recbole_alt.cli import main
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--params_file=nowhere"], "nowhere"),
        (["--algo=anneal"], "exhaustive, random, bayes"),
        (["--max_evals=0", "--algo=random"], "max_evals must be a whole number, 1 or more"),
        (["--max_evals=3"], "makes all 18 trials"),
        (["--stage=both"], "plain, ctr, lm, joint"),
        (["--early_stop=0", "--algo=random"], "early_stop must be a whole number, 1 or more"),
        (["--result_file=x.json"], "result_file"),
        (["--learning_rat=1"], "learning_rate"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], named: str, capsys: Any) -> None:
    assert main(["tune", "--state=ERROR", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and named in line


def test_stock_hypertuning_drives_our_objective(keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("hyperopt", reason="pip install 'recbole_alt[hyperopt]'")
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
    pytest.importorskip("hyperopt", reason="pip install 'recbole_alt[hyperopt]'")
    pytest.importorskip("ray.tune", reason="RecBole's quick_start imports it", exc_type=ImportError)
    from recbole import quick_start as stock

    Path("ranges").write_text(RATES.replace(", ", ",") + "\n")
    given = keys(finetune_mode="ctr") | {"model": "ALT_DCN", "dataset": "tiny"}
    Path("fixed.yaml").write_text(yaml.safe_dump(given))
    tuning = HyperTuning(stock.objective_function, params_file="ranges", fixed_config_file_list=["fixed.yaml"])
    tuning.run()
    assert sorted(tuning.params_list) == ["learning_rate:0.001", "learning_rate:0.01"]
    assert tuning.best_score == max(tuning.score_list)
    assert any("-pretrain" in file.stem for file in checkpoints())


@pytest.mark.slow
def test_ray_drives_our_objective(keys: Keys, tmp_path: Path) -> None:
    tune = pytest.importorskip("ray.tune", reason="Ray is the user's", exc_type=ImportError)
    given = keys(finetune_modes=["ctr"], checkpoint_dir=str(tmp_path / "saved"))
    (tmp_path / "fixed.yaml").write_text(yaml.safe_dump(given | {"model": "ALT_DCN", "dataset": "tiny"}))
    made = tune.run(
        tune.with_parameters(recbole_alt.objective_function, config_file_list=[str(tmp_path / "fixed.yaml")]),
        config={"learning_rate": tune.grid_search([1e-3, 1e-2])},
        metric="best_valid_score",
        mode="max",
        storage_path=str(tmp_path / "ray"),
        verbose=0,
    )
    scores = [trial.last_result["best_valid_score"] for trial in made.trials]
    alone = recbole_alt.objective_function(given | {"model": "ALT_DCN", "dataset": "tiny"} | made.best_config)
    assert len(set(scores)) == 2 and made.best_result["best_valid_score"] == alone["best_valid_score"] == max(scores)
