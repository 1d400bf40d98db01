"""Plots of a campaign, as SVG: gain by backbone, by budget, by training data and by popularity, and calibration.

Bars are bootstrap intervals over test rows in the first, and standard deviations over seeds in the other three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alt.files import replacing
from recbole_alt.study.axes import COMPLETE, PLAIN
from recbole_alt.study.summary import Row
from recbole_alt.tuning.ranges import needed


def draw_all(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Every plot that there are rows for; the files written."""
    written = []
    for data in dict.fromkeys(row["data"] for row in rows):
        here = [row for row in rows if row["data"] == data]
        drawn = {
            "backbones": gain_by_backbone(here),
            "budget": quality_by_budget(here),
            "train_share": gain_by_share(here),
            "popularity": gain_by_popularity(here),
            "calibration": calibration(here),
        }
        for name, figure in drawn.items():
            if figure is not None:
                file = folder / f"{data}-{name}.svg"
                figure.suptitle(data, fontsize="medium")
                settings = {"svg.hashsalt": file.name}  # the same file for the same rows
                with needed("matplotlib").rc_context(settings), replacing(file) as stream:
                    figure.savefig(stream, format="svg", metadata={"Date": None})
                written.append(file)
    return written


def _axes(width: float = 6.0, panels: int = 1) -> tuple[Any, Any]:
    """``panels`` above each other, of which the first is the largest."""
    figure = needed("matplotlib.figure").Figure(figsize=(width, 2.0 + 1.5 * panels), layout="constrained")
    ratios = [3] + [2] * (panels - 1)
    return figure, figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]


def gain_by_backbone(rows: Sequence[Row]) -> Any:
    """Difference of test AUC to the plain backbone, with its bootstrap interval, by model and mode.

    The language model alone, which is far off, has a panel and a scale of its own below the others.
    """
    share = max(row["train_share"] for row in rows)
    complete = [row for row in rows if row["variant"] == COMPLETE and row["train_share"] == share]
    shown = [row for row in complete if row.get("vs_plain_auc") is not None]
    if not shown:
        return None
    models = list(dict.fromkeys(row["model"] for row in shown))
    kinds = list(dict.fromkeys((row["language_model"], row["stage"]) for row in shown))
    panels = [[kind for kind in kinds if (kind[1] == "lm") == alone] for alone in (False, True)]
    panels = [panel for panel in panels if panel]
    figure, axes_of_panels = _axes(max(6.0, 0.6 * len(models) + 2), len(panels))
    for panel, axes in zip(panels, axes_of_panels, strict=True):
        for number, kind in enumerate(panel):
            of_kind = [row for row in shown if (row["language_model"], row["stage"]) == kind]
            aside = (number - (len(panel) - 1) / 2) * 0.8 / len(panel)
            places = [models.index(row["model"]) + aside for row in of_kind]
            gains = np.array([row["vs_plain_auc"] for row in of_kind])
            ends = np.array([[row["vs_plain_auc_low"], row["vs_plain_auc_high"]] for row in of_kind], dtype=float).T
            style = {"fmt": "o", "capsize": 2, "color": f"C{kinds.index(kind)}", "label": " ".join(filter(None, kind))}
            axes.errorbar(places, gains, np.abs(ends - gains), **style)
        axes.axhline(0, color="grey", linewidth=0.6)
        axes.legend(frameon=False, fontsize="small")
    axes.set_xticks(range(len(models)), models, rotation=45, ha="right")
    figure.supylabel("test AUC, less the plain backbone's", fontsize="medium")
    return figure


#: Of a line: where, how high, and the standard deviation over seeds (0 with one seed).
Point = tuple[float, float, float]


def _gains(rows: Sequence[Row], x: str) -> dict[str, list[Point]]:
    """Test AUC less the plain backbone's, by model and mode, where there is more than one ``x``."""
    lines: dict[str, list[Point]] = {}
    for row in rows:
        if row.get(x) is not None and row.get("vs_plain_auc") is not None:
            name = " ".join(filter(None, (row["model"], row["language_model"], row["stage"])))
            lines.setdefault(name, []).append((row[x], row["vs_plain_auc"], row.get("vs_plain_auc_sd") or 0.0))
    return {name: sorted(points) for name, points in lines.items() if len(points) > 1}


