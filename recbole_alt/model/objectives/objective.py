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
        """Make the objective a configuration describes.

        Args:
            config: the keys of the run.
            backbone: the CTR model, for its fields and the size of its representation.
            text: the language side, for the size of its states.
            dataset: the built training dataset.
        """

    def rows(self, every: Tensor, masked: Sequence[MaskedTexts]) -> Tensor:
        """The rows whose complete table it reads, if it reads any; all of them by default.

        Args:
            every: [B] the numbers of all rows of the batch.
            masked: the batch's masked texts.
        """
        return every

    @abstractmethod
    def measure(self, views: Views) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, a scalar, and accuracies to report by name."""
