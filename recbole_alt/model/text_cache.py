"""What a language model makes of texts, kept while it does not change: each text, and each masked form of it, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from logging import getLogger

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recbole_alt.data.masking import Masking, masked_tokens
from recbole_alt.data.prompts import DistinctTexts, SegmentBatch
from recbole_alt.data.steps import total_memory
from recbole_alt.model.attention import SegmentStates
from recbole_alt.model.language import LanguageModel
from recbole_alt.model.objectives.objective import MaskedTexts
from recbole_alt.progress import progress

_CHUNK = 256  # texts encoded, or masked, at once
_SHARE_OF_MEMORY = 1 / 4


class TextCache:
    """States of texts, each encoded once however many batches ask for it; to be cleared when the weights change.

    Finetuning and evaluation ask for :meth:`pooled` states, which are encoded when they are first asked for. Alignment
    reads token states: :meth:`fill` encodes all of them beforehand, in an order that depends on the texts only, so that
    a resumed run has the same states to the last bit; :meth:`complete` and :meth:`masked` look them up.
    """

    def __init__(self, language_model: LanguageModel):
        self._language_model = language_model
        self.clear()

    def clear(self) -> None:
        """Forget all states."""
        self._number: dict[tuple[str | int, ...], int] = {}
        self._pooled: list[Tensor] = []
        self._complete: _TokenStates | None = None
        self._masked: _TokenStates | None = None

    @torch.no_grad()
    def pooled(self, texts: DistinctTexts, device: torch.device) -> Tensor:
        """Pooled states of the distinct texts, [N, H], on ``device``; those not yet known are encoded."""
        keys = [(texts.segment.name, *pieces) for pieces in texts.pieces.tolist()]
        new = [i for i, key in enumerate(keys) if key not in self._number]
        for start in range(0, len(new), _CHUNK):
            which = new[start : start + _CHUNK]
            batch = texts.join(np.asarray(which)).to(device)
            self._pooled.append(self._language_model(batch.input_ids, batch.attention_mask)[1])
            self._number |= {keys[i]: number for number, i in enumerate(which, start=len(self._number))}
        if len(self._pooled) > 1:
            self._pooled = [torch.cat(self._pooled)]
        return self._pooled[0][torch.as_tensor([self._number[key] for key in keys], device=device)]

    def fill(
        self,
        texts: Sequence[DistinctTexts],
        masking: Masking,
        mask_id: int,
        device: torch.device,
        *,
        complete: int,
        masked: int,
        memory: float | None = None,
        shown: bool = False,
    ) -> None:
        """Encode the complete texts, and the masked ones, each if that is less work than encoding them at every step.

        Args:
            texts: all distinct texts, by segment.
            masking: how they are masked; only whole fields make few enough forms to be kept.
            mask_id: the tokenizer's mask token, which no text contains unmasked.
            device: where the states are kept.
            complete, masked: how many complete and masked texts all steps together would encode.
            memory: the most bytes to keep; None for a quarter of the device's.
            shown: show the progress.
        """
        most = total_memory(device) * _SHARE_OF_MEMORY if memory is None else memory
        room = most / (4 * self._language_model.hidden_size)  # for the states of so many tokens
        numbers = [len(part.pieces) for part in texts]
        tokens = [int(part.segment.total_lengths(part.pieces).sum()) for part in texts]
        if sum(numbers) <= complete and sum(tokens) <= room:
            found = chain.from_iterable(_tokens(b.input_ids, b.attention_mask) for b in _batches(texts))
            self._complete = self._encode("Encode texts", found, device, shown)
            room -= sum(tokens)
        forms = {}
        for part, number, length in zip(texts, numbers, tokens, strict=True):
            ways = masking.forms(part.segment.fields, most=masked // number)
            if ways is None:
                return
            forms[part.segment.name] = ways
            room -= length * int(ways.sum(0).max()) if len(ways) else 0  # a token is hidden in so many forms
        if sum(n * len(ways) for n, ways in zip(numbers, forms.values(), strict=True)) <= masked and room >= 0:
            hidden = (_mask(batch, form, mask_id) for batch in _batches(texts) for form in forms[batch.segment])
            found = chain.from_iterable(hidden)
            self._masked = self._encode("Encode masked texts", found, device, shown, at=mask_id)

    @torch.no_grad()
    def _encode(
        self, title: str, found: Iterator[bytes], device: torch.device, shown: bool, at: int | None = None
    ) -> _TokenStates:
        """States of the distinct texts ``found``, of their tokens ``at`` only if it is given.

        They are encoded by length, so that little is padded, then by content.
        """
        ordered = sorted(set(found), key=lambda text: (len(text), text))
        texts = [torch.from_numpy(np.frombuffer(text, dtype=np.int64).copy()) for text in ordered]
        kept = [len(ids) if at is None else int((ids == at).sum()) for ids in texts]
        first = torch.tensor([0, *np.cumsum(kept, dtype=np.int64)], device=device)
        width = self._language_model.hidden_size
        states = torch.empty(int(first[-1]), width, device=device)
        pooled = torch.empty(len(texts) if at is None else 0, width, device=device)
        with progress(title=title, total=len(texts), shown=shown, unit=" texts") as bar:
            for start in range(0, len(texts), _CHUNK):
                part = texts[start : start + _CHUNK]
                input_ids = pad_sequence(part, batch_first=True, padding_value=int(part[0][0]))
                attention_mask = pad_sequence([torch.ones_like(ids) for ids in part], batch_first=True)
                encoded, of_text = self._language_model(input_ids.to(device), attention_mask.to(device))
                wanted = attention_mask > 0 if at is None else (input_ids == at) & (attention_mask > 0)
                states[first[start] : first[start + len(part)]] = encoded[wanted.to(device)]
                if at is None:
                    pooled[start : start + len(part)] = of_text
                bar.update(len(part))
        mebibytes = (states.numel() + pooled.numel()) * 4 / 2**20
        getLogger().info(f"{title}: {len(texts):,}, once for all steps; {mebibytes:,.0f} MiB of states are kept")
        return _TokenStates({text: number for number, text in enumerate(ordered)}, first, states, pooled)

    def complete(self, batches: Sequence[SegmentBatch]) -> list[SegmentStates] | None:
        """The states of every segment of a step, undefined at padding; None if they are not kept."""
        kept = self._complete
        if kept is None:
            return None
        found = []
        for batch in batches:
            text, position = kept.find(batch.input_ids, batch.attention_mask, batch.input_ids.shape[1])
            states = F.embedding(position.clamp(max=len(kept.states) - 1), kept.states)
            found.append(SegmentStates(states, batch.attention_mask, kept.pooled[text], batch.row))
        return found

    def masked(self, texts: Sequence[MaskedTexts]) -> list[Tensor] | None:
        """The states at the masked positions of each segment, [P, H]; None if they are not kept."""
        kept = self._masked
        if kept is None:
            return None
        found = []
        for masked in texts:
            numbers = masked.where.sum(1, keepdim=True)
            _, position = kept.find(masked.input_ids, masked.batch.attention_mask, int(numbers.max()))
            found.append(kept.states[position[torch.arange(position.shape[1], device=position.device) < numbers]])
        return found


@dataclass(frozen=True)
class _TokenStates:
    """States of n texts one after another."""

    number: dict[bytes, int]  # token ids of a text → its number
    first: Tensor  # [n + 1], where each text's states begin
    states: Tensor  # [T, H]
    pooled: Tensor  # [n, H]

    def find(self, input_ids: Tensor, attention_mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The numbers [N] of the texts and the positions [N, length] that begin with their first states."""
        text = torch.tensor([self.number[key] for key in _tokens(input_ids, attention_mask)]).to(self.first.device)
        return text, self.first[text].unsqueeze(1) + torch.arange(length, device=self.first.device)


def _tokens(input_ids: Tensor, attention_mask: Tensor) -> Iterator[bytes]:
    """The token ids of each text without padding, which tell it from all others."""
    lengths = attention_mask.sum(1).tolist()
    return (ids[:length].tobytes() for ids, length in zip(input_ids.cpu().numpy(), lengths, strict=True))


def _mask(batch: SegmentBatch, form: Tensor, mask_id: int) -> Iterator[bytes]:
    """The texts in which the fields of ``form`` [F] hide something."""
    where = masked_tokens(batch.field_ids, form.expand(len(batch.field_ids), -1))
    some = where.any(1)
    return _tokens(batch.input_ids.masked_fill(where, mask_id)[some], batch.attention_mask[some])


def _batches(texts: Sequence[DistinctTexts]) -> Iterator[SegmentBatch]:
    for part in texts:
        for start in range(0, len(part.pieces), _CHUNK):
            yield part.join(np.arange(start, min(start + _CHUNK, len(part.pieces))))
