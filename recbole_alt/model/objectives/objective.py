"""What every objective of alignment has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from recbole_alt.model.backbones import Backbone
from recbole_alt.model.text_tower import TextTower
from recbole_alt.model.views import MaskedTexts, View, Views


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
        """The loss of a batch, a scalar, and accuracies to report by name."""
