"""Tuning: what trials share and leave, stopping and resuming, and the search itself."""

from __future__ import annotations

import csv
import errno
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from interruptions import Stopped, counted, stop_at
from tunings import RATES, SPACE, TWO, Keys, checkpoints, outcomes

import recbole_alt
from recbole_alt import loading
from recbole_alt.checkpoints import load as load_checkpoint
from recbole_alt.cli import main
from recbole_alt.data import dataset as dataset_module
from recbole_alt.files import CannotWrite
from recbole_alt.study import tune as tune_module
from recbole_alt.study.ranges import read_ranges
from recbole_alt.study.search import Search
from recbole_alt.study.store import Store
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


# -- what trials share, and what they leave ----------------------------------------------------------------


def test_trials_share_pretraining_and_data(tune: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    aligned = counted(monkeypatch, ALTPretrainTrainer, "fit")
    loaded = counted(monkeypatch, loading, "create_dataset")
    result = tune(f"{RATES}\nweight_decay choice [0.0, 0.3]  # and so on\n")
    assert len(aligned) == len(loaded) == 1
    tried = [(trial["parameters"]["learning_rate"], trial["parameters"]["weight_decay"]) for trial in result["trials"]]
    assert sorted(tried) == [(1e-3, 0.0), (1e-3, 0.3), (1e-2, 0.0), (1e-2, 0.3)]  # each once
    assert len({trial["valid"]["logloss"] for trial in result["trials"]}) == 4
    assert [trial["aligned"] > 0 for trial in result["trials"]] == [True, False, False, False]

    best = max(result["trials"], key=lambda trial: trial["score"])
    assert result["best_params"] == best["parameters"]
    assert result["best_valid_score"] == best["valid"]["auc"]
    (file,) = checkpoints()
    assert file == Path(result["folder"]) / "pretraining" / best["pretraining"] / "pretrain.pth"
    assert "optimizer" not in load_checkpoint(file)

    # the same trial alone, with data and pretraining of its own
    last = result["trials"][-1]["parameters"]
    given = keys(**last, finetune_modes=["ctr"], plain_baseline=False)
    alone = recbole_alt.run_recbole_alt("ALT_DCN", "tiny", None, given)
    for part in ("valid", "test"):
        assert alone["record"]["results"]["ctr"][part] == result["trials"][-1][part]


def test_a_tuned_pretraining_key_pretrains_again(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    aligned = counted(monkeypatch, ALTPretrainTrainer, "fit")
    result = tune(f"{RATES}\nmask_ratio choice [0.2, 0.6]\n")
    assert len(aligned) == 2
    names = {(trial["parameters"]["mask_ratio"], trial["pretraining"]) for trial in result["trials"]}
    assert len(names) == 2
    (file,) = checkpoints()
    assert load_checkpoint(file)["config"]["mask_ratio"] == result["best_params"]["mask_ratio"]


def test_few_pretrainings_are_kept_while_tuning(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_module, "KEPT_ALIGNMENTS", 1)
    real, most = Store.train, [0]

    def train(self: Any, *args: Any, **options: Any) -> Any:
        most[0] = max(most[0], len(list(Path().glob("saved/*/pretraining/*/pretrain.pth"))))
        return real(self, *args, **options)

    monkeypatch.setattr(Store, "train", train)
    tune("mask_ratio choice [0.2, 0.3, 0.4, 0.5, 0.6]\n", {"pretrain_steps": 1, "epochs": 1})
    assert most[0] == 2  # the best trial's and the last
    assert len(checkpoints()) == 1


def test_the_plain_stage_never_pretrains(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    aligned = counted(monkeypatch, ALTPretrainTrainer, "__init__")
    read = counted(monkeypatch, dataset_module, "load_tokenizer")
    result = tune(RATES, stage="plain")
    assert not aligned and not read
    assert checkpoints() == []
    assert {trial["pretraining"] for trial in result["trials"]} == {None}
    assert main(shlex.split(result["command"])[2:], command="run") == 0
    (file,) = Path("saved").glob("ALT_DCN-tiny-*/plain.json")
    assert json.loads(file.read_text())["valid"] == result["best_valid_result"]
    with pytest.raises(ValueError, match=r"ranges, line 1: mask_ratio changes nothing: the plain backbone"):
        tune("mask_ratio choice [0.2, 0.3]", stage="plain")


def test_a_tuned_key_beats_the_stage_override_also_in_best_yaml(tune: Any) -> None:
    text = {"epochs": 2, "block_users": 2, "block_items": 4}
    stages = {"lm": text | {"learning_rate": 1e-3, "learner": "sgd"}, "plain": {"learning_rate": 1e-5}}
    result = tune("learning_rate choice [1e-4, 1e-1]", {"finetune": stages}, stage="lm")
    slow, fast = sorted(result["trials"], key=lambda trial: trial["parameters"]["learning_rate"])
    assert slow["valid"] != fast["valid"]
    assert "best.yaml" in result["command"] and "pretrain.pth" in result["command"]
    assert main(shlex.split(result["command"])[2:], command="run") == 0  # the command that is printed
    (file,) = Path("saved").glob("ALT_DCN-tiny-*/lm.json")
    again = json.loads(file.read_text())
    assert (again["valid"], again["test"]) == (result["best_valid_result"], result["test_result"])
    assert (file.parent / "plain.json").is_file()
    overrides = json.loads((file.parent / "config.json").read_text())["finetune"]
    assert overrides["plain"] == {"learning_rate": 1e-5}  # of other stages, and of other keys, as they were
    assert overrides["lm"] == stages["lm"] | result["best_params"]


@pytest.mark.drawn
def test_files_at_the_end(tune: Any) -> None:
    result = tune("learning_rate loguniform -7,-3\nmlp_hidden_size choice [[16, 8], [8]]", algo="random", max_evals=3)
    folder = Path(result["folder"])
    record = json.loads((folder / "trials.json").read_text())
    assert len(record["trials"]) == 3 and record["metric"] == "auc"
    assert all(0.0009 < trial["parameters"]["learning_rate"] < 0.05 for trial in record["trials"])
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["valid_auc"]) for row in rows] == [trial["score"] for trial in record["trials"]]
    table = (folder / "table.md").read_text()
    shown = [float(line.split("|")[4]) for line in table.splitlines()[2:5]]
    assert shown == sorted(shown, reverse=True) and len(shown) == 3
    assert table.count("test") == 1  # the best trial's alone
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.rglob("*.lock")) and not [path for path in (folder / "trials").iterdir() if path.is_dir()]


