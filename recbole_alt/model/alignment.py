"""Stage 1: both towers and the objectives that align them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_alt.data.masking import Masks
from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.model.attention import SegmentStates, take_rows
from recbole_alt.model.backbones import Backbone, CTROutput, mask_table, select_rows
from recbole_alt.model.objectives.batch import AlignmentBatch, MaskedTexts, TextKeys, mask_texts
from recbole_alt.model.objectives.objective import Objective, View, Views
from recbole_alt.model.text_cache import TextCache
from recbole_alt.model.text_tower import TextTower


@dataclass
class AlignmentOutput:
    """The losses of one step: their weighted sum with the CTR model's own regulariser, each one, and accuracies."""

    loss: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class AlignmentModel(nn.Module):
    """The two towers and the objectives that align them (method, alignment).

    Args:
        backbone, text: the towers.
        objectives: by name; see :data:`recbole_alt.key_table.OBJECTIVES`.
        weights: name → weight in the sum; 1 where not given.
        mask_id: the tokenizer's mask token.

    Attributes:
        reads: the views that some objective reads.
        text_cache: states of the texts for a language model that is not trained; None if they are encoded at each step.
    """

    def __init__(
        self,
        backbone: Backbone,
        text: TextTower,
        objectives: Mapping[str, Objective],
        *,
        weights: Mapping[str, float],
        mask_id: int,
    ):
        super().__init__()
        self.backbone = backbone
        self.text = text
        self.objectives: Any = nn.ModuleDict(objectives)
        self.weights = dict(weights)
        self.mask_id = mask_id
        self.reads: frozenset[View] = frozenset().union(*(objective.reads for objective in objectives.values()))
        self.text_cache: TextCache | None = None

    def prepare(self, interaction: Interaction, batches: Sequence[SegmentBatch], masks: Masks) -> AlignmentBatch:
        """What :meth:`forward` needs to know of B interactions, their texts and a step's masks, all on the CPU.

        Nothing of it depends on weights. Fields of text vectors are empty: they would give the answers away.
        """
        complete = list(batches) if "complete_texts" in self.reads else []
        masked = mask_texts(batches, masks, self.mask_id) if "masked_texts" in self.reads else []
        rows = self._rows(len(interaction), masked)
        batch = AlignmentBatch(self.backbone.hide_texts(interaction), rows, masks.table, complete, masked)
        batch.prepared = {name: objective.prepare(batch) for name, objective in self.objectives.items()}
        if self.text_cache is not None:
            batch.text_keys = TextKeys.of(complete, masked)
        return batch

    def forward(self, batch: AlignmentBatch) -> AlignmentOutput:
        """Losses of a batch.

        The language model is called at most once, for complete and masked texts; the complete table is read only in the
        rows that some objective asks for.
        """
        interaction, rows = batch.interaction, batch.rows
        segments = self._encode(batch)
        read = select_rows(interaction, rows) if len(rows) else interaction
        tables: dict[View, CTROutput] = {}
        if len(rows):
            tables["complete_table"] = self.backbone(read)
        if "masked_table" in self.reads:
            tables["masked_table"] = self.backbone(mask_table(interaction, self.backbone.fields, batch.table_mask))
        views = Views(batch, self.backbone, self.text, tables, segments)
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            losses[name], seen = objective.measure(views, batch.prepared[name])
            metrics |= seen
        total = self.backbone.regulariser(read, next(iter(tables.values())))
        for name, loss in losses.items():
            total = total + self.weights.get(name, 1.0) * loss
        return AlignmentOutput(total, losses, metrics)

    def _encode(self, batch: AlignmentBatch) -> list[SegmentStates]:
        """States of the complete texts, those of the masked ones set in place; one call encodes all that isn't kept."""
        if batch.text_keys is not None:
            assert self.text_cache is not None
            return self.text_cache.read(batch.complete, batch.masked, batch.text_keys)
        wanted = [texts.encoder_input for texts in batch.complete]
        hidden = [texts.encoder_input for texts in batch.masked]
        made = self.text.language_model.encode(wanted + hidden)
        for texts, (states, _) in zip(batch.masked, made[len(wanted) :], strict=True):
            texts.states = take_rows(states.flatten(0, 1), texts.position)
        return self.text.gather(batch.complete, made[: len(wanted)])

    def _rows(self, count: int, masked: Sequence[MaskedTexts]) -> Tensor:
        """The rows whose complete table is read, ascending.

        All of them instead of a single one, of which no statistics can be made, and where no table is read otherwise.
        """
        every = torch.arange(count)
        asking = [objective for objective in self.objectives.values() if "complete_table" in objective.reads]
        if not asking and "masked_table" in self.reads:
            return every[:0]
        rows = torch.cat([every[:0], *(objective.rows(every, masked) for objective in asking)]).unique()
        return rows if len(rows) > 1 else every
