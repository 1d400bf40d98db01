"""What an objective of alignment is, and what it sees of a batch: the table and the texts, each complete and masked."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn
from typing_extensions import Self

from recbole_alt.data.masking import Masks
from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.model.attention import SegmentStates, take_rows
from recbole_alt.model.backbones import Backbone, CTROutput
from recbole_alt.model.text_tower import TextTower

#: What an objective can read; names of attributes of :class:`Views`.
View = Literal["complete_table", "masked_table", "complete_texts", "masked_texts"]


@dataclass
class MaskedTexts:
    """The M texts of one segment in which something is masked."""

    batch: SegmentBatch  # these texts without a mask; its row is empty
    where: Tensor  # bool [M, L], the tokens that are masked
    input_ids: Tensor  # [M, L], with the mask token in their place
    states: Tensor = field(init=False)  # [P, H] at the P masked positions, text by text from left to right


@dataclass
class Views:
    """A batch of B interactions as the two towers represent it; only those views exist that some objective reads."""

    interaction: Interaction
    backbone: Backbone
    text: TextTower
    rows: Tensor  # [n] whose complete table was read, ascending
    table_mask: Tensor  # bool [B, F], the fields hidden in the masked table
    tables: dict[View, CTROutput]
    complete_texts: Sequence[SegmentStates]  # of each segment
    masked_texts: Sequence[MaskedTexts]  # of each segment in which something is masked

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

    def distinct_texts(self, rows: int) -> Tensor:
        """A number [rows] for the complete texts of each of the batch's first rows, equal where all of them are."""
        texts = torch.stack([segment.row[:rows] for segment in self.complete_texts], dim=1)
        return texts.unique(dim=0, return_inverse=True)[1]

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


class Objective(nn.Module, ABC):
    """A loss of alignment and its heads; it holds no tower.

    A new objective is a file with a subclass, and its line in :data:`recbole_alt.key_table.OBJECTIVES`. Its ``forward``
    takes tensors and returns what :meth:`measure` does.

    Attributes:
        reads: the views it needs; a view that no objective names is never computed.
    """

    reads: ClassVar[frozenset[View]]

    @classmethod
    @abstractmethod
    def build(cls, config: Any, backbone: Backbone, text: TextTower, dataset: Any) -> Self:
        """Make the objective that ``config`` describes, for these towers and the built training ``dataset``."""

    def rows(self, every: Tensor, masked: Sequence[MaskedTexts]) -> Tensor:
        """The rows whose complete table it reads, if it reads any, of ``every`` row [B] of a batch; by default all."""
        return every

    @abstractmethod
    def measure(self, views: Views) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, a scalar, and metrics by name."""
