"""Masked tabular modelling with language help: a masked feature is found again from the rest and the text."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from recbole_alt.model.attention import SegmentStates, attend, take_rows
from recbole_alt.model.backbones import Backbone
from recbole_alt.model.objectives.objective import Objective, Views
from recbole_alt.model.objectives.value_scorer import ValueScorer
from recbole_alt.model.targets import TableTargets, TargetField
from recbole_alt.model.text_tower import TextTower


class MaskedTabularObjective(Objective):
    """The masked table asks the complete text (method, alignment, objective 2).

    ``v̂`` is the query, ``Linear(R → H)`` + LayerNorm, of one attention head over the token states;
    ``[v̂ ; attended]`` → ``Linear`` → one vector per field, which scores the field's values. ``v̂`` passes a
    LayerNorm first: its scale differs by orders of magnitude between CTR models, that of token states does not.
    Reports ``value_accuracy``: how often the true value outscores all it is compared with.

    Args:
        table_size: R, width of the CTR representation.
        text_size: H, width of the token states.
        targets: the fields to predict.
        loss: ``nce`` (noise-contrastive estimation), ``sampled_softmax`` or ``full_softmax``.
        n_noise: noise values per masked field, from the field's unigram distribution.
        size: width of the output embeddings.
    """

    reads = frozenset({"masked_table", "complete_texts"})
    table: TableTargets  # reads the true values off a batch

    def __init__(
        self,
        table_size: int,
        text_size: int,
        targets: Sequence[TargetField],
        *,
        loss: str = "nce",
        n_noise: int = 25,
        size: int = 32,
    ):
        super().__init__()
        self.targets = list(targets)
        self.loss, self.n_noise = loss, n_noise
        self.table_norm = nn.LayerNorm(table_size)
        self.query = nn.Sequential(nn.Linear(table_size, text_size), nn.LayerNorm(text_size))
        self.vectors = nn.Linear(table_size + text_size, len(self.targets) * size)
        total = sum(len(target.counts) for target in self.targets)
        self.norm_term = math.log(max(total, 2))
        self.values = nn.ModuleList(_OwnScorer(t.counts, size, self.norm_term) for t in self.targets)

    @classmethod
    def build(cls, config: Any, backbone: Backbone, text: TextTower, dataset: Any) -> Self:
        """See :meth:`Objective.build`."""
        table = TableTargets(dataset, backbone.fields, bins=config["float_target_bins"])
        loss, n_noise, size = (config[f"masked_tabular_{key}"] for key in ("loss", "noise", "size"))
        sizes = backbone.representation_size, text.hidden_size
        objective = cls(*sizes, table.fields, loss=loss, n_noise=n_noise, size=size)
        objective.table = table
        return objective

    def measure(self, views: Views) -> tuple[Tensor, dict[str, float]]:
        """See :meth:`Objective.measure`."""
        table = views.masked_table.representation
        with views.autocast():
            values = self.table.read(views.interaction)
            return self(table, views.complete_texts, views.table_mask.to(table.device), values)

    def forward(
        self, table: Tensor, segments: Sequence[SegmentStates], mask: Tensor, values: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss, averaged over the masked values, and metrics; zero, with zero gradient, when nothing is masked.

        Args:
            table: [B, R] representation of the masked table.
            segments: token states of the complete texts.
            mask: bool [B, F] of the table's fields.
            values: per target field, [B] or [B, S] true values; 0 for missing or padding.
        """
        table = self.table_norm(table)
        vectors = self.vectors(torch.cat([table, attend(self.query(table), segments)], dim=-1))
        with torch.autocast(table.device.type, enabled=False):  # values are scored in 32 bits
            return self._score_values(vectors.float(), mask, values)

    def _score_values(self, vectors: Tensor, mask: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Loss and metrics from one vector per field [B, T·D]."""
        per_field = vectors.view(len(vectors), len(self.targets), -1)
        total, weight, hits = vectors.sum() * 0, 0.0, 0.0
        for i, (target, scorer) in enumerate(zip(self.targets, self.values, strict=True)):
            vector, value, share = _masked_values(per_field[:, i], values[i], mask[:, target.column])
            if len(value):
                loss, first = scorer(vector, value, self.loss, self.n_noise)
                total = total + (share * loss).sum()
                weight += float(share.sum())
                hits += float(share @ first.float())
        metrics = {"value_accuracy": hits / weight if weight else float("nan")}
        return total / max(weight, 1.0), metrics


def _masked_values(vectors: Tensor, values: Tensor, masked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors [M, D], true values [M] and shares [M] of the masked rows; a row's members share weight 1."""
    members = values if values.dim() == 2 else values.unsqueeze(1)  # [B, S]
    wanted = masked.unsqueeze(1) & (members > 0)
    row, position = wanted.nonzero(as_tuple=True)
    share = 1.0 / wanted.sum(1).clamp(min=1)
    return take_rows(vectors, row), members[row, position], share[row]


class _OwnScorer(ValueScorer):
    """Scores values by output embeddings of its own."""

    def __init__(self, counts: Tensor, size: int, norm_term: float):
        super().__init__(counts, norm_term)
        self.embedding = nn.Embedding(len(counts), size)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)

    def forward(self, vector: Tensor, value: Tensor, loss: str, n_noise: int) -> tuple[Tensor, Tensor]:
        """See :meth:`ValueScorer.measure`."""
        return self.measure(vector, value, self.embedding, loss, n_noise)
