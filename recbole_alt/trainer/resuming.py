"""The checkpoints of finetuning: what the best and the last one hold, and how a run goes on from the last one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch

from recbole_alt import checkpoints
from recbole_alt.config import ALTConfig
from recbole_alt.data.identity import record_of, require_same_data
from recbole_alt.model.weights import load_finetuned


def best_state(trainer: Any, epoch: int) -> dict[str, Any]:
    """RecBole's checkpoint of ``trainer`` (``Trainer._save_checkpoint``), in plain data."""
    return {
        "config": ALTConfig.snapshot(trainer.config),
        **record_of(trainer.model),
        "epoch": epoch,
        "cur_step": trainer.cur_step,
        "best_valid_score": float(trainer.best_valid_score),
        "state_dict": trainer.model.state_dict(),
        "other_parameter": trainer.model.other_parameter(),
        "optimizer": trainer.optimizer.state_dict(),
    }


def last_state(
    trainer: Any, epoch: int, step: int, order: torch.Tensor | None, losses: tuple[list[float], bool] | None
) -> dict[str, Any]:
    """Everything that ``trainer`` needs to go on before ``step`` of ``epoch``.

    Args:
        trainer: an :class:`~recbole_alt.trainer.finetune.ALTTrainer`.
        epoch, step: counted from 0.
        order: :func:`order_of` the training data as the epoch began.
        losses: of the epoch so far, the sum of each part, and whether the loss has several; None between epochs.
    """
    return best_state(trainer, epoch) | {
        "step": step,
        "order": order,
        "losses": losses[0] if losses else None,
        "is_tuple": losses[1] if losses else False,
        "scheduler": trainer.scheduler.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "rng": checkpoints.rng_state(),
        "best_valid_result": trainer.best_valid_result,
        "train_loss_dict": trainer.train_loss_dict,
        "seconds": trainer.seconds,
        "texts_encoded": getattr(trainer.model, "texts_encoded", 0),
    }


def restore(trainer: Any, file: str | os.PathLike[str]) -> dict[str, Any]:
    """Bring ``trainer`` to where it wrote ``file``, and return what of it :meth:`fit` takes up later.

    Raises:
        ValueError: it holds no progress (a best checkpoint holds only weights), another model or other data.
    """
    state = checkpoints.load(file, trainer.device)
    if "step" not in state:
        raise ValueError(f"{os.fspath(file)!r} holds the best weights, not a stopped run: give its -last.pth")
    if state["config"]["model"] != trainer.config["model"]:
        raise ValueError(f"{os.fspath(file)!r} is of {state['config']['model']}, not of {trainer.config['model']}")
    require_same_data(state, trainer.model, file=file)
    load_finetuned(trainer.model, state, file)
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.start_epoch, trainer.cur_step = state["epoch"], state["cur_step"]
    trainer.best_valid_score, trainer.best_valid_result = state["best_valid_score"], state["best_valid_result"]
    trainer.train_loss_dict, trainer.seconds = dict(state["train_loss_dict"]), state["seconds"]
    if getattr(trainer.model, "text", None) is not None:
        trainer.model.text.language_model.texts_encoded = state["texts_encoded"]
    return state


def order_of(train_data: Any) -> torch.Tensor | None:
    """State of the generator a RecBole loader shuffles with; None for batches that depend on the step only."""
    generator = getattr(train_data, "generator", None)
    return None if generator is None else generator.get_state()


def batches_from(train_data: Any, done: int, resumed: dict[str, Any] | None) -> Iterator[Any]:
    """The batches of an epoch from ``done`` on, with every random generator as it was then."""
    iterator = iter(train_data)
    for _ in range(done):
        next(iterator)
    if resumed is not None:
        checkpoints.set_rng_state(resumed["rng"])
    yield from iterator
