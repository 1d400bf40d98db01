"""Scores of all test rows, each beside its label, user, item and their popularity; and the metrics made from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_alt import checkpoints
from recbole_alt.experiment import Experiment
from recbole_alt.files import replacing
from recbole_alt.model.weights import load_finetuned
from recbole_alt.study.statistics import auc, gauc, log_losses
from recbole_alt.trainer.finetune import ALTTrainer

#: Bins of the number of training interactions of an item, or a user: name → least number.
POPULARITY = {"0": 0, "1–9": 1, "10–49": 10, "50–199": 50, "200–999": 200, "1000+": 1000}


@dataclass(frozen=True)
class Scores:
    """The scores of a model, in the order of the test set.

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
        """True if both are of the same test rows, so that they can be compared in pairs."""
        return all(np.array_equal(vars(self)[name], vars(other)[name]) for name in ("label", "user", "item"))


@torch.no_grad()
def score_rows(model: Any, loader: Any, train: Any, device: torch.device) -> Scores:
    """Score every row of a RecBole loader once; popularity is counted in the dataset ``train``."""
    model.eval()
    ids = {name: column for name, column in (("user", train.uid_field), ("item", train.iid_field)) if column}
    columns = {"label": loader._dataset.label_field, **ids}
    batches = [
        {name: rows[column].numpy() for name, column in columns.items()}
        | {"score": model.predict(rows.to(device)).float().cpu().numpy()}
        for rows, *_ in loader
    ]
    kinds = {"score": np.float32, "label": np.uint8, "user": np.int32, "item": np.int32}
    made = {
        name: np.concatenate([batch[name] for batch in batches]).astype(kind)
        for name, kind in kinds.items()
        if name in batches[0]
    }
    for name, column in ids.items():
        seen = np.bincount(train.inter_feat[column].numpy(), minlength=train.num(column))
        made[f"{name}_seen"] = seen[made[name]].astype(np.int32)
    return Scores(**made)


def metrics(scores: Scores) -> dict[str, float | int | None]:
    """AUC, LogLoss and GAUC over all rows at once, and the AUC of the rows of new users and of new items.

    A user or item is new if it has no training interaction. A metric is None if it is not defined: for want of one of
    the classes, or of ids.
    """
    label, score = scores.label, scores.score.astype(np.float64)
    per_user = (None, None, None) if scores.user is None else gauc(label, score, scores.user)
    result = {"rows": len(label), "auc": auc(label, score), "logloss": float(log_losses(label, score).mean())}
    result |= dict(zip(("gauc", "gauc_users", "gauc_left_out"), per_user, strict=True))
    for name, seen in (("user", scores.user_seen), ("item", scores.item_seen)):
        cold = np.zeros(len(label), dtype=bool) if seen is None else seen == 0
        result |= {f"cold_{name}_rows": int(cold.sum()), f"cold_{name}_auc": auc(label[cold], score[cold])}
    return result


def popularity_bins(seen: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Name and rows [N] (bool) of each bin of :data:`POPULARITY` that is not empty."""
    bins = np.digitize(seen, list(POPULARITY.values())) - 1
    return [(name, bins == place) for place, name in enumerate(POPULARITY) if (bins == place).any()]


class ScoredExperiment(Experiment):
    """An experiment that keeps the score of every test row, or leaves the test set untouched."""

    def _test(self, trainer: ALTTrainer, stage: str, progress: bool) -> dict[str, float]:
        if self.test_data is None:  # a trial: nothing but validation may choose
            return {}
        file = trainer.saved_model_file
        load_finetuned(trainer.model, checkpoints.load(file, self.config["device"]), file)
        scores = score_rows(trainer.model, self.test_data, self.train_data._dataset, self.config["device"])
        scores.save(self.folder / "scores.npz")
        return {name: value for name, value in metrics(scores).items() if value is not None}
