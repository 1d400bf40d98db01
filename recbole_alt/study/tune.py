"""A tuning: the trials of one stage in one folder, searched by us or by RecBole's ``HyperTuning``."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from math import prod
from pathlib import Path
from statistics import fmean
from time import monotonic, time
from typing import Any

from filelock import FileLock
from recbole.utils import get_local_time, init_logger

from recbole_alt.config import ALTConfig
from recbole_alt.files import check_folder, new_folder, read_record, write_record
from recbole_alt.keys import ALIGNMENT, FREE, STAGES, keys_of
from recbole_alt.registry import make_config
from recbole_alt.stopping import going_on
from recbole_alt.study.progress import logger, quiet, show, show_seconds
from recbole_alt.study.ranges import Range, check_ranges, find_ranges, read_ranges
from recbole_alt.study.results import override, read_trials, write_results
from recbole_alt.study.search import Search
from recbole_alt.study.store import Store, best_of, digest

ALGORITHMS = ("exhaustive", "random", "bayes")
#: Alignments kept for trials to come, beside the best trial's. One that is needed again is made again, bit for bit.
KEPT_ALIGNMENTS = 8


class Trials:
    """Trials of one stage in one folder, which processes may share.

    A trial is named after its configuration: one that finished is read from its file, one that was stopped goes on
    where it was.

    Args:
        folder: Of the tuning.
        stage: ``plain``, ``ctr``, ``lm`` or ``joint``.
        model, dataset, config_file_list, config_dict, arguments: As for ``ALTConfig``; parameters of a trial come on
            top.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        model: str | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
    ):
        self.folder, self.stage, self.store = folder, stage, Store(folder)
        self.model, self.dataset, self.arguments = model, dataset, arguments
        self.files, self.shared = list(config_file_list or []), dict(config_dict or {})

    def run(
        self, parameters: Mapping[str, Any], number: int | None = None, files: Sequence[str] = ()
    ) -> tuple[dict[str, Any], bool]:
        """The record of the trial with ``parameters``, and whether it had been there before.

        Args:
            parameters: Key → value; they also win over ``finetune: {stage: ...}``.
            number: Of the trial in its search.
            files: Further YAML files.
        """
        given = {**self.shared, **parameters}
        config = make_config(self.model, self.dataset, [*self.files, *files], given, self.arguments)
        for key in parameters.keys() & config.cmd_config_dict.keys():
            if config[key] != config.variable_config_dict[key]:
                raise ValueError(f"{key} is tuned, and --{key} on the command line fixes it; leave one")
        config["finetune_modes"] = [] if self.stage == "plain" else [self.stage]
        config["finetune"] = override(config["finetune"], self.stage, config.variable_config_dict)
        file = self.folder / "trials" / f"{digest(config, FREE)}.json"
        with FileLock(file.with_suffix(".lock")), quiet():
            kept = file.is_file()
            if not kept:
                begun = time()
                record = self._train(config, file.with_suffix(""))
                write_record(file, {"trial": number, "parameters": dict(parameters), **record, "begun": begun})
            shutil.rmtree(file.with_suffix(""), ignore_errors=True)
        self.drop_alignments(KEPT_ALIGNMENTS)
        return read_record(file), kept

    def _train(self, config: ALTConfig, folder: Path) -> dict[str, Any]:
        training = self.store.train(config, self.stage, folder)
        result = training.result
        return {
            "score": result.valid[config["valid_metric"].lower()] if result else None,
            "bigger": bool(config["valid_metric_bigger"]),
            "valid": result.valid if result else {},
            "test": result.test if result else {},
            "seconds": result.seconds if result else 0.0,
            "pretrain_seconds": training.alignment_seconds,
            "pretraining": training.alignment,
            "error": training.error,
        }

    def drop_alignments(self, latest: int) -> None:
        """Delete the weights of all alignments but the best trial's and the ``latest`` used."""
        best = best_of(read_trials(self.folder))
        self.store.drop_alignments({best["pretraining"] if best else None}, latest)


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
    resume: str | None = None,
) -> dict[str, Any]:
    """Tune one stage on validation data.

    Args:
        model, dataset, config_file_list, config_dict, arguments: As for :func:`recbole_alt.run_recbole_alt`.
        params_file: Ranges in RecBole's line format: a file, or ``finetune`` or ``pretrain``.
        stage: ``plain``, ``ctr``, ``lm`` or ``joint``; by default the first of ``finetune_modes``.
        algo: ``exhaustive``, ``random`` or ``bayes``.
        max_evals: Most trials of ``random`` and ``bayes``; 100 by default.
        early_stop: End after so many trials without improvement; by default 10, with ``exhaustive`` never.
        resume: Folder of a tuning, or ``last``: finished trials are not trained again. If another process is at work
            there, this one joins it.

    Returns:
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and ``test_result`` of the
        best trial, and ``best_params``, ``trials``, ``table``, ``command``, ``folder``.

    Raises:
        ValueError: Bad ranges, configuration, data or weights; another tuning in ``resume``.
    """
    for name, value, allowed in (("algo", algo, ALGORITHMS), ("stage", stage or STAGES[0], STAGES)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    for name, count in (("max_evals", max_evals), ("early_stop", early_stop)):
        if count is not None and count < 1:
            raise ValueError(f"{name} must be 1 or more, not {count}")
    ranges = read_ranges(find_ranges(params_file))
    total = count_trials(ranges, algo, max_evals)
    config = make_config(model, dataset, config_file_list, config_dict, arguments)
    check_folder("checkpoint_dir", config["checkpoint_dir"])
    for key in ("resume", "result_file"):
        if config[key]:
            raise ValueError(f"{key} is of one run: leave it out; a tuning has --resume and writes into its folder")
    stage = stage or _first_stage(config)
    check_ranges(ranges, config, _find_unread(config, stage))
    init_logger(config)
    config.log_notes()
    folder = _open_folder(config, ranges, {"stage": stage, "algo": algo}, resume)
    with going_on(f"go on with --resume={folder}"):
        logger.info(f"This tuning's folder: {folder}  (after a stop, go on with --resume={folder})")
        logger.info(f"{algo} search of {stage} for the best validation {config['valid_metric'].lower()}:")
        for tuned in ranges:
            logger.info(f"  {tuned}")
        trials = Trials(folder, stage, model, dataset, config_file_list, config_dict, arguments)
        patience = early_stop or (None if algo == "exhaustive" else 10)
        search = Search(folder, ranges, algo, config["seed"], total, patience, config["valid_metric_bigger"])
        with quiet():
            _search(trials, search, config["valid_metric"].lower())
        with FileLock(folder / ".results"):  # of processes that end together
            trials.drop_alignments(0)
            trials.store.drop_locks()
            name = model or config.external_config_dict.get("model", config["model"])
            result = write_results(folder, ranges, stage, config, name)
    best = result.pop("best")
    logger.info(f"Trials of {config['model']} {stage} on {config['dataset']}:\n\n{result['table']}\n")
    logger.info(f"Written: {folder}/ trials.json, trials.csv, table.md, plot.png, best.yaml")
    logger.info(f"The best again:\n\n{result['command']}\n")
    return {
        "best_valid_score": best["score"],
        "valid_score_bigger": best["bigger"],
        "best_valid_result": best["valid"],
        "test_result": best["test"],
        "best_params": best["parameters"],
        **result,
        "folder": str(folder),
    }


def _search(trials: Trials, search: Search, metric: str) -> None:
    """Run the trials of ``search`` that nobody else runs, each with a line before it and one after it."""
    total, spent = search.total, []
    if search.ended:
        logger.info(f"{search.ended} of {total} trials are over")
    shares = not search.ranges.keys() & keys_of(ALIGNMENT)  # else every trial may need an alignment of its own
    while claim := search.ask():
        with claim.lock:
            begun, where = monotonic(), f"trial {claim.number} of {total}"
            logger.info(f"{where}: {show(claim.parameters)}")
            record, kept = trials.run(claim.parameters, claim.number)
            search.tell(claim, record["score"])
        aligned = record["pretrain_seconds"] if shares else 0.0
        spent += [] if kept else [monotonic() - begun - aligned]
        said = f"diverged ({record['error']})" if record["error"] else f"valid {metric} {record['score']:.4f}"
        said += ", from before" if kept else f" in {record['seconds']:.0f} s"
        if best := search.best():
            said += f"; best so far {best[0]:.4f} ({show(best[1])})"
        left = total - search.ended
        if spent and left > 0:
            said += f"; at most {left} to go, about {show_seconds(fmean(spent) * left)}"
        logger.info(f"{where}: {said}")
    if search.ended < total:
        logger.info(f"ended after {search.ended} of {total} trials: no improvement for {search.early_stop}")


def count_trials(ranges: Sequence[Range], algo: str, max_evals: int | None) -> int:
    """The most trials there can be.

    Raises:
        ValueError: Exhaustive search of a range that is not a choice, or of fewer trials than there are combinations.
    """
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


def _first_stage(config: ALTConfig) -> str:
    """What ``config`` tunes: the first of ``finetune_modes``, ``plain`` where there is none."""
    return next(iter(config["finetune_modes"] or []), "plain")


def _find_unread(config: ALTConfig, stage: str) -> dict[str, str]:
    """Keys that this tuning does not read, with the reason."""
    if stage == "plain":
        return dict.fromkeys(keys_of(ALIGNMENT), "the plain backbone is not pretrained")
    if config["pretrained_checkpoint"]:
        return dict.fromkeys(keys_of(ALIGNMENT), "pretrained_checkpoint brings the pretraining")
    return {}


def _new_folder(config: ALTConfig, stage: str) -> Path:
    name = f"tuning-{config['model']}-{config['dataset']}-{stage}-{get_local_time()}"
    return new_folder(Path(config["checkpoint_dir"]) / name)


def _open_folder(config: ALTConfig, ranges: Sequence[Range], search: Mapping[str, str], resume: str | None) -> Path:
    values = ALTConfig.snapshot(config).__getstate__()["values"]
    tuned = {f"range of {r.name}": list(astuple(r))[1:3] for r in ranges}
    now = json.loads(json.dumps({**{k: v for k, v in values.items() if k not in FREE}, **search, **tuned}))
    if not resume:
        folder = _new_folder(config, search["stage"])
        write_record(folder / "tuning.json", now)
        return folder
    folder = Path(resume)
    if resume == "last":
        root, name = config["checkpoint_dir"], f"tuning-{config['model']}-{config['dataset']}-{search['stage']}"
        folders = sorted(Path(root).glob(f"{name}-*/tuning.json"), key=lambda file: file.stat().st_mtime)
        if not folders:
            raise ValueError(f"resume: last finds no {name}-… in {root!r}")
        folder = folders[-1].parent
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


# -- RecBole's HyperTuning -----------------------------------------------------------------------------------

_begun: dict[tuple[str, ...], Trials] = {}


def objective_function(
    config_dict: dict[str, Any] | None = None,
    config_file_list: list[str] | None = None,
    saved: bool = True,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and score one stage with ``config_dict``, for RecBole's ``HyperTuning`` or Ray Tune.

    The stage is the first of ``finetune_modes``, or the plain backbone where that is ``[]``; ``model`` and ``dataset``
    come from the dictionary, the files or the arguments. Calls of one process share data and alignments, in
    ``<checkpoint_dir>/tuning-<model>-<dataset>-<stage>-<time>/``.

    With Ray, which is not installed with us, it is a trainable whose last report is what is returned here, as with
    ``ray.tune.run(ray.tune.with_parameters(objective_function, config_file_list=[...]), metric="best_valid_score")``.
    Ray's workers run in folders of their own, so the paths that a configuration names must be absolute.

    Args:
        config_dict: The trial's parameters; they also win over ``finetune: {stage: ...}``.
        config_file_list: YAML files.
        saved: RecBole's flag; a trial's own checkpoints are deleted in either case.
        arguments: Keys as on a command line, which win over the rest; RecBole passes none, so bind them with
            ``functools.partial``.

    Returns:
        RecBole's ``model``, ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and
        ``test_result``, and ``seconds`` (of training), ``pretrain_seconds`` (0 where a trial before made it),
        ``error`` (why training diverged; its score is then the worst number there is) and ``kept`` (whether the
        trial had finished before).

    Raises:
        ValueError: Bad configuration, data or weights; a parameter that an argument fixes.
    """
    config = make_config(None, None, config_file_list, config_dict, arguments)
    if not logging.getLogger().handlers:
        init_logger(config)
    stage = _first_stage(config)
    root = os.path.abspath(config["checkpoint_dir"])
    place = (config["model"], config["dataset"], stage, root, config["data_path"], *arguments)
    if place not in _begun:
        folder = _new_folder(config, stage)
        logger.info(f"This tuning's folder: {folder}")
        _begun[place] = Trials(folder, stage, arguments=arguments)
    record, kept = _begun[place].run(config_dict or {}, files=config_file_list or ())
    worst = -sys.float_info.max if record["bigger"] else sys.float_info.max  # finite: searches compute with it
    return {
        "model": config["model"],
        "best_valid_score": worst if record["score"] is None else record["score"],
        "valid_score_bigger": record["bigger"],
        "best_valid_result": record["valid"],
        "test_result": record["test"],
        **{key: record[key] for key in ("seconds", "pretrain_seconds", "error")},
        "kept": kept,
    }
