"""What all questions read: a run's models, a sample of rows, and texts as the pretrained language model sees them."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alt.model.build import build_text
from recbole_alt.model.text_cache import TextCache


def finetuned(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of the finetuned models of a run; a ValueError if there is none."""
    files = [Path(folder) / f"{stage}.pth" for stage in ("plain", "ctr", "lm", "joint")]
    found = [file for file in files if file.is_file()]
    if not found:
        raise ValueError(f"{os.fspath(folder)!r} holds no finetuned model (plain.pth, ctr.pth, lm.pth, joint.pth)")
    return found


def sample(rows: int | np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``rows`` (positions, or their number), ascending, the same in every call."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def pretrained_states(config: Any, prompts: Any) -> TextCache:
    """A cache of texts' states in the language model as it was before alignment."""
    return TextCache(build_text(config, prompts).to(config["device"]).eval().language_model)
