"""The language side: any Hugging Face encoder, and the texts of a row brought together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_alt import pretrained
from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.model.attention import SegmentStates, take_rows

_LEAST_TEXTS, _MOST_GROUPS = 64, 4  # texts worth a group of their own; groups a batch is cut into


class LanguageModel(nn.Module):
    """A Hugging Face encoder that returns token states and a pooled state.

    Args:
        encoder: an ``AutoModel``.
        pooling: ``cls`` for the first token's state, ``mean`` over the real tokens.
        precision: ``fp32``, ``bf16`` or ``auto`` (bf16 where the processor multiplies it natively).
    """

    def __init__(self, encoder: Any, *, pooling: str = "mean", precision: str = "fp32"):
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.precision = precision
        self.hidden_size = int(encoder.config.hidden_size)
        self.texts_encoded = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode texts.

        Args:
            input_ids: [N, L].
            attention_mask: [N, L].

        Returns:
            token states [N, L, H] and pooled states [N, H], both in 32 bits.
        """
        self.texts_encoded += len(input_ids)
        states = self._encode_by_length(input_ids, attention_mask)
        if self.pooling == "cls":
            return states, states[:, 0]
        weight = attention_mask.unsqueeze(-1).to(states.dtype)
        return states, (states * weight).sum(1) / weight.sum(1).clamp(min=1)

    def _encode_by_length(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States [N, L, H], texts of like length encoded together so that little padding is computed."""
        order = attention_mask.sum(1).argsort(stable=True)
        parts = order.chunk(max(1, min(_MOST_GROUPS, len(order) // _LEAST_TEXTS)))
        if len(parts) == 1:
            return self._encode(input_ids, attention_mask)
        encoded = []
        for part in parts:
            length = int(attention_mask[part[-1]].sum())
            states = self._encode(input_ids[part, :length], attention_mask[part, :length])
            encoded.append(F.pad(states, (0, 0, 0, input_ids.shape[1] - length)))
        return torch.cat(encoded)[order.argsort()]

    def _encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        device = input_ids.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(self.precision, device)):
            return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether encoding runs in bf16 on ``device``."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def load_language_model(
    name: str,
    *,
    layers: int | None = None,
    pooling: str = "mean",
    precision: str = "fp32",
    gradient_checkpointing: bool = False,
) -> LanguageModel:
    """Load a pretrained encoder.

    Args:
        name: see :func:`recbole_alt.pretrained.resolve`.
        layers: keep the first ``layers`` only; None keeps all.
        pooling: see :class:`LanguageModel`.
        precision: see :class:`LanguageModel`.
        gradient_checkpointing: recompute activations in the backward pass; less memory, more time.

    Raises:
        ValueError: no weights to be found, or fewer layers than asked for.
    """
    from transformers import AutoModel

    encoder = pretrained.load(name, AutoModel, dtype=torch.float32)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # never used, and a parameter without gradient
    if layers is not None:
        keep_first_layers(encoder, layers)
    if gradient_checkpointing:
        encoder.gradient_checkpointing_enable({"use_reentrant": False})
    return LanguageModel(encoder, pooling=pooling, precision=precision)


def keep_first_layers(encoder: Any, layers: int) -> None:
    """Drop all transformer layers of ``encoder`` after the first ``layers``, in place.

    Raises:
        ValueError: it has fewer, or its layers can't be found.
    """
    total = int(encoder.config.num_hidden_layers)
    if not 1 <= layers <= total:
        raise ValueError(f"language_model_layers must be between 1 and {total} for this model, not {layers}")
    stacks = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    if len(stacks) != 1:
        raise ValueError(f"language_model_layers: can't tell which part of {type(encoder).__name__} are its layers")
    del stacks[0][layers:]
    encoder.config.num_hidden_layers = layers


class TextTower(nn.Module):
    """The language model over all segments of a row.

    With one segment the row's pooled state is that text's. With several (``prompt_scope: entity``) the
    pooled states meet in a small network, since neither text alone knows the pair:
    ``Linear→GELU→Linear`` of ``[h_1; …; h_S; h_1 ⊙ … ⊙ h_S]``, added to their mean.

    Args:
        language_model: the encoder.
        n_segments: texts per row.
    """

    def __init__(self, language_model: LanguageModel, n_segments: int):
        super().__init__()
        self.language_model = language_model
        self.hidden_size = size = language_model.hidden_size
        self.fusion: nn.Module | None = None
        if n_segments > 1:
            self.fusion = nn.Sequential(nn.Linear((n_segments + 1) * size, size), nn.GELU(), nn.Linear(size, size))

    def forward(self, batches: Sequence[SegmentBatch]) -> tuple[list[SegmentStates], Tensor]:
        """Encode each distinct text once.

        Returns:
            the states of every segment, and the pooled state of every interaction [B, H].
        """
        segments = []
        for batch in batches:
            states, pooled = self.language_model(batch.input_ids, batch.attention_mask)
            segments.append(SegmentStates(states, batch.attention_mask, pooled, batch.row))
        return segments, self.fuse([take_rows(segment.pooled, segment.row) for segment in segments])

    def fuse(self, rows: Sequence[Tensor]) -> Tensor:
        """The pooled state of every interaction from those of its texts: S × [B, H] → [B, H]."""
        if self.fusion is None:
            return rows[0]
        stacked = torch.stack(list(rows))
        return stacked.mean(0) + self.fusion(torch.cat([*rows, stacked.prod(0)], dim=-1))
