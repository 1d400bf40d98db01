"""Whether users, and items, with similar texts have similar embeddings in a CTR model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from recbole_alt.model.backbones import Backbone
from recbole_alt.model.field_tables import field_tables
from recbole_alt.questions.reading import pretrained_states, sample

_ENTITIES = 1000  # users, or items, that are compared in pairs
_NEAREST = 10
_SHUFFLES = 5  # how often texts are dealt out to others


@dataclass(frozen=True)
class Likeness:
    """How alike texts and embeddings are, of one kind of entity in one model.

    Attributes:
        correlation: Spearman's, over pairs, of the cosine of their texts with that of their embeddings.
        with_others: the same for texts dealt out to other entities: chance.
        nearest: of the 10 with the nearest texts, the share among the 10 with the nearest embeddings; of several that
            are equally near, each counts in part.
        nearest_by_chance: that share of any others.
    """

    correlation: float
    with_others: float
    nearest: float
    nearest_by_chance: float


@torch.no_grad()
def likeness(config: Any, backbones: Mapping[str, Backbone], dataset: Any) -> dict[str, dict[str, dict[str, float]]]:
    """Segment of the prompt (user, item) → stage of ``backbones`` → the fields of :class:`Likeness`.

    Vectors are less their mean. Texts are read by the language model as it was before alignment. Empty with
    ``prompt_scope: interaction``, whose texts are of pairs.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    if config["prompt_scope"] != "entity":
        return found
    cache, device = pretrained_states(config, dataset.prompts), config["device"]
    for position, segment in enumerate(dataset.prompts.segments):
        entity = {"user": dataset.uid_field, "item": dataset.iid_field}.get(segment.name)
        if entity is None or entity not in field_tables(backbones["aligned"]):
            continue
        _, first = np.unique(dataset.inter_feat[entity].numpy(), return_index=True)
        rows = dataset[sample(first, _ENTITIES, config["seed"])]
        texts = dataset.prompts.distinct(rows)[position]
        states = cache.pooled(texts, device)
        said = (states - states.mean(0))[texts.row.to(device)]
        found[segment.name] = {}
        for stage, backbone in backbones.items():
            vectors = field_tables(backbone)[entity](rows[entity].to(device))
            found[segment.name][stage] = asdict(compare(said, vectors - vectors.mean(0), config["seed"]))
    return found


def compare(texts: Tensor, embeddings: Tensor, seed: int) -> Likeness:
    """How alike the pairs of [N, H] and of [N, E], row by row of the same entity, are; NaN for fewer than 3."""
    said, learned = cosines(texts), cosines(embeddings)
    number, rng = len(said), np.random.default_rng(seed)
    if number < 3:
        return Likeness(*[float("nan")] * 4)
    pairs = np.triu_indices(number, 1)
    ranks = np.zeros_like(said)
    ranks[pairs] = rankdata(said[pairs])
    ranks += ranks.T
    of_learned = rankdata(learned[pairs])
    orders = [np.arange(number), *(rng.permutation(number) for _ in range(_SHUFFLES))]
    own, *others = (correlation(ranks[np.ix_(order, order)][pairs], of_learned) for order in orders)
    k = min(_NEAREST, number - 1)
    agreement = (nearest(said, k) * nearest(learned, k)).sum(1).mean() / k
    return Likeness(own, fmean(others), float(agreement), k / (number - 1))


def cosines(vectors: Tensor) -> np.ndarray:
    """The cosines of all pairs of rows of [N, D], [N, N]; equal vectors have equal ones."""
    unit = F.normalize(vectors.double(), dim=1)
    return (unit @ unit.T).cpu().numpy().round(9)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of [M] and [M]; NaN if either is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def nearest(similarity: np.ndarray, k: int) -> np.ndarray:
    """[N, N], 1 for the ``k`` most similar others of each row, a share for those that tie for the last places."""
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    least = -np.partition(-others, k - 1, axis=1)[:, k - 1 : k]
    above, tied = others > least, others == least
    return above + tied * ((k - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True))
