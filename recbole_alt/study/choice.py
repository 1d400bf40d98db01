"""What validation chooses from in a campaign: parameters, tried with one seed or several."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from recbole_alt.files import read_record
from recbole_alt.study.axes import Run
from recbole_alt.study.store import best_of


@dataclass(frozen=True)
class Trial:
    """Parameters to try.

    Attributes:
        parameters: Key → value.
        files: The record of the training with each seed, made or to be made; its weights are in the folder beside it,
            of the same name without suffix.
    """

    parameters: dict[str, Any]
    files: dict[Run, Path]

    @property
    def is_over(self) -> bool:
        """Whether every seed has been trained."""
        return all(file.is_file() for file in self.files.values())

    def outcome(self) -> dict[str, Any]:
        """``score``, the mean over the seeds or None where one diverged, and whether ``bigger`` is better."""
        records = [read_record(file) for file in self.files.values()]
        scores = [record["score"] for record in records]
        return {"trial": self, "score": None if None in scores else fmean(scores), "bigger": records[0]["bigger"]}


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The best of trials that are over, the first of equals; None where all diverged."""
    best = best_of([trial.outcome() for trial in trials])
    return best["trial"] if best else None


def drop_losers(trials: Sequence[Trial]) -> None:
    """Delete the weights of all trials but the best, which runs may be made of."""
    best = best_trial(trials)
    for trial in trials:
        for file in trial.files.values() if trial is not best else ():
            shutil.rmtree(file.with_suffix(""), ignore_errors=True)
