"""Plots of a campaign, as SVG: what each arm gains, on all rows and on slices, by item popularity, and calibration.

Bars are 95 % t-intervals over seeds.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from recbole_alt.reporting.runs import COMPLETE, CONTROL, PLAIN, arm_of, distinct, is_control
from recbole_alt.reporting.tables import SLICES, Row, interval_of
from recbole_alt.statistics import t_interval

#: Title of a panel → the metric that it shows.
_PANELS = {"all rows": "auc", **SLICES}
#: Of the plain backbone and the modes, in all plots that show each as one line.
COLORS = {"plain": "C7", "ctr": "C0", "lm": "C1", "joint": "C2"}


def draw_all(rows: Sequence[Row]) -> dict[str, bytes]:
    """Draw every plot that there are rows for; the name of each file, and its content."""
    drawn = {}
    for data, (name, draw) in product(distinct(row["data"] for row in rows), PLOTS.items()):
        figure = draw([row for row in rows if row["data"] == data])
        if figure is not None:
            figure.suptitle(data, fontsize="medium")
            drawn[f"{data}-{name}.svg"] = to_svg(figure, f"{data}-{name}.svg")
    return drawn


def to_svg(figure: Any, name: str) -> bytes:
    """An SVG whose text is text; it is the same for the same figure and ``name``."""
    from matplotlib import rc_context  # late: it takes long to import

    settings: Any = {"svg.hashsalt": name, "svg.fonttype": "none"}
    stream = BytesIO()
    with rc_context(settings):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def gains(rows: Sequence[Row]) -> Any:
    """Test AUC less the plain model's, of every arm: with its own texts, and with those of other items.

    There is a column of panels for all rows and for each slice that has any, and a row for each share of the data.
    """
    shown = [row for row in rows if row.get("vs_plain_auc") is not None]
    if not shown:
        return None
    shares = distinct(row["train_share"] for row in shown)
    panels = [(title, m) for title, m in _PANELS.items() if any(row.get(f"vs_plain_{m}") is not None for row in shown)]
    arms = distinct(map(_name_arm, shown))
    figure, grid = new_figure(len(shares), len(panels), height=1.2 + 0.28 * len(arms), sharey=True, sharex="col")
    for (share, axes_of_share), control in product(zip(shares, grid, strict=True), (True, False)):
        here = [row for row in shown if row["train_share"] == share and is_control(row["variant"]) == control]
        for (title, metric), axes in zip(panels, axes_of_share, strict=True):
            drawn = [row for row in here if row.get(f"vs_plain_{metric}") is not None]
            places = [arms.index(_name_arm(row)) + (0.15 if control else -0.15) for row in drawn]
            style = {"fmt": "o", "capsize": 2, "color": "C7" if control else "C0", "mfc": "white" if control else "C0"}
            label = "texts of other items" if control else "its own texts"
            values = [row[f"vs_plain_{metric}"] for row in drawn]
            ends = [interval_of(row, f"vs_plain_{metric}") or (np.nan, np.nan) for row in drawn]
            bars = np.abs(np.reshape(ends, (-1, 2)).T - np.asarray(values))
            axes.errorbar(values, places, xerr=bars, label=label if drawn else None, **style)
            axes.axvline(0, color="grey", linewidth=0.6)
            axes.locator_params(axis="x", nbins=5)
            axes.set_title(title if share == 1 else f"{title}, {share:.0%} of the clicks", fontsize="small")
    grid[0][0].set_yticks(range(len(arms)), arms)
    grid[0][0].set_ylim(len(arms) - 0.5, -0.5)
    names = grid[0][0].get_legend_handles_labels()
    figure.legend(*names, loc="outside upper right", ncols=2, frameon=False, fontsize="small")
    figure.supxlabel("test AUC, less the plain model's", fontsize="medium")
    return figure


def gain_by_popularity(rows: Sequence[Row]) -> Any:
    """Gain of AUC among the test rows of rare and of frequent items, by mode, averaged over models and seeds."""
    whole = [row for row in _largest_share(rows) if row["popularity"]]
    bins = {name: one["rows"] for name, one in whole[0]["popularity"].items()} if whole else {}
    aucs = [
        (row["variant"], row["stage"], row["model"], list(bins).index(name), seed, value)
        for row in whole
        for name, one in row["popularity"].items()
        for seed, value in one["auc"].items()
    ]
    frame = pd.DataFrame(aucs, columns=["variant", "stage", "model", "place", "seed", "auc"])
    plain, aligned = (frame[frame.variant == variant] for variant in (PLAIN, COMPLETE))
    pairs = aligned.merge(plain, on=["model", "place", "seed"], suffixes=("", "_plain"))
    if pairs.empty:
        return None
    found = (pairs.auc - pairs.auc_plain).groupby([pairs.stage, pairs.place], sort=False).agg(["mean", "std", "count"])
    figure, ((axes,),) = new_figure(1, 1)
    for stage, part in found.groupby(level=0, sort=False):
        style = {"fmt": "o-", "capsize": 2, "color": COLORS[stage], "label": stage}
        bars = [t_interval(0.0, one.std, one.count)[1] if one.count > 1 else np.nan for one in part.itertuples()]
        axes.errorbar(part.index.get_level_values(1), part["mean"], bars, **style)
    axes.set_xticks(range(len(bins)), [f"{name}\n{count:,} rows" for name, count in bins.items()])
    axes.set(xlabel="training interactions of the item", ylabel="AUC, less the plain model's")
    axes.axhline(0, color="grey", linewidth=0.6)
    axes.legend(frameon=False, fontsize="small")
    return figure


def calibration(rows: Sequence[Row]) -> Any:
    """Clicks against predicted clicks, in bins with as many rows each, of the first model and its first seed."""
    shown = [row for row in _largest_share(rows) if row["calibration"] and row["variant"] in (PLAIN, COMPLETE)]
    if not shown:
        return None
    model = shown[0]["model"]
    return draw_calibration(model, {arm_of(row): row["calibration"] for row in shown if row["model"] == model})


def draw_calibration(model: str, curves: Mapping[str, Mapping[str, Sequence[float]]], **size: Any) -> Any:
    """What each of ``curves``, as :func:`~recbole_alt.statistics.reliability` makes them, predicted and what came."""
    figure, ((axes,),) = new_figure(1, 1, **size)
    for label, curve in curves.items():
        axes.plot(curve["predicted"], curve["clicked"], "o-", markersize=3, color=COLORS.get(label), label=label)
    axes.axline((0, 0), slope=1, color="grey", linewidth=0.6)
    axes.set(xlabel=f"predicted by {model}, bins with as many rows each", ylabel="share of clicks")
    axes.legend(frameon=False, fontsize="small")
    return figure


PLOTS: Mapping[str, Any] = {"gains": gains, "popularity": gain_by_popularity, "calibration": calibration}


def new_figure(
    rows: int, columns: int, height: float = 3.5, width: float | None = None, **shared: Any
) -> tuple[Any, Any]:
    """A figure with a grid of panels, each ``height`` inches high, and ``width`` inches wide in all."""
    from matplotlib.figure import Figure  # late: it takes long to import

    figure = Figure(figsize=(width or 3.0 + 3.0 * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _name_arm(row: Row) -> str:
    """The model and the arm, by the same name with its own texts and with others'."""
    return f"{row['model']} {arm_of(row | {'variant': row['variant'].removesuffix(CONTROL), 'tuned_alone': False})}"


def _largest_share(rows: Sequence[Row]) -> list[Row]:
    share = max(row["train_share"] for row in rows)
    return [row for row in rows if row["train_share"] == share]
