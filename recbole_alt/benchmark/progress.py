"""What a campaign says: the plan, one line per training, and the time that is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from statistics import mean
from typing import Any

from recbole_alt.benchmark.plan import Campaign
from recbole_alt.study.axes import Run
from recbole_alt.tuning.progress import duration

#: ("run" or "trial", what, parameters of a trial)
Unit = tuple[str, Run, str]


class Remaining:
    """Counts trainings and alignments to come, and estimates their time by those of their kind that ended.

    Args:
        alignment_of: names the alignment that a run starts from; variants may share one.
    """

    def __init__(self, alignment_of: Callable[[Run], str]) -> None:
        self.alignment_of = alignment_of
        self.pending: dict[Unit, bool] = {}  # whether it takes a training
        self.done = Counter[str]()
        self.aligned: set[str] = set()
        self.measured: dict[tuple[Any, ...], list[float]] = {}

    def add(self, unit: Unit, record: Mapping[str, Any] | None, trained: bool = True) -> None:
        """A part of the plan, with its record where it ended before; ``trained`` if it takes a training of its own."""
        self.pending[unit] = trained
        if record is not None:
            self.end(unit, record)

    def end(self, unit: Unit, record: Mapping[str, Any]) -> None:
        """A training ended."""
        kind, run, _ = unit
        self.pending.pop(unit, None)
        self.done[kind] += 1
        self.measured.setdefault(_kind(run), []).append(record["wall"])
        if run.stage != "plain":
            self.aligned.add(self.alignment_of(run))
            if record["aligned"]:
                self.measured.setdefault(_kind(run.alignment), []).append(record["aligned"])

    def counts(self) -> dict[str, int]:
        """Trials, alignments and runs to come."""
        kinds = Counter(kind for kind, _, _ in self.pending)
        return {"trial": kinds["trial"], "alignment": len(self._alignments()), "run": kinds["run"]}

    def _alignments(self) -> list[Run]:
        """One run of each alignment to come."""
        first = {self.alignment_of(run): run.alignment for _, run, _ in self.pending if run.stage != "plain"}
        return [run for name, run in first.items() if name not in self.aligned]

    def __str__(self) -> str:
        if not self.pending:
            return "nothing to go"
        trained = [run for (_, run, _), takes_training in self.pending.items() if takes_training]
        units = Counter(_kind(run) for run in [*trained, *self._alignments()])
        seconds, unknown = 0.0, Counter[str]()
        for kind, count in units.items():
            known = self._of_kind(kind)
            if known is None:
                unknown[kind[2]] += count
            else:
                seconds += known * count
        counts = self.counts()
        text = f"{counts['run']} runs and {counts['trial']} trials to go"
        if seconds:
            text += f", about {duration(seconds)}"
        if unknown:
            names = {"pretrain": "alignment"}
            what = ", ".join(f"{count} {names.get(stage, stage)}" for stage, count in unknown.items())
            text += f" (not measured yet: {what})"
        return text

    def _of_kind(self, kind: tuple[Any, ...]) -> float | None:
        """Mean seconds of the nearest kind that was measured: another ablation's, another model's."""
        for length in (5, 4, 3):
            near = [s for known, all_ in self.measured.items() if known[:length] == kind[:length] for s in all_]
            if near:
                return mean(near)
        return None


def _kind(run: Run) -> tuple[Any, ...]:
    return (run.data.label, run.train_share, run.stage, run.model, run.variant)


def announce(campaign: Campaign, remaining: Remaining) -> Iterator[str]:
    """The plan, line by line."""
    counts, done = remaining.counts(), remaining.done
    for name in ("datasets", "train_shares", "models", "language_models", "modes", "ablations", "variants", "budgets",
                 "tuned_alone", "seeds"):  # fmt: skip
        values = [value.label for value in campaign.datasets] if name == "datasets" else getattr(campaign, name)
        if values and values not in ([None], [1.0]):
            yield f"{name}: {', '.join(map(str, values))}"
    for name, what in (("trial", "trials of tuning"), ("run", "runs")):
        yield f"{what}: {counts[name] + done[name]}, of which {done[name]} are done"
    yield f"alignments to make: {counts['alignment']}"
    yield str(remaining)


def outcome(record: Mapping[str, Any]) -> str:
    """What validation says of a training; the test set is for the report."""
    if record["error"]:
        return f"diverged ({record['error']})"
    reached = ", ".join(f"{name} {value:.4f}" for name, value in record["valid"].items())
    aligned = f" and {duration(record['aligned'])} of alignment" if record["aligned"] else ""
    return f"valid {reached} in {duration(record['wall'])}{aligned}"
