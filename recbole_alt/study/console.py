"""What a study says while it runs: only its own lines on the console, and the time that is left."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from recbole_alt.values import show_time

logger = logging.getLogger("recbole_alt.study")


@contextmanager
def quiet() -> Iterator[None]:
    """On the console only the study's own lines, and each warning once; the log file has everything."""
    root, warned = logging.getLogger(), set[str]()
    consoles = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]

    def worth_showing(record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return record.name == logger.name or record.levelno > logging.WARNING or root.level <= logging.DEBUG
        known = record.getMessage() in warned  # every training would repeat it
        warned.add(record.getMessage())
        return not known

    for handler in consoles:
        handler.addFilter(worth_showing)
    try:
        yield
    finally:
        for handler in consoles:
            handler.removeFilter(worth_showing)


def show_outcome(record: Mapping[str, Any]) -> str:
    """What validation says of a training by its record; the test set is for the report."""
    if record["error"]:
        return f"diverged ({record['error']})"
    reached = ", ".join(f"{name} {value:.4f}" for name, value in record["valid"].items())
    aligned = f" and {show_time(record['aligned'])} of alignment" if record["aligned"] else ""
    return f"valid {reached} in {show_time(record['wall'])}{aligned}"


class Clock:
    """Estimates the time of trainings to come by the mean of those of their kind, such as ``"ctr of ml-100k"``."""

    def __init__(self) -> None:
        self._measured = defaultdict[str, list[float]](list)

    def measure(self, kind: str, seconds: float) -> None:
        """Note that a training of ``kind`` took ``seconds``; 0 if it was there already."""
        if seconds:
            self._measured[kind].append(seconds)

    def estimate(self, kinds: Iterable[str]) -> str:
        """The time of trainings of ``kinds`` in words, and how many are of kinds that were not measured."""
        known = {kind: fmean(seconds) for kind, seconds in self._measured.items()}
        left = Counter(kinds)
        seconds = sum(count * known.get(kind, 0.0) for kind, count in left.items())
        unknown = ", ".join(f"{count} {kind}" for kind, count in left.items() if kind not in known)
        about = f", about {show_time(seconds)}" if seconds else ""
        return about + (f" (not measured yet: {unknown})" if unknown else "")
