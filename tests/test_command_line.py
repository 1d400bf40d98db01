"""The command line: its commands, its help, and that whatever goes wrong is one line."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import recbole_alt
from recbole_alt import files, stopping
from recbole_alt.__main__ import main as module_main
from recbole_alt.cli import dispatch, errors, main
from recbole_alt.key_table import KEYS

ROOT = Path(__file__).resolve().parent.parent


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
        with stopping.going_on("go on with --resume=F"):
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
    assert errors.exit_status(work, stopped="nothing written") == status
    said = capsys.readouterr().err
    if status == errors.FAULT:
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
    assert errors.exit_status(raising(IndexError(3))) == 70
    file = Path(capsys.readouterr().err.strip().rpartition(" ")[2])
    assert "IndexError: 3" in file.read_text()
    file.unlink()


CALLED = {
    "run": ("recbole_alt.quick_start.run_recbole_alt", []),
    "tune": ("recbole_alt.study.run_hyper_alt", []),
    "compare": ("recbole_alt.study.run_campaign", ["--out=x", "--models=DCN", "--datasets=tiny"]),
    "convert": ("recbole_alt.cli.convert.convert", ["ml-1m", "x"]),
    "predict": ("recbole_alt.prediction.predict", ["x", "y", "--out=z.csv"]),
    "extend": ("recbole_alt.extending.extend", ["x", "--out=y"]),
    "export": ("recbole_alt.exporting.to_recbole", ["x", "--recbole=y"]),
    "probe": ("recbole_alt.questions.probe.probe", ["x"]),
    "unseen": ("recbole_alt.questions.unseen.unseen", ["x"]),
    "diagnose": ("recbole_alt.questions.diagnose.diagnose", ["x"]),
    "keys": ("recbole_alt.config.ALTConfig", []),
}


@pytest.mark.parametrize("command", dispatch.COMMANDS)
def test_every_command_has_the_boundary(
    command: str, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called, words = CALLED[command]
    monkeypatch.setattr(called, lambda *_, **__: raising(NotImplementedError("not even thought of"))())
    assert main([command, *words]) == 70
    assert capsys.readouterr().err.startswith("error: internal error NotImplementedError: not even thought of: please")


# -- which command, with what ---------------------------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every call of ``run_recbole_alt``, which does nothing."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("recbole_alt.quick_start.run_recbole_alt", lambda **given: calls.append(given))
    return calls


@pytest.mark.parametrize("words", [["run"], []], ids=["run", "no command"])
def test_run_passes_options_and_keys_on(words: list[str], ran: list[dict[str, Any]]) -> None:
    given = ["--epochs=3", "--model", "ALT_FM", "--config_files=a.yaml b.yaml", "--wandb_project=a=b"]
    assert main([*words, *given]) == 0
    arguments = ["--model=ALT_FM", "--config_files=a.yaml b.yaml", "--epochs=3", "--wandb_project=a=b"]
    assert ran == [{"arguments": arguments}]


@pytest.mark.parametrize(("key", "default"), [("model", "ALT_DCN"), ("dataset", "ml-100k")])
@pytest.mark.parametrize("command", ["run", "tune"])
def test_an_empty_name_is_not_the_default(
    command: str, key: str, default: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, f"--{key}="]) == 2
    assert f"{key} is empty: name one, or leave it out, which means {default}" in capsys.readouterr().err


def test_the_module_is_the_command_with_the_words_of_the_process(
    ran: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["--seed=4"], []):
        monkeypatch.setattr(sys, "argv", ["run_recbole_alt.py", *words])
        assert module_main() == 0
    assert ran == [{"arguments": ["--seed=4"]}, {"arguments": []}]


def test_tune_passes_its_options_and_the_keys_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("recbole_alt.study.run_hyper_alt", lambda **given: calls.append(given))
    assert main(["--algo=random", "--max_evals=3", "--seed=4", "--model=ALT_FM"], command="tune") == 0
    (call,) = calls
    assert {name: value for name, value in call.items() if value not in (None, [])} == {
        "model": "ALT_FM", "params_file": "finetune", "algo": "random", "max_evals": 3,
        "arguments": ["--seed=4"],
    }  # fmt: skip


def test_compare_keeps_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("recbole_alt.study.run_campaign", lambda *given: calls.append(given))
    Path("x/report").mkdir(parents=True)
    Path("x/report/tables.md").touch()
    words = ["--out=x", "--models=DCN", "--datasets=tiny", "--epochs=3"]
    for given in (["compare", *words], words):
        assert main(given, command=None if "compare" in given else "compare") == 0
    for campaign, folder, command in calls:
        assert (campaign.models, campaign.keys, folder) == (["DCN"], {"epochs": "3"}, Path("x"))
        assert command == ["run_compatibility.py", *words]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["rnu"], "invalid choice: 'rnu' (choose from 'run', 'tune', 'compare',"),
        (["--epochs", "5"], "'--epochs' is not understood: write --epochs=5"),
        (["run", "--epochs", "5"], "'--epochs' is not understood: write --epochs=5"),
        (["tune", "more"], "'more' is not understood: write --key=value"),
        (["run", "--model=A", "--model=B"], "--model is given twice: 'A' and 'B'"),
        (["tune", "--stage", "ctr", "--stage=lm"], "--stage is given twice: 'ctr' and 'lm'"),
        (["tune", "--seed=1", "--seed=2"], "--seed is given twice: '1' and '2'"),
        (["tune", "--max_evals=few"], "--max_evals: invalid int value: 'few'"),
        (["compare"], "the following arguments are required: --out"),
        (["compare", "--out=x", "--variants={a: 1, a: 2}"], "--variants: '{a: 1, a: 2}': a is given twice"),
        (["probe", "x", "y"], "'y' is not understood: see recbole-alt probe --help"),
        (["diagnose", "x", "--epochs=5"], "'--epochs=5' is not understood: see recbole-alt diagnose --help"),
        (["convert", "ml-2m", "x"], "invalid choice: 'ml-2m'"),
    ],
)
def test_a_line_that_is_not_understood(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    usage, _, last = capsys.readouterr().err.strip().rpartition("\n")
    assert usage.startswith("usage: recbole-alt") and last.startswith("error: ") and line in last


def test_keys_are_listed_with_what_they_may_be_and_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys"]) == 0
    listed = capsys.readouterr().out
    for name in KEYS:
        assert f"\n{name}: " in f"\n{listed}", name
    assert main(["keys", "mask_rat", "--model=ALT_FM"]) == 0
    expected = recbole_alt.ALTConfig("ALT_FM")["mask_ratio"]
    assert capsys.readouterr().out.splitlines() == [
        f"mask_ratio: {expected}",
        f"    {KEYS['mask_ratio'].about}; must be {KEYS['mask_ratio'].kind.says}",
    ]
    assert main(["keys", "nothing_like_it"]) == 2


# -- help ---------------------------------------------------------------------------------------------------------

_HELP = """
import sys
from contextlib import suppress
from recbole_alt_command import main
for words in (["--help"], ["--version"], *([name, "--help"] for name in sys.argv[1:])):
    sys.argv = ["recbole-alt", *words]
    with suppress(SystemExit):
        main()
