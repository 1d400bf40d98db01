"""Campaigns: what is run and shared, and stopping."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import product
from math import log
from pathlib import Path
from typing import Any

import chaos
import numpy as np
import pytest
from filelock import FileLock
from interruptions import Stopped, counted

from recbole_alt import loading, run_recbole_alt, scores
from recbole_alt.config import ALTConfig
from recbole_alt.reporting.report import read_runs, write_report
from recbole_alt.reporting.runs import COMPLETE, Run
from recbole_alt.study import ABLATIONS, Campaign, comparison, run_campaign
from recbole_alt.study.axes import DataSpec
from recbole_alt.study.search import Search
from recbole_alt.study.store import Store
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

Keys = Callable[..., dict[str, Any]]
Made = Callable[..., Campaign]


def results(folder: Path) -> dict[str, Any]:
    records = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("runs/*.json"))}
    return {name: (record["valid"], record["test"]) for name, record in records.items() if record["tested"]}


def trials_of(folder: Path) -> list[dict[str, Any]]:
    """Trainings of the seed that chooses, in which some parameters were tried."""
    records = [json.loads(file.read_text()) for file in folder.glob("runs/*.json")]
    return [record for record in records if record["run"]["seed"] == 2020]


# -- campaigns ---------------------------------------------------------------------------------------------


def test_a_campaign_is_stopped_and_goes_on(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = campaign()
    with monkeypatch.context() as patch:
        epochs, aligned = counted(patch, ALTTrainer, "_train_epoch"), counted(patch, ALTPretrainTrainer, "fit")
        read = counted(patch, loading, "create_dataset")
        run_campaign(axes, Path("whole"))
    # per model: 3 stages with 2 trials each, of which the best are the first seed's runs, and the second seed's;
    # one alignment per model and seed
    assert (len(epochs), len(aligned), len(read)) == (2 * (6 + 3), 2 * 2, 2)
    whole = results(Path("whole"))
    assert len(whole) == 12 and len({json.dumps(result) for result in whole.values()}) == 12
    assert not Path("saved").exists()
    assert not list(Path("whole").rglob("*.pth")) and not list(Path("whole").rglob("*.lock"))

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        counted(patch, ALTTrainer, "_train_epoch", stop=11)
        run_campaign(axes, Path("stopped"))
    kept = {file: file.stat().st_mtime_ns for file in Path("stopped").glob("runs/*.json") if file.stem in whole}
    kept = {file: when for file, when in kept.items() if file.stem in results(Path("stopped"))}
    assert len(write_report(Path("stopped"), resamples=20)) >= 6
    with monkeypatch.context() as patch:
        epochs, aligned = counted(patch, ALTTrainer, "_train_epoch"), counted(patch, ALTPretrainTrainer, "fit")
        run_campaign(axes, Path("stopped"))
    assert len(epochs) == 18 - 11 and len(aligned) == 1  # the second model's other one
    assert results(Path("stopped")) == whole
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())

    with monkeypatch.context() as patch:  # another seed: what is there stays
        epochs = counted(patch, ALTTrainer, "_train_epoch")
        run_campaign(campaign(seeds=3), Path("stopped"))
    assert len(epochs) == 6 and len(results(Path("stopped"))) == 18
    with pytest.raises(ValueError, match="out: tuning_trials was 10 in 'stopped' and is 1 now"):
        run_campaign(campaign(tuning_trials=1), Path("stopped"))


def test_variants_that_differ_in_stage_2_share_an_alignment(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = {
        "embeddings_alone": {"transfer": "embeddings", "finetune_modes": ["ctr"]},
        "masked_more": {"mask_ratio": 0.5, "finetune_modes": ["joint"]},
    }
    axes = campaign(models=["DCN"], seeds=1, modes=["ctr"], params_file="none", variants=variants)
    assert Campaign.from_mapping(axes.to_json()) == axes
    aligned = counted(monkeypatch, ALTPretrainTrainer, "fit")
    run_campaign(axes, Path("out"))
    assert len(aligned) == 2 and not list(Path("out").rglob("*.pth"))
    records = {(r["run"]["variant"], r["run"]["stage"]): r for r in read_runs(Path("out"))}
    assert records.keys() == {
        ("plain", "plain"), (COMPLETE, "ctr"), ("embeddings_alone", "ctr"), ("masked_more", "joint")
    }  # fmt: skip
    assert records["embeddings_alone", "ctr"]["configuration"]["transfer"] == "embeddings"
    assert records["embeddings_alone", "ctr"]["valid"] != records[COMPLETE, "ctr"]["valid"]
    assert "masked more" in Path("out/report/tables.md").read_text()


def test_a_run_is_what_the_command_line_makes(campaign: Made, keys: Keys) -> None:
    axes = campaign(models=["DCN"], seeds=[5, 6], modes=["ctr"], params_file="none")
    run_campaign(axes, Path("out"))
    record = next(r for r in read_runs(Path("out")) if r["run"]["seed"] == 6 and r["run"]["stage"] == "ctr")
    alone = run_recbole_alt(
        "ALT_DCN", "tiny", None, keys(pretrain_steps=2, epochs=1, seed=6, split_seed=5, finetune_modes=["ctr"])
    )["record"]["results"]["ctr"]
    assert record["valid"] == alone["valid"]
    assert {name: round(record["test"][name], 5) for name in ("auc", "logloss")} == pytest.approx(
        alone["test"], abs=2e-5
    )
    assert record["configuration"]["seed"] == 6 and record["versions"]["torch"]
    assert record["costs"]["alignment_texts_encoded"] > 0 and record["costs"]["peak_memory_mib"] > 1
    assert record["costs"]["texts_encoded"] == 0 and record["costs"]["alignment_interactions_seen"] > 0


def test_the_trial_that_won_is_the_first_seeds_run(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"models": ["DCN"], "seeds": 1, "modes": ["joint"]}
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        counted(patch, scores.Scores, "save", stop=1)
        run_campaign(campaign(**one), Path("tuned"))
    assert len(list(Path("tuned").rglob("joint-last.pth"))) == 1  # of two trials
    epochs = counted(monkeypatch, ALTTrainer, "_train_epoch")
    tried = [record["costs"] for record in trials_of(Path("tuned"))]
    run_campaign(campaign(**one), Path("tuned"))
    assert not epochs and not list(Path("tuned").rglob("*.pth"))
    for record in read_runs(Path("tuned")):
        assert record["costs"] in tried  # of its training, not of the test alone
        folder = Path("alone") / record["run"]["stage"]
        run_campaign(campaign(record["parameters"], params_file="none", **one), folder)
        again = next(r for r in read_runs(folder) if r["run"] == record["run"])
        assert (again["valid"], again["test"]) == (record["valid"], record["test"])
        assert again["costs"]["texts_encoded"] == record["costs"]["texts_encoded"]
        assert 0 < record["costs"]["seconds"] <= record["wall"]


def test_validation_alone_selects(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    scored, looks, real = counted(monkeypatch, scores.Scores, "save"), [], ALTTrainer.evaluate

    def evaluate(self: Any, data: Any, load_best_model: bool = True, **options: Any) -> Any:
        looks.append("nothing" if data is None else "test" if load_best_model else "valid")
        return real(self, data, load_best_model, **options)

    monkeypatch.setattr(ALTTrainer, "evaluate", evaluate)
    run_campaign(campaign(models=["DCN"], modes=["ctr"]), Path("out"))
    trials = trials_of(Path("out"))
    assert len(trials) == 4 and [trial["test"] for trial in trials if not trial["tested"]] == [{}, {}]
    assert len(scored) == 4  # once a run; trials never touch the test set
    # the validation of 4 trials and of the second seed, and one test a run
    assert [looks.count(what) for what in ("valid", "test", "nothing")] == [6, 4, 4]
    for record in read_runs(Path("out")):
        same = [trial for trial in trials if trial["run"]["stage"] == record["run"]["stage"]]
        chosen = next(trial for trial in same if trial["parameters"] == record["parameters"])
        assert chosen["valid"]["auc"] == max(trial["valid"]["auc"] for trial in same)  # two may be equally good
        assert record["run"]["seed"] != 2020 or record["valid"] == chosen["valid"]  # the very run that was chosen


def test_an_ablation_may_be_tuned_alone(campaign: Made) -> None:
    one = {"models": ["DCN"], "seeds": 1, "modes": ["ctr"], "ablations": ["no_pretraining", "no_contrast"]}
    run_campaign(campaign(**one, tuned_alone=["no_pretraining"]), Path("out"))
    trials = [trial for trial in trials_of(Path("out")) if trial["run"]["variant"] != "no_contrast"]
    best = {
        variant: max(t["valid"]["auc"] for t in trials if t["run"]["variant"] == variant)
        for variant in ("plain", COMPLETE, "no_pretraining")
    }
    assert len(trials) == 6
    runs = {record["run"]["variant"]: record for record in read_runs(Path("out"))}
    assert {variant: runs[variant]["valid"]["auc"] for variant in best} == best
    assert runs["no_contrast"]["parameters"] == runs[COMPLETE]["parameters"]
    assert "| no pretraining, ctr (tuned alone)" in Path("out/report/tables.md").read_text()
    assert campaign(**one, tuned_alone=["all"]).tuned_alone == one["ablations"]


def test_several_seeds_choose(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"models": ["DCN"], "seeds": 3, "modes": ["ctr"], "tuning_seeds": 2}
    with monkeypatch.context() as patch:
        epochs = counted(patch, ALTTrainer, "_train_epoch")
        run_campaign(campaign(**one), Path("out"))
    assert len(epochs) == 2 * (2 * 2 + 1)  # the best trials are the runs of two seeds; the third seed's is trained
    trials = [json.loads(file.read_text()) for file in Path("out").glob("runs/*.json")]
    records = read_runs(Path("out"))
    assert len(trials) == 10 and len(records) == 6 and not list(Path("out").rglob("*.pth"))
    for stage in ("plain", "ctr"):
        by_rate: dict[float, list[float]] = {}
        for trial in trials:
            if trial["run"]["stage"] == stage and trial["run"]["seed"] != 2022:
                by_rate.setdefault(trial["parameters"]["learning_rate"], []).append(trial["valid"]["auc"])
        best = max(by_rate, key=lambda rate: np.mean(by_rate[rate]))
        runs = [record for record in records if record["run"]["stage"] == stage]
        assert {record["parameters"]["learning_rate"] for record in runs} == {best}
    with pytest.raises(ValueError, match="tuning_seeds was 2 in 'out' and is 1 now"):
        run_campaign(campaign(**one | {"tuning_seeds": 1}), Path("out"))


def test_no_weights_stay_after_a_stop_between_trials(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"models": ["DCN"], "seeds": 1, "modes": []}
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        counted(patch, comparison.Comparison, "_drop_weights", stop=1)  # both trials are over, the loser is still there
        run_campaign(campaign(**one), Path("out"))
    assert len({file.parent for file in Path("out").rglob("*.pth")}) == 2
    run_campaign(campaign(**one), Path("out"))
    assert not list(Path("out").rglob("*.pth"))


def test_a_run_that_was_tested_is_not_trained_again_for_its_record(
    campaign: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"models": ["DCN"], "seeds": 1, "modes": []}
    run_campaign(campaign(**one), Path("whole"))
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        counted(patch, comparison, "result_record", stop=2)  # of the run; two trials have theirs
        run_campaign(campaign(**one), Path("out"))
    assert list(Path("out").rglob("plain.json")) and results(Path("out")) == {}
    epochs = counted(monkeypatch, ALTTrainer, "_train_epoch")
    run_campaign(campaign(**one), Path("out"))
    assert not epochs and results(Path("out")) == results(Path("whole"))


def test_a_variant_may_be_tuned_alone_later(campaign: Made) -> None:
    one = {"models": ["DCN"], "seeds": 1, "modes": ["ctr"], "ablations": ["no_contrast"]}
    for ablations in ({}, {"tuned_alone": ["all"]}):  # the second time its run may be there already
        run_campaign(campaign(**one, **ablations), Path("out"))
    runs = {record["run"]["variant"]: record for record in read_runs(Path("out"))}
    trials = [trial for trial in trials_of(Path("out")) if trial["run"]["variant"] == "no_contrast"]
    assert len(trials) == 2 and not list(Path("out").rglob("*.pth"))
    assert runs["no_contrast"]["valid"]["auc"] == max(trial["valid"]["auc"] for trial in trials)
    assert runs["no_contrast"]["test"]


# -- searches ----------------------------------------------------------------------------------------------

Score = Callable[[dict[str, Any], int], "float | None"]


def pretend(monkeypatch: pytest.MonkeyPatch, score: Score) -> list[tuple[str, dict[str, Any], int]]:
    """Trainings that cost nothing, whose validation AUC is ``score`` of their keys and seed; grows by each."""
    made = []

    def train(self: Store, config: Any, stage: str, folder: Path, test: bool, kind: Any) -> dict[str, Any]:
        given = config["finetune"][stage]
        made.append((stage, given, config["seed"]))
        folder.mkdir(parents=True)
        (folder / f"{stage}.pth").touch()
        reached = score(given, config["seed"])
        self.load(config)
        record = {"score": reached, "bigger": True, "valid": {"auc": reached or 0.0, "logloss": 0.5}, "test": {}}
        record |= {"tested": test, "error": None if reached else "nan", "wall": 1.0, "aligned": 0.0}
        return record | {"pretraining": None, "costs": {}, "details": {}}

    monkeypatch.setattr(Store, "_train", train)
    return made


def choose(axes: Campaign) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """The choice for each stage, and what is at an end."""
    chosen = comparison.Comparison(Path("out"), axes).choose(axes.runs())
    return {cell.stage: choice for cell, choice in chosen.items() if cell}


def test_the_mean_of_the_seeds_chooses(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("three").write_text("learning_rate choice [1e-3, 1e-2, 0.1]\n")
    lucky, good, diverges = {2020: 0.9, 2021: 0.1}, {2020: 0.6, 2021: 0.6}, {2020: 0.99, 2021: None}
    by_rate = {1e-3: lucky, 1e-2: good, 0.1: diverges}
    pretend(monkeypatch, lambda given, seed: by_rate[given["learning_rate"]][seed])
    axes = campaign(models=["DCN"], modes=["ctr"], tuning_seeds=2, params_file="three")
    assert {stage: choice[0] for stage, choice in choose(axes).items()} == {
        "plain": {"learning_rate": 1e-2}, "ctr": {"learning_rate": 1e-2}
    }  # fmt: skip
    assert len({file.parent for file in Path("out").rglob("*.pth")}) == 2 * 2  # of the chosen ones, a seed each
    pretend(monkeypatch, lambda given, seed: None)
    with pytest.raises(ValueError, match=r"tiny_DCN_plain: every trial diverged; change three"):
        comparison.Comparison(Path("other"), axes).choose(axes.runs())


def test_a_range_is_widened_for_all_where_one_chose_its_end(
    campaign: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("three").write_text("learning_rate choice [1e-3, 1e-2]\ndropout_prob choice [0.0, 0.2, 0.4]\n")

    def score(given: dict[str, Any], seed: int) -> float:  # best at 1
        return 0.9 - 0.1 * abs(1 - given["learning_rate"]) - given["dropout_prob"]

    made = pretend(monkeypatch, score)
    axes = campaign(models=["DCN"], modes=["ctr"], params_file="three", widenings=2)
    with caplog.at_level("INFO"):
        chosen = choose(axes)
    told = [int(left) for left in re.findall(r"runs, (-?\d+) trials", caplog.text)]
    assert told == [*range(2 * 6 - 1, -1, -1), *range(2 * 3 - 1, -1, -1), *range(2 * 3 - 1, -1, -1)]
    assert chosen["ctr"] == ({"learning_rate": 1.0, "dropout_prob": 0.0}, ["learning_rate"])  # 0 is no end
    rates = {stage: [given["learning_rate"] for one, given, _ in made if one == stage] for stage in ("plain", "ctr")}
    assert rates["plain"] == rates["ctr"] and sorted(set(rates["ctr"])) == pytest.approx([1e-3, 1e-2, 0.1, 1.0])
    assert len(made) == 2 * (6 + 3 + 3)
    made.clear()
    assert choose(axes) == chosen and not made  # all is there
    assert choose(campaign(models=["DCN"], modes=["ctr"], params_file="three", widenings=2))["plain"] == chosen["plain"]


def test_ranges_are_widened_one_by_one_too(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("three").write_text("learning_rate choice [1e-3, 1e-2]\ndropout_prob choice [0.2, 0.4]\n")
    best = {"learning_rate": 0.1, "dropout_prob": 0.4}  # one is beyond its range, the other at its end
    made = pretend(monkeypatch, lambda given, seed: 0.9 - sum(abs(best[name] - given[name]) for name in best))
    chosen = choose(campaign(models=["DCN"], modes=["ctr"], params_file="three", widenings=1, tuning_trials=10))
    assert chosen["plain"] == chosen["ctr"] == (best, ["learning_rate"])
    drawn = {(given["learning_rate"], given["dropout_prob"]) for _, given, _ in made}
    assert drawn == set(product((1e-3, 1e-2, 0.1), (0.2, 0.4, 0.8)))
    made.clear()
    shutil.rmtree("out")
    Path("space").write_text("learning_rate loguniform -4,-3\ndropout_prob choice [0.2, 0.4]\n")
    choose(campaign(models=["DCN"], modes=["ctr"], params_file="space", widenings=1, tuning_trials=8))
    wider = [given for stage, given, _ in made if stage == "plain"][8:]
    assert len(wider) == 4
    for given in wider:
        assert given["dropout_prob"] == 0.8 or not -4 <= log(given["learning_rate"]) <= -3


def test_every_mode_has_the_same_budget_and_the_same_draws(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pretend(monkeypatch, lambda given, seed: 0.5)
    Path("space").write_text("learning_rate loguniform -8,-3\ndropout_prob uniform 0,0.5\nweight_decay uniform 0,1\n")
    axes = campaign(params_file="space", models=["DCN"], modes=["ctr", "lm", "joint"], tuning_trials=5)
    choose(axes)
    of = {stage: [given for one, given, _ in made if one == stage] for stage in ("plain", "ctr", "joint", "lm")}
    names = ("learning_rate", "dropout_prob", "weight_decay")
    drawn = {stage: [tuple(g.get(name) for name in names) for g in given] for stage, given in of.items()}
    assert {len(given) for given in of.values()} == {5}
    assert drawn["plain"] == drawn["ctr"] == drawn["joint"] and len(set(drawn["plain"])) == 5
    assert all(dropout is None for _, dropout, _ in drawn["lm"])  # it has no CTR model


def test_variants_have_the_parameters_of_what_they_vary(campaign: Made) -> None:
    variants = {name: {"text_field": ["item"], "finetune_modes": ["plain"]} for name in ("field", "wide_field")}
    axes = campaign(models=["DCN"], modes=["ctr"], variants=variants, controls=["all"], tuned_alone=["field"])
    tuned = {(run.variant, run.stage): axes.tuned_as(run) for run in axes.runs()}
    assert {run: (cell.variant, cell.stage) for run, cell in tuned.items() if cell} == {
        ("plain", "plain"): ("plain", "plain"),
        (COMPLETE, "ctr"): (COMPLETE, "ctr"),
        ("ALT_shuffled", "ctr"): (COMPLETE, "ctr"),
        ("field", "plain"): ("field", "plain"),
        ("field_shuffled", "plain"): ("field", "plain"),
        ("wide_field", "plain"): ("plain", "plain"),
        ("wide_field_shuffled", "plain"): ("plain", "plain"),
    }
    alone = campaign(models=["DCN"], modes=["ctr"], controls=["ALT"], tuned_alone=["all"])
    assert {cell.variant for run in alone.runs() if (cell := alone.tuned_as(run))} == {
        "plain", COMPLETE, "ALT_shuffled"
    }  # fmt: skip


def test_a_variant_may_be_given_as_the_control_of_another(campaign: Made) -> None:
    variants = {"mine": {"transfer": "embeddings"}, "mine_shuffled": {"transfer": "all"}}
    axes = campaign(models=["DCN"], modes=["ctr"], variants=variants, controls=["all"], tuned_alone=["mine"])
    assert axes.changes["mine_shuffled"] == {"transfer": "all"} and axes.controls == [COMPLETE, "mine"]
    run = next(run for run in axes.runs() if run.variant == "mine")
    assert run.bases["vs_others"].variant == "mine_shuffled"
    control = next(run for run in axes.runs() if run.variant == "mine_shuffled")
    assert axes.tuned_as(control) == axes.tuned_as(run) and axes.config(control, {})["shuffle_texts"] is None


def test_names_that_models_have_for_dropout(campaign: Made) -> None:
    Path("dropout").write_text("dropout_prob uniform 0,0.5\n")
    axes = campaign(models=["LR", "AutoInt"], modes=["ctr"], params_file="dropout")
    linear, attention = (next(run for run in axes.runs() if run.model == model) for model in axes.models)
    assert axes.reads(attention, "dropout_prob") and not axes.reads(linear, "dropout_prob")
    config = axes.config(attention, {"dropout_prob": 0.1})
    assert config["finetune"]["plain"]["dropout_probs"] == [0.1, 0.1, 0.1]


def test_records_are_named_in_full(campaign: Made) -> None:
    axes = campaign(models=["DCN"], seeds=1, modes=["ctr"], train_shares=[0.05])
    compared = comparison.Comparison(Path("out"), axes)
    files = {compared._file(run, {"learning_rate": rate}) for run in axes.runs() for rate in (0.1, 0.2)}
    assert len(files) == 4 and all("_0.05_" in file.name and file.suffix == ".json" for file in files)


def test_what_another_process_is_at_comes_last(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = comparison.Comparison(
        Path("out"), axes := campaign(models=["DCN"], modes=[], seeds=3, params_file="none")
    )
    busy = FileLock(compared._file(axes.runs()[0], {}).with_suffix(".lock"))
    busy.acquire()

    def score(given: dict[str, Any], seed: int) -> float:
        if seed == 2022:
            busy.release()  # the other process was killed
        return 0.5

    made = pretend(monkeypatch, score)
    compared.make_runs()
    assert [seed for _, _, seed in made] == [2021, 2022, 2020]


def test_trials_of_another_process_are_waited_for_last(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("two").write_text("learning_rate choice [1e-3, 1e-2]\n")
    axes = campaign(models=["DCN"], modes=["ctr"], seeds=1, params_file="two")
    plain, ctr = dict.fromkeys(axes.tuned_as(run) for run in axes.runs())
    assert plain and ctr
    folder = Path("out/searches") / f"{plain.slug}-0"
    claim = Search(folder, axes.ranges, "exhaustive", axes.seeds[0], 2).ask()
    assert claim

    def score(given: dict[str, Any], seed: int) -> float:
        if len(made) == 3:  # the other process dies when nothing else is left
            claim.lock.release()
        return 0.5

    made = pretend(monkeypatch, score)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waits for the other process"))
    comparison.Comparison(Path("out"), axes).choose(axes.runs())
    assert [(stage, given["learning_rate"]) for stage, given, _ in made] == [
        ("plain", 1e-2), ("ctr", 1e-3), ("ctr", 1e-2), ("plain", 1e-3)
    ]  # fmt: skip


def test_a_seed_whose_alignment_another_process_makes_comes_last(
    campaign: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("one").write_text("learning_rate choice [1e-3]\n")
    axes = campaign(models=["DCN"], modes=["ctr"], seeds=2, params_file="one", tuning_seeds=2)
    compared = comparison.Comparison(Path("out"), axes)
    ctr = next(run for run in axes.runs() if run.stage == "ctr")
    name = compared._alignment_of(ctr)
    assert name and not compared.store.is_aligning(name)
    busy = FileLock(Path("out/pretraining") / f"{name}.lock")
    busy.acquire()
    assert compared.store.is_aligning(name) and not compared.store.is_aligning(None)

    def score(given: dict[str, Any], seed: int) -> float:
        if made[-1][0] == "ctr":
            busy.release()  # the other process has made it
        return 0.5

    made = pretend(monkeypatch, score)
    compared.choose(axes.runs())
    assert [seed for stage, _, seed in made if stage == "plain"] == [2020, 2021]
    assert [seed for stage, _, seed in made if stage == "ctr"] == [2021, 2020]


def test_processes_share_a_campaign(keys: Keys, tmp_path: Path) -> None:
    given = keys(pretrain_steps=2, epochs=1)
    Path("ranges").write_text("learning_rate choice [1e-3, 3e-3, 1e-2]\n")
    alone = chaos.start("campaign", tmp_path / "alone", given)
    alone.join()
    both = [chaos.start("campaign", tmp_path / "shared", given) for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in (alone, *both)] == [0, 0, 0], (tmp_path / "shared/said.txt").read_text()
    assert chaos.outcome("campaign", tmp_path / "shared") == chaos.outcome("campaign", tmp_path / "alone")


# -- the plan ----------------------------------------------------------------------------------------------


def test_ablations_change_the_stated_keys_only(campaign: Made) -> None:
    axes = campaign(ablations=list(ABLATIONS), budgets=[7], train_shares=[0.05, 1.0], modes=["ctr", "lm"])
    spec = axes.datasets[0].label
    base = axes.config(Run(spec, 1.0, "DCN", None, COMPLETE, "lm", 2020), {}).final_config_dict
    given = ALTConfig("ALT_DCN", "tiny", None, axes.keys).final_config_dict
    differing = {key for key, value in base.items() if given[key] != value}
    assert differing == {
        "split_seed",
        "finetune_modes",
        "plain_baseline",
        "finetune",
    }  # finetune: other modes' are gone
    assert base["finetune"] == {"lm": given["finetune"]["lm"]}
    for name, changes in {**ABLATIONS, "steps_7": {"pretrain_steps": 7}}.items():
        base, other = (
            axes.config(Run(spec, 1.0, "DCN", None, variant, "lm", 2020), {}) for variant in (COMPLETE, name)
        )
        differing = {k for k, v in base.final_config_dict.items() if other.final_config_dict.get(k) != v}
        differing |= other.final_config_dict.keys() - base.final_config_dict.keys()
        assert differing == changes.keys() - {"finetune_modes"}, name
        assert all(other[key] == changes[key] for key in differing)
    stages = {variant: {run.stage for run in axes.runs() if run.variant == variant} for variant in axes.changes}
    assert stages["language_model_alone"] == {"lm"} and stages["contrast_only"] == {"ctr", "lm"}
    assert len({run.slug for run in axes.runs()}) == len(axes.runs()) == 2 * 2 * 2 * (1 + 10 * 2 - 1)
    plain = [run for run in axes.runs() if run.stage == "plain"]
    assert {one.seed for run in plain for one in axes.tuned_with(run)} == {2020} and len(plain) == 2 * 2 * 2


def test_datasets_and_bad_input(campaign: Made, tmp_path: Path) -> None:
    (tmp_path / "tiny-dropped.yaml").write_text("val_interval: {rating: '[1,2];[4,5]'}")
    axes = campaign(datasets=["tiny@time", "tiny:tiny-dropped.yaml"], split=["random", "time"])
    assert [d.label for d in axes.datasets] == ["tiny-time", "tiny-dropped-random", "tiny-dropped-time"]
    config = axes.config(Run(axes.datasets[2].label, 1.0, "DCN", None, COMPLETE, "ctr", 2021), {})
    assert config["eval_args"]["order"] == "TO" and config["val_interval"] == {"rating": "[1,2];[4,5]"}
    assert (config["split_seed"], config["seed"]) == (2020, 2021)
    assert Campaign.from_mapping(axes.to_json()) == axes
    for wrong, said in (
        ({"models": ["DNC"]}, "DNC"),
        ({"ablations": ["x"]}, "x"),
        ({"datasets": ["tiny@week"]}, "week"),
        ({"datasets": ["tiny:no.yaml"]}, "no.yaml"),
        ({"modles": []}, "modles"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "twice"),
        ({"keys": {"seed": 1}}, "seed"),
        ({"keys": {"learning_rate": 1}}, "learning_rate"),
        ({"keys": {"split_seed": None}}, "split_seed"),
        ({"variants": {"ALT": {}}}, "'ALT' is taken"),
        ({"variants": {"a b": {}}}, "'a b' is taken, or no word"),
        ({"variants": {"steps_5": {}}}, "'steps_5' is taken"),
        ({"variants": {"mine_shuffled": {}}}, "'mine_shuffled' is the control of 'mine', which must be a variant"),
        ({"controls": ["mine"]}, "controls must be among ALT, not 'mine'"),
        ({"variants": "more"}, "variants must be"),
        ({"tuning_seeds": 3}, "between 1 and the 2 seeds, not 3"),
        ({"tuned_alone": ["no_contrast"]}, "tuned_alone must be among .*, not 'no_contrast'"),
        ({"variants": {"more": 1}}, "more must hold"),
        ({"variants": {"more": {"seed": 1}}}, "seed is what the campaign"),
        ({"variants": {"more": {"learning_rate": 0.1}}}, "learning_rate is tuned"),
        ({"keys": {"language_model": "a"}, "language_models": ["b"]}, "language_model"),
    ):
        with pytest.raises(ValueError, match=said):
            campaign(**wrong)
    assert DataSpec.parse("ml-100k").label == "ml-100k"