# -- stopped and resumed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trainer", "step"),
    [pytest.param(ALTPretrainTrainer, 2, marks=pytest.mark.slow), (ALTTrainer, 14)],
    ids=["pretraining", "second trial"],
)
def test_a_stopped_tuning_goes_on(trainer: type, step: int, tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"config": {"checkpoint_seconds": 0}, "algo": "random", "max_evals": 3}
    with monkeypatch.context() as patch:
        total = stop_at(patch, trainer, None)
        whole = tune(TWO, **options)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, trainer, step)
        tune(TWO, **options)
    stopped = [
        file.parent for file in Path("saved").glob("tuning-*/tuning.json") if not (file.parent / "table.md").is_file()
    ]
    with monkeypatch.context() as patch:
        done = stop_at(patch, trainer, None)
        resumed = tune(TWO, **options, resume="last")
    assert [Path(resumed["folder"])] == stopped
    assert done[0] == total[0] - step  # no step twice
    assert outcomes(resumed) == outcomes(whole)
    assert len({trial["parameters"]["learning_rate"] for trial in whole["trials"]}) == 3

    with monkeypatch.context() as patch:  # over: nothing is trained
        done = stop_at(patch, ALTTrainer, None)
        again = tune(TWO, **options, resume=resumed["folder"])
        assert done == [0] and outcomes(again) == outcomes(whole)


def pretend(monkeypatch: pytest.MonkeyPatch, made: list[Any], stop: int | None = None) -> None:
    """Trials that cost nothing: the validation score rises with the learning rate, the test score falls."""

    def train(self: Any, config: Any, stage: str, folder: Path, test: bool, kind: Any) -> dict[str, Any]:
        if len(made) == stop:
            raise Stopped
        made.append(config["learning_rate"])
        folder.mkdir(parents=True, exist_ok=True)
        score = 0.5 + config["learning_rate"] - 0.1 * abs(config["weight_decay"] - 0.2)
        metrics = {"auc": score, "logloss": 1 - score}, {"auc": 1 - score, "logloss": score}
        record = {
            "score": score,
            "bigger": True,
            "valid": metrics[0],
            "test": metrics[1],
            "error": None,
            "tested": test,
        }
        record |= {"tested": test, "wall": 1.0, "aligned": 0.0, "costs": {"seconds": 1.0}, "pretraining": None}
        return record

    monkeypatch.setattr(Store, "_train", train)


