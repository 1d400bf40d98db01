"""Instance-level contrastive learning: a row's text and its table, told apart from the batch's others."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.model.backbones import Backbone
from recbole_alt.model.objectives.batch import AlignmentBatch, MaskedTexts
from recbole_alt.model.objectives.objective import Objective, Views
from recbole_alt.model.text_tower import TextTower


class PublishedHead(nn.Module):
    """Linear → GELU → Linear → dropout, residual, LayerNorm (method, alignment, objective 3)."""

    def __init__(self, size: int, out: int, dropout: float = 0.1):
        super().__init__()
        self.first = nn.Linear(size, out)
        self.rest = nn.Sequential(nn.GELU(), nn.Linear(out, out), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, size] → [B, out]."""
        projected = self.first(x)
        return self.norm(projected + self.rest(projected))


class BatchNormHead(nn.Module):
    """BatchNorm → Linear → GELU → Linear, L2-normalised.

    Centring first is what lets the contrast start: a small embedding against a bias, or a pooled state that
    hardly varies, leaves every similarity the same, which is a saddle of the loss.
    """

    def __init__(self, size: int, out: int):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(size), nn.Linear(size, out), nn.GELU(), nn.Linear(out, out))

    def forward(self, x: Tensor) -> Tensor:
        """[B, size] → [B, out] of length 1."""
        return F.normalize(self.layers(x), dim=-1)


#: name in the configuration → head and its temperature where none is given.
HEADS: dict[str, tuple[type[nn.Module], float]] = {
    "batchnorm": (BatchNormHead, 0.07),
    "published": (PublishedHead, 0.7),
}


class ContrastiveObjective(Objective):
    """Symmetric InfoNCE over the batch (method, alignment, objective 3).

    Rows whose texts are the same are positives of one another; see :func:`info_nce`. Reports ``retrieval``: how often a
    row's own text is the nearest of the batch's distinct texts.

    Args:
        table_size: R, width of the CTR representation.
        text_size: H, width of the pooled text state.
        size: width of the projections.
        head: a name of :data:`HEADS`.
        temperature: divides similarities; None takes the head's own.
        max_rows: contrast at most so many rows of a batch, the first ones; None for all.
    """

    reads = frozenset({"complete_table", "complete_texts"})

    def __init__(
        self,
        table_size: int,
        text_size: int,
        *,
        size: int = 128,
        head: str = "batchnorm",
        temperature: float | None = None,
        max_rows: int | None = None,
    ):
        super().__init__()
        kind, own = HEADS[head]
        self.table_head = kind(table_size, size)
        self.text_head = kind(text_size, size)
        self.temperature = own if temperature is None else temperature
        self.max_rows = max_rows

    @classmethod
    def build(cls, config: Any, backbone: Backbone, text: TextTower, dataset: Any) -> Self:
        """See :meth:`Objective.build`."""
        keys = {name: config[f"contrast_{name}"] for name in ("size", "head", "temperature")}
        return cls(backbone.representation_size, text.hidden_size, max_rows=config["contrast_rows"], **keys)

    def rows(self, every: Tensor, masked: Sequence[MaskedTexts]) -> Tensor:
        """The first ``max_rows``."""
        return every[: self.max_rows]

    def prepare(self, batch: AlignmentBatch) -> Tensor | None:
        """:func:`text_numbers` of the contrasted rows; None if no two of them have the same texts."""
        numbers = text_numbers(batch.complete, self.max_rows)
        return None if len(numbers.unique()) == len(numbers) else numbers

    def measure(self, views: Views, prepared: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`Objective.measure`."""
        rows = min(len(views.batch.interaction), self.max_rows or len(views.batch.interaction))
        return self(views.complete_table.representation[:rows], views.pooled(rows), prepared)

    def forward(self, table: Tensor, text: Tensor, number: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics for tables [B, R] and the texts [B, H] of the same rows.

        ``number`` [B] is equal where the texts are; None if all differ.
        """
        table, text = self.table_head(table[: self.max_rows]), self.text_head(text[: self.max_rows])
        same = None if number is None else number[: self.max_rows].unsqueeze(1) == number[: self.max_rows]
        return info_nce(table @ text.T / self.temperature, same)


def text_numbers(segments: Sequence[SegmentBatch], rows: int | None = None) -> Tensor:
    """A number for all texts of each of a batch's first ``rows``, equal where all of them are; None for every row."""
    numbers = torch.zeros_like(segments[0].row[:rows])
    for segment in segments:
        numbers = (numbers * len(segment.lengths) + segment.row[:rows]).unique(return_inverse=True)[1]
    return numbers


def info_nce(similarity: Tensor, same: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Symmetric InfoNCE of the similarities [B, B] of tables with texts; row i of either belongs to row i of the other.

    The target of a row is spread evenly over the rows with the ``same`` text (bool [B, B]; None if all differ), so that
    none of them is a negative. A perfect alignment then reaches the entropy of the targets: 0 for a row whose text no
    other has, the logarithm of their number for rows that share one. Among projections that are exactly equal such
    targets cancel out, and the loss is that of one positive a row; dropout in a head makes them differ.

    ``retrieval`` counts distinct texts: the nearest is the row's own, or one of several at equal similarity.
    """
    if same is None:
        own = torch.arange(len(similarity), device=similarity.device)
        loss = (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
        same = own.unsqueeze(1) == own
    else:
        loss = symmetric_cross_entropy(similarity, same)
    return loss, {"retrieval": hits(similarity, same, 1 / same.sum(0))}


def symmetric_cross_entropy(similarity: Tensor, positive: Tensor) -> Tensor:
    """The mean of both directions' cross-entropy for similarities [N, M]; ``positive`` is bool [N, M].

    The target of a row, and of a column, is spread evenly over its positives; each has at least one.
    """
    target = positive.to(similarity.dtype)
    of_rows = F.cross_entropy(similarity, target / target.sum(1, keepdim=True))
    return (of_rows + F.cross_entropy(similarity.T, target.T / target.T.sum(1, keepdim=True))) / 2


@torch.no_grad()
def hits(similarity: Tensor, positive: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """How often the nearest column of a row is a positive of it; a scalar.

    Args:
        similarity: [N, M].
        positive: bool [N, M].
        weight: [M], what a column counts for where several are equally near: a hit is the positives' share of them.
    """
    nearest = (similarity == similarity.amax(1, keepdim=True)) * weight
    return ((nearest * positive).sum(1) / nearest.sum(1)).mean()
