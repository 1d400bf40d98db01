"""Data and models for the benchmarks."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed

from recbole_alt.config import ALTConfig
from recbole_alt.model.build import build_alignment
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

WORDS = ("night", "city", "love", "house", "river", "red", "last", "girl", "king", "star", "lost", "blue", "road")


def configure(dataset: str = "ml-100k", model: str = "ALT_DCN", **keys: Any) -> ALTConfig:
    """A quiet configuration: the language model is trained unless ``keys`` say otherwise, and no states are on disk."""
    quiet = {"show_progress": False, "show_plan": False, "state": "ERROR", "use_gpu": False, "frozen_layers": None}
    quiet["text_cache_dir"] = None
    return ALTConfig(model, dataset, None, quiet | (SYNTHETIC if dataset.startswith("synthetic") else {}) | keys)


def prepare(config: ALTConfig) -> tuple[Any, Any, Any]:
    """Training, validation and test loaders of RecBole."""
    init_seed(config["seed"], config["reproducibility"])
    return data_preparation(config, create_dataset(config))


@cache
def training_rows(dataset: str, data_path: str, scope: str) -> tuple[ALTConfig, Any]:
    """The training dataset, loaded once for all benchmarks that read it."""
    config = configure(dataset, prompt_scope=scope, **_data(data_path))
    return config, prepare(config)[0]._dataset


def _data(data_path: str) -> dict[str, Any]:
    return {"data_path": data_path} if data_path else {}


def pretraining(dataset: str, data_path: str = "", *, scope: str, **keys: Any) -> ALTPretrainTrainer:
    """A trainer of the alignment stage, about to make its first step."""
    _, train = training_rows(dataset, data_path, scope)
    config = configure(dataset, prompt_scope=scope, pretrain_steps=10**6, **_data(data_path), **keys)
    init_seed(config["seed"], config["reproducibility"])
    alignment = build_alignment(config, train, get_model(config["model"]).backbone_class)
    trainer = ALTPretrainTrainer(config, alignment, train, Path(tempfile.mkdtemp()) / "pretrain.pth")
    trainer.model.train()
    return trainer


def steps(trainer: ALTPretrainTrainer, count: int) -> int:
    """Make ``count`` optimiser steps; returns the interactions they saw."""
    before = trainer.interactions_seen
    for _ in range(count):
        trainer._train_step(trainer._batch(trainer.step))
    return trainer.interactions_seen - before


def ml_1m(data_path: str) -> tuple[str, str]:
    """Name and folder of MovieLens-1M, or of made-up data of the same size where it is not at hand."""
    if (Path(data_path) / "ml-1m" / "ml-1m.inter").is_file():
        return "ml-1m", data_path
    return synthetic(6040, 3883, 1_000_209)


@cache
def synthetic(users: int, items: int, interactions: int) -> tuple[str, str]:
    """Atomic files with made-up people, titles and ratings: name and folder of the dataset."""
    rng = np.random.default_rng(0)
    name = f"synthetic-{users}-{items}-{interactions}"
    root = Path(tempfile.mkdtemp())
    folder = root / name
    folder.mkdir()
    people = [f"u{u}\t{rng.integers(18, 80)}\t{'FM'[rng.integers(2)]}\tjob {rng.integers(20)}" for u in range(users)]
    titles = [" ".join(rng.choice(WORDS, rng.integers(2, 6))) for _ in range(items)]
    films = [f"i{i}\t{titles[i]} {i}\t{rng.integers(1930, 2001)}\tgenre {rng.integers(18)}" for i in range(items)]
    weight = 1 / np.arange(1, items + 1)  # a few items are met often, as in life
    u = np.repeat(np.arange(users), -(-interactions // users))[:interactions]
    i = rng.choice(items, interactions, p=weight / weight.sum())
    clicks = rng.integers(0, 2, interactions)
    (folder / f"{name}.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\n" + "\n".join(people)
    )
    (folder / f"{name}.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" + "\n".join(films)
    )
    rows = "\n".join(f"u{a}\ti{b}\t{c}" for a, b, c in zip(u, i, clicks, strict=True))
    (folder / f"{name}.inter").write_text("user_id:token\titem_id:token\tlabel:float\n" + rows)
    return name, str(root)


#: Keys for the data of :func:`synthetic`.
SYNTHETIC = {
    "load_col": {
        "inter": ["user_id", "item_id", "label"],
        "user": ["user_id", "age", "gender", "occupation"],
        "item": ["item_id", "release_year", "class"],
    },
    "prompt_only": {"item": ["movie_title"]},
    "LABEL_FIELD": "label",
    "threshold": None,
}


def parameters_equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models have the same weights."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
