"""Draw the plots of docs/ from result files: ``python docs/make_plots.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent
RESULTS, PLOTS = ROOT / "results", ROOT / "plots"


def scaling(results: list[dict[str, Any]]) -> Figure:
    """What the language model costs as interactions grow over the same users and items."""
    details = next(result["details"] for result in results if result["name"] == "scaling")
    interactions = details["interactions"]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    first = details["seconds"][0]
    axes.plot(interactions, [s / first for s in details["seconds"]], "o-", label="measured, an epoch of blocks")
    axes.plot(interactions, [n / interactions[0] for n in interactions], "--", color="grey", label="one text a row")
    axes.set(xscale="log", yscale="log", xlabel="interactions", ylabel="cost of text, first = 1")
    axes.legend(frameon=False)
    return figure


def shortcuts(runs: list[dict[str, Any]]) -> Figure:
    """Quality against time, a point a run."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for variant in {run["variant"]: None for run in runs}:
        group = [run for run in runs if run["variant"] == variant]
        reached = [run["results"]["ctr"]["test"]["auc"] for run in group]
        axes.plot([run["seconds"] for run in group], reached, "o", label=variant)
    plain = [run["results"]["plain"]["test"]["auc"] for run in runs if "plain" in run["results"]]
    for auc in plain:
        axes.axhline(auc, color="grey", linewidth=0.6, label="plain DCN" if auc == plain[0] else None)
    axes.set(xlabel="seconds of alignment", ylabel="test AUC of ctr")
    axes.legend(frameon=False, fontsize="small")
    return figure


#: Result file → plot.
DRAWN = {"speed": scaling, "shortcuts": shortcuts}

if __name__ == "__main__":
    PLOTS.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        file = RESULTS / f"{name}.json"
        if file.is_file():
            draw(json.loads(file.read_text())).savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
