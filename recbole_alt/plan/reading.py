"""What reading texts costs: a language model that is blank counts them, a sample of them is then read and timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import psutil
import torch
from torch import Tensor

from recbole_alt.memory import PeakMemory
from recbole_alt.model.language import LanguageModel

_SECONDS = 1.5  # to measure with
_FIRST = 8  # texts that are read at first; twice as many as long as that is quick
_KEPT = 64  # calls to draw a sample from
_GOLDEN = 0.618033988749895  # multiples of it, without their whole parts, spread evenly


class Reading:
    """The texts that a blank language model was given.

    Attributes:
        texts, tokens: their numbers, padding not counted.
        largest: the most tokens of one call.
    """

    def __init__(self) -> None:
        self.texts = self.tokens = self.largest = 0
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._calls, self._stride = 0, 1

    def add(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        """Count the texts [N, L] of one call, and keep some calls."""
        tokens = int(attention_mask.sum())
        self.texts, self.tokens = self.texts + len(input_ids), self.tokens + tokens
        self.largest = max(self.largest, tokens)
        if self._calls % self._stride == 0:
            self._kept.append((input_ids, attention_mask))
            if len(self._kept) > _KEPT:
                del self._kept[1::2]
                self._stride *= 2
        self._calls += 1

    def sample(self, number: int, size: int) -> tuple[Tensor, Tensor]:
        """At most ``size`` texts of like length from one of the calls, spread over all calls as ``number`` counts."""
        input_ids, attention_mask = self._kept[int(number * _GOLDEN % 1 * len(self._kept))]
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
    """Let a language model return random states at once and count what it is given; None reads nothing."""
    reading = Reading()
    if language_model is None:
        yield reading
        return
    trains = not language_model.is_fixed

    def forward(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        reading.add(input_ids, attention_mask)
        count, length = input_ids.shape
        drawn = torch.rand(count, 1, language_model.hidden_size, device=input_ids.device)
        states = drawn.expand(-1, length, -1).contiguous().requires_grad_(trains and torch.is_grad_enabled())
        return states, states[:, 0]

    vars(language_model)["forward"] = forward  # hides the method
    try:
        yield reading
    finally:
        del vars(language_model)["forward"]


def measure_rate(
    language_model: LanguageModel, reading: Reading, device: torch.device, optimizer: torch.optim.Optimizer | None
) -> Rate:
    """Read a sample of the texts of ``reading``, and train the language model on them if there is an optimiser."""
    trains = optimizer is not None
    language_model.train(trains)

    def read(input_ids: Tensor, attention_mask: Tensor) -> None:
        with torch.set_grad_enabled(trains):
            states, pooled = language_model(input_ids, attention_mask)
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
    size, number, spent, seconds, tokens = _FIRST, 0, 0.0, 0.0, 0
    mib, most = 0.0, 0
    while spent < _SECONDS or not tokens:
        texts = reading.sample(number, size)
        count = int(texts[1].sum())
        memory, before = PeakMemory(device) if count > 1.5 * most else None, used_mib(device)
        taken = seconds_of(lambda: read(*texts), device)  # noqa: B023  # called at once
        number, spent = number + 1, spent + taken
        if memory is not None:
            mib, most = max(0.0, memory.mib() - before), count
        if number == 1 and spent < _SECONDS:
            continue  # the first time is slower
        if taken < _SECONDS / 8 and len(texts[0]) == size:
            size, seconds, tokens = 2 * size, 0.0, 0
        seconds, tokens = seconds + taken, tokens + count
    return Rate(seconds / tokens, mib / most, update_seconds, update_mib)


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
