"""Counting what is called, and stopping a run in the middle."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest


class Stopped(Exception):
    """The power went out."""


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, stop: int | None = None) -> list[str]:
    """Grows by one with every call of ``owner.name``; the call after ``stop`` of them is interrupted."""
    real, calls = getattr(owner, name), []

    def count(*args: Any, **options: Any) -> Any:
        if len(calls) == stop:
            raise Stopped
        calls.append(name)
        return real(*args, **options)

    monkeypatch.setattr(owner, name, count)
    return calls


def stop_at(monkeypatch: pytest.MonkeyPatch, trainer: type, step: int | None, stage: str | None = None) -> list[int]:
    """Count training steps of ``trainer`` (in ``stage``), and interrupt it when it begins number ``step``."""
    real, done = trainer._train_step, [0]  # type: ignore[attr-defined]

    def one(self: Any, *args: Any) -> Any:
        if stage is None or Path(self.saved_model_file).stem == stage:
            if done[0] == step:
                raise Stopped
            done[0] += 1
        return real(self, *args)

    monkeypatch.setattr(trainer, "_train_step", one)
    return done


def full_disk(monkeypatch: pytest.MonkeyPatch, room: float) -> list[float]:
    """A disk with ``room`` bytes for what ``recbole_alt.files`` writes; holds the bytes that are left."""
    left, real = [room], Path.open

    class Limited(io.FileIO):
        def write(self, data: Any) -> int:
            if left[0] < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.name))
            left[0] -= len(data)
            return super().write(data)

    def opened(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if self.suffix == ".partial" and mode == "w+b":
            return io.BufferedRandom(Limited(self, "w+b"))
        return real(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", opened)
    return left
