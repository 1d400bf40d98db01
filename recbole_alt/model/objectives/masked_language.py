"""Masked language modelling with tabular help: a masked value is read from its context and the whole table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from recbole_alt import processes
from recbole_alt.model.attention import take_rows
from recbole_alt.model.backbones import Backbone
from recbole_alt.model.objectives.batch import AlignmentBatch, MaskedTexts
from recbole_alt.model.objectives.objective import Objective, Views
from recbole_alt.model.text_tower import TextTower


class MaskedLanguageObjective(Objective):
    """Cross-entropy on masked positions, from ``[token state ; v]`` (method, alignment, objective 1).

    ``Linear(H+R → H)``, tanh, dropout, ``Linear → classes``; ``v`` passes a LayerNorm first, since its scale differs by
    orders of magnitude between CTR models. The classes are the tokens that some prompt's value can contain: no other
    token is ever behind a mask. A text shared by several interactions is helped by the table of the first of them.
    Reports ``token_accuracy``: how often the masked token has the highest score.

    Long texts hide thousands of tokens: of more than ``max_positions`` in a step, so many are scored, spread evenly
    over all. Masks are new in each step, and so are the tokens that are left out.

    Args:
        text_size: H, width of the token states.
        table_size: R, width of the CTR representation.
        token_ids: [C] distinct token ids the classes stand for.
        dropout: dropout probability.
        max_positions: the most masked positions to score in a step, in all processes together; None for all.
    """

    reads = frozenset({"complete_table", "masked_texts"})

    def __init__(
        self,
        text_size: int,
        table_size: int,
        token_ids: Tensor,
        *,
        dropout: float = 0.2,
        max_positions: int | None = None,
    ):
        super().__init__()
        self.max_positions = max_positions
        self.token_ids: Tensor
        self.register_buffer("token_ids", token_ids.long().sort().values, persistent=False)
        self.table_norm = nn.LayerNorm(table_size)
        self.layers = nn.Sequential(
            nn.Linear(text_size + table_size, text_size),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(text_size, len(token_ids)),
        )

    @classmethod
    def build(cls, config: Any, backbone: Backbone, text: TextTower, dataset: Any) -> Self:
        """See :meth:`Objective.build`."""
        vocabulary = text.language_model.encoder.config.vocab_size
        of_prompts = config["masked_language_vocabulary"] == "prompts"
        token_ids = dataset.prompts.value_token_ids if of_prompts else np.arange(vocabulary)
        sizes, most = (text.hidden_size, backbone.representation_size), config["masked_language_positions"]
        return cls(*sizes, torch.as_tensor(token_ids), max_positions=most)

    def rows(self, every: Tensor, masked: Sequence[MaskedTexts]) -> Tensor:
        """The first row of each masked text."""
        return torch.cat([every[:0], *(texts.batch.owner for texts in masked)])

    def prepare(self, batch: AlignmentBatch) -> tuple[Tensor, Tensor, Tensor, float]:
        """What this process scores of the step's masked positions, and what a mean over them counts for.

        Returns:
            Which of its positions [M], the row [M] that helps each, its token [M], and the weight.
        """
        none = batch.rows[:0]
        row = torch.cat([none, *(texts.batch.owner[texts.text] for texts in batch.masked)])
        target = torch.cat([none, *(texts.masked_ids for texts in batch.masked)])
        number = torch.cat([none, *(texts.number for texts in batch.masked)])
        most = batch.masked_count if self.max_positions is None else min(self.max_positions, batch.masked_count)
        chosen = torch.arange(most) * batch.masked_count // max(1, most)
        scored = torch.isin(number, chosen, assume_unique=True).nonzero().squeeze(1)
        weight = processes.count() * len(scored) / most if most else 1.0
        return scored, row[scored], target[scored], weight

    def measure(self, views: Views, prepared: tuple[Tensor, Tensor, Tensor, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`Objective.measure`."""
        scored, row, target, weight = prepared
        none = views.complete_table.representation.new_zeros(0, views.text.hidden_size)
        states = torch.cat([none, *(texts.states for texts in views.masked_texts)])
        states = states if len(scored) == len(states) else take_rows(states, scored)
        with views.autocast():
            loss, metrics = self(states, views.representations(row), target)
        if weight == 1:
            return loss, metrics
        return loss * weight, {name: value * weight if weight else loss.detach() for name, value in metrics.items()}

    def forward(self, states: Tensor, table: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics over M masked positions; zero, with zero gradient, when M is 0.

        Args:
            states: [M, H] states of the masked text at masked positions.
            table: [M, R] representation of the complete table of each position's row.
            target: [M] the token ids that were masked.
        """
        if not len(target):
            return (states.sum() + table.sum()) * 0, {"token_accuracy": table.new_full((), torch.nan)}
        logits = self.layers(torch.cat([states, self.table_norm(table)], dim=-1)).float()
        classes = torch.searchsorted(self.token_ids, target)
        accuracy = (logits.detach().argmax(-1) == classes).float().mean()
        with torch.autocast(logits.device.type, enabled=False):
            return F.cross_entropy(logits, classes), {"token_accuracy": accuracy}
