"""How long to train, and in what steps, where the configuration leaves it to the number of training rows.

Every function is pure and takes numbers to a number, so that a run that goes on has the sizes that it began with.
"""

from logging import getLogger
from math import ceil
from typing import Any

#: The value of a key that is left to the data.
AUTO = "auto"

#: Keys that :func:`settle_sizes` changes.
SETTLED = ("train_batch_size", "epochs", "finetune")

_LEAST_BATCH, _MOST_BATCH, _STEPS_OF_EPOCH = 128, 4096, 64
_LEAST_EPOCHS, _MOST_EPOCHS, _FINETUNING_VISITS = 10, 100, 2_400_000
_LEAST_STEPS, _MOST_STEPS, _VISITS_OF_ROW, _ALIGNMENT_VISITS = 100, 4000, 7, 800_000
_SHARE_HELD_OUT, _LEAST_HELD_OUT, _MOST_HELD_OUT, _MOST_SHARE_HELD_OUT = 1 / 50, 512, 4096, 1 / 10
_MEASUREMENTS = 20


def batch_size_of(rows: int) -> int:
    """The rows in a step of finetuning: the largest power of two, 128 to 4096, that makes 64 steps an epoch."""
    most = max(1, rows // _STEPS_OF_EPOCH)
    return min(max(_LEAST_BATCH, 2 ** (most.bit_length() - 1)), _MOST_BATCH)


def epochs_of(rows: int) -> int:
    """The most epochs of finetuning: those in which 2.4 million rows are read, 10 to 100."""
    return min(max(_LEAST_EPOCHS, ceil(_FINETUNING_VISITS / max(1, rows))), _MOST_EPOCHS)


def alignment_steps_of(rows: int, rows_of_step: float) -> int:
    """The most steps of alignment: those that read each row 7 times but no more than 800,000 rows, 100 to 4000.

    Args:
        rows: Training rows that alignment trains on.
        rows_of_step: How many of them a step reads, on average.
    """
    visits = min(_VISITS_OF_ROW * rows, _ALIGNMENT_VISITS)
    return min(max(_LEAST_STEPS, ceil(visits / max(1.0, rows_of_step))), _MOST_STEPS)


def held_out_of(rows: int) -> int:
    """The training rows that alignment is measured on instead: 2 %, 512 to 4096, but at most a tenth of ``rows``."""
    wanted = min(max(_LEAST_HELD_OUT, round(_SHARE_HELD_OUT * rows)), _MOST_HELD_OUT)
    return min(wanted, int(_MOST_SHARE_HELD_OUT * rows))


def measured_every(steps: int) -> int:
    """The steps between two measurements of an alignment of ``steps`` steps, of which there are 20 or fewer."""
    return max(1, ceil(steps / _MEASUREMENTS))


def settle_sizes(config: Any, rows: int) -> None:
    """Set ``train_batch_size`` and ``epochs`` where they are ``auto``, of the run and under ``finetune``.

    Args:
        config: RecBole's.
        rows: Of the training set.
    """
    found = {"train_batch_size": batch_size_of(rows), "epochs": epochs_of(rows)}
    chosen = {key: value for key, value in found.items() if config[key] == AUTO}
    for key, value in chosen.items():
        config[key] = value
    config["finetune"] = {
        mode: {key: found[key] if value == AUTO and key in found else value for key, value in (keys or {}).items()}
        for mode, keys in (config["finetune"] or {}).items()
    }
    if chosen:
        said = ", ".join(f"{key}: {value}" for key, value in chosen.items())
        getLogger().info(f"For {rows:,} training rows: {said}")
