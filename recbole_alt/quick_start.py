"""One call for a whole run, and one to take a finetuned model up again."""

import logging
import os
from collections.abc import Sequence
from logging import Logger, getLogger
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from recbole.utils import get_model, init_logger, init_seed

from recbole_alt import checkpoints, processes
from recbole_alt.click_rates import click_rates
from recbole_alt.config import ALTConfig, require_registered
from recbole_alt.experiment import Experiment
from recbole_alt.files import check_file, check_folder, read_json, write_json, write_text
from recbole_alt.frames import FrameDataset
from recbole_alt.launch import joined, launched, require_one_process, start_processes
from recbole_alt.loading import load_data_of
from recbole_alt.model.weights import load_finetuned
from recbole_alt.plan import Plan, make_plan
from recbole_alt.registry import make_config
from recbole_alt.reporting.run_page import run_page
from recbole_alt.reporting.run_table import result_table
from recbole_alt.result import result_record
from recbole_alt.stages import stages_of
from recbole_alt.stopping import going_on
from recbole_alt.unread import refuse_unread
from recbole_alt.values import show_time

#: The file, in the folder of a run, with what it was expected to cost.
PLAN = "plan.json"


def run_recbole_alt(
    model: str | None = None,
    dataset: str | FrameDataset | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Align, finetune in every mode asked for, train the plain backbone, and compare.

    Args:
        model: ``ALT_<backbone>``, such as ``ALT_DCN``.
        dataset: a folder of RecBole atomic files below ``data_path``, ``ml-100k``, or what
            :func:`~recbole_alt.from_frames` made of frames, whose keys ``config_dict`` wins over.
        config_file_list: YAML files.
        config_dict: further keys, which win over the files.
        arguments: keys as on a command line, ``["--epochs=3"]``, which win over both.

    With ``nproc``, that many processes are started, which train together; or this is one of those that ``torchrun`` has
    started.

    Returns:
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and ``test_result`` of
        the first finetuning mode (of the plain backbone if there is none), and ``record`` (what
        ``result.json`` holds), ``table``, ``folder``.

    Raises:
        ValueError: bad configuration, data or weights; one line that says what to do.
    """
    given = (model, dataset, config_file_list, config_dict, arguments)
    config = _configure(*given)
    if (config["nproc"] or 1) > 1 and launched() == 1:
        return start_processes(config["nproc"], run_recbole_alt, given)
    check_folder("checkpoint_dir", config["checkpoint_dir"])
    if config["result_file"]:
        check_file("result_file", config["result_file"])
    with joined(config):
        return _run(config)


def _run(config: Any) -> dict[str, Any]:
    logger = _begin(config)
    modes, stages = list(dict.fromkeys(config["finetune_modes"] or [])), stages_of(config)
    with Experiment(config) as run, going_on(f"go on with --resume={run.folder}"):
        logger.info(f"This run's folder: {run.folder}  (after a stop, go on with --resume={run.folder})")
        planned = processes.from_first(lambda: _planned(run, stages))
        for stage in stages:
            run.pretrain() if stage == "pretrain" else run.finetune(stage)
        for stage, costs in planned.items():
            took = show_time(run.stages[stage].seconds)
            logger.info(f"{stage}: planned {show_time(costs['seconds'])}, took {took}")
        texts = run.example_texts() if {"pretrain", "lm", "joint"}.intersection(stages) else []
        record = result_record(config, run.stages, run.dataset.left_out, planned, texts)
        if "auc" in (run.stages["plain"].valid if "plain" in run.stages else {}):
            record["click_rates"] = click_rates([run.train_data, run.valid_data, run.test_data])
        files = [run.folder / "result.json", *([Path(config["result_file"])] if config["result_file"] else [])]
        page = run.folder / "result.html"
        if processes.is_first():
            for file in files:
                write_json(file, record)
            write_text(page, run_page(record))
    table = result_table(record)
    first = next((run.stages[s] for s in [*modes, "plain"] if s in run.stages), None)
    valid, test = (first.valid, first.test) if first else ({}, {})
    logger.info(f"best valid : {valid}")
    logger.info(f"test result: {test}")
    logger.info(f"{config['model']} on {config['dataset']}, seed {config['seed']}:\n\n{table}\n")
    logger.info(f"Written: {', '.join(map(str, [*files, page]))}")
    return {
        "best_valid_score": valid.get(config["valid_metric"].lower()),
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": valid,
        "test_result": test,
        "record": record,
        "table": table,
        "folder": str(run.folder),
    }


def plan_recbole_alt(
    model: str | None = None,
    dataset: str | FrameDataset | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> Plan:
    """Plan what :func:`run_recbole_alt` with the same arguments would cost; nothing is trained, no folder stays.

    Raises:
        ValueError: as that function; and ``resume``, as a plan is of a whole run.
    """
    require_one_process("a plan", "start one, without torchrun")
    config = _configure(model, dataset, config_file_list, config_dict, arguments)
    if config["resume"]:
        raise ValueError(f"resume: a plan is of a whole run, and {config['resume']!r} has begun: leave it out")
    _begin(config)
    with TemporaryDirectory() as folder, Experiment(config, folder=Path(folder)) as run:
        return make_plan(run, stages_of(config))


def _configure(
    model: str | None,
    dataset: str | FrameDataset | None,
    files: list[str] | None,
    keys: dict[str, Any] | None,
    arguments: Sequence[str],
) -> ALTConfig:
    if isinstance(dataset, FrameDataset):
        keys = {**dataset.keys, **(keys or {})}
        dataset = dataset.name
    config = make_config(model, dataset, files, keys, arguments)
    refuse_unread(config)
    return config


def _begin(config: ALTConfig) -> Logger:
    """Seed the random generators and begin the log, which is that of the first process."""
    init_seed(config["seed"], config["reproducibility"])
    logger = getLogger()
    if processes.is_first():
        init_logger(config)
    else:
        logging.basicConfig(level=logging.CRITICAL, handlers=[logging.NullHandler()])
    logger.info(config)
    config.log_notes()
    return logger


def _planned(run: Experiment, stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The expected costs of each stage, after saying so; of a run that goes on, those that it had when it began."""
    file = run.folder / PLAN
    if not run.config["resume"] and run.config["show_plan"]:
        plan = make_plan(run, stages)
        write_json(file, plan.record())
        in_one = "" if run.processes == 1 else " in a single process"
        getLogger().info(f"What this run will cost{in_one}:\n\n{plan.table()}\n")
    elif run.config["resume"]:
        getLogger().info("This run goes on where it was stopped: no new plan is made")
    record = read_json(file) if file.is_file() else {"stages": {}}
    planned: dict[str, dict[str, Any]] = record["stages"]
    return planned


def load_data_and_model(model_file: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Rebuild the data and the model of a finetuned checkpoint (``ctr.pth``, ``joint.pth``, …).

    As RecBole's function of this name, but nothing in the file is executed.

    Returns:
        config, model, dataset, train_data, valid_data, test_data.

    Raises:
        ValueError: no such file, not a finetuned checkpoint, or one of other data than are there now.
    """
    state = checkpoints.load(model_file)
    if "state_dict" not in state:
        raise ValueError(f"{os.fspath(model_file)!r} holds aligned towers, not a finetuned model")
    config = state["config"]
    require_registered(config["model"], model_file)
    init_logger(config)
    dataset, train_data, valid_data, test_data = load_data_of(state, model_file)
    return config, load_model(state, train_data._dataset, model_file), dataset, train_data, valid_data, test_data


def load_model(state: dict[str, Any], train: Any, file: str | os.PathLike[str]) -> Any:
    """Build the model of the finetuned checkpoint ``state``, read from ``file``, for the training part ``train``."""
    config = state["config"]
    if config["warm_up"]:  # of KD_DAGFM, whose weights are all in this file, wherever that one is now
        config["warm_up"] = os.fspath(file)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train).to(config["device"])
    load_finetuned(model, state, file)
    return model
