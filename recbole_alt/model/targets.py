"""What a masked table field's true value is: an id, the ids of a sequence, or the bin of a number."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recbole_alt.model.backbones import TableField


@dataclass(frozen=True)
class TargetField:
    """A table field whose masked values are to be found again."""

    name: str
    column: int  # of the field mask
    counts: Tensor  # [V] how often each value occurs in training rows; value 0 (missing) is never a target


class TableTargets:
    """Reads the targets of masked tabular modelling off a batch; learned from the training dataset.

    Token fields are their own targets and a sequence's members share one unit of weight. A number is
    predicted as one of at most ``bins`` quantile bins of the training rows, or as its bucket where RecBole
    discretises it. ``float_seq`` fields are masked but never targets: a sequence of numbers has no finite set
    of values, and RecBole's models only see its mean.
    """

    def __init__(self, dataset: Any, fields: tuple[TableField, ...], *, bins: int = 20):
        self._edges: dict[str, Tensor] = {}
        self._fields = [field for field in fields if field.kind != "float_seq"]
        self.fields: list[TargetField] = []
        for field in self._fields:
            size, column = field.size, dataset.column(field.name)
            if field.kind == "float" and size == 2:  # not discretised: the value itself, always in row 1
                quantiles = torch.linspace(0, 1, bins + 1)[1:-1]
                self._edges[field.name] = torch.quantile(_thinned(column[..., 0].float()), quantiles).unique()
                size = len(self._edges[field.name]) + 2
            counts = torch.bincount(self._read(column, field).flatten(), minlength=size)
            self.fields.append(TargetField(field.name, fields.index(field), counts))

    def read(self, interaction: Any) -> list[Tensor]:
        """Per target field, [B] or [B, S] true values; 0 is missing."""
        return [self._read(interaction[field.name], field) for field in self._fields]

    def _read(self, column: Tensor, field: TableField) -> Tensor:
        if field.kind != "float":
            return column
        edges = self._edges.get(field.name)
        if edges is None:
            return column[..., 1].long()
        return torch.bucketize(column[..., 0].contiguous(), edges.to(column.device), right=True) + 1


def _thinned(values: Tensor, most: int = 1_000_000) -> Tensor:
    """At most ``most`` values, evenly spaced: :func:`torch.quantile` takes no more than 16 million."""
    return values[:: max(1, -(-len(values) // most))]
