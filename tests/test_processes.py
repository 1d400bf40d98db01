"""Several processes that train together: two of them learn what one does, and the end of one is the end of all."""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import torch
import yaml
from together import differences, learn, resume

from recbole_alt import launch, processes
from recbole_alt.checkpoints import load
from recbole_alt.cli.errors import REFUSED, exit_status
from recbole_alt.config import ALTConfig
from recbole_alt.launch import LostProcess, check_launch, joined, launched, require_one_process, start_processes
from recbole_alt.model.shared_norm import SharedBatchNorm
from recbole_alt.processes import Share
from recbole_alt.study import run_campaign

EVERY = ["masked_language", "contrastive", "masked_tabular", "field_contrastive", "field_prediction"]
MODES = ["ctr", "lm", "joint", "plain"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def equal(keys: Any, tmp_path: Path, one_thread: None) -> Any:
    """``equal(model, stages, number=2, **keys)``: assert that so many processes learn what one does.

    Adam moves a bias before a normalisation, on which no loss of training depends, by its rounding; the statistics of
    evaluation follow late. So finetuning has another learner, and what alignment measures in evaluation may differ.
    """
    without_dropout = {"dropout_prob": 0.0, "dropout_probs": [0.0, 0.0, 0.0]}
    defaults = {"pretrain_steps": 50, "frozen_layers": None, "text_cache_dir": None, "epochs": 3, "objectives": EVERY}
    defaults |= {"learner": "sgd", "learning_rate": 0.003}

    def check(model: str, stages: list[str], number: int = 2, **changes: Any) -> None:
        given = keys(**defaults | without_dropout | changes)
        given["load_col"]["inter"] = ["user_id", "item_id", "rating", "device"]  # no large numbers, whose means round
        one, several = ({**given, "checkpoint_dir": str(tmp_path / name)} for name in ("one", "several"))
        expected = learn(model, one, stages)
        found = start_processes(number, learn, (model, several, stages, str(tmp_path / "one")))
        assert len(expected["pretrain"]["loss/contrastive"]) == 50
        different = differences(expected, found)
        assert different.pop("pretrain held_out") < 0.02
        assert max(different.values()) <= 1e-4, different

    return check


def test_two_processes_learn_what_one_does(equal: Any) -> None:
    equal("ALT_DCN", ["pretrain", "ctr", "joint"])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ALT_DeepFM", "ALT_xDeepFM", "ALT_AutoInt", "ALT_DCNV2", "ALT_NFM"])
def test_two_processes_learn_what_one_does_with(model: str, equal: Any) -> None:
    equal(model, ["pretrain", *MODES])


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["entity", "interaction"])
@pytest.mark.parametrize("frozen", [None, "all"])
def test_two_processes_learn_what_one_does_in_both_scopes(scope: str, frozen: str | None, equal: Any) -> None:
    equal("ALT_DCN", ["pretrain", *MODES], prompt_scope=scope, frozen_layers=frozen, freeze_language_model=bool(frozen))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"contrast_head": "published", "objectives": EVERY[:3]},
        {"mask_level": "token", "masked_tabular_loss": "sampled_softmax", "masked_language_positions": 20},
        {"prompt_scope": "interaction", "frozen_layers": "all", "pretrain_batch_size": 4, "train_batch_size": 42},
        {"grounded": ["item"], "text_field": ["user"], "pretrain_stopping_step": 60},
    ],
)
def test_three_processes_learn_what_one_does(changes: dict[str, Any], equal: Any) -> None:
    equal("ALT_DCN", ["pretrain", "ctr", "joint"], number=3, **changes)


def test_texts_that_are_not_encoded_beforehand_are_found(keys: Any, tmp_path: Path) -> None:
    """As they are where an alignment reads fewer texts than there are."""
    given = keys(pretrain_steps=1, pretrain_batch_size=4, frozen_layers="all", text_cache_dir=None)
    one, several = ({**given, "checkpoint_dir": str(tmp_path / name)} for name in ("one", "several"))
    expected = learn("ALT_DCN", one, ["pretrain"])["pretrain"]
    found = start_processes(2, learn, ("ALT_DCN", several, ["pretrain"], ""))["pretrain"]
    for name in ("loss/contrastive", "loss/masked_language", "loss/masked_tabular"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "plain"])
def test_several_processes_go_on_exactly(stage: str, keys: Any, tmp_path: Path) -> None:
    given = keys(pretrain_steps=8, checkpoint_seconds=0, checkpoint_dir=str(tmp_path), frozen_layers=None)
    assert start_processes(2, resume, ("ALT_DCN", given, stage, 5)) == 0


