"""Attention of every interaction over the tokens of its texts, when many interactions share a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class SegmentStates:
    """States of one segment's distinct texts."""

    states: Tensor  # [N, L, H]
    attention_mask: Tensor  # [N, L], 0 at padding
    pooled: Tensor  # [N, H]
    row: Tensor  # [B], the text of each interaction


def take_rows(table: Tensor, row: Tensor) -> Tensor:
    """``table[row]`` [B, ...] for a table [N, ...] read many times over.

    On several CPU threads the backward of indexing is serial or adds in an order that changes from run to run; that of
    ``F.embedding`` is parallel and always the same.
    """
    return F.embedding(row, table.flatten(1)).view(len(row), *table.shape[1:])


class _Permute(torch.autograd.Function):
    """Rows in another order; the backward of indexing does not know that no row comes twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None


def attend(query: Tensor, segments: Sequence[SegmentStates], layouts: Sequence[RowLayout] | None = None) -> Tensor:
    """Single-head attention over all tokens of an interaction's texts, padding excluded.

    The states of a text are never copied per interaction: its queries [B, H] are brought together, and multiplied with
    it at once. ``layouts`` are those of the segments' rows, where they are known already.

    Returns:
        [B, H].
    """
    layouts = layouts or [RowLayout.of(segment.row) for segment in segments]
    grids = [_Grids(segment, layout) for segment, layout in zip(segments, layouts, strict=True)]
    scores = [grid.products(query) / math.sqrt(query.shape[-1]) for grid in grids]
    shares = torch.cat(scores, dim=1).softmax(-1).split([score.shape[1] for score in scores], dim=1)
    return torch.stack([grid.averages(share) for grid, share in zip(grids, shares, strict=True)]).sum(0)


@dataclass
class RowLayout:
    """The rows of a batch laid out by the text each belongs to.

    Texts read by about as many rows (within a factor of two) share a grid [n, C], at most half of which is padding,
    however popular one text is. Rows and texts are put in the grids' order once; a grid's are then slices.
    """

    order: Tensor  # [B] the rows in the grids' order
    place: Tensor  # [B] where each row is in it
    texts: Tensor  # [T] the texts that some row reads, in the grids' order
    slots: list[Tensor]  # for each grid, the cell of each of its rows
    n_texts: list[int]  # n of each grid
    n_rows: list[int]  # the rows of each grid
    most: list[int]  # C of each grid

    @classmethod
    def of(cls, row: Tensor) -> RowLayout:
        """The layout of rows with the texts ``row`` [B]; on a GPU, the caller waits for it."""
        counts = torch.bincount(row)
        bands = torch.frexp(counts.float()).exponent  # 0 for a text that no row reads
        texts = bands.argsort(stable=True)[int((counts == 0).sum()) :]
        position = torch.zeros_like(counts).index_copy(0, texts, torch.arange(len(texts), device=row.device))
        order = position[row].argsort(stable=True)
        place = torch.empty_like(row).index_copy(0, order, torch.arange(len(row), device=row.device))
        of_row = position[row[order]]
        first = counts[texts].cumsum(0) - counts[texts]
        rank = torch.arange(len(row), device=row.device) - first[of_row]
        n_texts = torch.unique_consecutive(bands[texts], return_counts=True)[1].tolist()
        n_rows = [int(part.sum()) for part in counts[texts].split(n_texts)]
        most = [int(part.max()) for part in counts[texts].split(n_texts)]
        begins = [sum(n_texts[:i]) for i in range(len(n_texts))]
        parts = zip(of_row.split(n_rows), rank.split(n_rows), begins, most, strict=True)
        slots = [(number - begin) * most_of + among for number, among, begin, most_of in parts]
        return cls(order, place, texts, slots, n_texts, n_rows, most)


class _Grids:
    """The texts of a segment as their rows read them."""

    def __init__(self, segment: SegmentStates, layout: RowLayout):
        self.layout = layout
        self.states = take_rows(segment.states, layout.texts).split(layout.n_texts)
        self.padding = (segment.attention_mask[layout.texts] == 0).unsqueeze(1).split(layout.n_texts)

    def products(self, query: Tensor) -> Tensor:
        """[B, H] → [B, L], each row's query with each token of its text; −∞ at padding."""
        grids = zip(self._spread(query), self.states, self.padding, strict=True)
        return self._collect([(q @ s.transpose(1, 2)).masked_fill(padding, -torch.inf) for q, s, padding in grids])

    def averages(self, share: Tensor) -> Tensor:
        """[B, L] → [B, H], the states of each row's text weighted by its shares."""
        return self._collect([s @ states for s, states in zip(self._spread(share), self.states, strict=True)])

    def _spread(self, x: Tensor) -> list[Tensor]:
        """[B, D] → per grid [n, C, D], zero where a text has fewer than C rows."""
        layout = self.layout
        parts = _Permute.apply(x, layout.order, layout.place).split(layout.n_rows)
        return [
            x.new_zeros(n * most, x.shape[1]).index_copy(0, slot, part).view(n, most, -1)
            for n, most, slot, part in zip(layout.n_texts, layout.most, layout.slots, parts, strict=True)
        ]

    def _collect(self, grids: list[Tensor]) -> Tensor:
        """Per grid [n, C, D] → [B, D]."""
        layout = self.layout
        parts = [take_rows(grid.flatten(0, 1), slot) for grid, slot in zip(grids, layout.slots, strict=True)]
        return _Permute.apply(torch.cat(parts), layout.place, layout.order)
