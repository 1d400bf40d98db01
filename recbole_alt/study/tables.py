"""The tables of a report, as Markdown and LaTeX, and the facts below each that its numbers depend on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from recbole_alt.markdown import markdown_table
from recbole_alt.study.axes import COMPLETE, PLAIN
from recbole_alt.study.statistics import holm, p_value, t_interval

#: Differences that tables show with their interval.
INTERVALS = {f"vs_{base}_{metric}" for base in ("plain", "complete") for metric in ("auc", "logloss")}
METRICS = ["valid_auc", "valid_logloss", "auc", "logloss", "gauc", "cold_user_auc", "cold_item_auc"]

Row = dict[str, Any]  # of ``results.json``

_LATEX = str.maketrans(
    {"\\": r"\textbackslash ", **{c: "\\" + c for c in "_%&#{}$"}, "±": r"$\pm$", "Δ": r"$\Delta$", "≥": r"$\ge$"}
    | {"–": "--", "~": r"\textasciitilde ", "<": "$<$", "`": ""}
)


@dataclass(frozen=True)
class Table:
    """A table before it is Markdown or LaTeX: title, cells as text, and the facts below it."""

    title: str
    facts: str
    header: list[str]
    rows: list[list[str]]

    @classmethod
    def of(
        cls, title: str, facts: str, rows: Sequence[Row], columns: Mapping[str, str], *, one_family: bool = False
    ) -> Table:
        """Write the cells; the language model has a column where there are several.

        p is corrected by Holm's method for the tests in its column, or in all columns if they are of ``one_family``.
        """
        tests = [name for name in columns if name.endswith("_p")]
        for family in [tests] if one_family else [[name] for name in tests]:
            corrected = iter(holm([row.get(name) for row in rows for name in family]))
            rows = [row | {name: next(corrected) for name in family} for row in rows]
        if len({row["language_model"] for row in rows} - {None}) > 1:
            columns = {"language_model": "language model", **columns}
        return cls(title, facts, list(columns.values()), [[write_cell(row, name) for name in columns] for row in rows])

    def markdown(self) -> str:
        """Title, table and facts."""
        return f"## {self.title}\n\n{markdown_table(self.header, self.rows)}\n\n{self.facts}\n"

    def latex(self) -> str:
        """A ``tabular`` inside a ``table``."""
        head, *lines = (" & ".join(c.translate(_LATEX) for c in line) + r" \\" for line in (self.header, *self.rows))
        body = "\n".join([head, r"\hline", *lines])
        return (
            f"\\begin{{table}}\n\\caption{{{f'{self.title}. {self.facts}'.translate(_LATEX)}}}\n"
            f"\\begin{{tabular}}{{{'l' * len(self.header)}}}\n{body}\n\\end{{tabular}}\n\\end{{table}}\n"
        )


def make_tables(rows: Sequence[Row]) -> list[Table]:
    """Gains of all; for each dataset and share of it: quality, new users and items, ablations if any, and costs."""
    tables = [gains_table(rows)]
    for here in _by(rows, "data", "train_share"):
        main = [row for row in here if row["variant"] in (PLAIN, COMPLETE)]
        rest = [row for row in here if row["variant"] not in (PLAIN, COMPLETE)]
        for title, shown, columns in (
            ("plain and aligned", main, QUALITY),
            ("users and items unseen in training", main, COLD),
            ("baselines and ablations", main + rest if rest else [], ABLATED),
            ("costs", here, COST),
        ):
            if shown:
                tables.append(Table.of(f"{_name_data(here[0])}: {title}", tell(here), shown, columns))
    return tables


def gains_table(rows: Sequence[Row], only_means: Collection[str] = ()) -> Table:
    """What the complete method gains in test AUC: a line for each dataset, share of it, model and language model.

    Below several models of the same data stands the mean over them, with a t-test over models rather than seeds; of the
    data named in ``only_means`` nothing else does.
    """
    plain = {_place(row): row for row in rows if row["variant"] == PLAIN}
    aligned = [row for row in rows if row["variant"] == COMPLETE and _place(row) in plain]
    lines = []
    for modes in _by(aligned, "data", "train_share", "model", "language_model"):
        line = plain[_place(modes[0])] | {"language_model": modes[0]["language_model"]}
        for row in modes:
            line |= {f"vs_plain_{row['stage']}{end}": row.get(f"vs_plain_auc{end}") for end in ("", "_p")}
        lines.append(line)
    stages = distinct(row["stage"] for row in aligned)
    shown: list[Row] = []
    facts = "Less the plain model with the same seed, mean over seeds; p by a two-sided paired t-test over seeds"
    facts += ", after Holm's correction for all tests of the table"
    for here in _by(lines, "data", "train_share"):
        shown += [] if here[0]["data"] in only_means else here
        shown += [_mean_of(models, stages) for models in _by(here, "language_model") if len(models) > 1]
    if any(row["model"].startswith("mean of ") for row in shown):
        facts += ", of means over models by a two-sided t-test over models, all of which share their rows"
    columns = {"data": "data", "model": "model", "seeds": "seeds", "auc": "plain test AUC"}
    for stage in stages:
        columns |= _compared(f"Δ {stage}", f"vs_plain_{stage}")
    return Table.of("gains in test AUC", f"{facts}.", shown, columns, one_family=True)


def _mean_of(models: Sequence[Row], stages: Sequence[str]) -> Row:
    """The mean over models of their mean over seeds; of a mode that some of them lack, nothing."""
    seeds = min((row["seeds"] for row in models), key=lambda seeds: len(seeds.split()))
    diverged = sum(row["diverged"] for row in models)
    mean = models[0] | {"model": f"mean of {len(models)}", "seeds": seeds, "diverged": diverged, "auc_sd": None}
    for name in ("auc", *(f"vs_plain_{stage}" for stage in stages)):
        values = [row[name] for row in models if row.get(name) is not None]
        known = len(values) == len(models)
        mean |= {name: fmean(values) if known else None, f"{name}_p": p_value(values) if known else None}
    return mean


# -- facts -------------------------------------------------------------------------------------------------


def tell(rows: Sequence[Row]) -> str:
    """The facts that ``rows`` of one dataset and share of it have in common, as a paragraph."""

    def each(name: str, rows: Sequence[Row] = rows) -> str:
        return " / ".join(distinct(str(row[name]) for row in rows))

    def counts(name: str) -> str:
        return "/".join(map(str, sorted({row[name] for row in rows} - {None, 0})))

    aligned = [row for row in rows if row["stage"] != "plain"]
    complete = [row for row in aligned if row["variant"] == COMPLETE] or aligned
    parts = "{train_rows:,} training, {valid_rows:,} validation and {test_rows:,} test rows"
    facts = [each("dataset"), each("label_rule"), f"split {each('split')}"]
    facts.append("/".join(distinct(parts.format(**row) for row in rows)))
    if aligned:
        facts += [f"language model {each('encoder', complete)}", f"prompt scope {each('prompt_scope', complete)}"]
    if spent := [row for row in complete if row["alignment_steps"] is not None]:
        steps = "/".join(f"{steps:.0f}" for steps in sorted({row["alignment_steps"] for row in spent}))
        texts, seen = (fmean(row[f"alignment_{n}"] for row in spent) for n in ("texts_encoded", "interactions_seen"))
        facts.append(f"alignment of {steps} steps, on average {texts:,.0f} texts and {seen:,.0f} interactions")
    facts.append(f"seeds {', '.join(sorted({seed for row in rows for seed in row['seeds'].split()}, key=int))}")
    if tried := counts("tuning_seeds"):
        facts.append(f"parameters chosen with {tried} of these")
    facts.append(f"GAUC leaves out {counts('gauc_left_out') or 'no'} users with one class")
    facts.append(
        "differences are to the plain backbone with the same seed; 95 % t-intervals over seeds, and p by a two-sided "
        "paired t-test over seeds after Holm's correction for the tests in its column"
    )
    commands, versions = (distinct(one for row in rows for one in json.loads(row[n])) for n in ("commands", "versions"))
    return f"{'; '.join(facts)}. {'; '.join(f'`{command}`' for command in commands)}. {' / '.join(versions)}."


def distinct(texts: Iterable[str]) -> list[str]:
    """``texts`` without repetitions, in order."""
    return list(dict.fromkeys(texts))


def _by(rows: Iterable[Row], *names: str) -> list[list[Row]]:
    """``rows`` in groups of the same values of ``names``, in order of appearance."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return list(groups.values())


