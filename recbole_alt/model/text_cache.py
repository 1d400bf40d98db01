"""What a language model makes of texts, kept while it does not change: each text, and each masked form of it, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from recbole_alt.model.views import MaskedTexts

_CHUNK = 256  # texts encoded, or masked, at once
_SHARE_OF_MEMORY = 1 / 4


class TextCache:
    """States of texts, each encoded once however many batches ask for it.

    Finetuning and evaluation ask for :meth:`pooled` states, which are encoded when they are first asked for. Alignment
    reads token states: :meth:`fill` encodes all of them beforehand, in an order that depends on the texts only, so that
    a resumed run has the same states to the last bit; :meth:`complete` and :meth:`masked` look them up.

    Args:
        language_model: the encoder; call :meth:`clear` whenever its weights may have changed.
    """

    def __init__(self, language_model: LanguageModel):
        self._language_model = language_model
        self.clear()

    def clear(self) -> None:
        """Forget all states."""
        self._number: dict[bytes, int] = {}
        self._pooled: list[Tensor] = []
        self._complete: _TokenStates | None = None
        self._masked: _TokenStates | None = None

    @torch.no_grad()
    def pooled(self, texts: DistinctTexts, device: torch.device) -> Tensor:
        """Pooled states of the distinct texts, [N, H], on ``device``; those not yet known are encoded."""
        keys = _keys(texts.segment.name, texts.pieces)
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
        progress: bool = False,
    ) -> None:
        """Encode the complete texts, and the masked ones, each if that is less work than encoding them at every step.

        Args:
            texts: all distinct texts, by segment.
            masking: how they are masked; only whole fields make few enough forms to be kept.
            mask_id: the tokenizer's mask token, which no text contains unmasked.
            device: where the states are kept.
            complete: how many complete texts all steps together would encode.
            masked: how many masked ones.
            memory: the most bytes to keep; None for a quarter of the device's.
            progress: show a progress bar.
        """
        most = total_memory(device) * _SHARE_OF_MEMORY if memory is None else memory
        room = most / (4 * self._language_model.hidden_size)  # for the states of so many tokens
        numbers = [len(part.pieces) for part in texts]
        tokens = [int(part.segment.total_lengths(part.pieces).sum()) for part in texts]
        if sum(numbers) <= complete and sum(tokens) <= room:
            found = (_rows(_keys(b.segment, b.pieces), b.input_ids, b.attention_mask) for b in _batches(texts))
            self._complete = self._encode("Encode texts", found, device, progress)
            room -= sum(tokens)
        forms = {}
        for part, number, length in zip(texts, numbers, tokens, strict=True):
            ways = masking.forms(part.segment.fields, most=masked // number)
            if ways is None:
                return
            forms[part.segment.name] = ways
            room -= length * int(ways.sum(0).max()) if len(ways) else 0  # a token is hidden in so many forms
        if sum(n * len(ways) for n, ways in zip(numbers, forms.values(), strict=True)) <= masked and room >= 0:
            found = (_masked(batch, form, mask_id) for batch in _batches(texts) for form in forms[batch.segment])
            self._masked = self._encode("Encode masked texts", found, device, progress, at=mask_id)

    @torch.no_grad()
    def _encode(
        self,
        title: str,
        found: Iterator[Iterator[tuple[bytes, bytes]]],
        device: torch.device,
        progress: bool,
        at: int | None = None,
    ) -> _TokenStates:
        """States of the texts ``found`` (key, token ids), of their tokens ``at`` only if it is given.

        Texts of the same tokens, as two can be once their differences are hidden, share their states. They are encoded
        by length, so that little is padded, then by content.
        """
        same: dict[bytes, bytes] = {}
        tokens_of = {key: same.setdefault(tokens, tokens) for group in found for key, tokens in group}
        ordered = sorted(same, key=lambda tokens: (len(tokens), tokens))
        texts = [np.frombuffer(tokens, dtype=np.int64) for tokens in ordered]
        kept = [len(ids) if at is None else int((ids == at).sum()) for ids in texts]
        first = torch.tensor([0, *np.cumsum(kept, dtype=np.int64)], device=device)
        width = self._language_model.hidden_size
        states = torch.empty(int(first[-1]), width, device=device)
        of_text = torch.empty(len(texts) if at is None else 0, width, device=device)
        with tqdm(total=len(texts), desc=title, ncols=120, disable=not progress) as bar:
            for start in range(0, len(texts), _CHUNK):
                part = texts[start : start + _CHUNK]
                lengths = torch.tensor([len(ids) for ids in part])
                attention_mask = (torch.arange(int(lengths[-1])) < lengths.unsqueeze(1)).long()
                input_ids = torch.full(attention_mask.shape, int(part[0][0]))
                input_ids[attention_mask > 0] = torch.from_numpy(np.concatenate(part))
                encoded, pooled = self._language_model(input_ids.to(device), attention_mask.to(device))
                wanted = attention_mask > 0 if at is None else (input_ids == at) & (attention_mask > 0)
                states[first[start] : first[start + len(part)]] = encoded[wanted.to(device)]
                if at is None:
                    of_text[start : start + len(part)] = pooled
                bar.update(len(part))
        mebibytes = (states.numel() + of_text.numel()) * 4 / 2**20
        getLogger().info(f"{title}: {len(texts):,}, once for all steps; {mebibytes:,.0f} MiB of states are kept")
        number = {tokens: i for i, tokens in enumerate(ordered)}
        return _TokenStates({key: number[tokens] for key, tokens in tokens_of.items()}, first, states, of_text)

    def complete(self, batches: Sequence[SegmentBatch]) -> list[SegmentStates] | None:
        """The states of every segment of a step; None if they are not kept."""
        if self._complete is None:
            return None
        found = [self._complete.whole(_keys(b.segment, b.pieces), b.input_ids.shape[1]) for b in batches]
        return [
            SegmentStates(states, batch.attention_mask, pooled, batch.row)
            for batch, (states, pooled) in zip(batches, found, strict=True)
        ]

    def masked(self, texts: Sequence[MaskedTexts]) -> list[Tensor] | None:
        """Each segment's :attr:`~recbole_alt.model.views.MaskedTexts.states`; None if they are not kept."""
        return None if self._masked is None else [self._masked.flat(_masked_keys(t.batch, t.where)) for t in texts]


