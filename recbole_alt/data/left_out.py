"""Counts of the rows of each atomic file that are left out, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from logging import Logger

_MUCH = 0.05  # share of a file's rows


class LeftOut:
    """Counts of the rows that are left out, by file and reason."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._rows: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def set_total(self, file: str, rows: int) -> None:
        """Set the number of rows of ``file``."""
        self._totals[file] = rows

    def add(self, file: str, why: str, rows: int) -> None:
        """Count rows of ``file`` that are left out."""
        if rows:
            self._rows[file][why] += rows

    @property
    def counts(self) -> dict[str, int]:
        """Rows by ``<file>: <reason>``."""
        return {f"{file}: {why}": rows for file, reasons in self._rows.items() for why, rows in reasons.items()}

    def summary(self, file: str) -> str:
        """One line about the rows of ``file``."""
        reasons = self._rows[file]
        parts = ", ".join(f"{rows:,} for {why}" for why, rows in reasons.items())
        return f"{file}: {reasons.total():,} of {self._totals[file]:,} rows are left out: {parts}"

    def log(self, logger: Logger) -> None:
        """Log a line for each file of which rows are left out, as a warning if they are many."""
        for file, reasons in self._rows.items():
            much = reasons.total() > _MUCH * self._totals[file]
            (logger.warning if much else logger.info)(self.summary(file))
