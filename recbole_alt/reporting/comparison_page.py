"""``report.html``: a comparison on one page, made from its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from recbole_alt.keys import STAGES
from recbole_alt.reporting.page import Plot, make_page
from recbole_alt.reporting.plots import PLOTS
from recbole_alt.reporting.runs import arm_of, distinct
from recbole_alt.reporting.table import number
from recbole_alt.reporting.tables import (
    MARKS,
    Row,
    best_arms,
    gains_table,
    interval_of,
    make_tables,
    name_data,
    verdict_table,
)
from recbole_alt.statistics import holm

_SURE = 0.05  # p below which a difference is shown
_FEW = 3  # models, of each of which a sentence is said
_SERVED_WITHOUT_TEXT = ("plain", "ctr")

_LEGEND = {
    "Arm": "A variant of the method in one mode: ctr keeps only the CTR model, lm only the language model, joint both.",
    "valid AUC, test AUC, LogLoss, GAUC": "Mean ± standard deviation over seeds. Validation chooses, never the test "
    "set.",
    "Δ [95 %]": "Difference from the run with the same seed, and its t-interval over seeds. Negative is worse, except "
    "for LogLoss.",
    "to others' texts": "Difference from the same arm with the texts of other items: what is due to the right texts.",
    "p": "Two-sided paired t-test over seeds, after Holm's correction for the tests in its column.",
}


def comparison_page(rows: Sequence[Row], plots: Mapping[str, bytes]) -> str:
    """The page of the rows of ``results.json``, with the ``plots`` of :func:`~recbole_alt.reporting.plots.draw_all`."""
    stages = _SERVED_WITHOUT_TEXT if best_arms(rows, _SERVED_WITHOUT_TEXT) else STAGES
    tables = make_tables(rows)
    sections = []
    for facts, group in groupby(tables, key=lambda table: table.facts):
        here = [table.joined("model and arm", ("model", "language model", "arm")) for table in group]
        data, named = here[0].title.rpartition(": ")[0], [replace(t, title=t.title.rpartition(": ")[2]) for t in here]
        sections.append({"data": data, "facts": facts, "tables": named})
    marked = {mark: what for mark, what in MARKS.items() if any(mark in str(table.rows) for table in tables)}
    return make_page(
        "comparison.html",
        title=f"Comparison on {', '.join(distinct(row['data'] for row in rows))}",
        facts=_sum_up(rows),
        verdict=judge(rows, stages),
        verdict_table=verdict_table(rows, stages).joined("data, model and arm", ("data", "model", "arm")),
        gains=gains_table(rows).joined("data and model", ("data", "model")),
        plots=[Plot(_describe(name), svg) for name, svg in plots.items()],
        sections=sections,
        legend=_LEGEND | marked,
    )


def judge(rows: Sequence[Row], stages: Sequence[str]) -> list[str]:
    """What the arm with text that validation prefers gains over plain: of many models their number, then single ones.

    A difference is shown where p over seeds, after Holm's correction for the models, is below 0.05.
    """
    best = best_arms(rows, stages)
    if not best:
        return ["Nothing can be said of texts: there is no plain model with an arm with text beside it."]
    p_values = holm([row.get("vs_plain_auc_p") for row in best])
    shown = [row for row, p in zip(best, p_values, strict=True) if p is not None and p < _SURE]
    if len(best) <= _FEW:
        return [_tell(row, p) for row, p in zip(best, p_values, strict=True)]
    gains = sum(row["vs_plain_auc"] > 0 for row in shown)
    said = f"Of {len(best)} models {gains} {'gains' if gains == 1 else 'gain'} in test AUC by the arm with text that "
    said += f"validation prefers, {len(shown) - gains} lose, and {len(best) - len(shown)} show no difference."
    if marked := sum(bool(row["plain_marks"]) for row in best):
        said += f" {marked} of the plain models are marked: a gain over these is no gain."
    return [said, *(_tell(row, p) for row, p in zip(best, p_values, strict=True) if row in shown)]


def _tell(row: Row, p: float | None) -> str:
    gain, ends = row.get("vs_plain_auc"), interval_of(row, "vs_plain_auc")
    said, arm = f"{name_data(row)}, {row['model']}: ", f"“{arm_of(row)}”"
    if gain is None:
        return f"{said}there is no pair of runs to compare {arm} with plain."
    change = number(gain, "+") + (f" [{number(ends[0], '+')}, {number(ends[1], '+')}]" if ends else "")
    if p is None:
        said += f"{arm} differs from plain by {change} in test AUC, which so few seeds can't tell from chance."
    elif p >= _SURE:
        said += f"no difference between {arm} and plain is shown: {change} in test AUC, p = {p:.2f}."
    else:
        said += f"{arm} is {'better' if gain > 0 else 'worse'} than plain by {change} in test AUC."
    if (others := row.get("vs_others_auc")) is not None:
        said += f" With its own texts instead of others' it is {number(others, '+')}."
    return said + (f" The plain model is marked {row['plain_marks']}." if row["plain_marks"] else "")


def _sum_up(rows: Sequence[Row]) -> str:
    seeds = sorted({seed for row in rows for seed in row["seeds"].split()}, key=int)
    models = ", ".join(distinct(row["model"] for row in rows))
    return f"{models}; seeds {', '.join(seeds)}."


def _describe(name: str) -> str:
    """What the plot in a file of this name shows."""
    data, _, kind = name.removesuffix(".svg").rpartition("-")
    return f"{data}: {' '.join((PLOTS[kind].__doc__ or '').split(chr(10))[0].split())}"
