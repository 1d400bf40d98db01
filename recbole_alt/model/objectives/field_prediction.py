"""Prediction of each field from the text, scored by the embeddings of the CTR model (tied output embeddings)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from recbole_alt.model.attention import take_rows
from recbole_alt.model.backbones import Backbone
from recbole_alt.model.field_tables import FieldTable, field_tables, read_values
from recbole_alt.model.objectives.batch import AlignmentBatch
from recbole_alt.model.objectives.fields import AlignedField, ValuesAndTexts, aligned_fields, average
from recbole_alt.model.objectives.objective import Objective, Views
from recbole_alt.model.objectives.value_scorer import FieldValues, ValueScorer
from recbole_alt.model.text_tower import TextTower


class FieldPredictionObjective(Objective):
    """Each distinct text of a batch predicts the values of its side's fields, among all values of the field.

    The score of a value is ``⟨e, W t + c⟩ + b``: ``e`` is its row of the CTR model's embedding table, as output
    embeddings are tied to input embeddings in language models (arXiv 1608.05859), ``t`` the pooled state of the text
    less its mean over the batch, ``b`` a bias of the value; ``W`` and ``c`` are the field's. Masked tabular modelling
    asks the same with embeddings of its own and also reads the rest of the table, so that the embeddings need not hold
    what the text says. Losses and noise are those of masked tabular modelling. Several values of a text share its
    weight; the loss is averaged over texts, then over fields. Reports ``field_accuracy``, as ``value_accuracy`` there.

    Args:
        fields: those to predict.
        counts: [V] of each field, how often each value occurs in training rows.
        text_size: H, width of the pooled text state.
        loss: ``nce``, ``sampled_softmax`` or ``full_softmax``.
        n_noise: noise values per text and value, from the field's unigram distribution.
    """

    reads = frozenset({"complete_texts"})

    def __init__(
        self,
        fields: Sequence[AlignedField],
        counts: Sequence[Tensor],
        text_size: int,
        *,
        loss: str = "nce",
        n_noise: int = 25,
    ):
        super().__init__()
        self.fields = list(fields)
        self.loss, self.n_noise = loss, n_noise
        norm_term = math.log(max(sum(map(len, counts)), 2))
        self.heads: Any = nn.ModuleList(nn.Linear(text_size, field.width) for field in self.fields)
        self.scorers: Any = nn.ModuleList(ValueScorer([of_field], norm_term) for of_field in counts)

    @classmethod
    def build(cls, config: Any, backbone: Backbone, text: TextTower, dataset: Any) -> Self:
        """See :meth:`Objective.build`."""
        fields = aligned_fields(config, backbone, dataset)
        values = [read_values(field.field, dataset.column(field.name)) for field in fields]
        counts = [torch.bincount(v.flatten(), minlength=f.field.size) for v, f in zip(values, fields, strict=True)]
        loss, n_noise = config["masked_tabular_loss"], config["masked_tabular_noise"]
        return cls(fields, counts, text.hidden_size, loss=loss, n_noise=n_noise)

    def prepare(self, batch: AlignmentBatch) -> list[ValuesAndTexts]:
        """What the batch holds of each field."""
        return [ValuesAndTexts.of(batch, field) for field in self.fields]

    def measure(self, views: Views, prepared: list[ValuesAndTexts]) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`Objective.measure`."""
        tables, segments = field_tables(views.backbone), views.complete_texts
        found = [
            self(i, tables[field.name], held, held.states(segments[field.segment]))
            for i, (field, held) in enumerate(zip(self.fields, prepared, strict=True))
            if len(held.values)
        ]
        loss, accuracy = average(found, self.heads[0].weight)
        return loss, {"field_accuracy": accuracy}

    def forward(self, i: int, table: FieldTable, held: ValuesAndTexts, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of the ``i``-th field, embedded by ``table``, and the share of values that came first; both scalars.

        ``texts`` [T, H] are the states of those that ``held`` names.
        """
        vectors = take_rows(self.heads[i](texts), held.text)
        values = FieldValues.of_one_field(held.values[held.value])
        losses, first = self.scorers[i].measure(vectors, values, table, self.loss, self.n_noise)
        share = 1 / held.positive.sum(0)[held.text]
        return (share * losses).sum() / share.sum(), (share * first).sum() / share.sum()
