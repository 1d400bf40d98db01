"""From the runs of a campaign, or of several that were run apart, to its report: one row per model and mode.

A row holds mean ± standard deviation over seeds, paired differences, and the facts that these depend on.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from logging import getLogger
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_alt.files import read_json, replacing
from recbole_alt.metrics import auc, log_losses
from recbole_alt.reporting.comparison_page import comparison_page
from recbole_alt.reporting.facts import data_facts, text_facts
from recbole_alt.reporting.plots import draw_all
from recbole_alt.reporting.runs import COMPLETE, PLAIN, Run, distinct, read_training
from recbole_alt.reporting.tables import METRICS, Row, make_tables
from recbole_alt.scores import Scores, popularity_bins
from recbole_alt.statistics import bootstrap_differences, p_value, reliability
from recbole_alt.values import rounded

COUNTS = ["rows", "rare_item_rows", "new_item_rows", "new_user_rows", "gauc_users", "gauc_left_out"]
COSTS = ["seconds", "texts_encoded", "alignment_seconds", "alignment_texts_encoded", "alignment_interactions_seen",
         "alignment_steps", "alignment_peak_memory_mib", "peak_memory_mib"]  # fmt: skip
#: Columns that hold more than one number, which plots are drawn from.
CURVES = ["popularity", "calibration"]

Record = dict[str, Any]  # of one run

_OF_RUN = ("run", "valid", "test", "error", "costs", "parameters", "at_ends", "tuned_alone", "tuning_seeds",
           "tuning_trials", "configuration", "rows", "versions", "command", "ended")  # fmt: skip
_OF_ROW = (*(axis.name for axis in fields(Run)[:-1]), "seeds", "diverged", "auc", "logloss", "valid_auc", "tuned_alone",
           "at_ends", "base_entropy", *CURVES, "alignment_steps", "dataset", "label_rule", "split", "commands",
           "versions")  # fmt: skip


# -- writing -----------------------------------------------------------------------------------------------


def write_report(folder: Path, resamples: int = 400) -> list[Path]:
    """Write tables and plots of the finished runs in ``folder`` into ``folder/report``, and return their paths."""
    records = read_runs(folder)
    return _write(folder / "report", summarise(records, resamples), pd.DataFrame(map(flat, records), dtype=object))


def join_reports(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write one report, into ``out/report``, of campaigns or their ``report`` folders.

    It is made from their rows (``results.json``, ``runs.csv``); the runs need not be at hand.

    Raises:
        ValueError: If there is no report, one by an older version or of something else, two with the same rows, or
            one that would be overwritten.
    """
    found: dict[Run, tuple[Path, Row]] = {}
    runs: list[pd.DataFrame] = []
    for folder in folders:
        report = folder / "report" if (folder / "report").is_dir() else folder
        if report.resolve() == (out / "report").resolve():
            raise ValueError(f"join: {str(folder)!r} is to be joined, and would be overwritten; give another --out")
        if not all((report / name).is_file() for name in ("results.json", "runs.csv")):
            raise ValueError(f"join: {str(folder)!r} holds no report; make it with --out={folder} --report")
        for row in read_rows(report / "results.json"):
            if (run := Run.of(row)) in found:
                raise ValueError(f"join: {run} is in both {str(found[run][0])!r} and {str(folder)!r}; leave one out")
            found[run] = (folder, row)
        runs.append(_read_lines(report / "runs.csv"))
    rows = [found[run][1] for run in sorted(found, key=lambda run: run.place)]
    return _write(out / "report", rows, pd.concat(runs))


def read_rows(file: Path) -> list[Row]:
    """The rows of a ``results.json``: what they share, and what is a row's own, in the order of its ``columns``.

    Raises:
        ValueError: it can't be read, or was written by an older version.
    """
    record = read_json(file)
    if not (isinstance(record, dict) and record.keys() >= {"columns", "shared", "rows"}):
        raise ValueError(
            f"{str(file)!r} is of an older version, which kept its rows in another way; make the report again with "
            "--report where its runs are"
        )
    try:
        rows = [record["shared"] | own for own in record["rows"]]
        rows = [{name: row[name] for name in record["columns"] if name in row} for row in rows]
        lacking = [name for row in rows for name in _OF_ROW if name not in row]
    except TypeError:
        raise _foreign(file, "it holds no rows") from None
    if not rows or lacking:
        raise _foreign(file, f"a row lacks {lacking[0]}" if lacking else "it has no rows")
    return rows


