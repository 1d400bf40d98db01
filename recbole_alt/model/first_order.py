"""The first-order terms RecBole's models add up, one per field, before they are added."""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor


def first_order_terms(layer: Any, interaction: Interaction) -> Tensor:
    """What each field adds to a logistic regression, [B, F].

    Their sum and ``layer.bias`` are what ``layer`` returns.

    Args:
        layer: RecBole's ``FMFirstOrderLinear`` (``recbole/model/layers.py``).
        interaction: [B] rows.
    """
    terms: list[Tensor] = []
    if layer.token_field_names:
        ids = torch.stack([interaction[name] for name in layer.token_field_names], 1)
        terms.append(layer.token_embedding_table(ids).squeeze(-1))
    for i, name in enumerate(layer.token_seq_field_names):
        ids = interaction[name]
        terms.append((layer.token_seq_embedding_table[i](ids).squeeze(-1) * (ids != 0)).sum(1, keepdim=True))
    if layer.float_field_names:
        values = [interaction[name] for name in layer.float_field_names]
        stacked = torch.cat([value if value.dim() == 3 else value.unsqueeze(1) for value in values], 1)
        terms.append(layer.float_embedding_table(stacked).squeeze(-1))
    for i, name in enumerate(layer.float_seq_field_names):
        value, row = interaction[name].unbind(-1)
        present = row != 0
        weighted = value * layer.float_seq_embedding_table[i](row.long()).squeeze(-1) * present
        terms.append(weighted.sum(1, keepdim=True) / (present.sum(1, keepdim=True) + 1e-8))
    return torch.cat(terms, 1)
