"""What the folder of a run holds besides checkpoints, and how it is found and gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_alt.files import read_record
from recbole_alt.trainer.curves import Curves

#: The file, in the folder of a run, of what :func:`~recbole_alt.model.machine.settle_machine` found.
MACHINE = "machine.json"
#: The file, in the folder of a run, of what :func:`~recbole_alt.extending.extend` added to it.
EXTENSION = "extension.json"


@dataclass
class StageResult:
    """What a stage cost and, except for the alignment, what it reached.

    Attributes:
        seconds: wall-clock seconds of training; validation included, loading and testing not.
        texts_encoded: texts the language model encoded in training and validation, in all processes.
        peak_memory_mib: see :class:`PeakMemory`, of the first process, since the stage last went on; None in older
            records.
        valid, test: metrics of the epoch that validation chose, in lower case (``auc``, ``logloss``).
        details: steps, final losses and the like.
        slices: ``valid`` and ``test`` → :func:`~recbole_alt.scores.slice_metrics` of the same predictions; empty where
            items are ranked.
        curves: points of the step or epoch and the loss there, by objective; of finetuning ``loss`` and ``valid``, the
            score that chose the epoch; empty in older records.
        calibration: see :func:`~recbole_alt.statistics.reliability`, of the test rows; empty without labelled ones.
    """

    seconds: float
    texts_encoded: int
    peak_memory_mib: float | None = None
    valid: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    slices: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    calibration: dict[str, list[float]] = field(default_factory=dict)


def read_stage(file: Path) -> StageResult:
    """What a finished stage left in its JSON file; a ValueError if it is damaged, or of something else."""
    try:
        return StageResult(**read_record(file))
    except TypeError:
        raise ValueError(f"{str(file)!r} is damaged or was not written by recbole_alt: it is of no stage") from None


def find_folder(resume: str, root: Path, name: str, record: str) -> Path:
    """The folder with a file ``record`` that ``resume`` names, or for ``last`` the latest ``<name>-…`` in ``root``.

    Raises:
        ValueError: There is none.
    """
    if resume != "last":
        if not Path(resume, record).is_file():
            raise ValueError(f"resume: {resume!r} is not the folder of a run (it has no {record})")
        return Path(resume)
    files = sorted(root.glob(f"{name}-*/{record}"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise ValueError(f"resume: last finds no {name}-… in {str(root)!r}")
    return files[-1].parent


def require_equal(option: str, folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], remedy: str) -> None:
    """Refuse to go on in ``folder`` with other settings than it was begun with.

    Raises:
        ValueError: Names ``option``, the first setting that differs, both values, and what to do.
    """
    for key in sorted(before.keys() | now.keys()):
        if (was := before.get(key)) != (value := now.get(key)):
            said = f"{option}: {key} was {was!r} in {str(folder)!r} and is {value!r} now"
            raise ValueError(f"{said}: give the same value, {remedy}")
