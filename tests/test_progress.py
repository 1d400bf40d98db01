"""Progress: bars on a terminal, at most one line a minute elsewhere, nothing where it is not wanted."""

from __future__ import annotations

import io
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

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


class Notebook:
    """Stands for IPython in the kernel of a notebook; ``outputs`` has what each output shows after each change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outputs: list[list[str]] = []
        self.shell = SimpleNamespace(kernel="of a notebook", execution_count=7)
        package: Any = ModuleType("IPython")
        package.get_ipython = lambda: self.shell
        package.display = ModuleType("IPython.display")
        package.display.display = self.display
        monkeypatch.setitem(sys.modules, "IPython", package)
        monkeypatch.setitem(sys.modules, "IPython.display", package.display)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        monkeypatch.setattr(module._Cell, "_output", (0, None))

    def display(self, shown: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        self.outputs.append([shown["text/plain"]])
        of = self.outputs[-1]
        return SimpleNamespace(update=lambda shown, raw: of.append(shown["text/plain"]))


def test_a_cell_of_a_notebook_shows_all_its_bars_in_one_output(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    notebook = Notebook(monkeypatch)
    for _ in range(3):
        for _ in progress(range(2), "Train"):
            for _ in progress(range(2), "Encode"):
                pass
    left = progress(range(2), "Interrupted")
    notebook.shell.execution_count = 8
    for _ in progress(range(2), "Score"):
        pass
    first, second = notebook.outputs
    assert first[0].startswith("Train:   0%|") and any("Train:   0%|" in s and "\nEncode:   0%|" in s for s in first)
    assert first[-2] == "" and second[-1] == "" and "Interrupted" in first[-1]
    assert all("Interrupted" not in shown for shown in second) and "Score" in second[0]
    assert sys.stderr.getvalue() == "" and not caplog.records  # type: ignore[attr-defined]
    left.close()


@pytest.mark.parametrize(
    "shell", [None, SimpleNamespace(execution_count=7)], ids=["no IPython", "IPython on a terminal"]
)
def test_ipython_without_a_notebook_is_none(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    notebook.shell = shell
    assert list(progress(range(2), "Read")) == [0, 1]
    assert not notebook.outputs


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
