"""Masks for the fields of a row, in its text and in its table (method, alignment).

Masks come from a generator made for one step, so they depend only on (seed, epoch, step).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbole_alt.data.prompts import SegmentBatch


def step_generator(seed: int, epoch: int, step: int, stream: int = 0) -> torch.Generator:
    """A CPU generator for one step; ``stream`` tells different uses within the step apart."""
    state = np.random.SeedSequence([seed, epoch, step, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & 0x7FFF_FFFF_FFFF_FFFF)


def n_masked(n_fields: int, ratio: float) -> int:
    """``max(1, int(F · ratio))`` (method, alignment)."""
    return max(1, int(n_fields * ratio))


def draw_field_mask(rows: int, n_fields: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Choose exactly ``n_masked`` fields in each row, uniformly: bool [rows, n_fields]."""
    order = torch.rand(rows, n_fields, generator=generator).argsort(1)
    return order < n_masked(n_fields, ratio)


def masked_tokens(field_ids: Tensor, field_mask: Tensor) -> Tensor:
    """The tokens of the values of the masked fields: bool [N, L] from ``field_ids`` [N, L] and the mask [N, F]."""
    return field_mask.gather(1, field_ids.clamp(min=0)) & (field_ids >= 0)


def draw_token_mask(field_ids: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Choose ``max(1, int(T · ratio))`` of the T value tokens of each text, uniformly (ablation): bool [N, L]."""
    is_value = field_ids >= 0
    score = torch.rand(field_ids.shape, generator=generator).masked_fill(~is_value, 2.0)
    count = is_value.sum(1, keepdim=True)
    wanted = (count * ratio).long().clamp(min=1).minimum(count)
    return score.argsort(1).argsort(1) < wanted


@dataclass(frozen=True)
class Masks:
    """The masks of one step."""

    tokens: list[Tensor]  # per segment, bool [N, L]: the tokens of its texts that become [MASK]
    table: Tensor  # bool [B, F]: the table fields of each interaction that are hidden


@dataclass(frozen=True)
class Masking:
    """Draws masks.

    The fields of a text are chosen among *all* fields of the prompt, so that a field is masked equally often whether
    a row has one text or several; a text without a chosen field stays whole. Texts beyond ``texts`` do, too.

    Raises:
        ValueError: ``shared`` with token-level masking, or without a field both modalities have.
    """

    text_fields: Sequence[str]  # the fields of the prompt, in the order of field_ids
    table_fields: Sequence[str]  # the fields of the CTR model
    ratio: float = 0.15  # the share of the fields (or tokens) to mask
    level: str = "field"  # "field" for whole values, "token" for single tokens of the text (ablation)
    fields: str = "independent"  # "independent" for one draw per modality, "shared" for the same fields in both
    texts: int | None = None  # the most texts of a segment to mask in a step; None for all

    def __post_init__(self) -> None:
        if self.fields == "shared":
            if self.level == "token":
                raise ValueError("mask_fields: shared masks whole fields: set mask_level: field")
            if not set(self.text_fields) & set(self.table_fields):
                raise ValueError("mask_fields: shared needs a field that is both in the prompt and in the CTR model")

    def draw(self, batches: Sequence[SegmentBatch], rows: int, generator: torch.Generator) -> Masks:
        """Draw the masks of one step for ``rows`` interactions and their texts."""
        if self.fields == "shared":
            return self._draw_shared(batches, rows, generator)
        tokens = [self._draw_tokens(batch.field_ids, generator) for batch in batches]
        return Masks(tokens, draw_field_mask(rows, len(self.table_fields), self.ratio, generator))

    def _draw_tokens(self, field_ids: Tensor, generator: torch.Generator) -> Tensor:
        if self.level == "token":
            return self._limit(draw_token_mask(field_ids, self.ratio, generator), generator)
        chosen = draw_field_mask(len(field_ids), len(self.text_fields), self.ratio, generator)
        return self._limit(masked_tokens(field_ids, chosen), generator)

    def _limit(self, hidden: Tensor, generator: torch.Generator) -> Tensor:
        """``hidden`` [N, L] without the masks of texts beyond the limit."""
        masked = hidden.any(1).nonzero().squeeze(1)
        if self.texts is not None and len(masked) > self.texts:
            hidden[masked[torch.randperm(len(masked), generator=generator)[self.texts :]]] = False
        return hidden

    def _draw_shared(self, batches: Sequence[SegmentBatch], rows: int, generator: torch.Generator) -> Masks:
        common = [name for name in self.table_fields if name in self.text_fields]
        in_text = [self.text_fields.index(name) for name in common]
        in_table = [self.table_fields.index(name) for name in common]
        table = torch.zeros(rows, len(self.table_fields), dtype=torch.bool)
        tokens = []
        for batch in batches:
            chosen = torch.zeros(len(batch.input_ids), len(self.text_fields), dtype=torch.bool)
            chosen[:, in_text] = draw_field_mask(len(chosen), len(common), self.ratio, generator)
            present = torch.zeros(len(self.text_fields), dtype=torch.bool)  # fields of this segment
            present[batch.field_ids[batch.field_ids >= 0]] = True
            hidden = self._limit(masked_tokens(batch.field_ids, chosen), generator)
            tokens.append(hidden)
            table[:, in_table] |= (chosen & present & hidden.any(1, keepdim=True))[batch.row][:, in_text]
        return Masks(tokens, table)
