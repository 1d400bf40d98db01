"""Reading tensors off one forward of a model that is left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_alt.model.first_order import first_order_terms


@dataclass(frozen=True)
class CapturePoint:
    """A place in a model whose tensor is read in passing.

    Attributes:
        module: dotted path inside the model; a negative number counts from the end of a ``Sequential``.
        side: ``input`` or ``output`` of that module; ``terms``, one per field, that RecBole's first-order layer
            adds up; ``result`` of a method of the model, or ``attribute`` a forward leaves behind, named by ``module``.
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
    "fixed": lambda captured: captured.detach().flatten(1),
    "sum_pairs": lambda captured: captured.sum(1),
    "sum_embedding": lambda captured: captured.sum(-1),
    "bi_interaction": _bi_interaction,
}


@contextmanager
def recording(model: Any, points: Sequence[CapturePoint], captured: list[list[Tensor]]) -> Iterator[None]:
    """For the while, append to ``captured[i]`` what each call passes ``points[i]``; no hook is left behind.

    An ``attribute`` is read when the while ends.
    """
    handles, methods = [], []
    for point, calls in zip(points, captured, strict=True):
        if point.side == "attribute":
            continue
        if point.side == "result":
            method = getattr(model, point.module, None)
            if method is not None:
                methods.append(point.module)
                setattr(model, point.module, _keep_result(method, calls))
            continue
        module = _submodule(model, point.module)
        if point.side == "output":
            handles.append(module.register_forward_hook(_keep_output(calls)))
        else:
            handles.append(module.register_forward_pre_hook(_keep_input(calls, terms=point.side == "terms")))
    try:
        yield
        for point, calls in zip(points, captured, strict=True):
            if point.side == "attribute":
                owner, _, name = point.module.rpartition(".")
                calls.append(getattr(_submodule(model, owner), name))
    finally:
        for handle in handles:
            handle.remove()
        for name in methods:
            delattr(model, name)


def _keep_result(method: Callable[..., Any], calls: list[Tensor]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        parts = result if isinstance(result, tuple) else (result,)
        calls.append(torch.cat([part for part in parts if part is not None], dim=1))
        return result

    return wrapped


def _keep_input(calls: list[Tensor], *, terms: bool) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        calls.append(first_order_terms(module, args[0]) if terms else args[0])

    return hook


def _keep_output(calls: list[Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        calls.append(output)

    return hook


def _submodule(model: nn.Module, path: str) -> nn.Module:
    module = model
    for part in filter(None, path.split(".")):
        module = module[int(part)] if part.lstrip("-").isdigit() else getattr(module, part)  # type: ignore[index]
    return module
