"""Clauses as tokens: tokenised once per distinct value, joined into texts of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from recbole_alt.data.template import Clause, SegmentTemplate

#: ``field_ids`` of a token that belongs to no field's value: special tokens, template words, padding.
NO_FIELD = -1

_CHUNK = 8192


@dataclass(frozen=True)
class SpecialTokens:
    """What a tokenizer puts around a text, and its mask and padding ids."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    mask: int
    pad: int

    @classmethod
    def of(cls, tokenizer: Any) -> SpecialTokens:
        """Read them off a Hugging Face fast tokenizer that has a mask and a padding token.

        Raises:
            ValueError: it reads a text otherwise where special tokens surround it.
        """
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = tokenizer("a")["input_ids"]
        start = next((i for i in range(len(whole)) if bare and whole[i : i + len(bare)] == bare), None)
        if start is None:
            raise ValueError(
                f"language_model: its tokenizer reads 'a' as {bare}, with special tokens as {whole}; clauses can't be "
                "joined with that: choose another"
            )
        return cls(
            tuple(whole[:start]),
            tuple(whole[start + len(bare) :]),
            int(tokenizer.mask_token_id),
            int(tokenizer.pad_token_id),
        )


@dataclass(frozen=True)
class ClauseTokens:
    """One field's clause for each of its ``V`` distinct values, ragged.

    Attributes:
        ids: [T] token ids of all clauses, one after another.
        value_index: [T] position inside the value, -1 for template words.
        offsets: [V + 1] where each clause starts.
        value_lengths: [V] tokens of each value.
    """

    ids: np.ndarray
    value_index: np.ndarray
    offsets: np.ndarray
    value_lengths: np.ndarray


