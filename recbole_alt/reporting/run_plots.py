"""Plots of one run: gains on slices of the rows, calibration, and the curves of its trainings."""

from typing import Any

from recbole_alt.reporting.page import Plot
from recbole_alt.reporting.plots import COLORS, draw_calibration, new_figure, to_svg
from recbole_alt.reporting.run_table import SLICE_TITLES, RunResult

_SIZE = {"height": 3.2, "width": 4.4}  # inches, of a panel


def draw_run(run: RunResult) -> list[Plot]:
    """Every plot that the record has numbers for."""
    figures = {
        "AUC of each mode, less the plain backbone's, on all rows and on slices of them (number of rows)": _gains(run),
        "Share of clicks against the predicted one, of test rows; grey: as predicted": _calibration(run),
        "Losses of the alignment by step; held out: the sum of all, on training rows that it does not read": (
            _alignment(run)
        ),
        "Mean training loss by epoch, with the penalties of weights that the backbone adds": _finetuning(
            run, "loss", "training loss"
        ),
        "Validation by epoch; the best one, marked, is tested": _finetuning(run, "valid", f"valid {run.title}"),
    }
    drawn = {about: figure for about, figure in figures.items() if figure is not None}
    return [Plot(about, to_svg(figure, about)) for about, figure in drawn.items()]


def _gains(run: RunResult) -> Any:
    modes = [mode for mode in run.modes if mode != "plain"]
    gains = {name: [run.slice_gain(mode, name) for mode in modes] for name in SLICE_TITLES}
    gains = {name: values for name, values in gains.items() if any(value is not None for value in values)}
    if not gains:
        return None
    figure, ((axes,),) = new_figure(1, 1, **_SIZE)
    for number, (mode, values) in enumerate(zip(modes, zip(*gains.values(), strict=True), strict=True)):
        known = [(value, place) for place, value in enumerate(values) if value is not None]
        shift = 0.18 * (number - (len(modes) - 1) / 2)
        axes.plot([x for x, _ in known], [y + shift for _, y in known], "o", color=COLORS[mode], label=mode)
    rows = [run.slices("plain")[name]["rows"] for name in gains]
    axes.set_yticks(range(len(gains)), [f"{SLICE_TITLES[n]} ({of:,})" for n, of in zip(gains, rows, strict=True)])
    axes.invert_yaxis()
    axes.axvline(0, color="grey", linewidth=0.6)
    axes.set_xlabel("AUC, less the plain backbone's")
    axes.locator_params(axis="x", nbins=5)
    _legend(axes)
    return figure


def _calibration(run: RunResult) -> Any:
    found = {mode: run.results.get(mode, {}).get("calibration") for mode in run.modes}
    curves = {mode: curve for mode, curve in found.items() if curve}
    return draw_calibration(run.model, curves, **_SIZE) if curves else None


def _alignment(run: RunResult) -> Any:
    curves = run.record["stages"].get("pretrain", {}).get("curves")
    if not curves:
        return None
    figure, ((axes,),) = new_figure(1, 1, **_SIZE)
    for name, points in curves.items():
        style = {"color": "black", "marker": "o", "markersize": 3} if name == "held_out" else {}
        axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), **style)
    axes.set(xlabel="step", ylabel="loss")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small", loc="upper right")  # losses fall
    return figure


def _finetuning(run: RunResult, name: str, title: str) -> Any:
    found = {mode: run.record["stages"][mode].get("curves", {}).get(name) for mode in run.modes}
    curves = {mode: points for mode, points in found.items() if points}
    if not curves:
        return None
    figure, ((axes,),) = new_figure(1, 1, **_SIZE)
    for mode, points in curves.items():
        (line,) = axes.plot(*zip(*points, strict=True), color=COLORS[mode], label=mode)
        if name == "valid":
            best = run.sign * max(run.sign * score for _, score in points)
            line.set(marker="o", markersize=6, markevery=[[score for _, score in points].index(best)])
    values = [value for points in curves.values() for _, value in points]
    if min(values) > 0 and max(values) > 10 * min(values):  # as the loss of some modes has the backbone's penalty
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel=title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(axes)
    return figure


def _legend(axes: Any) -> None:
    """Name the modes above the panel, where they hide nothing."""
    axes.legend(frameon=False, fontsize="small", ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
