"""Prompts as tokens: joined pieces are the tokenizer's output, and every token knows its field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MINILM
from hypothesis import given, settings
from hypothesis import strategies as st
from language_models import BERT_TOKENS, CORPUS, ROBERTA_TOKENS, byte_bpe, metaspace_bpe, unigram
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from recbole_alt.data.prompts import PromptTable, SegmentBatch
from recbole_alt.data.template import PromptTemplate, build_template
from recbole_alt.pretrained import complete, load_tokenizer

_MAKE = {
    "wordpiece": lambda: load_tokenizer(MINILM),
    "byte_bpe": lambda: complete(byte_bpe(**ROBERTA_TOKENS)),
    "byte_bpe_of_gpt2": lambda: complete(byte_bpe(eos_token="<|endoftext|>")),
    "byte_bpe_of_qwen": lambda: complete(byte_bpe(split=True, eos_token="<|im_end|>")),
    "unigram": lambda: complete(unigram(**BERT_TOKENS)),
    "metaspace_bpe": lambda: complete(metaspace_bpe()),
}
_MADE: dict[str, Any] = {}


def made(family: str) -> Any:
    if family not in _MADE:
        _MADE[family] = _MAKE[family]()
    return _MADE[family]


@pytest.fixture(params=list(_MAKE))
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return made(request.param)


SIDE = {"age": "user", "gender": "user", "title": "item", "genre": "item", "device": "context"}


def template_of(spec: dict[str, Any] | None = None, scope: str = "interaction") -> PromptTemplate:
    return build_template(spec, SIDE, scope=scope)


def table_of(
    tokenizer: Any, template: PromptTemplate, values: dict[str, Sequence[str]], max_tokens: int = 100_000
) -> PromptTable:
    """A table where row ``i`` of a batch says which of a field's values it has."""
    words = {name: [template.missing, *(template.word(name, v) for v in values[name])] for name in template.fields}
    pieces = {name: (lambda rows, name=name: np.asarray(rows[name])) for name in template.fields}
    return PromptTable(template, tokenizer, words, pieces, max_tokens=max_tokens)


def rows_of(values: dict[str, Sequence[str]], *rows: Sequence[int]) -> dict[str, list[int]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(values)}


def text_ids(batch: SegmentBatch, text: int) -> list[int]:
    return batch.input_ids[text][batch.attention_mask[text] == 1].tolist()


def value_ids(batch: SegmentBatch, text: int, column: int) -> list[int]:
    return batch.input_ids[text][batch.field_ids[text] == column].tolist()


# -- joined pieces are the tokenizer's output ----------------------------------------------------------------

_EXOTIC = (
    "\u0301\u0327\u200b\u200d\ufe0f\u00a8\u00bd\ufb01\ufdfa\u2581\u0600\u0130\u00df\u03a3\u1e9b\u00ad\x00\x1f\ufffd"
)
_TEXT = st.one_of(
    st.text(max_size=12),
    st.text(alphabet=st.sampled_from(list("aB9 .,;:!?'\"()[]-_&%#/|«»“”éñüçß中文日の語한글😀" + _EXOTIC)), max_size=12),
    st.sampled_from(["[MASK]", "[SEP]", "[CLS] x", "[PAD]", "a[MASK]b", '"Heat"', "don't", "it's [MASK].", "x" * 150]),
)
_WORDS = st.text(alphabet=st.sampled_from(list("ab Z9.,:;'\"é中|[]")), max_size=6)
_WORDING = st.tuples(_WORDS, _WORDS).map("{value}".join)
_SPEC = st.fixed_dictionaries(
    {"order": st.permutations(sorted(SIDE))},
    optional={
        "fields": st.dictionaries(st.sampled_from(sorted(SIDE)), _WORDING),
        "separator": st.sampled_from([" ", "; ", " | ", ", and ", ". "]),
        "prefix": st.dictionaries(
            st.sampled_from(["prompt", "user", "item", "context"]),
            st.sampled_from(["User:", "A film", "x.", "«"]),
        ),
    },
)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), spec=_SPEC, scope=st.sampled_from(["interaction", "entity"]))
def _joined_pieces_are_the_whole(tokenizer: Any, data: st.DataObject, spec: dict[str, Any], scope: str) -> None:
    template = template_of(spec, scope)
    values = {name: data.draw(st.lists(_TEXT, min_size=2, max_size=2), label=name) for name in SIDE}
    table = table_of(tokenizer, template, values)
    batches = table.batches(rows_of(values, [1] * 5, [2] * 5, [1, 2, 0, 1, 2]))
    for segment, batch in zip(template.segments, batches, strict=True):
        for row, pick in enumerate(([1] * 5, [2] * 5, [1, 2, 0, 1, 2])):
            words = {
                name: template.word(name, values[name][which - 1]) if which else template.missing
                for name, which in zip(SIDE, pick, strict=True)
            }
            whole = tokenizer(segment.text(words), split_special_tokens=True)["input_ids"]
            assert text_ids(batch, int(batch.row[row])) == whole


