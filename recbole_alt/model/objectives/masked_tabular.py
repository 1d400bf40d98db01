"""Masked tabular modelling with language help: a masked feature is found again from the rest and the text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from recbole_alt.model.attention import RowLayout, SegmentStates, attend, take_rows
from recbole_alt.model.backbones import Backbone
from recbole_alt.model.objectives.batch import AlignmentBatch
from recbole_alt.model.objectives.objective import Objective, Views
from recbole_alt.model.objectives.value_scorer import Draws, ValueScorer
from recbole_alt.model.targets import TableTargets, TargetField
from recbole_alt.model.text_tower import TextTower
from recbole_alt.processes import Share


class MaskedTabularObjective(Objective):
    """The masked table asks the complete text (method, alignment, objective 2).

    ``v̂`` is the query, ``Linear(R → H)`` + LayerNorm, of one attention head over the token states;
    ``[v̂ ; attended]`` → ``Linear`` → one vector per field, which scores the field's values. ``v̂`` passes a
    LayerNorm first: its scale differs by orders of magnitude between CTR models, that of token states does not.
    Reports ``value_accuracy``: how often the true value outscores all it is compared with.

    Args:
        table_size: R, width of the CTR representation.
        text_size: H, width of the token states.
        targets: the fields to predict.
        loss: ``nce`` (noise-contrastive estimation), ``sampled_softmax`` or ``full_softmax``.
        n_noise: noise values per masked field, from the field's unigram distribution.
        size: width of the output embeddings.
    """

    reads = frozenset({"masked_table", "complete_texts"})
    table: TableTargets  # reads the true values off a batch

    def __init__(
        self,
        table_size: int,
        text_size: int,
        targets: Sequence[TargetField],
        *,
        loss: str = "nce",
        n_noise: int = 25,
        size: int = 32,
    ):
        super().__init__()
        self.targets = list(targets)
        self.loss, self.n_noise = loss, n_noise
        self.table_norm = nn.LayerNorm(table_size)
        self.query = nn.Sequential(nn.Linear(table_size, text_size), nn.LayerNorm(text_size))
        self.vectors = nn.Linear(table_size + text_size, len(self.targets) * size)
        total = sum(len(target.counts) for target in self.targets)
        self.norm_term = math.log(max(total, 2))
        self.values = nn.ModuleList(_OwnScorer(t.counts, size, self.norm_term) for t in self.targets)

    @classmethod
    def build(cls, config: Any, backbone: Backbone, text: TextTower, dataset: Any) -> Self:
        """See :meth:`Objective.build`."""
        table = TableTargets(dataset, backbone.fields, bins=config["float_target_bins"])
        loss, n_noise, size = (config[f"masked_tabular_{key}"] for key in ("loss", "noise", "size"))
        sizes = backbone.representation_size, text.hidden_size
        objective = cls(*sizes, table.fields, loss=loss, n_noise=n_noise, size=size)
        objective.table = table
        return objective

    def prepare(self, batch: AlignmentBatch) -> tuple[list[HiddenValues], list[RowLayout], int]:
        """What is hidden of each target field, how the rows share the texts of each segment, and the loss's factor."""
        share = Share.of(len(batch.interaction))
        hidden = self.hidden_values(batch.table_mask, self.table.read(batch.interaction), share)
        return hidden, [RowLayout.of(share.take(segment.row)) for segment in batch.complete], share.factor

    def hidden_values(self, mask: Tensor, values: Sequence[Tensor], share: Share | None = None) -> list[HiddenValues]:
        """Of each target field with true values [B] or [B, S], those that ``mask``, bool [B, F], hides."""
        columns = [target.column for target in self.targets]
        return [HiddenValues.of(of_field, mask[:, i], share) for of_field, i in zip(values, columns, strict=True)]

    def measure(
        self, views: Views, prepared: tuple[list[HiddenValues], list[RowLayout], int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`Objective.measure`."""
        hidden, layouts, factor = prepared
        with views.autocast():
            loss, metrics = self(views.masked_table.representation, views.complete_texts, hidden, layouts)
        return (loss, metrics) if factor == 1 else (loss * factor, {name: x * factor for name, x in metrics.items()})

    def forward(
        self,
        table: Tensor,
        segments: Sequence[SegmentStates],
        hidden: Sequence[HiddenValues],
        layouts: Sequence[RowLayout] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, averaged over the masked values, and metrics; zero, with zero gradient, when nothing is masked.

        Args:
            table: [B, R] representation of the masked table.
            segments: token states of the complete texts.
            hidden: of each target field.
            layouts: of the segments' rows, where they are known.
        """
        table = self.table_norm(table)
        vectors = self.vectors(torch.cat([table, attend(self.query(table), segments, layouts)], dim=-1))
        with torch.autocast(table.device.type, enabled=False):  # values are scored in 32 bits
            return self._score_values(vectors.float(), hidden)

    def _score_values(self, vectors: Tensor, hidden: Sequence[HiddenValues]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics from one vector per field [B, T·D]."""
        per_field = vectors.view(len(vectors), len(self.targets), -1)
        weight = sum(values.weight for values in hidden)
        total, hits = vectors.sum() * 0, vectors.new_full((), 0.0 if weight else torch.nan)
        for i, (values, scorer) in enumerate(zip(hidden, self.values, strict=True)):
            if values.weight:
                vector = take_rows(per_field[:, i], values.row)
                loss, first = scorer(vector, values.value, self.loss, self.n_noise, values.draws)
                total = total + (values.share * loss).sum()
                hits = hits + values.share @ first.float()
        return total / max(weight, 1.0), {"value_accuracy": hits / max(weight, 1.0)}


@dataclass
class HiddenValues:
    """The M values of a field that a mask hides in the rows of this process; those of a row share weight 1."""

    row: Tensor  # [M]
    value: Tensor  # [M]
    share: Tensor  # [M]
    weight: float  # the sum of the shares, of all processes
    draws: Draws  # where these values are among those of all processes

    @classmethod
    def of(cls, values: Tensor, masked: Tensor, rows: Share | None = None) -> HiddenValues:
        """Of the true values [B] or [B, S], 0 where missing, those in the ``masked`` rows, bool [B].

        ``rows`` are those of this process; None for all.
        """
        members = values if values.dim() == 2 else values.unsqueeze(1)  # [B, S]
        wanted = masked.unsqueeze(1) & (members > 0)
        row, position = wanted.nonzero(as_tuple=True)
        share = (1.0 / wanted.sum(1).clamp(min=1))[row]
        weight, value = float(share.sum()), members[row, position]
        if rows is None or rows.sizes is None:
            return cls(row, value, share, weight, Draws(len(row)))
        first, behind = rows.rows.start, rows.rows.stop
        begin, end = torch.searchsorted(row, torch.tensor([first, behind])).tolist()
        draws = Draws(len(row), begin)
        return cls(row[begin:end] - first, value[begin:end], share[begin:end], weight, draws)


class _OwnScorer(ValueScorer):
    """Scores values by output embeddings of its own."""

    def __init__(self, counts: Tensor, size: int, norm_term: float):
        super().__init__(counts, norm_term)
        self.embedding = nn.Embedding(len(counts), size)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)

    def forward(
        self, vector: Tensor, value: Tensor, loss: str, n_noise: int, draws: Draws | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`ValueScorer.measure`."""
        return self.measure(vector, value, self.embedding, loss, n_noise, draws)
