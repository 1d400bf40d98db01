"""Stage 1: both towers and the objectives that align them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_alt import processes
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
    """The losses of one step: their weighted sum with the CTR model's own regulariser, each one, and accuracies.

    With several processes, all of these are means over what the processes have here.
    """

    loss: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class AlignmentModel(nn.Module):
    """The two towers and the objectives that align them (method, alignment).

    Several processes divide the work of a step. Each encodes a share of the texts, complete and masked ones, and reads
    its rows of either table; complete texts and tables are then gathered.

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
        rows, count = self._rows(len(interaction), masked), sum(len(texts.position) for texts in masked)
        if masked and processes.count() > 1:
            masked = mask_texts(batches, masks, self.mask_id, shared=True)
        batch = AlignmentBatch(self.backbone.hide_texts(interaction), rows, masks.table, complete, masked, count)
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
        every = processes.Share.of(len(interaction))
        share = processes.Share.of(len(rows)) if len(rows) else every
        read = select_rows(interaction, share.take(rows)) if len(rows) else every.take(interaction)
        tables: dict[View, CTROutput] = {}
        own: list[CTROutput] = []
        if len(rows):
            with share.working():
                own.append(self.backbone(read))
            tables["complete_table"] = own[0].gathered(share)
        if "masked_table" in self.reads:
            masked = mask_table(every.take(interaction), self.backbone.fields, every.take(batch.table_mask))
            with every.working():
                own.append(self.backbone(masked))
            tables["masked_table"] = own[-1]
        views = Views(batch, self.backbone, self.text, tables, segments)
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            losses[name], seen = objective.measure(views, batch.prepared[name])
            metrics |= seen
        total = share.weight * self.backbone.regulariser(read, own[0])
        for name, loss in losses.items():
            total = total + self.weights.get(name, 1.0) * loss
        return AlignmentOutput(total, losses, metrics)

    def _encode(self, batch: AlignmentBatch) -> list[SegmentStates]:
        """States of the complete texts, those of the masked ones set in place; one call encodes all that isn't kept."""
        if batch.text_keys is not None:
            assert self.text_cache is not None
            return self.text_cache.read(batch.complete, batch.masked, batch.text_keys)
        shares = [processes.Share.of(len(texts.lengths)) for texts in batch.complete]
        whole = [(texts.encoder_input, share) for texts, share in zip(batch.complete, shares, strict=True)]
        wanted = [(share.take(ids), share.take(mask), share.take(lengths)) for (ids, mask, lengths), share in whole]
        hidden = [texts.encoder_input for texts in batch.masked]
        made = self.text.language_model.encode(wanted + hidden)
        for texts, (states, _) in zip(batch.masked, made[len(wanted) :], strict=True):
            texts.states = take_rows(states.flatten(0, 1), texts.position)
        own = zip(shares, made, strict=False)
        return self.text.gather(batch.complete, [(share.gather(s), share.gather(pooled)) for share, (s, pooled) in own])

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