def test_joined_pieces_are_the_whole_sentence(tokenizer: Any) -> None:
    _joined_pieces_are_the_whole(tokenizer)


@pytest.mark.parametrize(
    "spec",
    [{}, {"fields": {"age": "[MASK][SEP] {value} [PAD]."}}, {"prefix": {"prompt": "a [MASK] [PAD][SEP]"}}],
    ids=["value", "wording", "prefix"],
)
@pytest.mark.parametrize("family", ["wordpiece", "byte_bpe"])  # a Unigram model has special tokens among its pieces
def test_special_tokens_written_out_stay_plain_text(family: str, spec: dict[str, Any]) -> None:
    tokenizer = made(family)
    values = {name: ["[MASK] [SEP][PAD]"] for name in SIDE}
    table = table_of(tokenizer, template_of(spec), values)
    ids = text_ids(table.batches(rows_of(values, [1] * 5))[0], 0)
    assert tokenizer.mask_token_id not in ids
    assert tokenizer.pad_token_id not in ids
    assert ids.count(tokenizer.sep_token_id) == 1


# -- every token knows its field -----------------------------------------------------------------------------


def bare(tokenizer: Any, ids: list[int]) -> str:
    """What ids say, without white space: a tokenizer may set the space before a word apart."""
    return "".join(tokenizer.decode(ids, skip_special_tokens=True).split())


_NAME = st.text(alphabet=st.sampled_from("abcXYZ 019éß"), min_size=1, max_size=14).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), scope=st.sampled_from(["interaction", "entity"]))
def _field_ids_mark_the_value(tokenizer: Any, data: st.DataObject, scope: str) -> None:
    template = template_of(scope=scope)
    values = {name: [data.draw(_NAME, label=name)] for name in SIDE}
    batches = table_of(tokenizer, template, values).batches(rows_of(values, [1] * 5))
    seen = []
    for segment, batch in zip(template.segments, batches, strict=True):
        for name in segment.fields:
            column = template.fields.index(name)
            seen.append(name)
            ids = value_ids(batch, 0, column)
            got = bare(tokenizer, ids)
            expected = bare(tokenizer, tokenizer(values[name][0].strip(), add_special_tokens=False)["input_ids"])
            covers_the_full_stop = bare(tokenizer, ids[-1:]) != "." and got.endswith(".")  # one piece, the value's
            assert got == expected + "." * covers_the_full_stop
            marked = (batch.field_ids[0] == column).nonzero().flatten()
            assert torch.equal(marked, torch.arange(int(marked[0]), int(marked[-1]) + 1))  # no gap
        if "." not in {tokenizer.decode(i)[-1:] for i in batch.input_ids[batch.field_ids >= 0].tolist()}:
            words = segment.text(dict.fromkeys(segment.fields, ""))
            others = batch.input_ids[0][batch.field_ids[0] == -1].tolist()
            assert bare(tokenizer, others) == bare(tokenizer, tokenizer(words)["input_ids"])
    assert sorted(seen) == sorted(SIDE)


def test_field_ids_mark_exactly_the_values_tokens(tokenizer: Any) -> None:
    _field_ids_mark_the_value(tokenizer)


def test_value_token_ids_are_all_tokens_a_value_can_have(tokenizer: Any) -> None:
    values = {name: [f"{name} one", "Heat, 中", "x"] for name in SIDE}
    table = table_of(tokenizer, template_of(scope="entity"), values)
    seen: set[int] = set()
    for batch in table.batches(rows_of(values, *[[i] * 5 for i in range(4)])):
        seen |= set(batch.input_ids[batch.field_ids >= 0].tolist())
    assert sorted(seen) == table.value_token_ids.tolist()


def test_a_tokenizer_that_merges_across_spaces_is_found_out() -> None:
    greedy = Tokenizer(models.BPE())
    greedy.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")  # a whole text is one word
    alphabet = sorted(set("".join(CORPUS)))
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["[PAD]"], initial_alphabet=alphabet, show_progress=False
    )
    greedy.train_from_iterator(CORPUS, trainer)
    values = {"age": ["24"], "gender": ["male"], "title": ["Toy Story"], "genre": ["Crime"], "device": ["x"]}
    rows = rows_of(values, [1] * len(values))
    across = table_of(complete(PreTrainedTokenizerFast(tokenizer_object=greedy)), template_of(), values)
    assert across.unlike_whole(rows) is not None
    for family in _MAKE:
        assert table_of(made(family), template_of(), values).unlike_whole(rows) is None, family
