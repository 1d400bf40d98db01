"""Tokens of clauses: made once per distinct value, and joined into texts of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recbole_alt.data.template import Clause, SegmentTemplate
from recbole_alt.progress import progress

#: The field id of tokens that belong to no value: special tokens, words of the template, padding.
NO_FIELD = -1

_CHUNK = 8192


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that a tokenizer puts around a text, and its mask and padding ids."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    mask: int
    pad: int

    @classmethod
    def of(cls, tokenizer: Any) -> SpecialTokens:
        """The special tokens of a Hugging Face fast tokenizer that has a mask and a padding token.

        Raises:
            ValueError: the tokens of a text change if special tokens surround it.
        """
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = tokenizer("a")["input_ids"]
        start = next((i for i in range(len(whole)) if bare and whole[i : i + len(bare)] == bare), None)
        if start is None:
            said = f"its tokenizer reads 'a' as {bare}, with special tokens as {whole}"
            raise ValueError(f"language_model: {said}; clauses can't be joined with that: choose another")
        before, after = tuple(whole[:start]), tuple(whole[start + len(bare) :])
        return cls(before, after, int(tokenizer.mask_token_id), int(tokenizer.pad_token_id))


@dataclass(frozen=True)
class ClauseTokens:
    """The tokens of a field's clause for each of its ``V`` distinct values, as a ragged table."""

    ids: np.ndarray  # [T] token ids of all clauses, one after another
    value_index: np.ndarray  # [T] position inside the value, -1 for words of the template
    offsets: np.ndarray  # [V + 1] the start of each clause, and T
    value_lengths: np.ndarray  # [V] number of tokens of each value

    @classmethod
    def fixed(cls, ids: Sequence[int]) -> ClauseTokens:
        """A table of one clause without a value."""
        tokens = np.asarray(ids, dtype=np.int32)
        return cls(tokens, np.full_like(tokens, -1), np.array([0, len(tokens)]), np.zeros(1, dtype=np.int32))


