"""What a language model makes of texts, kept while it does not change: each text, and each masked form of it, once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, pairwise
from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recbole_alt import processes
from recbole_alt.data.prompts import DistinctTexts, SegmentBatch
from recbole_alt.data.steps import total_memory
from recbole_alt.model.attention import SegmentStates
from recbole_alt.model.encoding import Encoded, encode_each, padded_length, token_bytes
from recbole_alt.model.fingerprint import fingerprint
from recbole_alt.model.language import LanguageModel
from recbole_alt.model.objectives.batch import MaskedTexts, TextKeys
from recbole_alt.model.onnx_runtime import OnnxEncoder
from recbole_alt.model.state_store import StateStore
from recbole_alt.progress import progress

_CHUNK = 1024  # texts joined at once
_SHARE_OF_MEMORY = 1 / 4
_UNSAVED = 64 * 2**20  # bytes of new states after which they are written to disk
_MANY = 256  # new texts of one batch that are written at once

#: Kinds of states: of a whole text [1, H], of its n tokens [n, H], of its m masked tokens [m, H].
_KINDS = _POOLED, _TOKENS, _MASKED = "pooled", "tokens", "masked"
_States = dict[bytes, Tensor]  # the token ids of a text → its states


class TextCache:
    """States of texts, each encoded once however many batches ask for it; to be cleared when the weights change.

    Several processes divide complete texts to encode them, where all ask for the same ones, and share their states.

    A state depends on nothing but its text (:mod:`recbole_alt.model.encoding`). So no result depends on which states
    are kept, in memory or in the language model's ``state_folder``. That folder is used while the language model is not
    trained; what is new is written to it whenever it is much, and in :meth:`save`.

    Args:
        language_model: encodes the texts.
        mask_id: the tokenizer's mask token, which no complete text contains; None if no masked texts are read.
        keep_masked: False if masked texts hardly ever come again.
        memory: the most bytes of token states to keep; None for a quarter of the device's, in all processes together.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        *,
        mask_id: int | None = None,
        keep_masked: bool = True,
        memory: float | None = None,
    ):
        self._language_model = language_model
        self._mask_id, self._memory = mask_id, memory
        self._lasting = _KINDS if keep_masked else (_POOLED, _TOKENS)
        self._names = {
            _POOLED: f"{_POOLED}-{language_model.pooling}", _TOKENS: _TOKENS, _MASKED: f"{_MASKED}-{mask_id}"
        }  # fmt: skip
        self.clear()

    def clear(self) -> None:
        """Forget all states."""
        self._number: dict[tuple[str | int, ...], int] = {}
        self._numbered: Tensor | None = None  # [M, H], pooled states by number
        self._kept: dict[str, _States] = {kind: {} for kind in _KINDS}
        self._unsaved: dict[str, _States] = {kind: {} for kind in _KINDS}
        self._bytes = self._bytes_unsaved = 0
        self._store: StateStore | None = None
        self._runtime: OnnxEncoder | None = None
        self._is_filled = False  # with the complete texts

    def pooled(self, texts: DistinctTexts, device: torch.device, *, together: bool = False) -> Tensor:
        """Pooled states of the distinct texts, [N, H], on ``device``; those not yet known are encoded.

        ``together`` says that all processes call this now for the same texts.
        """
        keys = [(texts.segment.name, *pieces) for pieces in texts.pieces.tolist()]
        new = [i for i, key in enumerate(keys) if key not in self._number]
        together = together and processes.count() > 1 and processes.total(len(new)) > 0
        if new or together:
            every = _token_bytes(texts) if together else []
            found = self._find_together(every, [_POOLED], device)[_POOLED] if together else {}
        if new:
            wanted = _token_bytes(texts, np.asarray(new))
            found = found or self._find({_POOLED: wanted}, device)[_POOLED]
            states = torch.cat([found[text] for text in wanted])
            self._numbered = states if self._numbered is None else torch.cat([self._numbered, states])
            self._number |= {keys[i]: number for number, i in enumerate(new, start=len(self._number))}
            if len(new) >= _MANY:
                self.save()
        assert self._numbered is not None
        return self._numbered[torch.as_tensor([self._number[key] for key in keys], device=device)]

    def fill(self, texts: Sequence[DistinctTexts], device: torch.device, *, reads: int, shown: bool = False) -> None:
        """Encode complete texts beforehand, if all are going to be read and the states of their tokens fit into memory.

        This only saves time: many texts fill batches better than those of one step.

        Args:
            texts: all distinct texts, by segment.
            device: where the states are kept.
            reads: how many texts all steps together read.
            shown: show the progress.
        """
        tokens = sum(int(part.segment.total_lengths(part.pieces).sum()) for part in texts)
        size = 4 * tokens * self._language_model.hidden_size
        too_many = sum(len(part.pieces) for part in texts) > reads or size > self._most(device)
        if processes.total(too_many):
            return
        wanted = [text for part in texts for text in _token_bytes(part)]
        before = self._language_model.texts_encoded
        self._find_together(wanted, [_TOKENS, _POOLED], device, shown=shown, keep=True)
        self._is_filled = True
        encoded, size = self._language_model.texts_encoded - before, self._bytes
        getLogger().info(f"Encode texts: {encoded:,} of {len(wanted):,}; {size / 2**20:,.0f} MiB of states are kept")
        self.save()

    def read(
        self, complete: Sequence[SegmentBatch], masked: Sequence[MaskedTexts], text_keys: TextKeys
    ) -> list[SegmentStates]:
        """The states of every segment of a step; those of its masked texts are set in place."""
        every, masked_keys = list(chain(*text_keys.complete)), list(chain(*text_keys.masked))
        device = next(self._language_model.parameters()).device
        if processes.count() == 1 or self._is_filled:
            found = self._find({_TOKENS: every, _POOLED: every, _MASKED: masked_keys}, device)
        else:
            found = self._find_together(every, [_TOKENS, _POOLED], device)
            found[_MASKED] = self._find({_MASKED: masked_keys}, device)[_MASKED]
        for texts, keys in zip(masked, text_keys.masked, strict=True):
            texts.states = torch.cat([found[_MASKED][key] for key in keys])
        segments = []
        for batch, keys in zip(complete, text_keys.complete, strict=True):
            states = pad_sequence([found[_TOKENS][key] for key in keys], batch_first=True)
            pooled = torch.cat([found[_POOLED][key] for key in keys])
            segments.append(SegmentStates(states, batch.attention_mask, pooled, batch.row))
        return segments

    def save(self) -> None:
        """Write what is new into the state folder."""
        if self._store is not None:
            for kind, states in self._unsaved.items():
                self._store.write(self._names[kind], states)
        self._unsaved, self._bytes_unsaved = {kind: {} for kind in _KINDS}, 0

    @torch.no_grad()
    def _find_together(
        self,
        texts: Sequence[bytes],
        kinds: Sequence[str],
        device: torch.device,
        *,
        shown: bool = False,
        keep: bool = False,
    ) -> dict[str, _States]:
        """:meth:`_find` of complete ``texts``, the same in all processes, each of which finds its share of them.

        Args:
            texts, kinds: whose states, and which.
            device: where they are put.
            shown: show the progress.
            keep: keep in memory what the others have found.
        """
        distinct = list(dict.fromkeys(texts))
        share = processes.Share.of(len(distinct), least=0)
        own = share.take(distinct)
        found = self._find(dict.fromkeys(kinds, own), device, shown=shown)
        if share.sizes is None:
            return found
        ends = np.cumsum([0, *share.sizes])
        for kind in kinds:
            lengths = [1 if kind == _POOLED else len(text) // np.dtype(np.int64).itemsize for text in distinct]
            sizes = [sum(lengths[start:end]) for start, end in pairwise(ends)]
            none = torch.zeros(0, self._language_model.hidden_size, device=device)
            states = processes.gather(torch.cat([none, *(found[kind][text] for text in own)]), sizes)
            found[kind] = dict(zip(distinct, states.split(lengths), strict=True))
            if keep:
                self._keep(kind, {text: of for text, of in found[kind].items() if text not in self._kept[kind]}, device)
        return found

    @torch.no_grad()
    def _find(
        self, wanted: Mapping[str, Sequence[bytes]], device: torch.device, *, shown: bool = False
    ) -> dict[str, _States]:
        """The states of the texts ``wanted`` of each kind: those kept, those on disk, the others encoded now."""
        self._open(device)
        found: dict[str, _States] = {kind: {} for kind in _KINDS}
        missing: dict[str, dict[bytes, None]] = {kind: {} for kind in _KINDS}
        for kind, texts in wanted.items():
            kept = self._kept[kind]
            found[kind] = {text: kept[text] for text in texts if text in kept}
            new = dict.fromkeys(text for text in texts if text not in kept)
            missing[kind] = self._take_stored(kind, new, found, device)
        unknown = list(dict.fromkeys(chain(*missing.values())))
        if unknown and self._runtime is None and self._language_model.uses_onnx:
            self._runtime = OnnxEncoder(self._language_model.encoder)
        is_alone = self._store is None or processes.count() > 1 or missing[_MASKED] or len(unknown) < _MANY
        encode = self._encode if is_alone else self._encode_divided
        with progress(title="Encode texts", total=len(unknown), shown=shown, unit=" texts") as bar:
            encode(unknown, missing, found, device, bar)
        return found

    def _encode(
        self,
        texts: Sequence[bytes],
        missing: Mapping[str, Collection[bytes]],
        found: dict[str, _States],
        device: torch.device,
        bar: Any,
    ) -> None:
        """Encode ``texts``, and add to ``found`` their states of each kind of which they are ``missing``."""
        for made in encode_each(self._language_model, texts, device, self._runtime):
            for kind, states in self._by_kind(made, missing).items():
                found[kind] |= states
                self._keep(kind, states, device)
                self._save_later(kind, states)
            bar.update(len(made.texts))

    def _encode_divided(
        self,
        texts: Sequence[bytes],
        missing: Mapping[str, Collection[bytes]],
        found: dict[str, _States],
        device: torch.device,
        bar: Any,
    ) -> None:
        """:meth:`_encode`, but texts of a length that another process is encoding are read when it is through.

        So processes that share a comparison divide its texts.
        """
        assert self._store is not None
        waiting: dict[int, list[bytes]] = defaultdict(list)
        for text in texts:
            waiting[padded_length(text)].append(text)
        for is_last in (False, True):
            for length in sorted(waiting, reverse=True):
                with self._store.claimed(f"{length}", wait=is_last) as is_mine:
                    if not is_mine:
                        continue
                    part = waiting.pop(length)
                    left = {
                        kind: self._take_stored(kind, [text for text in part if text in wanted], found, device)
                        for kind, wanted in missing.items()
                    }
                    unknown = list(dict.fromkeys(chain(*left.values())))
                    bar.update(len(part) - len(unknown))
                    self._encode(unknown, left, found, device, bar)
                    self.save()

    def _take_stored(
        self, kind: str, texts: Collection[bytes], found: dict[str, _States], device: torch.device
    ) -> dict[bytes, None]:
        """Add to ``found`` the states of those of ``texts`` that are on disk; returns the others."""
        if texts and self._store is not None:
            stored = _moved(self._store.read(self._names[kind], texts), device)
            self._keep(kind, stored, device)
            found[kind] |= stored
        return {text: None for text in texts if text not in found[kind]}

    def _by_kind(self, made: Encoded, wanted: Mapping[str, Collection[bytes]]) -> dict[str, _States]:
        """The states of each kind of the texts that are ``wanted`` of it."""
        device = made.states.device
        whole, hidden = (
            torch.tensor([[text in wanted[kind]] for text in made.texts], device=device) for kind in (_TOKENS, _MASKED)
        )
        where = (made.attention_mask > 0) & (whole | (hidden & (made.input_ids == self._mask_id)))
        of_tokens = made.states[where].split(where.sum(1).tolist())
        by_kind = {_POOLED: made.pooled.split(1), _TOKENS: of_tokens, _MASKED: of_tokens}
        return {
            kind: {text: of for text, of in zip(made.texts, states, strict=True) if text in wanted[kind]}
            for kind, states in by_kind.items()
        }

    def _keep(self, kind: str, states: _States, device: torch.device) -> None:
        """Keep states in memory: pooled ones, and others as far as there is room."""
        size = _bytes_of(states)
        if kind == _POOLED or (kind in self._lasting and self._bytes + size <= self._most(device)):
            self._kept[kind] |= states
            self._bytes += size

    def _save_later(self, kind: str, states: _States) -> None:
        if self._store is not None and kind in self._lasting:
            self._unsaved[kind] |= states
            self._bytes_unsaved += _bytes_of(states)
            if self._bytes_unsaved > _UNSAVED:
                self.save()

    def _open(self, device: torch.device) -> None:
        """Open the states on disk that belong to these weights, if they are not trained."""
        language_model, folder = self._language_model, self._language_model.state_folder
        if self._store is None and folder is not None and language_model.is_fixed:
            self._store = StateStore(folder, fingerprint(language_model, device))

    def _most(self, device: torch.device) -> float:
        """The most bytes of token states to keep."""
        if self._memory is not None:
            return self._memory
        sharing = processes.count() if device.type == "cpu" else 1
        return total_memory(device) * _SHARE_OF_MEMORY / sharing


def _token_bytes(texts: DistinctTexts, which: np.ndarray | None = None) -> list[bytes]:
    """The token ids of all distinct texts, or of those in ``which`` [M]."""
    which = np.arange(len(texts.pieces)) if which is None else which
    batches = (texts.join(which[start : start + _CHUNK]) for start in range(0, len(which), _CHUNK))
    return [text for batch in batches for text in token_bytes(*batch.encoder_input)]


def _bytes_of(states: _States) -> int:
    return sum(of.numel() * of.element_size() for of in states.values())


def _moved(states: _States, device: torch.device) -> _States:
    """``states``, from the CPU to ``device``, at once."""
    if device.type == "cpu" or not states:
        return states
    moved = torch.cat(list(states.values())).to(device).split([len(of) for of in states.values()])
    return dict(zip(states, moved, strict=True))
