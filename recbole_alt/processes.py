"""Several processes that train one model together, as ``torchrun`` starts them.

Every process makes the batch of a step, the same one that a single process would make, and works on its share of the
rows. The loss of a step is the mean over the processes of what each of them computes: a mean over the rows of a share
counts by :attr:`Share.weight`, what all compute from gathered tensors is the loss itself. The gradients are averaged
by ``DistributedDataParallel``, and the backward of a gather adds up what each process does with a row.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

_ONE_BUCKET = 1 << 20  # MiB

_is_alone = ContextVar("is_alone", default=False)


def rank() -> int:
    """The number of this process among all, from 0; 0 where there is one process."""
    return dist.get_rank() if _is_group() else 0


def count() -> int:
    """How many processes work together; 1 within :func:`alone`."""
    return dist.get_world_size() if _is_group() and not _is_alone.get() else 1


def is_first() -> bool:
    """True for the process that reads data, and writes logs, checkpoints and results."""
    return rank() == 0


def _is_group() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def alone() -> Iterator[None]:
    """For the while, this process works as if there were no others."""
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


# -- waiting and sharing -----------------------------------------------------------------------------------


def wait() -> None:
    """Wait until every process has come here."""
    total(0)


def total(value: float) -> float:
    """The sum of the values of all processes."""
    if count() == 1:
        return value
    summed = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(summed)
    return summed.item()


def from_first(make: Callable[[], T]) -> T:
    """What ``make()`` returns in the first process, which works alone meanwhile; the others wait for a copy."""
    if count() == 1:
        return make()
    content: list[Any] = [None]
    if is_first():
        with alone():
            content = [make()]
    dist.broadcast_object_list(content, src=0, device=torch.device("cpu"))
    return content[0]


@torch.no_grad()
def as_first(drawn: Tensor) -> Tensor:
    """What the first process has drawn, in place of ``drawn``, a tensor of the same shape."""
    if count() > 1:
        dist.broadcast(drawn, src=0)
    return drawn


@torch.no_grad()
def means(values: Sequence[Tensor]) -> list[Tensor]:
    """The mean over all processes of each of these scalars, without gradients."""
    if count() == 1:
        return [value.detach() for value in values]
    summed = torch.stack([value.detach().float() for value in values])
    dist.all_reduce(summed)
    return list(summed / count())


def seed_others(*path: int) -> None:
    """Seed torch in all processes but the first by ``path``, which says what step this is.

    So the processes do not drop the same units, and a checkpoint needs only the random state of the first.
    """
    if count() > 1 and not is_first():
        torch.manual_seed(int(np.random.SeedSequence([*path, rank()]).generate_state(1, np.uint64)[0]))


def require_same(state: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """Refuse to go on from the checkpoint ``state``, read from ``file``, with another number of processes.

    Raises:
        ValueError: names both numbers, and what to do.
    """
    before = state.get("processes", 1)
    if before != count():
        raise ValueError(
            f"{os.fspath(file)!r} was written by {before} process(es) and there are {count()} now: start as many as "
            "before, or begin a new run"
        )


# -- dividing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """The part of ``whole`` rows that belongs to this process: consecutive ones, as many as the others', or one more.

    Attributes:
        whole: the number of all rows.
        sizes: how many rows each process has; None if they are not divided, so that every process has all of them.
    """

    whole: int
    sizes: tuple[int, ...] | None = None

    @classmethod
    def of(cls, whole: int, *, least: int = 1) -> Share:
        """The share of ``whole`` rows; they are not divided where a process would have fewer than ``least``."""
        n = count()
        if n == 1 or whole < n * least:
            return cls(whole)
        return cls(whole, tuple((i + 1) * whole // n - i * whole // n for i in range(n)))

    @property
    def rows(self) -> slice:
        """The rows of this process."""
        if self.sizes is None:
            return slice(0, self.whole)
        begin = sum(self.sizes[: rank()])
        return slice(begin, begin + self.sizes[rank()])

    @property
    def factor(self) -> int:
        """What a sum over these rows is multiplied by, so that the mean over processes is the sum over all rows."""
        return 1 if self.sizes is None else len(self.sizes)

    @property
    def weight(self) -> float:
        """What a mean over these rows is multiplied by, so that the mean over processes is the mean over all rows."""
        return 1.0 if self.sizes is None else self.factor * self.sizes[rank()] / self.whole

    def take(self, rows: Any) -> Any:
        """This process's rows of a tensor, a sequence or an interaction."""
        return rows if self.sizes is None else rows[self.rows]

    def gather(self, own: Tensor) -> Tensor:
        """The rows [whole, ...] of all processes, with gradients, from those of this one."""
        return own if self.sizes is None else gather(own, self.sizes)

    def working(self) -> AbstractContextManager[None]:
        """To be entered to work on these rows: :func:`alone` where they are not divided."""
        return alone() if self.sizes is None else nullcontext()


def gather(own: Tensor, sizes: Sequence[int]) -> Tensor:
    """The rows of all processes, in their order, with gradients; the process number ``i`` has ``sizes[i]`` of them."""
    return _Gather.apply(own, tuple(sizes))


def add_up(own: Tensor) -> Tensor:
    """The sum of the tensors of all processes, which have one shape, with gradients."""
    return _Sum.apply(own)


class _Gather(torch.autograd.Function):
    """The loss that is differentiated is the sum of those of all processes, each of which may read every row."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        padded = F.pad(own, [0, 0] * (own.dim() - 1) + [0, max(sizes) - len(own)])
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.split(ctx.sizes)[rank()], None


class _Sum(torch.autograd.Function):
    """The loss that is differentiated is the sum of those of all processes, so the gradient is summed, too."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        summed = own.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed


# -- gradients ---------------------------------------------------------------------------------------------


class _Call(nn.Module):
    """A method of a module, as ``DistributedDataParallel`` calls it."""

    def __init__(self, module: nn.Module, method: Callable[..., Any]):
        super().__init__()
        self.module, self.method = module, method
        device = next(module.parameters()).device
        self.unused = nn.Parameter(torch.zeros((), device=device))  # DDP complains where a step uses every parameter

    def forward(self, *given: Any) -> Any:
        return self.method(*given)


def averaging(module: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` of ``module``; the backward of what it returns averages the gradients over the processes.

    A parameter that no process used keeps its gradient, None, as in a single process. All gradients are in one bucket,
    which is complete only when the backward is over: buckets that are sent earlier would meet the gathers of that
    backward in an order of their own in each process.
    """
    if count() == 1:
        return method
    called = _Call(module, method)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # new in torch 2.13
        return DistributedDataParallel(
            called,
            find_unused_parameters=True,
            broadcast_buffers=False,
            bucket_cap_mb=_ONE_BUCKET,
            gradient_as_bucket_view=True,
        )
