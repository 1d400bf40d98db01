"""Progress of long loops: a bar on a terminal and in a notebook, elsewhere a line a minute in the log."""

import io
import sys
from collections.abc import Iterable
from logging import getLogger
from time import monotonic
from typing import Any, ClassVar

from tqdm import tqdm

_SECONDS = 60.0  # between two lines in the log


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
    bar: type[tqdm] = _Lines
    if not shown or (sys.stderr is not None and sys.stderr.isatty()):
        bar = tqdm
    elif _notebook() is not None:
        bar = _Cell
    options = {"desc": title, "total": total, "initial": initial, "unit": unit, "unit_scale": unit == "B"}
    return bar(iterable, **options, leave=False, dynamic_ncols=True, disable=not shown)


class _Lines(tqdm):
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


class _Cell(tqdm):
    """A bar in a notebook: all bars of a cell are lines of one output, which is empty when they are done.

    It needs no ipywidgets. Of those of :mod:`tqdm.notebook`, each would leave an output of its own, hundreds in a run.
    """

    monitor_interval = 0
    _output: ClassVar[tuple[int, Any]] = (0, None)  # the number of the cell, and the handle of what it shows

    def __init__(self, *args: Any, **options: Any):
        self._number = _notebook().execution_count
        super().__init__(*args, **options, file=io.StringIO())

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the bars of this cell that are not done, the outer one first."""
        from IPython.display import display

        bars = [bar for bar in self._instances if isinstance(bar, _Cell) and bar._number == self._number]
        shown = {"text/plain": "\n".join(map(str, sorted(bars, key=lambda bar: abs(bar.pos))))}
        number, handle = _Cell._output
        if number == self._number:
            handle.update(shown, raw=True)
        else:
            _Cell._output = self._number, display(shown, raw=True, display_id=True)

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: :meth:`display` replaces the whole output."""


def _notebook() -> Any:
    """The shell of IPython in the kernel of a notebook; None anywhere else."""
    of_ipython = sys.modules.get("IPython")
    shell = of_ipython.get_ipython() if of_ipython else None
    return shell if hasattr(shell, "kernel") else None
