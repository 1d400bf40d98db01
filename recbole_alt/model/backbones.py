"""The tabular side: a RecBole context-aware model, untouched, with its representation read off one forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn


@dataclass(frozen=True)
class CapturePoint:
    """A submodule whose input or output is (part of) the representation.

    Attributes:
        module: dotted path inside the model; a negative number counts from the end of a ``Sequential``.
        side: ``input`` or ``output``.
    """

    module: str
    side: str = "input"


#: Where each RecBole model's representation is; several parts are concatenated.
CAPTURE_POINTS: dict[str, tuple[CapturePoint, ...]] = {
    "DCN": (CapturePoint("predict_layer"),),
    "DeepFM": (CapturePoint("deep_predict_layer"),),
    "xDeepFM": (CapturePoint("cin_linear"), CapturePoint("mlp_layers.mlp_layers.-2")),
}


@dataclass
class CTROutput:
    """What one forward of a CTR model gives.

    Attributes:
        representation: [B, R], the vector the last linear layer scores.
        logits: [B], before the sigmoid.
    """

    representation: Tensor
    logits: Tensor


class Backbone(nn.Module):
    """A RecBole ``ContextRecommender`` seen as a tower.

    The model itself is never changed: hooks live for the length of one forward, so copies and pickles of it
    carry none.

    Args:
        model: a built RecBole context-aware model whose ``forward`` returns logits.
        example: a few joined rows, to learn the size of the representation.
        points: capture points; default, those of :data:`CAPTURE_POINTS` for the model's class.

    Raises:
        ValueError: no capture points are known for the class, or the model never reaches one of them.
    """

    def __init__(self, model: Any, example: Interaction, points: tuple[CapturePoint, ...] | None = None):
        super().__init__()
        self.model = model
        name = type(model).__name__
        known = points or CAPTURE_POINTS.get(name)
        if known is None:
            raise ValueError(f"no capture points are known for {name}: known are {', '.join(CAPTURE_POINTS)}")
        self.points = known
        self.fields = table_fields(model)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            self.representation_size = int(self(example).representation.shape[1])
        model.train(was_training)

    def forward(self, interaction: Interaction) -> CTROutput:
        """Representation [B, R] and logits [B] of a batch, in one forward of the model."""
        captured: dict[int, Tensor] = {}
        with self._capturing(captured):
            logits = self.model.forward(interaction)
        missing = [self.points[i].module for i in range(len(self.points)) if i not in captured]
        if missing:
            raise ValueError(f"{type(self.model).__name__}.forward never reached {', '.join(missing)}")
        return CTROutput(torch.cat([captured[i].flatten(1) for i in range(len(self.points))], dim=1), logits)

    def loss(self, interaction: Interaction, output: CTROutput) -> Tensor:
        """The model's own ``calculate_loss``, regulariser included, without a second forward."""
        with self._forward_is(output.logits):
            return self.model.calculate_loss(interaction)

    def regulariser(self, interaction: Interaction, output: CTROutput) -> Tensor:
        """What the model's own loss adds to the cross-entropy, a scalar with its gradient; needs no label."""
        logits = output.logits.detach()
        label = torch.zeros_like(logits)
        unlabelled = Interaction(interaction.interaction | {self.model.LABEL: label})
        with self._forward_is(logits):
            return self.model.calculate_loss(unlabelled) - self.model.loss(logits, label)

    @contextmanager
    def _capturing(self, captured: dict[int, Tensor]) -> Iterator[None]:
        handles = []
        for i, point in enumerate(self.points):
            module = _submodule(self.model, point.module)
            if point.side == "input":
                handles.append(module.register_forward_pre_hook(_keep_input(captured, i)))
            else:
                handles.append(module.register_forward_hook(_keep_output(captured, i)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _forward_is(self, logits: Tensor) -> Iterator[None]:
        """For the while, ``self.model.forward`` returns ``logits``; RecBole's losses call it by name."""
        self.model.forward = lambda *args, **kwargs: logits
        try:
            yield
        finally:
            del self.model.forward


def _keep_input(captured: dict[int, Tensor], i: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        captured[i] = args[0]

    return hook


def _keep_output(captured: dict[int, Tensor], i: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        captured[i] = output

    return hook


def _submodule(model: nn.Module, path: str) -> nn.Module:
    module = model
    for part in path.split("."):
        module = module[int(part)] if part.lstrip("-").isdigit() else getattr(module, part)  # type: ignore[index]
    return module


@dataclass(frozen=True)
class TableField:
    """One field the CTR model embeds.

    Attributes:
        name: RecBole's field name.
        kind: ``token``, ``token_seq``, ``float`` or ``float_seq``.
        size: distinct values, id 0 (``[PAD]``) included; for floats, rows of the embedding.
    """

    name: str
    kind: str
    size: int


def table_fields(model: Any) -> tuple[TableField, ...]:
    """The fields a RecBole ``ContextRecommender`` embeds (source: its ``__init__``)."""
    return tuple(
        TableField(name, kind, int(size))
        for kind in ("token", "token_seq", "float", "float_seq")
        for name, size in zip(getattr(model, f"{kind}_field_names"), getattr(model, f"{kind}_field_dims"), strict=True)
    )


def mask_table(interaction: Interaction, fields: tuple[TableField, ...], mask: Tensor) -> Interaction:
    """Hide field values: ids become ``[PAD]`` (0), which no real value has; other columns are shared.

    A sequence becomes empty. A float field, ``(value, row)`` in RecBole, becomes ``(1, 0)``: row 0 of its
    embedding, which real values (rows from 1) never use.

    Args:
        interaction: [B] rows.
        fields: the CTR model's fields.
        mask: bool [B, F], True where the value is hidden.
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
