"""The attention that transformers calls where an encoder reads packed texts, or must never make the caller wait.

To be imported where it is used: what it imports of transformers takes seconds, and much is done without.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from recbole_alt.families import family_of
from recbole_alt.model.gpu import is_packed

#: The name under which transformers knows the attention that :func:`set_attention` sets.
_NAME = "recbole_alt"
_MOST_HEAD_WIDTH, _HEAD_WIDTH_STEP = 256, 8  # of FlashAttention-2


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


def _make_mask(*args: Any, **options: Any) -> Tensor | None:
    if is_packed.get():
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