def _place(row: Row) -> tuple[str, float, str]:
    return row["data"], row["train_share"], row["model"]


# -- cells -------------------------------------------------------------------------------------------------


def write_cell(row: Row, name: str) -> str:
    """The value of a column as text, with its spread or interval; empty where the row lacks it."""
    value = row.get(name)
    spread = row.get(f"{name}_sd")
    if value is None:
        return "diverged" if name in METRICS and row["diverged"] else ""
    if name == "data":
        return _name_data(row)
    if name == "seeds":
        return f"{len(value.split())}" + (f" ({row['diverged']} diverged)" if row["diverged"] else "")
    if name == "variant":
        return value.replace("_", " ") + (", tuned alone" if row["tuned_alone"] else "")
    if name.endswith("_p"):
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if name.startswith("vs_"):
        ends = interval_of(row, name)
        return f"{value:+.4f}" + (f" [{ends[0]:+.4f}, {ends[1]:+.4f}]" if ends and name in INTERVALS else "")
    if name in METRICS:
        return f"{value:.4f}" + ("" if spread is None else f" ± {spread:.4f}")
    return value if isinstance(value, str) else f"{value:,.0f}"


def interval_of(row: Row, name: str) -> tuple[float, float] | None:
    """The 95 % t-interval over seeds of a difference; None for fewer than two seeds."""
    spread, pairs = row.get(f"{name}_sd"), row.get(f"{'_'.join(name.split('_')[:2])}_pairs", 0)
    return None if spread is None or pairs < 2 else t_interval(row[name], spread, pairs)


