"""Whatever goes wrong is one line: bad input, a machine that refuses, Ctrl-C, and faults of our own."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_alt import __main__ as run_main
from recbole_alt import console, diagnose, export, files, probe
from recbole_alt.arguments import Parser
from recbole_alt.benchmark import __main__ as campaign_main
from recbole_alt.benchmark import histories
from recbole_alt.convert import __main__ as convert_main
from recbole_alt.tuning import __main__ as tuning_main


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The log file of a run, beside a console that shows errors."""
    root, before = logging.getLogger(), logging.getLogger().handlers
    file = logging.FileHandler(tmp_path / "run.log")
    root.handlers = [file, logging.StreamHandler(sys.stderr)]
    yield tmp_path / "run.log"
    file.close()
    root.handlers = before


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def going_on(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        with console.going_on("go on with --resume=F"):
            raise error

    return work


MEMORY = "error: not enough memory: lower train_batch_size, pretrain_batch_size, text_batch_size, eval_batch_size, or "
MEMORY += "take a smaller language model"
full = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("work", "status", "line"),
    [
        (raising(ValueError("lr: 3\nmust be 2")), 2, "error: lr: 3 must be 2"),
        (raising(files.CannotWrite("a", full)), 2, "error: 'a' can't be written (No space left on device): make room"),
        (
            going_on(files.CannotWrite("a", full)),
            2,
            "error: 'a' can't be written (No space left on device): make room and go on with --resume=F",
        ),
        (
            going_on(OSError(errno.EIO, "Input/output error")),
            2,
            "error: \"a log file or TensorBoard's curves\" can't be written (Input/output error): see to the disk and "
            "go on with --resume=F",
        ),
        (
            raising(PermissionError(errno.EACCES, "Permission denied", "d.inter")),
            2,
            "error: 'd.inter': Permission denied",
        ),
        (raising(torch.OutOfMemoryError("CUDA out of memory. Tried")), 2, MEMORY),
        (raising(RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried")), 2, MEMORY),
        (going_on(KeyboardInterrupt()), 130, "stopped: go on with --resume=F"),
        (raising(KeyboardInterrupt()), 130, "stopped: nothing written"),
        (
            raising(KeyError("field")),
            70,
            "error: internal error KeyError: 'field': please report it with the log file ",
        ),
        (raising(TypeError("a\nb")), 70, "error: internal error TypeError: a b: please report it with the log file "),
        (raising(OSError("odd")), 70, "error: internal error OSError: odd: please report it with the log file "),
    ],
)
def test_one_line(
    work: Callable[[], None], status: int, line: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.run(work, stopped="nothing written") == status
    said = capsys.readouterr().err
    if status == console.FAULT:
        name = said.strip().removeprefix(line)
        assert Path(name).samefile(log) and len(said.splitlines()) == 1
        assert "Traceback" in log.read_text() and "in raising" not in said and "raise error" in log.read_text()
    else:
        assert said == line + "\n"
        assert (line in log.read_text()) == (status == 2)


def test_a_fault_before_there_is_a_log_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert console.run(raising(IndexError(3))) == 70
    file = Path(capsys.readouterr().err.strip().rpartition(" ")[2])
    assert "IndexError: 3" in file.read_text()
    file.unlink()


@pytest.mark.parametrize(
    ("module", "called", "arguments"),
    [
        (run_main, "recbole_alt.run_recbole_alt", []),
        (tuning_main, "recbole_alt.tuning.run_hyper_alt", []),
        (campaign_main, "recbole_alt.benchmark.run_campaign", ["--out=x", "--models=DCN", "--datasets=tiny"]),
        (histories, "recbole_alt.benchmark.histories.measure", ["x"]),
        (convert_main, "recbole_alt.convert.__main__.convert", ["ml-1m", "x"]),
        (export, "recbole_alt.export.to_recbole", ["x", "--recbole=y"]),
        (probe, "recbole_alt.probe.probe", ["x"]),
        (diagnose, "recbole_alt.diagnose.diagnose", ["x"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_command_has_the_boundary(
    module: Any, called: str, arguments: list[str], log: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise NotImplementedError("not even thought of")

    monkeypatch.setattr(called, fail)
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    assert module.main() == 70
    assert capsys.readouterr().err.startswith("error: internal error NotImplementedError: not even thought of: please")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--seed", "3"], "'--seed' is not understood: write --seed=3"),
        (["--seed"], "'--seed' is not understood: write --seed=value"),
        (["seed=3"], "'seed=3' is not understood: write --key=value"),
        (["--epochs=1", "3"], "'3' is not understood: write --key=value"),
        (["--", "3"], "'--' is not understood: write --key=value"),
    ],
)
def test_what_is_no_key_with_a_value_is_answered_with_what_to_write(
    given: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *given])
    with pytest.raises(SystemExit) as caught:
        Parser().parse_with_keys()
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {line}"


def test_an_abbreviated_option_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["command", "--models=a", "--model=b", "--seed=1"])
    parser = Parser()
    parser.add_argument("--models")
    options, left = parser.parse_with_keys()
    assert (options.models, left) == ("a", ["--model=b", "--seed=1"])


def test_ctrl_c_tells_how_to_go_on(
    keys: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recbole_alt import run_recbole_alt
    from recbole_alt.experiment import Experiment

    monkeypatch.setattr(Experiment, "finetune", lambda *_: raising(KeyboardInterrupt())())
    given = keys(finetune_modes=[])
    assert console.run(lambda: run_recbole_alt("ALT_DCN", "tiny", None, given)) == 130
    (folder,) = Path("saved").iterdir()
    assert capsys.readouterr().err.endswith(f"stopped: go on with --resume={folder}\n")
    files.lock(folder).release()  # and it is free


def test_divergence_is_an_exception_of_its_own(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_alt.experiment import Experiment
    from recbole_alt.model.recommender import ALTRecommender
    from recbole_alt.trainer.diverged import Diverged

    with Experiment(tiny(finetune_modes=[], epochs=1)) as run:
        for method in ("calculate_loss", "predict"):  # the weights may be lost in the very last step
            real = getattr(ALTRecommender, method)
            with monkeypatch.context() as patch, pytest.raises(Diverged, match="is not a number"):
                patch.setattr(ALTRecommender, method, lambda self, rows, real=real: real(self, rows) * torch.nan)
                run.finetune("plain")
    with (
        Experiment(tiny(pretrain_learning_rate=1e30, pretrain_steps=9)) as run,
        pytest.raises(Diverged, match="at step"),
    ):
        run.pretrain()
    assert issubclass(Diverged, ValueError)
