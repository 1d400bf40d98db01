"""Training batches for finetuning: RecBole's own, or with text its rows in batches that share texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recbole_alt.data.batches import Batches
from recbole_alt.data.steps import build_batches


def training_loader(config: Any, loader: Any, *, encodes_texts: bool) -> Any:
    """A fresh loader of the same rows for one stage of finetuning.

    Args:
        config: of the stage.
        loader: RecBole's ``TrainDataLoader``; it stays as it is.
        encodes_texts: whether every step encodes its texts, which is cheaper in batches that share them.
    """
    fresh = type(loader)(config, loader._dataset, loader._sampler, shuffle=config["shuffle"])
    if not encodes_texts:
        return fresh
    return BatchLoader(fresh, build_batches(config, loader._dataset, config["text_batch_size"]))


class BatchLoader:
    """Iterates one epoch at a time over rows made by a RecBole training loader.

    The loader's own ``collate_fn`` makes each batch, so its transforms and negative sampling apply.

    Args:
        loader: RecBole's ``TrainDataLoader``.
        batches: which rows make each step.
    """

    def __init__(self, loader: Any, batches: Batches):
        self._loader, self._batches = loader, batches
        self.dataset = self._dataset = loader._dataset
        self.shuffle = True
        self.epoch = 0

    def __len__(self) -> int:
        return self._batches.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        start = self.epoch * len(self)
        return (self._loader.collate_fn(self._batches(step)) for step in range(start, start + len(self)))

    def get_model(self, model: Any) -> None:
        """For RecBole's dynamic negative sampling."""
        self._loader.get_model(model)