def tokenise(tokenizer: Any, clause: Clause, words: Sequence[str], *, shown: bool = False) -> ClauseTokens:
    """Tokenise ``clause`` once for each of ``words``.

    A token belongs to the value if any of its characters does. Some tokenizers treat the start of a text differently
    from the start of a word, so a clause that follows another is tokenised after a full stop, which is then dropped.
    """
    stop = "." if clause.before[:1].isspace() else ""
    first = len(stop) + len(clause.before)
    ids, inside = [], []
    starts = range(0, len(words), _CHUNK)
    for start in progress(starts, f"Tokenise {clause.field}", shown=shown and len(starts) > 1):
        chunk = words[start : start + _CHUNK]
        encoded = tokenizer(
            [stop + clause.text(word) for word in chunk],
            add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False,
            return_token_type_ids=False, split_special_tokens=True, verbose=False,
        )  # fmt: skip
        for word, tokens, spans in zip(chunk, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            span = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
            span = span[(own := span[:, 1] > len(stop))]
            ids.append(np.asarray(tokens, dtype=np.int32)[own])
            inside.append((span[:, 0] < first + len(word)) & (span[:, 1] > first))
    lengths = list(map(len, ids))
    offsets = np.cumsum([0, *lengths])
    is_value = np.concatenate(inside)
    before = np.concatenate([[0], np.cumsum(is_value)])  # value tokens before each token
    value_index = np.where(is_value, before[:-1] - np.repeat(before[offsets[:-1]], lengths), -1).astype(np.int32)
    return ClauseTokens(np.concatenate(ids), value_index, offsets, np.diff(before[offsets]).astype(np.int32))


class SegmentTokens:
    """Joins the clauses of one segment into texts of at most ``max_tokens`` tokens.

    Args:
        tables: one table per field, in the order of the template.
        columns: the index of each field among all fields of the prompt.
        prefix_ids: the tokens of the segment's prefix.
        max_tokens: the longest text, special tokens included. Values are cut from their ends, longest first.

    Raises:
        ValueError: the words of the template leave no room for one token of each value.
    """

    def __init__(
        self, template: SegmentTemplate, tables: Sequence[ClauseTokens], columns: Sequence[int],
        prefix_ids: Sequence[int], special: SpecialTokens, max_tokens: int,
    ):  # fmt: skip
        self.name, self.fields = template.name, template.fields
        self.max_tokens, self.pad = max_tokens, special.pad
        runs = [ClauseTokens.fixed([*special.before, *prefix_ids]), *tables, ClauseTokens.fixed(special.after)]
        sizes = [len(run.ids) for run in runs]
        self.ids = np.concatenate([run.ids for run in runs])
        self.value_index = np.concatenate([run.value_index for run in runs])
        of_run = np.repeat(np.asarray([NO_FIELD, *columns, NO_FIELD], dtype=np.int64), sizes)
        self.field_ids = np.where(self.value_index >= 0, of_run, NO_FIELD)
        first = np.cumsum([0, *sizes[:-1]])
        self._starts = [run.offsets[:-1] + start for run, start in zip(runs, first, strict=True)]
        self._lengths = [np.diff(run.offsets) for run in runs]
        self._value_lengths = [run.value_lengths for run in runs]
        words = sum(int((t - v).max(initial=0)) for t, v in zip(self._lengths, self._value_lengths, strict=True))
        if words + len(columns) > max_tokens:
            raise ValueError(
                f"max_text_tokens={max_tokens} is too short for the {self.name!r} template: its own words need "
                f"{words} tokens, its {len(columns)} values at least one each: give {words + len(columns)} or more"
            )

    def assemble(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Join clauses, given the rows [N, F] of the fields' tables, into padded texts.

        Returns:
            ``input_ids``, ``attention_mask`` and ``field_ids``, each [N, L].
        """
        count = len(pieces)
        starts, lengths = _look_up(self._starts, pieces), _look_up(self._lengths, pieces)
        run_lengths = lengths.ravel()
        run_ends = np.cumsum(run_lengths)
        total = int(run_ends[-1]) if count else 0
        flat = np.arange(total) + np.repeat(starts.ravel() - (run_ends - run_lengths), run_lengths)
        text = np.repeat(np.arange(count), lengths.sum(1))
        if total and lengths.sum(1).max() > self.max_tokens:
            within = self.value_index[flat] < np.repeat(self._kept(pieces).ravel(), run_lengths)
            flat, text = flat[within], text[within]
        text_lengths = np.bincount(text, minlength=count)
        position = np.arange(len(flat)) - np.repeat(np.cumsum(text_lengths) - text_lengths, text_lengths)
        shape = (count, int(text_lengths.max(initial=0)))
        input_ids = np.full(shape, self.pad, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        field_ids = np.full(shape, NO_FIELD, dtype=np.int64)
        input_ids[text, position] = self.ids[flat]
        attention_mask[text, position] = 1
        field_ids[text, position] = self.field_ids[flat]
        return input_ids, attention_mask, field_ids

    def _kept(self, pieces: np.ndarray) -> np.ndarray:
        """[N, 1 + F + 1] the number of tokens of each value that stay in the text; the longest are cut first."""
        values = _look_up(self._value_lengths, pieces)
        total = self.total_lengths(pieces)
        room = self.max_tokens - (total - values.sum(1))
        low = np.ones(len(pieces), dtype=np.int64)  # the longest allowed value: invariant, low fits
        high = np.where(total <= self.max_tokens, np.iinfo(np.int32).max, values.max(1, initial=0))
        while (low < high).any():
            middle = (low + high + 1) // 2
            fits = np.minimum(values, middle[:, None]).sum(1) <= room
            low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
        return np.minimum(values, low[:, None])

    def total_lengths(self, pieces: np.ndarray) -> np.ndarray:
        """[N] the number of tokens of each text before any cut, given the rows [N, F] of its fields' tables."""
        return _look_up(self._lengths, pieces).sum(1)

    @property
    def longest(self) -> int:
        """The number of tokens that no text exceeds before any cut."""
        return sum(int(lengths.max(initial=0)) for lengths in self._lengths)

    def cut(self, pieces: np.ndarray) -> dict[str, tuple[int, int]]:
        """The fields that are cut in these texts [N, F]: field → (number of values cut, tokens of the longest)."""
        long = pieces[self.total_lengths(pieces) > self.max_tokens]
        values = _look_up(self._value_lengths, long)
        of_field = zip(self.fields, values.T[1:-1], (self._kept(long) < values).T[1:-1], strict=True)
        return {name: (int(is_cut.sum()), int(sizes[is_cut].max())) for name, sizes, is_cut in of_field if is_cut.any()}


def _look_up(tables: Sequence[np.ndarray], pieces: np.ndarray) -> np.ndarray:
    """[N, 1 + F + 1] the entries of a text's prefix, of its ``pieces`` [N, F], and of its end."""
    columns = np.pad(pieces, ((0, 0), (1, 1))).T
    return np.stack([table[column] for table, column in zip(tables, columns, strict=True)], 1)
