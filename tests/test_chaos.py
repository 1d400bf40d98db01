"""A run that is killed, again and again, ends as one left alone: the same weights and metrics, bit for bit."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from chaos import KINDS, outcome, start

#: Kills of the slow test, over all kinds.
KILLS = int(os.environ.get("KILLS", "50"))


def settings(keys: Any) -> dict[str, Any]:
    Path("ranges").write_text("learning_rate choice [1e-3, 1e-2]\n")
    return keys(checkpoint_seconds=0, pretrain_steps=3, epochs=2)


def finish(kind: str, place: Path, keys: dict[str, Any]) -> dict[str, Any]:
    process = start(kind, place, keys)
    process.join()
    assert process.exitcode == 0, (place / "said.txt").read_text()[-3000:]
    halves = [file for file in place.rglob("*.partial") if file.with_suffix("").exists()]
    assert halves == []  # but for the folder of a run that never began
    return outcome(kind, place)


def test_killed_while_writing(keys: Any, tmp_path: Path) -> None:
    given = settings(keys)
    whole = finish("ctr", tmp_path / "whole", given)
    for write in (1, 4, 5):  # config.json, and checkpoints before and after they are in place
        process = start("ctr", tmp_path / "killed", given, dies_at=write)
        process.join()
        assert process.exitcode == -9
    assert finish("ctr", tmp_path / "killed", given) == whole


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind: str, keys: Any, tmp_path: Path) -> None:
    given = settings(keys)
    whole = finish(kind, tmp_path / "whole", given)
    begun = time.monotonic()
    assert finish(kind, tmp_path / "again", given) == whole
    seconds = time.monotonic() - begun
    position = KINDS.index(kind)
    kills = KILLS * (position + 1) // len(KINDS) - KILLS * position // len(KINDS)
    moments, done, runs = random.Random(f"{kind} {kills}"), 0, 0
    while done < kills:
        place = tmp_path / f"killed-{runs}"
        runs += 1
        while done < kills:
            process = start(kind, place, given)
            process.join(moments.uniform(0, seconds))
            if process.exitcode is not None:
                assert process.exitcode == 0, (place / "said.txt").read_text()[-3000:]
                break
            process.kill()
            process.join()
            done += 1
        assert finish(kind, place, given) == whole
    print(f"{kind}: {done} kills in {runs} runs of {seconds:.1f} s, each equal to the one left alone")


@pytest.mark.slow
def test_a_tuning_that_two_processes_share_outlives_one_of_them(keys: Any, tmp_path: Path) -> None:
    given = settings(keys)
    Path("ranges").write_text("learning_rate choice [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]\n")
    whole = finish("tuning", tmp_path / "whole", given)
    place = tmp_path / "shared"
    first = start("tuning", place, given)
    while not list(place.glob("saved/*/trials/claim-1.lock")):
        time.sleep(0.05)
    second = start("tuning", place, given)
    while not list(place.glob("saved/*/trials/claim-3.lock")):
        assert second.exitcode is None, (place / "said.txt").read_text()[-3000:]
        time.sleep(0.05)
    first.kill()
    second.join()
    assert second.exitcode == 0, (place / "said.txt").read_text()[-3000:]
    assert outcome("tuning", place) == whole
