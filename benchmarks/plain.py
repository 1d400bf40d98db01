"""Training of the plain CTR models by our trainer and by RecBole's own, from its own loaders, with the same keys."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import geometric_mean
from typing import Any

from harness import Result, alternate, rate
from reading import Unquoted
from recbole.config import Config
from recbole.data import data_preparation
from recbole.model import layers
from recbole.model.abstract_recommender import ContextRecommender
from recbole.model.layers import FLEmbedding, FMEmbedding
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed
from setup import configure, ml_1m, parameters_equal, prepare
from torch import nn

from recbole_alt.data.steps import training_loader
from recbole_alt.stages import stage_config
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.start import seed_stage, start_afresh

_FAST = "/fast_kernels"
_BATCH_SIZES = (512, 4096)
_MODELS = ("DCN", "DeepFM")
_SHARED = ("load_col", "threshold", "LABEL_FIELD", "eval_args", "seed", "embedding_size")
_SHARED += ("mlp_hidden_size", "train_batch_size", "eval_batch_size", "epochs", "learner", "learning_rate")
_SHARED += ("weight_decay", "stopping_step", "metrics", "valid_metric", "metric_decimal_place", "checkpoint_dir")
_REPLACED = ((FMEmbedding, "forward"), (FLEmbedding, "forward"), (ContextRecommender, "embed_token_seq_fields"))


def plain(quick: bool, data_path: str) -> Iterator[Result]:
    """Training rows a second, validation and checkpoints included; then the geometric mean of all cases.

    Without and with ``fast_kernels``; without, the weights have the same bits as RecBole's.
    """
    for fast in (False, True):
        medians = []
        for dataset, path, epochs in (("ml-100k", "", 1 if quick else 5), (*ml_1m(data_path), 1)):
            for model in _MODELS:
                for batch_size in _BATCH_SIZES[:1] if quick and path else _BATCH_SIZES:
                    keys = {"train_batch_size": batch_size, "epochs": epochs, "fast_kernels": fast}
                    result = _compare(dataset, path, model, keys, 1 if quick else 3)
                    medians.append(result.ratio)
                    yield result
        yield Result.of(f"plain/mean{_FAST * fast}", [geometric_mean(medians)], 1.5)


def _compare(dataset: str, path: str, model: str, keys: dict[str, Any], rounds: int) -> Result:
    name = f"plain/{dataset}/{model}/{keys['train_batch_size']}{_FAST * keys['fast_kernels']}"
    fixed = {"finetune_modes": [], "weight_decay": 0.0, "schedule": "constant", "unseen_values": "initial"}
    of_case = {"learning_rate": 1e-3, "stopping_step": keys["epochs"], "checkpoint_dir": tempfile.mkdtemp()}
    keys = keys | fixed | of_case | ({"data_path": path} if path else {})
    config = configure(dataset, f"ALT_{model}", **keys)
    own_loaders = prepare(config)
    released = {key: config[key] for key in _SHARED} | {"show_progress": False, "state": "ERROR", "use_gpu": False}
    stock = Config(model, dataset, None, released | {"data_path": os.path.dirname(config["data_path"])})
    init_seed(stock["seed"], stock["reproducibility"])
    stock_loaders = data_preparation(stock, Unquoted(stock))
    trained: dict[str, Any] = {}

    def train_ours() -> float:
        of_stage = stage_config(config, "plain")
        seed_stage(of_stage)
        train, valid, _ = own_loaders
        trainer = ALTTrainer(of_stage, get_model(config["model"])(of_stage, train._dataset))
        start_afresh(trainer, train._dataset)
        loader = training_loader(of_stage, train, encodes_texts=False)
        trained["ours"] = trainer.model.backbone.model
        return rate(lambda: _fit(trainer, loader, valid))

    def train_stock() -> float:
        with as_released():
            init_seed(stock["seed"], stock["reproducibility"])
            train, valid, _ = stock_loaders
            trainer = Trainer(stock, get_model(model)(stock, train._dataset))
            loader = type(train)(stock, train._dataset, train._sampler, shuffle=True)
            trained["stock"] = trainer.model
            return rate(lambda: _fit(trainer, loader, valid))

    ours, theirs = alternate(train_ours, train_stock, rounds)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    same = parameters_equal(trained["ours"], trained["stock"])
    details = {"rows_per_second": ours, "recbole": theirs, "same_weights": same}
    return Result.of(name, ratios, 1.0, **details)


def _fit(trainer: Any, train: Any, valid: Any) -> int:
    """Train to the end; returns the number of training rows that were read."""
    trainer.fit(train, valid, verbose=False)
    return len(train._dataset) * trainer.epochs


@contextmanager
def as_released() -> Iterator[None]:
    """RecBole without what recbole_alt makes faster in it."""
    ours = [(owner, name, getattr(owner, name)) for owner, name in _REPLACED]
    of_layers = layers.nn
    layers.nn = nn
    for owner, name, method in ours:
        setattr(owner, name, method.__wrapped__)
    try:
        yield
    finally:
        layers.nn = of_layers
        for owner, name, method in ours:
            setattr(owner, name, method)
