"""What all questions read: a run's models, a sample of rows, and texts as the pretrained language model sees them."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alt.keys import STAGES
from recbole_alt.model.build import build_text
from recbole_alt.model.text_cache import TextCache


def finetuned(run: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of the finetuned models of a run, or the file that ``run`` is itself.

    Raises:
        ValueError: there is none.
    """
    if Path(run).is_file():
        return [Path(run)]
    found = [file for stage in STAGES if (file := Path(run, f"{stage}.pth")).is_file()]
    if not found:
        wanted = ", ".join(f"{stage}.pth" for stage in STAGES)
        raise ValueError(f"{os.fspath(run)!r} holds no finetuned model ({wanted})")
    return found


def sample(rows: int | np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``rows`` (positions, or their number), ascending, the same in every call."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def pretrained_states(config: Any, prompts: Any) -> TextCache:
    """A cache of texts' states in the language model as it was before alignment."""
    return TextCache(build_text(config, prompts).to(config["device"]).eval().language_model)
