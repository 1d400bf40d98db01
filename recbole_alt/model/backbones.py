"""The tabular side: a RecBole context-aware model, untouched, with its representation read off one forward."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_alt import compat
from recbole_alt.model.captures import Captures, captures_of, reached
from recbole_alt.model.recording import REDUCTIONS, CapturePoint, recording
from recbole_alt.model.shared_norm import share_norms
from recbole_alt.processes import Share


@dataclass
class CTROutput:
    """What one forward of a CTR model gives."""

    representation: Tensor  # [B, R], the vector the last layer scores
    logits: Tensor  # [B], before the sigmoid
    returned: Tensor  # by the model's forward, what its own loss is computed from: logits or probabilities

    def gathered(self, share: Share) -> CTROutput:
        """With the representation and the logits of all processes' rows, of which ``share`` is this one's."""
        if share.sizes is None:
            return self
        return CTROutput(share.gather(self.representation), share.gather(self.logits), self.returned)


class Backbone(nn.Module):
    """A RecBole ``ContextRecommender`` seen as a tower; it is never changed: hooks live for the length of one forward.

    Args:
        model: a built RecBole context-aware model.
        example: a few joined rows, to learn the size of the representation.
        captures: what to read off a forward; default, :func:`~recbole_alt.model.captures.captures_of` the model.
        join_field_embeddings: True if the representation also holds the flattened embeddings of all fields; None
            leaves it to ``captures``.
        text_fields: fields that hold frozen text vectors, which alignment neither reads nor predicts.

    Attributes:
        fields: the fields that the model embeds, those of text vectors left out.
        grounding: ``user`` or ``item`` → what their texts add to their embeddings while the model is trained; see
            :mod:`recbole_alt.model.grounding`.

    Raises:
        ValueError: no captures are known or found, or the model never reaches one of them.
    """

    def __init__(
        self,
        model: Any,
        example: Interaction,
        captures: Captures | None = None,
        *,
        join_field_embeddings: bool | None = None,
        text_fields: Collection[str] = (),
    ):
        super().__init__()
        self.model = model
        share_norms(model)
        self.fields = tuple(field for field in table_fields(model) if field.name not in text_fields)
        self.text_fields = tuple(text_fields)
        self.grounding: Any = nn.ModuleDict()
        was_training = model.training
        model.eval()
        with torch.no_grad():
            self.captures = captures or captures_of(model, example)
            self.points = self._points(join_field_embeddings, example)
            self.representation_size = int(self(example).representation.shape[1])
        model.train(was_training)

    def _points(self, join: bool | None, example: Interaction) -> tuple[CapturePoint, ...]:
        points, embeddings = self.captures.representation, self.captures.field_embeddings
        if not (self.captures.join if join is None else join) or embeddings in points:
            return points
        if embeddings is None or not reached(self.model, embeddings, example):
            name = type(self.model).__name__
            raise ValueError(f"join_field_embeddings: {name} scores no field embeddings; leave it empty")
        return (*points, embeddings)

    def forward(self, interaction: Interaction) -> CTROutput:
        """Representation [B, R] and logits [B] of a batch, in one forward of the model."""
        returned, logits, captured = self._run(interaction, self.points)
        pairs = zip(self.points, captured, strict=True)
        parts = [REDUCTIONS[point.reduce](call) for point, calls in pairs for call in calls]
        return CTROutput(torch.cat(parts, dim=1), logits, returned)

    def score(self, interaction: Interaction) -> Tensor:
        """Only the logits [B], at the cost of the plain model."""
        if self.captures.logits is None:  # the model returns them
            return self.model.forward(interaction).view(-1)
        return self._run(interaction, ())[1]

    def _run(self, interaction: Interaction, points: tuple[CapturePoint, ...]) -> tuple[Tensor, Tensor, list[Any]]:
        """One forward: what it returned, the logits [B], and the tensors that each point captured."""
        if self.captures.logits is not None:
            points = (*points, self.captures.logits)
        captured: list[list[Tensor]] = [[] for _ in points]
        with recording(self.model, points, captured):
            returned = self.model.forward(interaction)
        missing = [point.module for point, calls in zip(points, captured, strict=True) if not calls]
        if missing:
            raise ValueError(f"{type(self.model).__name__}.forward never reached {', '.join(missing)}")
        logits = captured.pop()[0] if self.captures.logits is not None else returned
        return returned, logits.view(-1), captured

    def loss(self, interaction: Interaction, output: CTROutput | None = None) -> Tensor:
        """The model's own ``calculate_loss``, regulariser included; no second forward where ``output`` is given."""
        if output is None:
            return self.model.calculate_loss(interaction)
        with self._forward_is(output.returned):
            return self.model.calculate_loss(interaction)

    def regulariser(self, interaction: Interaction, output: CTROutput) -> Tensor:
        """What the model's own loss adds to its cross-entropy ``model.loss``, a scalar with its gradient.

        Needs no label. Zero for a model that keeps its cross-entropy elsewhere.
        """
        if not callable(getattr(self.model, "loss", None)):
            return output.logits.new_zeros(())
        returned = output.returned.detach()
        label = torch.zeros_like(output.logits)
        unlabelled = Interaction(interaction.interaction | {self.model.LABEL: label})
        with self._forward_is(returned):
            return self.model.calculate_loss(unlabelled) - self.model.loss(returned.view(-1), label)

    def hide_texts(self, interaction: Interaction) -> Interaction:
        """The same rows with their text vectors empty, as alignment reads them."""
        empty = {name: torch.zeros_like(interaction[name]) for name in self.text_fields}
        return Interaction({**interaction.interaction, **empty})

    @contextmanager
    def _forward_is(self, returned: Tensor) -> Iterator[None]:
        """For the while, ``self.model.forward`` returns ``returned``; RecBole's losses call it by name."""
        self.model.forward = lambda *args, **kwargs: returned
        try:
            yield
        finally:
            del self.model.forward

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which can't hold a tensor with a history."""
        compat.drop_activations(self.model)
        return self.__dict__.copy()


