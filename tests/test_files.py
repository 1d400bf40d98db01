"""Files that survive: written whole or not at all, damage is an error, a folder has one owner."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from interruptions import full_disk

from recbole_alt import checkpoints, files
from recbole_alt.experiment import Experiment
from recbole_alt.run_folder import StageResult, read_stage

STATE: dict[str, Any] = {"weights": {"a": torch.arange(9.0)}, "step": 3, "losses": [0.5, None], "rng": torch.arange(4)}
SETTINGS = {"seed": 2020, "topk": [10], "precision": "fp32", "data_path": "/data/ä", "finetune": {"lm": {"epochs": 2}}}

# -- whole, or not at all ----------------------------------------------------------------------------------


def test_a_file_is_on_disk_before_it_takes_its_name_and_its_name_is_on_disk_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        done.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def rename(old: Any, new: Any) -> None:
        assert Path(old).read_text() == '{\n "a": 1\n}\n'
        done.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    files.write_json(tmp_path / "x.json", {"a": 1})
    assert done == ["fsync x.json.partial", "replace", f"fsync {tmp_path.name}"]


WRITERS: dict[str, Callable[[Path, Any], None]] = {
    "json": files.write_json,
    "record": files.write_record,
    "checkpoint": lambda file, content: checkpoints.save(content, file),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("room", [0, 1, 100, 700])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    kind: str, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x"
    WRITERS[kind](file, {"a": "old"})
    before = file.read_bytes()
    full_disk(monkeypatch, room)
    with pytest.raises(files.CannotWrite, match=r"^'.*/x' can't be written \(No space left on device\): make room$"):
        WRITERS[kind](file, {"a": list(range(9000))})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert file.read_bytes() == before


def test_errors_and_stops_while_writing_leave_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.json"
    files.write_text(file, "old")
    with pytest.raises(KeyboardInterrupt), files.replacing(file) as stream:
        stream.write(b"new")
        raise KeyboardInterrupt
    for call, number, remedy in (
        ("fsync", errno.EIO, "see to the disk"),
        ("replace", errno.EROFS, "give a folder that can be written"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, lambda *_, number=number: (_ for _ in ()).throw(OSError(number, "no")))
            with pytest.raises(files.CannotWrite, match=rf"x\.json' can't be written \(no\): {remedy}"):
                files.write_text(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"] and file.read_text() == "old"


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    files.write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "file").read_text() == "text"


# -- damage ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good")
    checkpoints.save(STATE, folder / "ctr.pth")
    files.write_record(folder / "config.json", SETTINGS)
    files.write_record(folder / "ctr.json", vars(StageResult(1.5, 2, 3.0, {"auc": 0.5}, {"auc": 0.75})))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


READERS: dict[str, Callable[[Path], Any]] = {
    "ctr.pth": checkpoints.load,
    "config.json": files.read_record,
    "ctr.json": read_stage,
}


def refused(name: str, content: bytes, folder: Path) -> None:
    file = folder / name
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or was not written by recbole_alt") as caught:
        READERS[name](file)
    assert str(file) in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), tail=st.booleans())
def test_a_damaged_byte_is_an_error(
    name: str, place: float, bits: int, tail: bool, good: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(good[name])
    among = min(len(content), 120) if tail else len(content)  # the checksum itself is at the end
    content[len(content) - 1 - int(place * among)] ^= bits
    refused(name, bytes(content), tmp_path)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(length=st.floats(0, 1, exclude_max=True))
@example(length=0.0)
def test_a_file_cut_off_is_an_error(name: str, length: float, good: dict[str, bytes], tmp_path: Path) -> None:
    refused(name, good[name][: int(length * len(good[name]))], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_every_byte_counts(name: str, good: dict[str, bytes], tmp_path: Path) -> None:
    content = good[name]
    for place in range(len(content)):
        refused(name, content[:place], tmp_path)
        for bits in (1, 2, 0x20, 0x80, 0xFF):
            refused(name, content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :], tmp_path)


def test_what_is_not_damaged_is_read_also_by_torch_and_also_without_checksum(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    checkpoints.save(STATE, file)
    stock = torch.load(file, weights_only=True, mmap=True)
    torch.save(STATE, tmp_path / "older.pth")
    for state in (checkpoints.load(file), stock, checkpoints.load(tmp_path / "older.pth")):
        assert torch.equal(state["weights"]["a"], STATE["weights"]["a"]) and state["losses"] == STATE["losses"]
    assert checkpoints.load(file).keys() == STATE.keys()
    files.write_record(tmp_path / "x.json", SETTINGS)
    files.write_json(tmp_path / "older.json", SETTINGS)
    assert files.read_record(tmp_path / "x.json") == files.read_record(tmp_path / "older.json") == SETTINGS
    assert files.read_json(tmp_path / "x.json").items() > SETTINGS.items()
    with pytest.raises(ValueError, match=r"none.json' can't be read \(No such file or directory\)"):
        files.read_record(tmp_path / "none.json")
    with pytest.raises(ValueError, match="of no stage"):
        read_stage(tmp_path / "older.json")


def test_a_run_with_a_damaged_file_does_not_go_on(tiny: Any) -> None:
    keys = {"finetune_modes": [], "epochs": 1}
    with Experiment(tiny(**keys)) as run:
        run.finetune("plain")
    for name in ("plain.json", "config.json"):
        file = run.folder / name
        content = file.read_bytes()
        file.write_bytes(content.replace(b"0", b"1", 1))
        with pytest.raises(ValueError, match=rf"{name}' is damaged"):  # noqa: SIM117
            with Experiment(tiny(resume=str(run.folder), **keys)) as again:
                again.finetune("plain")
        file.write_bytes(content)


# -- who may write where -----------------------------------------------------------------------------------

HOLDER = "import sys, pathlib, files; held = files.lock(pathlib.Path(sys.argv[1])); print(flush=True); input()"


def test_a_folder_is_of_one_process_until_it_dies(tmp_path: Path) -> None:
    alone = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parent)}  # it needs nothing else of the package
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=alone)
    assert other.stdin and other.stdout and other.stdout.readline()
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"^'{tmp_path}' is in use by process {other.pid} on \S+: wait"):
            files.lock(tmp_path)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    taken = files.lock(tmp_path)
    with pytest.raises(ValueError, match=f"process {os.getpid()} "):
        files.lock(tmp_path)
    taken.release()
    files.lock(tmp_path).release()


def test_two_runs_do_not_share_a_folder(tiny: Any) -> None:
    with Experiment(tiny()) as run:
        other = Experiment(tiny())
        assert other.folder != run.folder
        other.close()
        with pytest.raises(ValueError, match=rf"{run.folder}' is in use by process {os.getpid()}"):
            Experiment(tiny(resume=str(run.folder)))
    Experiment(tiny(resume=str(run.folder))).close()


def test_a_place_that_cannot_be_written_is_refused_at_the_start(keys: Any, tmp_path: Path) -> None:
    from recbole_alt import run_recbole_alt

    Path("folder").mkdir()
    Path("file").write_text("mine")
    for changes, words in (
        ({"result_file": "folder"}, "^result_file: 'folder' is a folder; name a file$"),
        ({"result_file": "file/x.json"}, r"^result_file: 'file/x.json' can't be written in '.*file' \(it is a file\)"),
        ({"result_file": "/dev/null"}, "^result_file: '/dev/null' is no file"),
        ({"checkpoint_dir": "file"}, r"^checkpoint_dir: 'file' can't be written in 'file' \(it is a file\)"),
        ({"checkpoint_dir": "/proc/saved"}, "^checkpoint_dir: '/proc/saved' can't be written"),
    ):
        with pytest.raises(ValueError, match=words):
            run_recbole_alt("ALT_DCN", "none", None, keys(**changes))  # before the data, of which there are none
    assert Path("file").read_text() == "mine" and not list(Path("folder").iterdir())


def test_a_folder_is_filled_as_a_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    with pytest.raises(ZeroDivisionError), files.filling("onnx", folder) as made:
        (made / "model").write_text("new")
        raise ZeroDivisionError
    assert not folder.exists()
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "linked").write_text("old")
    (folder / "deep" / "model").symlink_to(tmp_path / "linked")
    (folder / "other").write_text("mine")
    for stops in (True, False):
        with suppress(ZeroDivisionError), files.filling("onnx", folder) as made:
            (made / "deep").mkdir()
            (made / "deep" / "model").write_text("new")
            if stops:
                raise ZeroDivisionError
        assert (folder / "deep" / "model").read_text() == ("old" if stops else "new")
        assert sorted(file.name for file in folder.iterdir()) == ["deep", "other"]
    assert (folder / "deep" / "model").is_symlink() and (folder / "other").read_text() == "mine"
