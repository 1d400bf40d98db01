"""Grounded embeddings: a free part, and a linear map of the entity's frozen text vector that is added up at the end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_alt.model.backbones import Backbone
from recbole_alt.model.captures import reached
from recbole_alt.model.recording import CapturePoint

#: Where a :class:`Backbone` keeps them, as its state dict names them.
PREFIX = "grounding."
#: Where the checkpoint of a finetuned model, whose embeddings are added up, keeps what :func:`maps_of` returns.
MAPS = "grounding_maps"
#: Where RecBole's ``ContextRecommender`` has a weight for each value.
_FIRST_ORDER = "first_order_linear."


class GroundedField(nn.Module):
    """What texts add to the embeddings of one field: ``M · v``, with one map ``M`` per table and a vector ``v`` per id.

    While this exists, what the tables return for ids of the field has ``M · v`` added to it; their weights are the free
    parts. The maps start as zeros, so that an untrained model is the plain one.

    Args:
        tables: path below the model → the table, in whose rows from ``first`` on the ids of the field are.
        vectors: of the texts, [n, K] by id; that of the padding id 0 is zero.
    """

    vectors: Tensor

    def __init__(self, tables: Mapping[str, nn.Embedding], first: int, vectors: Tensor):
        super().__init__()
        self.tables, self.first = tuple(tables), first
        device = next(iter(tables.values())).weight.device
        self.register_buffer("vectors", vectors.to(device))
        self.maps = nn.ParameterList(
            torch.zeros(table.embedding_dim, vectors.shape[1], device=device) for table in tables.values()
        )
        self.hooks = [
            table.register_forward_hook(partial(self._add, number)) for number, table in enumerate(tables.values())
        ]

    def _add(self, number: int, table: nn.Module, given: tuple[Tensor, ...], embedded: Tensor) -> Tensor:
        ids = given[0] - self.first
        ids = ids.where((ids >= 0) & (ids < len(self.vectors)), 0)
        return embedded + F.linear(F.embedding(ids, self.vectors), self.maps[number])

    def parts(self) -> Iterator[tuple[str, Tensor]]:
        """The path of each table, and what is to be added to the field's rows of it, [n, D]."""
        return ((path, F.linear(self.vectors, weight)) for path, weight in zip(self.tables, self.maps, strict=True))

    @property
    def rows(self) -> slice:
        """The rows of the tables in which the ids of the field are."""
        return slice(self.first, self.first + len(self.vectors))


@torch.no_grad()
def ground(backbone: Backbone, side: str, field: str, vectors: Tensor, example: Interaction) -> None:
    """Ground the embeddings of ``field``, the ids of ``side``, in the ``vectors`` [n, K] of their texts.

    Every table of the model that embeds the field is grounded, save for first-order weights, which are grounded where
    the model has nothing else (LR).

    Args:
        example: a few joined rows.

    Raises:
        ValueError: the model scores no embeddings of the field.
    """
    model: Any = backbone.model
    names, sizes = list(model.token_field_names), list(model.token_field_dims)
    was_training = model.training
    model.eval()
    tables = {
        path: part
        for path, part in model.named_modules()
        if isinstance(part, nn.Embedding)
        and "token" in path
        and part.num_embeddings == sum(sizes)  # RecBole stacks all token fields in one table
        and reached(model, CapturePoint(path, "output"), example)
    }
    model.train(was_training)
    tables = {path: table for path, table in tables.items() if not path.startswith(_FIRST_ORDER)} or tables
    if field not in names or not tables:
        raise ValueError(f"grounded: {type(model).__name__} scores no embeddings of {field!r}: leave {side} out")
    backbone.grounding[side] = GroundedField(tables, sum(sizes[: names.index(field)]), vectors)


def map_rate(backbone: Backbone | None, given: float | None) -> float:
    """The learning rate of the maps of ``backbone``, as a multiple of its own: ``given``, the key ``grounding_rate``.

    If that is empty, it is 1 for first-order weights, which then learn as those of a text field do, and 0.3 for
    embeddings, all of which a step of a map moves.
    """
    if given is not None:
        return given
    paths = [path for field in (backbone.grounding.values() if backbone else ()) for path in field.tables]
    return 1.0 if paths and all(path.startswith(_FIRST_ORDER) for path in paths) else 0.3


def vectors_in(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """``user`` or ``item`` → the vectors in the state of a grounded :class:`Backbone`."""
    end = ".vectors"
    found = {key: value for key, value in state.items() if key.startswith(PREFIX) and key.endswith(end)}
    return {key.removeprefix(PREFIX).removesuffix(end): value for key, value in found.items()}


@torch.no_grad()
def clear_unseen(backbone: Backbone, side: str, ids: Tensor) -> None:
    """Let every id that is not among ``ids``, those of training rows, start where its text says: zero the free part."""
    field: GroundedField = backbone.grounding[side]
    unseen = torch.ones(len(field.vectors), dtype=torch.bool)
    unseen[ids] = False
    unseen[0] = False  # stands for a hidden value
    for path in field.tables:
        table: Any = backbone.model.get_submodule(path)
        table.weight[field.rows][unseen.to(table.weight.device)] = 0


@torch.no_grad()
def merged_state(
    backbone: Backbone, state: Mapping[str, Any], prefix: str = "", sides: Collection[str] | None = None
) -> dict[str, Any]:
    """``state``, which holds the state of ``backbone`` below ``prefix``, as the plain model's: both parts added up.

    Args:
        sides: only these are added up; None for all.
    """
    merged = dict(state)
    for side, field in backbone.grounding.items():
        if sides is not None and side not in sides:
            continue
        for path, part in field.parts():
            key = f"{prefix}model.{path}.weight"
            merged[key] = merged[key].clone()
            merged[key][field.rows] += part
        for key in field.state_dict():
            del merged[f"{prefix}{PREFIX}{side}.{key}"]
    return merged


def maps_of(backbone: Backbone) -> dict[str, dict[str, Tensor]]:
    """``user`` or ``item`` → path below the model of each table that is grounded → its map [D, K]."""
    return {
        side: {path: weight.detach() for path, weight in zip(field.tables, field.maps, strict=True)}
        for side, field in backbone.grounding.items()
    }


def merge(backbone: Backbone, side: str) -> None:
    """Add both parts up in the tables of ``backbone``, which is not grounded on ``side`` any more."""
    state = merged_state(backbone, backbone.state_dict(), sides=[side])
    release(backbone, side)
    backbone.load_state_dict(state)


def release(backbone: Backbone, side: str) -> None:
    """Forget what texts add to the embeddings of ``side``, and leave the tables as they are."""
    for hook in backbone.grounding.pop(side).hooks:
        hook.remove()
