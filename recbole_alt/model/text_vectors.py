"""Frozen texts as short vectors, and these vectors as one more field of a CTR model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from logging import getLogger
from typing import Any

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.layers import FMFirstOrderLinear
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor, nn

from recbole_alt import checkpoints, processes
from recbole_alt.data.prompts import PromptTable
from recbole_alt.model.language import LanguageModel
from recbole_alt.model.text_cache import TextCache

_NO_SPREAD = 1e-6  # a singular value that is only rounding
_SOURCES = {"user": FeatureSource.USER, "item": FeatureSource.ITEM}


def id_field(dataset: Any, side: str, key: str) -> str:
    """The field with the ids of ``side``, ``user`` or ``item``; a ValueError about ``key`` if there is none."""
    name = {"user": dataset.uid_field, "item": dataset.iid_field}[side]
    if name is None:
        raise ValueError(f"{key}: the data have no {side}s: give {side.upper()}_ID_FIELD, or leave {side} out")
    return str(name)


def text_vectors(dataset: Any, side: str, load: Callable[[], LanguageModel], key: str) -> Tensor:
    """The vectors [n, K] of the texts of the n ids of ``side``, ``user`` or ``item``; each text is encoded once.

    A vector holds the first K principal components of the pooled state of the text in the language model as it was
    before any training; K is ``text_vector_size``, or else the width of the state. They are fitted on the distinct
    texts of training rows, and scaled so that the mean square length of the vectors of these texts is 1. Where there
    are fewer components, the last numbers are 0. A text without any value, and that of the padding id 0, has the
    vector 0.

    Args:
        dataset: the built training dataset, which keeps the vectors.
        load: loads the language model, on the device to be used; random generators are left as they were.
        key: the key that asks for the vectors, for errors.

    Raises:
        ValueError: the side has no texts of its own.
    """
    if side not in dataset.text_vectors:
        before = checkpoints.rng_state()
        everyone = {id_field(dataset, side, key): torch.arange(dataset.num(id_field(dataset, side, key)))}
        make = partial(make_vectors, dataset, side, load, key, dataset.prompts, everyone)
        dataset.text_vectors[side] = processes.from_first(make)
        checkpoints.set_rng_state(before)
    return dataset.text_vectors[side]


@torch.no_grad()
def make_vectors(
    dataset: Any, side: str, load: Callable[[], LanguageModel], key: str, prompts: PromptTable, entities: Any
) -> Tensor:
    """:func:`text_vectors` of ``entities``, columns that determine their ``prompts``: all ids, and new ones behind."""
    owner = id_field(dataset, side, key)
    segment = next((segment for segment in prompts.segments if segment.name == side), None)
    if segment is None:
        raise ValueError(
            f"{key}: the {side}s have no texts of their own: load fields that describe them, or list these in "
            f"prompt_only, with prompt_scope: entity; or leave {side} out"
        )
    texts = prompts.distinct_of(segment, entities)
    language_model = load().eval()
    states = TextCache(language_model).pooled(texts, next(language_model.parameters()).device).cpu()
    said = torch.from_numpy(texts.pieces.any(1))
    trained = torch.zeros(len(states), dtype=torch.bool)
    trained[texts.row[dataset.inter_feat[owner]]] = True
    size = dataset.config["text_vector_size"] or states.shape[1]
    vectors = torch.zeros(len(states), size)
    vectors[said] = principal_components(states[said], trained[said], size)
    fitted = int((trained & said).sum())
    getLogger().info(f"{key}: {len(states):,} texts of {side}s, {fitted:,} of them in training rows, made vectors")
    by_id = vectors[texts.row]
    by_id[0] = 0
    return by_id


def principal_components(states: Tensor, known: Tensor, size: int) -> Tensor:
    """The first ``size`` principal components [N, size] of ``states`` [N, H], fitted on those that are ``known`` [N].

    They are scaled together, so that the mean square length of the known vectors is 1: what is alike stays alike.
    Components that so few or so equal states do not have are 0.
    """
    centred = states.double()
    centred = centred - centred[known].mean(0)
    _, spread, axes = torch.linalg.svd(centred[known], full_matrices=False)
    found = centred @ axes[spread > _NO_SPREAD][:size].T
    if not found.shape[1]:
        return torch.zeros(len(states), size)
    length = found[known].square().sum(1).mean().sqrt()
    return F.pad(found / length, (0, size - found.shape[1])).float()


def field_name(side: str) -> str:
    """The name of the field that holds the text vectors of ``side``."""
    return f"{side}_text"


def with_text_fields(config: Any, dataset: Any, vectors: Mapping[str, Tensor]) -> tuple[Any, Any]:
    """``config`` and ``dataset`` as a model with fields of text vectors is to see them, as copies.

    A field is a ``float_seq`` of RecBole, of which its models embed the mean ``1/K · Σ_k x_k · e_k`` over the ``K``
    numbers of a row; with ``x_k = K · v_k`` that is a linear map of the vector ``v``. It is the last of its kind. The
    interactions that ``dataset`` joins hold the columns from then on; models that are built without these fields pass
    them over.

    Args:
        vectors: ``user`` or ``item`` → the vectors [n, K] by id.

    Raises:
        ValueError: the data have a field of that name already, or no file about a side.
    """
    config, view = copy.copy(config), copy.copy(dataset)
    names = [field_name(side) for side in vectors]
    numerical = [*(config["numerical_features"] or []), *names]
    config.final_config_dict = {**config.final_config_dict, "numerical_features": numerical}
    view.config = config
    for properties in ("field2type", "field2source", "field2seqlen", "field2bucketnum"):
        setattr(view, properties, dict(getattr(dataset, properties)))
    for side, of_side in vectors.items():
        name, feat, size = field_name(side), getattr(dataset, f"{side}_feat"), of_side.shape[1]
        if name in dataset.field2type:
            raise ValueError(f"text_field: the data have a field {name!r} of their own: rename that column")
        if feat is None:
            raise ValueError(f"text_field: there is no .{side} file: give one, or leave {side} out")
        view.field2type[name], view.field2source[name] = FeatureType.FLOAT_SEQ, _SOURCES[side]
        view.field2seqlen[name], view.field2bucketnum[name] = size, size + 1
        feat.update(Interaction({name: as_sequence(of_side)}))
    return config, view


def as_sequence(vectors: Tensor) -> Tensor:
    """Vectors [n, K] as RecBole holds a ``float_seq``, [n, K, 2]; see :func:`with_text_fields`."""
    size = vectors.shape[1]
    return torch.stack([size * vectors, torch.arange(1, size + 1, dtype=vectors.dtype).expand_as(vectors)], dim=-1)


def embed_by_product(model: nn.Module, names: Collection[str]) -> None:
    """Let ``model`` embed the fields ``names`` of text vectors by a matrix product instead of number by number.

    RecBole's ``embed_float_seq_fields`` looks up an embedding for each of the K numbers of a row, [B, K, D]. The values
    are the same, except for rounding. FFM calls another function, and stays as it is.

    Args:
        model: built with :func:`with_text_fields`.
    """
    owner: Any
    for owner in model.modules():
        fields = list(getattr(owner, "float_seq_field_names", ()))
        if set(names) & set(fields) and hasattr(owner, "float_seq_embedding_table"):
            others = len(fields) - len(names)
            assert set(fields[others:]) == set(names), f"text vectors are not the last of {fields}"
            owner.embed_float_seq_fields = partial(_embed_by_product, owner, others)


def _embed_by_product(owner: Any, others: int, columns: Sequence[Tensor], mode: str = "mean") -> Tensor:
    """RecBole's ``embed_float_seq_fields``: [B, fields, D], or the sum [B, 1, 1] of first-order weights."""
    embedded = [type(owner).embed_float_seq_fields(owner, columns[:others], mode)] if others else []
    for column, table in zip(columns[others:], list(owner.float_seq_embedding_table)[others:], strict=True):
        numbers, weight = column[..., 0], table.weight[1:]
        embedded.append((numbers @ weight / len(weight)).unsqueeze(1))
    found = torch.cat(embedded, dim=1)
    return found.sum(1, keepdim=True) if isinstance(owner, FMFirstOrderLinear) else found
