"""Reading tensors off one forward of a model that is left as it was."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn


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
    with ExitStack() as undo:
        for point, calls in zip(points, captured, strict=True):
            undo.callback(_listen(model, point, calls.append))
        yield
        for point, calls in zip(points, captured, strict=True):
            if point.side == "attribute":
                owner, _, name = point.module.rpartition(".")
                calls.append(getattr(submodule(model, owner), name))


def _listen(model: Any, point: CapturePoint, keep: Callable[[Tensor], None]) -> Callable[[], None]:
    """Let ``keep`` have what each call passes ``point``; returns what ends that."""
    if point.side == "attribute" or (point.side == "result" and not hasattr(model, point.module)):
        return lambda: None
    if point.side == "result":
        method = getattr(model, point.module)

        def keep_result(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            parts = result if isinstance(result, tuple) else (result,)
            keep(torch.cat([part for part in parts if part is not None], dim=1))
            return result

        setattr(model, point.module, keep_result)
        return lambda: delattr(model, point.module)
    module = submodule(model, point.module)
    if point.side == "output":
        return module.register_forward_hook(lambda module, given, output: keep(output)).remove
    if point.side == "terms":
        return module.register_forward_pre_hook(lambda module, given: keep(first_order_terms(module, given[0]))).remove
    return module.register_forward_pre_hook(lambda module, given: keep(given[0])).remove


def submodule(model: nn.Module, path: str) -> nn.Module:
    """The part of ``model`` at a dotted path; the model itself for an empty one."""
    module = model
    for part in filter(None, path.split(".")):
        module = module[int(part)] if part.lstrip("-").isdigit() else getattr(module, part)  # type: ignore[index]
    return module


def first_order_terms(layer: Any, interaction: Interaction) -> Tensor:
    """What each field adds to a logistic regression, [B, F]; their sum and ``layer.bias`` are what ``layer`` returns.

    ``layer`` is RecBole's ``FMFirstOrderLinear`` (``recbole/model/layers.py``).
    """
    terms: list[Tensor] = []
    if layer.token_field_names:
        ids = torch.stack([interaction[name] for name in layer.token_field_names], 1)
        terms.append(layer.token_embedding_table(ids).squeeze(-1))
    for i, name in enumerate(layer.token_seq_field_names):
        ids = interaction[name]
        terms.append((layer.token_seq_embedding_table[i](ids).squeeze(-1) * (ids != 0)).sum(1, keepdim=True))
    if layer.float_field_names:
        values = [interaction[name] for name in layer.float_field_names]
        stacked = torch.cat([value if value.dim() == 3 else value.unsqueeze(1) for value in values], 1)
        terms.append(layer.float_embedding_table(stacked).squeeze(-1))
    for i, name in enumerate(layer.float_seq_field_names):
        value, row = interaction[name].unbind(-1)
        present = row != 0
        weighted = value * layer.float_seq_embedding_table[i](row.long()).squeeze(-1) * present
        terms.append(weighted.sum(1, keepdim=True) / (present.sum(1, keepdim=True) + 1e-8))
    return torch.cat(terms, 1)
