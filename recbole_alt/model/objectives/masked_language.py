"""Masked language modelling with tabular help: a masked value is read from its context and the whole table."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedLanguageObjective(nn.Module):
    """Cross-entropy on masked positions, from ``[token state ; v]`` (method, stage 1, objective 1).

    ``Linear(H+R → H)``, tanh, dropout, ``Linear → classes``; ``v`` passes a LayerNorm first, since its scale
    differs by orders of magnitude between CTR models. The classes are the tokens that some prompt's
    value can contain: no other token is ever behind a mask.

    Args:
        text_size: H, width of the token states.
        table_size: R, width of the CTR representation.
        token_ids: [C] distinct token ids the classes stand for.
        dropout: dropout probability.
    """

    def __init__(self, text_size: int, table_size: int, token_ids: Tensor, *, dropout: float = 0.2):
        super().__init__()
        self.token_ids: Tensor
        self.register_buffer("token_ids", token_ids.long().sort().values, persistent=False)
        self.table_norm = nn.LayerNorm(table_size)
        self.layers = nn.Sequential(
            nn.Linear(text_size + table_size, text_size),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(text_size, len(token_ids)),
        )

    def forward(self, states: Tensor, table: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss and report over M masked positions; zero, with zero gradient, when M is 0.

        The layers may run under autocast; the loss is in 32 bits.

        Args:
            states: [M, H] states of the masked text at masked positions.
            table: [M, R] representation of the complete table of each position's row.
            target: [M] the token ids that were masked.
        """
        if not len(target):
            return (states.sum() + table.sum()) * 0, {"token_accuracy": float("nan")}
        logits = self.layers(torch.cat([states, self.table_norm(table)], dim=-1)).float()
        classes = torch.searchsorted(self.token_ids, target)
        accuracy = (logits.detach().argmax(-1) == classes).float().mean()
        with torch.autocast(logits.device.type, enabled=False):
            return F.cross_entropy(logits, classes), {"token_accuracy": accuracy.item()}