def test_draws_of_bayes_repeat_after_a_stop(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It draws at random 10 times before it looks at scores."""
    total = 13
    options = {"algo": "bayes", "max_evals": total, "early_stop": 99}
    pretend(monkeypatch, whole := [])
    before = tune(SPACE, **options)
    assert len(set(whole)) == total
    pretend(monkeypatch, first := [], stop=total - 2)
    with pytest.raises(Stopped):
        tune(SPACE, **options)
    pretend(monkeypatch, rest := [])
    after = tune(SPACE, **options, resume="last")
    assert (len(first), len(rest)) == (total - 2, 2)
    assert outcomes(after) == outcomes(before)


def test_a_finished_search_can_be_made_longer(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, made := [])
    folder = tune(SPACE, algo="random", max_evals=2)["folder"]
    longer = tune(SPACE, algo="random", max_evals=4, resume=folder)
    assert len(made) == len(longer["trials"]) == 4
    pretend(monkeypatch, other := [])
    tune(SPACE, {"seed": 7}, algo="random", max_evals=2)
    assert len(other) == 2 and not set(other) & set(made)


def searched(folder: str, ranges: str, algo: str, total: int) -> list[tuple[float, ...]]:
    """What a search asks for where scores rise with ``learning_rate``."""
    Path("ranges").write_text(ranges)
    Path(folder).mkdir()
    search, asked = Search(Path(folder), read_ranges("ranges"), algo, 2020, total), []
    while claim := search.ask():
        with claim.lock:
            search.tell(claim, claim.parameters["learning_rate"])
        asked.append(tuple(claim.parameters[name] for name in search.ranges))
    return asked


def test_exhaustive_finds_the_last_of_many() -> None:
    rates, decays = [i / 1000 for i in range(1, 21)], [i / 10 for i in range(10)]
    asked = searched("all", f"learning_rate choice {rates}\nweight_decay choice {decays}", "exhaustive", 200)
    assert sorted(asked) == [(rate, decay) for rate in rates for decay in decays]


def test_exhaustive_changes_alignments_seldom() -> None:
    asked = searched("all", "learning_rate choice [1e-3, 1e-2]\nmask_ratio choice [0.2, 0.6]", "exhaustive", 4)
    assert [ratio for _, ratio in asked] == [0.2, 0.2, 0.6, 0.6]


@pytest.mark.parametrize("algo", ["random", "bayes"])
def test_no_draw_is_tried_twice_while_others_are_left(algo: str) -> None:
    asked = searched(algo, "learning_rate choice [1e-3, 1e-2, 0.1]\nweight_decay choice [0.0, 0.5]", algo, 6)
    assert len(set(asked)) == 6


def test_bayes_learns_from_scores() -> None:
    bayes, random = (searched(algo, SPACE, algo, 60) for algo in ("bayes", "random"))
    assert sum(rate for rate, *_ in bayes[30:]) > 1.5 * sum(rate for rate, *_ in random[30:])


# -- several processes -------------------------------------------------------------------------------------


def opened(folder: str, **options: Any) -> Search:
    """A search of 4 trials, as another process would open it."""
    Path("ranges").write_text(SPACE)
    Path(folder).mkdir(exist_ok=True)
    return Search(Path(folder), read_ranges("ranges"), "random", 2020, **{"total": 4} | options)


def test_processes_share_a_search_and_take_up_what_one_of_them_left() -> None:
    one, other = opened("shared"), opened("shared")
    first, second = one.ask(), other.ask()
    assert first and second and (first.number, second.number) == (1, 2)
    other.tell(second, 0.7)
    second.lock.release()
    third = other.ask()
    assert third and third.number == 3
    first.lock.release()  # as when its process dies
    again = other.ask()
    assert again and (again.number, again.parameters) == (1, first.parameters)
    for claim in (again, third):
        other.tell(claim, 0.6)
        claim.lock.release()
    last = opened("shared").ask()
    assert last and last.number == 4
    one.tell(last, 0.8)
    last.lock.release()
    assert one.ask() is None is other.ask()
    assert one.count_ended() == other.count_ended() == 4
    alone = opened("alone")  # each number has the parameters that it has without company
    for shared in (first, second, third, last):
        claim = alone.ask()
        assert claim and claim.parameters == shared.parameters
        alone.tell(claim, 0.5)
        claim.lock.release()


def test_a_process_waits_for_the_last_trial_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = opened("shared", total=1), opened("shared", total=1)
    mine = one.ask()
    assert mine
    monkeypatch.setattr("recbole_alt.study.search.time.sleep", lambda _: mine.lock.release())
    taken = other.ask()
    assert taken and (taken.number, taken.parameters) == (mine.number, mine.parameters)


def test_half_a_line_in_the_journal_costs_nothing() -> None:
    one = opened("shared")
    claim = one.ask()
    assert claim
    one.tell(claim, 0.5)
    with Path("shared/search.journal").open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    following = opened("shared").ask()
    assert following and following.number == 2


def test_a_disk_that_is_full_names_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    search = opened("shared")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(CannotWrite, match=r"search\.journal' can't be written .*make room"),
    ):
        patch.setattr("os.fsync", full)
        search.ask()
    claim = opened("shared").ask()
    assert claim and claim.number == 1


def test_smaller_scores_may_be_better() -> None:
    search = opened("shared", bigger=False, early_stop=2, total=9)
    for score in (0.5, 0.3, None, 0.4):
        claim = search.ask()
        assert claim
        search.tell(claim, score)
        claim.lock.release()
    assert search.count_ended() == 4 and search.ask() is None


def test_the_choice_is_made_on_validation(tune: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    pretend(monkeypatch, [])
    caplog.set_level("INFO")
    result = tune("learning_rate choice [1e-3, 1e-1, 1e-2]", {"state": "INFO"})
    assert result["best_params"] == {"learning_rate": 0.1}  # the worst of the three on the test set
    assert "learning_rate: 0.1\n" in (Path(result["folder"]) / "best.yaml").read_text()
    ended = [record.getMessage() for record in caplog.records if "best so far" in record.getMessage()]
    assert len(ended) == 3 and not any("test" in line for line in ended)
    assert "best so far 0.5800 (learning_rate=0.1)" in ended[-1]
    pretend(monkeypatch, [])
    lower = tune("learning_rate choice [1e-3, 1e-1, 1e-2]", {"valid_metric": "LogLoss"})
    assert lower["trials"] and lower["best_params"]


def test_early_stop_ends_random_search(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, made := [])
    tune(SPACE, algo="random", max_evals=90, early_stop=3)
    assert 4 <= len(made) < 90


def test_another_tuning_is_not_resumed(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [])
    folder = tune(RATES)["folder"]
    for ranges, config, options, named in (
        ("learning_rate choice [1e-3, 1e-1]", {}, {}, "range of learning_rate"),
        ("weight_decay choice [0.1, 0.2]", {}, {}, "range of learning_rate"),
        (RATES, {}, {"algo": "random"}, "algo"),
        (RATES, {"embedding_size": 16}, {}, "embedding_size"),
        (RATES, {}, {"stage": "plain"}, "stage"),
    ):
        with pytest.raises(ValueError, match=f"resume: {named} was"):
            tune(ranges, config, resume=folder, **options)
    with pytest.raises(ValueError, match="resume must be text or empty, not ''"):
        tune(RATES, resume="")
    with pytest.raises(ValueError, match=r"no tuning\.json"):
        tune(RATES, resume="nowhere")
    with pytest.raises(ValueError, match="last finds no tuning-ALT_DCN-tiny-joint"):
        tune(RATES, resume="last", stage="joint")


def test_a_diverged_trial_is_told_and_the_search_goes_on(tune: Any) -> None:
    result = tune("learning_rate choice [1e30, 1e-3]", {"learner": "sgd"})
    reasons = {trial["parameters"]["learning_rate"]: trial["error"] for trial in result["trials"]}
    assert reasons[1e-3] is None and "not a number" in reasons[1e30]
    assert result["best_params"] == {"learning_rate": 1e-3}
    assert "diverged" in result["table"]
    assert len(checkpoints()) == 1
    with pytest.raises(ValueError, match="no trial reached a score"):
        tune("learning_rate choice [1e30]", {"learner": "sgd"})
