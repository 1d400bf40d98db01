"""Steps per second of two processes of one thread each, against those of one process of one thread."""

from __future__ import annotations

import os
from collections.abc import Iterator

from harness import Result, alternate, rate
from setup import configure, pretraining, steps

from recbole_alt import processes
from recbole_alt.launch import joined, start_processes


def two_processes(quick: bool, data_path: str) -> Iterator[Result]:
    """Alignment with a trained encoder, in both scopes; who measures the single process is one of the two."""
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    for scope in ("entity", "interaction"):
        for layers in (2,) if quick else (2, None):
            mine, theirs = start_processes(2, measure, (scope, layers, 2 if quick else 8))
            ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
            name = f"two_processes/{scope}/{layers or 'all'}-layers"
            yield Result.of(name, ratios, 1.8, steps_per_second=mine, one_process=theirs)
    os.environ.update({} if threads is None else {"OMP_NUM_THREADS": threads})


def measure(scope: str, layers: int | None, rounds: int) -> tuple[list[float], list[float]]:
    """Steps per second of all processes together and of the first one alone, in each round."""
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

        return alternate(with_others, alone, rounds)