@dataclass(frozen=True)
class TableField:
    """One field the CTR model embeds."""

    name: str
    kind: str  # token, token_seq, float or float_seq
    size: int  # distinct values, id 0 ([PAD]) included; for floats, rows of the embedding


def table_fields(model: Any) -> tuple[TableField, ...]:
    """The fields a RecBole ``ContextRecommender`` embeds (source: its ``__init__``)."""
    return tuple(
        TableField(name, kind, int(size))
        for kind in ("token", "token_seq", "float", "float_seq")
        for name, size in zip(getattr(model, f"{kind}_field_names"), getattr(model, f"{kind}_field_dims"), strict=True)
    )


def embedding_tables(backbone: nn.Module) -> list[nn.Embedding]:
    """The CTR model's embedding tables."""
    return [part for part in backbone.modules() if isinstance(part, nn.Embedding)]


def select_rows(interaction: Interaction, rows: Tensor) -> Interaction:
    """The rows [M] given by index."""
    return Interaction({name: column[rows.to(column.device)] for name, column in interaction.interaction.items()})


def mask_table(interaction: Interaction, fields: tuple[TableField, ...], mask: Tensor) -> Interaction:
    """Hide field values: ids become ``[PAD]`` (0), which no real value has; other columns are shared.

    A sequence becomes empty. A float field, ``(value, row)`` in RecBole, becomes ``(1, 0)``: row 0 of its
    embedding, which real values (rows from 1) never use. ``mask`` is bool [B, F], True where the value is hidden.
    """
    masked = Interaction(dict(interaction.interaction))
    for i, field in enumerate(fields):
        column = interaction[field.name]
        hidden = mask[:, i].to(column.device).view(-1, *[1] * (column.dim() - 1))
        nothing = torch.zeros_like(column)
        if field.kind == "float":
            nothing[..., 0] = 1
        masked.interaction[field.name] = torch.where(hidden, nothing, column)
    return masked