print([name for name in ("torch", "recbole", "pandas") if name in sys.modules])
"""


def test_help_of_every_command_waits_for_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HELP, *dispatch.COMMANDS], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for words in ("[-h] [--version] COMMAND", *(f"{name} [-h]" for name in dispatch.COMMANDS)):
        assert f"usage: recbole-alt {words}" in done.stdout
    assert f"recbole-alt {recbole_alt.__version__}" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("script", "command"), [("run_recbole_alt", "run"), ("run_hyper_alt", "tune"), ("run_compatibility", "compare")]
)
def test_scripts_are_commands(script: str, command: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{script}.py"), "-h"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.startswith(f"usage: recbole-alt {command} ")


def test_a_started_command_offers_the_whole_package() -> None:
    code = (
        "import recbole_alt_command as c; c.starting = True; import sys, recbole_alt; print('torch' in sys.modules); "
        "print(recbole_alt.ALTConfig('ALT_FM')['model'], hasattr(recbole_alt, 'nothing')); "
        "print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.split() == ["False", "ALT_FM", "False", "False"], done.stderr  # what takes seconds comes late


# -- stops --------------------------------------------------------------------------------------------------------


def test_ctrl_c_tells_how_to_go_on(
    keys: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recbole_alt.experiment import Experiment

    monkeypatch.setattr(Experiment, "finetune", lambda *_: raising(KeyboardInterrupt())())
    given = keys(finetune_modes=[])
    assert errors.exit_status(lambda: recbole_alt.run_recbole_alt("ALT_DCN", "tiny", None, given)) == 130
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
