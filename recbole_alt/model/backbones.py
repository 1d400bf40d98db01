"""The tabular side: a RecBole context-aware model, untouched, with its representation read off one forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_alt import compat


@dataclass(frozen=True)
class CapturePoint:
    """A submodule whose input or output is (part of) the representation.

    Attributes:
        module: dotted path inside the model; a negative number counts from the end of a ``Sequential``.
        side: ``input`` or ``output``.
        reduce: name of a function of :data:`REDUCTIONS` that makes a vector of what is captured.

    A module called several times in one forward contributes all its captures, in order.
    """

    module: str
    side: str = "input"
    reduce: str = "flatten"


def _bi_interaction(embeddings: Tensor) -> Tensor:
    """[B, F, E] → [B, E], the sum of the products of all pairs of fields."""
    return (embeddings.sum(1).square() - embeddings.square().sum(1)) / 2


#: How a capture [B, ...] becomes a vector [B, D].
REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda captured: captured.flatten(1),
    "sum_pairs": lambda captured: captured.sum(1),
    "bi_interaction": _bi_interaction,
}


@dataclass(frozen=True)
class Captures:
    """What is read off one forward of a RecBole model.

    Attributes:
        representation: its parts, concatenated.
        logits: where the logit is, for a model whose ``forward`` returns probabilities; None where it
            returns the logit itself.
    """

    representation: tuple[CapturePoint, ...]
    logits: CapturePoint | None = None


def _input(*modules: str) -> Captures:
    return Captures(tuple(CapturePoint(module) for module in modules))


#: What to read off each RecBole model.
CAPTURES: dict[str, Captures] = {
    "AFM": Captures((CapturePoint("dropout_layer", "output"),)),
    "AutoInt": _input("attn_fc", "deep_predict_layer"),
    "DCN": _input("predict_layer"),
    "DCNV2": Captures((CapturePoint("predict_layer"),), logits=CapturePoint("predict_layer", "output")),
    "DSSM": Captures((CapturePoint("user_mlp_layers", "output"), CapturePoint("item_mlp_layers", "output"))),
    "DeepFM": _input("deep_predict_layer"),
    "EulerNet": _input("reg"),  # called for the real and for the imaginary part
    "FFM": Captures((CapturePoint("ffm", "output", "sum_pairs"),)),
    "FM": Captures((CapturePoint("fm", "input", "bi_interaction"),)),
    "FNN": _input("predict_layer"),
    "FiGNN": _input("mlp2"),
    "NFM": _input("predict_layer"),
    "PNN": _input("predict_layer"),
    "WideDeep": _input("deep_predict_layer"),
    "xDeepFM": _input("cin_linear", "mlp_layers.mlp_layers.-2"),
}


@dataclass
class CTROutput:
    """What one forward of a CTR model gives.

    Attributes:
        representation: [B, R], the vector the last layer scores.
        logits: [B], before the sigmoid.
        returned: what the model's ``forward`` returned, its own loss is computed from it: the logits, or the
            probabilities of a model that returns those.
    """

    representation: Tensor
    logits: Tensor
    returned: Tensor


class Backbone(nn.Module):
    """A RecBole ``ContextRecommender`` seen as a tower.

    The model itself is never changed: hooks live for the length of one forward, so copies and pickles of it
    carry none.

    Args:
        model: a built RecBole context-aware model.
        example: a few joined rows, to learn the size of the representation.
        captures: what to read off a forward; default, that of :data:`CAPTURES` for the model's class.

    Raises:
        ValueError: no captures are known for the class, or the model never reaches one of them.
    """

    def __init__(self, model: Any, example: Interaction, captures: Captures | None = None):
        super().__init__()
        self.model = model
        name = type(model).__name__
        known = captures or CAPTURES.get(name)
        if known is None:
            raise ValueError(f"no capture points are known for {name}: known are {', '.join(CAPTURES)}")
        self.captures = known
        self.fields = table_fields(model)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            self.representation_size = int(self(example).representation.shape[1])
        model.train(was_training)

    def forward(self, interaction: Interaction) -> CTROutput:
        """Representation [B, R] and logits [B] of a batch, in one forward of the model."""
        points = [*self.captures.representation, *([self.captures.logits] if self.captures.logits else [])]
        captured: list[list[Tensor]] = [[] for _ in points]
        with self._capturing(points, captured):
            returned = self.model.forward(interaction)
        compat.drop_activations(self.model)
        missing = [point.module for point, calls in zip(points, captured, strict=True) if not calls]
        if missing:
            raise ValueError(f"{type(self.model).__name__}.forward never reached {', '.join(missing)}")
        logits = captured.pop()[0].squeeze(-1) if self.captures.logits else returned
        parts = [
            REDUCTIONS[point.reduce](call)
            for point, calls in zip(self.captures.representation, captured, strict=True)
            for call in calls
        ]
        return CTROutput(torch.cat(parts, dim=1), logits, returned)

    def loss(self, interaction: Interaction, output: CTROutput) -> Tensor:
        """The model's own ``calculate_loss``, regulariser included, without a second forward."""
        with self._forward_is(output.returned):
            return self.model.calculate_loss(interaction)

    def regulariser(self, interaction: Interaction, output: CTROutput) -> Tensor:
        """What the model's own loss adds to the cross-entropy, a scalar with its gradient; needs no label."""
        returned = output.returned.detach()
        label = torch.zeros_like(returned)
        unlabelled = Interaction(interaction.interaction | {self.model.LABEL: label})
        with self._forward_is(returned):
            return self.model.calculate_loss(unlabelled) - self.model.loss(returned, label)

    @contextmanager
    def _capturing(self, points: Sequence[CapturePoint], captured: list[list[Tensor]]) -> Iterator[None]:
        handles = []
        for point, calls in zip(points, captured, strict=True):
            module = _submodule(self.model, point.module)
            if point.side == "input":
                handles.append(module.register_forward_pre_hook(_keep_input(calls)))
            else:
                handles.append(module.register_forward_hook(_keep_output(calls)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _forward_is(self, returned: Tensor) -> Iterator[None]:
        """For the while, ``self.model.forward`` returns ``returned``; RecBole's losses call it by name."""
        self.model.forward = lambda *args, **kwargs: returned
        try:
            yield
        finally:
            del self.model.forward


def _keep_input(calls: list[Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        calls.append(args[0])

    return hook


def _keep_output(calls: list[Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(output)

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
