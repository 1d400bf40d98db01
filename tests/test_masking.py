"""Masks: how many, where, how often, and from what they are drawn."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recbole_alt.data.masking import (
    Masking,
    draw_field_mask,
    draw_token_mask,
    masked_tokens,
    n_masked,
    step_generator,
)
from recbole_alt.data.prompts import SegmentBatch

TEXT_FIELDS = ["age", "gender", "title", "genre", "year", "device"]
SIDES = [[0, 1], [2, 3, 4], [5]]
TABLE_FIELDS = ["user_id", "gender", "age", "item_id", "year", "genre", "zip"]
ROWS = 24_000


def segment(columns: list[int], row: Tensor, length: int = 3) -> SegmentBatch:
    """Texts ``[CLS] w v v v w v v v … [SEP] [PAD]`` with ``length`` value tokens a field, one text a distinct row."""
    count = int(row.max()) + 1
    one = [-1]
    for column in columns:
        one += [-1, *[column] * length]
    field_ids = torch.tensor([*one, -1, -1]).expand(count, -1).contiguous()
    attention_mask = torch.ones_like(field_ids)
    attention_mask[:, -1] = 0
    return SegmentBatch(
        field_ids + 5, attention_mask, field_ids, row, torch.arange(count), "user", np.arange(count)[:, None],
        attention_mask.sum(1).numpy(),
    )  # fmt: skip


def whole(rows: int = ROWS) -> list[SegmentBatch]:
    return [segment(list(range(len(TEXT_FIELDS))), torch.arange(rows))]


def sides(rows: int = ROWS, shared_by: int = 1) -> list[SegmentBatch]:
    return [segment(columns, torch.arange(rows) // shared_by) for columns in SIDES]


def hidden_fields(batch: SegmentBatch, tokens: Tensor) -> Tensor:
    """[B, F] which fields are hidden in each row's text; a field is hidden whole or not at all."""
    hidden = torch.zeros(len(tokens), len(TEXT_FIELDS), dtype=torch.bool)
    for column in batch.field_ids.unique().tolist():
        if column >= 0:
            of_field = tokens[:, batch.field_ids[0] == column]
            assert torch.equal(of_field.any(1), of_field.all(1))
            hidden[:, column] = of_field.all(1)
    return hidden[batch.row]


def all_hidden(batches: list[SegmentBatch], tokens: list[Tensor]) -> Tensor:
    return torch.stack([hidden_fields(b, t) for b, t in zip(batches, tokens, strict=True)]).any(0)


# -- how many, and where -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "ratio", "count"), [(1, 0.15, 1), (6, 0.15, 1), (13, 0.15, 1), (14, 0.15, 2), (15, 0.3, 4), (4, 1.0, 4)]
)
def test_number_of_masked_fields(fields: int, ratio: float, count: int) -> None:
    assert n_masked(fields, ratio) == count
    mask = draw_field_mask(500, fields, ratio, step_generator(1, 2, 3))
    assert mask.shape == (500, fields)
    assert mask.dtype == torch.bool
    assert (mask.sum(1) == count).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n_fields=st.integers(1, 5), texts=st.integers(1, 6), length=st.integers(1, 9))
def test_every_value_token_of_a_chosen_field_is_hit_and_no_other(
    data: st.DataObject, n_fields: int, texts: int, length: int
) -> None:
    size = texts * length
    flat = data.draw(st.lists(st.integers(-1, n_fields - 1), min_size=size, max_size=size))
    chosen = data.draw(st.lists(st.booleans(), min_size=texts * n_fields, max_size=texts * n_fields))
    field_ids = torch.tensor(flat).reshape(texts, length)
    field_mask = torch.tensor(chosen).reshape(texts, n_fields)
    hit = masked_tokens(field_ids, field_mask)
    expected = [[f >= 0 and bool(field_mask[i, f]) for f in row] for i, row in enumerate(field_ids.tolist())]
    assert hit.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(data=st.data(), ratio=st.sampled_from([0.05, 0.15, 0.5, 1.0]))
