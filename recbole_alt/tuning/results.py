"""What a tuning leaves: every trial as JSON and CSV, a table, a plot, and the best parameters as YAML."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recbole_alt.files import replacing, write_json, write_text
from recbole_alt.markdown import markdown_table
from recbole_alt.tuning.ranges import Range, needed
from recbole_alt.tuning.trials import best_trial, show, trials, winning


def write_results(folder: Path, ranges: Sequence[Range], stage: str, config: Any, model: str) -> dict[str, Any]:
    """Write ``trials.json``, ``trials.csv``, ``table.md``, ``plot.png`` and ``best.yaml`` into ``folder``.

    Args:
        folder: of the tuning.
        ranges: what was tuned.
        stage: ``plain``, ``ctr``, ``lm`` or ``joint``.
        config: the configuration that all trials shared.
        model: the model as it was asked for.

    Returns:
        ``best`` (the record of the best trial), ``trials``, ``table`` and ``command``, which takes the best up again.

    Raises:
        ValueError: no trial reached a score.
    """
    finished = [{"trial": number, **trial} for number, trial in enumerate(trials(folder), start=1)]
    best = best_trial(finished)
    if best is None:
        reasons = "; ".join(sorted({str(trial["error"]) for trial in finished})) or "none finished"
        raise ValueError(f"no trial reached a score ({reasons}): change the ranges")
    names = [tuned.name for tuned in ranges]
    metric = config["valid_metric"].lower()
    table = results_table(finished, names, metric, stage)
    write_json(folder / "trials.json", {"stage": stage, "metric": metric, "best": best["trial"], "trials": finished})
    _write_csv(folder / "trials.csv", finished, names)
    write_text(folder / "table.md", table + "\n")
    _plot(folder / "plot.png", finished, ranges, metric)
    text = _best_yaml(best, stage, config)
    write_text(folder / "best.yaml", text)
    command = [f"--model={model}", f"--dataset={config['dataset']}", f"--config_files={folder / 'best.yaml'}"]
    if best["pretraining"]:
        command.append(f"--pretrained_checkpoint={folder / 'pretraining' / best['pretraining'] / 'pretrain.pth'}")
    return {
        "best": best,
        "trials": finished,
        "table": table,
        "command": shlex.join(["python", "run_recbole_alt.py", *command]),
    }


def results_table(finished: Sequence[Mapping[str, Any]], names: Sequence[str], metric: str, stage: str) -> str:
    """Trials by validation score, as Markdown, and below it the test metrics of the best alone."""
    best = best_trial([dict(trial) for trial in finished])
    assert best is not None
    metrics = [metric, *(name for name in best["valid"] if name != metric)]
    header = ["trial", *names, *(f"valid {name}" for name in metrics), "seconds"]
    rows = []
    worst = -math.inf if best["bigger"] else math.inf
    order = sorted(finished, key=lambda t: worst if t["score"] is None else t["score"], reverse=best["bigger"])
    for trial in order:
        values = [show(trial["parameters"].get(name)) for name in names]
        scores = [f"{trial['valid'][name]:.4f}" if trial["valid"] else "diverged" for name in metrics]
        rows.append([str(trial["trial"]), *values, *scores, f"{trial['seconds']:.0f}"])
    test = ", ".join(f"{name} {value:.4f}" for name, value in best["test"].items())
    said = f"Best of {stage} on validation: trial {best['trial']}; on the test set, no part of the choice: {test}."
    return f"{markdown_table(header, rows, 'r')}\n\n{said}"


def _write_csv(file: Path, finished: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    metrics = list(dict.fromkeys(name for trial in finished for name in trial["valid"]))
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["trial", *names, *(f"valid_{m}" for m in metrics), "seconds", "pretrain_seconds", "error"])
    for trial in finished:
        values = [trial["parameters"].get(name) for name in names]
        scores = [trial["valid"].get(name) for name in metrics]
        costs = [trial["seconds"], trial["pretrain_seconds"], trial["error"]]
        writer.writerow([trial["trial"], *values, *scores, *costs])
    write_text(file, lines.getvalue())


def _best_yaml(best: Mapping[str, Any], stage: str, config: Any) -> str:
    """The best parameters, and below them the rest of what the tuning was given, so that the file is enough."""
    parameters = best["parameters"]
    own = {"model", "dataset", "config_files", "finetune", "finetune_modes"}
    rest = {key: value for key, value in config.external_config_dict.items() if key not in own | parameters.keys()}
    rest["finetune_modes"] = [] if stage == "plain" else [stage]
    if stage == "plain":
        rest["plain_baseline"] = True
    overrides = winning(config["finetune"], stage, parameters)
    if any(overrides.values()):
        rest["finetune"] = {name: keys for name, keys in overrides.items() if keys}
    parts = (f"# Trial {best['trial']}: best on validation", parameters, "# What all trials shared", rest)
    return "".join(
        f"{part}\n" if isinstance(part, str) else yaml.safe_dump(dict(part), sort_keys=False, allow_unicode=True)
        for part in parts
    )


def _plot(file: Path, finished: Sequence[Mapping[str, Any]], ranges: Sequence[Range], metric: str) -> None:
    """Scores by trial with the best so far, and one small panel per tuned key."""
    figures, gridspec = needed("matplotlib.figure"), needed("matplotlib.gridspec")
    scored = [trial for trial in finished if trial["score"] is not None]
    columns = min(4, len(ranges))
    rows = 2 + math.ceil(len(ranges) / columns)  # the upper panel is two rows high
    figure = figures.Figure(figsize=(max(7, 3 * columns), 2.2 * rows), layout="constrained")
    grid = gridspec.GridSpec(rows, columns, figure=figure)
    upper = figure.add_subplot(grid[:2, :])
    numbers, scores = [trial["trial"] for trial in scored], [trial["score"] for trial in scored]
    pick = max if scored[0]["bigger"] else min
    upper.plot(numbers, scores, "o", label="trial")
    upper.step(numbers, [pick(scores[: i + 1]) for i in range(len(scores))], where="post", label="best so far")
    upper.set(xlabel="trial", ylabel=f"valid {metric}")
    upper.legend()
    for position, tuned in enumerate(ranges):
        panel = figure.add_subplot(grid[2 + position // columns, position % columns])
        values: list[Any] = [trial["parameters"][tuned.name] for trial in scored]
        if tuned.kind == "choice":
            written = [str(value) for value in tuned.values]
            panel.set_xticks(range(len(written)), [show(value)[:14] for value in tuned.values])
            values = [written.index(str(value)) for value in values]
        elif tuned.kind == "loguniform":
            panel.set_xscale("log")
        panel.plot(values, scores, "o", markersize=4)
        panel.set(xlabel=tuned.name)
    with replacing(file) as stream:
        figure.savefig(stream, dpi=120)
