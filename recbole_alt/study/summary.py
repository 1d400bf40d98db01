"""From single runs to one row per model and mode: mean ± sd over seeds, and paired differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from logging import getLogger
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from recbole_alt.files import read_record
from recbole_alt.study.axes import COMPLETE, PLAIN
from recbole_alt.study.scores import Scores, popularity_bins
from recbole_alt.study.statistics import auc, bootstrap_differences, paired_t_test, reliability

METRICS = ("valid_auc", "valid_logloss", "auc", "logloss", "gauc", "cold_user_auc", "cold_item_auc")
COSTS = ("seconds", "texts_encoded", "alignment_seconds", "alignment_texts_encoded", "alignment_interactions_seen",
         "alignment_steps", "alignment_peak_memory_mib", "peak_memory_mib")  # fmt: skip
#: What a row is of, apart from its seeds.
CELL = ("data", "train_share", "model", "language_model", "variant", "stage")
#: Columns that hold more than one number: what plots are drawn from.
CURVES = ("popularity", "calibration")
_ORDER = {name: position for position, name in enumerate(("plain", "ctr", "lm", "joint"))}

Cell = tuple[Any, ...]
Record = dict[str, Any]  # of one run
Row = dict[str, Any]  # of one cell, over its seeds


def read_runs(folder: Path) -> list[Record]:
    """The finished runs of a campaign; where settings changed and a run was made again, the last one.

    Raises:
        ValueError: there is none.
    """
    latest: dict[tuple[Cell, int], Record] = {}
    files = sorted(folder.glob("runs/*/run.json"))
    records = [read_record(file) | {"folder": str(file.parent)} for file in files]
    for record in sorted(records, key=lambda record: record["ended"]):
        key = (cell_of(record), record["run"]["seed"])
        if key in latest:
            getLogger().warning(f"{latest[key]['folder']} is left out: {record['folder']} is the same run, made later")
        latest[key] = record
    if not latest:
        raise ValueError(f"out: {str(folder)!r} holds no finished run")
    return list(latest.values())


def cell_of(record: Record) -> Cell:
    """What a run is of, apart from its seed."""
    return tuple(record["run"][name] for name in CELL)


def grouped(records: Sequence[Record]) -> dict[Cell, dict[int, Record]]:
    """Runs by cell and seed, plain first, then the complete method and its ablations, by mode."""
    groups: dict[Cell, dict[int, Record]] = {}
    for record in sorted(records, key=lambda record: record["run"]["seed"]):
        groups.setdefault(cell_of(record), {})[record["run"]["seed"]] = record
    return {cell: groups[cell] for cell in sorted(groups, key=place_of)}


def place_of(cell: Cell) -> tuple[Any, ...]:
    """Where a cell stands among others in tables."""
    data, share, model, language, variant, stage = cell
    first = {PLAIN: 0, COMPLETE: 1}.get(variant, 2)
    return (data, share, model, language or "", first, variant, _ORDER[stage])


def base_of(cell: Cell) -> Cell:
    """The plain backbone that a cell is compared with."""
    data, share, model, *_ = cell
    return (data, share, model, None, PLAIN, "plain")


def complete_of(cell: Cell) -> Cell:
    """The complete method that an ablation is compared with."""
    data, share, model, language, _, stage = cell
    return (data, share, model, language, COMPLETE, stage)


def summarise(records: Sequence[Record], resamples: int = 400) -> list[Row]:
    """One row per cell; keys are the columns of ``results.csv``, and :data:`CURVES`, which are not flat.

    ``vs_plain_*`` and, for ablations, ``vs_complete_*`` are means of paired differences, with ``_sd`` (over seeds),
    ``_low`` and ``_high`` (95 % bootstrap over test rows) and ``_p`` (paired t-test over seeds).
    """
    groups = grouped(records)
    rows = []
    for cell, runs in groups.items():
        good = {seed: run for seed, run in runs.items() if run["error"] is None}
        row: Row = dict(zip(CELL, cell, strict=True))
        row["seeds"] = " ".join(map(str, runs))
        row["diverged"] = len(runs) - len(good)
        for name in METRICS:
            row[name], row[f"{name}_sd"] = _mean_sd([value_of(run, name) for run in good.values()])
        for name in COSTS:
            row[name] = _mean_sd([run["costs"].get(name) for run in good.values()])[0]
        for name in ("rows", "cold_user_rows", "cold_item_rows", "gauc_users", "gauc_left_out"):
            row[name] = next((run["test"].get(name) for run in good.values()), None)
        row["popularity"] = by_popularity(good)
        row["calibration"] = calibration_of(next(iter(good.values()))) if good else None
        row["parameters"] = json.dumps(next(iter(runs.values()))["parameters"])
        row["tuned_alone"] = any(run.get("tuned_alone") for run in runs.values())  # older campaigns lack it
        for prefix, other in (("vs_plain", base_of(cell)), ("vs_complete", complete_of(cell))):
            applies = cell != other and cell[4] != PLAIN and not (prefix == "vs_complete" and cell[4] == COMPLETE)
            if applies and other in groups:
                row |= {f"{prefix}_{k}": v for k, v in difference(groups[other], good, resamples).items()}
        rows.append(row)
    return rows


def by_popularity(runs: Mapping[int, Record]) -> dict[str, Any]:
    """Bin of the item's training interactions → its ``rows``, and ``auc`` by seed where there are both classes."""
    bins: dict[str, Any] = {}
    for seed, run in runs.items():
        scores = scores_of(run)
        if scores.item_seen is None:
            continue
        for name, inside in popularity_bins(scores.item_seen):
            one = bins.setdefault(name, {"rows": int(inside.sum()), "auc": {}})
            value = auc(scores.label[inside], scores.score[inside])
            if value is not None:
                one["auc"][str(seed)] = value
    return bins


