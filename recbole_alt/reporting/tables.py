"""The tables of a report, and the facts below each that its numbers depend on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from recbole_alt.keys import MODES
from recbole_alt.reporting.runs import COMPLETE, PLAIN, arm_of, distinct, is_control
from recbole_alt.reporting.table import AT_END, OUTDONE, UNTRAINED, Table, number
from recbole_alt.statistics import holm, p_value, t_interval

Row = dict[str, Any]  # of ``results.json``

_RATES = "click_rates_valid_auc"  # of plain rows, from this version on
METRICS = ["valid_auc", "valid_logloss", "auc", "logloss", "gauc", "rare_item_auc", "new_item_auc", "new_user_auc"]
#: Marks of plain models, and what each means.
MARKS = {
    AT_END: "A value of the plain model is at the end of its range: it may not be trained to its best",
    UNTRAINED: "The plain model's LogLoss is above the entropy of the base rate: it is not trained",
    OUTDONE: "The plain model's validation AUC is below that of click rates: it has not learned what counting finds",
}


def make_tables(rows: Sequence[Row]) -> list[Table]:
    """For each dataset and share of it: the quality of every arm on all rows and on slices of them, and costs."""
    return [
        _make(f"{name_data(here[0])}: {title}", here, columns, tell(here))
        for here in _by(rows, "data", "train_share")
        for title, columns in TABLES.items()
        if title not in SLICES or any(row.get(SLICES[title]) is not None for row in here)
    ]


def verdict_table(rows: Sequence[Row], stages: Sequence[str] = ("plain", "ctr")) -> Table:
    """For each model on its data: what the arm with text that validation prefers gains, and gains over others' texts.

    Only arms of the given ``stages`` count, by default those that serve without a language model.
    """
    best = best_arms(rows, stages)
    facts = f"Of the arms with text in the modes {' and '.join(stages)} the one that validation prefers. {_STATISTICS}"
    return _make("verdict", best, VERDICT, facts + _explain_marks(best))


def best_arms(rows: Sequence[Row], stages: Sequence[str]) -> list[Row]:
    """For each model on its data the row of the arm with text in one of ``stages`` that validation prefers."""
    best = []
    for here in _by(rows, "data", "train_share", "model"):
        plain = [row for row in here if row["variant"] == PLAIN]
        arms = [row for row in here if row["stage"] in stages and row["valid_auc"] is not None]
        if plain and (arms := [row for row in arms if row["variant"] != PLAIN and not is_control(row["variant"])]):
            best.append(max(arms, key=lambda row: row["valid_auc"]) | _as_plain(plain[0]))
    return best


def gains_table(rows: Sequence[Row]) -> Table:
    """What the complete method gains in test AUC by mode: a line for each model, and the mean over those of a dataset.

    p of the mean is by a t-test over models rather than seeds.
    """
    shown: list[Row] = []
    for here in _by((row for row in rows if row["variant"] in (PLAIN, COMPLETE)), "data", "train_share"):
        lines = [line for of_model in _by(here, "model") if (line := _gains_of(of_model))]
        shown += lines
        if len(lines) > 1:
            marks = "".join(mark for mark in MARKS if any(mark in line["plain_marks"] for line in lines))
            mean = lines[0] | {"model": f"mean of {len(lines)}", "plain_marks": marks}
            for name in ("plain_auc", *(f"vs_{mode}_auc" for mode in MODES)):
                values = [line[name] for line in lines if line.get(name) is not None]
                known = len(values) == len(lines)
                mean |= {name: fmean(values) if known else None, f"{name}_p": p_value(values) if known else None}
                mean[f"{name}_sd"] = None
            shown.append(mean)
    facts = f"{_STATISTICS} Of means over models p is by a t-test over models."
    return _make("gains in test AUC", shown, GAINS, facts + _explain_marks(shown))


def _gains_of(rows: Sequence[Row]) -> Row | None:
    """The rows of one model in one line; None without its plain model, or without any other."""
    plain, others = ([row for row in rows if row["variant"] == variant] for variant in (PLAIN, COMPLETE))
    if not plain or not others:
        return None
    line = plain[0] | _as_plain(plain[0])
    for row in others:
        line |= {f"vs_{row['stage']}_{end}": row.get(f"vs_plain_{end}") for end in ("auc", "auc_sd", "auc_p", "pairs")}
    return line


def _as_plain(row: Row) -> Row:
    """What a line about other models says of their plain one."""
    return {"plain_auc": row["auc"], "plain_auc_sd": row["auc_sd"], "plain_marks": _marks(row)}


# -- facts -------------------------------------------------------------------------------------------------

_STATISTICS = (
    "Differences are between runs with the same seed; 95 % t-intervals over seeds, and p by a two-sided paired t-test "
    "over seeds after Holm's correction for the tests in its column."
)


def tell(rows: Sequence[Row]) -> str:
    """The facts that ``rows`` of one dataset and share of it have in common, as a paragraph."""

    def counts(name: str) -> str:
        return "/".join(map(str, sorted({int(row[name]) for row in rows if row.get(name)})))

    aligned = [row for row in rows if row["alignment_steps"] is not None]
    facts = [" / ".join(distinct(str(row[name]) for row in rows)) for name in ("dataset", "label_rule", "split")]
    parts = "{train_rows:,} training, {valid_rows:,} validation and {test_rows:,} test rows"
    facts.append("/".join(distinct(parts.format(**row) for row in rows)))
    slices = {"rare_item": "rare items (1 to 9 training rows)", "new_item": "new items", "new_user": "new users"}
    facts += [
        f"{counts(f'{name}_rows')} test rows of {what}" for name, what in slices.items() if counts(f"{name}_rows")
    ]
    for name, what in (("encoder", "language model"), ("prompt_scope", "prompt scope")):
        facts += [f"{what} {said}" for said in (" / ".join(distinct(r[name] for r in rows if r[name])),) if said]
    if aligned:
        steps = "/".join(f"{steps:.0f}" for steps in sorted({row["alignment_steps"] for row in aligned}))
        texts, seen = (fmean(row[f"alignment_{n}"] for row in aligned) for n in ("texts_encoded", "interactions_seen"))
        facts.append(f"alignment of {steps} steps, on average {texts:,.0f} texts and {seen:,.0f} interactions")
    facts.append(f"seeds {', '.join(sorted({seed for row in rows for seed in row['seeds'].split()}, key=int))}")
    if chose := counts("tuning_seeds"):
        tried = f", of {counts('tuning_trials')} drawn at first" if counts("tuning_trials") else ""
        facts.append(f"parameters chosen with {chose} of these{tried}")
    facts.append(f"GAUC leaves out {counts('gauc_left_out') or 'no'} users with one class")
    said = f"{'; '.join(facts)}. {_STATISTICS}"
    if ends := distinct(f"{_name_row(row)} ({', '.join(row['at_ends'])})" for row in rows if row["at_ends"]):
        said += f" {AT_END} A value at the end of its range was chosen: {'; '.join(ends)}."
    if untrained := distinct(f"{_name_row(row)} ({row['base_entropy']:.4f})" for row in rows if _is_untrained(row)):
        said += f" {UNTRAINED} LogLoss above the entropy of the base rate, so not trained: {'; '.join(untrained)}."
    if outdone := distinct(f"{_name_row(row)} ({row[_RATES]:.4f})" for row in rows if _is_outdone(row)):
        said += f" {OUTDONE} Validation AUC below that of a logistic regression on click rates: {'; '.join(outdone)}."
    commands, versions = (distinct(one for row in rows for one in json.loads(row[n])) for n in ("commands", "versions"))
    return f"{said} {'; '.join(f'`{command}`' for command in commands)}. {' / '.join(versions)}."


def _marks(row: Row) -> str:
    found = {AT_END: row["at_ends"], UNTRAINED: _is_untrained(row), OUTDONE: _is_outdone(row)}
    return "".join(mark for mark in MARKS if found[mark])


def _explain_marks(rows: Sequence[Row]) -> str:
    """A sentence for each mark of a plain model in ``rows``."""
    return "".join(f" {mark} {what}." for mark, what in MARKS.items() if any(mark in r["plain_marks"] for r in rows))


def _is_untrained(row: Row) -> bool:
    return row["logloss"] is not None and row["base_entropy"] is not None and row["logloss"] > row["base_entropy"]


def _is_outdone(row: Row) -> bool:
    return None not in (row["valid_auc"], row.get(_RATES)) and row["valid_auc"] < row[_RATES]


def _by(rows: Iterable[Row], *names: str) -> list[list[Row]]:
    """``rows`` in groups of the same values of ``names``, in order of appearance."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return list(groups.values())