@dataclass(frozen=True)
class _TokenStates:
    """States of texts one after another.

    Attributes:
        number: key of a text → its number.
        first: [n + 1] where each text's states begin.
        states: [T, H].
        of_text: [n, H] pooled states.
    """

    number: dict[bytes, int]
    first: Tensor
    states: Tensor
    of_text: Tensor

    def whole(self, keys: list[bytes], length: int) -> tuple[Tensor, Tensor]:
        """Token states [N, length, H], undefined at padding, and pooled states [N, H]."""
        number = self._numbers(keys)
        position = self.first[number].unsqueeze(1) + torch.arange(length, device=self.first.device)
        return F.embedding(position.clamp(max=len(self.states) - 1), self.states), self.of_text[number]

    def flat(self, keys: list[bytes]) -> Tensor:
        """[P, H], all that is kept of these texts."""
        number = self._numbers(keys)
        first, last = self.first[number], self.first[number + 1]
        before = (last - first).cumsum(0) - (last - first)
        position = torch.arange(int((last - first).sum()), device=first.device)
        return self.states[position + (first - before).repeat_interleave(last - first)]

    def _numbers(self, keys: list[bytes]) -> Tensor:
        return torch.tensor([self.number[key] for key in keys]).to(self.first.device)


def _keys(segment: str, pieces: np.ndarray) -> list[bytes]:
    """What tells a text from all others: its segment and its pieces [N, F]."""
    name = segment.encode()
    return [name + row.tobytes() for row in np.ascontiguousarray(pieces, dtype=np.int64)]


def _masked_keys(batch: SegmentBatch, where: Tensor) -> list[bytes]:
    """Those of texts masked ``where`` [N, L]: of the complete text, and which fields are hidden."""
    field_ids, is_masked = batch.field_ids.cpu().numpy(), where.cpu().numpy()
    hidden = np.zeros((len(field_ids), int(field_ids.max(initial=-1)) + 1), dtype=bool)
    text, position = is_masked.nonzero()
    hidden[text, field_ids[text, position]] = True
    complete = _keys(batch.segment, batch.pieces)
    forms = [form.tobytes().rstrip(b"\0") for form in np.packbits(hidden, axis=1)]  # whatever the batch's last field
    return [key + form for key, form in zip(complete, forms, strict=True)]


def _rows(keys: list[bytes], input_ids: Tensor, attention_mask: Tensor) -> Iterator[tuple[bytes, bytes]]:
    """Keys of texts, each with its token ids without padding."""
    lengths = attention_mask.sum(1).tolist()
    return ((key, ids[:n].tobytes()) for key, ids, n in zip(keys, input_ids.numpy(), lengths, strict=True))


def _masked(batch: SegmentBatch, form: Tensor, mask_id: int) -> Iterator[tuple[bytes, bytes]]:
    """The texts in which the fields of ``form`` [F] hide something."""
    where = masked_tokens(batch.field_ids, form.expand(len(batch.field_ids), -1))
    some = where.any(1)
    hidden = batch.input_ids.masked_fill(where, mask_id)
    return _rows(
        [key for key, is_masked in zip(_masked_keys(batch, where), some.tolist(), strict=True) if is_masked],
        hidden[some],
        batch.attention_mask[some],
    )


def _batches(texts: Sequence[DistinctTexts]) -> Iterator[SegmentBatch]:
    for part in texts:
        for start in range(0, len(part.pieces), _CHUNK):
            yield part.join(np.arange(start, min(start + _CHUNK, len(part.pieces))))
