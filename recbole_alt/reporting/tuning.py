"""What a tuning leaves: every trial as JSON and CSV, a table, a plot, and the best parameters as YAML."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from recbole_alt.config import ALTConfig
from recbole_alt.files import replacing, write_json, write_text
from recbole_alt.markdown import markdown_table
from recbole_alt.stages import override
from recbole_alt.values import show

#: What came of a trial.
Record = dict[str, Any]


def best_of(records: Sequence[Record]) -> Record | None:
    """The record with the best validation ``score``, the first of equals; None where none has one."""
    scored = [record for record in records if record["score"] is not None]
    return max(scored, key=lambda r: r["score"] if r["bigger"] else -r["score"], default=None)


def write_results(
    folder: Path, stage: str, trials: Sequence[Record], kinds: Mapping[str, str], config: ALTConfig, model: str
) -> Record:
    """Write ``trials.json``, ``trials.csv``, ``table.md``, ``plot.png`` and ``best.yaml`` into the folder of a tuning.

    All ``trials`` shared ``config``; ``kinds`` are those of the ranges by tuned key; ``model`` is the model as it was
    asked for.

    Returns:
        ``best`` (the record of the best trial), ``trials``, ``table`` and ``command``, which takes the best up again.

    Raises:
        ValueError: No trial reached a score.
    """
    best = best_of(trials)
    if best is None:
        reasons = "; ".join(sorted({str(trial["error"]) for trial in trials})) or "none finished"
        raise ValueError(f"no trial reached a score ({reasons}): change the ranges")
    metric = config["valid_metric"].lower()
    rows = [
        {"trial": trial["trial"], **trial["parameters"]}
        | {f"valid_{name}": trial["valid"].get(name) for name in (metric, *best["valid"])}
        | {"seconds": trial["costs"]["seconds"], "pretrain_seconds": trial["aligned"], "error": trial["error"]}
        for trial in trials
    ]
    frame = pd.DataFrame(rows, dtype=object)
    test = ", ".join(f"{name} {value:.4f}" for name, value in best["test"].items())
    last = f"Best of {stage} on validation: trial {best['trial']}; on the test set, no part of the choice: {test}."
    table = f"{_make_table(frame, metric, best['bigger'])}\n\n{last}"
    write_json(folder / "trials.json", {"stage": stage, "metric": metric, "best": best["trial"], "trials": trials})
    write_text(folder / "trials.csv", frame.to_csv(index=False))
    write_text(folder / "table.md", table + "\n")
    write_text(folder / "best.yaml", _best_yaml(best, stage, config))
    _plot(folder / "plot.png", frame[frame["error"].isna()], kinds, metric, best["bigger"])
    command = ["python", "run_recbole_alt.py", f"--model={model}", f"--dataset={config['dataset']}"]
    command.append(f"--config_files={folder / 'best.yaml'}")
    if best["pretraining"]:
        command.append(f"--pretrained_checkpoint={folder / 'pretraining' / best['pretraining'] / 'pretrain.pth'}")
    return {"best": best, "trials": trials, "table": table, "command": shlex.join(command)}


def _make_table(frame: pd.DataFrame, metric: str, bigger: bool) -> str:
    """Trials by validation score, as Markdown."""
    shown = frame.drop(columns=["pretrain_seconds", "error"])
    shown = shown.sort_values(f"valid_{metric}", ascending=not bigger, kind="stable", key=pd.to_numeric)
    for column in shown:
        valid = column.startswith("valid_")
        write = "{:.4f}".format if valid else "{:.0f}".format if column == "seconds" else show
        shown[column] = ["diverged" if valid and value is None else write(value) for value in shown[column]]
    return markdown_table([column.replace("valid_", "valid ", 1) for column in shown], shown.values.tolist(), "r")


def _best_yaml(best: Record, stage: str, config: ALTConfig) -> str:
    """The best parameters, and below them the rest of what the tuning was given, so that the file is enough."""
    parameters = best["parameters"]
    own = {"model", "dataset", "config_files", "finetune", "finetune_modes"}
    rest = {key: value for key, value in config.external_config_dict.items() if key not in own | parameters.keys()}
    rest |= {"finetune_modes": [], "plain_baseline": True} if stage == "plain" else {"finetune_modes": [stage]}
    if overrides := {name: keys for name, keys in override(config["finetune"], stage, parameters).items() if keys}:
        rest["finetune"] = overrides
    first, second = (yaml.safe_dump(part, sort_keys=False, allow_unicode=True) for part in (parameters, rest))
    return f"# Trial {best['trial']}: best on validation\n{first}# What all trials shared\n{second}"


def _plot(file: Path, scored: pd.DataFrame, of_ranges: Mapping[str, str], metric: str, bigger: bool) -> None:
    """Scores by trial with the best so far, and by the values of each tuned key."""
    from matplotlib.figure import Figure  # late: it takes long to import

    scores = scored[f"valid_{metric}"].astype(float)
    kinds = {"trial": "number", **of_ranges}
    figure = Figure(figsize=(3.0 * len(kinds), 3.0), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True)
    for (name, kind), panel in zip(kinds.items(), panels, strict=True):
        values = scored[name].map(lambda value: show(value)[:14]) if kind == "choice" else scored[name].astype(float)
        panel.plot(values, scores, "o", markersize=4)
        panel.set_xlabel(name)
        if kind == "loguniform":
            panel.set_xscale("log")
            panel.xaxis.set_minor_formatter("")
    panels[0].step(scored["trial"], scores.cummax() if bigger else scores.cummin(), where="post", label="best so far")
    panels[0].set_ylabel(f"valid {metric}")
    panels[0].legend()
    with replacing(file) as stream:
        figure.savefig(stream, dpi=120)
