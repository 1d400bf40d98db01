"""The two checkpoints of finetuning: the weights of the best epoch, and all that a stopped run needs to go on exactly.

``trainer`` is an :class:`~recbole_alt.trainer.finetune.ALTTrainer` throughout.
"""

import os
from typing import Any

from torch import Tensor

from recbole_alt import checkpoints, processes
from recbole_alt.config import ALTConfig
from recbole_alt.data.identity import record_of, require_same_data
from recbole_alt.model.grounding import MAPS, maps_of
from recbole_alt.model.weights import load_finetuned
from recbole_alt.trainer.optim import load_optimizer

_STEPPED = ("scheduler", "scaler")
_REACHED = ("best_valid_result", "valid_slices", "train_loss_dict", "valid_scores", "seconds")


def save_best(trainer: Any, epoch: int, file: str | os.PathLike[str]) -> None:
    """Write weights to serve by: grounded embeddings are merged, and their maps kept beside them."""
    maps = {} if trainer.model.backbone is None else {MAPS: maps_of(trainer.model.backbone)}
    checkpoints.save(_state(trainer, epoch, trainer.model.merged_state()) | maps, file)


def save_last(trainer: Any, epoch: int, step: int, order: Tensor | None, losses: list[float]) -> None:
    """Write all that is needed to go on before ``step`` of ``epoch``, both counted from 0.

    Args:
        order: the state of the generator that shuffles the training data, as the epoch began; None where there is none.
        losses: of the epoch so far, the sum of each part.
    """
    progress = {
        "step": step,
        "order": order,
        "losses": losses or None,
        "processes": processes.count(),
        "rng": checkpoints.rng_state(),
        "texts_encoded": trainer.model.texts_encoded,
        **{name: getattr(trainer, name).state_dict() for name in _STEPPED},
        **{name: getattr(trainer, name) for name in _REACHED},
    }
    checkpoints.save(_state(trainer, epoch, trainer.model.state_dict()) | progress, trainer.last_file)


def load_last(trainer: Any, resume_file: str | os.PathLike[str]) -> dict[str, Any]:
    """Bring ``trainer`` where :func:`save_last` was called.

    Returns:
        What was saved, of which the training of the epoch takes the rest.

    Raises:
        ValueError: see :meth:`~recbole_alt.trainer.finetune.ALTTrainer.resume_checkpoint`.
    """
    file, state = os.fspath(resume_file), checkpoints.load(resume_file, trainer.device)
    if "step" not in state:
        raise ValueError(f"{file!r} holds the best weights, not a stopped run: give its -last.pth")
    if state["config"]["model"] != trainer.config["model"]:
        raise ValueError(f"{file!r} is of {state['config']['model']}, not of {trainer.config['model']}")
    require_same_data(state, trainer.model, file=file)
    processes.require_same(state, file)
    load_finetuned(trainer.model, state, file)
    load_optimizer(trainer.optimizer, state["optimizer"], file)
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.start_epoch = state["epoch"]
    for name in ("cur_step", "best_valid_score", "best_valid_result", "train_loss_dict", "seconds"):
        setattr(trainer, name, state[name])
    trainer.valid_slices, trainer.valid_scores = (
        state.get("valid_slices", {}),
        state.get("valid_scores", []),
    )  # if older
    if trainer.model.text is not None:
        trainer.model.text.language_model.texts_encoded = state["texts_encoded"]
    return state


def _state(trainer: Any, epoch: int, weights: dict[str, Any]) -> dict[str, Any]:
    """RecBole's checkpoint (``Trainer._save_checkpoint``), in plain data."""
    return {
        "config": ALTConfig.snapshot(trainer.config),
        **record_of(trainer.model),
        "epoch": epoch,
        "cur_step": trainer.cur_step,
        "best_valid_score": float(trainer.best_valid_score),
        "state_dict": weights,
        "other_parameter": trainer.model.other_parameter(),
        "optimizer": trainer.optimizer.state_dict(),
    }
