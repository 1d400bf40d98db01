"""What scoring costs with text, and without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from harness import Result, alternate, rate
from recbole.utils import get_model, init_seed
from setup import configure, prepare


def score_lm(quick: bool, data_path: str) -> Iterator[Result]:
    """The test split of ml-100k in mode ``lm``: each distinct text once, against every interaction's texts."""
    config = configure(finetune_mode="lm")
    train, _, test = prepare(config)
    model = get_model(config["model"])(config, train._dataset).eval()
    rows = test._dataset[:]

    @torch.no_grad()
    def cached() -> int:
        model.text_cache.clear()
        return sum(len(model.predict(part)) for part in _parts(rows, config["eval_batch_size"]))

    @torch.no_grad()
    def every_interaction() -> int:
        count = 0
        for part in _parts(rows[: 512 if quick else 2048], 128):
            pooled = []
            for texts in model.prompts.batches(part):
                ids, mask = texts.input_ids[texts.row], texts.attention_mask[texts.row]
                pooled.append(model.text.language_model(ids, mask)[1])
            count += len(model.lm_predict_layer(model.text.fuse(pooled)))
        return count

    mine, theirs = alternate(lambda: rate(cached), lambda: rate(every_interaction), 2 if quick else 5)
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    yield Result.of("score_lm", ratios, 8, interactions_per_second=mine, reference=theirs)


def score_ctr(quick: bool, data_path: str) -> Iterator[Result]:
    """The same rows in mode ``ctr`` and with RecBole's own model: seconds."""
    for name in ("DCN", "FM"):
        config = configure(model=f"ALT_{name}", finetune_mode="ctr")
        train, _, test = prepare(config)
        init_seed(0, True)
        model = get_model(config["model"])(config, train._dataset).eval()
        plain = get_model(name)(config, train._dataset).eval()
        parts = list(_parts(test._dataset[:], config["eval_batch_size"]))

        @torch.no_grad()
        def score(scorer: Any, parts: Any = parts) -> int:
            return sum(len(scorer.predict(part)) for part in parts)

        mine, theirs = alternate(
            lambda s=score, m=model: rate(lambda: s(m)),
            lambda s=score, p=plain: rate(lambda: s(p)),
            100 if quick else 400,
        )
        ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
        yield Result.of(f"score_ctr/{name}", ratios, 1.02, at_most=True, rows_per_second=mine, plain=theirs)


def _parts(rows: Any, size: int) -> Iterator[Any]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
