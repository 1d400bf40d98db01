"""What a study says while it runs: its own lines on the console, and the time that is left."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from recbole_alt.study.axes import Run

logger = logging.getLogger("recbole_alt.study")

#: A part of a campaign: ``run`` or ``trial``, of what, and the parameters of a trial in words.
Unit = tuple[str, Run, str]


@contextmanager
def quiet() -> Iterator[None]:
    """On the console only the study's own lines, and each warning once; the log file has everything."""
    root, warned = logging.getLogger(), set[str]()
    consoles = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]

    def worth_showing(record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return record.name == logger.name or record.levelno > logging.WARNING or root.level <= logging.DEBUG
        known = record.getMessage() in warned  # every training would repeat it
        warned.add(record.getMessage())
        return not known

    for handler in consoles:
        handler.addFilter(worth_showing)
    try:
        yield
    finally:
        for handler in consoles:
            handler.removeFilter(worth_showing)


def show(value: Any) -> str:
    """A value in few characters; parameters as ``name=value, …``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={show(one)}" for name, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_seconds(seconds: float) -> str:
    """A duration in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_outcome(record: Mapping[str, Any]) -> str:
    """What validation says of a training by its record; the test set is for the report."""
    if record["error"]:
        return f"diverged ({record['error']})"
    reached = ", ".join(f"{name} {value:.4f}" for name, value in record["valid"].items())
    aligned = f" and {show_seconds(record['aligned'])} of alignment" if record["aligned"] else ""
    return f"valid {reached} in {show_seconds(record['wall'])}{aligned}"


class Remaining:
    """Counts the trainings and alignments to come, and estimates their time by those of their kind that ended.

    Args:
        alignment_of: Names the alignment that a run starts from; runs may share one.
    """

    def __init__(self, alignment_of: Callable[[Run], str]) -> None:
        self.alignment_of = alignment_of
        self.pending: dict[Unit, bool] = {}  # whether it takes a training
        self.done = Counter[str]()
        self.aligned: set[str] = set()
        self.measured: dict[tuple[Any, ...], list[float]] = {}

    def add(self, unit: Unit, record: Mapping[str, Any] | None, trained: bool = True) -> None:
        """Plan a unit, with its record if it has ended before; ``trained`` if it takes a training of its own."""
        self.pending[unit] = trained
        if record is not None:
            self.end(unit, record)

    def end(self, unit: Unit, record: Mapping[str, Any]) -> None:
        """Count a unit that has ended."""
        kind, run, _ = unit
        self.pending.pop(unit, None)
        self.done[kind] += 1
        self.measured.setdefault(_kind(run), []).append(record["wall"])
        if run.stage != "plain":
            self.aligned.add(self.alignment_of(run))
            if record["aligned"]:
                self.measured.setdefault(_kind(run.alignment), []).append(record["aligned"])

    def count(self, kind: str) -> int:
        """Units of ``kind`` to come."""
        return sum(pending == kind for pending, _, _ in self.pending)

    def alignments(self) -> list[Run]:
        """One run of each alignment to come."""
        first = {self.alignment_of(run): run.alignment for _, run, _ in self.pending if run.stage != "plain"}
        return [run for name, run in first.items() if name not in self.aligned]

    def __str__(self) -> str:
        if not self.pending:
            return "nothing to go"
        runs = [*(run for (_, run, _), trained in self.pending.items() if trained), *self.alignments()]
        times = [(run, self._seconds(_kind(run))) for run in runs]
        seconds = sum(known or 0.0 for _, known in times)
        unknown = Counter(run.stage.replace("pretrain", "alignment") for run, known in times if known is None)
        text = f"{self.count('run')} runs and {self.count('trial')} trials to go"
        text += f", about {show_seconds(seconds)}" if seconds else ""
        what = ", ".join(f"{count} {stage}" for stage, count in unknown.items())
        return f"{text} (not measured yet: {what})" if what else text

    def _seconds(self, kind: tuple[Any, ...]) -> float | None:
        """Mean seconds of the nearest kind that was measured: another ablation's, another model's."""
        for length in (5, 4, 3):
            near = [s for known, all_ in self.measured.items() if known[:length] == kind[:length] for s in all_]
            if near:
                return fmean(near)
        return None


def _kind(run: Run) -> tuple[Any, ...]:
    return (run.data.label, run.train_share, run.stage, run.model, run.variant)
