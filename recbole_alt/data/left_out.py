"""How many rows of each atomic file are left out, and why."""

from __future__ import annotations

from logging import Logger

_MUCH = 0.05  # of a file's rows


class LeftOut:
    """Counts of the rows that filters take away, by file and reason."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._rows: dict[str, dict[str, int]] = {}

    def read(self, file: str, rows: int) -> None:
        """``file`` has so many rows."""
        self._totals[file] = rows

    def add(self, file: str, why: str, rows: int) -> None:
        """So many rows of ``file`` were taken away."""
        if rows:
            reasons = self._rows.setdefault(file, {})
            reasons[why] = reasons.get(why, 0) + rows

    @property
    def counts(self) -> dict[str, int]:
        """Rows by ``<file>: <reason>``; nothing where all rows stay."""
        return {f"{file}: {why}": rows for file, reasons in self._rows.items() for why, rows in reasons.items()}

    def summary(self, file: str) -> str:
        """One line on the rows of ``file``."""
        reasons = self._rows.get(file, {})
        parts = ", ".join(f"{rows:,} for {why}" for why, rows in reasons.items())
        return f"{file}: {sum(reasons.values()):,} of {self._totals[file]:,} rows are left out: {parts}"

    def say(self, logger: Logger) -> None:
        """Log a line for each file of which rows are left out, as a warning where they are many."""
        for file, reasons in self._rows.items():
            much = sum(reasons.values()) > _MUCH * self._totals[file]
            (logger.warning if much else logger.info)(self.summary(file))