def tokenise(tokenizer: Any, clause: Clause, words: Sequence[str], *, progress: bool = False) -> ClauseTokens:
    """Tokenise ``clause`` once for each of ``words``.

    A token belongs to the value if any of its characters does. A clause that follows another is read behind a full
    stop, which is then dropped: some tokenizers treat the start of a text differently from the start of a word.
    """
    stop = "." if clause.before[:1].isspace() else ""
    ids: list[np.ndarray] = []
    inside: list[np.ndarray] = []
    lengths: list[int] = []
    starts = range(0, len(words), _CHUNK)
    for start in tqdm(starts, desc=f"Tokenise {clause.field}", disable=not progress or len(starts) < 2, ncols=100):
        chunk = words[start : start + _CHUNK]
        encoded = tokenizer(
            [stop + clause.text(word) for word in chunk],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            split_special_tokens=True,
            verbose=False,
        )
        for word, tokens, spans in zip(chunk, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            span = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
            span = span[(own := span[:, 1] > len(stop))]
            first = len(stop) + len(clause.before)
            ids.append(np.asarray(tokens, dtype=np.int32)[own])
            inside.append((span[:, 0] < first + len(word)) & (span[:, 1] > first))
            lengths.append(len(span))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    flat = np.concatenate(inside) if inside else np.zeros(0, dtype=bool)
    before = np.concatenate([[0], np.cumsum(flat)])  # value tokens before each token
    of_clause = np.repeat(before[offsets[:-1]], lengths)
    value_index = np.where(flat, before[:-1] - of_clause, -1).astype(np.int32)
    return ClauseTokens(
        np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
        value_index,
        offsets,
        (before[offsets[1:]] - before[offsets[:-1]]).astype(np.int32),
    )


class SegmentTokens:
    """Joins the clauses of one segment into texts of at most ``max_tokens`` tokens.

    Args:
        template: the segment.
        tables: one table per field, in the template's order.
        columns: each field's column among all fields of the prompt.
        prefix_ids: tokens of the segment's prefix.
        special: the tokenizer's special tokens.
        max_tokens: longest text, special tokens included. Values are cut from their ends, longest first.

    Raises:
        ValueError: the template's own words leave no room for one token of each value.
    """

    def __init__(
        self,
        template: SegmentTemplate,
        tables: Sequence[ClauseTokens],
        columns: Sequence[int],
        prefix_ids: Sequence[int],
        special: SpecialTokens,
        max_tokens: int,
    ):
        self.name = template.name
        self.fields = template.fields
        self.max_tokens = max_tokens
        self.pad = special.pad
        head = np.asarray([*special.before, *prefix_ids], dtype=np.int32)
        tail = np.asarray(special.after, dtype=np.int32)
        runs = [head, *(table.ids for table in tables), tail]
        bases = np.cumsum([0, *(len(run) for run in runs)])
        self.ids = np.concatenate(runs)
        self.value_index = np.concatenate(
            [np.full(len(head), -1, np.int32), *(t.value_index for t in tables), np.full(len(tail), -1, np.int32)]
        )
        owner = [NO_FIELD, *columns, NO_FIELD]
        of_run = np.repeat(np.asarray(owner, dtype=np.int64), [len(run) for run in runs])
        self.field_ids = np.where(self.value_index >= 0, of_run, NO_FIELD)
        self._starts = [np.array([bases[0]]), *(t.offsets[:-1] + b for t, b in zip(tables, bases[1:], strict=False))]
        self._starts.append(np.array([bases[-2]]))
        self._lengths = [np.array([len(head)]), *(np.diff(t.offsets) for t in tables), np.array([len(tail)])]
        self._value_lengths = [t.value_lengths for t in tables]
        widest = sum(int((np.diff(t.offsets) - t.value_lengths).max(initial=0)) for t in tables)
        needed = len(head) + len(tail) + widest + len(tables)
        if needed > max_tokens:
            raise ValueError(
                f"max_text_tokens={max_tokens} is too short for the {self.name!r} template: its own words need "
                f"{needed - len(tables)} tokens, its {len(tables)} values at least one each: give {needed} or more"
            )

    def assemble(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Join clauses into padded texts.

        Args:
            pieces: [N, F] row of each field's table.

        Returns:
            ``input_ids``, ``attention_mask`` and ``field_ids``, each [N, L].
        """
        count = len(pieces)
        columns = [np.zeros(count, dtype=np.int64), *pieces.T, np.zeros(count, dtype=np.int64)]
        starts = np.stack([table[column] for table, column in zip(self._starts, columns, strict=True)], 1)
        lengths = np.stack([table[column] for table, column in zip(self._lengths, columns, strict=True)], 1)
        run_lengths = lengths.ravel()
        run_ends = np.cumsum(run_lengths)
        total = int(run_ends[-1]) if count else 0
        flat = np.arange(total) + np.repeat(starts.ravel() - (run_ends - run_lengths), run_lengths)
        text = np.repeat(np.arange(count), lengths.sum(1))
        if total and lengths.sum(1).max() > self.max_tokens:
            keep = np.full_like(lengths, np.iinfo(np.int32).max)
            keep[:, 1:-1] = self.kept(pieces)
            within = self.value_index[flat] < np.repeat(keep.ravel(), run_lengths)
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

    def kept(self, pieces: np.ndarray) -> np.ndarray:
        """[N, F] how many tokens of each value stay so that each text fits; the longest are cut first."""
        values = np.stack([table[column] for table, column in zip(self._value_lengths, pieces.T, strict=True)], 1)
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
        """[N] tokens of each text before any cut."""
        lengths = sum(table[column] for table, column in zip(self._lengths[1:-1], pieces.T, strict=True))
        return np.asarray(lengths) + self._lengths[0][0] + self._lengths[-1][0]

    def cut(self, pieces: np.ndarray) -> dict[str, tuple[int, int]]:
        """Which fields of these texts [N, F] are cut: field → (values cut, tokens of the longest)."""
        if sum(int(t.max(initial=0)) for t in self._lengths) <= self.max_tokens:
            return {}
        long = pieces[self.total_lengths(pieces) > self.max_tokens]
        if not len(long):
            return {}
        keep = self.kept(long)
        report = {}
        for i, name in enumerate(self.fields):
            values = self._value_lengths[i][long[:, i]]
            shortened = values[keep[:, i] < values]
            if len(shortened):
                report[name] = (len(shortened), int(shortened.max()))
        return report
