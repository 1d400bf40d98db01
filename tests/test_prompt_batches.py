"""Batches of prompts: shared texts, padding, and values cut to the longest text allowed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import MINILM
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_alt.data.prompts import PromptTable, SegmentBatch, SpecialTokens
from recbole_alt.data.template import build_template
from recbole_alt.pretrained import complete, load_tokenizer

SIDE = {"age": "user", "gender": "user", "title": "item", "genre": "item"}
WORDS = {
    "age": ["unknown", "24", "31 or so"],
    "gender": ["unknown", "male", "female"],
    "title": ["unknown", "Heat", " ".join(f"part {i}" for i in range(30))],
    "genre": ["unknown", "Crime", "Crime, Drama, Comedy, War, Horror, Western", "Noir"],
}


def table_of(max_tokens: int = 500, scope: str = "interaction", words: dict[str, list[str]] = WORDS) -> PromptTable:
    template = build_template(None, SIDE, scope=scope)
    pieces = {name: (lambda rows, name=name: np.asarray(rows[name])) for name in SIDE}
    return PromptTable(template, load_tokenizer(MINILM), words, pieces, max_tokens=max_tokens)


def rows_of(*rows: list[int]) -> dict[str, list[int]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(SIDE)}


def values_of(batch: SegmentBatch, text: int) -> list[list[int]]:
    """Token ids of each field's value in a text."""
    return [batch.input_ids[text][batch.field_ids[text] == column].tolist() for column in range(len(SIDE))]


def tokens(text: str) -> list[int]:
    return load_tokenizer(MINILM)(text, add_special_tokens=False)["input_ids"]


# -- shared texts and padding --------------------------------------------------------------------------------

ROWS = [[1, 1, 2, 1], [2, 0, 1, 1], [1, 1, 2, 1], [1, 1, 1, 1], [2, 0, 1, 1], [1, 1, 2, 2]]


@pytest.mark.parametrize("scope", ["interaction", "entity"])
def test_rows_with_the_same_values_share_a_text(scope: str) -> None:
    table = table_of(scope=scope)
    batches = table.batches(rows_of(*ROWS))
    parts = [slice(0, 4)] if scope == "interaction" else [slice(0, 2), slice(2, 4)]
    assert len(batches) == len(parts)
    for batch, part in zip(batches, parts, strict=True):
        keys = [tuple(row[part]) for row in ROWS]
        assert len(batch.input_ids) == len(set(keys)) == len(batch.owner)
        assert batch.row.shape == (len(ROWS),)
        for i, key in enumerate(keys):
            assert int(batch.owner[batch.row[i]]) == keys.index(key)
            got = values_of(batch, int(batch.row[i]))[part]
            assert got == [tokens(WORDS[n][v]) for n, v in zip(list(SIDE)[part], key, strict=True)]


def test_texts_do_not_depend_on_the_rest_of_the_batch() -> None:
    table = table_of(max_tokens=40)
    together = table.batches(rows_of(*ROWS))[0]
    for i, row in enumerate(ROWS):
        alone = table.batches(rows_of(row))[0]
        text = int(together.row[i])
        length = int(together.attention_mask[text].sum())
        assert together.input_ids[text, :length].tolist() == alone.input_ids[0].tolist()
        assert together.field_ids[text, :length].tolist() == alone.field_ids[0].tolist()


def test_texts_are_padded_at_the_end_to_the_batchs_longest() -> None:
    batch = table_of().batches(rows_of(*ROWS))[0]
    pad = SpecialTokens.of(load_tokenizer(MINILM)).pad
    lengths = batch.attention_mask.sum(1)
    assert len(set(lengths.tolist())) > 1
    assert batch.input_ids.shape == batch.attention_mask.shape == batch.field_ids.shape
    assert batch.input_ids.shape[1] == int(lengths.max())
    inside = torch.arange(batch.input_ids.shape[1]) < lengths[:, None]
    assert torch.equal(batch.attention_mask == 1, inside)
    assert (batch.input_ids[~inside] == pad).all()
    assert (batch.input_ids[inside] != pad).all()
    assert (batch.field_ids[~inside] == -1).all()


def test_select_keeps_the_texts_asked_for_without_padding() -> None:
    batch = table_of().batches(rows_of(*ROWS))[0]
    lengths = batch.attention_mask.sum(1)
    short = lengths.argsort()[:2].flip(0)
    chosen = batch.select(short)
    length = int(lengths[short].max())
    assert length < batch.input_ids.shape[1]
    for name in ("input_ids", "attention_mask", "field_ids"):
        assert torch.equal(getattr(chosen, name), getattr(batch, name)[short][:, :length])
        assert not getattr(batch, name)[short][:, length:].clamp(min=0).any()
    assert torch.equal(chosen.owner, batch.owner[short])
    assert len(chosen.row) == 0
    assert batch.select(torch.zeros(0, dtype=torch.long)).input_ids.shape[0] == 0


