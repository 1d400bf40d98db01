"""Plots of a campaign, as SVG: gain by backbone, by budget, by training data and by popularity, and calibration.

Bars are 95 % t-intervals over seeds in the first, and standard deviations over seeds in the other three.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_alt.files import replacing
from recbole_alt.study.axes import COMPLETE, PLAIN
from recbole_alt.study.tables import Row, distinct, interval_of

#: x, y and standard deviation.
Point = tuple[float, float, float]
_GAIN = "test AUC, less the plain backbone's"


def draw_all(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw every plot that there are rows for; return the files written."""
    written = []
    for data, (name, draw) in product(distinct(row["data"] for row in rows), PLOTS.items()):
        figure = draw([row for row in rows if row["data"] == data])
        if figure is not None:
            figure.suptitle(data, fontsize="medium")
            written.append(save(figure, folder / f"{data}-{name}.svg"))
    return written


def save(figure: Any, file: Path) -> Path:
    """Write an SVG whose text is text; it is the same file for the same figure."""
    from matplotlib import rc_context  # late: it takes long to import

    settings: Any = {"svg.hashsalt": file.name, "svg.fonttype": "none"}
    with rc_context(settings), replacing(file) as stream:
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return file


def gain_by_backbone(rows: Sequence[Row]) -> Any:
    """Difference of test AUC to the plain backbone, with its t-interval over seeds, by model and mode.

    ``lm``, which is far off, has a panel and a scale of its own below the others.
    """
    shown = [row for row in _whole(rows, COMPLETE) if row.get("vs_plain_auc") is not None]
    if not shown:
        return None
    models, labels = distinct(row["model"] for row in shown), distinct(map(_label, shown))
    panels = [distinct(_label(row) for row in shown if (row["stage"] == "lm") == lm) for lm in (False, True)]
    panels = [panel for panel in panels if panel]
    figure, axes_of_panels = _axes(max(6.0, 0.6 * len(models) + 2), len(panels))
    for panel, axes in zip(panels, axes_of_panels, strict=True):
        for number, label in enumerate(panel):
            here = pd.DataFrame([row for row in shown if _label(row) == label])
            places = here.model.map(models.index) + (number - (len(panel) - 1) / 2) * 0.8 / len(panel)
            gains = here["vs_plain_auc"].astype(float)
            ends = [interval_of(row, "vs_plain_auc") or (np.nan, np.nan) for row in here.to_dict("records")]
            bars = np.abs(np.asarray(ends).T - gains.to_numpy())
            style = {"fmt": "o", "color": f"C{labels.index(label)}", "label": label}
            axes.errorbar(places, gains, bars, capsize=2, **style)
        _finish(axes)
    axes.set_xticks(range(len(models)), models, rotation=45, ha="right")
    figure.supylabel(_GAIN, fontsize="medium")
    return figure


def gain_by_budget(rows: Sequence[Row]) -> Any:
    """Gain against the texts encoded in alignment, over the budgets of the campaign."""
    budgets = {row["variant"] for row in rows if row["variant"].startswith("steps_")}
    lines = _gains(_whole(rows, COMPLETE, "no_pretraining", *budgets), "alignment_texts_encoded")
    return _line_plot(lines, xlabel="texts encoded in alignment", ylabel=_GAIN)


def gain_by_share(rows: Sequence[Row]) -> Any:
    """Gain against the amount of training data."""
    lines = _gains([row for row in rows if row["variant"] == COMPLETE], "train_share")
    return _line_plot(lines, xscale="log", xlabel="share of the training interactions", ylabel=_GAIN)


def gain_by_popularity(rows: Sequence[Row]) -> Any:
    """Gain of AUC among the test rows of rare and of frequent items, averaged over models and seeds."""
    whole = [row for row in _whole(rows, PLAIN, COMPLETE) if row["popularity"]]
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
    gains = (pairs.auc - pairs.auc_plain).groupby([pairs.stage, pairs.place], sort=False).agg(["mean", "std"])
    lines = {stage: part.fillna(0.0).loc[stage].to_records() for stage, part in gains.groupby(level=0, sort=False)}
    ticks = [f"{name}\n{count:,} rows" for name, count in bins.items()]
    labels = {"xlabel": "training interactions of the item", "ylabel": "AUC, less the plain backbone's"}
    return _line_plot(lines, xticks=range(len(bins)), xticklabels=ticks, **labels)


def calibration(rows: Sequence[Row]) -> Any:
    """Clicks against predicted clicks, in bins with as many rows each, of the first model and its first seed."""
    shown = [row for row in _whole(rows, PLAIN, COMPLETE) if row["calibration"]]
    if not shown:
        return None
    figure, (axes,) = _axes()
    for row in shown:
        if row["model"] == shown[0]["model"]:
            axes.plot(*row["calibration"].values(), "o-", markersize=3, label=_label(row))
    axes.axline((0, 0), slope=1, color="grey", linewidth=0.6)
    axes.set(xlabel=f"predicted by {shown[0]['model']}, bins with as many rows each", ylabel="share of clicks")
    axes.legend(frameon=False, fontsize="small")
    return figure


PLOTS = {
    "backbones": gain_by_backbone,
    "budget": gain_by_budget,
    "train_share": gain_by_share,
    "popularity": gain_by_popularity,
    "calibration": calibration,
}


def _axes(width: float = 6.0, panels: int = 1) -> tuple[Any, Any]:
    """A figure and its one or two panels, one above the other, of which the first is the larger."""
    from matplotlib.figure import Figure  # late: it takes long to import

    figure = Figure(figsize=(width, 2.0 + 1.5 * panels), layout="constrained")
    return figure, figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=[3, 2][:panels])[:, 0]


def _finish(axes: Any) -> None:
    axes.axhline(0, color="grey", linewidth=0.6)
    axes.legend(frameon=False, fontsize="small")


def _line_plot(lines: Mapping[str, Iterable[Point]], **labels: Any) -> Any:
    if not lines:
        return None
    figure, (axes,) = _axes()
    for name, points in lines.items():
        axes.errorbar(*zip(*points, strict=True), fmt="o-", capsize=2, label=name)
    axes.set(**labels)
    _finish(axes)
    return figure


def _whole(rows: Sequence[Row], *variants: str) -> list[Row]:
    """The rows of ``variants``, with the largest share of the training data."""
    share = max(row["train_share"] for row in rows)
    return [row for row in rows if row["train_share"] == share and row["variant"] in variants]


def _label(row: Row) -> str:
    return " ".join(filter(None, (row["language_model"], row["stage"])))


def _gains(rows: Sequence[Row], x: str) -> dict[str, list[Point]]:
    """Test AUC less the plain backbone's, by model and mode that have more than one ``x``."""
    lines: dict[str, list[Point]] = {}
    for row in rows:
        if row.get(x) is not None and row.get("vs_plain_auc") is not None:
            point = (row[x], row["vs_plain_auc"], row.get("vs_plain_auc_sd") or 0.0)
            lines.setdefault(f"{row['model']} {_label(row)}", []).append(point)
    return {name: sorted(points) for name, points in lines.items() if len(points) > 1}
