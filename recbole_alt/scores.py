"""Scores of evaluated rows beside their labels, users and items, and the metrics of rows of rare and of new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from recbole_alt.files import replacing
from recbole_alt.metrics import auc, gauc, log_losses

#: Bins of the number of training interactions of an item, or a user: name → least number.
POPULARITY = {"0": 0, "1–9": 1, "10–49": 10, "50–199": 50, "200–999": 200, "1000+": 1000}

_NAMES = {"0": "new_items", "1–9": "rare_items"}
_KINDS = {"score": np.float32, "label": np.uint8, "user": np.int32, "item": np.int32}
_COLUMNS = {"label": "LABEL_FIELD", "user": "USER_ID_FIELD", "item": "ITEM_ID_FIELD"}


@dataclass(frozen=True)
class Scores:
    """The scores of a model, in the order of the evaluated part of the split.

    Attributes:
        score: [N] click probabilities, 32 bits.
        label: [N] 0 or 1.
        user, item: [N] RecBole's ids; None if the dataset has none.
        user_seen, item_seen: [N] number of training interactions of the row's user and item.
    """

    score: np.ndarray
    label: np.ndarray
    user: np.ndarray | None = None
    item: np.ndarray | None = None
    user_seen: np.ndarray | None = None
    item_seen: np.ndarray | None = None

    @classmethod
    def of(cls, batches: Sequence[Mapping[str, np.ndarray]], seen: Mapping[str, np.ndarray]) -> Scores:
        """Join the batches of :func:`score_batch`; ``seen`` is what :func:`count_interactions` makes."""
        made = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        made |= {f"{name}_seen": counts[made[name]].astype(np.int32) for name, counts in seen.items() if name in made}
        return cls(**made)

    def save(self, file: Path) -> None:
        """Write an ``.npz`` of plain arrays."""
        with replacing(file) as stream:
            np.savez_compressed(stream, **{name: array for name, array in vars(self).items() if array is not None})

    @classmethod
    def load(cls, file: Path) -> Scores:
        """Read the file of :meth:`save`; a ``ValueError`` names one that is missing or is not such a file."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return cls(**arrays)
        except Exception as error:  # damaged bytes surface as almost any type
            raise ValueError(f"{str(file)!r} holds no scores: {error}") from None

    def same_rows(self, other: Scores) -> bool:
        """True if both are of the same rows, so that they can be compared in pairs."""
        return all(np.array_equal(vars(self)[name], vars(other)[name]) for name in ("label", "user", "item"))


def score_batch(config: Any, rows: Any, score: Tensor) -> dict[str, np.ndarray]:
    """``score`` [B] and the ``label``, and ``user`` and ``item`` if there are any, of a batch of interactions."""
    batch = {name: rows[config[key]] for name, key in _COLUMNS.items() if config[key] in rows}
    batch["score"] = score.reshape(-1).float()
    return {name: values.cpu().numpy().astype(_KINDS[name]) for name, values in batch.items()}


def count_interactions(train: Any) -> dict[str, np.ndarray]:
    """The number of training interactions of each ``user`` and ``item``, by RecBole's id, where the dataset has one."""
    columns = {"user": train.uid_field, "item": train.iid_field}
    return {
        name: np.bincount(train.inter_feat[column].numpy(), minlength=train.num(column))
        for name, column in columns.items()
        if column
    }


def slice_metrics(scores: Scores) -> dict[str, dict[str, float | int | None]]:
    """Metrics of all rows at once, and of those whose user or item has few training interactions or none.

    Returns:
        ``all`` (``rows``, ``auc``, ``logloss`` and, if there are users, ``gauc``, ``gauc_users`` and
        ``gauc_left_out``: see :func:`~recbole_alt.metrics.gauc`); ``new_users``, ``new_items``, ``rare_items`` and
        ``items_10-49`` to ``items_1000+``, each with ``rows`` and ``auc``. What is new has no training interaction, a
        rare item has 1 to 9. None stands for an AUC of no row, or of one class only.
    """
    label, score = scores.label, scores.score.astype(np.float64)
    found = {"all": {"rows": len(label), "auc": auc(label, score), "logloss": float(log_losses(label, score).mean())}}
    if scores.user is not None:
        names = ("gauc", "gauc_users", "gauc_left_out")
        found["all"] |= dict(zip(names, gauc(label, score, scores.user), strict=True))
    slices = {} if scores.user_seen is None else {"new_users": scores.user_seen == 0}
    if scores.item_seen is not None:
        slices |= {
            _NAMES.get(name, f"items_{name.replace('–', '-')}"): rows
            for name, rows in popularity_bins(scores.item_seen).items()
        }
    for name, rows in slices.items():
        found[name] = {"rows": int(rows.sum()), "auc": auc(label[rows], score[rows])}
    return found


def flat_metrics(scores: Scores) -> dict[str, float | int | None]:
    """AUC, LogLoss and GAUC over all rows at once, and the AUC of the rows of rare items, new items and new users.

    A metric is None if it is not defined: for want of one of the classes, or of ids.
    """
    slices, nobody = slice_metrics(scores), {"rows": 0, "auc": None}
    result = {"gauc": None, "gauc_users": None, "gauc_left_out": None} | slices["all"]
    for name in ("rare_item", "new_item", "new_user"):
        result |= {f"{name}_{metric}": value for metric, value in slices.get(f"{name}s", nobody).items()}
    return result


def popularity_bins(seen: np.ndarray) -> dict[str, np.ndarray]:
    """Rows [N] (bool) of each bin of :data:`POPULARITY`."""
    bins = np.digitize(seen, list(POPULARITY.values())) - 1
    return {name: bins == place for place, name in enumerate(POPULARITY)}
