"""Trackers: a run of ours is one run there, with the same figures, and nothing depends on it.

What the real packages write is read back where they are installed; a stand-in for each is enough for the rest.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from interruptions import Stopped, stop_at

from recbole_alt import plan_recbole_alt, processes, run_hyper_alt, run_recbole_alt
from recbole_alt.config import ALTConfig
from recbole_alt.experiment import Experiment
from recbole_alt.launch import start_processes
from recbole_alt.trackers import trackers
from recbole_alt.trackers.mlflow_run import MLflow
from recbole_alt.trackers.tracker import Tracker
from recbole_alt.trackers.wandb_run import Wandb
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

#: Curve → points, each a step and a value, in the order in which they were added.
Found = dict[str, list[tuple[int, float]]]
STAGES = ("pretrain", "ctr", "lm", "joint", "plain")


def run(given: Mapping[str, Any]) -> dict[str, Any]:
    return run_recbole_alt("ALT_DCN", "tiny", None, dict(given))


def without_path(values: Mapping[str, Any]) -> dict[str, Any]:
    """But for the key that ``result.json`` has as it was given."""
    return {key: value for key, value in values.items() if key != "data_path"}


def assert_as_recorded(found: Found, record: Mapping[str, Any]) -> None:
    """The curves and totals of every stage are those of ``result.json``, and no curve goes back."""
    assert {name.partition("/")[0] for name in found} == set(record["stages"])
    for name, points in found.items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), name
    for stage, about in record["stages"].items():
        for name, points in about["curves"].items():
            if stage == "pretrain" and name != "held_out":  # from 0, and result.json counts them
                logged = [(step + 1, value) for step, value in found[f"pretrain/loss/{name}"]]
            elif stage == "pretrain":
                logged = found["pretrain/loss/held_out"]
            else:
                metric = record["configuration"]["valid_metric"].lower()
                logged = found[f"{stage}/{'loss' if name == 'loss' else f'valid/{metric}'}"]
            assert logged == [(step, pytest.approx(value, rel=1e-6)) for step, value in points], (stage, name)
        last = about["steps" if stage == "pretrain" else "epochs"]
        assert found[f"{stage}/seconds"] == [(last, pytest.approx(about["seconds"]))]
        for part, metrics in record["results"].get(stage, {}).items():
            for name, value in metrics.items() if part in ("valid", "test") else ():
                total = f"{stage}/{'best_valid' if part == 'valid' else part}/{name}"
                assert found[total] == [(last, pytest.approx(value))], total
    assert not [name for name in found if "Vaild" in name or "Loss/" in name]  # RecBole's


# -- any tracker -------------------------------------------------------------------------------------------


class Notebook(Tracker):
    """A tracker that keeps what it is told, and draws random numbers as it begins."""

    name, packages, extra, remedy = "Notebook", ("pytest",), "none", "buy one"
    all: list[Notebook]

    def __init__(self, name: str, values: Mapping[str, Any], kept: dict[str, Any]):
        random.random(), np.random.rand(), torch.rand(1)
        self.name, self.values, self.closed = name, values, list[Any]()
        self.points: Found = defaultdict(list)
        kept["run"] = kept.get("run", len(self.all))
        self.kept = dict(kept)
        self.all.append(self)

    def begin(self, stage: str) -> None:
        random.random(), np.random.rand(), torch.rand(1)

    def add(self, stage: str, curve: str, value: float, step: int) -> None:
        assert curve.startswith(f"{stage}/")
        self.points[curve].append((step, value))

    def flush(self) -> None:
        pass

    def close(self, error: type[BaseException] | None) -> None:
        self.closed.append(error)


@pytest.fixture
def notebooks(monkeypatch: pytest.MonkeyPatch) -> list[Notebook]:
    """Those of all runs, in the place of MLflow."""
    monkeypatch.setattr(trackers, "KINDS", {"log_mlflow": Notebook})
    monkeypatch.setattr(Notebook, "all", [], raising=False)
    return Notebook.all


def test_a_run_is_one_run_there_and_ends_as_without(keys: Any, notebooks: list[Notebook]) -> None:
    given = keys(finetune_modes=["ctr", "joint"], pretrain_stopping_step=9)
    without = run(given)
    assert not notebooks
    done = run(given | {"log_mlflow": True})
    (book,) = notebooks
    assert book.closed == [None] and book.name == Path(done["folder"]).name
    assert without_path(book.values) == without_path(done["record"]["configuration"])
    assert "pretrain/loss/held_out" in book.points and "pretrain/learning_rate/rest" in book.points
    assert_as_recorded(book.points, done["record"])
    assert done["record"]["results"] == without["record"]["results"]  # to the last bit


def test_a_plan_logs_nothing(keys: Any, notebooks: list[Notebook]) -> None:
    plan_recbole_alt("ALT_DCN", "tiny", None, keys(log_mlflow=True, finetune_modes=["ctr"]))
    assert not notebooks


def test_only_the_first_process_logs(keys: Any, notebooks: list[Notebook], monkeypatch: pytest.MonkeyPatch) -> None:
    with Experiment(ALTConfig("ALT_DCN", "tiny", None, keys(log_mlflow=True))) as begun:
        monkeypatch.setattr(processes, "is_first", lambda: False)
        begun.pretrain()
    assert not notebooks


def test_a_stop_is_told_and_the_same_run_goes_on(
    keys: Any, notebooks: list[Notebook], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = keys(log_mlflow=True, finetune_modes=["ctr"], checkpoint_seconds=0)
    with monkeypatch.context() as patched:
        stop_at(patched, ALTTrainer, 5, "ctr")
        with pytest.raises(Stopped):
            run(given)
    done = run(given | {"resume": "last"})
    first, second = notebooks
    assert first.closed == [Stopped] and second.closed == [None] and first.kept == second.kept == {"run": 0}
    assert [step for step, _ in first.points["ctr/loss"]] == [1]
    assert [step for step, _ in second.points["ctr/loss"]] == [2]
    assert not any(name.startswith("pretrain") for name in second.points)
    joined = {name: first.points[name] + second.points[name] for name in {*first.points, *second.points}}
    assert_as_recorded(joined, done["record"])


def test_a_tracker_that_fails_stops_no_training(
    keys: Any, notebooks: list[Notebook], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("https://me:hunter2@host has\ngone")

    monkeypatch.setattr(Notebook, "add", fail)
    with Experiment(ALTConfig("ALT_DCN", "tiny", None, keys(log_mlflow=True))) as begun:
        begun.pretrain()
    (said,) = [record.getMessage() for record in caplog.records if "log_mlflow" in record.getMessage()]
    assert said.endswith("fails, and is told nothing more (RuntimeError: https://host has gone)")
    assert begun.stages["pretrain"].details["steps"] == 4 and notebooks[0].closed == []


def test_trials_are_runs_of_their_own(keys: Any, notebooks: list[Notebook]) -> None:
    Path("ranges").write_text("learning_rate choice [0.001, 0.01]\n")
    run_hyper_alt("ALT_DCN", "tiny", None, keys(log_mlflow=True, epochs=1), params_file="ranges", stage="ctr")
    aligned, *trials = notebooks
    assert set(aligned.points) >= {"pretrain/loss/contrastive"} and len(trials) == 2
    assert all(book.closed == [None] and book.name.startswith("tuning-ALT_DCN-tiny-ctr-") for book in notebooks)
    assert {book.values["learning_rate"] for book in trials} == {0.001, 0.01}
    assert all({"ctr/valid/auc", "ctr/test/auc"} <= set(book.points) for book in trials)


@pytest.mark.parametrize("key, extra", [("log_wandb", "wandb"), ("log_mlflow", "mlflow")])
def test_a_missing_package_is_one_line_before_anything_begins(
    key: str, extra: str, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_is_installed", lambda package: False)
    Path("wandb").mkdir()  # as W&B makes here; it is no package
    with pytest.raises(ValueError, match=rf"^{key} needs the package .*: pip install 'recbole_alt\[{extra}\]', or"):
        run(keys(**{key: True}))
    assert not Path("saved").exists() or not list(Path("saved").iterdir())


def test_a_folder_is_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("folder_of_this_test").mkdir()
    monkeypatch.syspath_prepend(".")
    assert trackers._is_installed("pytest") and not trackers._is_installed("folder_of_this_test")


# -- the steps of either, with a stand-in ------------------------------------------------------------------


class WandbServer:
    """A stand-in for W&B, which refuses what W&B would drop, and its one run on the server."""

    def __init__(self, online: bool):
        self.online, self.run = online, None
        self.rows: dict[int, dict[str, float]] = {}

    def init(self, **given: Any) -> Any:
        step = max(self.rows, default=-1) + 1 if self.online else 0
        self.run = SimpleNamespace(
            id=given["id"] or "new", step=step, log=self.log, define_metric=lambda *a, **k: None, finish=self.finish
        )
        return self.run

    def log(self, row: dict[str, float], step: int) -> None:
        assert step >= self.run.step, "dropped"
        self.run.step = step
        for name, value in row.items():
            before = self.rows.setdefault(step, {}).setdefault(name, value)
            assert before == value, f"{name} differs from what was logged at {step} before"

    def finish(self, exit_code: int) -> None:
        self.run = None


@pytest.mark.parametrize("online", [True, False])
def test_points_in_wandb_have_one_step_whether_or_not_a_stage_was_stopped(
    online: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(*parts: list[tuple[str, range]]) -> dict[int, dict[str, float]]:
        """What is there in the end, where each part is of another process."""
        server, kept = WandbServer(online), dict[str, Any]()
        monkeypatch.setitem(sys.modules, "wandb", server)
        for part in parts:
            tracker = Wandb("name", {"wandb_project": "recbole"}, kept)
            for stage, steps in part:
                tracker.begin(stage)
                for step in steps:
                    tracker.add(stage, f"{stage}/rate", step / 10, step)
                    tracker.add(stage, f"{stage}/loss", step / 3, step)
            tracker.close(None)
            kept = json.loads(json.dumps(kept))
        return server.rows

    every = [("pretrain", range(9)), ("ctr", range(1, 9)), ("joint", range(1, 9))]
    whole = follow(every)
    assert sorted(whole) == list(range(25)) and whole[13] == {"ctr/rate": 0.5, "ctr/loss": 5 / 3, "ctr/epoch": 5}
    for number, (stage, steps) in enumerate(every):
        before, after = every[:number], every[number + 1 :]
        for stop in (5, 6, 8):  # at the checkpoint, and beyond it
            parts = [*before, (stage, range(steps[0], stop))], [(stage, range(5, 9)), *after]
            assert follow(*parts) == whole, (stage, stop)
        assert list(follow(every[: number + 1], after).values()) == list(whole.values())  # between two stages


def test_points_in_mlflow_are_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    history: dict[str, list[Any]] = defaultdict(list)
    sizes, statuses = list[int](), list[str]()

    def log_batch(run: str, metrics: list[Any]) -> None:
        sizes.append(len(metrics))
        for metric in metrics:
            history[metric.key].append(metric)

    def metric(key: str, value: float, time: int, step: int) -> Any:
        return SimpleNamespace(key=key, value=value, step=step)

    client = SimpleNamespace(log_batch=log_batch, get_metric_history=lambda run, curve: history[curve])
    server = SimpleNamespace(
        MlflowClient=lambda: client,
        active_run=lambda: None,
        start_run=lambda run_id, **_: SimpleNamespace(info=SimpleNamespace(run_id=run_id or "new")),
        log_params=lambda values: None,
        end_run=statuses.append,
        entities=SimpleNamespace(Metric=metric),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mlflow", server)
    kept: dict[str, Any] = {}
    for steps, error in ((range(1200), KeyboardInterrupt), (range(1100, 1500), Stopped), (range(1500, 1501), None)):
        tracker = MLflow("name", {}, kept)
        for step in steps:
            tracker.add("pretrain", "pretrain/recall@10", step / 7, step)
        tracker.close(error)
    assert [metric.step for metric in history["pretrain/recall_10"]] == list(range(1501))
    assert sizes == [1000, 200, 300, 1] and statuses == ["KILLED", "FAILED", "FINISHED"] and kept == {"run": "new"}


# -- the real ones, offline --------------------------------------------------------------------------------


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """W&B, offline."""
    for name, value in {"MODE": "offline", "SILENT": "true", "CONSOLE": "off"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb = pytest.importorskip("wandb", reason="not installed by default")
    wandb.teardown()  # it reads the environment once
    yield wandb
    wandb.teardown()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file for MLflow, which takes seconds to make one."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/tracked.db"


@pytest.fixture
def mlflow(database: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow, with an experiment of this test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    mlflow = pytest.importorskip("mlflow", reason="not installed by default")
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    return mlflow


def records(file: Path) -> Iterator[Any]:
    """What W&B has written offline: messages in a log of LevelDB's format, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, message = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        size, kind = struct.unpack_from("<HB", content, at + 4)
        if left < 7 or not kind:
            at += left
            continue
        message = (b"" if kind in (1, 2) else message) + content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole of one, or its last part
            yield Record.FromString(message)


