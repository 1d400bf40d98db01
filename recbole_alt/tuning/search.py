"""A whole tuning: its folder, the search, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from math import prod
from pathlib import Path
from typing import Any

from recbole.utils import init_logger

from recbole_alt.config import ALTConfig
from recbole_alt.files import check_folder, locked, read_record, write_record
from recbole_alt.keys import ALIGNMENT, FREE, STAGES, keys_of
from recbole_alt.registry import make_config
from recbole_alt.stopping import going_on
from recbole_alt.tuning import hyper, ray_tune
from recbole_alt.tuning.objective import Objective
from recbole_alt.tuning.progress import Progress
from recbole_alt.tuning.ranges import Range, check_ranges, find_ranges, needed, read_ranges
from recbole_alt.tuning.results import write_results
from recbole_alt.tuning.trials import first_stage, logger, new_folder, quiet

ALGORITHMS = ("exhaustive", "random", "bayes")
TOOLS = ("hyperopt", "ray")


def run_hyper_alt(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    arguments: Sequence[str] = (),
    *,
    params_file: str = "finetune",
    stage: str | None = None,
    algo: str = "exhaustive",
    max_evals: int | None = None,
    early_stop: int | None = None,
    tool: str = "hyperopt",
    cpus_per_trial: int | None = None,
    resume: str | None = None,
) -> dict[str, Any]:
    """Tune one stage on validation data; the first five arguments as for :func:`recbole_alt.run_recbole_alt`.

    Args:
        params_file: ranges in RecBole's line format: a file, or ``finetune`` or ``pretrain``.
        stage: ``plain``, ``ctr``, ``lm`` or ``joint``; by default the first of ``finetune_modes``.
        algo: ``exhaustive``, ``random`` or ``bayes``.
        max_evals: most trials of ``random`` and ``bayes``; 100 by default.
        early_stop: end after so many trials without improvement; by default 10, with ``exhaustive`` and with
            Ray never.
        tool: ``hyperopt`` (RecBole's ``HyperTuning``) or ``ray`` (Ray Tune).
        cpus_per_trial: with Ray, cores of a trial; all by default, so that one runs at a time.
        resume: folder of a stopped tuning, or ``last``: finished trials are not trained again.

    Returns:
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and ``test_result`` of the
        best trial, and ``best_params``, ``trials``, ``table``, ``command``, ``folder``.

    Raises:
        ValueError: bad ranges, configuration, data or weights; another tuning in ``resume``; a package of
            ``recbole_alt[tune]`` is missing.
    """
    for name, value, allowed in (("algo", algo, ALGORITHMS), ("tool", tool, TOOLS), ("stage", stage, STAGES)):
        if value not in allowed and not (name == "stage" and value is None):
            raise ValueError(f"{name}: {value!r} is none of {', '.join(allowed)}")
    for name, count in (("max_evals", max_evals), ("early_stop", early_stop), ("cpus_per_trial", cpus_per_trial)):
        if count is not None and count < 1:
            raise ValueError(f"{name} must be 1 or more, not {count}")
    if tool == "ray" and early_stop is not None:
        raise ValueError("early_stop: Ray's trials may run side by side; leave it out, or use --tool=hyperopt")
    if tool == "hyperopt" and cpus_per_trial is not None:
        raise ValueError("cpus_per_trial: trials run one after another; leave it out, or use --tool=ray")
    needed("matplotlib.figure")  # now, not after hours
    needed("hyperopt" if tool == "hyperopt" else "ray.tune")
    ranges = read_ranges(find_ranges(params_file))
    total = _total(ranges, algo, max_evals)
    config = make_config(model, dataset, config_file_list, config_dict, arguments)
    check_folder("checkpoint_dir", config["checkpoint_dir"])
    for key in ("resume", "result_file"):
        if config[key]:
            raise ValueError(f"{key} is of one run: leave it out; a tuning has --resume and writes into its folder")
    stage = stage or first_stage(config)
    check_ranges(ranges, config, stage, _unread(config, stage))
    init_logger(config)
    config.log_notes()
    folder = _open_folder(config, ranges, {"stage": stage, "algo": algo, "tool": tool}, resume)
    with locked(folder), going_on(f"go on with --resume={folder}"):
        logger.info(f"This tuning's folder: {folder}  (after a stop, go on with --resume={folder})")
        metric = config["valid_metric"].lower()
        logger.info(f"{algo} search of {stage} for the best validation {metric}:")
        for tuned in ranges:
            logger.info(f"  {tuned}")
        objective = Objective(folder, stage, model, dataset, config_file_list, config_dict, arguments)
        progress = Progress(total, metric, any(tuned.name in keys_of(ALIGNMENT) for tuned in ranges))
        with quiet():
            if tool == "ray":
                ray_tune.search(objective, ranges, config, progress, algo, total, cpus_per_trial)
            else:
                hyper.search(objective, ranges, config, progress, algo, total, early_stop)
        objective.forget(0)
        for lock in list(folder.rglob("*.lock")):
            lock.unlink()
        name = model or config.external_config_dict.get("model", config["model"])
        result = write_results(folder, ranges, stage, config, name)
    best = result["best"]
    logger.info(f"Trials of {config['model']} {stage} on {config['dataset']}:\n\n{result['table']}\n")
    logger.info(f"Written: {folder}/ trials.json, trials.csv, table.md, plot.png, best.yaml")
    logger.info(f"The best again:\n\n{result['command']}\n")
    return {
        "best_valid_score": best["score"],
        "valid_score_bigger": best["bigger"],
        "best_valid_result": best["valid"],
        "test_result": best["test"],
        "best_params": best["parameters"],
        "trials": result["trials"],
        "table": result["table"],
        "command": result["command"],
        "folder": str(folder),
    }


def _total(ranges: Sequence[Range], algo: str, max_evals: int | None) -> int:
    """The most trials there can be."""
    if algo != "exhaustive":
        return 100 if max_evals is None else max_evals
    for tuned in ranges:
        if tuned.kind != "choice":
            raise ValueError(
                f"{tuned.where}: exhaustive search can't try every value of a {tuned.kind} range: write "
                f"{tuned.name} choice [...], or give --algo=random or --algo=bayes"
            )
    total = prod(len(tuned.values) for tuned in ranges)
    if max_evals is not None:
        raise ValueError(f"max_evals: exhaustive search makes all {total} trials; leave it out, or give --algo=random")
    return total


def _unread(config: Any, stage: str) -> dict[str, str]:
    """Keys that this tuning does not read, with the reason."""
    if stage == "plain":
        return dict.fromkeys(keys_of(ALIGNMENT), "the plain backbone is not pretrained")
    if config["pretrained_checkpoint"]:
        return dict.fromkeys(keys_of(ALIGNMENT), "pretrained_checkpoint brings the pretraining")
    return {}


def _open_folder(config: Any, ranges: Sequence[Range], search: Mapping[str, str], resume: str | None) -> Path:
    values = ALTConfig.snapshot(config).__getstate__()["values"]
    tuned = {f"range of {r.name}": list(astuple(r))[1:3] for r in ranges}
    now = json.loads(json.dumps({**{k: v for k, v in values.items() if k not in FREE}, **search, **tuned}))
    if not resume:
        folder = new_folder(config, search["stage"])
        write_record(folder / "tuning.json", now)
        return folder
    root, name = Path(config["checkpoint_dir"]), f"tuning-{config['model']}-{config['dataset']}-{search['stage']}"
    if resume == "last":
        folders = sorted(root.glob(f"{name}-*/tuning.json"), key=lambda file: file.stat().st_mtime)
        if not folders:
            raise ValueError(f"resume: last finds no {name}-… in {str(root)!r}")
        folder = folders[-1].parent
    else:
        folder = Path(resume)
    if not (folder / "tuning.json").is_file():
        raise ValueError(f"resume: {str(folder)!r} is not the folder of a tuning (it has no tuning.json)")
    before = read_record(folder / "tuning.json")
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"resume: {key} was {before.get(key)!r} in {str(folder)!r} and is {now.get(key)!r} now: "
                "give the same, or start a new tuning without --resume"
            )
    return folder
