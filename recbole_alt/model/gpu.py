"""How an encoder of Hugging Face reads on a GPU: it never makes the caller wait, and needs no padding.

Texts of different lengths are packed: they stand one after the other in a single sequence, and a token attends to those
of its own text only, by the kernel of FlashAttention-2 (arXiv 2307.08691) that torch has for this. Everything else in a
transformer treats tokens one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from recbole_alt.families import family_of, layers_of

#: The name under which transformers knows the attention that :func:`set_attention` sets.
_NAME = "recbole_alt"
_LEAST_CAPABILITY, _MOST_HEAD_WIDTH, _HEAD_WIDTH_STEP = (8, 0), 256, 8  # of FlashAttention-2

_is_packed = ContextVar("is_packed", default=False)


def set_attention(encoder: Any) -> bool:
    """Let ``encoder`` ask the GPU nothing and read packed texts, in place, if it attends by torch's function for it.

    By default it asks the GPU whether anything is padded, and leaves the attention mask out if nothing is. The answer
    comes when all work that was given to the GPU before is done, which then has none.

    Returns:
        Whether it reads packed texts.
    """
    if getattr(encoder.config, "_attn_implementation", None) != "sdpa":
        return False
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, _make_mask)
    encoder.set_attn_implementation(_NAME)
    width = (
        getattr(encoder.config, "head_dim", None) or encoder.config.hidden_size // encoder.config.num_attention_heads
    )
    return family_of(encoder).packs and width % _HEAD_WIDTH_STEP == 0 and width <= _MOST_HEAD_WIDTH


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
    token = _is_packed.set(True)
    try:
        yield
    finally:
        _is_packed.reset(token)


def _make_mask(*args: Any, **options: Any) -> Tensor | None:
    if _is_packed.get():
        return None
    return sdpa_mask(*args, **options | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention [1, T, heads, D] within packed texts, or that of transformers where none are packed.

    ``query`` is [1, heads, T, D], ``key`` and ``value`` may have fewer heads.
    """
    if cu_seq_lens_q is None:
        options |= {"dropout": dropout, "scaling": scaling}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    causal = bool(getattr(module, "is_causal", False))
    if query.device.type != "cuda":
        return _attend_one_by_one((query, key, value), cu_seq_lens_q.tolist(), dropout, scaling, causal), None
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else value.dtype
    tokens = [x[0].transpose(0, 1).to(dtype) for x in (query, key, value)]  # rotary positions make 32 bits of some
    bounds = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
    attended = torch.ops.aten._flash_attention_forward(*tokens, *bounds, dropout, causal, False, scale=scaling)[0]
    return attended.unsqueeze(0), None


def _attend_one_by_one(
    projected: Sequence[Tensor], starts: Sequence[int], dropout: float, scaling: float | None, causal: bool
) -> Tensor:
    """What the kernel computes, where there is none."""
    parts = []
    for start, end in pairwise(starts):
        query, key, value = (x[:, :, start:end] for x in projected)
        few = query.shape[1] != key.shape[1]
        options: dict[str, Any] = {"scale": scaling, "enable_gqa": few}
        parts.append(F.scaled_dot_product_attention(query, key, value, None, dropout, causal, **options))
    return torch.cat(parts, dim=2).transpose(1, 2)


def compile_layers(encoder: Any) -> None:
    """Compile each layer of ``encoder``, in place, for batches of any shape: equal layers share what is compiled.

    Raises:
        ValueError: its layers can't be found.
    """
    for layer in layers_of(encoder, family_of(encoder), "compile_language_model"):
        layer.compile(dynamic=True)
