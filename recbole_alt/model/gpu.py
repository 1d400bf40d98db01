"""How an encoder of Hugging Face reads on a GPU: it never makes the caller wait, and needs no padding.

Texts of different lengths are packed: they stand one after the other in a single sequence, and a token attends to those
of its own text only, by the kernel of FlashAttention-2 (arXiv 2307.08691) that torch has for this. Everything else in a
transformer treats tokens one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_alt.families import family_of, layers_of

#: Whether the encoder that is being called reads packed texts.
is_packed = ContextVar("is_packed", default=False)

_LEAST_CAPABILITY = (8, 0)  # of FlashAttention-2


def has_kernel(device: torch.device) -> bool:
    """Whether ``device`` is a GPU with FlashAttention's kernels."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


@dataclass
class Packing:
    """Where the tokens of N texts stand, in a matrix [N, L] and one after the other."""

    place: Tensor  # [T] of each token among the N · L
    position: Tensor  # [T] of each token in its text
    starts: Tensor  # [N + 1] of the texts, and the end of the last; 32-bit integers
    longest: int

    @classmethod
    def of(cls, lengths: np.ndarray, width: int) -> Packing:
        """The packing of texts of ``lengths`` [N], at least 1, in a matrix of ``width`` L."""
        starts = np.concatenate([[0], lengths.cumsum()])
        position = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        place = np.repeat(np.arange(len(lengths)) * width, lengths) + position
        bounds = torch.from_numpy(starts.astype(np.int32))
        return cls(torch.from_numpy(place), torch.from_numpy(position), bounds, int(lengths.max()))

    def encode(self, encoder: Any, input_ids: Tensor, first_position: int) -> Tensor:
        """The states [N, L, H] of texts [N, L], 0 at padding; positions count from ``first_position``."""
        ids = input_ids.flatten()[self.place].unsqueeze(0)
        bounds: dict[str, Any] = {f"cu_seq_lens_{side}": self.starts for side in "qk"}
        bounds |= {f"max_length_{side}": self.longest for side in "qk"}
        with _packed():
            position = (self.position + first_position).unsqueeze(0)
            made = encoder(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=position, **bounds)
        states = made.last_hidden_state.float()[0]
        padded = states.new_zeros(input_ids.numel(), states.shape[1]).index_copy(0, self.place, states)
        return padded.view(*input_ids.shape, -1)


@contextmanager
def _packed() -> Iterator[None]:
    token = is_packed.set(True)
    try:
        yield
    finally:
        is_packed.reset(token)


def compile_layers(encoder: Any) -> None:
    """Compile each layer of ``encoder``, in place, for batches of any shape: equal layers share what is compiled.

    Raises:
        ValueError: its layers can't be found.
    """
    for layer in layers_of(encoder, family_of(encoder), "compile_language_model"):
        layer.compile(dynamic=True)
