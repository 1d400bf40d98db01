"""What a step of alignment costs: against the published procedure, and against the language model alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from harness import Result, alternate, rate, seconds, status
from parts import parts_of_a_step
from recbole.utils import get_model, init_seed
from reference import PublishedPretraining
from setup import ml_1m, pretraining, steps, synthetic, training_rows

from recbole_alt.model.language import LanguageModel

BATCH = 64  # the published batch for a base-sized language model


def published(dataset: str, data_path: str, **keys: Any) -> Callable[[], float]:
    """A step of the reference: interactions per second."""
    config, train = training_rows(dataset, data_path, "interaction")
    init_seed(0, True)
    for key, value in keys.items():
        config[key] = value
    model = PublishedPretraining(config, train, get_model(config["model"]).backbone_class).train()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    done = [0]

    def step() -> int:
        done[0] += 1
        return model.step(train[order[(done[0] - 1) * BATCH : done[0] * BATCH]])

    return lambda: rate(step)


def pretrain_interaction(quick: bool, data_path: str) -> Iterator[Result]:
    """Interaction scope, equal batch, first 2 and all layers."""
    for layers in (2, None):
        reference = published("ml-100k", "", language_model_layers=layers)
        ours = pretraining("ml-100k", scope="interaction", language_model_layers=layers, pretrain_batch_size=BATCH)
        mine, theirs = alternate(lambda t=ours: rate(lambda: steps(t, 4)), reference, 1 if quick else 4)
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        name = f"pretrain_interaction/{layers or 'all'}-layers"
        yield Result.of(name, ratios, 8, interactions_per_second=mine, reference=theirs)


def pretrain_entity(quick: bool, data_path: str) -> Iterator[Result]:
    """Entity scope with block batches of the default size."""
    for dataset, path in (("ml-100k", ""), ml_1m(data_path)):
        for layers in (2,) if quick else (2, None):
            reference = published("ml-100k", "", language_model_layers=layers)
            ours = pretraining(dataset, path, scope="entity", language_model_layers=layers)
            mine, theirs = alternate(lambda t=ours: rate(lambda: steps(t, 2)), reference, 1 if quick else 3)
            ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
            name = f"pretrain_entity/{dataset}/{layers or 'all'}-layers"
            yield Result.of(name, ratios, 100, interactions_per_second=mine, reference=theirs)


def kept_texts(quick: bool, data_path: str) -> Iterator[Result]:
    """A step with all layers frozen and their states kept, against one that encodes its texts."""
    for dataset, path in (("ml-100k", ""), ml_1m(data_path)):
        keys = {"language_model_layers": None, "frozen_layers": "all"}
        kept, fresh = (pretraining(dataset, path, scope="entity", **keys) for _ in range(2))
        took, _ = seconds(lambda t=kept: t._keep_texts(show_progress=False))
        steps(kept, (1 if quick else 3) * kept.batches.steps_per_epoch)  # until most masked texts have been met
        mine, theirs = alternate(
            lambda t=kept: rate(lambda: steps(t, 4)), lambda t=fresh: rate(lambda: steps(t, 2)), 1 if quick else 5
        )
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        details = {"interactions_per_second": mine, "encoding_every_step": theirs, "encoding_once_seconds": took}
        yield Result.of(f"kept_texts/{dataset}", ratios, 3, **details)


def step_overhead(quick: bool, data_path: str) -> Iterator[Result]:
    """A step against forward and backward of the language model on the very tokens that step encoded."""
    for scope in ("entity", "interaction"):
        for layers in (2,) if quick else (2, None):
            ours = pretraining("ml-100k", scope=scope, language_model_layers=layers)
            wholes, bares = [], []
            for _ in range(1 + (4 if quick else 12)):
                with recorded(ours.model.text.language_model) as calls:
                    wholes.append(seconds(lambda t=ours: steps(t, 1))[0])
                bares.append(seconds(lambda t=ours, c=calls: bare(t.model.text.language_model, c))[0])
            del wholes[0], bares[0]  # the first of each warms up
            ratios = [a / b for a, b in zip(wholes, bares, strict=True)]
            parts = parts_of_a_step(ours, lambda t=ours: steps(t, 1), 4 if quick else 12)
            name = f"step_overhead/{scope}/{layers or 'all'}-layers"
            yield Result.of(name, ratios, 1.25, at_most=True, step=wholes, bare=bares, parts=parts)


@contextmanager
def recorded(language_model: LanguageModel) -> Iterator[list[tuple[Any, ...]]]:
    """Everything the language model is given meanwhile."""
    calls: list[tuple[Any, ...]] = []
    handle = language_model.register_forward_pre_hook(lambda _, given: calls.append(given))
    try:
        yield calls
    finally:
        handle.remove()


def bare(language_model: LanguageModel, calls: list[tuple[Any, ...]]) -> None:
    """Forward and backward of the language model, nothing else."""
    total = sum(language_model(*texts)[1].sum() for texts in calls)
    total.backward()  # type: ignore[union-attr]
    language_model.zero_grad()


def memory(quick: bool, data_path: str) -> Iterator[Result]:
    """Peak memory of a step, above what the process held before it, each in a process of its own."""
    for layers in (2,) if quick else (2, None):
        mine, theirs = (_peak(which, layers) for which in ("ours", "reference"))
        name = f"memory/{layers or 'all'}-layers"
        yield Result.of(name, [mine / theirs], 0.3, at_most=True, megabytes=mine / 2**20, reference=theirs / 2**20)


def _peak(which: str, layers: int | None) -> float:
    done = subprocess.run(
        [sys.executable, __file__, which, json.dumps(layers)], check=True, capture_output=True, text=True
    )
    return float(done.stdout.strip().splitlines()[-1])


def scaling(quick: bool, data_path: str) -> Iterator[Result]:
    """Seconds the language model takes for an epoch of blocks, as interactions grow over the same people and items."""
    users, items, base = 400, 400, 20_000
    took, texts = [], []
    for times in (1, 2, 4, 8):
        name, path = synthetic(users, items, base * times)
        block = {"block_users": 100, "block_items": 200, "pretrain_batch_size": base * times}
        ours = pretraining(name, path, scope="entity", language_model_layers=2, **block)
        with recorded(ours.model.text.language_model) as calls:
            steps(ours, ours.batches.steps_per_epoch)
        runs = [
            seconds(lambda t=ours, c=calls: bare(t.model.text.language_model, c))[0] for _ in range(2 if quick else 4)
        ]
        took.append(min(runs[1:]))
        texts.append(sum(len(given[0]) for given in calls))
    ratio = max(took) / min(took)
    yield Result.of(
        "scaling", [ratio], 1.3, at_most=True, interactions=[base * t for t in (1, 2, 4, 8)], seconds=took, texts=texts
    )


def _measure_own_peak(which: str, layers: int | None) -> None:
    if which == "ours":
        trainer = pretraining("ml-100k", scope="interaction", language_model_layers=layers, pretrain_batch_size=BATCH)
        step: Callable[[], Any] = lambda: steps(trainer, 1)  # noqa: E731
    else:
        step = published("ml-100k", "", language_model_layers=layers)
    before = status("VmHWM")
    step()
    print((status("VmHWM") - before) * 1024)


if __name__ == "__main__":
    _measure_own_peak(sys.argv[1], json.loads(sys.argv[2]))
