"""What reading texts costs: a language model that is blank counts them, a sample of them is then read and timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import psutil
import torch
from torch import Tensor

from recbole_alt.memory import PeakMemory
from recbole_alt.model.language import LanguageModel
from recbole_alt.model.onnx_runtime import OnnxEncoder

_SECONDS = 1.5  # to measure with
_FIRST = 8  # texts that are read at first; twice as many as long as that is quick
_KEPT = 64  # calls to draw a sample from
_GOLDEN = 0.618033988749895  # multiples of it, without their whole parts, spread evenly


class Reading:
    """The texts that a blank language model was given.

    Attributes:
        texts: their number.
        tokens: their tokens; padding counts where the batches are of a given shape.
        largest: the most tokens of one call.
        shaped: True if the batches are of a given shape (:mod:`recbole_alt.model.encoding`).
    """

    def __init__(self) -> None:
        self.texts = self.tokens = self.largest = 0
        self.shaped = False
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._calls, self._stride = 0, 1

    def add(self, input_ids: Tensor, attention_mask: Tensor, *, shaped: bool) -> None:
        """Count the tokens of the texts [N, L] of one call, and keep some calls."""
        tokens = input_ids.numel() if shaped else int(attention_mask.sum())
        self.shaped, self.tokens = shaped, self.tokens + tokens
        self.largest = max(self.largest, tokens)
        if self._calls % self._stride == 0:
            self._kept.append((input_ids, attention_mask))
            if len(self._kept) > _KEPT:
                del self._kept[1::2]
                self._stride *= 2
        self._calls += 1

    def sample(self, number: int, size: int) -> tuple[Tensor, Tensor]:
        """At most ``size`` texts of like length from one of the calls, spread over all calls as ``number`` counts.

        Of batches of a given shape it is a whole one.
        """
        input_ids, attention_mask = self._kept[int(number * _GOLDEN % 1 * len(self._kept))]
        if self.shaped:
            return input_ids, attention_mask
        order = attention_mask.sum(1).argsort(stable=True)
        first = int(number * _GOLDEN**2 % 1 * (max(0, len(order) - size) + 1))
        chosen = order[first : first + size]
        length = int(attention_mask[chosen].sum(1).max())
        return input_ids[chosen, :length], attention_mask[chosen, :length]


@dataclass(frozen=True)
class Rate:
    """What reading costs; with the backward pass where the language model is trained.

    Attributes:
        seconds, mib: for each token.
        update_seconds, update_mib: for each update of the language model, and for its gradients and moments.
    """

    seconds: float = 0.0
    mib: float = 0.0
    update_seconds: float = 0.0
    update_mib: float = 0.0


@contextmanager
def blank(language_model: LanguageModel | None) -> Iterator[Reading]:
    """Let a language model return random states at once and count what it is given; None reads nothing.

    States on disk are looked up, and none are added to them.
    """
    reading = Reading()
    if language_model is None:
        yield reading
        return
    trains, before = not language_model.is_fixed, language_model.texts_encoded
    uses_onnx, language_model.uses_onnx = language_model.uses_onnx, False
    if language_model.state_folder is not None:
        language_model.state_folder = replace(language_model.state_folder, read_only=True)

    def forward(
        input_ids: Tensor, attention_mask: Tensor, lengths: Any = None, *, shaped: bool = False
    ) -> tuple[Tensor, Tensor]:
        reading.add(input_ids, attention_mask, shaped=shaped)
        language_model.texts_encoded += 0 if shaped else len(input_ids)
        count, length = input_ids.shape
        drawn = torch.rand(count, 1, language_model.hidden_size, device=input_ids.device)
        states = drawn.expand(-1, length, -1).contiguous().requires_grad_(trains and torch.is_grad_enabled())
        return states, states[:, 0]

    blanks = {"forward": forward, "encode_padded": partial(forward, shaped=True)}
    vars(language_model).update(blanks)  # hides the methods
    try:
        yield reading
    finally:
        for name in blanks:
            del vars(language_model)[name]
        language_model.uses_onnx = uses_onnx
        reading.texts, language_model.texts_encoded = language_model.texts_encoded - before, before


def measure_rate(
    language_model: LanguageModel, reading: Reading, device: torch.device, optimizer: torch.optim.Optimizer | None
) -> Rate:
    """Read a sample of the texts of ``reading``, and train the language model on them if there is an optimiser."""
    trains = optimizer is not None
    language_model.train(trains)
    encoder = OnnxEncoder(language_model.encoder) if reading.shaped and language_model.uses_onnx else None

    def read(input_ids: Tensor, attention_mask: Tensor) -> None:
        if encoder is not None:
            encoder(input_ids, attention_mask)
            return
        with torch.set_grad_enabled(trains):
            act = language_model.encode_padded if reading.shaped else language_model
            states, pooled = act(input_ids, attention_mask)
            if trains:
                (states.sum() + pooled.sum()).backward()

    update_seconds = update_mib = 0.0
    if optimizer is not None:
        optimizer.zero_grad()
        before = used_mib(device)
        read(*reading.sample(0, _FIRST))
        optimizer.step()  # which makes the moments
        update_seconds = seconds_of(optimizer.step, device)
        update_mib = max(0.0, used_mib(device) - before)
    size, number, spent = _FIRST, 0, 0.0
    rates: list[float] = []  # seconds of a token
    mib, most = 0.0, 0
    while spent < _SECONDS or not rates:
        texts = reading.sample(number, size)
        count = texts[0].numel() if reading.shaped else int(texts[1].sum())
        memory, before = PeakMemory(device) if count > 1.5 * most else None, used_mib(device)
        taken = seconds_of(lambda: read(*texts), device)  # noqa: B023  # called at once
        number, spent = number + 1, spent + taken
        if memory is not None:
            mib, most = max(0.0, memory.mib() - before), count
        if number == 1 and spent < _SECONDS:
            continue  # the first time is slower
        if taken < _SECONDS / 8 and len(texts[0]) == size and not reading.shaped:
            size, rates = 2 * size, []
        rates.append(taken / count)
    return Rate(median(rates), mib / most, update_seconds, update_mib)


def seconds_of(act: Callable[[], Any], device: torch.device) -> float:
    """The seconds that ``act`` takes, until ``device`` has done its part."""
    begun = perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter() - begun


def used_mib(device: torch.device) -> float:
    """The memory in use, as :class:`~recbole_alt.memory.PeakMemory` counts it."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return float(psutil.Process().memory_info().rss) / 2**20
