"""Where finetuning starts."""

from __future__ import annotations

from collections.abc import Mapping

from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_alt.model.unseen import set_unseen_values
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.optim import decay_towards


def start_from_aligned(trainer: ALTTrainer, towers: Mapping[str, Mapping[str, Tensor]], rows: Interaction) -> None:
    """Start from the aligned ``towers``, as ``transfer``, ``unseen_values`` and ``decay_towards`` say.

    Args:
        trainer: about to make its first step.
        towers: see :meth:`~recbole_alt.model.recommender.ALTRecommender.load_towers`.
        rows: the training interactions.

    Raises:
        ValueError: they do not fit, or ``decay_towards: aligned`` with a learner other than ``adamw``.
    """
    config, model = trainer.config, trainer.model
    aligned = model.load_towers(towers, embeddings_only=config["transfer"] == "embeddings")
    if config["unseen_values"] != "initial" and model.backbone is not None:
        set_unseen_values(model.backbone, rows, config["unseen_values"])
    if config["decay_towards"] == "aligned":
        if trainer.learner.lower() != "adamw":
            raise ValueError(f"decay_towards: aligned needs learner: adamw, not {trainer.learner}")
        decay_towards(trainer.optimizer, {parameter: parameter.detach().clone() for parameter in aligned})


def start_afresh(trainer: ALTTrainer, rows: Interaction) -> None:
    """Start from RecBole's own initialisation, with ``unseen_values: zero`` where asked (``hidden`` is of stage 1).

    Args:
        trainer: of the plain backbone, about to make its first step.
        rows: the training interactions.
    """
    if trainer.config["unseen_values"] == "zero":
        set_unseen_values(trainer.model.backbone, rows, "zero")
