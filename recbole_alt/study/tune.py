"""A tuning of one stage: its trials, its search, and the objective for RecBole's ``HyperTuning`` and for Ray."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from recbole.utils import get_local_time, init_logger

from recbole_alt.config import ALTConfig
from recbole_alt.files import check_folder, new_folder, read_record, write_record
from recbole_alt.keys import ALIGNMENT, FREE, STAGES, keys_of
from recbole_alt.kinds import TEXT, choice, whole
from recbole_alt.launch import require_one_process
from recbole_alt.registry import make_config
from recbole_alt.reporting.tuning import best_of, write_results
from recbole_alt.run_folder import find_folder, require_equal
from recbole_alt.stages import override
from recbole_alt.stopping import going_on
from recbole_alt.study.console import Clock, logger, quiet, show_outcome
from recbole_alt.study.ranges import Range, check_ranges, count_trials, read_ranges
from recbole_alt.study.store import Record, Store, digest, values_of
from recbole_alt.unread import refuse_unread, unread_keys
from recbole_alt.values import show

if TYPE_CHECKING:
    from recbole_alt.study.search import Search

ALGORITHMS = ("exhaustive", "random", "bayes")

#: Alignments kept for trials to come, beside the best trial's. One that is needed again is made again, bit for bit.
KEPT_ALIGNMENTS = 8


class Trials:
    """Trials of one ``stage`` in the ``folder`` of a tuning, which processes may share.

    A trial is named after its configuration: one that finished is read from its file, one that was stopped goes on.
    """

    def __init__(self, folder: Path, stage: str):
        self.folder, self.stage, self.store = folder, stage, Store(folder)

    def run(self, config: ALTConfig, parameters: Mapping[str, Any], number: int | None = None) -> tuple[Record, bool]:
        """The record of the trial with this ``number``, and whether it had been there before.

        ``config`` must be made with ``parameters``, which win over ``finetune: {stage: ...}``, too; it is changed here.

        Raises:
            ValueError: Bad data or weights; a parameter that an argument fixes.
        """
        for key in parameters.keys() & config.cmd_config_dict.keys():
            if config[key] != config.variable_config_dict[key]:
                raise ValueError(f"{key} is tuned, and --{key} on the command line fixes it; leave one")
        config["finetune_modes"] = [] if self.stage == "plain" else [self.stage]
        config["finetune"] = override(config["finetune"], self.stage, config.variable_config_dict)
        file, begun = self.folder / "trials" / f"{digest(config, FREE)}.json", time()
        trial = {"trial": number, "parameters": dict(parameters), "begun": begun}
        with quiet():
            record = self.store.train(config, self.stage, file, about=lambda: trial)
        shutil.rmtree(file.with_suffix(""), ignore_errors=True)
        self.drop_alignments(KEPT_ALIGNMENTS)
        return record, record["begun"] != begun

    def read(self) -> list[Record]:
        """The trials that finished, by number."""
        records = [read_record(file) for file in self.folder.glob("trials/*.json")]
        return sorted(records, key=lambda record: (record["trial"] or 0, record["begun"]))

    def drop_alignments(self, latest: int) -> None:
        """Delete the weights of all alignments but the best trial's and the ``latest`` used."""
        best = best_of(self.read())
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
    """Tune one stage on validation data; the first five arguments are those of :func:`recbole_alt.run_recbole_alt`.

    Args:
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
    from recbole_alt.study.search import Search  # late: Optuna takes long to import

    choice(*ALGORITHMS).refuse("algo", algo)
    choice(*STAGES).refuse("stage", stage, empty=True)
    TEXT.refuse("resume", resume, empty=True)
    whole(1).refuse("max_evals", max_evals, empty=True)
    whole(1).refuse("early_stop", early_stop, empty=True)
    ranges = read_ranges(params_file)
    total = count_trials(ranges, algo, max_evals)
    config = make_config(model, dataset, config_file_list, config_dict, arguments)
    require_one_process("tune", "start others with --resume=FOLDER, and they share the work", config)
    check_folder("checkpoint_dir", config["checkpoint_dir"])
    for key in ("resume", "result_file"):
        if config[key]:
            raise ValueError(f"{key} is of one run: leave it out; a tuning has --resume and writes into its folder")
    stage = stage or _first_stage(config)
    aligns = ["pretrain"] if stage != "plain" and not config["pretrained_checkpoint"] else []
    unread = unread_keys(config, [*aligns, stage], {one.name for one in ranges})
    check_ranges(ranges, config, unread)
    refuse_unread(config, unread)
    init_logger(config)
    config.log_notes()
    folder = _open_folder(config, ranges, stage, algo, resume)
    with going_on(f"go on with --resume={folder}"):
        logger.info(f"This tuning's folder: {folder}  (after a stop, go on with --resume={folder})")
        logger.info(f"{algo} search of {stage} for the best validation {config['valid_metric'].lower()}:")
        for tuned in ranges:
            logger.info(f"  {tuned}")
        trials = Trials(folder, stage)
        patience = early_stop or (None if algo == "exhaustive" else 10)
        search = Search(folder, ranges, algo, config["seed"], total, patience, config["valid_metric_bigger"])

        def configure(parameters: dict[str, Any]) -> ALTConfig:
            return make_config(model, dataset, config_file_list, {**(config_dict or {}), **parameters}, arguments)

        with quiet():
            _search(search, trials, configure)
        with FileLock(folder / ".results"):  # of processes that end together
            trials.drop_alignments(0)
            trials.store.drop_locks()
            asked = model or config.external_config_dict.get("model", config["model"])
            kinds = {one.name: one.kind for one in ranges}
            result = write_results(folder, stage, trials.read(), kinds, config, asked)
    best = result.pop("best")
    logger.info(f"Trials of {config['model']} {stage} on {config['dataset']}:\n\n{result['table']}\n")
    logger.info(f"Written: {folder}/ trials.json, trials.csv, table.md, plot.png, best.yaml")
    logger.info(f"The best again:\n\n{result['command']}\n")
    return {**_as_recbole(best), "best_params": best["parameters"], **result, "folder": str(folder)}


def _search(search: Search, trials: Trials, configure: Callable[[dict[str, Any]], ALTConfig]) -> None:
    """Run the trials of ``search`` that nobody else runs, with a line after each."""
    total, clock = search.total, Clock()
    shares = not search.ranges.keys() & keys_of(ALIGNMENT)  # else every trial may need an alignment of its own
    for claim, record in search.run(lambda one: trials.run(configure(one.parameters), one.parameters, one.number)[0]):
        clock.measure(trials.stage, record["wall"] + (0.0 if shares else record["aligned"]))
        said = f"trial {claim.number} of {total} with {show(claim.parameters)}: {show_outcome(record)}"
        if best := best_of(trials.read()):
            said += f"; best so far {best['score']:.4f} ({show(best['parameters'])})"
        left = total - search.count_ended()
        logger.info(f"{said}; at most {left} to go{clock.estimate([trials.stage] * left)}")
    if (ended := search.count_ended()) < total:
        logger.info(f"ended after {ended} of {total} trials: no improvement for {search.early_stop}")


def _open_folder(config: ALTConfig, ranges: Sequence[Range], stage: str, algo: str, resume: str | None) -> Path:
    tuned = {f"range of {one.name}": [one.kind, one.values] for one in ranges}
    now = json.loads(json.dumps({**values_of(config, FREE), "stage": stage, "algo": algo, **tuned}))
    if resume is None:
        folder = _make_folder(config, stage)
        write_record(folder / "tuning.json", now)
        return folder
    name = f"tuning-{config['model']}-{config['dataset']}-{stage}"
    folder = find_folder(resume, Path(config["checkpoint_dir"]), name, "tuning.json")
    require_equal("resume", folder, read_record(folder / "tuning.json"), now, "or start a new tuning without --resume")
    return folder


def _first_stage(config: ALTConfig) -> str:
    """What ``config`` tunes: the first of ``finetune_modes``, ``plain`` where there is none."""
    return next(iter(config["finetune_modes"] or []), "plain")


def _make_folder(config: ALTConfig, stage: str) -> Path:
    """Make a new folder for a tuning of ``stage``."""
    name = f"tuning-{config['model']}-{config['dataset']}-{stage}-{get_local_time()}"
    return new_folder(Path(config["checkpoint_dir"]) / name)


def _as_recbole(record: Record) -> dict[str, Any]:
    """What a trial reached, under RecBole's names; the worst finite score, with which a search can compute, if none."""
    worst = -sys.float_info.max if record["bigger"] else sys.float_info.max
    return {
        "best_valid_score": worst if record["score"] is None else record["score"],
        "valid_score_bigger": record["bigger"],
        "best_valid_result": record["valid"],
        "test_result": record["test"],
    }


