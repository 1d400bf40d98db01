"""What trials share: their folder, their records, and a quiet console."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole.utils import get_local_time

from recbole_alt import files
from recbole_alt.config import ALTConfig

logger = logging.getLogger("recbole_alt.tuning")


def digest(config: ALTConfig, free: Collection[str]) -> str:
    """A name for a configuration: equal for those that differ only in ``free`` keys."""
    values = ALTConfig.snapshot(config).__getstate__()["values"]
    relevant = {key: value for key, value in values.items() if key not in free}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]


def first_stage(config: Any) -> str:
    """What ``config`` tunes: the first of ``finetune_modes``, ``plain`` where there is none."""
    return next(iter(config["finetune_modes"] or []), "plain")


def new_folder(config: Any, stage: str) -> Path:
    """A folder for a tuning of ``stage``, made."""
    name = f"tuning-{config['model']}-{config['dataset']}-{stage}-{get_local_time()}"
    return files.new_folder(Path(config["checkpoint_dir"]) / name)


def trials(folder: Path) -> list[dict[str, Any]]:
    """The finished trials of a tuning, in the order in which they began."""
    return sorted((files.read_record(file) for file in folder.glob("trials/*.json")), key=lambda t: t["begun"])


def best_trial(finished: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The trial with the best validation score, the first of equals; None where none has one."""
    scored = [trial for trial in finished if trial["score"] is not None]
    return max(scored, key=lambda t: t["score"] if t["bigger"] else -t["score"], default=None)


def winning(finetune: Mapping[str, Any] | None, stage: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``finetune: {stage: ...}`` with the tuned values in place of overrides, which would win over them."""
    stages = dict(finetune or {})
    overrides = stages.get(stage) or {}
    return {**stages, stage: {key: parameters.get(key, value) for key, value in overrides.items()}}


def show(value: Any) -> str:
    """A parameter in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def quiet() -> Iterator[None]:
    """On the console only the tuning's own lines, and each warning once; the log file has everything."""
    root = logging.getLogger()
    consoles = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    if root.level <= logging.DEBUG:
        consoles = []
    warned: set[str] = set()

    def worth_showing(record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING:  # every trial would repeat it
            known = record.getMessage() in warned
            warned.add(record.getMessage())
            return not known
        return record.name == logger.name or record.levelno > logging.WARNING

    for handler in consoles:
        handler.addFilter(worth_showing)
    try:
        yield
    finally:
        for handler in consoles:
            handler.removeFilter(worth_showing)
