"""What every tracker of experiments can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class Tracker(ABC):
    """A run in a tracker, which goes on with the one that ``kept`` names.

    Args:
        name: Of the run there.
        values: The configuration, by key, for a new run.
        kept: What goes on with the same run later; empty for a new one. It is changed, and the caller keeps it.

    Attributes:
        name: What the tracker itself is called.
        packages: Those that bring it, any of which is enough.
        extra: That installs one of them.
        remedy: What to do where it can't begin.
    """

    name: str
    packages: tuple[str, ...]
    extra: str
    remedy: str

    @abstractmethod
    def __init__(self, name: str, values: Mapping[str, Any], kept: dict[str, Any]): ...

    @abstractmethod
    def begin(self, stage: str) -> None:
        """Make ready for the curves of ``stage``, or for the rest of them."""

    @abstractmethod
    def add(self, stage: str, curve: str, value: float, step: int) -> None:
        """Add a point; the steps of a stage must not fall."""

    @abstractmethod
    def flush(self) -> None:
        """Pass on what was added so far."""

    @abstractmethod
    def close(self, error: type[BaseException] | None) -> None:
        """End the run there, as failed if an ``error`` ends it here."""


def choose(error: type[BaseException] | None, done: Any, failed: Any, stopped: Any) -> Any:
    """What stands for an end without an ``error``, by one, and by Ctrl-C."""
    return done if error is None else stopped if issubclass(error, KeyboardInterrupt) else failed
