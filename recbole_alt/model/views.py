"""What a step of alignment sees of its batch: the table and the texts, each complete and masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_alt.data.masking import Masks
from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.model.attention import SegmentStates, take_rows
from recbole_alt.model.backbones import CTROutput
from recbole_alt.model.text_tower import TextTower

#: What an objective can read; names of attributes of :class:`Views`.
View = Literal["complete_table", "masked_table", "complete_texts", "masked_texts"]


@dataclass
class MaskedTexts:
    """The M texts of one segment in which something is masked.

    Attributes:
        batch: these texts without a mask; its ``row`` is empty.
        where: bool [M, L], the tokens that are masked.
        input_ids: [M, L] token ids with the mask token in their place.
        states: [P, H] states of the language model at the P masked positions, text by text from left to right.
    """

    batch: SegmentBatch
    where: Tensor
    input_ids: Tensor
    states: Tensor = field(init=False)


@dataclass
class Views:
    """A batch of B interactions as the two towers represent it; only those views exist that some objective reads.

    Attributes:
        interaction: the batch.
        text: the language side.
        rows: [n] the rows whose complete table was read, ascending.
        table_mask: bool [B, F], the fields hidden in the masked table.
        tables: the outputs of the CTR model by view.
        complete_texts: the states of the distinct texts of each segment.
        masked_texts: the masked texts of each segment that has some.
    """

    interaction: Interaction
    text: TextTower
    rows: Tensor
    table_mask: Tensor
    tables: dict[View, CTROutput]
    complete_texts: Sequence[SegmentStates]
    masked_texts: Sequence[MaskedTexts]

    @property
    def complete_table(self) -> CTROutput:
        """The CTR model's output for :attr:`rows`: ``representation`` [n, R], ``logits`` [n]."""
        return self.tables["complete_table"]

    @property
    def masked_table(self) -> CTROutput:
        """The CTR model's output for the masked table: ``representation`` [B, R], ``logits`` [B]."""
        return self.tables["masked_table"]

    def representations(self, row: Tensor) -> Tensor:
        """Representations [M, R] of the complete table in the rows [M], which must be among :attr:`rows`."""
        return take_rows(self.complete_table.representation, torch.searchsorted(self.rows, row))

    def pooled(self, rows: int) -> Tensor:
        """Pooled states [rows, H] of the complete texts of the batch's first rows."""
        return self.text.fuse([take_rows(segment.pooled, segment.row[:rows]) for segment in self.complete_texts])

    def autocast(self) -> torch.autocast:
        """Computes in the language model's precision."""
        return self.text.language_model.autocast(self.rows.device)


def mask_texts(batches: Sequence[SegmentBatch], masks: Masks, mask_id: int) -> list[MaskedTexts]:
    """The texts of each segment in which something is masked, without states; a segment without any is left out."""
    texts = []
    for batch, hidden in zip(batches, masks.tokens, strict=True):
        hidden = hidden.to(batch.input_ids.device)
        chosen = hidden.any(1).nonzero().squeeze(1)
        if len(chosen):
            some = batch.select(chosen)
            where = hidden[chosen, : some.input_ids.shape[1]]
            texts.append(MaskedTexts(some, where, some.input_ids.masked_fill(where, mask_id)))
    return texts