def read_wandb(folder: Path) -> tuple[Any, dict[str, Any], Found]:
    """The run in an offline folder, its configuration and its curves; the steps of all are W&B's own rise."""
    (file,) = folder.glob("*.wandb")
    found, config, steps, begun = defaultdict(list), dict[str, Any](), list[int](), None
    for record in records(file):
        if record.WhichOneof("record_type") == "run":
            begun = record.run
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            steps.append(row["_step"])
            for name, value in row.items():
                axis = f"{name.partition('/')[0]}/{'step' if name.startswith('pretrain/') else 'epoch'}"
                if not name.startswith("_") and name != axis:
                    found[name].append((row[axis], value))
    assert steps == sorted(set(steps))
    return begun, config, found


def in_mlflow(mlflow: Any) -> list[Any]:
    """The runs of this test, the latest first."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    return list(client.search_runs([experiment.experiment_id]))


def read_mlflow(mlflow: Any, tracked: Any) -> Found:
    """Its curves."""
    client, run_id = mlflow.MlflowClient(), tracked.info.run_id
    return {
        name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
        for name in tracked.data.metrics
    }


def test_both_have_what_result_json_has(keys: Any, wandb: Any, mlflow: Any) -> None:
    given = keys(wandb_project="mine", finetune_modes=["ctr", "joint"])
    done = run(given | {"log_wandb": True, "log_mlflow": True})
    values = done["record"]["configuration"]
    (folder,) = Path("wandb").glob("offline-run-*")
    begun, config, found = read_wandb(folder)
    assert begun.project == "mine" and begun.display_name == Path(done["folder"]).name
    assert without_path(config) == without_path(values) | {"_wandb": config["_wandb"]}
    assert_as_recorded(found, done["record"])

    (tracked,) = in_mlflow(mlflow)
    assert tracked.info.status == "FINISHED" and tracked.info.run_name == Path(done["folder"]).name
    assert without_path(tracked.data.params) == {key: str(value) for key, value in without_path(values).items()}
    assert_as_recorded(read_mlflow(mlflow, tracked), done["record"])
    assert wandb.run is None and mlflow.active_run() is None
    assert done["record"]["results"] == run(given)["record"]["results"]  # to the last bit
    assert len(in_mlflow(mlflow)) == 1


@pytest.mark.parametrize("stage, step", [("pretrain", 3), ("ctr", 6)])
def test_a_stopped_run_goes_on_in_the_same_ones(
    stage: str, step: int, keys: Any, wandb: Any, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = keys(log_wandb=True, log_mlflow=True, finetune_modes=["ctr"], plain_baseline=False, checkpoint_seconds=0)
    with monkeypatch.context() as patched:
        stop_at(patched, ALTPretrainTrainer if stage == "pretrain" else ALTTrainer, step)
        with pytest.raises(Stopped):
            run(given)
    assert [one.info.status for one in in_mlflow(mlflow)] == ["FAILED"] and wandb.run is None
    done = run(given | {"resume": "last"})
    (tracked,) = in_mlflow(mlflow)
    assert tracked.info.status == "FINISHED"
    assert_as_recorded(read_mlflow(mlflow, tracked), done["record"])

    folders = sorted(Path("wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_mtime_ns)
    (first, _, one), (second, _, two) = map(read_wandb, folders)
    assert first.run_id == second.run_id  # by which `wandb sync` joins them
    joined = {name: sorted({*one.get(name, []), *two.get(name, [])}) for name in {*one, *two}}
    assert_as_recorded(joined, done["record"])


def test_runs_that_the_user_has_begun_are_used(keys: Any, wandb: Any, mlflow: Any) -> None:
    given = keys(log_wandb=True, log_mlflow=True, finetune_modes=["ctr"], plain_baseline=False)
    with wandb.init(project="sweep") as outer, mlflow.start_run(run_name="parent") as parent:
        outer.log({"mine": 1})
        run(given)
        assert wandb.run is outer and mlflow.active_run().info.run_id == parent.info.run_id
        assert outer.summary["ctr/test/auc"] and outer.summary["mine"] == 1
    child, _ = in_mlflow(mlflow)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id and "ctr/test/auc" in child.data.metrics


def test_what_can_not_begin_is_one_line_without_secrets(
    keys: Any, wandb: Any, mlflow: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))  # where no key is
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"^log_wandb: W&B can't begin a run \(UsageError: .*\): log in with") as told:
        run(keys(log_wandb=True, state="INFO"))
    assert "\n" not in str(told.value)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        ValueError, match=r"^log_mlflow: MLflow can't begin a run \(.*\): see to MLFLOW_TRACKING"
    ) as told:
        run(keys(log_mlflow=True, state="INFO"))
    assert "\n" not in str(told.value) and "hunter2" not in f"{told.value}{caplog.text}"
    assert not list(Path().rglob("pretrain.pth"))
    assert "hunter2" not in "".join(file.read_text() for file in Path("log").rglob("*.log"))


@pytest.mark.slow
def test_several_processes_log_one_run(keys: Any, wandb: Any, mlflow: Any) -> None:
    given = keys(log_wandb=True, log_mlflow=True, finetune_modes=["ctr"], plain_baseline=False, frozen_layers=None)
    make: Callable[..., Any] = run_recbole_alt
    done = start_processes(2, make, ("ALT_DCN", "tiny", None, given))
    (tracked,) = in_mlflow(mlflow)
    assert_as_recorded(read_mlflow(mlflow, tracked), done["record"])
    assert len(list(Path("wandb").glob("offline-run-*"))) == 1
