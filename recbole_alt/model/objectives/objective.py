"""What an objective of alignment is, and what it sees of a batch: the table and the texts, each complete and masked."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from recbole_alt.model.attention import SegmentStates, take_rows
from recbole_alt.model.backbones import Backbone, CTROutput
from recbole_alt.model.objectives.batch import AlignmentBatch, MaskedTexts
from recbole_alt.model.text_tower import TextTower

#: What an objective can read; names of attributes of :class:`Views`.
View = Literal["complete_table", "masked_table", "complete_texts", "masked_texts"]


@dataclass
class Views:
    """A batch of B interactions as the two towers represent it; only those views exist that some objective reads.

    With several processes, the complete table and the complete texts are those of all, and each process has its share
    of the masked table and of the masked texts.
    """

    batch: AlignmentBatch
    backbone: Backbone
    text: TextTower
    tables: dict[View, CTROutput]
    complete_texts: Sequence[SegmentStates]  # of each segment

    @property
    def rows(self) -> Tensor:
        """The rows [n] whose complete table was read, ascending."""
        return self.batch.rows

    @property
    def masked_texts(self) -> Sequence[MaskedTexts]:
        """Of each segment in which something is masked."""
        return self.batch.masked

    @property
    def complete_table(self) -> CTROutput:
        """The CTR model's output for :attr:`rows`: ``representation`` [n, R], ``logits`` [n]."""
        return self.tables["complete_table"]

    @property
    def masked_table(self) -> CTROutput:
        """The CTR model's output for this process's rows of the masked table: ``representation`` [b, R], ``logits``."""
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


class Objective(nn.Module, ABC):
    """A loss of alignment and its heads; it holds no tower.

    A new objective is a file with a subclass, and its line in :data:`recbole_alt.key_table.OBJECTIVES`. Its ``forward``
    takes tensors and returns what :meth:`measure` does. What depends on the data only, such as which positions are
    masked, belongs in :meth:`prepare`: another thread does it while a GPU makes the step before.

    Several processes compute a loss each, whose mean is the loss of the step: a loss of complete tables and texts is
    the same in all, and one of a share of masked ones counts as in :mod:`recbole_alt.processes`.

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

    def prepare(self, batch: AlignmentBatch) -> Any:
        """What :meth:`measure` needs to know of a batch, read off it on the CPU, without weights; by default None."""
        return None

    @abstractmethod
    def measure(self, views: Views, prepared: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and metrics by name, all scalars; ``prepared`` is what :meth:`prepare` found."""
