"""What a tuning says while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

from recbole_alt.tuning.trials import logger, show


class Progress:
    """One line before a trial and one after it.

    Args:
        total: the most trials there can be.
        metric: of validation.
        pretrains: whether every trial may need a pretraining of its own.
    """

    def __init__(self, total: int, metric: str, pretrains: bool):
        self.total, self.metric, self.pretrains = total, metric, pretrains
        self.begun = self.ended = self.trained = 0
        self.since, self.shared = monotonic(), 0.0
        self.best: tuple[float, str] | None = None
        self.numbers: dict[str, int] = {}  # trials may end in another order

    def begin(self, parameters: dict[str, Any]) -> None:
        """A trial begins."""
        self.begun += 1
        self.numbers[_listed(parameters)] = self.begun
        logger.info(f"trial {self.begun} of {self.total}: {_listed(parameters)}")

    def end(self, parameters: dict[str, Any], outcome: dict[str, Any]) -> None:
        """A trial ended with ``outcome``, what the objective returned."""
        self.ended += 1
        score, better = outcome["best_valid_score"], max if outcome["valid_score_bigger"] else min
        if outcome["error"]:
            said = f"diverged ({outcome['error']})"
        else:
            said = f"valid {self.metric} {score:.4f}"
            if self.best is None or (score != self.best[0] and better(score, self.best[0]) == score):
                self.best = (score, _listed(parameters))
        if outcome["kept"]:
            said += ", from before"
        else:
            self.trained += 1
            said += f" in {outcome['seconds']:.0f} s"
            self.shared += 0.0 if self.pretrains else outcome["pretrain_seconds"]
        if self.best:
            said += f"; best so far {self.best[0]:.4f} ({self.best[1]})"
        left = self.total - self.ended
        if self.trained and left > 0:
            seconds = (monotonic() - self.since - self.shared) / self.trained * left
            said += f"; at most {left} to go, about {duration(seconds)}"
        logger.info(f"trial {self.numbers[_listed(parameters)]} of {self.total}: {said}")


def _listed(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={show(value)}" for name, value in parameters.items())


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
