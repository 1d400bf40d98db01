"""``objective_function``: one trial, on shared data and a shared pretraining, kept as one JSON file."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout
from recbole.utils import init_logger

from recbole_alt import checkpoints
from recbole_alt.config import ALTConfig
from recbole_alt.experiment import Data, Experiment, load_data
from recbole_alt.files import read_record, write_record
from recbole_alt.keys import ALIGNMENT, FREE, NOT_OF_ALIGNMENT, keys_of
from recbole_alt.registry import make_config
from recbole_alt.trainer.diverged import Diverged
from recbole_alt.tuning.trials import (
    best_trial,
    digest,
    first_stage,
    logger,
    new_folder,
    quiet,
    trials,
    winning,
)

#: Pretrainings kept for trials to come, beside the best trial's. One that is needed again is made again, bit for bit.
KEPT_PRETRAININGS = 8


class Objective:
    """Trials of one stage in one folder.

    A trial is named after its configuration: one that finished is read from its file, one that was stopped goes
    on where it was. Processes may share the folder.

    Args:
        folder: of the tuning.
        stage: ``plain``, ``ctr``, ``lm`` or ``joint``.
        model, dataset, config_file_list, config_dict, arguments: as for ``ALTConfig``; a trial's parameters win over
            the dictionary.

    Attributes:
        not_of_data: keys in which trials may differ that share loaded data.
    """

    # each stage makes its training loader anew, but not those of validation and test
    not_of_data: ClassVar[set[str]] = set(NOT_OF_ALIGNMENT | keys_of(ALIGNMENT)) - {"eval_batch_size"}

    def __init__(
        self,
        folder: Path,
        stage: str,
        model: str | None = None,
        dataset: str | None = None,
        config_file_list: list[str] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
    ):
        self.folder, self.stage = folder, stage
        self.given = {
            "stage": stage,
            "model": model,
            "dataset": dataset,
            "config_file_list": config_file_list,
            "config_dict": config_dict,
            "arguments": list(arguments),
        }
        self._loaded: tuple[str, Data] | None = None

    def __call__(
        self,
        config_dict: Mapping[str, Any] | None = None,
        config_file_list: list[str] | None = None,
        saved: bool = True,
    ) -> dict[str, Any]:
        """As :func:`objective_function`."""
        parameters = dict(config_dict or {})
        given: dict[str, Any] = self.given
        files = [*(given["config_file_list"] or []), *(config_file_list or [])]
        shared = given["config_dict"] or {}
        config = make_config(given["model"], given["dataset"], files, {**shared, **parameters}, given["arguments"])
        for key in parameters.keys() & config.cmd_config_dict.keys():
            if config[key] != config.variable_config_dict[key]:
                raise ValueError(f"{key} is tuned, and --{key} on the command line fixes it; leave one")
        config["finetune_modes"] = [] if self.stage == "plain" else [self.stage]
        config["finetune"] = winning(config["finetune"], self.stage, config.variable_config_dict)
        name = digest(config, FREE)
        file = self.folder / "trials" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")), quiet():
            kept = file.is_file()
            if not kept:
                begun = time.time()
                record = self._train(config, file.with_suffix(""))
                write_record(file, {"parameters": parameters, **record, "begun": begun})
            shutil.rmtree(file.with_suffix(""), ignore_errors=True)
        self.forget(KEPT_PRETRAININGS)
        record = read_record(file)
        worst = -sys.float_info.max if record["bigger"] else sys.float_info.max  # finite: searches compute with it
        return {
            "model": config["model"],
            "best_valid_score": worst if record["score"] is None else record["score"],
            "valid_score_bigger": record["bigger"],
            "best_valid_result": record["valid"],
            "test_result": record["test"],
            "seconds": record["seconds"],
            "pretrain_seconds": record["pretrain_seconds"],
            "error": record["error"],
            "kept": kept,
        }

    def _train(self, config: ALTConfig, folder: Path) -> dict[str, Any]:
        record: dict[str, Any] = {
            "score": None,
            "bigger": bool(config["valid_metric_bigger"]),
            "valid": {},
            "test": {},
            "seconds": 0.0,
            "pretrain_seconds": 0.0,
            "pretraining": None,
            "error": None,
        }
        folder.mkdir(exist_ok=True)
        try:
            data = self._data(config)
            if self.stage != "plain" and not config["pretrained_checkpoint"]:
                record["pretraining"] = digest(config, NOT_OF_ALIGNMENT)
                record["pretrain_seconds"] = self._align(config, data, folder / "pretrain.pth")
                config["pretrained_checkpoint"] = str(folder / "pretrain.pth")
            config["show_progress"] = bool(config.external_config_dict.get("show_progress"))
            run = Experiment(config, data, folder)
            run.finetune(self.stage)
        except Diverged as error:  # the worst of scores, not the end of the search
            return record | {"error": str(error)}
        result = run.stages[self.stage]
        score = result.valid[config["valid_metric"].lower()]
        return record | {"score": score, "valid": result.valid, "test": result.test, "seconds": result.seconds}

    def _data(self, config: ALTConfig) -> Data:
        """Loaded and split data, those of the trial before where they are the same."""
        name = f"{config['data_path']} {digest(config, self.not_of_data)}"
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None  # not both at a time in memory
            self._loaded = (name, load_data(config))
        return self._loaded[1]

    # -- pretrainings --------------------------------------------------------------------------------------

    def _align(self, config: ALTConfig, data: Data, target: Path) -> float:
        """Put the aligned towers at ``target``; the seconds it took, 0 where a trial before made them."""
        home = self.folder / "pretraining" / digest(config, NOT_OF_ALIGNMENT)
        done, seconds = home / "pretrain.json", 0.0
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{home}.lock"):
            if not (done.is_file() and (home / "pretrain.pth").is_file()):
                done.unlink(missing_ok=True)
                logger.info("pretraining; trials that differ in finetuning keys alone share it")
                run = Experiment(config, data, home)
                run.pretrain()
                state = checkpoints.load(home / "pretrain.pth")
                finished = {key: value for key, value in state.items() if key not in ("optimizer", "scheduler", "rng")}
                checkpoints.save(finished, home / "pretrain.pth")  # a third of the size
                seconds = run.stages["pretrain"].seconds
            os.utime(done)  # the last use
            target.unlink(missing_ok=True)
            try:
                os.link(home / "pretrain.pth", target)  # stays when another process forgets this pretraining
            except OSError:
                shutil.copy(home / "pretrain.pth", target)
        return seconds

    def forget(self, keep: int) -> None:
        """Delete all pretrainings but the best trial's and the ``keep`` used last."""
        with FileLock(self.folder / "forget.lock"):
            best = best_trial(trials(self.folder))
            done = sorted(self.folder.glob("pretraining/*/pretrain.json"), key=lambda file: -file.stat().st_mtime)
            others = [file.parent for file in done if not best or file.parent.name != best["pretraining"]]
            for home in others[keep:]:
                with suppress(Timeout), FileLock(f"{home}.lock", timeout=0):  # one in use stays
                    (home / "pretrain.pth").unlink()  # first: a stop here must not leave it behind
                    shutil.rmtree(home)


