"""From single runs to one row per model and mode: mean ± standard deviation over seeds, paired differences, facts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from logging import getLogger
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from recbole_alt.files import read_record
from recbole_alt.metrics import auc
from recbole_alt.scores import Scores, popularity_bins
from recbole_alt.study.axes import COMPLETE, PLAIN
from recbole_alt.study.statistics import bootstrap_differences, p_value, reliability

METRICS = ["valid_auc", "valid_logloss", "auc", "logloss", "gauc", "cold_user_auc", "cold_item_auc"]
COUNTS = ["rows", "cold_user_rows", "cold_item_rows", "gauc_users", "gauc_left_out"]
COSTS = ["seconds", "texts_encoded", "alignment_seconds", "alignment_texts_encoded", "alignment_interactions_seen",
         "alignment_steps", "alignment_peak_memory_mib", "peak_memory_mib"]  # fmt: skip
#: Columns that hold more than one number, which plots are drawn from.
CURVES = ["popularity", "calibration"]
_STAGES = ("plain", "ctr", "lm", "joint")

Record = dict[str, Any]  # of one run
Row = dict[str, Any]  # of one cell, over its seeds


class Cell(NamedTuple):
    """What a run is of, apart from its seed."""

    data: str
    train_share: float
    model: str
    language_model: str | None
    variant: str
    stage: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Cell:
        """The cell of a row, or of the ``run`` of a record."""
        return cls(*(row[name] for name in cls._fields))

    @property
    def place(self) -> tuple[Any, ...]:
        """Sort key in tables: plain first, then the complete method and its ablations, by mode."""
        first = {PLAIN: 0, COMPLETE: 1}.get(self.variant, 2)
        return (*self[:3], self.language_model or "", first, self.variant, _STAGES.index(self.stage))

    @property
    def bases(self) -> dict[str, Cell]:
        """The cells it is compared with, by the prefix of the columns that show it."""
        plain = self._replace(language_model=None, variant=PLAIN, stage="plain")
        bases = {"vs_plain": plain, "vs_complete": self._replace(variant=COMPLETE)}
        return {name: base for name, base in bases.items() if self.variant not in (PLAIN, base.variant)}


def read_runs(folder: Path) -> list[Record]:
    """The finished runs of a campaign; of those that were made twice, as settings changed, the last one.

    Raises:
        ValueError: If there is none.
    """
    latest: dict[tuple[Cell, int], Record] = {}
    records = [read_record(file) | {"folder": str(file.parent)} for file in sorted(folder.glob("runs/*/run.json"))]
    for record in sorted(records, key=lambda record: record["ended"]):
        key = (Cell.of(record["run"]), record["run"]["seed"])
        if key in latest:
            getLogger().warning(f"{latest[key]['folder']} is left out: {record['folder']} is the same run, made later")
        latest[key] = record
    if not latest:
        raise ValueError(f"out: {str(folder)!r} holds no finished run")
    return list(latest.values())


def group_runs(records: Sequence[Record]) -> dict[Cell, dict[int, Record]]:
    """Runs by cell, in the order of tables, and by seed."""
    groups: dict[Cell, dict[int, Record]] = {}
    for record in sorted(records, key=lambda record: (Cell.of(record["run"]).place, record["run"]["seed"])):
        groups.setdefault(Cell.of(record["run"]), {})[record["run"]["seed"]] = record
    return groups


def flat(record: Record) -> Row:
    """One run as a line of ``runs.csv``."""
    measured = record["test"] | {f"valid_{name}": value for name, value in record["valid"].items()}
    row = record["run"] | {name: measured.get(name) for name in (*METRICS, *COUNTS)}
    return row | record["costs"] | record["parameters"] | {name: record[name] for name in ("error", "folder")}


def summarise(records: Sequence[Record], resamples: int = 400) -> list[Row]:
    """One row per cell; its keys are the columns of ``results.csv``, and :data:`CURVES`, which are not flat.

    ``vs_plain_*`` and, for ablations, ``vs_complete_*`` are means of paired differences, with ``_sd`` (over seeds),
    ``_low`` and ``_high`` (95 % bootstrap over test rows) and ``_p`` (paired t-test over seeds).
    """
    groups = group_runs(records)
    good = {cell: {seed: run for seed, run in runs.items() if not run["error"]} for cell, runs in groups.items()}
    rows = []
    for cell, runs in groups.items():
        values, first = _frame(good[cell], [*METRICS, *COSTS]), next(iter(good[cell].values()), None)
        row = cell._asdict() | {"seeds": " ".join(map(str, runs)), "diverged": len(runs) - len(good[cell])}
        row |= _mean_and_sd(values[METRICS]) | values[COSTS].mean().to_dict()
        row |= {name: first and first["test"].get(name) for name in COUNTS}
        row["popularity"] = by_popularity(good[cell])
        row["calibration"] = first and reliability(scores_of(first).label, scores_of(first).score)
        row["parameters"] = json.dumps(next(iter(runs.values()))["parameters"])
        row["tuned_alone"] = any(run.get("tuned_alone") for run in runs.values())  # older campaigns lack it
        for prefix, base in cell.bases.items():
            if base in groups:
                found = difference(good[base], good[cell], resamples)
                row |= {f"{prefix}_{name}": value for name, value in found.items()}
        rows.append({name: None if isinstance(value, float) and isnan(value) else value for name, value in row.items()})
    return rows


def by_popularity(runs: Mapping[int, Record]) -> dict[str, Any]:
    """Bin of the item's training interactions → its ``rows``, and ``auc`` of the seeds that have both classes in it."""
    bins: dict[str, Any] = {}
    for seed, scores in ((seed, scores_of(run)) for seed, run in runs.items()):
        for name, inside in {} if scores.item_seen is None else popularity_bins(scores.item_seen).items():
            if not inside.any():
                continue
            one = bins.setdefault(name, {"rows": int(inside.sum()), "auc": {}})
            if (value := auc(scores.label[inside], scores.score[inside])) is not None:
                one["auc"][str(seed)] = value
    return bins


