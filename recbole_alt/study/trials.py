"""The trials of a tuning, and ``objective_function``, which makes them for RecBole's ``HyperTuning`` and for Ray."""

import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any

from filelock import FileLock
from recbole.utils import get_local_time, init_logger

from recbole_alt.config import ALTConfig
from recbole_alt.files import new_folder, read_record, write_record
from recbole_alt.keys import FREE
from recbole_alt.registry import make_config
from recbole_alt.study.progress import logger, quiet
from recbole_alt.study.store import Record, Store, best_of, digest

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
        folder = self.folder / "trials" / digest(config, FREE)
        file, begun = folder.with_suffix(".json"), time()
        with FileLock(folder.with_suffix(".lock")), quiet():
            kept = file.is_file()
            if not kept:
                record = self.store.train(config, self.stage, folder)
                seconds = {"seconds": record["costs"]["seconds"] or 0.0, "pretrain_seconds": record["aligned"]}
                trial = {"trial": number, "parameters": dict(parameters)}
                write_record(file, {**trial, **record, **seconds, "begun": begun})
            shutil.rmtree(folder, ignore_errors=True)
        self.drop_alignments(KEPT_ALIGNMENTS)
        return read_record(file), kept

    def read(self) -> list[Record]:
        """The trials that finished, by number."""
        records = [read_record(file) for file in self.folder.glob("trials/*.json")]
        return sorted(records, key=lambda record: (record["trial"] or 0, record["begun"]))

    def drop_alignments(self, latest: int) -> None:
        """Delete the weights of all alignments but the best trial's and the ``latest`` used."""
        best = best_of(self.read())
        self.store.drop_alignments({best["pretraining"] if best else None}, latest)


def override(finetune: Mapping[str, Any] | None, stage: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``finetune: {stage: ...}`` with the tuned values in place of overrides, which would win over them."""
    stages = dict(finetune or {})
    overrides = stages.get(stage) or {}
    return {**stages, stage: {key: parameters.get(key, value) for key, value in overrides.items()}}


def first_stage(config: ALTConfig) -> str:
    """What ``config`` tunes: the first of ``finetune_modes``, ``plain`` where there is none."""
    return next(iter(config["finetune_modes"] or []), "plain")


def make_folder(config: ALTConfig, stage: str) -> Path:
    """Make a new folder for a tuning of ``stage``."""
    name = f"tuning-{config['model']}-{config['dataset']}-{stage}-{get_local_time()}"
    return new_folder(Path(config["checkpoint_dir"]) / name)


def as_recbole(record: Record) -> dict[str, Any]:
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
    if not logging.getLogger().handlers:
        init_logger(config)
    stage, root = first_stage(config), os.path.abspath(config["checkpoint_dir"])
    place = (config["model"], config["dataset"], stage, root, config["data_path"], *arguments)
    if place not in _begun:
        _begun[place] = Trials(make_folder(config, stage), stage)
        logger.info(f"This tuning's folder: {_begun[place].folder}")
    record, kept = _begun[place].run(config, config_dict or {})
    costs = {key: record[key] for key in ("seconds", "pretrain_seconds", "error")}
    return {"model": config["model"], **as_recbole(record), **costs, "kept": kept}
