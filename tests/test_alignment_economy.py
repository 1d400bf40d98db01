"""Alignment does no needless work, at no change of a loss: texts kept, and tables read where they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import gradients, pooled_states

from recbole_alt.data.steps import build_masking
from recbole_alt.model.text_cache import TextCache

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = ["contrastive", "masked_language", "masked_tabular"]


def keep(b: Any, *, texts: int = 1000, memory: float | None = None) -> int:
    """Keep the states of all texts, as for a training that reads ``texts`` of either kind; how many were encoded."""
    language_model = b.model.text.language_model
    before = language_model.texts_encoded
    prompts = b.dataset.prompts
    masking = build_masking(b.config, prompts, [field.name for field in b.model.backbone.fields])
    b.model.text_cache = TextCache(language_model)
    reads = texts // 10 * 10
    everything = prompts.distinct(b.dataset.inter_feat)
    mask_id, device = prompts.special.mask, b.config["device"]
    b.model.text_cache.fill(everything, masking, mask_id, device, complete=reads, masked=reads, memory=memory)
    return language_model.texts_encoded - before


@pytest.mark.parametrize(
    "masking", [{}, {"mask_ratio": 0.15}, {"mask_fields": "shared"}, {"mask_level": "token"}], ids=str
)
@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_kept_texts_change_no_loss_and_no_gradient(
    scope: str, masking: dict[str, Any], alignment: Callable[..., Any]
) -> None:
    b = alignment(frozen_layers="all", objectives=ALL, prompt_scope=scope, **masking)
    fresh = b.forward()
    expected = gradients(b.model, fresh.loss)
    assert keep(b) > 0
    before = b.model.text.language_model.texts_encoded
    output = b.forward()
    encoded = b.model.text.language_model.texts_encoded - before
    assert encoded == (sum(int(m.any(1).sum()) for m in b.masks.tokens) if "mask_level" in masking else 0)
    for name, loss in fresh.losses.items():
        torch.testing.assert_close(output.losses[name], loss, atol=1e-5, rtol=1e-5)
    got = gradients(b.model, output.loss)
    assert got.keys() == expected.keys() and not any("language_model" in name for name in got)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_texts_are_kept_where_that_is_less_work_and_fits(alignment: Callable[..., Any]) -> None:
    b = alignment(frozen_layers="all", objectives=ALL, mask_ratio=0.15)
    texts = b.dataset.prompts.distinct(b.dataset[:])
    distinct = sum(len(part.pieces) for part in texts)
    assert keep(b, memory=0) == 0 and torch.isfinite(b.forward().loss)
    assert keep(b, texts=distinct // 10 * 10 - 10) == 0 and torch.isfinite(b.forward().loss)
    everything = keep(b)
    assert distinct < everything <= sum(len(part.pieces) * (1 + len(part.segment.fields)) for part in texts)
    tokens = sum(int(part.segment.total_lengths(part.pieces).sum()) for part in texts)
    assert keep(b, memory=tokens * 4 * b.model.text.hidden_size) == distinct


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_losses_are_those_of_reading_every_table_and_text(scope: str, alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=["contrastive", "masked_language"], prompt_scope=scope, contrast_rows=5)
    model = b.model.eval()
    output = model(b.rows, b.texts, b.masks)
    table = model.backbone(b.rows).representation
    pooled = pooled_states(model.text, b.texts)
    contrast, _ = model.objectives["contrastive"](table[:5], pooled[:5])
    states, tables, targets = [], [], []
    for batch, hidden in zip(b.texts, b.masks.tokens, strict=True):
        for text in range(len(batch.input_ids)):
            masked = batch.input_ids[text].masked_fill(hidden[text], model.mask_id)
            read, _ = model.text.language_model(masked[None], batch.attention_mask[text][None])
            states.append(read[0, hidden[text]])
            tables.append(table[batch.owner[text]].expand(int(hidden[text].sum()), -1))
            targets.append(batch.input_ids[text][hidden[text]])
    language, _ = model.objectives["masked_language"](torch.cat(states), torch.cat(tables), torch.cat(targets))
    torch.testing.assert_close(output.losses["contrastive"], contrast, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.losses["masked_language"], language, atol=1e-4, rtol=1e-4)


def test_a_table_is_read_where_an_objective_asks_for_it(
    alignment: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows_read(**keys: Any) -> list[int]:
        b, read = alignment(**keys), []
        forward = type(b.model.backbone).forward
        monkeypatch.setattr(
            type(b.model.backbone), "forward", lambda self, rows: (read.append(len(rows)), forward(self, rows))[1]
        )
        b.forward()
        monkeypatch.undo()
        return read

    assert rows_read(objectives=["contrastive"], contrast_rows=5) == [5]
    assert rows_read(objectives=["contrastive"], contrast_rows=None) == [32]
    assert rows_read(objectives=["masked_tabular"]) == [32]
    (complete, masked) = rows_read(objectives=ALL, contrast_rows=5)
    assert 5 <= complete < masked == 32
