"""Moves what a step reads to a device without waiting for it, and makes it while the step before is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import is_dataclass
from typing import Any, Generic, TypeVar

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


class MadeAhead(Generic[T]):
    """``make(step)`` for one step after the other, begun by another thread before it is asked for.

    Python lets one thread run at a time, and a thread that waits for another launches nothing on a GPU. So what the
    next step reads is begun when the caller needs Python no more: as a backward pass starts.

    Args:
        make: what a step reads.
        thread: whether another thread makes it; otherwise it is made when it is asked for.
    """

    def __init__(self, make: Callable[[int], T], *, thread: bool):
        self._make, self._by_thread = make, thread
        self._thread: ThreadPoolExecutor | None = None
        self._begun: tuple[int, Future[T]] | None = None

    def begin(self, step: int) -> None:
        """Begin what ``step`` reads."""
        if self._by_thread:
            self._thread = self._thread or ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
            self._begun = step, self._thread.submit(self._make, step)

    def get(self, step: int) -> T:
        """What ``step`` reads: what was begun, or else made now."""
        begun, self._begun = self._begun, None
        return begun[1].result() if begun is not None and begun[0] == step else self._make(step)

    def close(self) -> None:
        """End the thread, when it has made what was begun."""
        if self._thread is not None:
            self._thread.shutdown()
        self._thread = self._begun = None


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
