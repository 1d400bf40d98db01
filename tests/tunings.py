"""What tests of tuning look for, and in which ranges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Keys = Callable[..., dict[str, Any]]
RATES = "learning_rate choice [1e-3, 1e-2]"
TWO = "learning_rate loguniform -8,-3\nweight_decay uniform 0,0.5\n"  # 8 steps a trial
SPACE = TWO + "train_batch_size quniform 16,48,16\n"


def checkpoints() -> list[Path]:
    return sorted(Path().rglob("*.pth"))


def outcomes(result: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(trial["parameters"], trial["score"], trial["valid"], trial["test"]) for trial in result["trials"]]
