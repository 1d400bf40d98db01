"""Take a run's models elsewhere: the CTR model to plain RecBole, the language model to Hugging Face.

``recbole-alt export RUN/joint.pth --recbole=dcn.pth --huggingface=FOLDER``
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import recbole
import yaml
from safetensors import SafetensorError

from recbole_alt import checkpoints, pretrained
from recbole_alt.config import base_model_name, registered_models
from recbole_alt.data.identity import require_same_data
from recbole_alt.experiment import load_data
from recbole_alt.files import check_folder, write_text
from recbole_alt.model.adapters import AdapterState
from recbole_alt.model.build import load_configured_language_model
from recbole_alt.model.language import LanguageModel
from recbole_alt.model.weights import load_weights

_IN_TOWER = "language_model."
_IN_MODEL = f"text.{_IN_TOWER}"


def to_recbole(model_file: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Write the CTR model as plain RecBole's class has it, and its configuration beside it as ``file`` + ``.yaml``.

    RecBole's ``Trainer.evaluate(data, model_file=file)`` reads the one, its ``Config`` the other; neither needs this
    package.

    Args:
        model_file: ``pretrain.pth``, ``ctr.pth``, ``joint.pth`` or ``plain.pth`` of a run.
        file: the new checkpoint.

    Raises:
        ValueError: no such file, it holds no CTR model, or the data that its configuration names are others now.
    """
    state = checkpoints.load(model_file)
    weights = _under("model.", state.get("backbone") or {}) or _under("backbone.model.", state.get("state_dict") or {})
    if not weights:
        raise ValueError(
            f"{os.fspath(model_file)!r} holds no CTR model: give pretrain.pth, ctr.pth, joint.pth, plain.pth"
        )
    _require_its_data(state, model_file)
    values = state["config"].__getstate__()["values"]
    checkpoints.save({"state_dict": weights, "other_parameter": {}, "config": values, "epoch": 0}, file)
    model = base_model_name(values["model"])
    theirs = {key: values[key] for key in _keys_of_recbole(model) if values.get(key) is not None}
    if theirs["train_neg_sample_args"]["distribution"] == "none":  # which RecBole writes, but does not read
        theirs["train_neg_sample_args"] = None
    theirs |= {"model": model, "dataset": values["dataset"], "data_path": str(Path(values["data_path"]).parent)}
    write_text(f"{os.fspath(file)}.yaml", yaml.safe_dump(theirs, allow_unicode=True))


def _require_its_data(state: dict[str, Any], file: str | os.PathLike[str]) -> None:
    """Plain RecBole can't tell other ids, so they are refused here, where the data are there to be looked at."""
    config = state["config"]
    if config["model"] in registered_models() and Path(config["data_path"]).is_dir():
        require_same_data(state, load_data(config)[1]._dataset, file=file)


def _keys_of_recbole(model: str | None) -> list[str]:
    """The keys RecBole's own property files give a value."""
    root = Path(recbole.__file__).parent / "properties"
    keys: dict[str, None] = {}
    for file in (root / "overall.yaml", root / "dataset" / "sample.yaml", root / "model" / f"{model}.yaml"):
        if file.is_file():
            keys |= dict.fromkeys(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    return list(keys)


def to_huggingface(model_file: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Write the language model and its tokenizer for ``AutoModel.from_pretrained``; LoRA adapters are merged in.

    Args:
        model_file: ``pretrain.pth``, ``lm.pth`` or ``joint.pth`` of a run.
        folder: where to.

    Raises:
        ValueError: no such file, it holds no language model, or the folder can't be written.
    """
    state = checkpoints.load(model_file)
    weights = _under(_IN_TOWER, state.get("text") or {}) or _under(_IN_MODEL, state.get("state_dict") or {})
    if not weights:
        raise ValueError(f"{os.fspath(model_file)!r} holds no language model: give pretrain.pth, lm.pth or joint.pth")
    check_folder("huggingface", folder)
    model: LanguageModel = load_configured_language_model(state["config"])
    load_weights(model, weights, f"{os.fspath(model_file)!r} does not fit the language_model of its configuration")
    encoder = model.encoder.merge_and_unload() if isinstance(model, AdapterState) else model.encoder
    tokenizer = pretrained.load_tokenizer(state["config"]["language_model"])
    try:
        encoder.save_pretrained(folder)
    except SafetensorError as error:  # of the operating system, in words of another language
        raise ValueError(
            f"{os.fspath(folder)!r} can't be written ({error}): make room, or give another folder"
        ) from None
    tokenizer.save_pretrained(folder)


def _under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
