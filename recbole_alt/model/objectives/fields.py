"""What objectives about single fields share: which fields, and which of their values belong to which texts of a batch.

Similar texts get similar embeddings if a text is compared with the embeddings themselves, by a linear map of the text.
A deeper head on either side could tell texts apart while the embeddings hardly move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recbole_alt.model.attention import SegmentStates, take_rows
from recbole_alt.model.backbones import Backbone, TableField
from recbole_alt.model.field_tables import field_tables, read_values
from recbole_alt.model.objectives.batch import AlignmentBatch


@dataclass(frozen=True)
class AlignedField:
    """A field of the CTR model, and the text that describes what it belongs to: the user, the item or the row."""

    field: TableField
    segment: int  # which of the prompt's segments
    width: int  # E, of its values' embeddings

    @property
    def name(self) -> str:
        """Of the field."""
        return self.field.name


@dataclass
class ValuesAndTexts:
    """The V distinct values of a field in a batch, the T distinct texts of which each has one of them, and P pairs."""

    values: Tensor  # [V], ascending
    texts: Tensor  # [T] which of the segment's, ascending
    value: Tensor  # [P] the value of each pair that some row has, among the V
    text: Tensor  # [P] and its text, among the T, ascending

    @classmethod
    def of(cls, batch: AlignmentBatch, aligned: AlignedField, rows: int | None = None) -> ValuesAndTexts:
        """What the batch's first rows hold of a field; the members of a sequence are values of their own."""
        values = read_values(aligned.field, batch.interaction[aligned.name][:rows])
        values = values.view(len(values), -1)
        text = batch.complete[aligned.segment].row[:rows].unsqueeze(1).expand_as(values)
        pairs = torch.stack([text, values], dim=-1)[values > 0].unique(dim=0)
        (texts, text), (distinct, value) = (column.unique(return_inverse=True) for column in pairs.unbind(1))
        return cls(distinct, texts, value, text)

    @property
    def positive(self) -> Tensor:
        """bool [V, T], True where a row has both."""
        positive = torch.zeros(len(self.values), len(self.texts), dtype=torch.bool, device=self.values.device)
        positive[self.value, self.text] = True
        return positive

    def states(self, segment: SegmentStates) -> Tensor:
        """[T, H] the texts' pooled states, less their mean, with a mean square length of 1."""
        return standardised(take_rows(segment.pooled, self.texts))


def aligned_fields(config: Any, backbone: Backbone, dataset: Any) -> list[AlignedField]:
    """The fields that ``aligned_fields`` names, or all whose values have an embedding each, and which have a text.

    Raises:
        ValueError: there is none, or one is named that can't be aligned so.
    """
    tables, segments = field_tables(backbone), [segment.name for segment in dataset.prompts.segments]
    of_side = {name: 0 if config["prompt_scope"] == "interaction" else dataset.side_of(name) for name in tables}
    place = {name: segments.index(side) if side in segments else side for name, side in of_side.items()}
    known = [name for name, segment in place.items() if isinstance(segment, int)]
    if not known:
        raise ValueError(
            "objectives: no field of the CTR model has both embeddings and a text, so leave out field_contrastive and "
            "field_prediction"
        )
    for name in config["aligned_fields"] or ():
        if name not in known:
            raise ValueError(f"aligned_fields: {name!r} must be one of {', '.join(known)}")
    chosen = [name for name in known if name in (config["aligned_fields"] or known)]
    return [AlignedField(tables[name].field, place[name], tables[name].width) for name in chosen]


def standardised(vectors: Tensor) -> Tensor:
    """[N, D] less their mean, divided by one number, so that their mean square length is 1."""
    centred = vectors - vectors.mean(0)
    return centred / centred.square().sum(1).mean().clamp(min=1e-24).sqrt()  # of 0 the root has no gradient


def average(found: Sequence[tuple[Tensor, Tensor]], otherwise: Tensor) -> tuple[Tensor, Tensor]:
    """The means over fields of their losses and accuracies; a loss of ``otherwise`` · 0 if there is no field."""
    if not found:
        return otherwise.sum() * 0, otherwise.new_full((), torch.nan)
    losses, accuracies = zip(*found, strict=True)
    return torch.stack(losses).mean(), torch.stack(accuracies).mean()