def difference(base: Mapping[int, Record], other: Mapping[int, Record], resamples: int) -> Row:
    """``other`` less ``base`` over the seeds that both have, each with its own partner.

    Raises:
        ValueError: If they scored different test rows.
    """
    seeds = [seed for seed in base if seed in other]
    result: Row = {"pairs": len(seeds)}
    if not seeds:
        return result
    changes = (_frame(other, METRICS) - _frame(base, METRICS)).loc[seeds].dropna(axis="columns")
    result |= _mean_and_sd(changes) | {f"{name}_p": p_value(change) for name, change in changes.items()}
    before, after = ([scores_of(runs[seed]) for seed in seeds] for runs in (base, other))
    if not all(scores.same_rows(before[0]) for scores in (*before, *after)):
        raise ValueError(f"{base[seeds[0]]['folder']} and {other[seeds[0]]['folder']} are of other test rows")
    scored = [[scores.score for scores in of] for of in (before, after)]
    for name, interval in bootstrap_differences(before[0].label, *scored, resamples=resamples).items():
        result |= dict(zip((f"{name}_low", f"{name}_high"), interval or (None, None), strict=True))
    return result


def facts_of(records: Sequence[Record]) -> Row:
    """Dataset, label rule, split, language model, commands and versions of one cell's runs, as columns of its row."""
    record = records[0]
    config, evaluation = record["configuration"], record["configuration"]["eval_args"]
    rule = [f"{name} ≥ {value} is a click" for name, value in (config["threshold"] or {}).items()]
    rule += [f"only {name} within {value}" for name, value in (config["val_interval"] or {}).items()]
    nothing = {"language_model_layers": "all", "frozen_layers": "none"}
    layers, frozen = (none if config[key] is None else config[key] for key, none in nothing.items())
    aligned = record["run"]["stage"] != "plain"
    return {
        "dataset": config["dataset"],
        "label_rule": "; ".join(rule) or "label as given",
        "split": f"{evaluation['split']} in order {evaluation['order']}, drawn with seed {config['split_seed']}",
        **{f"{part}_rows": record["rows"][part] for part in ("train", "valid", "test")},
        "encoder": f"{config['language_model']}, layers: {layers}, of these not aligned: {frozen}" if aligned else None,
        "prompt_scope": config["prompt_scope"] if aligned else None,
        "tuning_seeds": record.get("tuning_seeds"),  # older campaigns lack it
        # JSON lists, as seeds of one cell may have come later, by another command
        "commands": json.dumps(distinct(shlex.join(["python", *run["command"]]) for run in records)),
        "versions": json.dumps(distinct(", ".join(map(" ".join, run["versions"].items())) for run in records)),
    }


def distinct(texts: Iterable[str]) -> list[str]:
    """``texts`` without repetitions, in order."""
    return list(dict.fromkeys(texts))


def scores_of(run: Record) -> Scores:
    """The scores of a run's test rows."""
    return _load(Path(run["folder"], "scores.npz").resolve())


_load = lru_cache(maxsize=16)(Scores.load)


def _frame(runs: Mapping[int, Record], columns: list[str]) -> pd.DataFrame:
    """Numbers of runs: a line for each seed, NaN where a run lacks one."""
    return pd.DataFrame([flat(run) for run in runs.values()], index=list(runs), columns=columns).astype(float)


def _mean_and_sd(values: pd.DataFrame) -> Row:
    summary = values.agg(["mean", "std"]).set_axis(["", "_sd"]).unstack()
    return {f"{name}{end}": value for (name, end), value in summary.items()}
