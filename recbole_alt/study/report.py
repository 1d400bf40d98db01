"""The report of a campaign, or of several that were run apart: tables, rows as JSON and CSV, and plots."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from recbole_alt.files import read_json, write_text
from recbole_alt.study.plots import draw_all
from recbole_alt.study.summary import CURVES, Cell, Row, facts_of, flat, group_runs, read_runs, summarise
from recbole_alt.study.tables import make_tables


def write_report(folder: Path, resamples: int = 400) -> list[Path]:
    """Write tables and plots of the finished runs in ``folder`` into ``folder/report``, and return their paths.

    Raises:
        ValueError: If there is no finished run.
    """
    records = read_runs(folder)
    facts = [facts_of(list(runs.values())) for runs in group_runs(records).values()]
    rows = [row | told for row, told in zip(summarise(records, resamples), facts, strict=True)]
    return _write(folder / "report", rows, pd.DataFrame(map(flat, records), dtype=object))


def join_reports(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write one report, into ``out/report``, of campaigns or their ``report`` folders.

    It is made from their rows (``results.json``, ``runs.csv``); the runs need not be at hand.

    Raises:
        ValueError: If there is no report, one by an older version, two with the same rows, or one that would be
            overwritten.
    """
    found: dict[Cell, tuple[Path, Row]] = {}
    runs: list[pd.DataFrame] = []
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
            cell = Cell.of(row)
            if cell in found:
                what = " ".join(str(part) for part in cell if part is not None)
                raise ValueError(f"join: {what} is in both {str(found[cell][0])!r} and {str(folder)!r}; leave one out")
            found[cell] = (folder, row)
        runs.append(pd.read_csv(report / "runs.csv", dtype=str, keep_default_na=False))
    rows = [found[cell][1] for cell in sorted(found, key=lambda cell: cell.place)]
    return _write(out / "report", rows, pd.concat(runs))


def _write(report: Path, rows: Sequence[Row], runs: pd.DataFrame) -> list[Path]:
    tables = make_tables(rows)
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    texts = {
        "tables.md": "\n".join(table.markdown() for table in tables),
        "tables.tex": "\n".join(table.latex() for table in tables),
        "results.json": "[\n" + ",\n".join(lines) + "\n]\n",
        "results.csv": pd.DataFrame(rows, dtype=object).drop(columns=CURVES).to_csv(index=False, lineterminator="\n"),
        "runs.csv": runs.to_csv(index=False, lineterminator="\n"),
    }
    for name, text in texts.items():
        write_text(report / name, text)
    return [*(report / name for name in texts), *draw_all(rows, report)]
