"""From the configuration and the data of a run to its plan."""

import copy
import gc
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from recbole_alt import checkpoints
from recbole_alt.compat import trainers_without_curves
from recbole_alt.experiment import Experiment
from recbole_alt.plan.record import Plan
from recbole_alt.plan.remedies import find_remedies
from recbole_alt.plan.stages import Measurement
from recbole_alt.plan.texts import count_texts, distinct_texts
from recbole_alt.trainer.start import seed_stage


def make_plan(run: Experiment, stages: Sequence[str]) -> Plan:
    """Measure what the ``stages`` of a run that has not begun will cost.

    Raises:
        ValueError: The configuration, the data or the weights are refused, as the stages themselves do.
    """
    config = run.config
    parts = {"training": run.train_data, "validation": run.valid_data, "test": run.test_data}
    datasets = [loader._dataset for loader in parts.values() if loader is not None]
    reads_texts = any(stage not in ("plain", "ctr") for stage in stages)
    texts = (
        count_texts(distinct_texts(run.dataset.prompts, datasets)) if reads_texts else {}
    )  # whose warnings are shown
    with tempfile.TemporaryDirectory(dir=run.folder) as folder, _unnoticed(run):
        apart = copy.copy(config)
        apart.final_config_dict = {**config.final_config_dict, "checkpoint_dir": folder, "log_wandb": False}
        data = (run.train_data, run.valid_data, run.test_data)
        measurement = Measurement(apart, run.model_class, data)
        planned = {}
        for stage in stages:
            seed_stage(config)
            planned[stage] = measurement.alignment() if stage == "pretrain" else measurement.finetuning(stage)
            gc.collect()
    device = config["device"].type
    machine = f"a processor, threads: {torch.get_num_threads()}" if device == "cpu" else device
    return Plan(
        about=f"{config['model']} on {config['dataset']} on {machine}",
        rows={part: len(loader._dataset) if loader is not None else 0 for part, loader in parts.items()},
        texts=texts,
        stages=planned,
        remedies=find_remedies(config, planned),
        example_texts=run.example_texts() if reads_texts else (),
    )


@contextmanager
def _unnoticed(run: Experiment) -> Iterator[None]:
    """Leave no trace: random generators are put back, nothing is logged, and no curves are drawn."""
    before, disabled = checkpoints.rng_state(), logging.root.manager.disable
    loaders = [loader for loader in (run.train_data, run.valid_data, run.test_data) if loader is not None]
    orders = [loader.generator.get_state() for loader in loaders]
    logging.disable(logging.WARNING)
    try:
        with trainers_without_curves():
            yield
    finally:
        logging.disable(disabled)
        checkpoints.set_rng_state(before)
        for loader, order in zip(loaders, orders, strict=True):
            loader.generator.set_state(order)
