"""Training with tables of very many ids, by ``embedding_optimizer: rowwise`` and by RecBole's own trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import cycle
from statistics import mean
from typing import Any

from harness import Result, alternate, seconds
from many import many
from plain import as_released
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed
from setup import configure, ml_1m, prepare

from recbole_alt.data.steps import training_loader
from recbole_alt.stages import stage_config
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.rowwise import lazy_rows
from recbole_alt.trainer.start import seed_stage, start_afresh

_FIXED = {"finetune_modes": [], "train_batch_size": 4096, "unseen_values": "initial", "fast_kernels": True}


def rowwise(quick: bool, data_path: str) -> Iterator[Result]:
    """Steps a second with a million ids, as a multiple of RecBole's trainer; then AUC beside dense steps."""
    yield _steps(800_000, 200_000, 3 if quick else 10)
    yield _auc(*ml_1m(data_path), seeds=1 if quick else 3, epochs=1 if quick else 4)


def _steps(users: int, items: int, rounds: int) -> Result:
    """Optimiser steps of DCN on the same batches, each trainer on those of its own loader, read beforehand."""
    dataset, path = many(users, items, 2 * users)
    config = configure(dataset, data_path=path, checkpoint_dir=tempfile.mkdtemp(), **_FIXED)
    train, _, _ = prepare(config)
    loader = training_loader(stage_config(config, "plain"), train, encodes_texts=False)
    batches = [rows for rows, _ in zip(loader, range(20), strict=False)]
    ids = sum(train._dataset.num(field) for field in ("user_id", "item_id"))
    of_stage = stage_config(config, "plain")
    of_stage["embedding_optimizer"] = "rowwise"
    trainers = {}
    seed_stage(of_stage)
    trainers["ours"] = ALTTrainer(of_stage, get_model(config["model"])(of_stage, train._dataset))
    dense = stage_config(config, "plain")
    dense["learner"] = "adam"
    with as_released():
        init_seed(dense["seed"], dense["reproducibility"])
        trainers["recbole"] = Trainer(dense, get_model("DCN")(dense, train._dataset))
    forever = {name: cycle(batches) for name in trainers}

    def train_ours() -> float:
        trainer = trainers["ours"]
        trainer.model.train()
        with lazy_rows(trainer.optimizer):
            return seconds(lambda: trainer._train_step(next(forever["ours"]), trainer.model.calculate_loss))[0]

    def train_stock() -> float:
        with as_released():
            one = _OneBatch(next(forever["recbole"]))
            return seconds(lambda: trainers["recbole"]._train_epoch(one, 0))[0]

    ours, theirs = alternate(train_ours, train_stock, rounds)
    ratios = [other / mine for mine, other in zip(ours, theirs, strict=True)]
    return Result.of(f"rowwise/{ids}", ratios, 5.0, seconds_of_step=ours, recbole=theirs)


class _OneBatch(list[Any]):
    """A loader of RecBole's of a single batch."""

    shuffle = False

    def __init__(self, rows: Any):
        super().__init__([rows])


def _auc(dataset: str, path: str, seeds: int, epochs: int) -> Result:
    """How much lower the test AUC of DCN is than with dense steps, of the epoch that validation chose."""
    config = configure(dataset, data_path=path, **_FIXED, epochs=epochs, stopping_step=epochs)
    config["checkpoint_dir"] = tempfile.mkdtemp()
    loaders = prepare(config)
    reached: dict[str, list[float]] = {"dense": [], "rowwise": []}
    for seed in range(seeds):
        for optimizer, of_optimizer in reached.items():
            of_stage = stage_config(config, "plain")
            of_stage["seed"], of_stage["embedding_optimizer"] = config["seed"] + seed, optimizer
            of_optimizer.append(_train(of_stage, loaders))
    lost = [one - other for one, other in zip(*reached.values(), strict=True)]
    result = Result.of(f"rowwise/auc/{dataset}", [mean(lost)], 0.001, at_most=True, lost=lost, **reached)
    result.low, result.high = min(lost), max(lost)
    return result


def _train(of_stage: Any, loaders: tuple[Any, Any, Any]) -> float:
    train, valid, test = loaders
    seed_stage(of_stage)
    trainer = ALTTrainer(of_stage, get_model(of_stage["model"])(of_stage, train._dataset))
    start_afresh(trainer, train._dataset)
    trainer.fit(training_loader(of_stage, train, encodes_texts=False), valid, verbose=False)
    result = trainer.evaluate(test)
    assert result is not None
    return float(result["auc"])
