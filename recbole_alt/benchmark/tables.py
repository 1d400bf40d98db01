"""The report of a campaign: Markdown, LaTeX and CSV, made from the files of its runs alone."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from recbole_alt.benchmark.axes import COMPLETE, PLAIN
from recbole_alt.benchmark.plots import draw_all
from recbole_alt.benchmark.summary import METRICS, Record, read_runs, summarise, value_of
from recbole_alt.experiment import write_json

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table before it is Markdown or LaTeX.

    Attributes:
        title: above it.
        facts: below it: what every number in it depends on.
        header, rows: cells as text.
    """

    title: str
    facts: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """With columns as wide as their widest cell."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in (self.header, *self.rows)]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return f"## {self.title}\n\n" + "\n".join(lines) + f"\n\n{self.facts}\n"

    def latex(self) -> str:
        """A ``tabular`` inside a ``table``."""
        lines = [" & ".join(map(_latex, row)) + r" \\" for row in (self.header, *self.rows)]
        body = "\n".join([lines[0], r"\hline", *lines[1:]])
        return (
            f"\\begin{{table}}\n\\caption{{{_latex(self.title)}. {_latex(self.facts)}}}\n"
            f"\\begin{{tabular}}{{{'l' * len(self.header)}}}\n{body}\n\\end{{tabular}}\n\\end{{table}}\n"
        )


def write_report(folder: Path, resamples: int = 400) -> list[Path]:
    """Tables and plots of the finished runs in ``folder``, into ``folder/report``.

    Raises:
        ValueError: no finished run.
    """
    records = read_runs(folder)
    rows = summarise(records, resamples)
    tables = make_tables(records, rows)
    report = folder / "report"
    report.mkdir(exist_ok=True)
    (report / "tables.md").write_text("\n".join(table.markdown() for table in tables))
    (report / "tables.tex").write_text("\n".join(table.latex() for table in tables))
    write_json(report / "results.json", rows)
    _write_csv(report / "results.csv", rows)
    _write_csv(report / "runs.csv", [_flat(record) for record in records])
    names = ("tables.md", "tables.tex", "results.json", "results.csv", "runs.csv")
    return [*(report / name for name in names), *draw_all(records, rows, report)]


def make_tables(records: Sequence[Record], rows: Sequence[Row]) -> list[Table]:
    """For each dataset: quality, slices and costs, and ablations where there are any."""
    tables = []
    for place in dict.fromkeys((row["data"], row["train_share"]) for row in rows):
        here = [row for row in rows if (row["data"], row["train_share"]) == place]
        known = [record for record in records if (record["run"]["data"], record["run"]["train_share"]) == place]
        name = place[0] if place[1] == 1 else f"{place[0]}, {place[1]:.0%} of the training interactions"
        facts = _facts(known)
        main = [row for row in here if row["variant"] in (PLAIN, COMPLETE)]
        tables.append(_table(f"{name}: plain and aligned", facts, main, QUALITY))
        tables.append(_table(f"{name}: users and items unseen in training", facts, main, COLD))
        rest = [row for row in here if row["variant"] not in (PLAIN, COMPLETE)]
        if rest:
            tables.append(_table(f"{name}: baselines and ablations", facts, [*main, *rest], ABLATED))
        tables.append(_table(f"{name}: costs", facts, here, COST))
    return tables


def _table(title: str, facts: str, rows: Sequence[Row], columns: dict[str, Callable[[Row], str]]) -> Table:
    several = len({row["language_model"] for row in rows} - {None}) > 1
    if several:
        columns = {"language model": lambda row: row["language_model"] or "", **columns}
    return Table(title, facts, list(columns), [[cell(row) for cell in columns.values()] for row in rows])


# -- cells -------------------------------------------------------------------------------------------------


def _metric(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        if row[name] is None:
            return "diverged" if row["diverged"] else ""
        deviation = row[f"{name}_sd"]
        return f"{row[name]:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")

    return cell


def _gain(name: str, base: str = "vs_plain") -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.get(f"{base}_{name}")
        if value is None:
            return ""
        low, high = row.get(f"{base}_{name}_low"), row.get(f"{base}_{name}_high")
        return f"{value:+.4f}" + (f" [{low:+.4f}, {high:+.4f}]" if low is not None else "")

    return cell


def _p(name: str, base: str = "vs_plain") -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.get(f"{base}_{name}_p")
        return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"

    return cell


def _number(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(name) is None else f"{row[name]:,.0f}"


def _good(row: Row) -> str:
    seeds = len(row["seeds"].split())
    return f"{seeds}" + (f" ({row['diverged']} diverged)" if row["diverged"] else "")


_WHAT: dict[str, Callable[[Row], str]] = {"model": lambda r: r["model"], "mode": lambda r: r["stage"], "seeds": _good}
_VARIANT: dict[str, Callable[[Row], str]] = {
    "variant": lambda r: r["variant"].replace("_", " ") + (", tuned alone" if r["tuned_alone"] else "")
}
QUALITY = _WHAT | {
    "valid AUC": _metric("valid_auc"),
    "test AUC": _metric("auc"),
    "ΔAUC [95 %]": _gain("auc"),
    "p": _p("auc"),
    "LogLoss": _metric("logloss"),
    "ΔLogLoss [95 %]": _gain("logloss"),
    "p ": _p("logloss"),
    "GAUC": _metric("gauc"),
    "ΔGAUC": _gain("gauc"),
    "p  ": _p("gauc"),
}
COLD = _WHAT | {
    "rows of new users": _number("cold_user_rows"),
    "AUC": _metric("cold_user_auc"),
    "ΔAUC": _gain("cold_user_auc"),
    "rows of new items": _number("cold_item_rows"),
    "AUC ": _metric("cold_item_auc"),
    "ΔAUC ": _gain("cold_item_auc"),
}
ABLATED = (
    _VARIANT
    | _WHAT
    | {
        "valid AUC": _metric("valid_auc"),
        "test AUC": _metric("auc"),
        "to plain [95 %]": _gain("auc"),
        "p": _p("auc"),
        "to complete [95 %]": _gain("auc", "vs_complete"),
        "p ": _p("auc", "vs_complete"),
    }
)
COST = (
    _VARIANT
    | _WHAT
    | {
        "alignment seconds": _number("alignment_seconds"),
        "its texts": _number("alignment_texts_encoded"),
        "its interactions": _number("alignment_interactions_seen"),
        "its peak MiB": _number("alignment_peak_memory_mib"),
        "seconds": _number("seconds"),
        "texts encoded": _number("texts_encoded"),
        "peak MiB": _number("peak_memory_mib"),
    }
)


_LAYERS = {"language_model_layers": "all", "frozen_layers": "none"}


def _facts(records: Sequence[Record]) -> str:
    """What every number of a table depends on."""
    config, rows = records[0]["configuration"], records[0]["rows"]
    rule = [f"{name} ≥ {value} is a click" for name, value in (config["threshold"] or {}).items()]
    rule += [f"{name} within {value} alone" for name, value in (config["val_interval"] or {}).items()]
    evaluation = config["eval_args"]
    aligned = [record for record in records if record["run"]["stage"] != "plain"]
    complete = [record for record in aligned if record["run"]["variant"] == COMPLETE] or aligned

    def said(key: str) -> str:
        return ", ".join(sorted({str(record["configuration"][key]) for record in complete}))

    facts = [
        config["dataset"],
        "; ".join(rule) or "label as given",
        f"split {evaluation['split']} in order {evaluation['order']}, drawn with seed {config['split_seed']}",
        f"{rows['train']:,} training, {rows['valid']:,} validation and {rows['test']:,} test rows",
    ]
    if aligned:
        spent = [record["costs"] for record in complete if "alignment_steps" in record["costs"]]
        layers, frozen = (said(key).replace("None", nothing) for key, nothing in _LAYERS.items())
        facts.append(f"language model {said('language_model')}, layers: {layers}, of these not aligned: {frozen}")
        facts.append(f"prompt scope {said('prompt_scope')}")
        steps = "/".join(map(str, sorted({cost["alignment_steps"] for cost in spent})))
        if spent:
            means = [
                fmean(cost[f"alignment_{name}"] for cost in spent) for name in ("texts_encoded", "interactions_seen")
            ]
            facts.append(
                f"alignment of {steps} steps, on average {means[0]:,.0f} texts and {means[1]:,.0f} interactions"
            )
    facts.append(f"seeds {', '.join(map(str, sorted({record['run']['seed'] for record in records})))}")
    tried = sorted({record["tuning_seeds"] for record in records if record.get("tuning_seeds")})  # older ones lack it
    if tried:
        facts.append(f"parameters chosen with {'/'.join(map(str, tried))} of these")
    left_out = {record["test"].get("gauc_left_out") for record in records if record["test"]}
    facts.append(f"GAUC leaves out {'/'.join(map(str, sorted(filter(None, left_out)))) or 'no'} users with one class")
    facts.append(
        "differences are to the plain backbone with the same seed; intervals by bootstrap over test rows, p by a "
        "two-sided paired t-test over seeds"
    )
    versions = ", ".join(f"{name} {version}" for name, version in records[0]["versions"].items())
    return f"{'; '.join(facts)}. `{shlex.join(['python', *records[0]['command']])}`. {versions}."


def _latex(text: str) -> str:
    for plain, tex in (("\\", r"\textbackslash "), *((c, "\\" + c) for c in "_%&#{}$")):
        text = text.replace(plain, tex)
    for plain, tex in (("±", r"$\pm$"), ("Δ", r"$\Delta$"), ("≥", r"$\ge$"), ("–", "--"), ("~", r"\textasciitilde ")):
        text = text.replace(plain, tex)
    return text.replace("<", "$<$").replace("`", "")


def _flat(record: Record) -> Row:
    """One run as a line of ``runs.csv``."""
    row = dict(record["run"]) | {name: value_of(record, name) for name in METRICS}
    row |= {name: record["test"].get(name) for name in ("rows", "cold_user_rows", "cold_item_rows", "gauc_left_out")}
    return row | record["costs"] | record["parameters"] | {"error": record["error"], "folder": record["folder"]}


def _write_csv(file: Path, rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, names)
        writer.writeheader()
        writer.writerows(rows)
