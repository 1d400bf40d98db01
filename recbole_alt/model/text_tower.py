"""The language side: the language model over all texts of a row, and their states brought together."""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.model.attention import SegmentStates, take_rows
from recbole_alt.model.language import LanguageModel


class TextTower(nn.Module):
    """The language model over all segments of a row.

    With one segment the row's pooled state is that text's. With several (``prompt_scope: entity``) the pooled states
    meet in a small network: ``Linear→GELU→Linear`` of ``[h_1; …; h_S; h_1 ⊙ … ⊙ h_S]``, added to their mean.
    """

    def __init__(self, language_model: LanguageModel, n_segments: int):
        super().__init__()
        self.language_model = language_model
        self.hidden_size = size = language_model.hidden_size
        self.fusion: nn.Sequential | None = None
        if n_segments > 1:
            self.fusion = nn.Sequential(nn.Linear((n_segments + 1) * size, size), nn.GELU(), nn.Linear(size, size))

    def forward(self, batches: Sequence[SegmentBatch]) -> list[SegmentStates]:
        """The states of every segment; each distinct text is encoded once."""
        encoded = self.language_model.encode([batch.encoder_input for batch in batches])
        return self.gather(batches, encoded)

    @staticmethod
    def gather(batches: Sequence[SegmentBatch], encoded: Sequence[tuple[Tensor, Tensor]]) -> list[SegmentStates]:
        """The states of every segment, from its token states [N, L, H] and pooled states [N, H]."""
        return [
            SegmentStates(states, batch.attention_mask, pooled, batch.row)
            for batch, (states, pooled) in zip(batches, encoded, strict=True)
        ]

    def fuse(self, rows: Sequence[Tensor]) -> Tensor:
        """The pooled state of every interaction from those of its texts: S × [B, H] → [B, H]."""
        if self.fusion is None:
            return rows[0]
        stacked = torch.stack(list(rows))
        return stacked.mean(0) + self.fusion(torch.cat([*rows, stacked.prod(0)], dim=-1))

    def score(self, texts: Sequence[tuple[Tensor, Tensor]], head: nn.Linear) -> Tensor:
        """``head(self.fuse(...))``, [B], for less: what is linear in one text's state is computed once per text.

        Args:
            texts: per segment the pooled states [N, H] of its distinct texts, and the text of each interaction [B].
            head: ``H → 1``.
        """
        if self.fusion is None:
            ((states, row),) = texts
            return take_rows(head(states), row).squeeze(-1)
        first: nn.Linear = self.fusion[0]  # type: ignore[assignment]
        last: nn.Linear = self.fusion[2]  # type: ignore[assignment]
        *of_texts, of_product = first.weight.split(self.hidden_size, dim=1)
        product = reduce(torch.mul, [take_rows(states, row) for states, row in texts])
        hidden = F.linear(product, of_product, first.bias)
        logits = F.linear(last.bias, head.weight, head.bias)
        for (states, row), weight in zip(texts, of_texts, strict=True):
            hidden = hidden + take_rows(F.linear(states, weight), row)
            logits = logits + take_rows(F.linear(states, head.weight / len(texts)), row).squeeze(-1)
        return logits + F.linear(self.fusion[1](hidden), head.weight @ last.weight).squeeze(-1)
