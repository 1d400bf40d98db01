"""Checkpoints that hold all of a run's state and can be read without running code."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_alt.config import ALTConfig


def trust(*classes: type) -> None:
    """Let ``torch.load(..., weights_only=True)`` rebuild these classes; only ever our own."""
    torch.serialization.add_safe_globals(list(classes))


trust(ALTConfig)


def save(state: dict[str, Any], file: str | os.PathLike[str]) -> None:
    """Write ``state`` so that a stop at any moment leaves the old file or the new one, never half of one."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)  # pickle protocol 2, the one weights_only reads
    os.replace(partial, path)


def load(file: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        ValueError: the file is missing, damaged, or holds more than plain data.
    """
    if not Path(file).is_file():
        raise ValueError(f"checkpoint {os.fspath(file)!r} does not exist")
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # damaged bytes surface as almost any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"checkpoint {os.fspath(file)!r} is damaged or was not written by recbole_alt: {reason}"
        ) from None


def rng_state() -> dict[str, Any]:
    """State of every random generator that training draws from."""
    version, internal, gauss = random.getstate()
    legacy: Any = np.random.get_state()
    name, keys, position, has_gauss, cached = legacy
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put every random generator back where :func:`rng_state` found it."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
