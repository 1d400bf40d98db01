"""What objectives about single fields share: which fields, and which of their values belong to which texts of a batch.

Similar texts get similar embeddings if a text is compared with the embeddings themselves, by a linear map of the text.
A deeper head on either side could tell texts apart while the embeddings hardly move.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recbole_alt.model.attention import take_rows
from recbole_alt.model.backbones import Backbone
from recbole_alt.model.field_tables import FieldTable, field_tables, read_values
from recbole_alt.model.objectives.objective import Views


@dataclass(frozen=True)
class AlignedField:
    """A field of the CTR model, and the text that describes what it belongs to: the user, the item or the row."""

    name: str
    segment: int  # which of the prompt's segments
    size: int  # distinct values, [PAD] included
    width: int  # E, of their embeddings


@dataclass(frozen=True)
class ValuesAndTexts:
    """The V distinct values of a field in a batch, and the T distinct texts of which each has one of them."""

    values: Tensor  # [V], ascending
    texts: Tensor  # [T, H] pooled states, less their mean, with a mean square length of 1
    positive: Tensor  # bool [V, T], True where a row has both


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
    return [AlignedField(name, place[name], tables[name].field.size, tables[name].width) for name in chosen]


def values_and_texts(views: Views, table: FieldTable, segment: int, rows: int) -> ValuesAndTexts:
    """What the batch's first rows hold of a field; the members of a sequence are values of their own."""
    texts = views.complete_texts[segment]
    values = read_values(table.field, views.interaction[table.field.name][:rows]).view(rows, -1)
    text = texts.row[:rows].unsqueeze(1).expand_as(values)
    pairs = torch.stack([values, text], dim=-1)[values > 0].unique(dim=0)
    (distinct, value), (which, text) = (column.unique(return_inverse=True) for column in pairs.unbind(1))
    positive = torch.zeros(len(distinct), len(which), dtype=torch.bool, device=values.device)
    positive[value, text] = True
    return ValuesAndTexts(distinct, standardised(take_rows(texts.pooled, which)), positive)


def standardised(vectors: Tensor) -> Tensor:
    """[N, D] less their mean, divided by one number, so that their mean square length is 1."""
    centred = vectors - vectors.mean(0)
    return centred / centred.square().sum(1).mean().sqrt().clamp(min=1e-12)


def average(found: Sequence[tuple[Tensor, Tensor]], otherwise: Tensor) -> tuple[Tensor, float]:
    """The means over fields of their losses and accuracies; a loss of ``otherwise`` · 0 if there is no field."""
    if not found:
        return otherwise.sum() * 0, float("nan")
    losses, accuracies = zip(*found, strict=True)
    return torch.stack(losses).mean(), torch.stack(accuracies).mean().item()
