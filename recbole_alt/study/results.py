"""What a tuning leaves: every trial as JSON and CSV, a table, a plot, and the best parameters as YAML."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from recbole_alt.config import ALTConfig
from recbole_alt.files import read_record, replacing, write_json, write_text
from recbole_alt.study.progress import show
from recbole_alt.study.ranges import Range
from recbole_alt.study.store import best_of

Record = dict[str, Any]


def read_trials(folder: Path) -> list[Record]:
    """The finished trials of a tuning, by number."""
    records = [read_record(file) for file in folder.glob("trials/*.json")]
    return sorted(records, key=lambda record: (record["trial"] or 0, record["begun"]))


def override(finetune: Mapping[str, Any] | None, stage: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``finetune: {stage: ...}`` with the tuned values in place of overrides, which would win over them."""
    stages = dict(finetune or {})
    overrides = stages.get(stage) or {}
    return {**stages, stage: {key: parameters.get(key, value) for key, value in overrides.items()}}


def write_results(folder: Path, ranges: Sequence[Range], stage: str, config: ALTConfig, model: str) -> Record:
    """Write ``trials.json``, ``trials.csv``, ``table.md``, ``plot.png`` and ``best.yaml`` into ``folder``.

    Args:
        folder: Of the tuning.
        ranges: What was tuned.
        stage: ``plain``, ``ctr``, ``lm`` or ``joint``.
        config: The configuration that all trials shared.
        model: The model as it was asked for.

    Returns:
        ``best`` (the record of the best trial), ``trials``, ``table`` and ``command``, which takes the best up again.

    Raises:
        ValueError: No trial reached a score.
    """
    trials = read_trials(folder)
    best = best_of(trials)
    if best is None:
        reasons = "; ".join(sorted({str(trial["error"]) for trial in trials})) or "none finished"
        raise ValueError(f"no trial reached a score ({reasons}): change the ranges")
    metric = config["valid_metric"].lower()
    table = _make_table(trials, best, [tuned.name for tuned in ranges], metric, stage)
    write_json(folder / "trials.json", {"stage": stage, "metric": metric, "best": best["trial"], "trials": trials})
    rows = [
        {
            "trial": trial["trial"],
            **{tuned.name: trial["parameters"].get(tuned.name) for tuned in ranges},
            **{f"valid_{name}": trial["valid"].get(name) for name in best["valid"]},
            **{key: trial[key] for key in ("seconds", "pretrain_seconds", "error")},
        }
        for trial in trials
    ]
    write_text(folder / "trials.csv", pd.DataFrame(rows, dtype=object).to_csv(index=False))
    write_text(folder / "table.md", table + "\n")
    _plot(folder / "plot.png", trials, ranges, metric)
    write_text(folder / "best.yaml", _best_yaml(best, stage, config))
    command = [f"--model={model}", f"--dataset={config['dataset']}", f"--config_files={folder / 'best.yaml'}"]
    if best["pretraining"]:
        command.append(f"--pretrained_checkpoint={folder / 'pretraining' / best['pretraining'] / 'pretrain.pth'}")
    command = ["python", "run_recbole_alt.py", *command]
    return {"best": best, "trials": trials, "table": table, "command": shlex.join(command)}


def _make_table(trials: Sequence[Record], best: Record, names: Sequence[str], metric: str, stage: str) -> str:
    """Trials by validation score, as Markdown, and below it the test metrics of the best only."""
    metrics = [metric, *(name for name in best["valid"] if name != metric)]
    worst = -math.inf if best["bigger"] else math.inf
    order = sorted(trials, key=lambda t: worst if t["score"] is None else t["score"], reverse=best["bigger"])
    rows = [
        {
            "trial": str(trial["trial"]),
            **{name: show(trial["parameters"].get(name)) for name in names},
            **{f"valid {m}": f"{trial['valid'][m]:.4f}" if trial["valid"] else "diverged" for m in metrics},
            "seconds": f"{trial['seconds']:.0f}",
        }
        for trial in order
    ]
    table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True, stralign="right")
    test = ", ".join(f"{name} {value:.4f}" for name, value in best["test"].items())
    last = f"Best of {stage} on validation: trial {best['trial']}; on the test set, no part of the choice: {test}."
    return f"{table}\n\n{last}"


def _best_yaml(best: Record, stage: str, config: ALTConfig) -> str:
    """The best parameters, and below them the rest of what the tuning was given, so that the file is enough."""
    parameters = best["parameters"]
    own = {"model", "dataset", "config_files", "finetune", "finetune_modes"}
    rest = {key: value for key, value in config.external_config_dict.items() if key not in own | parameters.keys()}
    rest["finetune_modes"] = [] if stage == "plain" else [stage]
    if stage == "plain":
        rest["plain_baseline"] = True
    overrides = override(config["finetune"], stage, parameters)
    if any(overrides.values()):
        rest["finetune"] = {name: keys for name, keys in overrides.items() if keys}
    first, second = (yaml.safe_dump(part, sort_keys=False, allow_unicode=True) for part in (parameters, rest))
    return f"# Trial {best['trial']}: best on validation\n{first}# What all trials shared\n{second}"


def _plot(file: Path, trials: Sequence[Record], ranges: Sequence[Range], metric: str) -> None:
    """Scores by trial with the best so far, and one panel per tuned key."""
    scored = [trial for trial in trials if trial["score"] is not None]
    numbers, scores = [trial["trial"] for trial in scored], pd.Series([trial["score"] for trial in scored])
    columns = min(4, len(ranges))
    figure = Figure(figsize=(max(7, 3 * columns), 3 + 2.4 * math.ceil(len(ranges) / columns)), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, math.ceil(len(ranges) / columns)])
    upper = halves[0].subplots()
    upper.plot(numbers, scores, "o", label="trial")
    best = scores.cummax() if scored[0]["bigger"] else scores.cummin()
    upper.step(numbers, best, where="post", label="best so far")
    upper.set(xlabel="trial", ylabel=f"valid {metric}")
    upper.legend()
    panels = halves[1].subplots(math.ceil(len(ranges) / columns), columns, squeeze=False).flat
    for tuned, panel in zip(ranges, panels, strict=False):
        values = [trial["parameters"][tuned.name] for trial in scored]
        if tuned.kind == "choice":
            written = [str(value) for value in tuned.values]
            panel.set_xticks(range(len(written)), [show(value)[:14] for value in tuned.values])
            values = [written.index(str(value)) for value in values]
        panel.plot(values, scores, "o", markersize=4)
        panel.set(xlabel=tuned.name, xscale="log" if tuned.kind == "loguniform" else "linear")
    for panel in panels:
        panel.set_axis_off()
    with replacing(file) as stream:
        figure.savefig(stream, dpi=120)
