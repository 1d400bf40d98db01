"""What a run leaves to the machine that it begins on: found once, kept for whoever goes on with it, on any machine."""

import os
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


def repeat_exactly(config: Any) -> None:
    """With ``reproducibility``, let a GPU use only algorithms that give the same bits each time, for the whole process.

    RecBole's ``init_seed`` asks this of convolutions only. A processor adds in the same order anyway, as long as it has
    the same number of threads. Convolutions in 32 bits get all of them: by default cuDNN rounds their factors to 10
    bits of mantissa (TF32), which PyTorch's matrix products do not.
    """
    if config["device"].type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    if config["reproducibility"] and config["device"].type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS, "Results Reproducibility"
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # which only finds errors


def settle_machine(config: Any, file: Path | None = None) -> None:
    """Set what is ``auto`` among :data:`SETTLED`: as ``file`` says, where what is found is kept.

    Raises:
        ValueError: the file can't be written or read, or holds a value that the key can't have.
    """
    repeat_exactly(config)
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