def _read_lines(file: Path) -> pd.DataFrame:
    """A ``runs.csv``: a line for each run."""
    try:
        lines = pd.read_csv(file, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise _foreign(file, str(error)) from None
    if lacking := [axis.name for axis in fields(Run) if axis.name not in lines]:
        raise _foreign(file, f"it has no column {lacking[0]}")
    return lines


def _foreign(file: Path, reason: str) -> ValueError:
    made = "make the report again with --report where its runs are"
    return ValueError(f"{str(file)!r} is damaged or was not written by recbole_alt: {reason}; {made}")


def _results(rows: Sequence[Row]) -> str:
    """What :func:`read_rows` reads: a line for each row."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    everywhere = [name for name in columns if all(name in row and row[name] == rows[0][name] for row in rows)]
    shared = {name: rows[0][name] for name in everywhere}
    own = [{name: row[name] for name in columns if name in row and name not in shared} for row in rows]
    lines = [json.dumps(part, ensure_ascii=False, separators=(",", ":")) for part in (columns, shared, *own)]
    return '{{"columns":{},\n"shared":{},\n"rows":[\n{}\n]}}\n'.format(*lines[:2], ",\n".join(lines[2:]))


def _write(report: Path, rows: Sequence[Row], runs: pd.DataFrame) -> list[Path]:
    rows = [rounded(row, 8) for row in rows]
    tables, plots = make_tables(rows), draw_all(rows)
    texts = {
        "tables.md": "\n".join(table.markdown() for table in tables),
        "tables.tex": "\n".join(table.latex() for table in tables),
        "results.json": _results(rows),
        "results.csv": pd.DataFrame(rows, dtype=object).drop(columns=CURVES).to_csv(index=False, lineterminator="\n"),
        "runs.csv": runs.map(rounded, digits=6).to_csv(index=False, lineterminator="\n"),
        "report.html": comparison_page(rows, plots),
    }
    contents = {name: text.encode() for name, text in texts.items()} | plots
    for name, content in contents.items():
        with replacing(report / name) as stream:
            stream.write(content)
    return [report / name for name in contents]


# -- runs --------------------------------------------------------------------------------------------------


def read_runs(folder: Path) -> list[Record]:
    """The finished runs of a campaign; of those that were made twice, as settings changed, the last one."""
    latest: dict[Run, Record] = {}
    files = sorted(folder.glob("runs/*.json"))
    tested = [file for file in files if read_training(file)["tested"]]
    records = [read_training(file, _OF_RUN) | {"folder": str(file.with_suffix(""))} for file in tested]
    for record in sorted(records, key=lambda record: record["ended"]):
        if before := latest.get(run := Run(**record["run"])):
            getLogger().warning(f"{before['folder']} is left out: {record['folder']} is the same run, made later")
        latest[run] = record
    if not latest:
        raise ValueError(f"out: {str(folder)!r} holds no finished run")
    return list(latest.values())


def flat(record: Record) -> Row:
    """One run as a line of ``runs.csv``."""
    measured = record["test"] | {f"valid_{name}": value for name, value in record["valid"].items()}
    row = record["run"] | {name: measured.get(name) for name in (*METRICS, *COUNTS)}
    return row | record["costs"] | record["parameters"] | {name: record[name] for name in ("error", "folder")}


def scores_of(run: Record) -> Scores:
    """The scores of a run's test rows."""
    return _load(Path(run["folder"], "scores.npz").resolve())


_load = lru_cache(maxsize=16)(Scores.load)


# -- rows --------------------------------------------------------------------------------------------------


def summarise(records: Sequence[Record], resamples: int = 400) -> list[Row]:
    """One row per model and mode, in the order of tables; its keys are those of ``results.json``.

    ``vs_plain_*``, ``vs_others_*`` (less the same with others' texts) and ``vs_complete_*`` (of variants) are means of
    paired differences, with ``_sd`` over seeds, ``_low`` and ``_high`` (95 % bootstrap over test rows) and ``_p``
    (paired t-test over seeds).
    """
    groups: dict[Run, dict[int, Record]] = {}
    for record in sorted(records, key=lambda record: (Run.of(record["run"]).place, record["run"]["seed"])):
        groups.setdefault(Run.of(record["run"]), {})[record["run"]["seed"]] = record
    good = {cell: {seed: run for seed, run in runs.items() if not run["error"]} for cell, runs in groups.items()}
    rows = []
    for cell, runs in groups.items():
        values, first = _frame(good[cell], [*METRICS, *COSTS]), next(iter(good[cell].values()), None)
        row = {name: value for name, value in asdict(cell).items() if name != "seed"}
        row |= {"seeds": " ".join(map(str, runs)), "diverged": len(runs) - len(good[cell])}
        row |= _mean_and_sd(values[METRICS]) | values[COSTS].mean().to_dict()
        row |= {name: first and first["test"].get(name) for name in COUNTS}
        drawn = good[cell] if cell.variant in (PLAIN, COMPLETE) else {}  # no plot has curves of the others
        row["popularity"] = _by_popularity(drawn)
        row["calibration"] = _calibration(drawn)
        row["base_entropy"] = first and _entropy(scores_of(first).label)
        row["click_rates_valid_auc"] = first and (first.get("click_rates") or {}).get("valid")
        row["parameters"] = json.dumps(next(iter(runs.values()))["parameters"])
        row["tuned_alone"] = any(run["tuned_alone"] for run in runs.values())
        row["at_ends"] = distinct(name for run in runs.values() for name in run["at_ends"])
        for prefix, base in cell.bases.items():
            if base in groups:
                found = _difference(good[base], good[cell], resamples)
                row |= {f"{prefix}_{name}": value for name, value in found.items()}
        row |= _facts_of(list(runs.values()))
        rows.append({name: None if isinstance(value, float) and isnan(value) else value for name, value in row.items()})
    return rows


def _entropy(label: np.ndarray) -> float:
    """The LogLoss of predicting the share of clicks for every row."""
    return float(log_losses(label, np.full(len(label), label.mean())).mean())


def _frame(runs: Mapping[int, Record], columns: list[str]) -> pd.DataFrame:
    """Numbers of runs: a line for each seed, NaN where a run lacks one."""
    return pd.DataFrame([flat(run) for run in runs.values()], index=list(runs), columns=columns).astype(float)


def _mean_and_sd(values: pd.DataFrame) -> Row:
    summary = values.agg(["mean", "std"]).set_axis(["", "_sd"]).unstack()
    return {f"{name}{end}": value for (name, end), value in summary.items()}


def _by_popularity(runs: Mapping[int, Record]) -> dict[str, Any]:
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


def _calibration(runs: Mapping[int, Record]) -> dict[str, Any] | None:
    """What the run of the first seed predicted, and what came; None without any."""
    scores = next((scores_of(run) for run in runs.values()), None)
    return None if scores is None else reliability(scores.label, scores.score)


def _difference(base: Mapping[int, Record], other: Mapping[int, Record], resamples: int) -> Row:
    """``other`` less ``base`` over the seeds that both have, each with its own partner."""
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


def _facts_of(records: Sequence[Record]) -> Row:
    """What the numbers of a row depend on: data, label rule, split, language model, commands and versions."""
    record = records[0]
    texts = text_facts(record["configuration"]) if record["run"]["variant"] != PLAIN else {}
    commands = (shlex.join(["python", *run["command"]]) for run in records)
    versions = (", ".join(map(" ".join, run["versions"].items())) for run in records)
    return {
        **data_facts(record["configuration"]),
        **{f"{part}_rows": record["rows"][part] for part in ("train", "valid", "test")},
        **{name: texts.get(name) for name in ("encoder", "prompt_scope")},
        "tuning_seeds": record["tuning_seeds"],
        "tuning_trials": record["tuning_trials"] if record["tuning_seeds"] else 0,
        "commands": json.dumps(distinct(commands)),  # lists, as seeds of one row may have come later
        "versions": json.dumps(distinct(versions)),
    }
