"""What is read off one forward of a CTR model: where its representation is, and its logit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
        side: ``input`` or ``output`` of a module, or ``result`` of a method of the model named by ``module``.
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

#: The flattened embeddings of all fields: a representation every model has that calls RecBole's method for it.
FIELD_EMBEDDINGS = CapturePoint("concat_embed_input_fields", "result")


def captures_of(model: Any, example: Interaction) -> Captures:
    """What to read off ``model``: declared by its class, known for its name, or found.

    A class declares by an attribute ``captures``. Otherwise, for a class RecBole does not have, the inputs of
    the linear layers with one output that its forward calls (first-order terms apart) are taken; failing that,
    its field embeddings.

    Args:
        model: a RecBole context-aware model.
        example: a few joined rows.

    Raises:
        ValueError: none of these exist; the message says what to declare.
    """
    declared = getattr(model, "captures", None)
    if isinstance(declared, Captures):
        return declared
    if type(model).__module__.startswith("recbole.") and type(model).__name__ in CAPTURES:
        return CAPTURES[type(model).__name__]
    last = [
        CapturePoint(name)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1 and not name.startswith("first_order_linear")
    ]
    for points in ([p for p in last if _reached(model, p, example)], [FIELD_EMBEDDINGS]):
        if points and all(_reached(model, point, example) for point in points):
            return Captures(tuple(points), _found_logits(model, points, example))
    name = type(model).__name__
    raise ValueError(
        f"no representation is known or found in {name}: declare it in the class, for instance "
        f'captures = Captures((CapturePoint("name_of_the_last_layer"),)) from recbole_alt.model.captures; '
        f"known are {', '.join(CAPTURES)}"
    )


def _found_logits(model: Any, points: Sequence[CapturePoint], example: Interaction) -> CapturePoint | None:
    """Where the logit is, when the model's ``forward`` already returns what ``predict`` does."""
    predicted = model.predict(example)
    if not torch.equal(model.forward(example), predicted):
        return None
    for point in points:
        output = CapturePoint(point.module, "output")
        captured: list[list[Tensor]] = [[]]
        if point.side == "input":
            with recording(model, [output], captured):
                model.forward(example)
            if torch.allclose(captured[0][0].squeeze(-1).sigmoid(), predicted):
                return output
    raise ValueError(
        f"{type(model).__name__}.forward returns probabilities and its logit was not found: declare it in the class, "
        'for instance captures = Captures((CapturePoint("last"),), logits=CapturePoint("last", "output"))'
    )


def _reached(model: Any, point: CapturePoint, example: Interaction) -> bool:
    captured: list[list[Tensor]] = [[]]
    with recording(model, [point], captured):
        model.forward(example)
    return bool(captured[0]) and all(len(call) == len(example) for call in captured[0])


@contextmanager
def recording(model: Any, points: Sequence[CapturePoint], captured: list[list[Tensor]]) -> Iterator[None]:
    """For the while, append to ``captured[i]`` what each call passes ``points[i]``; no hook is left behind."""
    handles, methods = [], []
    for point, calls in zip(points, captured, strict=True):
        if point.side == "result":
            method = getattr(model, point.module, None)
            if method is not None:
                methods.append(point.module)
                setattr(model, point.module, _keep_result(method, calls))
            continue
        module = _submodule(model, point.module)
        if point.side == "input":
            handles.append(module.register_forward_pre_hook(_keep_input(calls)))
        else:
            handles.append(module.register_forward_hook(_keep_output(calls)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for method_name in methods:
            delattr(model, method_name)


def _keep_result(method: Callable[..., Tensor], calls: list[Tensor]) -> Callable[..., Tensor]:
    def wrapped(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(method(*args, **kwargs))
        return calls[-1]

    return wrapped


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
