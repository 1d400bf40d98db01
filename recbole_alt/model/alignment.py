"""Stage 1: both towers and the objectives that align them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_alt.data.masking import Masks
from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.model.attention import SegmentStates, take_rows
from recbole_alt.model.backbones import Backbone, CTROutput, mask_table, select_rows
from recbole_alt.model.kept_texts import KeptTexts
from recbole_alt.model.language import TextTower
from recbole_alt.model.objectives.contrastive import ContrastiveObjective
from recbole_alt.model.objectives.masked_language import MaskedLanguageObjective
from recbole_alt.model.objectives.masked_tabular import MaskedTabularObjective
from recbole_alt.model.targets import TableTargets


@dataclass
class AlignmentOutput:
    """Losses of one step.

    Attributes:
        loss: the weighted sum, with the CTR model's own regulariser.
        losses: each objective's loss before weighting.
        report: what the objectives report beside it (accuracies).
    """

    loss: Tensor
    losses: dict[str, Tensor]
    report: dict[str, float]


@dataclass
class _MaskedTexts:
    """The texts [M, L] of a segment with something masked: as they are, where they are masked, and masked."""

    batch: SegmentBatch
    where: Tensor
    input_ids: Tensor


class AlignmentModel(nn.Module):
    """The two towers and any of the three objectives (method, stage 1).

    Args:
        backbone: the tabular side.
        text: the language side.
        objectives: name → objective, of ``contrastive``, ``masked_language``, ``masked_tabular``.
        weights: name → weight in the sum; 1 where not given.
        targets: reads the true values of masked table fields; needed for ``masked_tabular``.
        mask_id: the tokenizer's mask token.

    Attributes:
        kept_texts: states that need not be made anew, of a language model that is not trained.
    """

    def __init__(
        self,
        backbone: Backbone,
        text: TextTower,
        objectives: Mapping[str, nn.Module],
        *,
        weights: Mapping[str, float],
        targets: TableTargets | None,
        mask_id: int,
    ):
        super().__init__()
        self.backbone = backbone
        self.text = text
        self.objectives = nn.ModuleDict(objectives)
        self.weights = dict(weights)
        self.targets = targets
        self.mask_id = mask_id
        self.kept_texts: KeptTexts | None = None

    @property
    def reads_complete_texts(self) -> bool:
        """Whether an objective does."""
        return bool({"contrastive", "masked_tabular"} & set(self.objectives))

    @property
    def reads_masked_texts(self) -> bool:
        """Whether an objective does."""
        return "masked_language" in self.objectives

    def forward(self, interaction: Interaction, batches: Sequence[SegmentBatch], masks: Masks) -> AlignmentOutput:
        """Losses of a batch of B interactions, their texts and this step's masks.

        The language model is called at most once: for the complete texts, which two objectives read, and for those
        masked texts in which some field is masked. The complete table is read where an objective asks for it: in the
        rows that are contrasted, and in the first row of each masked text.
        """
        complete = list(batches) if self.reads_complete_texts else []
        masked = self._masked(batches, masks) if self.reads_masked_texts else []
        segments, hidden = self._read(complete, masked)
        rows = self._rows_read(interaction, masked)
        read = select_rows(interaction, rows) if len(rows) else interaction
        outputs = [self.backbone(read)] if len(rows) else []
        if "masked_tabular" in self.objectives:
            outputs.append(self.backbone(mask_table(interaction, self.backbone.fields, masks.table)))
        steps: dict[str, Callable[[], tuple[Tensor, dict[str, float]]]] = {
            "contrastive": lambda: self._contrast(outputs[0], segments, self._contrasted(interaction)),
            "masked_language": lambda: self._masked_language(outputs[0], rows, masked, hidden),
            "masked_tabular": lambda: self._masked_tabular(outputs[-1], interaction, segments, masks),
        }
        losses: dict[str, Tensor] = {}
        report: dict[str, float] = {}
        for name in self.objectives:
            losses[name], seen = steps[name]()
            report |= seen
        total = self.backbone.regulariser(read, outputs[0])
        for name, loss in losses.items():
            total = total + self.weights.get(name, 1.0) * loss
        return AlignmentOutput(total, losses, report)

    def _read(
        self, complete: Sequence[SegmentBatch], masked: Sequence[_MaskedTexts]
    ) -> tuple[list[SegmentStates], list[Tensor]]:
        """States of the complete texts, and of each segment's masked texts those at masked positions [M, H].

        What is not kept is encoded, in one call.
        """
        groups = [(texts.input_ids, texts.batch.attention_mask) for texts in masked]
        segments = self.kept_texts.complete(complete) if self.kept_texts else None
        hidden = self.kept_texts.masked(groups) if self.kept_texts else None
        wanted = [] if segments is not None else [(batch.input_ids, batch.attention_mask) for batch in complete]
        made = self.text.language_model.encode(wanted + (groups if hidden is None else []))
        if segments is None:
            segments = self.text.gather(complete, made[: len(complete)])
        if hidden is None:
            hidden = [states[texts.where] for texts, (states, _) in zip(masked, made[len(wanted) :], strict=True)]
        return segments, hidden

    def _contrasted(self, interaction: Interaction) -> int:
        """How many of a batch's rows are contrasted, the first ones."""
        if "contrastive" not in self.objectives:
            return 0
        objective: ContrastiveObjective = self.objectives["contrastive"]  # type: ignore[assignment]
        return min(len(interaction), objective.max_rows or len(interaction))

    def _rows_read(self, interaction: Interaction, masked: Sequence[_MaskedTexts]) -> Tensor:
        """The rows whose complete table some objective reads, ascending."""
        device = interaction[self.backbone.fields[0].name].device
        rows = torch.cat(
            [torch.arange(self._contrasted(interaction), device=device), *(texts.batch.owner for texts in masked)]
        ).unique()
        none_needed = not len(rows) and "masked_tabular" in self.objectives
        if none_needed or len(rows) > 1:
            return rows
        return torch.arange(len(interaction), device=device)  # by chance hardly anything is masked

    def _masked(self, batches: Sequence[SegmentBatch], masks: Masks) -> list[_MaskedTexts]:
        """Of each segment the texts with something masked; a segment without any is left out."""
        texts = []
        for batch, hidden in zip(batches, masks.tokens, strict=True):
            hidden = hidden.to(batch.input_ids.device)
            chosen = hidden.any(1).nonzero().squeeze(1)
            if len(chosen):
                some = batch.select(chosen)
                where = hidden[chosen, : some.input_ids.shape[1]]
                texts.append(_MaskedTexts(some, where, some.input_ids.masked_fill(where, self.mask_id)))
        return texts

    def _contrast(
        self, table: CTROutput, segments: Sequence[SegmentStates], rows: int
    ) -> tuple[Tensor, dict[str, float]]:
        objective: ContrastiveObjective = self.objectives["contrastive"]  # type: ignore[assignment]
        pooled = self.text.fuse([take_rows(segment.pooled, segment.row[:rows]) for segment in segments])
        return objective(table.representation[:rows], pooled)

    def _masked_language(
        self,
        table: CTROutput,
        rows: Tensor,
        masked: Sequence[_MaskedTexts],
        hidden: Sequence[Tensor],
    ) -> tuple[Tensor, dict[str, float]]:
        """A text shared by several interactions is helped by the table of the first of them.

        ``table`` is that of the batch's ``rows``, ascending; ``hidden`` are the states at masked positions.
        """
        objective: MaskedLanguageObjective = self.objectives["masked_language"]  # type: ignore[assignment]
        nothing = table.representation[:0]
        states, tables = [nothing.new_zeros(0, self.text.hidden_size), *hidden], [nothing]
        targets = [nothing.new_zeros(0).long()]
        for texts in masked:
            owner = texts.batch.owner[texts.where.nonzero()[:, 0]]
            tables.append(take_rows(table.representation, torch.searchsorted(rows, owner)))
            targets.append(texts.batch.input_ids[texts.where])
        with self.text.language_model.autocast(nothing.device):
            return objective(torch.cat(states), torch.cat(tables), torch.cat(targets))

    def _masked_tabular(
        self, table: CTROutput, interaction: Interaction, segments: Sequence[SegmentStates], masks: Masks
    ) -> tuple[Tensor, dict[str, float]]:
        objective: MaskedTabularObjective = self.objectives["masked_tabular"]  # type: ignore[assignment]
        assert self.targets is not None
        representation = table.representation
        with self.text.language_model.autocast(representation.device):
            mask = masks.table.to(representation.device)
            return objective(representation, segments, mask, self.targets.read(interaction))
