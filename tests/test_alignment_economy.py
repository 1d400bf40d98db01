"""Alignment does no needless work, at no change of a loss: texts kept, and tables read where they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import gradients, pooled_states

from recbole_alt.model.encoding import token_bytes
from recbole_alt.model.objectives.batch import mask_texts
from recbole_alt.model.text_cache import TextCache

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = ["contrastive", "masked_language", "masked_tabular"]


def keep(b: Any, *, reads: int = 1000, memory: float | None = None) -> int:
    """Keep the states of texts, as for a training that reads so many; how many were encoded beforehand."""
    language_model, prompts = b.model.text.language_model, b.dataset.prompts
    before = language_model.texts_encoded
    cache = TextCache(
        language_model, mask_id=prompts.special.mask, keep_masked=b.config["mask_level"] == "field", memory=memory
    )
    b.model.text_cache = cache
    cache.fill(prompts.distinct(b.dataset.inter_feat), b.config["device"], reads=reads)
    return language_model.texts_encoded - before


def encoded(b: Any) -> int:
    """How many texts a step encodes."""
    before = b.model.text.language_model.texts_encoded
    b.forward()
    return b.model.text.language_model.texts_encoded - before


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
    output = b.forward()
    for name, loss in fresh.losses.items():
        torch.testing.assert_close(output.losses[name], loss, atol=1e-5, rtol=1e-5)
    got = gradients(b.model, output.loss)
    assert got.keys() == expected.keys() and not any("language_model" in name for name in got)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-4, rtol=1e-3, msg=name)  # that of one bias is rounding


def masked_texts(b: Any) -> int:
    """How many different masked texts the step has."""
    found = mask_texts(b.texts, b.masks, b.model.mask_id)
    return len({text for texts in found for text in token_bytes(*texts.encoder_input)})


def test_masked_texts_are_encoded_when_a_step_first_needs_them(alignment: Callable[..., Any]) -> None:
    b = alignment(text_cache_dir=None, frozen_layers="all", objectives=ALL, mask_ratio=0.15)
    distinct = sum(len(part.pieces) for part in b.dataset.prompts.distinct(b.dataset[:]))
    assert keep(b) == distinct
    assert [encoded(b), encoded(b)] == [masked_texts(b), 0]
    keep(b, reads=0)
    assert [encoded(b), encoded(b)] == [masked_texts(b) + sum(len(batch.input_ids) for batch in b.texts), 0]


def test_single_masked_tokens_are_not_kept(alignment: Callable[..., Any]) -> None:
    b = alignment(text_cache_dir=None, frozen_layers="all", objectives=ALL, mask_level="token")
    keep(b)
    assert [encoded(b), encoded(b)] == [masked_texts(b)] * 2


def test_complete_texts_are_encoded_beforehand_if_all_are_read_and_fit(alignment: Callable[..., Any]) -> None:
    b = alignment(text_cache_dir=None, frozen_layers="all", objectives=ALL)
    texts = b.dataset.prompts.distinct(b.dataset[:])
    distinct = sum(len(part.pieces) for part in texts)
    tokens = sum(int(part.segment.total_lengths(part.pieces).sum()) for part in texts)
    room = tokens * 4 * b.model.text.hidden_size
    assert keep(b, reads=distinct, memory=room) == distinct
    assert keep(b, reads=distinct - 1, memory=room) == keep(b, reads=distinct, memory=room - 1) == 0


def test_no_bit_depends_on_what_is_kept(alignment: Callable[..., Any]) -> None:
    b = alignment(text_cache_dir=None, frozen_layers="all", objectives=ALL, mask_ratio=0.15)
    keep(b)
    expected = b.forward().losses
    for reads, memory in ((1000, 0), (0, None), (0, 5000)):
        keep(b, reads=reads, memory=memory)
        for _ in range(2):
            losses = b.forward().losses
            assert all(torch.equal(losses[name], loss) for name, loss in expected.items())


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_losses_are_those_of_reading_every_table_and_text(scope: str, alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=["contrastive", "masked_language"], prompt_scope=scope, contrast_rows=5)
    model = b.model.eval()
    output = model(model.prepare(b.rows, b.texts, b.masks))
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
