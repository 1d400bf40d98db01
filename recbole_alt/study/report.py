"""The report of a campaign, or of several that were run apart: tables, rows as JSON and CSV, and plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from recbole_alt.files import read_json, write_json, write_text
from recbole_alt.study.facts import facts_of
from recbole_alt.study.plots import draw_all
from recbole_alt.study.summary import (
    CELL,
    CURVES,
    METRICS,
    Cell,
    Record,
    Row,
    grouped,
    place_of,
    read_runs,
    summarise,
    value_of,
)
from recbole_alt.study.tables import make_tables


def write_report(folder: Path, resamples: int = 400) -> list[Path]:
    """Tables and plots of the finished runs in ``folder``, into ``folder/report``.

    Raises:
        ValueError: no finished run.
    """
    records = read_runs(folder)
    groups = grouped(records)
    rows = [row | facts_of(list(groups[_cell(row)].values())) for row in summarise(records, resamples)]
    return _write(folder / "report", rows, [_flat(record) for record in records])


def join_reports(folders: Sequence[Path], out: Path) -> list[Path]:
    """One report, into ``out/report``, of campaigns that were run apart, as on several machines.

    It is made from the rows of their reports (``results.json``, ``runs.csv``); the runs need not be at hand.

    Args:
        folders: campaigns, or their ``report`` folders.
        out: where ``report`` is written.

    Raises:
        ValueError: no report, one by an older version, two with the same rows, or one that would be overwritten.
    """
    rows: list[Row] = []
    runs: list[Row] = []
    found: dict[Cell, Path] = {}
    for folder in folders:
        report = folder / "report" if (folder / "report").is_dir() else folder
        if report.resolve() == (out / "report").resolve():
            raise ValueError(f"join: {str(folder)!r} is to be joined, and would be overwritten; give another --out")
        if not all((report / name).is_file() for name in ("results.json", "runs.csv")):
            raise ValueError(f"join: {str(folder)!r} holds no report; make it with --out={folder} --report")
        for row in read_json(report / "results.json"):
            if not {"commands", *CURVES} <= row.keys():
                raise ValueError(
                    f"join: the report in {str(folder)!r} is of an older version, which did not keep what its rows "
                    "and plots depend on; make it again with --report where its runs are"
                )
            cell = _cell(row)
            if cell in found:
                what = " ".join(str(part) for part in cell if part is not None)
                raise ValueError(f"join: {what} is in both {str(found[cell])!r} and {str(folder)!r}; leave one out")
            found[cell] = folder
            rows.append(row)
        with (report / "runs.csv").open(newline="", encoding="utf-8") as opened:
            runs += csv.DictReader(opened)
    return _write(out / "report", sorted(rows, key=lambda row: place_of(_cell(row))), runs)


def _write(report: Path, rows: Sequence[Row], runs: Sequence[Row]) -> list[Path]:
    tables = make_tables(rows)
    write_text(report / "tables.md", "\n".join(table.markdown() for table in tables))
    write_text(report / "tables.tex", "\n".join(table.latex() for table in tables))
    write_json(report / "results.json", rows)
    _write_csv(report / "results.csv", [{k: v for k, v in row.items() if k not in CURVES} for row in rows])
    _write_csv(report / "runs.csv", runs)
    names = ("tables.md", "tables.tex", "results.json", "results.csv", "runs.csv")
    return [*(report / name for name in names), *draw_all(rows, report)]


def _cell(row: Row) -> Cell:
    return tuple(row[name] for name in CELL)


def _flat(record: Record) -> Row:
    """One run as a line of ``runs.csv``."""
    row = dict(record["run"]) | {name: value_of(record, name) for name in METRICS}
    row |= {name: record["test"].get(name) for name in ("rows", "cold_user_rows", "cold_item_rows", "gauc_left_out")}
    return row | record["costs"] | record["parameters"] | {"error": record["error"], "folder": record["folder"]}


def _write_csv(file: Path, rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = io.StringIO()
    writer = csv.DictWriter(lines, names)
    writer.writeheader()
    writer.writerows(rows)
    write_text(file, lines.getvalue())