# -- cut to the longest text allowed -------------------------------------------------------------------------

_VALUE = st.lists(st.sampled_from(["toy", "story", "97", "of", "unbelievable", "x,", "L'"]), min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.tuples(*[_VALUE.map(" ".join)] * 4), min_size=1, max_size=4),
    room=st.integers(0, 12),
    scope=st.sampled_from(["interaction", "entity"]),
)
def test_cut_texts_keep_the_template_and_the_start_of_every_value(
    values: list[tuple[str, ...]], room: int, scope: str
) -> None:
    words = {name: ["unknown", *(row[i] for row in values)] for i, name in enumerate(SIDE)}
    rows = rows_of(*[[i] * 4 for i in range(len(values) + 1)])
    full = table_of(10_000, scope, words).batches(rows)
    needed = max(
        int(((b.field_ids < 0) & (b.attention_mask == 1))[0].sum()) + len(b.field_ids[0].unique()) - 1 for b in full
    )
    table = table_of(needed + room, scope, words)
    report: dict[str, list[int]] = {}
    for batch, whole in zip(table.batches(rows), full, strict=True):
        assert torch.equal(batch.row, whole.row)
        assert int(batch.attention_mask.sum(1).max()) <= needed + room
        for text in range(len(whole.input_ids)):
            kept, had = batch.attention_mask[text] == 1, whole.attention_mask[text] == 1
            words_kept = batch.input_ids[text][kept & (batch.field_ids[text] < 0)]
            assert torch.equal(words_kept, whole.input_ids[text][had & (whole.field_ids[text] < 0)])
            runs = batch.field_ids[text][kept].unique_consecutive()
            assert torch.equal(runs, whole.field_ids[text][had].unique_consecutive())  # same fields, same order
            before, after = values_of(whole, text), values_of(batch, text)
            lengths = [len(value) for value in after]
            for name, old, new in zip(SIDE, before, after, strict=True):
                assert new == old[: len(new)]
                assert new or not old
                if len(new) < len(old):
                    report.setdefault(name, []).append(len(old))
                    assert len(new) >= max(lengths)  # the longest are cut first
            if had.sum() <= needed + room:
                assert after == before
            else:  # cut, but no more than it must be
                assert int(kept.sum()) > needed + room - len(SIDE)
    assert table.cut(rows) == {name: (len(lengths), max(lengths)) for name, lengths in report.items()}


def test_cut_counts_each_text_once_and_only_those_too_long() -> None:
    long = WORDS["title"][2]
    rows = rows_of([1, 1, 2, 1], [1, 1, 2, 1], [2, 1, 2, 1], [1, 1, 1, 1])
    assert table_of(200).cut(rows) == {}
    assert table_of(50).cut(rows) == {"title": (2, len(tokens(long)))}
    assert table_of(50, "entity").cut(rows) == {"title": (1, len(tokens(long)))}
    assert table_of(50).cut(rows_of([1, 1, 1, 1])) == {}


def test_too_short_a_text_is_an_error_that_says_how_long_it_must_be() -> None:
    whole = table_of().batches(rows_of([1, 1, 1, 1]))[0]
    needed = int((whole.field_ids[0] < 0).sum()) + len(SIDE)
    assert table_of(needed).batches(rows_of([2, 2, 2, 2]))[0].input_ids.shape == (1, needed)
    with pytest.raises(ValueError, match=rf"max_text_tokens={needed - 1} .*{needed} or more"):
        table_of(needed - 1)


def test_a_tokenizer_gets_the_mask_and_padding_it_lacks() -> None:
    import copy

    whole: Any = load_tokenizer(MINILM)
    assert complete(copy.deepcopy(whole)).get_vocab() == whole.get_vocab()  # nothing to add
    bare: Any = copy.deepcopy(whole)
    bare.mask_token = bare.pad_token = None
    special = SpecialTokens.of(complete(bare))
    assert special.mask == whole.mask_token_id  # the word was in its vocabulary all along
    assert special.pad is not None
    assert bare("a [MASK] b", split_special_tokens=True)["input_ids"].count(special.mask) == 0


def test_special_tokens_are_read_off_the_tokenizer() -> None:
    tokenizer = load_tokenizer(MINILM)
    special = SpecialTokens.of(tokenizer)
    assert special.before == (tokenizer.cls_token_id,)
    assert special.after == (tokenizer.sep_token_id,)
    assert (special.mask, special.pad) == (tokenizer.mask_token_id, tokenizer.pad_token_id)
