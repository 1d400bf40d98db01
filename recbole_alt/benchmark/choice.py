"""What validation chooses from: parameters, tried with one seed or several."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from recbole_alt.files import read_record
from recbole_alt.study.axes import Run
from recbole_alt.tuning.trials import best_trial


@dataclass(frozen=True)
class Trial:
    """Parameters to try.

    Attributes:
        parameters: key → value.
        files: where the record of the training with each seed is or will be; its weights are in the folder beside it,
            of the same name without suffix.
    """

    parameters: dict[str, Any]
    files: dict[Run, Path]

    @property
    def is_over(self) -> bool:
        """With every seed."""
        return all(file.is_file() for file in self.files.values())

    def outcome(self) -> dict[str, Any]:
        """``score``, the mean over the seeds or None where one diverged, and whether ``bigger`` is better."""
        records = [read_record(file) for file in self.files.values()]
        scores = [record["score"] for record in records]
        return {"trial": self, "score": None if None in scores else fmean(scores), "bigger": records[0]["bigger"]}


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The best of finished trials, the first of equals; None where all diverged."""
    best = best_trial([trial.outcome() for trial in trials])
    return best["trial"] if best else None


def keep_the_best(trials: Sequence[Trial]) -> None:
    """Delete the weights of all trials but the best, which runs may be made of."""
    best = best_of(trials)
    for trial in trials:
        if trial is not best:
            for file in trial.files.values():
                shutil.rmtree(file.with_suffix(""), ignore_errors=True)
