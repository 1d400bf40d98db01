"""What all questions read: a sample of rows, and texts as the pretrained language model sees them."""

from typing import Any

import numpy as np

from recbole_alt.model.build import build_text
from recbole_alt.model.text_cache import TextCache


def sample(rows: int | np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``rows`` (positions, or their number), ascending, the same in every call."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def pretrained_states(config: Any, prompts: Any) -> TextCache:
    """A cache of texts' states in the language model as it was before alignment."""
    return TextCache(build_text(config, prompts).to(config["device"]).eval().language_model)