# -- a whole run -------------------------------------------------------------------------------------------


def _written(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*/result.json")
    return json.loads(file.read_text())


@pytest.mark.slow
def test_one_killed_process_ends_all_and_the_run_goes_on(keys: Any, tmp_path: Path) -> None:
    given = keys(pretrain_steps=150, checkpoint_seconds=0.2, frozen_layers=None, checkpoint_dir="saved", epochs=1)
    given["finetune_modes"] = ["ctr"]
    Path("run.yaml").write_text(yaml.safe_dump(given))
    command = [sys.executable, str(ROOT / "run_recbole_alt.py"), "--dataset=tiny", "--config_files=run.yaml"]
    alone = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    two = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29713"}
    first, second = (
        subprocess.Popen(
            command, env={**os.environ, **alone, **two, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    )  # fmt: skip
    while not list(Path("saved").glob("*/pretrain.pth")):
        assert first.poll() is None and second.poll() is None
        sleep(0.1)
    second.kill()
    begun = monotonic()
    said = first.communicate(timeout=60)[1]
    second.communicate()
    (folder,) = Path("saved").iterdir()
    how = f"error: another process of this run has ended, and so does process 1 of 2 and go on with --resume={folder}"
    assert monotonic() - begun < 60 and first.returncode == 2 and said.splitlines() == [how]

    refused = subprocess.run(
        [*command, f"--resume={folder}"], env={**os.environ, **alone}, capture_output=True, text=True
    )
    assert refused.returncode == 2 and refused.stderr.startswith("error: resume: processes was 2 in ")

    again = [*command, "--nproc=2", f"--resume={folder}"]
    subprocess.run(again, env={**os.environ, **alone}, check=True)
    assert set(_written(Path("saved"))["stages"]) >= {"pretrain", "ctr", "plain"}
    assert load(folder / "pretrain.pth")["step"] == 150
    assert len(list(Path("log/ALT_DCN").iterdir())) <= 3  # one for each start that got so far


# -- shares ------------------------------------------------------------------------------------------------


@pytest.fixture
def among(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``among(number, rank)``: be one of so many processes, as far as shares go."""

    def be(number: int, rank: int) -> None:
        monkeypatch.setattr(processes, "count", lambda: number)
        monkeypatch.setattr(processes, "rank", lambda: rank)

    return be


@pytest.mark.parametrize("whole", [2, 3, 7, 100])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_shares_are_all_rows_once_and_weigh_as_many(whole: int, number: int, among: Any) -> None:
    if whole < number:
        among(number, 1)
        assert Share.of(whole).take(list(range(whole))) == list(range(whole)) and Share.of(whole).weight == 1
        return
    rows: list[int] = []
    mean = 0.0
    for rank in range(number):
        among(number, rank)
        share = Share.of(whole)
        own = share.take(list(range(whole)))
        rows += own
        mean += share.weight * sum(own) / len(own) / number
    assert rows == list(range(whole)) and mean == pytest.approx(sum(rows) / whole)


@pytest.mark.parametrize("most", [None, 7])
@pytest.mark.parametrize("number", [2, 3])
def test_processes_choose_the_masked_tokens_that_one_does(
    most: int | None, number: int, alignment: Any, among: Any
) -> None:
    b = alignment(objectives=["masked_language"], masked_language_positions=most, reg_weight=0.0)

    def predicted() -> tuple[list[tuple[int, int]], float]:
        *_, rows, tokens, weight = b.model.prepare(b.rows, b.texts, b.masks).prepared["masked_language"]
        return list(zip(rows.tolist(), tokens.tolist(), strict=True)), weight

    expected, weight = predicted()
    assert weight == 1 and (len(expected) == most or most is None)
    found = []
    for rank in range(number):
        among(number, rank)
        own, weight = predicted()
        assert len(own) < len(expected) and weight == pytest.approx(number * len(own) / len(expected))
        found += own
    assert sorted(found) == sorted(expected)


def test_norms_of_shared_rows_are_those_of_all_rows(among: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(2, 6, 5, 3)
    plain, shared = torch.nn.BatchNorm1d(5), SharedBatchNorm(5)
    among(2, 0)
    monkeypatch.setattr(processes, "add_up", lambda own: own)  # as if all rows were here
    for part in (rows[0], rows[1], rows[0, :, :, 0]):
        torch.testing.assert_close(shared(part), plain(part))
    torch.testing.assert_close(dict(shared.named_buffers()), dict(plain.named_buffers()))
    torch.testing.assert_close(shared.eval()(rows[0]), plain.eval()(rows[0]))


# -- what is refused ---------------------------------------------------------------------------------------


def test_another_number_of_processes_can_not_go_on() -> None:
    processes.require_same({}, "x.pth")
    with pytest.raises(ValueError, match=r"^'x.pth' was written by 2 process\(es\) and there are 1 now: start as many"):
        processes.require_same({"processes": 2}, "x.pth")


def test_keys_of_a_launch_that_is_not_ours_are_refused(keys: Any) -> None:
    check_launch({"nproc": 2, "world_size": -1})
    check_launch({"nproc": 2, "world_size": 2})
    for given, says in (
        ({"local_rank": 0}, "local_rank is 0, and must be left out"),
        ({"world_size": 2}, "world_size is 2"),
    ):
        with pytest.raises(ValueError, match=says):
            ALTConfig("ALT_DCN", "tiny", None, keys() | given)
    with pytest.raises(ValueError, match=r"^nproc must be"):
        ALTConfig("ALT_DCN", "tiny", None, keys() | {"nproc": 0})


@pytest.mark.slow
def test_processes_of_torchrun_tell_a_mistake_once() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command = [*torchrun, str(ROOT / "run_recbole_alt.py"), "--model=ALT_DCN", "--dataset=ml-100k", "--seed=one"]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode and told.stderr.count("error: seed must be") == 1


@pytest.mark.parametrize(
    "local_rank, was_joined, waits", [(None, False, 0), ("0", False, 0), ("1", False, 1), ("1", True, 0)]
)
def test_only_what_every_process_would_tell_waits_for_the_first(
    local_rank: str | None,
    was_joined: bool,
    waits: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(launch, "sleep", waited.append)
    monkeypatch.setattr(launch, "_was_joined", threading.Event())
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    if was_joined:
        launch._was_joined.set()
    assert exit_status(lambda: int("x")) == REFUSED
    assert len(waited) == waits and capsys.readouterr().err.startswith("error: invalid literal")


def test_an_environment_that_is_not_of_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ValueError, match=r"^WORLD_SIZE is '2' in the environment, and RANK is not set: start with torch"
    ):
        launched()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match=r"^WORLD_SIZE is 'two' in the environment, and must be the number"):
        launched()


def test_comparing_and_tuning_take_one_process(campaign: Any, tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^nproc is 2, and tune takes one process: start others with --resume"):
        tune("learning_rate choice [1e-3]\n", {"nproc": 2})
    require_one_process("this", "do that", {"nproc": 1})
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"^WORLD_SIZE is '2' in the environment, and compare takes one process"):
        run_campaign(campaign(), Path("out"))


def _fail(text: str) -> None:
    if os.environ["RANK"] == text:
        error = ValueError(f"{text} is refused")
        vars(error).update(__notes__=["a note"])
        raise error
    sleep(60)


def _kill(text: str) -> None:
    if os.environ["RANK"] == text:
        os.kill(os.getpid(), signal.SIGKILL)
    sleep(60)


def _refer_to_itself(file: str) -> None:
    def list_threads() -> None:
        tasks = Path("/proc/self/task").glob("*/comm")
        Path(f"{file}{os.environ['RANK']}").write_text(" ".join(task.read_text().strip() for task in tasks))

    atexit.register(list_threads)  # is called after those that are registered later
    gc.disable()
    with joined({"device": torch.device("cpu")}):
        module = torch.nn.Linear(2, 1)
        vars(module)["itself"] = processes.averaging(module, module.forward)
        vars(module)["itself"](torch.ones(1, 2)).sum().backward()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads in /proc")
def test_no_thread_of_torch_is_left_when_python_ends(tmp_path: Path) -> None:
    start_processes(2, _refer_to_itself, [f"{tmp_path}/"])
    for rank in "01":
        threads = (tmp_path / rank).read_text()
        assert "python" in threads and "gloo" not in threads


@pytest.mark.slow
def test_what_stops_a_process_that_was_started_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_alt.launch._GRACE", 0.5)
    with pytest.raises(ValueError, match=r"^1 is refused") as refused:
        start_processes(2, _fail, ["1"])
    assert vars(refused.value)["__notes__"] == ["a note"]
    with pytest.raises(LostProcess, match=r"^process 1 of 2 was killed \(SIGKILL\)$"):
        start_processes(2, _kill, ["0"])


@pytest.mark.slow
def test_a_script_from_standard_input_is_told_why_it_can_not_start_processes(tmp_path: Path) -> None:
    script = "from recbole_alt.launch import start_processes\nstart_processes(2, print, ())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-"], input=script, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ValueError: process ")
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]
