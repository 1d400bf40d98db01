"""The searches of a campaign: what chooses, wider ranges, and which process does what first."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from itertools import product
from math import log
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from recbole_alt.study import Campaign, comparison
from recbole_alt.study.search import Search
from recbole_alt.study.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

Made = Callable[..., Campaign]
Score = Callable[[dict[str, Any], int], "float | None"]


def pretend(monkeypatch: pytest.MonkeyPatch, score: Score) -> list[tuple[str, dict[str, Any], int]]:
    """Trainings that cost nothing, whose validation AUC is ``score`` of their keys and seed; grows by each."""
    made = []

    def train(self: Store, config: Any, stage: str, folder: Path, test: bool, kind: Any) -> dict[str, Any]:
        given = config["finetune"][stage]
        made.append((stage, given, config["seed"]))
        folder.mkdir(parents=True, exist_ok=test)
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


def test_what_is_there_is_not_to_go(
    campaign: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("three").write_text("learning_rate choice [1e-3, 1e-2, 0.1]\n")
    pretend(monkeypatch, lambda given, seed: given["learning_rate"])
    for modes, lacks in ([], ("3", "3", "0")), (["ctr"], ("3", "3", "3")), (["ctr"], ("0", "0", "0")):
        caplog.clear()
        axes = campaign(models=["DCN"], modes=modes, seeds=[2020, 2021, 2022], params_file="three", widenings=1)
        with caplog.at_level("INFO"):
            comparison.Comparison(Path("out"), axes).make_runs()
        told = re.findall(r"(\d+) runs, (-?\d+) trials and (\d+) alignments", caplog.text)
        assert told[0] == lacks
        assert told[-1] == ("0", "0", "0")


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


def test_runs_whose_alignment_another_process_makes_come_last(campaign: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = campaign(models=["DCN"], modes=["ctr", "joint"], seeds=2, params_file="none")
    compared = comparison.Comparison(Path("out"), axes)
    ctr = next(run for run in axes.runs() if run.stage == "ctr")
    busy = FileLock(Path("out/pretraining") / f"{compared._alignment_of(ctr)}.lock")
    busy.acquire()

    def score(given: dict[str, Any], seed: int) -> float:
        if len(made) == 4:
            busy.release()  # the other process has made it
        return 0.5

    made = pretend(monkeypatch, score)
    compared.make_runs()
    order = [(stage, seed) for stage, _, seed in made]
    assert order[:2] == [("plain", 2020), ("plain", 2021)]
    assert order[2:] == [("ctr", 2021), ("joint", 2021), ("ctr", 2020), ("joint", 2020)]


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
