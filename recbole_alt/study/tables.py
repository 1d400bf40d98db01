"""The tables of a report, as Markdown and LaTeX, made from its rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from recbole_alt.markdown import markdown_table
from recbole_alt.study.axes import COMPLETE, PLAIN
from recbole_alt.study.facts import tell
from recbole_alt.study.statistics import p_value
from recbole_alt.study.summary import Row

_LATEX = str.maketrans(
    {"\\": r"\textbackslash ", **{c: "\\" + c for c in "_%&#{}$"}, "±": r"$\pm$", "Δ": r"$\Delta$", "≥": r"$\ge$"}
    | {"–": "--", "~": r"\textasciitilde ", "<": "$<$", "`": ""}
)

#: Title of a column, what writes its cell, and the key of a row that it writes.
Column = tuple[str, Callable[[Row, str], str], str]


@dataclass(frozen=True)
class Table:
    """A table before it is Markdown or LaTeX.

    Attributes:
        title: Title above it.
        facts: Paragraph below it: what every number in it depends on.
        header, rows: Cells as text.
    """

    title: str
    facts: str
    header: list[str]
    rows: list[list[str]]

    @classmethod
    def of(cls, title: str, facts: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
        """Write the cells; the language model has a column where there are several."""
        if len({row["language_model"] for row in rows} - {None}) > 1:
            columns = [("language model", _text, "language_model"), *columns]
        cells = [[write(row, name) for _, write, name in columns] for row in rows]
        return cls(title, facts, [header for header, *_ in columns], cells)

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
    for place in dict.fromkeys(_place(row)[:2] for row in rows):
        here = [row for row in rows if _place(row)[:2] == place]
        main = [row for row in here if row["variant"] in (PLAIN, COMPLETE)]
        rest = [row for row in here if row["variant"] not in (PLAIN, COMPLETE)]
        for title, shown, columns in (
            ("plain and aligned", main, QUALITY),
            ("users and items unseen in training", main, COLD),
            ("baselines and ablations", main + rest if rest else [], ABLATED),
            ("costs", here, COST),
        ):
            if shown:
                tables.append(Table.of(f"{_name(*place)}: {title}", tell(here), shown, columns))
    return tables


def gains_table(rows: Sequence[Row], only_means: Collection[str] = ()) -> Table:
    """What the complete method gains in test AUC: a line for each dataset, share of it, model and language model.

    Below several models of the same data stands the mean over them, with a t-test over models rather than seeds; of the
    data named in ``only_means`` nothing else does.
    """
    plain = {_place(row): row for row in rows if row["variant"] == PLAIN}
    aligned = [row for row in rows if row["variant"] == COMPLETE and _place(row) in plain]
    stages = list(dict.fromkeys(row["stage"] for row in aligned))
    groups: dict[Any, dict[Any, Row]] = {}  # by data and share, then by model and language model
    for row in aligned:
        data, share, model = _place(row)
        lines, language = groups.setdefault((data, share), {}), row["language_model"]
        line = lines.setdefault((model, language), plain[_place(row)] | {"language_model": language})
        line |= {f"{row['stage']}_{name}": row.get(f"vs_plain_{name}") for name in ("auc", "auc_p")}
    shown: list[Row] = []
    facts = "Less the plain model with the same seed, mean over seeds; p by a two-sided paired t-test over seeds"
    for (data, _), group in groups.items():
        shown += [] if data in only_means else group.values()
        for language in dict.fromkeys(language for _, language in group):
            models = [line for (_, of), line in group.items() if of == language]
            if len(models) > 1:
                shown.append(_mean_of_models(models, stages))
    if any(row.get("is_mean") for row in shown):
        facts += ", of means over models by a two-sided t-test over models, all of which share their rows"
    columns: list[Column] = [("data", lambda row, _: _name(row["data"], row["train_share"]), "data"), _MODEL, _SEEDS]
    columns.append(("plain test AUC", _mean, "auc"))
    for stage in stages:
        columns += _compared(f"Δ {stage}", f"{stage}_auc")
    return Table.of("gains in test AUC", f"{facts}.", shown, columns)


def _mean_of_models(lines: Sequence[Row], stages: Sequence[str]) -> Row:
    """The mean over models of their mean over seeds; of a mode that some of them lack, nothing."""
    seeds = min((row["seeds"] for row in lines), key=lambda seeds: len(seeds.split()))
    mean = lines[0] | {"is_mean": True, "model": f"mean of {len(lines)}", "seeds": seeds, "auc_sd": None}
    mean["diverged"] = sum(row["diverged"] for row in lines)
    for name in ("auc", *(f"{stage}_auc" for stage in stages)):
        values = [row[name] for row in lines if row.get(name) is not None]
        complete = len(values) == len(lines)
        mean |= {name: fmean(values) if complete else None, f"{name}_p": p_value(values) if complete else None}
    return mean


def _place(row: Row) -> tuple[str, float, str]:
    return row["data"], row["train_share"], row["model"]


def _name(data: str, train_share: float) -> str:
    return data if train_share == 1 else f"{data}, {train_share:.0%} of the training interactions"


# -- cells -------------------------------------------------------------------------------------------------


def _text(row: Row, name: str) -> str:
    return row[name] or ""


def _mean(row: Row, name: str) -> str:
    if row[name] is None:
        return "diverged" if row["diverged"] else ""
    deviation = row[f"{name}_sd"]
    return f"{row[name]:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


def _change(row: Row, name: str) -> str:
    if (value := row.get(name)) is None:
        return ""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return f"{value:+.4f}" + (f" [{low:+.4f}, {high:+.4f}]" if low is not None else "")


def _p(row: Row, name: str) -> str:
    value = row.get(f"{name}_p")
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(row: Row, name: str) -> str:
    return "" if row.get(name) is None else f"{row[name]:,.0f}"


def _seeds(row: Row, name: str) -> str:
    return f"{len(row[name].split())}" + (f" ({row['diverged']} diverged)" if row["diverged"] else "")


def _variant(row: Row, name: str) -> str:
    return row[name].replace("_", " ") + (", tuned alone" if row["tuned_alone"] else "")


def _compared(title: str, name: str) -> list[Column]:
    return [(title, _change, name), ("p", _p, name)]


_MODEL: Column = ("model", _text, "model")
_SEEDS: Column = ("seeds", _seeds, "seeds")
_WHAT: list[Column] = [_MODEL, ("mode", _text, "stage"), _SEEDS]
_WHICH: list[Column] = [("variant", _variant, "variant"), *_WHAT]
_AUC: list[Column] = [("valid AUC", _mean, "valid_auc"), ("test AUC", _mean, "auc")]
QUALITY: list[Column] = [
    *[*_WHAT, *_AUC, *_compared("ΔAUC [95 %]", "vs_plain_auc")],
    *[("LogLoss", _mean, "logloss"), *_compared("ΔLogLoss [95 %]", "vs_plain_logloss")],
    *[("GAUC", _mean, "gauc"), *_compared("ΔGAUC", "vs_plain_gauc")],
]
COLD: list[Column] = [
    *_WHAT,
    ("rows of new users", _number, "cold_user_rows"),
    ("AUC", _mean, "cold_user_auc"),
    ("ΔAUC", _change, "vs_plain_cold_user_auc"),
    ("rows of new items", _number, "cold_item_rows"),
    ("AUC", _mean, "cold_item_auc"),
    ("ΔAUC", _change, "vs_plain_cold_item_auc"),
]
ABLATED: list[Column] = [
    *[*_WHICH, *_AUC, *_compared("to plain [95 %]", "vs_plain_auc")],
    *_compared("to complete [95 %]", "vs_complete_auc"),
]
COST: list[Column] = [
    *_WHICH,
    ("alignment seconds", _number, "alignment_seconds"),
    ("its texts", _number, "alignment_texts_encoded"),
    ("its interactions", _number, "alignment_interactions_seen"),
    ("its peak MiB", _number, "alignment_peak_memory_mib"),
    ("seconds", _number, "seconds"),
    ("texts encoded", _number, "texts_encoded"),
    ("peak MiB", _number, "peak_memory_mib"),
]
