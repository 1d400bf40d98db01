"""Campaigns: what is trained and shared, and stopping."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chaos
import numpy as np
import pytest
from interruptions import Stopped, counted

from recbole_alt import loading, run_recbole_alt, scores
from recbole_alt.reporting.report import read_runs, write_report
from recbole_alt.reporting.runs import COMPLETE
from recbole_alt.study import Campaign, comparison, run_campaign
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


def test_a_campaign_is_stopped_and_goes_on(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = campaign(modes=["ctr"])
    with monkeypatch.context() as patch:
        epochs, aligned = counted(patch, ALTTrainer, "_train_epoch"), counted(patch, ALTPretrainTrainer, "fit")
        read = counted(patch, loading, "create_dataset")
        run_campaign(axes, Path("whole"))
    # per model: 2 stages with 2 trials each, of which the best are the first seed's runs, and the second seed's;
    # one alignment per model and seed
    assert (len(epochs), len(aligned), len(read)) == (2 * (4 + 2), 2 * 2, 2)
    whole = results(Path("whole"))
    assert len(whole) == 8 and len({json.dumps(result) for result in whole.values()}) == 8
    assert not Path("saved").exists()
    assert not list(Path("whole").rglob("*.pth")) and not list(Path("whole").rglob("*.lock"))

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        counted(patch, ALTTrainer, "_train_epoch", stop=9)
        run_campaign(axes, Path("stopped"))
    kept = {file: file.stat().st_mtime_ns for file in Path("stopped").glob("runs/*.json") if file.stem in whole}
    kept = {file: when for file, when in kept.items() if file.stem in results(Path("stopped"))}
    assert len(write_report(Path("stopped"), resamples=20)) >= 6
    with monkeypatch.context() as patch:
        epochs, aligned = counted(patch, ALTTrainer, "_train_epoch"), counted(patch, ALTPretrainTrainer, "fit")
        run_campaign(axes, Path("stopped"))
    assert len(epochs) == 12 - 9 and len(aligned) == 1  # the second model's other one
    assert results(Path("stopped")) == whole
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())

    with monkeypatch.context() as patch:  # another seed: what is there stays
        epochs = counted(patch, ALTTrainer, "_train_epoch")
        run_campaign(campaign(modes=["ctr"], seeds=3), Path("stopped"))
    assert len(epochs) == 4 and len(results(Path("stopped"))) == 12
    with pytest.raises(ValueError, match="out: tuning_trials was 10 in 'stopped' and is 1 now"):
        run_campaign(campaign(modes=["ctr"], tuning_trials=1), Path("stopped"))


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


@pytest.mark.slow
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