def _name_data(row: Row) -> str:
    share = row["train_share"]
    return row["data"] if share == 1 else f"{row['data']}, {share:.0%} of the training interactions"


def _compared(title: str, name: str) -> dict[str, str]:
    return {name: title, f"{name}_p": "p"}


# The columns of each table: key of a row → title.
_WHAT = {"model": "model", "stage": "mode", "seeds": "seeds"}
_AUC = {"valid_auc": "valid AUC", "auc": "test AUC"}
QUALITY = _WHAT | _AUC | _compared("ΔAUC [95 %]", "vs_plain_auc")
QUALITY |= {"logloss": "LogLoss"} | _compared("ΔLogLoss [95 %]", "vs_plain_logloss")
QUALITY |= {"gauc": "GAUC"} | _compared("ΔGAUC", "vs_plain_gauc")
COLD = _WHAT | {"cold_user_rows": "rows of new users", "cold_user_auc": "AUC", "vs_plain_cold_user_auc": "ΔAUC"}
COLD |= {"cold_item_rows": "rows of new items", "cold_item_auc": "AUC", "vs_plain_cold_item_auc": "ΔAUC"}
ABLATED = {"variant": "variant"} | _WHAT | _AUC | _compared("to plain [95 %]", "vs_plain_auc")
ABLATED |= _compared("to complete [95 %]", "vs_complete_auc")
COST = {"variant": "variant"} | _WHAT
COST |= {"alignment_seconds": "alignment seconds", "alignment_texts_encoded": "its texts"}
COST |= {"alignment_interactions_seen": "its interactions", "alignment_peak_memory_mib": "its peak MiB"}
COST |= {"seconds": "seconds", "texts_encoded": "texts encoded", "peak_memory_mib": "peak MiB"}
