"""What texts tell of users and items that no training row has: ``recbole-alt unseen RUN``.

A fifth of the items at a time is left out of everything, and their click rates are predicted by a ridge regression: on
their fields, which a CTR model has, too, and on these and their texts; users likewise. It takes a minute where a
comparison takes hours: where a linear model that is made for nothing else gains little on what is new, a CTR model will
hardly gain more. It reads the training rows of a run, and needs no alignment.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.utils import FeatureType
from scipy.sparse import csr_array
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from recbole_alt import checkpoints
from recbole_alt.loading import Data, load_data_of
from recbole_alt.markdown import markdown_table
from recbole_alt.metrics import auc
from recbole_alt.model.build import load_text_vectors
from recbole_alt.questions.reading import finetuned, sample
from recbole_alt.statistics import t_interval

_PARTS = 5
_MOST = 4_000  # users or items that are read at most
_FEWEST = 50  # fewer tell nothing
_SHARED = 5  # how many must have a value of a field for it to be a feature
_HELD_BACK = 10  # rows after which half of a user's or an item's own click rate is believed
_ROUNDS = 8  # the click rates of users and of items are estimated in turns
_WORD_COMPONENTS = 300
_TEXT_SCALES = (0.0, 0.3, 1.0, 3.0, 10.0)  # how freely texts are followed beside the fields, if at all
_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass
class Unseen:
    """What texts tell of the users, or of the items, that are left out.

    Attributes:
        side: ``user`` or ``item``.
        entities, rows: how many of these are in the training rows, and the rows.
        fields: AUC on the rows of each part when it is left out, by the other side's click rates and the fields.
        words: by the words of the texts, too (TF-IDF of their tokens), for which no language model is needed.
        texts: by the frozen text vectors, too.
        others: by those of others' texts.
    """

    side: str
    entities: int
    rows: int
    fields: list[float]
    words: list[float]
    texts: list[float]
    others: list[float]


class Rows(NamedTuple):
    """Of each of M rows: whether it is a click, which of the N it is of, and which on the other side; each [M]."""

    clicked: np.ndarray
    of: np.ndarray
    other: np.ndarray

    def where(self, kept: np.ndarray) -> "Rows":
        """Only the rows that are ``kept``, [M]."""
        return Rows(*(column[kept] for column in self))


def unseen(folder: str | os.PathLike[str], data: Data | None = None) -> list[Unseen]:
    """Ask the training rows of a run, for each side that has texts of its own.

    Args:
        folder: of the run, or one of its checkpoints, which all have the same training rows.
        data: what :func:`~recbole_alt.loading.load_data` made for the run, so as not to read it again.

    Raises:
        ValueError: no finetuned model there, its data are other ones now, no side has texts of its own, or there are
            too few users and items, or clicks.
    """
    file = finetuned(folder)[0]
    state = checkpoints.load(file)
    train = load_data_of(state, file, data)[1]._dataset
    sides = [segment.name for segment in train.prompts.segments if segment.name in ("user", "item")]
    if not sides:
        raise ValueError("unseen: neither users nor items have texts of their own: run with prompt_scope: entity")
    found = [one for side in sides if (one := ask(state["config"], train, side)) is not None]
    if not found:
        raise ValueError(f"unseen: there are fewer than {_FEWEST} {' and '.join(f'{side}s' for side in sides)} to ask")
    return found


def ask(config: Any, train: Any, side: str) -> Unseen | None:
    """What the texts of ``side``, ``user`` or ``item``, tell; None, with a warning, of too few in the training rows.

    Raises:
        ValueError: a part of them has rows of one class only.
    """
    own, other = (train.uid_field, train.iid_field) if side == "user" else (train.iid_field, train.uid_field)
    ids = train.inter_feat[own].numpy()
    kept = sample(np.unique(ids), _MOST, config["seed"])
    if len(kept) < _FEWEST:
        getLogger().warning(f"unseen: of {len(kept)} {side}s in the training rows nothing can be told")
        return None
    clicked = train.inter_feat[train.label_field].numpy() > 0.5
    rows = Rows(clicked, np.searchsorted(kept, ids), train.inter_feat[other].numpy()).where(np.isin(ids, kept))
    vectors = load_text_vectors(config, train, side, "unseen").cpu().double().numpy()[kept]
    exchanged = np.random.default_rng(config["seed"]).permutation(vectors)
    texts = [None, word_vectors(train, side, own, kept), vectors, exchanged]
    fields = field_columns(getattr(train, f"{side}_feat"), train, own, kept)
    return Unseen(side, len(kept), len(rows.of), *left_out(rows, fields, texts, config["seed"]))


def field_columns(feat: Any, train: Any, own: str, ids: np.ndarray) -> np.ndarray:
    """The fields of ``ids`` [N] that a CTR model reads, but for their id, ``own``, as numbers [N, F].

    A number is standardised. A value of tokens, or of sequences of them, that enough of ``ids`` have is a column that
    is 1 where it is there.
    """
    read = train.config["numerical_features"] or []
    columns = [np.ones((len(ids), 1))]
    for name in feat.columns if feat is not None else ():
        kind, values = train.field2type[name], feat[name].numpy()[ids].reshape(len(ids), -1)
        if kind == FeatureType.FLOAT and name in read:
            columns.append(standard(values[:, :1].astype(np.float64)))
        elif kind in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ) and name != own:
            place = np.repeat(np.arange(len(ids)), values.shape[1])
            has = csr_array((np.ones(values.size), (place, values.ravel())), (len(ids), train.num(name))) > 0
            count = np.asarray(has.sum(axis=0)).ravel()
            count[0] = 0  # no value
            columns.append(has[:, np.flatnonzero(count >= _SHARED)].toarray().astype(np.float64))
    return np.concatenate(columns, axis=1)


def word_vectors(train: Any, side: str, own: str, ids: np.ndarray) -> np.ndarray:
    """The tokens of the values in the texts of ``ids`` [N], weighted by TF-IDF, as components [N, K]."""
    segment = next(segment for segment in train.prompts.segments if segment.name == side)
    texts = train.prompts.distinct_of(segment, {own: torch.from_numpy(ids)})
    batch = texts.join()
    text, place = np.nonzero(batch.field_ids.numpy() >= 0)
    token = batch.input_ids.numpy()[text, place]
    counts = csr_array((np.ones(len(text)), (text, token)), (len(batch.lengths), int(token.max(initial=0)) + 2))
    weights = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    size = max(1, min(_WORD_COMPONENTS, len(batch.lengths) - 1))
    components: np.ndarray = TruncatedSVD(size, random_state=0).fit_transform(weights)
    return components[texts.row.numpy()]


def left_out(rows: Rows, fields: np.ndarray, texts: Sequence[np.ndarray | None], seed: int) -> list[list[float]]:
    """For each of ``texts``, vectors [N, K] or none: the AUC on the rows of each part of the N when it is left out.

    Args:
        rows: of all N.
        fields: [N, F].
        seed: of the parts.

    Raises:
        ValueError: a part has rows of one class only.
    """
    reached: list[list[float]] = [[] for _ in texts]
    for known, new in KFold(_PARTS, shuffle=True, random_state=seed).split(fields):
        of_new = np.isin(rows.of, new)
        learned, asked = rows.where(~of_new), rows.where(of_new)
        effect, other_effect = effects(learned, len(fields), int(rows.other.max()) + 1)
        weight = (count := np.bincount(learned.of, minlength=len(fields))) / (count + _HELD_BACK)
        for of_texts, vectors in zip(reached, texts, strict=True):
            predicted = predict(fields, vectors, effect, weight, known)
            found = auc(asked.clicked, other_effect[asked.other] + predicted[asked.of])
            if found is None:
                raise ValueError("unseen: the rows of a fifth are of one class only: there are too few clicks to ask")
            of_texts.append(found)
    return reached


def effects(rows: Rows, size: int, other_size: int) -> tuple[np.ndarray, np.ndarray]:
    """How much more than the mean each of one side is clicked, [size], and each of the other, [other_size].

    Each is estimated beyond the other. Those of the other side are held back towards 0 where they have few rows.
    """
    count, other_count = np.bincount(rows.of, minlength=size), np.bincount(rows.other, minlength=other_size)
    beyond = rows.clicked - rows.clicked.mean()
    effect, other_effect = np.zeros(size), np.zeros(other_size)
    for _ in range(_ROUNDS):
        other_effect = np.bincount(rows.other, beyond - effect[rows.of], other_size) / (other_count + _HELD_BACK)
        effect = np.bincount(rows.of, beyond - other_effect[rows.other], size) / np.maximum(count, 1)
    return effect, other_effect


def predict(
    fields: np.ndarray, vectors: np.ndarray | None, effect: np.ndarray, weight: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """The effects of all N by a regression that is fitted to those, [N], of the ``known``, with their ``weight`` [N].

    How freely it follows fields and texts is chosen by leaving out each of the known once.
    """
    best, found = -np.inf, np.zeros(len(fields))
    for scale in _TEXT_SCALES if vectors is not None else (0.0,):
        features = fields if vectors is None else np.concatenate([fields, scale * standard(vectors)], axis=1)
        ridge = RidgeCV(_PENALTIES).fit(features[known], effect[known], sample_weight=weight[known])
        if ridge.best_score_ > best:
            best, found = ridge.best_score_, ridge.predict(features)
    return found


def standard(vectors: np.ndarray) -> np.ndarray:
    """``vectors`` [N, K] around their mean, with a mean square length of 1."""
    centred = vectors - vectors.mean(0)
    return centred / max(float(np.square(centred).sum(1).mean()) ** 0.5, 1e-12)


#: The title of the table, and the heads of its columns.
TITLE = f"AUC by a linear model that has not seen them: means and t-intervals of {_PARTS} parts, left out in turn"
HEADER = (
    "of", "number", "rows", "fields", "with words", "with texts", "Δ to fields [95 %]", "Δ to others' texts [95 %]"
)  # fmt: skip


def to_markdown(found: Sequence[Unseen]) -> str:
    """A table: what texts add to the fields, beside what words and others' texts add."""
    return f"{TITLE}\n\n{markdown_table(HEADER, [cells(one) for one in found], 'lrr')}\n"


def cells(found: Unseen) -> list[str]:
    """Its line of the table."""
    reached = [f"{fmean(part):.4f}" for part in (found.fields, found.words, found.texts)]
    gains = [_gain(found.texts, base) for base in (found.fields, found.others)]
    return [f"new {found.side}s", f"{found.entities:,}", f"{found.rows:,}", *reached, *gains]


def _gain(reached: Sequence[float], base: Sequence[float]) -> str:
    differences = [one - other for one, other in zip(reached, base, strict=True)]
    low, high = t_interval(fmean(differences), stdev(differences), len(differences))
    return f"{fmean(differences):+.4f} [{low:+.4f}, {high:+.4f}]"
