"""Campaigns: what is run and shared, and stopping."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interruptions import Stopped, counted

from recbole_alt import experiment, run_recbole_alt
from recbole_alt.config import ALTConfig
from recbole_alt.files import write_record
from recbole_alt.study import ABLATIONS, Campaign, compare, run_campaign, scores
from recbole_alt.study.axes import COMPLETE, DataSpec, Run
from recbole_alt.study.report import read_runs, write_report
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

Keys = Callable[..., dict[str, Any]]
Made = Callable[..., Campaign]


def results(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("runs/*/run.json"))
    return {
        file.parent.name: (json.loads(file.read_text())["valid"], json.loads(file.read_text())["test"])
        for file in files
    }


# -- campaigns ---------------------------------------------------------------------------------------------


def test_a_campaign_is_stopped_and_goes_on(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = campaign()
    with monkeypatch.context() as patch:
        epochs, aligned = counted(patch, ALTTrainer, "_train_epoch"), counted(patch, ALTPretrainTrainer, "fit")
        read = counted(patch, experiment, "create_dataset")
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
    kept = {file: file.stat().st_mtime_ns for file in Path("stopped").glob("runs/*/run.json")}
    assert len(write_report(Path("stopped"), resamples=20)) >= 6
    with monkeypatch.context() as patch:
        epochs, aligned = counted(patch, ALTTrainer, "_train_epoch"), counted(patch, ALTPretrainTrainer, "fit")
        run_campaign(axes, Path("stopped"))
    assert len(epochs) == 18 - 11 and len(aligned) == 2  # the second model's; the first one's are over
    assert results(Path("stopped")) == whole
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())

    with monkeypatch.context() as patch:  # another seed: what is there stays
        epochs = counted(patch, ALTTrainer, "_train_epoch")
        run_campaign(campaign(seeds=3), Path("stopped"))
    assert len(epochs) == 6 and len(results(Path("stopped"))) == 18
    with pytest.raises(ValueError, match="out: tuning_trials was 6 in 'stopped' and is 1 now"):
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
    run_campaign(campaign(**one), Path("tuned"))
    assert not epochs and not list(Path("tuned").rglob("*.pth"))
    trials = [json.loads(file.read_text()) for file in Path("tuned").glob("trials/*.json")]
    for record in read_runs(Path("tuned")):
        assert record["costs"] in [trial["costs"] for trial in trials]  # of its training, not of the test alone
        folder = Path("alone") / record["run"]["stage"]
        run_campaign(campaign(record["parameters"], params_file="none", **one), folder)
        again = next(r for r in read_runs(folder) if r["run"] == record["run"])
        assert (again["valid"], again["test"]) == (record["valid"], record["test"])
        assert again["costs"]["texts_encoded"] == record["costs"]["texts_encoded"]
        assert record["costs"]["seconds"] <= record["wall"]


def test_validation_alone_selects(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    scored, looks, real = counted(monkeypatch, scores.Scores, "save"), [], ALTTrainer.evaluate

    def evaluate(self: Any, data: Any, load_best_model: bool = True, **options: Any) -> Any:
        looks.append("nothing" if data is None else "test" if load_best_model else "valid")
        return real(self, data, load_best_model, **options)

    monkeypatch.setattr(ALTTrainer, "evaluate", evaluate)
    run_campaign(campaign(models=["DCN"], modes=["ctr"]), Path("out"))
    trials = [json.loads(file.read_text()) for file in Path("out").glob("trials/*.json")]
    assert len(trials) == 4 and all(trial["test"] == {} for trial in trials)
    assert len(scored) == 4  # once a run; trials never touch the test set
    # the validation of 4 trials and of the second seed, and one test a run
    assert [looks.count(what) for what in ("valid", "test", "nothing")] == [6, 4, 4]
    for record in read_runs(Path("out")):
        same = [trial for trial in trials if trial["run"]["stage"] == record["run"]["stage"]]
        chosen = next(trial for trial in same if trial["parameters"] == record["parameters"])
        assert chosen["valid"]["auc"] == max(trial["valid"]["auc"] for trial in same)  # two may be equally good
        if record["run"]["seed"] == 2020:
            assert record["valid"] == chosen["valid"]  # the very run that was chosen


def test_an_ablation_may_be_tuned_alone(campaign: Made) -> None:
    one = {"models": ["DCN"], "seeds": 1, "modes": ["ctr"], "ablations": ["no_pretraining", "no_contrast"]}
    run_campaign(campaign(**one, tuned_alone=["no_pretraining"]), Path("out"))
    trials = [json.loads(file.read_text()) for file in Path("out").glob("trials/*.json")]
    best = {
        variant: max(t["valid"]["auc"] for t in trials if t["run"]["variant"] == variant)
        for variant in ("plain", COMPLETE, "no_pretraining")
    }
    assert len(trials) == 6
    runs = {record["run"]["variant"]: record for record in read_runs(Path("out"))}
    assert {variant: runs[variant]["valid"]["auc"] for variant in best} == best
    assert runs["no_contrast"]["parameters"] == runs[COMPLETE]["parameters"]
    assert "| no pretraining, tuned alone | DCN" in Path("out/report/tables.md").read_text()
    assert campaign(**one, tuned_alone=["all"]).tuned_alone == one["ablations"]


def test_several_seeds_choose(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"models": ["DCN"], "seeds": 3, "modes": ["ctr"], "tuning_seeds": 2}
    with monkeypatch.context() as patch:
        epochs = counted(patch, ALTTrainer, "_train_epoch")
        run_campaign(campaign(**one), Path("out"))
    assert len(epochs) == 2 * (2 * 2 + 1)  # the best trials are the runs of two seeds; the third seed's is trained
    trials = [json.loads(file.read_text()) for file in Path("out").glob("trials/*.json")]
    records = read_runs(Path("out"))
    assert len(trials) == 8 and len(records) == 6 and not list(Path("out").rglob("*.pth"))
    for stage in ("plain", "ctr"):
        by_rate: dict[float, dict[int, Any]] = {}
        for trial in trials:
            if trial["run"]["stage"] == stage:
                by_rate.setdefault(trial["parameters"]["learning_rate"], {})[trial["run"]["seed"]] = trial["valid"]
        best = max(by_rate, key=lambda rate: np.mean([valid["auc"] for valid in by_rate[rate].values()]))
        runs = {record["run"]["seed"]: record for record in records if record["run"]["stage"] == stage}
        assert {record["parameters"]["learning_rate"] for record in runs.values()} == {best}
        assert all(runs[seed]["valid"] == valid for seed, valid in by_rate[best].items())
    with pytest.raises(ValueError, match="tuning_seeds was 2 in 'out' and is 1 now"):
        run_campaign(campaign(**one | {"tuning_seeds": 1}), Path("out"))


def test_no_weights_stay_after_a_stop_between_trials(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"models": ["DCN"], "seeds": 1, "modes": []}
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        counted(patch, compare.shutil, "rmtree", stop=0)  # both trials are over, the loser is not deleted yet
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
        counted(patch, compare, "result_record", stop=2)  # of the run; two trials have theirs
        run_campaign(campaign(**one), Path("out"))
    assert list(Path("out").rglob("plain.json")) and not list(Path("out").rglob("run.json"))
    epochs = counted(monkeypatch, ALTTrainer, "_train_epoch")
    run_campaign(campaign(**one), Path("out"))
    assert not epochs and results(Path("out")) == results(Path("whole"))


def test_a_variant_may_be_tuned_alone_later(campaign: Made) -> None:
    one = {"models": ["DCN"], "seeds": 1, "modes": ["ctr"], "ablations": ["no_contrast"]}
    for ablations in ({}, {"tuned_alone": ["all"]}):  # the second time its run may be there already
        run_campaign(campaign(**one, **ablations), Path("out"))
    runs = {record["run"]["variant"]: record for record in read_runs(Path("out"))}
    trials = [json.loads(file.read_text()) for file in Path("out").glob("trials/*no_contrast*.json")]
    assert len(trials) == 2 and not list(Path("out").rglob("*.pth"))
    assert runs["no_contrast"]["valid"]["auc"] == max(trial["valid"]["auc"] for trial in trials)
    assert runs["no_contrast"]["tuned_alone"] and runs["no_contrast"]["test"]


def test_the_mean_of_the_seeds_chooses(campaign: Made) -> None:
    axes = campaign(models=["DCN"], seeds=2, modes=["ctr"], tuning_seeds=2)
    axes.grid = {"learning_rate": ["lucky", "good", "diverged"]}
    comparison, run = compare.Comparison(Path("out"), axes), axes.runs()[0]

    def trained() -> set[str]:
        return {path.name for path in Path("out/trials").iterdir() if path.is_dir()}

    lucky, good, diverged = comparison.trials_of(run)

    def end(trial: compare.Trial, *scores: float | None) -> None:
        for file, score in zip(trial.files.values(), scores, strict=True):
            write_record(file, {"score": score, "bigger": True})
            file.with_suffix("").mkdir()

    end(lucky, 0.9, 0.1)
    end(diverged, 0.99, None)
    assert comparison.choose(run) is None  # one is missing; of the others, one has lost already
    assert trained() == {file.stem for file in lucky.files.values()}
    end(good, 0.6, 0.6)
    assert comparison.choose(run) == {"learning_rate": "good"}
    assert trained() == {file.stem for file in good.files.values()}
    for file in (*lucky.files.values(), *good.files.values()):
        write_record(file, {"score": None, "bigger": True})
    with pytest.raises(ValueError, match=r"plain_2020: every trial diverged; change ranges"):
        compare.Comparison(Path("out"), axes).choose(run)


def test_records_of_trials_are_named_in_full(campaign: Made) -> None:
    axes = campaign(models=["DCN"], seeds=1, modes=["ctr"], train_shares=[0.05])
    comparison = compare.Comparison(Path("out"), axes)
    trials = [trial for run in axes.runs() for trial in comparison.trials_of(run)]
    files = {file for trial in trials for file in trial.files.values()}
    assert len(files) == len(trials) == 4 and all("_0.05_" in file.name and file.suffix == ".json" for file in files)


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
    assert len({run.slug for run in axes.runs()}) == len(axes.runs()) == 2 * 2 * 2 * (1 + 11 * 2 - 1)
    plain = [run for run in axes.runs() if run.stage == "plain"]
    assert {one.seed for run in plain for one in axes.tuned_with(run)} == {2020} and len(plain) == 2 * 2 * 2


def test_every_mode_has_the_same_budget(campaign: Made) -> None:
    axes = campaign(params_file="compatibility", models=["DCN", "LR", "AutoInt", "EulerNet"])
    spec = axes.datasets[0].label
    tried = {(model, stage): axes.trials(Run(spec, 1.0, model, None, COMPLETE, stage, 2020))
             for model in axes.models for stage in ("plain", "ctr", "joint")}  # fmt: skip
    assert {len(trials) for trials in tried.values()} == {6}
    assert tried["DCN", "plain"] == tried["DCN", "joint"]
    seen = {name: [trial[name] for trial in tried["DCN", "plain"]] for name in tried["DCN", "plain"][0]}
    assert {name: {v: values.count(v) for v in values} for name, values in seen.items()} == {
        "learning_rate": {1e-3: 3, 3e-3: 3}, "weight_decay": {0.5: 2, 1.0: 2, 2.0: 2},
        "dropout_prob": {0.0: 2, 0.2: 2, 0.5: 2},
    }  # fmt: skip
    assert "dropout_prob" not in tried["LR", "plain"][0]
    config = axes.config(Run(spec, 1.0, "AutoInt", None, COMPLETE, "ctr", 2020), {"dropout_prob": 0.1})
    assert config["finetune"]["ctr"]["dropout_probs"] == [0.1, 0.1, 0.1]


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
