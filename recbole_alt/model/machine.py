"""What a run leaves to the machine that it begins on: found once, kept for whoever goes on with it, on any machine."""

from logging import getLogger
from pathlib import Path
from typing import Any

import torch

from recbole_alt.files import read_record, write_record
from recbole_alt.key_table import KEYS
from recbole_alt.model import precision
from recbole_alt.sizes import AUTO

#: Keys that :func:`settle_machine` sets.
SETTLED = ("precision", "frozen_layers")


def frozen_layers_of(config: Any) -> int | str | None:
    """The key ``frozen_layers``; for ``auto``, ``all`` without a GPU, and None (nothing is frozen) with one.

    Nothing is frozen, either, where training of the language model is asked for: by ``lora_rank``, or by
    ``freeze_language_model: false`` for any mode.
    """
    given: int | str | None = config["frozen_layers"]
    if given != AUTO:
        return given
    return None if _asks_for_training(config) else _frozen_layers_on(config["device"])


def settle_machine(config: Any, file: Path | None = None) -> None:
    """Set what is ``auto`` among :data:`SETTLED`: as ``file`` says, where what is found is kept.

    Raises:
        ValueError: the file can't be written or read, or holds a value that the key can't have.
    """
    if config["frozen_layers"] == AUTO and _asks_for_training(config):
        config["frozen_layers"] = None
    wanted = [key for key in SETTLED if config[key] == AUTO]
    kept = read_record(file) if wanted and file is not None and file.is_file() else {}
    for key in wanted:
        if key in kept:
            KEYS[key].kind.refuse(f"{str(file)!r} is damaged: {key}", kept[key], empty=KEYS[key].empty)
            config[key] = kept[key]
        else:
            find = precision.fastest_precision if key == "precision" else _frozen_layers_on
            config[key] = find(config["device"])
            getLogger().info(f"{key}: {config[key]} on this {config['device'].type}")
    found = {key: config[key] for key in wanted if key not in kept}
    if file is not None and found:
        write_record(file, kept | found)


def _asks_for_training(config: Any) -> bool:
    of_modes = [(keys or {}).get("freeze_language_model") for keys in (config["finetune"] or {}).values()]
    return config["lora_rank"] is not None or False in (config["freeze_language_model"], *of_modes)


def _frozen_layers_on(device: torch.device) -> str | None:
    return None if device.type == "cuda" else "all"
