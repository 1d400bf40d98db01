"""Field-level contrastive learning: the embedding of each value, and the texts of those that have it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from recbole_alt.model.backbones import Backbone
from recbole_alt.model.field_tables import field_tables
from recbole_alt.model.objectives.batch import AlignmentBatch
from recbole_alt.model.objectives.contrastive import hits, symmetric_cross_entropy
from recbole_alt.model.objectives.fields import AlignedField, ValuesAndTexts, aligned_fields, average, standardised
from recbole_alt.model.objectives.objective import Objective, Views
from recbole_alt.model.text_tower import TextTower


class FieldContrastiveObjective(Objective):
    """Symmetric InfoNCE over the distinct values of each field in a batch and the distinct texts of their side.

    The similarity of a value with a text is bilinear, ``⟨e, W t⟩ / temperature``, with a matrix ``W`` for each field,
    as in contrastive predictive coding (arXiv 1807.03748): ``e`` is the value's row of the CTR model's embedding table,
    ``t`` the pooled state of the text of the user, the item or the row that the field belongs to, and both are less
    their mean over the batch. A value's target is spread evenly over the texts that have it, a text's over its values.
    The loss is averaged over fields. Reports ``field_retrieval``: how often a value of the text is the nearest to it.

    Args:
        fields: those to align.
        text_size: H, width of the pooled text state.
        temperature: divides similarities; the lower, the more even similar texts are told apart.
        max_rows: read at most so many rows of a batch, the first ones; None for all.
    """

    reads = frozenset({"complete_texts"})

    def __init__(
        self,
        fields: Sequence[AlignedField],
        text_size: int,
        *,
        temperature: float = 0.3,
        max_rows: int | None = None,
    ):
        super().__init__()
        self.fields = list(fields)
        self.heads: Any = nn.ModuleList(nn.Linear(text_size, field.width, bias=False) for field in self.fields)
        self.temperature, self.max_rows = temperature, max_rows

    @classmethod
    def build(cls, config: Any, backbone: Backbone, text: TextTower, dataset: Any) -> Self:
        """See :meth:`Objective.build`."""
        options = {"temperature": config["field_temperature"], "max_rows": config["contrast_rows"]}
        return cls(aligned_fields(config, backbone, dataset), text.hidden_size, **options)

    def prepare(self, batch: AlignmentBatch) -> list[ValuesAndTexts]:
        """What the contrasted rows hold of each field."""
        return [ValuesAndTexts.of(batch, field, self.max_rows) for field in self.fields]

    def measure(self, views: Views, prepared: list[ValuesAndTexts]) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`Objective.measure`."""
        tables, segments = field_tables(views.backbone), views.complete_texts
        found = [
            self(i, tables[field.name](held.values), held.states(segments[field.segment]), held.positive)
            for i, (field, held) in enumerate(zip(self.fields, prepared, strict=True))
            if min(len(held.values), len(held.texts)) > 1  # otherwise there is nothing to tell apart
        ]
        loss, retrieval = average(found, self.heads[0].weight)
        return loss, {"field_retrieval": retrieval}

    def forward(self, i: int, values: Tensor, texts: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of the ``i``-th field, and how often a text's nearest value is one of its own; both scalars.

        Args:
            i: which field.
            values: [V, E] embeddings of distinct values.
            texts: [T, H] states of distinct texts, standardised.
            positive: bool [V, T], the pairs.
        """
        similarity = standardised(values) @ self.heads[i](texts).T / self.temperature
        return symmetric_cross_entropy(similarity, positive), hits(similarity.T, positive.T)
