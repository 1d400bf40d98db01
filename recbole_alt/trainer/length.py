"""How long an alignment is: the steps that are planned, and when it ends before them.

It ends early when its loss on training rows that it does not train on has stopped falling.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recbole_alt import processes
from recbole_alt.data.batches import Batches
from recbole_alt.data.masking import Masking, step_generator
from recbole_alt.model.alignment import AlignmentModel
from recbole_alt.sizes import AUTO, alignment_steps_of, held_out_of

_PATIENCE = 3  # of pretrain_stopping_step: auto
_TOLERANCE = 1e-3  # a loss that is lower by less than this share of the lowest one is no improvement
_SAMPLED_STEPS = 8  # to see how many rows a step reads
_ROWS = 256  # held-out rows that are read at a time


def follows_data(config: Any) -> bool:
    """True if the configuration gives neither steps nor epochs of alignment."""
    return config["pretrain_steps"] in (None, AUTO) and config["pretrain_epochs"] is None


def planned_steps(config: Any, batches: Batches, rows: int) -> int:
    """The most steps of an alignment that trains on ``rows`` rows in ``batches``."""
    if follows_data(config):
        return alignment_steps_of(rows, rows_of_step(batches))
    steps = config["pretrain_steps"]
    return int(config["pretrain_epochs"] * batches.steps_per_epoch if steps in (None, AUTO) else steps)


def rows_of_step(batches: Batches) -> float:
    """How many rows a step reads, on average over the first ones."""
    steps = min(_SAMPLED_STEPS, batches.steps_per_epoch)
    return sum(len(batches(step)) for step in range(steps)) / steps


def patience_of(config: Any) -> int:
    """The measurements without improvement that end an alignment; 0 if none are made."""
    patience = config["pretrain_stopping_step"]
    if patience == AUTO:
        patience = _PATIENCE if follows_data(config) else 0
    return 0 if config["pretrain_steps"] == 0 else patience or 0


def hold_out(dataset: Any, seed: int) -> tuple[Any, Any]:
    """Split the built training ``dataset`` by chance: the part to train on, and the one to measure on.

    The latter is None, and the former ``dataset``, where there are too few rows to measure anything.
    """
    rows = held_out_of(len(dataset))
    if rows < 2:
        return dataset, None
    drawn = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,))).permutation(len(dataset))
    is_held_out = np.zeros(len(dataset), dtype=bool)
    is_held_out[drawn[:rows]] = True
    parts = (np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
    train, held_out = (dataset.copy(dataset.__getitem__(part, join=False)) for part in parts)
    return train, held_out


@torch.no_grad()
def held_out_loss(model: AlignmentModel, held_out: Any, masking: Masking, seed: int, device: torch.device) -> float:
    """The weighted sum of the objectives' losses on all rows of ``held_out``, averaged over rows.

    Masks and noise follow from ``seed``, so that they are the same at each measurement. The model is in evaluation mode
    for the while; no generator that training draws from moves.
    """
    was_training, total = model.training, 0.0
    model.eval()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for number, part in enumerate(np.array_split(np.arange(len(held_out)), max(1, len(held_out) // _ROWS))):
            rows = held_out[part]
            texts = held_out.prompts.batches(rows)
            masks = masking.draw(texts, len(rows), step_generator(seed, 0, number, stream=1))
            output = model(model.prepare(rows, texts, masks).to(device))
            losses = [model.weights.get(name, 1.0) * loss.item() for name, loss in output.losses.items()]
            total += sum(losses) * len(part)
    model.train(was_training)
    return processes.total(total) / processes.count() / len(held_out)


def has_stopped_falling(losses: Sequence[float], patience: int) -> bool:
    """True if none of the last ``patience`` losses, 1 or more, is lower than the lowest before by 0.1 % of it."""
    lowest, since = float("nan"), 0
    for loss in losses:
        if not loss >= lowest - _TOLERANCE * abs(lowest):  # nor is the first one
            lowest, since = loss, 0
        else:
            since += 1
    return since >= patience
