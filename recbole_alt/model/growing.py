"""Embedding tables with more rows: of the ids of a field, behind those that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recbole_alt.model.backbones import Backbone, embedding_tables
from recbole_alt.model.unseen import rows_of_no_value

#: From the path of a table below the model, and a field's rows of it [n, D], to the rows [m, D] to be added.
NewRows = Callable[[str, Tensor], Tensor]


def rows_by_field(backbone: Backbone, dataset: Any) -> dict[str, dict[nn.Embedding, int]]:
    """Token field → each table that embeds it, and the row of its id 0, which the rows of its other ids follow.

    These are the tables that the model reads, whatever they are called, and those that RecBole's models only have.

    Args:
        dataset: of two rows or more.
    """
    found: dict[str, dict[nn.Embedding, int]] = {}
    for path, part in backbone.model.named_modules():
        if isinstance(part, nn.Embedding) and "token" in path and "token_seq" not in path:
            for name, first in _stacked(backbone.model, path, part.num_embeddings).items():
                found.setdefault(name, {})[part] = first
    for name, rows in rows_of_no_value(backbone, dataset).items():
        found[name] = found.get(name, {}) | dict(rows)
    return found


def _stacked(model: nn.Module, path: str, size: int) -> dict[str, int]:
    """Token field → its first row, if the table at ``path`` is one in which RecBole stacks all those of an owner."""
    names = path.split(".")
    for depth in range(len(names) - 1, -1, -1):
        owner: Any = model.get_submodule(".".join(names[:depth]))
        sizes = list(getattr(owner, "token_field_dims", ()))
        if sum(sizes) == size:
            return {name: sum(sizes[:i]) for i, name in enumerate(owner.token_field_names)}
    return {}


@torch.no_grad()
def grown_state(backbone: Backbone, dataset: Any, new_rows: Mapping[str, NewRows]) -> dict[str, Tensor]:
    """The state of the model of ``backbone`` with more ids, whose other parts stay as they are, to the last bit.

    Args:
        dataset: that the model was built for, with two rows or more.
        new_rows: token field → the rows of its new ids, for each of its tables.

    Returns:
        The state dict of a model of the same class for data with these ids.
    """
    model, by_field = backbone.model, rows_by_field(backbone, dataset)
    grown: dict[Tensor, Tensor] = {}
    for table in embedding_tables(backbone):
        path = next(name for name, part in model.named_modules() if part is table)
        added = []
        for name, rows in new_rows.items():
            if table in by_field.get(name, {}):
                first = by_field[name][table]
                end = first + dataset.num(name)
                added.append((end, rows(path, table.weight[first:end])))
        pieces, start = [], 0
        for end, rows_of_field in sorted(added, key=lambda pair: pair[0]):
            pieces += [table.weight[start:end], rows_of_field.to(table.weight)]
            start = end
        if added:
            grown[table.weight] = torch.cat([*pieces, table.weight[start:]])
    of_parameter = dict(model.named_parameters(remove_duplicate=False))
    return {
        key: grown.get(of_parameter[key], weight) if key in of_parameter else weight
        for key, weight in model.state_dict().items()
    }
