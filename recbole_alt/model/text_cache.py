"""Pooled states of texts, kept while the language model does not change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recbole_alt.data.prompts import DistinctTexts
from recbole_alt.model.language import LanguageModel

_CHUNK = 256  # texts encoded at once


class TextCache:
    """Encodes every distinct text once, however many batches ask for it.

    Args:
        language_model: the encoder; call :meth:`clear` whenever its weights may have changed.
    """

    def __init__(self, language_model: LanguageModel):
        self._language_model = language_model
        self.clear()

    def clear(self) -> None:
        """Forget all states."""
        self._index: dict[tuple[str, bytes], int] = {}
        self._states: list[Tensor] = []
        self._table: Tensor | None = None

    @torch.no_grad()
    def pooled(self, texts: DistinctTexts, device: torch.device) -> Tensor:
        """Pooled states of the distinct texts, [N, H], on ``device``; those not yet known are encoded."""
        keys = [(texts.segment.name, row.tobytes()) for row in np.ascontiguousarray(texts.pieces)]
        new = np.asarray([i for i, key in enumerate(keys) if key not in self._index], dtype=np.int64)
        for start in range(0, len(new), _CHUNK):
            which = new[start : start + _CHUNK]
            batch = texts.join(which).to(device)
            self._add([keys[i] for i in which], self._language_model(batch.input_ids, batch.attention_mask)[1])
        if self._table is None:
            self._table = torch.cat(self._states)
            self._states = [self._table]
        return self._table[torch.as_tensor([self._index[key] for key in keys], device=device)]

    def _add(self, keys: Sequence[tuple[str, bytes]], states: Tensor) -> None:
        known = len(self._index)
        self._index |= {key: known + i for i, key in enumerate(keys)}
        self._states.append(states)
        self._table = None
