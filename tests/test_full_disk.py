"""A disk that fills up costs one line and no finished file, and a run that goes on ends as one left alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import full_disk

from recbole_alt import checkpoints, files, run_recbole_alt

pytestmark = pytest.mark.usefixtures("one_thread")


def check_what_is_there(folder: Path) -> None:
    """Every file is whole, and there is nothing else."""
    assert not list(folder.rglob("*.partial"))
    for file in folder.rglob("*.pth"):
        checkpoints.load(file)
    for file in folder.rglob("*.json"):
        files.read_record(file)


def equal(one: Path, two: Path) -> None:
    """Both runs have the same weights and metrics."""
    names = {file.name for file in one.glob("*.pth")}
    assert names == {file.name for file in two.glob("*.pth")}
    for name in names:
        first, second = (checkpoints.load(folder / name) for folder in (one, two))
        for part in {"state_dict", "backbone", "text", "objectives"} & first.keys():
            assert all(torch.equal(value, second[part][key]) for key, value in first[part].items()), (name, part)
    first, second = (files.read_json(folder / "result.json")["results"] for folder in (one, two))
    assert first == second


def settings(keys: Any) -> dict[str, Any]:
    return keys(finetune_modes=["ctr"], checkpoint_seconds=0, pretrain_steps=3, epochs=1)


def run(given: dict[str, Any]) -> Path:
    return Path(run_recbole_alt("ALT_DCN", "tiny", None, given)["folder"])


def test_a_run_on_a_full_disk(keys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = 1e12
    with monkeypatch.context() as patch:
        left = full_disk(patch, plenty)
        whole = run(settings(keys))
    for share in (0.3, 0.55, 0.98):  # in alignment, in ctr, in the plain stage
        given = settings(keys) | {"checkpoint_dir": f"full-{share}"}
        with monkeypatch.context() as patch:
            full_disk(patch, share * (plenty - left[0]))
            words = r"can't be written \(No space left on device\): make room"
            with pytest.raises(files.CannotWrite, match=words) as error:
                run(given)
        (folder,) = Path(given["checkpoint_dir"]).iterdir()
        assert error.value.__notes__ == [f"go on with --resume={folder}"]
        check_what_is_there(folder)
        equal(run(given | {"resume": str(folder)}), whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
def test_a_command_on_a_small_file_system(
    keys: Any, small_disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Everything is there: checkpoints, curves and log."""
    monkeypatch.setenv(
        "OMP_NUM_THREADS", "1"
    )  # sums are rounded by the number of threads: the command's are this test's
    whole = run(settings(keys))
    size = sum(file.stat().st_size for file in whole.glob("*.pth"))
    monkeypatch.chdir(small_disk)
    subprocess.run(["mount", "-o", f"remount,size={int(size * 0.8)}", small_disk], check=True)
    given = {key: value for key, value in settings(keys).items() if value is not None}
    command = [sys.executable, "-m", "recbole_alt", "--model=ALT_DCN", "--dataset=tiny", "--checkpoint_dir=saved"]
    command += [f"--{key}={value}" for key, value in given.items() if key != "checkpoint_dir"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    (folder,) = Path("saved").iterdir()
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and last.endswith(f"make room and go on with --resume={folder}"), last
    assert "Traceback" not in done.stderr
    check_what_is_there(folder)
    subprocess.run(["mount", "-o", f"remount,size={size * 9}", small_disk], check=True)
    again = subprocess.run([*command, f"--resume={folder}"], capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    equal(folder, tmp_path / whole)
