"""Finished runs: the checkpoint that answers for one, and the language model in a checkpoint."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_alt import checkpoints
from recbole_alt.keys import STAGES
from recbole_alt.model.adapters import AdapterState
from recbole_alt.model.build import load_configured_language_model
from recbole_alt.model.language import LanguageModel
from recbole_alt.model.weights import load_weights
from recbole_alt.run_folder import read_stage


def finetuned_file(run: str | os.PathLike[str], mode: str | None = None, among: Sequence[str] = STAGES) -> Path:
    """The checkpoint of a finetuned model.

    Args:
        run: folder of a run, or a checkpoint of one.
        mode: of the model; None for the best on validation of the run's ``valid_metric``.
        among: the modes that will do.

    Raises:
        ValueError: there is no such run, or no such mode in it.
    """
    path = Path(run)
    if path.is_file():
        if mode is not None and mode != path.stem:
            raise ValueError(f"mode: {str(path)!r} is not of mode {mode}: give the folder of the run")
        return path
    if mode is not None and mode not in among:
        raise ValueError(f"mode must be one of {', '.join(among)}, not {mode!r}")
    files = [file for stage in among if (file := path / f"{stage}.pth").is_file()]
    if not files:
        wanted = ", ".join(f"{stage}.pth" for stage in among)
        raise ValueError(f"{os.fspath(run)!r} holds no finetuned model ({wanted})")
    if mode is not None:
        if (file := path / f"{mode}.pth") not in files:
            there = ", ".join(file.stem for file in files)
            raise ValueError(f"mode: {os.fspath(run)!r} has no {mode}.pth; it has {there}")
        return file
    return files[0] if len(files) == 1 else _best(files)


def _best(files: Sequence[Path]) -> Path:
    """The finished one whose validation is best; the first of several equal ones, and of none that is finished."""
    config = checkpoints.load(files[0])["config"]
    metric, sign = str(config["valid_metric"]).lower(), 1 if config["valid_metric_bigger"] else -1
    reached = {
        file: sign * valid[metric]
        for file in files
        if (record := file.with_suffix(".json")).is_file() and metric in (valid := read_stage(record).valid)
    }
    return max(reached, key=lambda file: reached[file]) if reached else files[0]


def trained_language_model(state: dict[str, Any], file: str | os.PathLike[str]) -> tuple[LanguageModel, Any]:
    """The language model in the checkpoint ``state``, read from ``file``, and its encoder with LoRA adapters merged in.

    Raises:
        ValueError: it holds none.
    """
    weights = weights_under("language_model.", state.get("text")) or weights_under(
        "text.language_model.", state.get("state_dict")
    )
    if not weights:
        raise ValueError(f"{str(file)!r} holds no language model: give pretrain.pth, lm.pth or joint.pth")
    model: LanguageModel = load_configured_language_model(state["config"])
    load_weights(model, weights, f"{str(file)!r} does not fit the language_model of its configuration")
    return model, model.encoder.merge_and_unload() if isinstance(model, AdapterState) else model.encoder


def weights_under(prefix: str, state: dict[str, Any] | None) -> dict[str, Any]:
    """The part of ``state`` whose names begin with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in (state or {}).items() if key.startswith(prefix)}