def test_token_level_masks_a_share_of_the_value_tokens(data: st.DataObject, ratio: float) -> None:
    flat = data.draw(st.lists(st.integers(-1, 3), min_size=30, max_size=30))
    field_ids = torch.tensor(flat).reshape(2, 15)
    field_ids[0, data.draw(st.integers(0, 15)) :] = -1
    hit = draw_token_mask(field_ids, ratio, step_generator(0, 0, 0))
    assert not hit[field_ids < 0].any()
    for row, mask in zip(field_ids, hit, strict=True):
        values = int((row >= 0).sum())
        assert int(mask.sum()) == (max(1, int(values * ratio)) if values else 0)


def test_token_level_masks_every_value_token_equally_often() -> None:
    batches = whole()
    masks = Masking(TEXT_FIELDS, TABLE_FIELDS, ratio=0.25, level="token").draw(batches, ROWS, step_generator(5, 0, 0))
    rates = masks.tokens[0].float().mean(0)[batches[0].field_ids[0] >= 0]
    assert rates.shape == (18,)
    assert torch.allclose(rates, torch.full((18,), 4 / 18), atol=0.02)
    assert (masks.table.sum(1) == 1).all()


# -- how often -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.15, 0.5])
@pytest.mark.parametrize("make", [whole, sides], ids=["interaction", "entity"])
def test_each_field_is_masked_equally_often_in_both_scopes(
    make: Callable[[], list[SegmentBatch]], ratio: float
) -> None:
    batches = make()
    masks = Masking(TEXT_FIELDS, TABLE_FIELDS, ratio=ratio).draw(batches, ROWS, step_generator(3, 1, 4))
    hidden = all_hidden(batches, masks.tokens)
    for mask, names in ((hidden, TEXT_FIELDS), (masks.table, TABLE_FIELDS)):
        expected = max(1, int(len(names) * ratio)) / len(names)
        assert torch.allclose(mask.float().mean(0), torch.full((len(names),), expected), atol=0.015)
    assert (masks.table.sum(1) == max(1, int(len(TABLE_FIELDS) * ratio))).all()
    if make is whole:
        assert (hidden.sum(1) == max(1, int(len(TEXT_FIELDS) * ratio))).all()


def test_text_and_table_are_drawn_independently() -> None:
    batches = whole()
    masks = Masking(TEXT_FIELDS, TABLE_FIELDS).draw(batches, ROWS, step_generator(3, 1, 4))
    text = all_hidden(batches, masks.tokens)[:, TEXT_FIELDS.index("age")].float()
    table = masks.table[:, TABLE_FIELDS.index("age")].float()
    assert float(torch.corrcoef(torch.stack([text, table]))[0, 1]) == pytest.approx(0, abs=0.03)


# -- shared --------------------------------------------------------------------------------------------------

COMMON = ["age", "gender", "year", "genre"]


@pytest.mark.parametrize("ratio", [0.15, 0.6])
@pytest.mark.parametrize("shared_by", [0, 1, 4], ids=["interaction", "entity", "entity-repeated"])
def test_shared_masks_hide_the_same_fields_in_both_modalities(shared_by: int, ratio: float) -> None:
    batches = sides(shared_by=shared_by) if shared_by else whole()
    masks = Masking(TEXT_FIELDS, TABLE_FIELDS, ratio=ratio, fields="shared").draw(
        batches, ROWS, step_generator(9, 0, 0)
    )
    hidden = all_hidden(batches, masks.tokens)
    for name in COMMON:
        assert torch.equal(hidden[:, TEXT_FIELDS.index(name)], masks.table[:, TABLE_FIELDS.index(name)])
        assert float(hidden[:, TEXT_FIELDS.index(name)].float().mean()) == pytest.approx(
            max(1, int(4 * ratio)) / 4, abs=0.03
        )
    assert not hidden[:, [TEXT_FIELDS.index(n) for n in TEXT_FIELDS if n not in COMMON]].any()
    assert not masks.table[:, [TABLE_FIELDS.index(n) for n in TABLE_FIELDS if n not in COMMON]].any()
    if not shared_by:
        assert (masks.table.sum(1) == max(1, int(4 * ratio))).all()


