"""States of a dataset's texts, made once where alignment leaves the language model as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from recbole_alt.data.masking import Masking, masked_tokens
from recbole_alt.data.prompts import DistinctTexts, SegmentBatch
from recbole_alt.data.steps import total_memory
from recbole_alt.model.attention import SegmentStates
from recbole_alt.model.language import LanguageModel

_CHUNK = 256  # texts encoded, or masked, at once
_SHARE_OF_MEMORY = 1 / 4


@dataclass(frozen=True)
class TextsOfStep:
    """How many texts a step of alignment reads, by a look at the first one.

    Attributes:
        complete: distinct texts.
        masked: those of them in which something is masked.
    """

    complete: int
    masked: int


class KeptTexts:
    """Token states of every text of a dataset, and those of every masked form of it at its masked positions.

    Everything is encoded in :meth:`fill`, in an order that depends on the texts alone: a run that is stopped and goes
    on has the same states to the last bit.

    Args:
        language_model: none of its parameters is trained.
        mask_id: the tokenizer's mask token, which no text holds of itself.
        device: where the states are kept.
    """

    def __init__(self, language_model: LanguageModel, mask_id: int, device: torch.device):
        self._language_model, self._mask_id, self._device = language_model, mask_id, device
        self._complete: _States | None = None
        self._masked: _States | None = None

    def fill(
        self,
        texts: Sequence[DistinctTexts],
        masking: Masking,
        step: TextsOfStep,
        steps: int,
        *,
        memory: float | None = None,
        progress: bool = False,
    ) -> None:
        """Encode the complete texts, and the masked ones, each if that is less work than encoding them at every step.

        Args:
            texts: all distinct texts, by segment.
            masking: how they are masked; only whole fields make few enough forms to be kept.
            step: what a step reads.
            steps: how many there are.
            memory: most bytes to keep; None for a quarter of the device's.
            progress: show a progress bar.
        """
        most = total_memory(self._device) * _SHARE_OF_MEMORY if memory is None else memory
        room = most / (4 * self._language_model.hidden_size)  # for the states of so many tokens
        numbers = [len(part.pieces) for part in texts]
        tokens = [int(part.segment.total_lengths(part.pieces).sum()) for part in texts]
        if sum(numbers) <= step.complete * steps and sum(tokens) <= room:
            self._complete = self._encode(_complete_texts(texts), "Encode texts", progress)
            room -= sum(tokens)
        forms = []
        for part, number, length in zip(texts, numbers, tokens, strict=True):
            found = masking.forms(part.segment.fields, most=step.masked * steps // number)
            if found is None:
                return
            forms.append(found)
            room -= length * int(found.sum(0).max()) if len(found) else 0  # a token is hidden in so many forms
        if sum(n * len(found) for n, found in zip(numbers, forms, strict=True)) <= step.masked * steps and room >= 0:
            masked = _masked_texts(texts, forms, self._mask_id)
            self._masked = self._encode(masked, "Encode masked texts", progress, at=self._mask_id)

    def _encode(self, texts: list[np.ndarray], said: str, progress: bool, at: int | None = None) -> _States:
        states = _States.encode(self._language_model, texts, self._device, said=said, progress=progress, at=at)
        getLogger().info(f"{said}: {len(texts):,}, once for all steps; {states.mebibytes:,.0f} MiB of states are kept")
        return states

    def complete(self, batches: Sequence[SegmentBatch]) -> list[SegmentStates] | None:
        """The states of every segment of a step; None where they are not kept."""
        if self._complete is None:
            return None
        read = [self._complete.whole(batch.input_ids, batch.attention_mask) for batch in batches]
        return [
            SegmentStates(states, batch.attention_mask, pooled, batch.row)
            for batch, (states, pooled) in zip(batches, read, strict=True)
        ]

    def masked(self, texts: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor] | None:
        """Of each segment's masked texts (token ids and attention mask, [N, L]) the states [M, H] at masked positions.

        They come in the order of the texts, and within a text from left to right; None where they are not kept.
        """
        return None if self._masked is None else [self._masked.flat(*group) for group in texts]


class _States:
    """States of texts one after another, found again by a text's token ids.

    Attributes:
        index: token ids, as bytes → number of the text.
        first: [n + 1] where each text's states begin.
        states: [T, H].
        of_text: [n, H] pooled states.
    """

    def __init__(self, index: dict[bytes, int], first: Tensor, states: Tensor, of_text: Tensor):
        self.index, self.first, self.states, self.of_text = index, first, states, of_text

    @classmethod
    @torch.no_grad()
    def encode(
        cls,
        language_model: LanguageModel,
        texts: list[np.ndarray],
        device: torch.device,
        *,
        said: str,
        progress: bool,
        at: int | None,
    ) -> _States:
        """States of ``texts`` (token ids, no padding, ordered by length); at token ``at`` alone where it is given."""
        kept = [len(ids) if at is None else int((ids == at).sum()) for ids in texts]
        first = torch.tensor([0, *np.cumsum(kept, dtype=np.int64)], device=device)
        states = torch.empty(int(first[-1]), language_model.hidden_size, device=device)
        of_text = torch.empty(len(texts) if at is None else 0, language_model.hidden_size, device=device)
        with tqdm(total=len(texts), desc=said, ncols=120, disable=not progress) as bar:
            for start in range(0, len(texts), _CHUNK):
                part = texts[start : start + _CHUNK]
                lengths = torch.tensor([len(ids) for ids in part])
                attention_mask = (torch.arange(int(lengths[-1])) < lengths.unsqueeze(1)).long()
                input_ids = torch.full(attention_mask.shape, int(part[0][0]))
                input_ids[attention_mask > 0] = torch.from_numpy(np.concatenate(part))
                tokens, pooled = language_model(input_ids.to(device), attention_mask.to(device))
                wanted = attention_mask > 0 if at is None else (input_ids == at) & (attention_mask > 0)
                begin, end = first[start], first[start + len(part)]
                states[begin:end] = tokens[wanted.to(device)]
                if at is None:
                    of_text[start : start + len(part)] = pooled
                bar.update(len(part))
        return cls({ids.tobytes(): i for i, ids in enumerate(texts)}, first, states, of_text)

    @property
    def mebibytes(self) -> float:
        return (self.states.numel() + self.of_text.numel()) * 4 / 2**20

    def whole(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Token states [N, L, H] and pooled states [N, H]; what stands at padding is of no account."""
        number = self._numbers(input_ids, attention_mask)
        position = self.first[number].unsqueeze(1) + torch.arange(input_ids.shape[1], device=self.first.device)
        return F.embedding(position.clamp(max=len(self.states) - 1), self.states), self.of_text[number]

    def flat(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[M, H], all that is kept of these texts."""
        number = self._numbers(input_ids, attention_mask)
        first, last = self.first[number], self.first[number + 1]
        before = (last - first).cumsum(0) - (last - first)
        position = torch.arange(int((last - first).sum()), device=first.device)
        return self.states[position + (first - before).repeat_interleave(last - first)]

    def _numbers(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return torch.tensor([self.index[ids.tobytes()] for ids in _unpadded(input_ids, attention_mask)]).to(
            self.first.device
        )


def _unpadded(input_ids: Tensor, attention_mask: Tensor) -> list[np.ndarray]:
    lengths = attention_mask.sum(1).tolist()
    return [ids[:length] for ids, length in zip(input_ids.cpu().numpy(), lengths, strict=True)]


def _complete_texts(texts: Sequence[DistinctTexts]) -> list[np.ndarray]:
    found: dict[bytes, np.ndarray] = {}
    for part in texts:
        for batch in _batches(part):
            found |= {ids.tobytes(): ids for ids in _unpadded(batch.input_ids, batch.attention_mask)}
    return _ordered(found)


def _masked_texts(texts: Sequence[DistinctTexts], forms: Sequence[Tensor], mask_id: int) -> list[np.ndarray]:
    """Every form of every text; different texts can be the same once their differences are hidden."""
    found: dict[bytes, np.ndarray] = {}
    for part, forms_of_part in zip(texts, forms, strict=True):
        for batch in _batches(part):
            for form in forms_of_part:
                where = masked_tokens(batch.field_ids, form.expand(len(batch.field_ids), -1))
                some = where.any(1)
                hidden = batch.input_ids.masked_fill(where, mask_id)[some]
                found |= {ids.tobytes(): ids for ids in _unpadded(hidden, batch.attention_mask[some])}
    return _ordered(found)


def _batches(texts: DistinctTexts) -> list[SegmentBatch]:
    return [
        texts.join(np.arange(start, min(start + _CHUNK, len(texts.pieces))))
        for start in range(0, len(texts.pieces), _CHUNK)
    ]


def _ordered(texts: dict[bytes, np.ndarray]) -> list[np.ndarray]:
    """By length, so that little is padded, then by content."""
    return [texts[key] for key in sorted(texts, key=lambda key: (len(key), key))]
