"""The tables of a report, as Markdown and LaTeX, made from its rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from recbole_alt.study.axes import COMPLETE, PLAIN
from recbole_alt.study.facts import tell
from recbole_alt.study.statistics import paired_t_test
from recbole_alt.study.summary import Row


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


def make_tables(rows: Sequence[Row]) -> list[Table]:
    """Gains of all; for each dataset and share of it: quality, slices and costs, and ablations where there are any."""
    tables = [gains_table(rows)]
    for place in dict.fromkeys(_place(row)[:2] for row in rows):
        here = [row for row in rows if _place(row)[:2] == place]
        name = _name(*place)
        facts = tell(here)
        main = [row for row in here if row["variant"] in (PLAIN, COMPLETE)]
        tables.append(_table(f"{name}: plain and aligned", facts, main, QUALITY))
        tables.append(_table(f"{name}: users and items unseen in training", facts, main, COLD))
        rest = [row for row in here if row["variant"] not in (PLAIN, COMPLETE)]
        if rest:
            tables.append(_table(f"{name}: baselines and ablations", facts, [*main, *rest], ABLATED))
        tables.append(_table(f"{name}: costs", facts, here, COST))
    return tables


def gains_table(rows: Sequence[Row], means_alone: Collection[str] = ()) -> Table:
    """What the complete method gains in test AUC: a line for each dataset, share of it, model and language model.

    Below several models of the same data stands the mean over them, with a t-test over models rather than seeds; of the
    data named in ``means_alone`` nothing else does.
    """
    plain = {_place(row): row for row in rows if row["variant"] == PLAIN}
    lines: dict[tuple[Any, ...], Row] = {}
    stages: dict[str, None] = {}
    for row in rows:
        if row["variant"] == COMPLETE and _place(row) in plain:
            line = lines.setdefault((*_place(row), row["language_model"]), dict(plain[_place(row)]))
            line["language_model"] = row["language_model"]
            line |= {f"{row['stage']}_{name}": row.get(f"vs_plain_{name}") for name in ("auc", "auc_p")}
            stages[row["stage"]] = None
    columns: dict[str, Callable[[Row], str]] = {"data": lambda row: _name(row["data"], row["train_share"])}
    columns |= _MODEL | {"seeds": _good, "plain test AUC": _metric("auc")}
    for number, stage in enumerate(stages):
        columns |= {f"Δ {stage}": _gain("auc", stage), "p" + " " * number: _p("auc", stage)}
    facts = "Less the plain model with the same seed, mean over seeds; p by a two-sided paired t-test over seeds"
    shown: list[Row] = []
    means = 0
    for place in dict.fromkeys(_place(row)[:2] for row in lines.values()):
        here = [row for row in lines.values() if _place(row)[:2] == place]
        shown += [] if place[0] in means_alone else here
        for language in dict.fromkeys(row["language_model"] for row in here):
            models = [row for row in here if row["language_model"] == language]
            if len(models) > 1:
                shown.append(_mean_of_models(models, stages))
                means += 1
    if means:
        facts += ", of means over models by a two-sided t-test over models, all of which share their rows"
    return _table("gains in test AUC", f"{facts}.", shown, columns)


def _mean_of_models(lines: Sequence[Row], stages: Iterable[str]) -> Row:
    """The mean over models of their mean over seeds; of a mode that some of them lack, nothing."""
    seeds = min((row["seeds"] for row in lines), key=lambda seeds: len(seeds.split()))
    mean = lines[0] | {"model": f"mean of {len(lines)}", "seeds": seeds, "auc_sd": None}
    mean["diverged"] = sum(row["diverged"] for row in lines)
    for name in ("auc", *(f"{stage}_auc" for stage in stages)):
        values = [row[name] for row in lines if row.get(name) is not None]
        complete = len(values) == len(lines)
        mean[name] = fmean(values) if complete else None
        if name != "auc":
            mean[f"{name}_p"] = paired_t_test([0.0] * len(values), values) if complete else None
    return mean


def _table(title: str, facts: str, rows: Sequence[Row], columns: dict[str, Callable[[Row], str]]) -> Table:
    several = len({row["language_model"] for row in rows} - {None}) > 1
    if several:
        columns = {"language model": lambda row: row["language_model"] or "", **columns}
    return Table(title, facts, list(columns), [[cell(row) for cell in columns.values()] for row in rows])


def _place(row: Row) -> tuple[str, float, str]:
    return row["data"], row["train_share"], row["model"]


def _name(data: str, train_share: float) -> str:
    return data if train_share == 1 else f"{data}, {train_share:.0%} of the training interactions"


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


_MODEL: dict[str, Callable[[Row], str]] = {"model": lambda row: row["model"]}
_WHAT = _MODEL | {"mode": lambda row: row["stage"], "seeds": _good}
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


def _latex(text: str) -> str:
    for plain, tex in (("\\", r"\textbackslash "), *((c, "\\" + c) for c in "_%&#{}$")):
        text = text.replace(plain, tex)
    for plain, tex in (("±", r"$\pm$"), ("Δ", r"$\Delta$"), ("≥", r"$\ge$"), ("–", "--"), ("~", r"\textasciitilde ")):
        text = text.replace(plain, tex)
    return text.replace("<", "$<$").replace("`", "")
