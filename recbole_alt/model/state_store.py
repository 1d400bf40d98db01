"""States of texts on disk, for all runs that compute them alike.

A folder belongs to one way of computing (:func:`~recbole_alt.model.fingerprint.fingerprint`). Its files are safetensors
files that are never changed, named after what they hold and the SHA-256 of their bytes: ``tokens-3f….safetensors``. Any
of them may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from recbole_alt.files import CannotWrite, replacing

_FILE_BYTES = 64 * 2**20  # of states in a file, at most
_DIGEST = 16  # bytes that tell a text from others
_PATIENCE = 60  # seconds to wait while another process writes


@dataclass(frozen=True)
class StateFolder:
    """Where states are kept.

    Attributes:
        root: holds a folder for each way of computing.
        most: the most bytes of all folders; the files that were not used for longest are deleted.
        read_only: True if nothing is added, as for states that are not those of the language model.
    """

    root: Path
    most: int
    read_only: bool = False


class StateStore:
    """The states that one folder holds.

    A file that is damaged is deleted, and one that can't be written is given up, with one line in the log each: both
    cost only the time to encode its texts again.

    Args:
        folder: where states are kept.
        name: of the way of computing.
    """

    def __init__(self, folder: StateFolder, name: str):
        self._given, self._folder = folder, folder.root / name
        self._writes = not folder.read_only
        self._place: dict[str, dict[bytes, tuple[Path, int]]] = defaultdict(dict)  # kind → digest → file, row
        self._scanned: dict[str, set[Path]] = defaultdict(set)
        self._opened: dict[Path, tuple[Tensor, list[int]]] = {}
        self._bytes = 0  # that this process has read or written

    @contextmanager
    def claimed(self, what: str, *, wait: bool) -> Iterator[bool]:
        """Whether this process has ``what`` to itself until the block ends, and has learned what others have written.

        It has not while another process has it, unless it is to ``wait`` for that one.
        """
        lock = FileLock(self._given.root / f".{self._folder.name}-{what}.lock")
        with suppress(OSError):  # else nothing can be shared
            if self._writes:
                self._given.root.mkdir(parents=True, exist_ok=True)
                try:
                    lock.acquire(timeout=-1 if wait else 0)
                except Timeout:
                    yield False
                    return
        try:
            for kind in list(self._scanned):
                self._scan(kind)
            yield True
        finally:
            lock.release()

    def read(self, kind: str, texts: Collection[bytes]) -> dict[bytes, Tensor]:
        """The states [n, H] of those of ``texts`` that are kept, on the CPU."""
        if not self._scanned[kind]:
            self._scan(kind)
        found = {}
        for text in texts:
            digest = _digest(text)
            if (place := self._place[kind].get(digest)) is not None:
                file, row = place
                if file in self._opened or self._open(kind, file):
                    states, first = self._opened[file]
                    found[text] = states[first[row] : first[row + 1]]
        return found

    def write(self, kind: str, states: Mapping[bytes, Tensor]) -> None:
        """Keep the states [n, H] of texts that are not kept yet."""
        if not self._writes or not states:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._given.root / ".lock", timeout=_PATIENCE):
                self._scan(kind)  # what others have written meanwhile
                new = {text: of for text, of in states.items() if _digest(text) not in self._place[kind]}
                for part in _parts(new):
                    self._write_file(kind, part)
                self._delete_oldest()
        except (OSError, CannotWrite) as error:
            said = error if isinstance(error, CannotWrite) else CannotWrite(self._folder, error)
            self._stop(f"{said}; states of texts are not kept for other runs")

    def _write_file(self, kind: str, states: Mapping[bytes, Tensor]) -> None:
        digests = b"".join(map(_digest, states))
        content = save(
            {
                "texts": torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(-1, _DIGEST),
                "lengths": torch.tensor([len(of) for of in states.values()]),
                "states": torch.cat([of.cpu() for of in states.values()]),
            }
        )
        self._bytes += len(content)
        if self._bytes > self._given.most:
            return self._stop(f"the states of this run's texts need more: {self._given.most / 2**30:g} GiB are kept")
        file = self._folder / f"{kind}-{hashlib.sha256(content).hexdigest()}.safetensors"
        with replacing(file) as stream:
            stream.write(content)
        self._scanned[kind].add(file)
        self._place[kind] |= {_digest(text): (file, row) for row, text in enumerate(states)}

    def _stop(self, said: str) -> None:
        if self._writes:
            getLogger().warning(f"text_cache_dir: {said}")
        self._writes = False

    def _delete_oldest(self) -> None:
        """Delete the files that were not used for longest until the rest is small enough."""
        files = []
        for file in self._given.root.glob("*/*.safetensors"):
            with suppress(OSError):  # another process has deleted it
                about = file.stat()
                files.append((about.st_mtime, about.st_size, file))
        left = sum(size for _, size, _ in files)
        for _, size, file in sorted(files):
            if left <= self._given.most:
                return
            file.unlink(missing_ok=True)
            left -= size

    def _scan(self, kind: str) -> None:
        """Learn which texts the files are of that were not there before."""
        for file in sorted(self._folder.glob(f"{kind}-*.safetensors")):
            if file in self._scanned[kind]:
                continue
            self._scanned[kind].add(file)
            try:
                with safe_open(file, "pt") as content:
                    texts = content.get_tensor("texts").numpy()
            except (OSError, SafetensorError) as error:
                self._discard(kind, file, str(error))
                continue
            for row, text in enumerate(texts):
                self._place[kind].setdefault(text.tobytes(), (file, row))

    def _open(self, kind: str, file: Path) -> bool:
        """Open a file for its states if its bytes are those that were written."""
        try:
            if file.stem != f"{kind}-{hashlib.sha256(file.read_bytes()).hexdigest()}":
                raise OSError("its checksum is of another content")
            with safe_open(file, "pt") as content:  # which maps the file: only what is read takes memory
                states, lengths = content.get_tensor("states"), content.get_tensor("lengths")
            with suppress(OSError):
                os.utime(file)
        except (OSError, SafetensorError) as error:
            self._discard(kind, file, str(error))
            return False
        self._bytes += file.stat().st_size
        self._opened[file] = states, [0, *np.cumsum(lengths.numpy()).tolist()]
        return True

    def _discard(self, kind: str, file: Path, why: str) -> None:
        if file.exists():  # else another process has deleted it
            getLogger().warning(f"text_cache_dir: {str(file)!r} is damaged ({why}): its texts are encoded again")
        self._place[kind] = {text: place for text, place in self._place[kind].items() if place[0] != file}
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_DIGEST).digest()


def _parts(states: Mapping[bytes, Tensor]) -> Iterator[dict[bytes, Tensor]]:
    """``states`` in parts of a file each."""
    part: dict[bytes, Tensor] = {}
    size = 0
    for text, of in states.items():
        part[text] = of
        size += of.numel() * of.element_size()
        if size >= _FILE_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part