_begun: dict[tuple[str, ...], Trials] = {}


def objective_function(
    config_dict: dict[str, Any] | None = None,
    config_file_list: list[str] | None = None,
    saved: bool = True,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and score one stage with ``config_dict``, for RecBole's ``HyperTuning``.

    The stage is the first of ``finetune_modes``, or the plain backbone where that is ``[]``; ``model`` and ``dataset``
    come from the dictionary, the files or the arguments. Calls of one process share data and alignments, in
    ``<checkpoint_dir>/tuning-<model>-<dataset>-<stage>-<time>/``.

    It is a trainable of Ray Tune, too, whose last report is what is returned here:
    ``tune.run(tune.with_parameters(objective_function, config_file_list=[...]), metric="best_valid_score", ...)``. Ray
    has to be installed; its workers run in folders of their own, so paths in the configuration must be absolute.

    Args:
        config_dict: The trial's parameters; they also win over ``finetune: {stage: ...}``.
        config_file_list: YAML files.
        saved: RecBole's flag; a trial's own checkpoints are deleted in either case.
        arguments: Keys as on a command line, which win over the rest; RecBole passes none, so bind them with
            ``functools.partial``.

    Returns:
        RecBole's ``model``, ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and ``test_result``,
        and ``seconds`` (of training), ``pretrain_seconds`` (0 where a trial before aligned), ``error`` (why training
        diverged; its score is then the worst number there is) and ``kept`` (whether the trial had finished before).

    Raises:
        ValueError: Bad configuration, data or weights; a parameter that an argument fixes.
    """
    config = make_config(None, None, config_file_list, config_dict, arguments)
    require_one_process("a trial of RecBole's tuning", "leave it out", config)
    if not logging.getLogger().handlers:
        init_logger(config)
    stage, root = _first_stage(config), os.path.abspath(config["checkpoint_dir"])
    place = (config["model"], config["dataset"], stage, root, config["data_path"], *arguments)
    if place not in _begun:
        _begun[place] = Trials(_make_folder(config, stage), stage)
        logger.info(f"This tuning's folder: {_begun[place].folder}")
    record, kept = _begun[place].run(config, config_dict or {})
    costs = {"seconds": record["costs"]["seconds"], "pretrain_seconds": record["aligned"]}
    return {"model": config["model"], **_as_recbole(record), **costs, "error": record["error"], "kept": kept}
