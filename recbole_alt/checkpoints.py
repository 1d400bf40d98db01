"""Checkpoints that hold all of a run's state, can be read without running code, and show any damage.

A checkpoint is the zip archive that ``torch.save`` writes, with the SHA-256 of its bytes as the archive's comment, so
that ``torch.load(file, weights_only=True)`` reads it as any other. One without a checksum, as older versions and other
programs write it, is read as it is.
"""

import enum
import hashlib
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from recbole.utils import enum_type as recbole_enums

from recbole_alt.files import replacing

_COMMENT, _DIGITS = b"recbole_alt sha256 ", 64
_FOOT = (len(_COMMENT) + _DIGITS).to_bytes(2, "little") + _COMMENT  # the comment's length is the archive's last field
_CHECKSUM = "checksum"


def trust(*classes: type) -> None:
    """Let ``torch.load(..., weights_only=True)`` rebuild these classes; only ever our own."""
    torch.serialization.add_safe_globals(list(classes))


def save(state: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """Write ``state`` so that a stop at any moment leaves the old file or the new one, never half of one.

    Args:
        state: tensors and plain data by name; in the file ``checksum`` stands beside them, so that one whose checksum
            was lost is known.
        file: the checkpoint; see :class:`~recbole_alt.files.CannotWrite`.
    """
    with replacing(file) as stream:
        sink = _Sink(stream)
        try:
            # pickle protocol 2, the one weights_only reads
            torch.save({**state, _CHECKSUM: "sha256"}, sink)  # type: ignore[arg-type]
        except Exception:
            if sink.error is not None:  # torch complains about its archive instead
                raise sink.error from None
            raise
        end = stream.seek(-2, os.SEEK_END)
        stream.seek(0)
        digest = _digest(stream, end)
        stream.seek(end)
        stream.write(_FOOT + digest)


def load(file: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        ValueError: the file is missing, a byte of it is not what was written, or it holds more than plain data.
    """
    if not Path(file).is_file():
        raise ValueError(f"checkpoint {os.fspath(file)!r} does not exist")
    try:
        with open(file, "rb") as stream:
            has_checksum = _check(stream)
            stream.seek(0)
            state = torch.load(stream, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
        if state.pop(_CHECKSUM, None) and not has_checksum:
            raise ValueError("its checksum is gone")
    except Exception as error:  # damaged bytes surface as almost any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if reason.startswith("Weights only load failed"):  # and much advice on how to run what the file holds
            reason = "it holds something other than plain data, which is never run"
        raise ValueError(f"checkpoint {str(file)!r} is damaged or was not written by recbole_alt: {reason}") from None
    return state


class _Sink:
    """What ``torch.save`` needs of a stream; keeps the first error, which torch does not."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or keep the error and raise it."""
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Left to the stream."""


def _check(stream: BinaryIO) -> bool:
    """Whether an archive has a checksum; a ValueError if that is of another content."""
    size = stream.seek(0, os.SEEK_END)
    end = max(0, size - len(_FOOT) - _DIGITS)
    stream.seek(end)
    foot = stream.read()
    if not foot.startswith(_FOOT):
        return False
    stream.seek(0)
    if foot != _FOOT + _digest(stream, end):
        raise ValueError("its checksum is of another content")
    return True


def _digest(stream: BinaryIO, length: int) -> bytes:
    """SHA-256 of the next ``length`` bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    while length and (part := stream.read(min(length, 1 << 20))):
        digest.update(part)
        length -= len(part)
    return digest.hexdigest().encode()


def to_plain(value: Any) -> Any:
    """Make ``value`` of what a safe unpickler reads; RecBole's enums and devices become tagged dictionaries."""
    if isinstance(value, enum.Enum):
        return {"__enum__": [type(value).__name__, value.name]}
    if isinstance(value, torch.device):
        return {"__device__": str(value)}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def from_plain(value: Any) -> Any:
    """The value that :func:`to_plain` was given; a device that is not here becomes the processor."""
    if isinstance(value, dict):
        if "__enum__" in value:
            kind, name = value["__enum__"]
            return getattr(recbole_enums, kind)[name]
        if "__device__" in value:
            device = torch.device(value["__device__"])
            return device if device.type != "cuda" or torch.cuda.is_available() else torch.device("cpu")
        return {key: from_plain(item) for key, item in value.items()}
    return [from_plain(item) for item in value] if isinstance(value, list) else value


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
