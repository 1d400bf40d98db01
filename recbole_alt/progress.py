"""Progress of long loops: a bar on a terminal and in a notebook, elsewhere a line a minute in the log."""

import sys
from collections.abc import Iterable
from logging import getLogger
from time import monotonic
from typing import Any, ClassVar

from tqdm import tqdm as plain_tqdm
from tqdm.asyncio import tqdm_asyncio
from tqdm.auto import tqdm

_SECONDS = 60.0  # between two lines in the log
_IN_NOTEBOOK = tqdm is not tqdm_asyncio  # where tqdm.auto draws with widgets


def progress(
    iterable: Iterable[Any] | None = None,
    title: str = "",
    total: int | None = None,
    *,
    shown: bool = True,
    initial: int = 0,
    unit: str = "it",
) -> Any:
    """Iterate over ``iterable`` and show how much is done, how fast, and how long the rest takes.

    Without a terminal and outside a notebook at most one line a minute is logged, whatever number of loops there are.

    Args:
        iterable: What to iterate over; None if the caller calls ``update`` of what is returned.
        title: What is done.
        total: The number of steps; by default that of ``iterable``.
        shown: False shows nothing.
        initial: The number of steps that are done already.
        unit: What a step is; ``B`` for bytes.

    Returns:
        A tqdm bar: an iterable with ``update`` and ``set_postfix``, and a context manager.
    """
    bar: type[plain_tqdm] = _Lines
    if not shown or _IN_NOTEBOOK or (sys.stderr is not None and sys.stderr.isatty()):
        bar = tqdm
    options = {"desc": title, "total": total, "initial": initial, "unit": unit, "unit_scale": unit == "B"}
    return bar(iterable, **options, leave=False, dynamic_ncols=True, disable=not shown)


class _Lines(plain_tqdm):
    """A bar that writes lines to the log."""

    monitor_interval = 0  # no thread that would draw bars which stand still
    _written: ClassVar[float] = monotonic()  # when a line of any bar was written last

    def __init__(self, *args: Any, **options: Any):
        bar_format = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left{postfix}"
        super().__init__(*args, **options, miniters=1, mininterval=0, smoothing=0, bar_format=bar_format)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Log the state, if there is something to tell and the last line is a minute old."""
        if msg is None and self.n > self.initial and monotonic() - _Lines._written >= _SECONDS:
            _Lines._written = monotonic()
            getLogger().info(str(self))

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: a line in the log stays."""
