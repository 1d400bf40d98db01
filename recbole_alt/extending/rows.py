"""What the embedding tables hold of new ids: what their texts say, and what stands for values that are new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

#: Divides cosines before their softmax: of two neighbours, the one whose cosine is .1 higher weighs 2.7 times as much.
TEMPERATURE = 0.1


@dataclass
class EmbeddingsFromTexts:
    """The embeddings of new users, or of new items, by the vectors of their texts; see :meth:`__call__`.

    Args:
        vectors: of the texts, [n + m, K], by id; those of the m new ids are last.
        known: the ids that training rows have.
        neighbours: how many of them are asked.
        maps: path of a table → the map [D, K] of the vectors into its embeddings, where the side is grounded.

    Attributes:
        by_map, by_neighbours: the tables whose new rows were made either way, by path.
    """

    vectors: Tensor
    known: Tensor
    neighbours: int
    maps: Mapping[str, Tensor]
    by_map: list[str] = field(default_factory=list)
    by_neighbours: list[str] = field(default_factory=list)

    def __call__(self, path: str, embeddings: Tensor) -> Tensor:
        """The new rows [m, D] of the table at ``path``, of which the run has the rows ``embeddings`` [n, D].

        By its map, ``M · v``: the free part is zero, as that of a known id without training rows. Else the mean of the
        rows of the nearest known ids in text, weighted by the softmax of ``cosine / TEMPERATURE``.
        """
        new = self.vectors[len(embeddings) :]
        if path in self.maps:
            self.by_map.append(path)
            return F.linear(new, self.maps[path].to(new))
        self.by_neighbours.append(path)
        ids, weights = nearest(new, self.vectors[self.known], self.neighbours)
        return torch.einsum("mk,mkd->md", weights, embeddings.cpu()[self.known[ids]])


def nearest(vectors: Tensor, known: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of each of ``vectors`` [m, K] the ``k`` of the ``known`` [n, K] with the highest cosine, and weights, [m, k].

    The weights of a row add up to 1. There are fewer columns where fewer are known.
    """
    cosines = F.normalize(vectors, dim=1) @ F.normalize(known, dim=1).T
    found = cosines.topk(min(k, len(known)), dim=1)
    return found.indices, (found.values / TEMPERATURE).softmax(1)


@dataclass(frozen=True)
class RowsOfNoValue:
    """The rows of ``count`` values that are new to a field: zeros if ``unseen_values`` is ``zero``, else as missing."""

    unseen_values: str
    count: int

    def __call__(self, _: str, embeddings: Tensor) -> Tensor:
        """The new rows [count, D] of a table with the rows ``embeddings`` [n, D]."""
        row = torch.zeros_like(embeddings[:1]) if self.unseen_values == "zero" else embeddings[:1]
        return row.expand(self.count, -1)
