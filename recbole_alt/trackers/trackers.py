"""The trackers of a run, and of the curves of its stages."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from logging import getLogger
from pathlib import Path
from textwrap import shorten
from typing import Any

from recbole_alt import checkpoints
from recbole_alt.files import read_record, write_record
from recbole_alt.trackers.mlflow_run import MLflow
from recbole_alt.trackers.tracker import Tracker
from recbole_alt.trackers.wandb_run import Wandb

#: The file, in the folder of a run, of what goes on with its runs in trackers.
TRACKERS = "trackers.json"

_OF_RECBOLE = ("Loss/Train", "Vaild_score")  # sums over an epoch, and one of the metrics: the trainer adds both itself

#: Key that asks for a tracker → its class.
KINDS: dict[str, type[Tracker]] = {"log_wandb": Wandb, "log_mlflow": MLflow}


def check_trackers(config: Any) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        ValueError: Names the key and what to install.
    """
    for key, kind in KINDS.items():
        if config[key] and not any(map(_is_installed, kind.packages)):
            install = f"pip install 'recbole_alt[{kind.extra}]', or leave it out"
            raise ValueError(f"{key} needs the package {kind.packages[-1]}: {install}")


class Trackers:
    """The trackers that a configuration asks for, begun with its first stage.

    One that fails later is left with a warning, and training goes on.

    Args:
        config: RecBole's; :data:`KINDS` are read.
        folder: Of the run.
        name: Of the run in the trackers.
        values: The configuration as they are given it.
    """

    def __init__(self, config: Any, folder: Path, name: str, values: Mapping[str, Any]):
        self._asked = {key: kind for key, kind in KINDS.items() if config[key]}
        self._file, self._name, self._values = folder / TRACKERS, name, values
        self._begun: dict[str, Tracker] | None = None
        self._kept: dict[str, dict[str, Any]] = {}

    def begin(self, stage: str) -> None:
        """Make ready for ``stage``.

        Raises:
            ValueError: A tracker can't begin; names its key and what to do.
        """
        if not self._asked:
            return
        random = checkpoints.rng_state()
        if self._begun is None:
            self._begun = {}
            self._kept = read_record(self._file) if self._file.is_file() else {}
            for key, kind in self._asked.items():
                try:
                    self._begun[key] = kind(self._name, self._values, self._kept.setdefault(key, {}))
                except Exception as error:
                    raise ValueError(f"{key}: {kind.name} can't begin a run ({_said(error)}): {kind.remedy}") from None
                getLogger().info(f"{kind.name}: this run is {self._kept[key].get('run', 'the active one')} there")
        self._each(lambda tracker: tracker.begin(stage))
        self.flush()
        checkpoints.set_rng_state(random)

    def add(self, stage: str, name: str, value: float, step: int) -> None:
        """Add a point to the curve ``name`` of ``stage``, unless it is not a number."""
        if value == value:
            self._each(lambda tracker: tracker.add(stage, f"{stage}/{name}", float(value), step))

    def flush(self) -> None:
        """Pass on what was added so far, and keep what goes on with it."""
        if self._begun:
            self._each(lambda tracker: tracker.flush())
            write_record(self._file, self._kept)

    def close(self, error: type[BaseException] | None = None) -> None:
        """End the runs in the trackers, as failed if an ``error`` ends this one."""
        self._each(lambda tracker: tracker.close(error))
        self._begun = None

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for key, tracker in list((self._begun or {}).items()):
            try:
                do(tracker)
            except Exception as error:
                getLogger().warning(f"{key}: {tracker.name} fails, and is told nothing more ({_said(error)})")
                del (self._begun or {})[key]


class StageWriter:
    """TensorBoard's ``SummaryWriter`` for one stage, whose scalars go to the trackers, too."""

    def __init__(self, tensorboard: Any, trackers: Trackers, stage: str):
        self._tensorboard, self._trackers, self._stage = tensorboard, trackers, stage
        self.add_hparams = tensorboard.add_hparams

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Add a point; the trackers are not given RecBole's own curves, which the trainer adds under other names."""
        self._tensorboard.add_scalar(tag, value, step)
        if not tag.startswith(_OF_RECBOLE):
            self._trackers.add(self._stage, tag.removeprefix(f"{self._stage}/"), value, step)

    def flush(self) -> None:
        """Pass on what was added so far."""
        self._tensorboard.flush()
        self._trackers.flush()

    def close(self) -> None:
        """End the stage; the trackers go on."""
        self._tensorboard.close()
        self._trackers.flush()


def _is_installed(package: str) -> bool:
    """By its metadata: a folder ``wandb`` in the current one, which W&B makes itself, would be imported as well."""
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def _said(error: Exception) -> str:
    """The kind of an error and what it says, in one line, without the user and the password of a URL."""
    said = re.sub(r"://[^\s/@]+@", "://", f"{type(error).__name__}: {error}")
    return shorten(said, 300, placeholder=" …")
