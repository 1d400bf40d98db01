"""Attention of every interaction over the tokens of its texts, when many interactions share a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class SegmentStates:
    """Token states of one segment's distinct texts.

    Attributes:
        states: [N, L, H].
        attention_mask: [N, L], 0 at padding.
        pooled: [N, H].
        row: [B], the text of each interaction.
    """

    states: Tensor
    attention_mask: Tensor
    pooled: Tensor
    row: Tensor


def take_rows(table: Tensor, row: Tensor) -> Tensor:
    """``table[row]`` [B, ...] for a table [N, ...] read many times over.

    For reading rows more than once with a gradient: on several CPU threads the backward of indexing adds in an order
    that changes from run to run, or is serial; that of ``F.embedding`` is parallel and always the same.
    """
    return F.embedding(row, table.flatten(1)).view(len(row), *table.shape[1:])


def attend(query: Tensor, segments: Sequence[SegmentStates]) -> Tensor:
    """Single-head attention over all tokens of an interaction's texts, padding excluded.

    The states of a text are never copied per interaction: its queries are brought together instead, padded
    to the most any text has, and multiplied with it at once.

    Args:
        query: [B, H].
        segments: the texts.

    Returns:
        [B, H].
    """
    groups = [_Groups(segment.row, len(segment.states)) for segment in segments]
    scores = []
    for group, segment in zip(groups, segments, strict=True):
        score = group.spread(query) @ segment.states.transpose(1, 2) / math.sqrt(query.shape[-1])  # [N, C, L]
        scores.append(group.collect(score.masked_fill(segment.attention_mask.unsqueeze(1) == 0, -torch.inf)))
    shares = torch.cat(scores, dim=1).softmax(-1).split([score.shape[1] for score in scores], dim=1)
    attended = [
        group.collect(group.spread(share) @ segment.states)
        for group, segment, share in zip(groups, segments, shares, strict=True)
    ]
    return torch.stack(attended).sum(0)


class _Groups:
    """Places B rows into an [N, C] grid by the text each belongs to."""

    def __init__(self, row: Tensor, n_texts: int):
        counts = torch.bincount(row, minlength=n_texts)
        self.n_texts, self.most = n_texts, int(counts.max())
        order = row.argsort(stable=True)
        rank = torch.empty_like(row)
        rank[order] = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row[order]]
        self.slot = row * self.most + rank

    def spread(self, x: Tensor) -> Tensor:
        """[B, D] → [N, C, D], zero where a text has fewer than C rows."""
        grid = x.new_zeros(self.n_texts * self.most, x.shape[1]).index_copy(0, self.slot, x)
        return grid.view(self.n_texts, self.most, -1)

    def collect(self, grid: Tensor) -> Tensor:
        """[N, C, D] → [B, D]."""
        return F.embedding(self.slot, grid.flatten(0, 1))