def objective_function(
    config_dict: dict[str, Any] | None = None,
    config_file_list: list[str] | None = None,
    saved: bool = True,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and score one stage with ``config_dict`` for RecBole's ``HyperTuning``.

    The stage is the first of ``finetune_modes``, or the plain backbone where that is ``[]``; ``model`` and
    ``dataset`` come from the dictionary, the files or the arguments. Calls of one process share data and
    pretrainings, in ``<checkpoint_dir>/tuning-<model>-<dataset>-<stage>-<time>/``.

    Args:
        config_dict: the trial's parameters; they also win over ``finetune: {stage: ...}``.
        config_file_list: YAML files.
        saved: RecBole's flag; a trial's own checkpoints are deleted in either case.
        arguments: keys as on a command line, which win over the rest; RecBole passes none, so bind them with
            ``functools.partial``.

    Returns:
        RecBole's ``model``, ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and
        ``test_result``, and ``seconds`` (of training), ``pretrain_seconds`` (0 where a trial before made it),
        ``error`` (why training diverged; its score is then the worst number there is) and ``kept`` (whether the
        trial had finished before).

    Raises:
        ValueError: bad configuration, data or weights; a parameter that the arguments fix.
    """
    config = make_config(None, None, config_file_list, config_dict, arguments)
    if not logging.getLogger().handlers:
        init_logger(config)
    stage = first_stage(config)
    root = os.path.abspath(config["checkpoint_dir"])
    place = (config["model"], config["dataset"], stage, root, config["data_path"], *arguments)
    if place not in _objectives:
        folder = new_folder(config, stage)
        logger.info(f"This tuning's folder: {folder}")
        _objectives[place] = Objective(folder, stage, arguments=arguments)
    return _objectives[place](config_dict, config_file_list)


_objectives: dict[tuple[str, ...], Objective] = {}