def _line_plot(lines: Mapping[str, Sequence[Point]], **labels: str) -> Any:
    if not lines:
        return None
    figure, (axes,) = _axes()
    for name, points in lines.items():
        where, height, spread = zip(*points, strict=True)
        axes.errorbar(where, height, spread, fmt="o-", capsize=2, label=name)
    axes.axhline(0, color="grey", linewidth=0.6)
    axes.set(**labels)
    axes.legend(frameon=False, fontsize="small")
    return figure


def quality_by_budget(rows: Sequence[Row]) -> Any:
    """Gain against the texts encoded in alignment, over the budgets of the campaign."""
    kept = [r for r in rows if r["variant"] in (COMPLETE, "no_pretraining") or r["variant"].startswith("steps_")]
    share = max(row["train_share"] for row in rows)
    lines = _gains([r for r in kept if r["train_share"] == share], "alignment_texts_encoded")
    return _line_plot(lines, xlabel="texts encoded in alignment", ylabel="test AUC, less the plain backbone's")


def gain_by_share(rows: Sequence[Row]) -> Any:
    """Gain against the amount of training data."""
    lines = _gains([r for r in rows if r["variant"] == COMPLETE], "train_share")
    names = {"xlabel": "share of the training interactions", "ylabel": "test AUC, less the plain backbone's"}
    return _line_plot(lines, xscale="log", **names)


def gain_by_popularity(rows: Sequence[Row]) -> Any:
    """Gain of AUC among the test rows of rare and of frequent items, averaged over models and seeds."""
    share = max(row["train_share"] for row in rows)
    whole = [row for row in rows if row["train_share"] == share and row["popularity"]]
    plain = {row["model"]: row["popularity"] for row in whole if row["variant"] == PLAIN}
    gains: dict[str, dict[str, list[float]]] = {}  # by mode and bin
    for row in whole:
        if row["variant"] != COMPLETE or row["model"] not in plain:
            continue
        for name, aligned in row["popularity"].items():
            before = plain[row["model"]][name]["auc"]
            pairs = [after - before[seed] for seed, after in aligned["auc"].items() if seed in before]
            if pairs:
                gains.setdefault(row["stage"], {}).setdefault(name, []).extend(pairs)
    if not gains:
        return None
    figure, (axes,) = _axes()
    bins = {name: one["rows"] for name, one in whole[0]["popularity"].items()}
    places = {name: place for place, name in enumerate(bins)}
    for stage, line in gains.items():
        spread = [np.std(pairs, ddof=1) if len(pairs) > 1 else 0.0 for pairs in line.values()]
        means = [np.mean(pairs) for pairs in line.values()]
        axes.errorbar([places[name] for name in line], means, spread, fmt="o-", capsize=2, label=stage)
    axes.axhline(0, color="grey", linewidth=0.6)
    axes.set_xticks(range(len(bins)), [f"{name}\n{count:,} rows" for name, count in bins.items()])
    axes.set(xlabel="training interactions of the item", ylabel="AUC, less the plain backbone's")
    axes.legend(frameon=False, fontsize="small")
    return figure


def calibration(rows: Sequence[Row]) -> Any:
    """Clicks against predicted clicks, in bins with as many rows each, of the first model and its first seed."""
    share = max(row["train_share"] for row in rows)
    kept = [row for row in rows if row["variant"] in (PLAIN, COMPLETE) and row["train_share"] == share]
    shown = [row for row in kept if row["calibration"]]
    if not shown:
        return None
    figure, (axes,) = _axes()
    model = shown[0]["model"]
    for row in shown:
        if row["model"] == model:
            label = " ".join(filter(None, (row["language_model"], row["stage"])))
            axes.plot(row["calibration"]["predicted"], row["calibration"]["clicked"], "o-", markersize=3, label=label)
    axes.axline((0, 0), slope=1, color="grey", linewidth=0.6)
    axes.set(xlabel=f"predicted by {model}, bins with as many rows each", ylabel="share of clicks")
    axes.legend(frameon=False, fontsize="small")
    return figure