def calibration_of(run: Record) -> dict[str, list[float]]:
    """``predicted`` and ``clicked`` of bins with as many test rows each."""
    scores = scores_of(run)
    return dict(zip(("predicted", "clicked"), reliability(scores.label, scores.score), strict=True))


def difference(base: Mapping[int, Record], other: Mapping[int, Record], resamples: int) -> dict[str, Any]:
    """``other`` less ``base`` over the seeds that both have, each with its own partner.

    Raises:
        ValueError: they scored other test rows.
    """
    seeds = [seed for seed, run in base.items() if seed in other and run["error"] is None]
    result: dict[str, Any] = {"pairs": len(seeds)}
    if not seeds:
        return result
    for name in METRICS:
        before = [value for seed in seeds if (value := value_of(base[seed], name)) is not None]
        after = [value for seed in seeds if (value := value_of(other[seed], name)) is not None]
        if len(before) == len(after) == len(seeds):
            result[name], result[f"{name}_sd"] = _mean_sd([b - a for a, b in zip(before, after, strict=True)])
            result[f"{name}_p"] = paired_t_test(before, after)
    pairs = [(scores_of(base[seed]), scores_of(other[seed])) for seed in seeds]
    for a, b in pairs:
        if not (a.same_rows(b) and a.same_rows(pairs[0][0])):
            raise ValueError(f"{base[seeds[0]]['folder']} and {other[seeds[0]]['folder']} are of other test rows")
    intervals = bootstrap_differences(
        pairs[0][0].label, [a.score for a, _ in pairs], [b.score for _, b in pairs], resamples=resamples
    )
    for name, interval in intervals.items():
        result[f"{name}_low"] = interval.low if interval else None
        result[f"{name}_high"] = interval.high if interval else None
    return result


def value_of(run: Record, name: str) -> float | None:
    """A metric of a run: of the test set, or with ``valid_`` before it of validation."""
    valid = name.startswith("valid_")
    return run["valid" if valid else "test"].get(name.removeprefix("valid_"))


def scores_of(run: Record) -> Scores:
    """The test rows of a run."""
    return _load(Path(run["folder"], "scores.npz").resolve())


@lru_cache(maxsize=16)
def _load(file: Path) -> Scores:
    return Scores.load(file)


def _mean_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    if not known:
        return None, None
    return fmean(known), stdev(known) if len(known) > 1 else None
