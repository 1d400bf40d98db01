"""Where finetuning starts."""

import os
from collections.abc import Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole.utils import init_seed

from recbole_alt import checkpoints
from recbole_alt.data.identity import require_same_data
from recbole_alt.key_table import DATA, KEYS, TOWERS
from recbole_alt.keys import keys_of
from recbole_alt.model.build import ground_backbone
from recbole_alt.model.grounding import clear_unseen, merge, vectors_in
from recbole_alt.model.text_vectors import id_field
from recbole_alt.model.unseen import set_unseen_values
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.optim import decay_towards


def seed_stage(config: Any) -> None:
    """Seed every random generator as each stage of a run begins."""
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])


def load_aligned(config: Any, file: str | os.PathLike[str], dataset: Any) -> dict[str, Any]:
    """The checkpoint of the alignment in ``file``, for finetuning with ``dataset``, which is built.

    Raises:
        ValueError: it is missing, damaged, of other ids, or trained on rows that may be held out now.
    """
    what = "pretrained_checkpoint" if config["pretrained_checkpoint"] else ""
    try:
        state = checkpoints.load(file, config["device"])
    except ValueError as error:
        raise ValueError(f"{what}: {error}" if what else str(error)) from None
    require_same_data(state, dataset, file=file, what=what, held_out_only=True)
    return state


def start_from_aligned(trainer: ALTTrainer, towers: Mapping[str, Any], dataset: Any) -> None:
    """Start from the aligned ``towers``, as ``transfer``, ``unseen_values`` and ``decay_towards`` say.

    Args:
        trainer: about to make its first step.
        towers: a checkpoint of an alignment, whose ``config`` helps to say why they do not fit.
        dataset: the built training dataset.

    Raises:
        ValueError: they do not fit, their texts were read otherwise, or ``decay_towards: aligned`` with a learner other
            than ``adamw``.
    """
    config, model = trainer.config, trainer.model
    if model.text is not None and towers.get("config") is not None:
        _require_same_reading(towers["config"], config)
    if model.backbone is not None:
        ground_backbone(config, model.backbone, dataset, vectors_in(towers.get("backbone", {})))
    try:
        aligned = model.load_towers(towers, embeddings_only=config["transfer"] == "embeddings")
    except ValueError as error:
        raise ValueError(f"{error}{_changed_keys(towers.get('config'), config)}") from None
    if config["unseen_values"] != "initial" and model.backbone is not None:
        set_unseen_values(model.backbone, dataset, config["unseen_values"])
    _begin_grounded(trainer, dataset)
    if config["decay_towards"] == "aligned":
        if trainer.learner.lower() != "adamw":
            raise ValueError(f"decay_towards: aligned needs learner: adamw, not {trainer.learner}")
        decay_towards(trainer.optimizer, {parameter: parameter.detach().clone() for parameter in aligned})


def start_afresh(trainer: ALTTrainer, dataset: Any) -> None:
    """Start from RecBole's initialisation, with ``unseen_values: zero`` where asked (``hidden`` needs alignment)."""
    ground_backbone(trainer.config, trainer.model.backbone, dataset)
    if trainer.config["unseen_values"] == "zero":
        set_unseen_values(trainer.model.backbone, dataset, "zero")
    _begin_grounded(trainer, dataset)


def _begin_grounded(trainer: ALTTrainer, dataset: Any) -> None:
    """Let unseen ids start where their texts say, add up what only alignment grounded, and optimise the rest."""
    backbone = trainer.model.backbone
    sides = [] if backbone is None else list(backbone.grounding)
    for side in sides:
        clear_unseen(backbone, side, dataset.inter_feat[id_field(dataset, side, "grounded")])
        if side not in (trainer.config["grounded"] or []):
            merge(backbone, side)
    if sides:
        trainer.optimizer = trainer._build_optimizer()


def _require_same_reading(before: Any, now: Any) -> None:
    """Refuse other states of the texts than alignment had; warn of another language model, whose weights are not read.

    It may be the same one, moved to another folder.
    """
    for key in ("pooling", "language_model_weights"):
        if before[key] not in (None, now[key]):  # None in checkpoints of before there was the key
            raise ValueError(f"{key}: {now[key]}, and it was {before[key]} in alignment: give that, or align anew")
    theirs, ours = (Path(config["language_model"]) for config in (before, now))
    if theirs.name != ours.name:
        getLogger().warning(f"language_model: {ours} is read with the aligned weights, which are of {theirs}")


def _changed_keys(before: Any, now: Any) -> str:
    """The keys of data and towers that differ, to be put behind a message."""
    if before is None:
        return ""
    theirs, ours = before.final_config_dict, now.final_config_dict
    shared = [name for name in keys_of(DATA, TOWERS) if not KEYS[name].stages]
    changed = sorted(key for key in shared if theirs.get(key) != ours.get(key))
    said = ", ".join(f"{key} was {theirs.get(key)!r} and is {ours.get(key)!r} now" for key in changed)
    return f"; {said}: give what it was trained with, or align anew" if said else ""
