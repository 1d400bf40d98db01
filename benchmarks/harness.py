"""How two things are compared: alternating, in one process, as a ratio with its spread."""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from recbole_alt.values import rounded


@dataclass
class Result:
    """One figure.

    Attributes:
        name: of the benchmark, with what was varied behind a slash.
        ratio: median over the rounds.
        low: fifth percentile over the rounds; of few rounds the smallest.
        high: ninety-fifth percentile; of few rounds the largest.
        target: what it must reach: at least, or at most where ``at_most``.
        ok: whether it does.
        at_most: whether small is good.
        details: absolute figures behind the ratio, for this machine and moment only.
    """

    name: str
    ratio: float
    low: float
    high: float
    target: float
    ok: bool
    at_most: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, ratios: Sequence[float], target: float, *, at_most: bool = False, **details: Any) -> Result:
        """From the ratio of each round."""
        ranked, tail = sorted(ratios), len(ratios) // 20
        ratio = statistics.median(ranked)
        ok = ratio <= target if at_most else ratio >= target
        return cls(name, ratio, ranked[tail], ranked[-1 - tail], target, ok, at_most, details)

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        verdict = "ok" if self.ok else "MISSED"
        return (
            f"{self.name:32} {self.ratio:9.2f}x  ({self.low:.2f} to {self.high:.2f})  {sign} {self.target}  {verdict}"
        )


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long ``work`` takes, and what it returns."""
    gc.collect()
    begun = perf_counter()
    result = work()
    return perf_counter() - begun, result


def rate(work: Callable[[], int]) -> float:
    """What ``work`` returns, per second."""
    took, count = seconds(work)
    return count / took


def alternate(
    ours: Callable[[], float], reference: Callable[[], float], rounds: int
) -> tuple[list[float], list[float]]:
    """What each returned in each round, after one round that does not count; who goes first changes."""
    measured: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        for which in (0, 1) if i % 2 else (1, 0):
            value = (ours, reference)[which]()
            if i:
                measured[which].append(value)
    return measured


def status(name: str) -> float:
    """Kilobytes of this process, as Linux says: ``VmRSS`` now, ``VmHWM`` at most since it began.

    What ``getrusage`` calls the peak counts the process that started this one, too.
    """
    with open("/proc/self/status") as file:
        return next(float(line.split()[1]) for line in file if line.startswith(name))


def write(results: Sequence[Result], file: str) -> None:
    """All results as a JSON list, a line each, in eight digits; those of others that are in ``file`` already stay."""
    kept = json.loads(Path(file).read_text()) if Path(file).is_file() else []
    made = {result["name"]: result for result in kept} | {result.name: asdict(result) for result in results}
    Path(file).write_text("[\n" + ",\n".join(json.dumps(rounded(one, 8)) for one in made.values()) + "\n]\n")
