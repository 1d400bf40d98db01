"""Reading and splitting the data of a configuration, or those that a checkpoint was trained with."""

from __future__ import annotations

import os
from logging import getLogger
from typing import Any

from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed

from recbole_alt import checkpoints, processes
from recbole_alt.config import require_registered
from recbole_alt.data.identity import require_same_data

#: RecBole's dataset and its loaders for training, validation and testing.
Data = tuple[Any, Any, Any, Any]


def load_data(config: Any) -> Data:
    """Read and split the data of ``config``, as every run with its seed does; of several processes, the first reads."""
    init_seed(config["seed"], config["reproducibility"])
    getLogger().info(f"Reading {config['dataset']} from {config['data_path']}")
    dataset, random = processes.from_first(lambda: (create_dataset(config), checkpoints.rng_state()))
    if processes.count() > 1:
        checkpoints.set_rng_state(random)
        dataset.config = config
    getLogger().info(dataset)
    return (dataset, *data_preparation(config, dataset))


def load_data_of(state: dict[str, Any], file: str | os.PathLike[str], data: Data | None = None) -> Data:
    """The data that the checkpoint ``state``, read from ``file``, was trained with; not read again if given.

    Raises:
        ValueError: its model is not registered, or the data are other ones now.
    """
    require_registered(state["config"]["model"], file)
    data = data or load_data(state["config"])
    require_same_data(state, data[1]._dataset, file=file)
    return data
