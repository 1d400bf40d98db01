"""Steps per second of two processes of one thread each, against those of one process of one thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from statistics import median

from harness import Result, rate
from setup import configure, pretraining, steps

from recbole_alt import processes
from recbole_alt.launch import joined, start_processes


def two_processes(quick: bool, data_path: str) -> Iterator[Result]:
    """Alignment with a trained encoder, in both scopes; who measures the single process is one of the two."""
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    for scope in ("entity", "interaction"):
        for layers in (2,) if quick else (2, None):
            together, apart, single = start_processes(2, measure, (scope, layers, 2 if quick else 8))
            ratios = [a / b for a, b in zip(together, single, strict=True)]
            details = {"steps_per_second": together, "one_process": single, "two_runs": apart}
            details["two_runs_to_one"] = median(a / b for a, b in zip(apart, single, strict=True))
            yield Result.of(f"two_processes/{scope}/{layers or 'all'}-layers", ratios, 1.8, **details)
    os.environ.update({} if threads is None else {"OMP_NUM_THREADS": threads})


def measure(scope: str, layers: int | None, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Steps per second of both together, of two runs that know nothing of each other, and of one, in each round.

    The second is what this machine has to give: cores share memory, and some of them an execution unit.
    """
    with joined(configure()):
        together = pretraining("ml-100k", scope=scope, language_model_layers=layers)
        with processes.alone():
            single = pretraining("ml-100k", scope=scope, language_model_layers=layers)
        count = 2 if scope == "entity" else 8

        def with_others() -> float:
            processes.wait()
            return rate(lambda: steps(together, count) and count)

        def alone() -> float:
            processes.wait()
            if not processes.is_first():
                return 1.0
            with processes.alone():
                return rate(lambda: steps(single, count) and count)

        def apart() -> float:
            processes.wait()
            with processes.alone():
                own = rate(lambda: steps(single, count) and count)
            return processes.total(own)

        rates: tuple[list[float], ...] = ([], [], [])
        for i in range(rounds + 1):
            for measured, act in zip(rates, (with_others, apart, alone), strict=True):
                value = act()
                if i:  # the first round does not count
                    measured.append(value)
        return rates[0], rates[1], rates[2]
