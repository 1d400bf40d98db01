"""A batch as a step of alignment reads it: all that follows from rows, texts and masks, and from no weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_alt import processes
from recbole_alt.data.masking import Masks
from recbole_alt.data.moving import moved
from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.model.encoding import token_bytes


@dataclass
class MaskedTexts:
    """The M texts of one segment in which something is masked, in P positions, text by text from left to right."""

    batch: SegmentBatch  # these texts without a mask; its row is empty
    input_ids: Tensor  # [M, L], with the mask token in the place of what is masked
    text: Tensor  # [P] the text of each masked position
    position: Tensor  # [P] its place among the M · L of all texts
    number: Tensor  # [P] its number among the masked positions of the step, those of all segments and processes
    states: Tensor = field(init=False)  # [P, H] of the masked texts, set when they are encoded

    @property
    def encoder_input(self) -> tuple[Tensor, Tensor, Any]:
        """See :attr:`SegmentBatch.encoder_input`."""
        return self.input_ids, self.batch.attention_mask, self.batch.lengths

    @property
    def masked_ids(self) -> Tensor:
        """[P] the token ids that the masks hide."""
        return self.batch.input_ids.flatten()[self.position]


@dataclass
class AlignmentBatch:
    """B interactions, the texts they need, and what is hidden of either."""

    interaction: Interaction
    rows: Tensor  # [n] whose complete table is read, ascending
    table_mask: Tensor  # bool [B, F], the fields hidden in the masked table
    complete: list[SegmentBatch]  # the texts of each segment; empty if no objective reads them
    masked: list[MaskedTexts]  # of each segment in which something is masked; likewise; this process's share
    masked_count: int  # masked positions of the step, in all processes together
    prepared: dict[str, Any] = field(default_factory=dict)  # objective → what it read off the batch beforehand
    text_keys: TextKeys | None = None  # where the states of texts are kept

    def to(self, device: torch.device) -> AlignmentBatch:
        """The same batch with its tensors on ``device``."""
        return moved(self, device)


@dataclass
class TextKeys:
    """What the texts of a batch are known by, where their states are kept; see :func:`token_bytes`."""

    complete: list[list[bytes]]  # of each segment
    masked: list[list[bytes]]  # likewise

    @classmethod
    def of(cls, complete: Sequence[SegmentBatch], masked: Sequence[MaskedTexts]) -> TextKeys:
        """Those of the texts of a batch on the CPU."""
        return cls(*([token_bytes(*texts.encoder_input) for texts in of_kind] for of_kind in (complete, masked)))


def mask_texts(
    batches: Sequence[SegmentBatch], masks: Masks, mask_id: int, *, shared: bool = False
) -> list[MaskedTexts]:
    """The texts of each segment in which something is masked, without states; a segment without any is left out.

    If they are ``shared``, each process has its share of them.
    """
    texts, before = [], 0
    for batch, hidden in zip(batches, masks.tokens, strict=True):
        chosen = hidden.any(1).nonzero().squeeze(1)
        share = processes.Share.of(len(chosen), least=0) if shared else processes.Share(len(chosen))
        own = share.take(chosen)
        if len(own):
            some = batch.select(own)
            where = hidden[own, : some.input_ids.shape[1]]
            input_ids, position = some.input_ids.masked_fill(where, mask_id), where.flatten().nonzero().squeeze(1)
            number = torch.arange(len(position)) + before + hidden[chosen[: share.rows.start]].sum()
            texts.append(MaskedTexts(some, input_ids, position // where.shape[1], position, number))
        before += int(hidden.sum())
    return texts