# -- cells -------------------------------------------------------------------------------------------------


def _make(title: str, rows: Sequence[Row], columns: Columns, facts: str) -> Table:
    """Write the cells of all columns; p after Holm for the tests in its column."""
    for name in (name for name, _ in columns if name.endswith("_p")):
        rows = [row | {name: p} for row, p in zip(rows, holm([row.get(name) for row in rows]), strict=True)]
    return Table.of(title, [(shown, [write_cell(row, name) for row in rows]) for name, shown in columns], facts)


def write_cell(row: Row, name: str) -> str:
    """The value of a column as text, with its spread or interval; empty where the row lacks it."""
    value, spread = row.get(name), row.get(f"{name}_sd")
    if name == "arm":
        return f"{arm_of(row)} {_marks(row)}".rstrip()
    if value is None:
        return "diverged" if name in METRICS and row["diverged"] else ""
    if name == "data":
        return name_data(row)
    if name == "seeds":
        return f"{len(value.split())}" + (f" ({row['diverged']} diverged)" if row["diverged"] else "")
    if name.endswith("_p"):
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if name.startswith("vs_"):
        ends = interval_of(row, name)
        return number(value, "+") + (f" [{number(ends[0], '+')}, {number(ends[1], '+')}]" if ends else "")
    if name in METRICS:
        return number(value) + ("" if spread is None else f" ± {number(spread)}")
    if name == "plain_auc":
        return f"{write_cell({'auc': value, 'auc_sd': spread}, 'auc')} {row['plain_marks']}".rstrip()
    return value if isinstance(value, str) else f"{value:,.0f}"