@pytest.mark.parametrize("fields", ["independent", "shared"])
def test_texts_beyond_the_limit_are_drawn_evenly_and_stay_whole(fields: str) -> None:
    """As many as there may be are masked, each text as often; where fewer are, nothing else is drawn."""
    masking = Masking(TEXT_FIELDS, TABLE_FIELDS, ratio=0.6, fields=fields, texts=30)
    batches, often = sides(90), torch.zeros(90)
    for step in range(400):
        masks = masking.draw(batches, 90, step_generator(3, 0, step))
        assert all(int(hidden.any(1).sum()) == 30 for hidden in masks.tokens[:2])
        often += masks.tokens[1].any(1)
        if fields == "shared":
            both = [(at, TABLE_FIELDS.index(name)) for at, name in enumerate(TEXT_FIELDS) if name in TABLE_FIELDS]
            hidden = all_hidden(batches, masks.tokens)
            assert all(torch.equal(hidden[:, text], masks.table[:, table]) for text, table in both)
    assert often.min() > 0.7 * often.mean() and often.max() < 1.3 * often.mean()
    all_of_them = Masking(TEXT_FIELDS, TABLE_FIELDS, fields=fields, texts=90).draw(batches, 90, step_generator(1, 0, 0))
    unlimited = Masking(TEXT_FIELDS, TABLE_FIELDS, fields=fields).draw(batches, 90, step_generator(1, 0, 0))
    assert all(torch.equal(*pair) for pair in zip(all_of_them.tokens, unlimited.tokens, strict=True))


@pytest.mark.parametrize(
    ("table", "level", "match"),
    [(TABLE_FIELDS, "token", "mask_level: field"), (["user_id", "zip"], "field", "both in the prompt and in the CTR")],
)
def test_shared_masks_need_whole_fields_that_both_have(table: list[str], level: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Masking(TEXT_FIELDS, table, level=level, fields="shared")


# -- from what they are drawn --------------------------------------------------------------------------------


def drawn(seed: int, epoch: int, step: int, **keys: str) -> list[Tensor]:
    masks = Masking(TEXT_FIELDS, TABLE_FIELDS, ratio=0.4, **keys).draw(sides(50), 50, step_generator(seed, epoch, step))
    return [*masks.tokens, masks.table]


@pytest.mark.parametrize("keys", [{}, {"level": "token"}, {"fields": "shared"}], ids=["field", "token", "shared"])
def test_masks_repeat_for_the_same_step_and_differ_for_another(keys: dict[str, str]) -> None:
    first = drawn(7, 1, 2, **keys)
    drawn(7, 1, 5, **keys)  # what is drawn in between has no part in it
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(7, 1, 2, **keys), strict=True))
    for other in ((7, 1, 3), (7, 2, 2), (8, 1, 2), (7, 2, 1)):
        assert not all(torch.equal(a, b) for a, b in zip(first, drawn(*other, **keys), strict=True))


def test_streams_and_steps_give_different_generators() -> None:
    keys = [(s, e, t, r) for s in range(3) for e in range(3) for t in range(3) for r in range(2)]
    first = {tuple(torch.rand(4, generator=step_generator(*key)).tolist()) for key in keys}
    assert len(first) == len(keys)


def test_global_generators_are_neither_read_nor_moved() -> None:
    expected = drawn(7, 1, 2)
    for seed in (0, 1):  # as a loader's workers have: any seed, any state
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        assert all(torch.equal(a, b) for a, b in zip(expected, drawn(7, 1, 2), strict=True))
        after = random.getstate(), np.random.get_state(), torch.get_rng_state()
        assert before[0] == after[0]
        assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
        assert torch.equal(before[2], after[2])
