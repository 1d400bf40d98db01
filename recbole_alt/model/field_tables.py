"""Where a CTR model embeds the values of its fields: rows of embedding tables, read without a forward."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_alt.model.backbones import Backbone, TableField
from recbole_alt.model.recording import submodule


@dataclass(frozen=True)
class FieldTable:
    """The embeddings of one field's values: value ``v`` has row ``offset + v`` of each table, side by side."""

    field: TableField
    tables: tuple[nn.Embedding, ...]
    offset: int
    fixed: bool  # True if the model keeps its embeddings as they are

    @property
    def width(self) -> int:
        """E, the length of an embedding."""
        return sum(table.embedding_dim for table in self.tables)

    def __call__(self, values: Tensor) -> Tensor:
        """Embeddings [..., E] of values [...], with a gradient into the tables."""
        found = torch.cat([table(values + self.offset) for table in self.tables], dim=-1)  # hooks may add to it
        return found.detach() if self.fixed else found


def field_tables(backbone: Backbone) -> dict[str, FieldTable]:
    """The embeddings of every field whose values have one each, by the field's name.

    Numbers that are not put into bins share a single embedding; they, and sequences of numbers, are left out.
    """
    owner = submodule(backbone.model, backbone.captures.tables)
    fixed = backbone.captures.field_embeddings is not None and backbone.captures.field_embeddings.reduce == "fixed"
    found = {}
    for kind in ("token", "token_seq", "float"):
        offset = 0
        for i, field in enumerate(field for field in backbone.fields if field.kind == kind):
            if kind != "float" or field.size > 2:
                found[field.name] = FieldTable(field, _tables(owner, field, i), offset, fixed)
            offset += field.size if kind != "token_seq" else 0
    return found


def _tables(owner: Any, field: TableField, i: int) -> tuple[nn.Embedding, ...]:
    """The tables of ``field``, the ``i``-th of its kind (source: RecBole's ``ContextRecommender`` and ``FFM``)."""
    of_groups = getattr(owner, f"{field.kind}_embeddings", None)
    if of_groups is not None:  # of FFM: one for each group of fields that this one meets; sequences share theirs
        met = {owner.feature2field[number] for name, number in owner.feature2id.items() if name != field.name}
        tables = (of_groups[group] for group in sorted(met))
        return tuple(dict.fromkeys(table if isinstance(table, nn.Embedding) else table[i] for table in tables))
    table = getattr(owner, f"{field.kind}_embedding_table")
    return (table[i] if field.kind == "token_seq" else table.embedding,)


def read_values(field: TableField, column: Tensor) -> Tensor:
    """The values of a column of such a field: [B], or [B, S] of a sequence; 0 is missing, or padding."""
    return column[..., 1].long() if field.kind == "float" else column