def interval_of(row: Row, name: str) -> tuple[float, float] | None:
    """The 95 % t-interval over seeds of a difference; None for fewer than two seeds."""
    spread, pairs = row.get(f"{name}_sd"), row.get(f"{'_'.join(name.split('_')[:2])}_pairs", 0)
    return None if spread is None or pairs < 2 else t_interval(row[name], spread, pairs)


def name_data(row: Row) -> str:
    """The dataset and, unless it is whole, the share of its training interactions."""
    share = row["train_share"]
    return row["data"] if share == 1 else f"{row['data']}, {share:.0%} of the training interactions"


def _name_row(row: Row) -> str:
    return f"{row['model']} {arm_of(row)}"


# The columns of each table: key of a row, and title.
Columns = Sequence[tuple[str, str]]
_WHAT = (("model", "model"), ("language_model", "language model"), ("arm", "arm"), ("seeds", "seeds"))
_TO = {"vs_plain": "to plain", "vs_others": "to others' texts", "vs_complete": "to ALT"}


def _compared(metric: str, *bases: str) -> Columns:
    return [
        pair for base in bases for pair in ((f"{base}_{metric}", f"Δ {_TO[base]} [95 %]"), (f"{base}_{metric}_p", "p"))
    ]


#: Title → the metric whose rows it is about.
SLICES = {"rare items": "rare_item_auc", "new items": "new_item_auc", "new users": "new_user_auc"}
TABLES: dict[str, Columns] = {
    "all rows": (
        *_WHAT, ("valid_auc", "valid AUC"), ("auc", "test AUC"), *_compared("auc", *_TO),
        ("logloss", "LogLoss"), ("gauc", "GAUC"),
    ),
    **{title: (*_WHAT, (metric, "test AUC"), *_compared(metric, *_TO)) for title, metric in SLICES.items()},
    "costs": (
        *_WHAT, ("alignment_seconds", "alignment seconds"), ("alignment_texts_encoded", "its texts"),
        ("alignment_peak_memory_mib", "its peak MiB"), ("seconds", "seconds"), ("texts_encoded", "texts encoded"),
        ("peak_memory_mib", "peak MiB"),
    ),
}  # fmt: skip
GAINS: Columns = (
    ("data", "data"), ("model", "model"), ("seeds", "seeds"), ("plain_auc", "plain AUC"),
    *((f"vs_{mode}_auc{end}", title) for mode in MODES for end, title in (("", f"Δ {mode} [95 %]"), ("_p", "p"))),
)  # fmt: skip
VERDICT: Columns = (
    ("data", "data"), ("model", "model"), ("seeds", "seeds"), ("plain_auc", "plain AUC"), ("arm", "arm"),
    *_compared("auc", "vs_plain", "vs_others"),
)  # fmt: skip
