"""Moves what a step reads to a device without waiting for it, and makes it before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import is_dataclass
from typing import Any, TypeVar

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

T = TypeVar("T")


def moved(data: T, device: torch.device) -> T:
    """``data`` with every tensor on ``device``, in dataclasses, sequences, mappings and interactions.

    All else stays as it is, numpy arrays among it. To a GPU, tensors are copied out of pinned memory, so that neither
    the caller nor the GPU waits.
    """
    found: Any = data
    if isinstance(data, Tensor):
        to_gpu = device.type == "cuda" and data.device.type == "cpu"
        found = data.pin_memory().to(device, non_blocking=True) if to_gpu else data.to(device)
    elif isinstance(data, Interaction):
        found = Interaction(moved(data.interaction, device))
    elif isinstance(data, Mapping):
        found = {key: moved(value, device) for key, value in data.items()}
    elif isinstance(data, (list, tuple)):
        found = type(data)(moved(value, device) for value in data)
    elif is_dataclass(data):
        found = copy(data)
        vars(found).update(moved(vars(data), device))
    return found


def made_ahead(make: Callable[[int], T], steps: Iterable[int], *, by: int) -> Generator[T, None, None]:
    """``make(step)`` for each of ``steps``, in their order, made by another thread up to ``by`` steps ahead.

    That thread has one processor: more would make it, and the caller, wait for each other. With ``by`` 0 each is made
    when it is asked for, by the caller.
    """
    if not by:
        yield from map(make, steps)
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as thread:
        try:
            for step in steps:
                waiting.append(thread.submit(make, step))
                if len(waiting) > by:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class Arriving:
    """Scalars on their way from a device: reading them waits for their own step, not for those begun since."""

    def __init__(self, values: Mapping[str, Tensor]):
        self._names = list(values)
        scalars = torch.stack([value.detach().float() for value in values.values()])
        self._values, self._arrived = scalars.to("cpu", non_blocking=True), None
        if scalars.device.type == "cuda":
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> dict[str, float]:
        """The scalars by name."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self._names, self._values.tolist(), strict=True))
