"""Every test row's score, kept beside its label, user, item and popularity; and the metrics made from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_alt.files import replacing
from recbole_alt.study.statistics import auc, gauc, log_losses

#: Bins of an item's (or user's) training interactions, by their lower ends.
POPULARITY = (0, 1, 10, 50, 200, 1000)


@dataclass(frozen=True)
class Scores:
    """What a model gave the test rows, in the order of the test set.

    Attributes:
        score: [N] click probabilities, 32 bits.
        label: [N] 0 or 1.
        user, item: [N] ids of RecBole; None where the data have none.
        user_seen, item_seen: [N] training interactions of the row's user and item.
    """

    score: np.ndarray
    label: np.ndarray
    user: np.ndarray | None = None
    item: np.ndarray | None = None
    user_seen: np.ndarray | None = None
    item_seen: np.ndarray | None = None

    def save(self, file: Path) -> None:
        """Write a ``.npz`` of plain arrays."""
        with replacing(file) as stream:
            np.savez_compressed(stream, **{name: array for name, array in vars(self).items() if array is not None})

    @classmethod
    def load(cls, file: Path) -> Scores:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: it is missing, or holds anything else.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in arrays.files})
        except Exception as error:  # damaged bytes surface as almost any type
            raise ValueError(f"{str(file)!r} holds no scores: {error}") from None

    def same_rows(self, other: Scores) -> bool:
        """Whether both are of the same test rows, so that they can be compared in pairs."""
        return all(
            np.array_equal(getattr(self, name), getattr(other, name))
            if getattr(self, name) is not None
            else getattr(other, name) is None
            for name in ("label", "user", "item")
        )


@torch.no_grad()
def score_rows(model: Any, loader: Any, train: Any, device: torch.device) -> Scores:
    """Score every row of a RecBole loader once.

    Args:
        model: with ``predict``.
        loader: of the test set.
        train: the dataset of the training interactions, for popularity.
        device: of the model.
    """
    model.eval()
    scores, columns = [], {"label": loader._dataset.label_field, "user": train.uid_field, "item": train.iid_field}
    read: dict[str, list[np.ndarray]] = {name: [] for name, column in columns.items() if column}
    for batch in loader:
        rows = batch[0]
        for name, parts in read.items():
            parts.append(rows[columns[name]].numpy())
        scores.append(model.predict(rows.to(device)).float().cpu().numpy())
    made = {name: np.concatenate(parts).astype(np.int32) for name, parts in read.items()}
    for name in ("user", "item"):
        if name in made:
            seen = np.bincount(train.inter_feat[columns[name]].numpy(), minlength=int(made[name].max()) + 1)
            made[f"{name}_seen"] = seen[made[name]].astype(np.int32)
    return Scores(np.concatenate(scores).astype(np.float32), **made | {"label": made["label"].astype(np.uint8)})


def metrics(scores: Scores) -> dict[str, float | int | None]:
    """AUC, LogLoss, GAUC, and the AUC of rows whose user or item has no training interaction, over all rows at once.

    A metric is None where it is not defined: one class only, or no ids.
    """
    label, score = scores.label, scores.score.astype(np.float64)
    result: dict[str, float | int | None] = {
        "rows": len(label),
        "auc": auc(label, score),
        "logloss": float(log_losses(label, score).mean()),
    }
    grouped = None if scores.user is None else gauc(label, score, scores.user)
    result["gauc"] = grouped.value if grouped else None
    result["gauc_users"] = grouped.users if grouped else None
    result["gauc_left_out"] = grouped.left_out if grouped else None
    for name in ("user", "item"):
        seen = getattr(scores, f"{name}_seen")
        cold = np.zeros(len(label), dtype=bool) if seen is None else seen == 0
        result[f"cold_{name}_rows"] = int(cold.sum())
        result[f"cold_{name}_auc"] = auc(label[cold], score[cold])
    return result


def popularity_bins(seen: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Which rows [N] fall into each bin of :data:`POPULARITY`; empty bins are left out."""
    ends = [*POPULARITY[1:], None]
    bins = []
    for low, end in zip(POPULARITY, ends, strict=True):
        inside = (seen >= low) if end is None else (seen >= low) & (seen < end)
        name = f"{low}+" if end is None else f"{low}" if end == low + 1 else f"{low}–{end - 1}"
        if inside.any():
            bins.append((name, inside))
    return bins
