"""Prompts: the texts that a batch of interactions needs, each distinct one made once.

No text is kept per interaction. A field has a ragged table of the token ids of its distinct values
(:mod:`recbole_alt.data.tokens`), from which the texts of a batch are joined; interactions refer to texts by index.
Joined clauses equal the tokens of the whole sentence, because clauses meet at white space
(:mod:`recbole_alt.data.template`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_alt.data.moving import moved
from recbole_alt.data.template import PromptTemplate
from recbole_alt.data.tokens import SegmentTokens, SpecialTokens, tokenise


@dataclass
class SegmentBatch:
    """The distinct texts of one segment, for ``B`` interactions."""

    input_ids: Tensor  # [N, L] token ids
    attention_mask: Tensor  # [N, L], 0 at padding
    field_ids: Tensor  # [N, L], the field (column of the prompt's fields) whose *value* a token belongs to, else -1
    row: Tensor  # [B], the text of each interaction
    owner: Tensor  # [N], the first interaction with each text
    segment: str  # the name of the segment
    pieces: np.ndarray  # [N, F] row of each field's table; with the segment, what tells one text from another
    lengths: np.ndarray  # [N] the tokens of each text

    def to(self, device: torch.device) -> SegmentBatch:
        """The same batch with its tensors on ``device``."""
        return moved(self, device)

    @property
    def encoder_input(self) -> tuple[Tensor, Tensor, np.ndarray]:
        """``input_ids``, ``attention_mask`` and ``lengths``."""
        return self.input_ids, self.attention_mask, self.lengths

    def select(self, texts: Tensor) -> SegmentBatch:
        """Only the texts [M] given by index, without trailing padding; ``row`` is empty."""
        which = texts.cpu().numpy()
        length = int(self.lengths[which].max(initial=0))
        return SegmentBatch(
            self.input_ids[texts, :length], self.attention_mask[texts, :length], self.field_ids[texts, :length],
            self.row[:0], self.owner[texts], self.segment, self.pieces[which], self.lengths[which],
        )  # fmt: skip


@dataclass(frozen=True)
class DistinctTexts:
    """The texts of one segment that ``B`` interactions need, not yet joined; see :class:`SegmentBatch`."""

    segment: SegmentTokens
    pieces: np.ndarray
    row: Tensor
    owner: Tensor

    def join(self, which: np.ndarray | None = None) -> SegmentBatch:
        """The tokens of all texts, or of those in ``which`` [M]; then ``row`` has no meaning."""
        pieces, owner = (self.pieces, self.owner) if which is None else (self.pieces[which], self.owner[which])
        input_ids, attention_mask, field_ids = map(torch.from_numpy, self.segment.assemble(pieces))
        lengths = attention_mask.sum(1).numpy()
        return SegmentBatch(input_ids, attention_mask, field_ids, self.row, owner, self.segment.name, pieces, lengths)


_AT_ONCE = 1_000_000  # rows of which the texts are told apart


class PromptTable:
    """The prompts of a dataset, for any batch of its interactions.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
        words: field → the words of each of its distinct values; entry 0 is a missing value.
        pieces: field → a function from a batch to the entries of ``words`` [B] of its rows.
        max_tokens: the longest text, special tokens included.
    """

    def __init__(
        self, template: PromptTemplate, tokenizer: Any, words: Mapping[str, Sequence[str]],
        pieces: Mapping[str, Callable[[Any], np.ndarray]], *, max_tokens: int, progress: bool = False,
    ):  # fmt: skip
        self.template, self.fields, self.words = template, template.fields, words
        self.special = SpecialTokens.of(tokenizer)
        self._pieces, self._tokenizer = pieces, tokenizer
        self.segments: list[SegmentTokens] = []
        value_ids = [np.zeros(0, dtype=np.int32)]
        for segment in template.segments:
            tables = [tokenise(tokenizer, clause, words[clause.field], shown=progress) for clause in segment.clauses]
            value_ids += [np.unique(table.ids[table.value_index >= 0]) for table in tables]
            prefix = tokenizer(segment.prefix, add_special_tokens=False, split_special_tokens=True, verbose=False)
            columns = [self.fields.index(name) for name in segment.fields]
            self.segments.append(SegmentTokens(segment, tables, columns, prefix["input_ids"], self.special, max_tokens))
        self.value_token_ids = np.unique(np.concatenate(value_ids))  # what a masked token can be

    def reading(
        self, pieces: Mapping[str, Callable[[Any], np.ndarray]], words: Mapping[str, Sequence[str]] | None = None
    ) -> PromptTable:
        """A table of these prompts, or with other ``words`` of these templates, that reads entries by ``pieces``."""
        if words is not None:
            longest = self.segments[0].max_tokens
            return PromptTable(self.template, self._tokenizer, words, pieces, max_tokens=longest)
        other = copy.copy(self)
        other._pieces = pieces
        return other

    @property
    def token_ids(self) -> np.ndarray:
        """All token ids that the prompts can hold, with those of mask and padding; ascending."""
        extra = np.asarray([self.special.mask, self.special.pad], dtype=np.int32)
        return np.unique(np.concatenate([extra, *(segment.ids for segment in self.segments)]))

    def distinct(self, interaction: Any) -> list[DistinctTexts]:
        """The texts that a batch of interactions needs, per segment, not yet joined."""
        return [self.distinct_of(segment, interaction) for segment in self.segments]

    def distinct_of(self, segment: SegmentTokens, interaction: Any) -> DistinctTexts:
        """The texts of one segment; of ``interaction`` only the columns that determine it are read."""
        pieces = self.pieces(segment, interaction)
        distinct, owner, row = np.unique(pieces, axis=0, return_index=True, return_inverse=True)
        return DistinctTexts(segment, distinct, torch.from_numpy(row.reshape(-1)), torch.from_numpy(owner))

    def every(self, interaction: Any) -> list[DistinctTexts]:
        """:meth:`distinct` for a whole dataset, sooner found, in no order; ``row`` and ``owner`` have no meaning."""
        found = []
        for segment in self.segments:
            pieces = self._different(segment, interaction)
            found.append(DistinctTexts(segment, pieces, torch.zeros(0), torch.zeros(len(pieces), dtype=torch.long)))
        return found

    def _different(self, segment: SegmentTokens, interaction: Any) -> np.ndarray:
        """The different rows of :meth:`pieces`, in order of appearance; in parts, which take less memory."""
        parts = (interaction[start : start + _AT_ONCE] for start in range(0, len(interaction), _AT_ONCE))
        frames = [pd.DataFrame(self.pieces(segment, part)).drop_duplicates() for part in parts]
        different: np.ndarray = pd.concat(frames).drop_duplicates().to_numpy()
        return different

    def batches(self, interaction: Any) -> list[SegmentBatch]:
        """The tokens of the texts of a batch of interactions, per segment, on the CPU."""
        return [texts.join() for texts in self.distinct(interaction)]

    def texts(self, interaction: Any) -> list[list[str]]:
        """The texts of each row, decoded with their special tokens, for people to read."""
        by_segment = []
        for batch in self.batches(interaction):
            tokens = zip(batch.input_ids, batch.attention_mask, strict=True)
            texts = [self._tokenizer.decode(ids[mask > 0]) for ids, mask in tokens]
            by_segment.append([texts[i] for i in batch.row.tolist()])
        return [list(row) for row in zip(*by_segment, strict=True)]

    def unlike_whole(self, interaction: Any) -> str | None:
        """A text of these rows whose joined clauses differ from the tokens of the whole sentence, or None.

        There is none if the tokenizer separates words at spaces; texts cut at ``max_tokens`` are not compared.
        """
        for template, texts in zip(self.template.segments, self.distinct(interaction), strict=True):
            batch = texts.join()
            for pieces, ids, mask in zip(texts.pieces, batch.input_ids, batch.attention_mask, strict=True):
                words = {name: self.words[name][i] for name, i in zip(template.fields, pieces, strict=True)}
                whole = self._tokenizer(template.text(words), split_special_tokens=True, verbose=False)["input_ids"]
                if len(whole) <= texts.segment.max_tokens and ids[mask > 0].tolist() != whole:
                    return template.text(words)
        return None

    def pieces(self, segment: SegmentTokens, interaction: Any) -> np.ndarray:
        """[B, F] the entry of each row in the table of each field of the segment."""
        return np.stack([self._pieces[name](interaction) for name in segment.fields], 1)

    def cut(self, interaction: Any) -> dict[str, tuple[int, int]]:
        """The fields that are cut in the distinct texts of these interactions; see :meth:`SegmentTokens.cut`."""
        long = [segment for segment in self.segments if segment.longest > segment.max_tokens]
        pieces = (np.unique(self.pieces(segment, interaction), axis=0) for segment in long)
        cuts = (segment.cut(of_segment) for segment, of_segment in zip(long, pieces, strict=True))
        return {name: cut for of_segment in cuts for name, cut in of_segment.items()}
