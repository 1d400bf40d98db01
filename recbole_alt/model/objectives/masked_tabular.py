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
from recbole_alt.model.objectives.value_scorer import FieldValues, ValueScorer
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
        self.scorer = ValueScorer([target.counts for target in self.targets], math.log(max(total, 2)))
        self.embeddings = nn.Embedding(total, size)
        nn.init.normal_(self.embeddings.weight, std=size**-0.5)

    @classmethod
    def build(cls, config: Any, backbone: Backbone, text: TextTower, dataset: Any) -> Self:
        """See :meth:`Objective.build`."""
        table = TableTargets(dataset, backbone.fields, bins=config["float_target_bins"])
        loss, n_noise, size = (config[f"masked_tabular_{key}"] for key in ("loss", "noise", "size"))
        sizes = backbone.representation_size, text.hidden_size
        objective = cls(*sizes, table.fields, loss=loss, n_noise=n_noise, size=size)
        objective.table = table
        return objective

    def prepare(self, batch: AlignmentBatch) -> tuple[HiddenValues, list[RowLayout], int]:
        """What is hidden of the target fields, how the rows share the texts of each segment, and the loss's factor."""
        share = Share.of(len(batch.interaction))
        hidden = self.hidden_values(batch.table_mask, self.table.read(batch.interaction), share)
        return hidden, [RowLayout.of(share.take(segment.row)) for segment in batch.complete], share.factor

    def hidden_values(self, mask: Tensor, values: Sequence[Tensor], rows: Share | None = None) -> HiddenValues:
        """Of the true ``values`` of each target field, [B] or [B, S], 0 where missing, those that ``mask`` hides.

        Args:
            mask: bool [B, F].
            values: of each target field.
            rows: those of this process; None for all.
        """
        members = [x if x.dim() == 2 else x.unsqueeze(1) for x in values]  # [B, S]
        masked = [mask[:, target.column].unsqueeze(1) for target in self.targets]
        wanted = [hidden & (x > 0) for hidden, x in zip(masked, members, strict=True)]
        shares = torch.cat([(1 / of_row.sum(1, keepdim=True).clamp(min=1)).expand_as(of_row) for of_row in wanted], 1)
        numbers = torch.cat([x + first for x, first in zip(members, self.scorer.first, strict=True)], 1)
        row, column = torch.cat(wanted, 1).nonzero(as_tuple=True)
        widths = torch.tensor([x.shape[1] for x in members])
        field = torch.arange(len(self.targets)).repeat_interleave(widths)[column]
        weight, begin, end = float(shares[row, column].sum()), 0, len(row)
        whole, first_row = end, 0
        if rows is not None and rows.sizes is not None:
            first_row = rows.rows.start
            begin, end = torch.searchsorted(row, torch.tensor([first_row, rows.rows.stop])).tolist()
        row, column, field = (x[begin:end] for x in (row, column, field))
        by_field = self.loss == "full_softmax"
        own = [(field == i).nonzero().squeeze(1) for i in range(len(self.targets))] if by_field else None
        place = (row - first_row) * len(self.targets) + field
        return HiddenValues(
            place, shares[row, column], weight, FieldValues(numbers[row, column], field, whole, begin, own)
        )

    def measure(
        self, views: Views, prepared: tuple[HiddenValues, list[RowLayout], int]
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
        hidden: HiddenValues,
        layouts: Sequence[RowLayout] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, averaged over the masked values, and metrics; zero, with zero gradient, when nothing is masked.

        Args:
            table: [B, R] representation of the masked table.
            segments: token states of the complete texts.
            hidden: what is to be found.
            layouts: of the segments' rows, where they are known.
        """
        table = self.table_norm(table)
        vectors = self.vectors(torch.cat([table, attend(self.query(table), segments, layouts)], dim=-1))
        with torch.autocast(table.device.type, enabled=False):  # values are scored in 32 bits
            return self._score_values(vectors.float(), hidden)

    def _score_values(self, vectors: Tensor, hidden: HiddenValues) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics from one vector per field [B, T·D]."""
        if not hidden.weight:
            return vectors.sum() * 0, {"value_accuracy": vectors.new_full((), torch.nan)}
        per_field = take_rows(vectors.view(len(vectors) * len(self.targets), -1), hidden.place)
        losses, first = self.scorer.measure(per_field, hidden.values, self.embeddings, self.loss, self.n_noise)
        return hidden.share @ losses / hidden.weight, {"value_accuracy": hidden.share @ first.float() / hidden.weight}


@dataclass
class HiddenValues:
    """The M values that a mask hides in the rows of this process; those of a row's field share weight 1."""

    place: Tensor  # [M] of each value's vector among those of the rows, row by row, field by field
    share: Tensor  # [M]
    weight: float  # the sum of the shares, of all processes
    values: FieldValues
