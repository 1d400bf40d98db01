"""Progress: bars on a terminal, at most one line a minute elsewhere, nothing where it is not wanted."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from recbole_alt import progress as module
from recbole_alt.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, for the lines."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    monkeypatch.setattr(module._Lines, "_written", 1000.0)
    return now


def test_without_a_terminal_all_loops_together_log_a_line_a_minute(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO)
    for loop in range(6):  # of 25 seconds each
        with progress(range(25), f"Loop {loop}", unit=" texts") as bar:
            for _ in bar:
                clock[0] += 1
                bar.set_postfix({"loss": 1.0})
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2  # of 150 seconds
    assert lines[0].startswith("Loop 2: ") and " of 25, " in lines[0] and "texts/s" in lines[0] and "left" in lines[0]
    assert sys.stderr.getvalue() == ""


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    caplog.set_level(logging.INFO)
    assert list(progress(range(3), "Read", 3)) == [0, 1, 2]
    assert "Read:   0%" in terminal.getvalue() and not caplog.records


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_show_progress_false_is_silent(
    stream: type, clock: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    caplog.set_level(logging.INFO)
    for _ in progress(range(3), "Read", shown=False):
        clock[0] += 100
    with progress(title="Read", total=2, shown=False) as bar:
        clock[0] += 100
        bar.update(2)
    assert sys.stderr.getvalue() == "" and not caplog.records  # type: ignore[attr-defined]
