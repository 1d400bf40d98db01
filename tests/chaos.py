"""Whole runs in processes of their own, which can be killed, and what is left of them."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertModel  # noqa: F401 - before the fork, so that runs are all work

from recbole_alt import checkpoints, files, run_hyper_alt, run_recbole_alt
from recbole_alt.study import Campaign, run_campaign

STAGES: dict[str, dict[str, Any]] = {
    "alignment": {"finetune_modes": [], "plain_baseline": False},
    "ctr": {"finetune_modes": ["ctr"], "plain_baseline": False},
    "lm": {"finetune_modes": ["lm"], "plain_baseline": False},
    "joint": {"finetune_modes": ["joint"], "plain_baseline": False},
    "plain": {"finetune_modes": []},
}
KINDS = [*STAGES, "tuning", "campaign"]


def start(kind: str, place: Path, keys: dict[str, Any], dies_at: int | None = None) -> Any:
    """Begin in ``place``, or go on with what is there; kill it at its write number ``dies_at``.

    Odd writes are killed before the new file takes its name, even ones after.
    """
    context = multiprocessing.get_context("forkserver")  # of a process that no test has touched, with all imports done
    context.set_forkserver_preload(["chaos"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # Python 3.11 does not hand its path on
        forkserver.ensure_running()
    place.mkdir(exist_ok=True)
    process = context.Process(target=_work, args=(kind, place, keys, dies_at))
    process.start()
    return process


def _work(kind: str, place: Path, keys: dict[str, Any], dies_at: int | None) -> None:
    os.chdir(place)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    torch.set_num_threads(1)
    if dies_at is not None:
        _die_at(dies_at)
    if kind == "campaign":
        axes = {"models": ["DCN"], "datasets": ["tiny"], "seeds": 1, "modes": ["joint"], "params_file": "../ranges"}
        run_campaign(Campaign.from_mapping(axes | {"keys": keys}), Path("out"))
    elif kind == "tuning":
        begun = [file.parent for file in Path().glob("saved/*/tuning.json")]
        options = {"params_file": "../ranges", "stage": "ctr", "resume": str(begun[0]) if begun else None}
        run_hyper_alt("ALT_DCN", "tiny", None, keys, **options)
    else:
        begun = [file.parent for file in Path().glob("saved/*/config.json")]
        resume = {"resume": str(begun[0])} if begun else {}
        run_recbole_alt("ALT_DCN", "tiny", None, keys | STAGES[kind] | resume)


def _die_at(number: int) -> None:
    real, calls = os.replace, [0]

    def replace(*names: Any) -> None:
        calls[0] += 1
        if calls[0] == number and number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*names)
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace


def outcome(kind: str, place: Path) -> dict[str, Any]:
    """Weights and metrics of what ended in ``place``, without its times."""
    found: dict[str, Any] = {}
    for file in sorted(place.rglob("*.pth")):
        if not file.stem.endswith("-last"):
            found[file.name] = _digest(checkpoints.load(file))
    if kind == "campaign":
        for file in sorted(place.glob("out/runs/*.json")):
            record = files.read_record(file)
            found[file.stem] = {key: record[key] for key in ("parameters", "score", "valid", "test", "error")}
            if record["tested"]:
                with np.load(file.with_suffix("") / "scores.npz") as arrays:
                    found[f"{file.stem} scores"] = {name: arrays[name].tolist() for name in arrays.files}
        assert (place / "out" / "report" / "tables.md").is_file()
    elif kind == "tuning":
        (file,) = place.glob("saved/*/trials.json")
        record = files.read_json(file)
        found["best"] = record["best"]
        found["trials"] = [{key: t[key] for key in ("parameters", "score", "valid", "test")} for t in record["trials"]]
    else:
        (file,) = place.glob("saved/*/result.json")
        record = files.read_json(file)
        found["results"] = record["results"]
        found["final"] = record["stages"].get("pretrain", {}).get("final")
    return found


def _digest(state: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for part in ("state_dict", "backbone", "text", "objectives"):
        for name, tensor in sorted(state.get(part, {}).items()):
            digest.update(f"{part} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
