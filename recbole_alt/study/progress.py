"""What a study says while it runs: its own lines on the console, and the time that is left."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean
from typing import Any

from recbole_alt.study.axes import Run

logger = logging.getLogger("recbole_alt.study")


@contextmanager
def quiet() -> Iterator[None]:
    """On the console only the study's own lines, and each warning once; the log file has everything."""
    root = logging.getLogger()
    consoles = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    if root.level <= logging.DEBUG:
        consoles = []
    warned: set[str] = set()

    def worth_showing(record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING:  # every training would repeat it
            known = record.getMessage() in warned
            warned.add(record.getMessage())
            return not known
        return record.name == logger.name or record.levelno > logging.WARNING

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
    """What validation says of a run or trial of a campaign; the test set is for the report."""
    if record["error"]:
        return f"diverged ({record['error']})"
    reached = ", ".join(f"{name} {value:.4f}" for name, value in record["valid"].items())
    aligned = f" and {show_seconds(record['aligned'])} of alignment" if record["aligned"] else ""
    return f"valid {reached} in {show_seconds(record['wall'])}{aligned}"


@dataclass(frozen=True)
class Unit:
    """A part of a campaign: ``kind`` is ``run`` or ``trial``, the latter with its parameters in words."""

    kind: str
    run: Run
    parameters: str = ""


class Remaining:
    """Counts trainings and alignments to come, and estimates their time by those of their kind that ended.

    Args:
        alignment_of: Names the alignment that a run starts from; variants may share one.
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
        self.pending.pop(unit, None)
        self.done[unit.kind] += 1
        self.measured.setdefault(_kind(unit.run), []).append(record["wall"])
        if unit.run.stage != "plain":
            self.aligned.add(self.alignment_of(unit.run))
            if record["aligned"]:
                self.measured.setdefault(_kind(unit.run.alignment), []).append(record["aligned"])

    def count(self, kind: str) -> int:
        """Units of ``kind`` to come."""
        return sum(unit.kind == kind for unit in self.pending)

    def alignments(self) -> list[Run]:
        """One run of each alignment to come."""
        runs = [unit.run for unit in self.pending if unit.run.stage != "plain"]
        first = {self.alignment_of(run): run.alignment for run in runs}
        return [run for name, run in first.items() if name not in self.aligned]

    def __str__(self) -> str:
        if not self.pending:
            return "nothing to go"
        runs = [*(unit.run for unit, trained in self.pending.items() if trained), *self.alignments()]
        seconds, unknown = 0.0, Counter[str]()
        for kind, count in Counter(map(_kind, runs)).items():
            known = self._seconds(kind)
            seconds += (known or 0.0) * count
            if known is None:
                unknown["alignment" if kind[2] == "pretrain" else kind[2]] += count
        text = f"{self.count('run')} runs and {self.count('trial')} trials to go"
        text += f", about {show_seconds(seconds)}" if seconds else ""
        what = ", ".join(f"{count} {stage}" for stage, count in unknown.items())
        return f"{text} (not measured yet: {what})" if what else text

    def _seconds(self, kind: tuple[Any, ...]) -> float | None:
        """Mean seconds of the nearest kind that was measured: another ablation's, another model's."""
        for length in (5, 4, 3):
            near = [s for known, all_ in self.measured.items() if known[:length] == kind[:length] for s in all_]
            if near:
                return mean(near)
        return None


def _kind(run: Run) -> tuple[Any, ...]:
    return (run.data.label, run.train_share, run.stage, run.model, run.variant)
