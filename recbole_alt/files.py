"""Files that survive: each is the old one or the new one, on disk, and damage to what a run goes on from is an error.

What a run goes on from is a checkpoint (:mod:`recbole_alt.checkpoints`) or a *record*: a JSON object whose last
key, ``checksum``, is of all that stands before it. Records without one, as older versions wrote them, are read as they
are.
"""

import errno
import hashlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room or have the quota raised",
    errno.EIO: "see to the disk",
} | dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "give a folder that can be written")
_LOCK = ".in-use"
_CHECKSUM = "checksum"
_HEAD, _DIGITS, _FOOT = f',\n "{_CHECKSUM}": "'.encode(), 64, b'"\n}\n'


class CannotWrite(ValueError):
    """``file`` can't be written, as the operating system's ``error`` says: one line with what to do."""

    def __init__(self, file: str | os.PathLike[str], error: OSError):
        reason = error.strerror or str(error) or type(error).__name__
        remedy = _REMEDIES.get(error.errno or 0)
        super().__init__(f"{os.fspath(file)!r} can't be written ({reason})" + (f": {remedy}" if remedy else ""))


# -- writing -----------------------------------------------------------------------------------------------


@contextmanager
def replacing(file: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A stream for the new content of ``file``, which takes its place, on disk, when the block ends.

    A stop at any moment, an error in the block or a full disk leaves the old file. A symbolic link stays one.

    Raises:
        CannotWrite: the operating system refuses.
    """
    path = Path(os.path.realpath(file))
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise CannotWrite(file, error) from error


@contextmanager
def filling(key: str, folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write in, whose files take their places in ``folder`` when the block ends.

    An error in the block leaves ``folder`` as it was: with its old files, or not there. A symbolic link stays one.

    Args:
        key: that gives ``folder``, for the message.

    Raises:
        ValueError: nothing can be written there; see :func:`check_folder` and :class:`CannotWrite`.
    """
    root = Path(folder)
    is_new = not root.exists()
    check_folder(key, folder)
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=".new-") as made:
            yield Path(made)
            for file in sorted(file for file in Path(made).rglob("*") if file.is_file()):
                _move(file, root / file.relative_to(made))
        sync_folder(root)
    finally:
        if is_new:
            with suppress(OSError):  # as it holds something
                root.rmdir()


def _move(file: Path, target: Path) -> None:
    """Put a whole ``file`` in the place of ``target``, on the same disk."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(file, os.path.realpath(target))
    except OSError as error:
        raise CannotWrite(target, error) from error


def clear(folder: Path) -> None:
    """Delete what writers in ``folder`` left half done when their process was killed."""
    for partial in folder.glob("*.partial"):
        partial.unlink(missing_ok=True)


def write_text(file: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, as :func:`replacing` does."""
    with replacing(file) as stream:
        stream.write(text.encode())


def write_json(file: str | os.PathLike[str], content: Any) -> None:
    """Write ``content`` as JSON, for others to read."""
    write_text(file, json.dumps(content, indent=1) + "\n")


def write_record(file: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write ``content``, of one key or more, as JSON with its checksum, for :func:`read_record`."""
    body = json.dumps(dict(content), indent=1).removesuffix("\n}").encode()
    with replacing(file) as stream:
        stream.write(_with_checksum(body))


def _with_checksum(body: bytes) -> bytes:
    return body + _HEAD + hashlib.sha256(body).hexdigest().encode() + _FOOT


def sync_folder(folder: Path) -> None:
    """Put the names in ``folder`` on disk, where the file system can: what a renamed file needs beside its own."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # no such thing on this file system
            raise
    finally:
        os.close(descriptor)


# -- reading -----------------------------------------------------------------------------------------------


def read_json(file: str | os.PathLike[str]) -> Any:
    """Read a JSON file; the ValueError of one that can't be read or is no JSON is one line that names it."""
    return _parsed(file, _bytes(file))


def read_record(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what :func:`write_record` wrote, or a JSON object that has no checksum.

    Raises:
        ValueError: it can't be read, is no JSON object, or a byte of it is not what was written.
    """
    read = _bytes(file)
    content = _parsed(file, read)
    if not isinstance(content, dict):
        raise _damaged(file, f"it holds a {type(content).__name__}, not an object")
    if _CHECKSUM not in content and not re.search(rb'"[0-9a-f]{64}"\s*}\s*$', read):  # nor one under a damaged name
        return content
    if read != _with_checksum(read[: -len(_HEAD) - _DIGITS - len(_FOOT)]):
        raise _damaged(file, "its checksum is of another content")
    del content[_CHECKSUM]
    return content


def _bytes(file: str | os.PathLike[str]) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"{os.fspath(file)!r} can't be read ({error.strerror})") from None


def _parsed(file: str | os.PathLike[str], read: bytes) -> Any:
    try:
        return json.loads(read.decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"no JSON: {error}" if read else "it is empty") from None


def _damaged(file: str | os.PathLike[str], reason: str) -> ValueError:
    return ValueError(f"{os.fspath(file)!r} is damaged or was not written by recbole_alt: {reason}")


# -- folders -----------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where this user's programs keep for us what can be made again at any time: ``~/.cache/recbole_alt``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recbole_alt"


def new_folder(folder: Path) -> Path:
    """Make ``folder``, or ``folder-2``, ``-3``, … where runs started in the same second; see :class:`CannotWrite`."""
    number, candidate = 1, folder
    while True:
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")
        except OSError as error:
            raise CannotWrite(candidate, error) from error


def check_file(key: str, file: str | os.PathLike[str]) -> None:
    """Refuse a ``file`` that could not be written later; missing folders are made.

    Raises:
        ValueError: it is a folder or a device, or its folder can't be written; one line with ``key``, value and reason.
    """
    path = Path(os.path.realpath(file))
    if path.exists() and not path.is_file():
        raise ValueError(f"{key}: {os.fspath(file)!r} is {'a folder' if path.is_dir() else 'no file'}; name a file")
    check_folder(key, file, path.parent)


def check_folder(key: str, given: str | os.PathLike[str], folder: Path | None = None) -> None:
    """Refuse a folder that nothing can be written into; a missing one is made.

    Args:
        key, given: of the configuration, for the message.
        folder: to be written into; ``given`` itself by default.

    Raises:
        ValueError: nothing can be written there; one line with key, value and reason.
    """
    folder = Path(given) if folder is None else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise ValueError(
            f"{key}: {os.fspath(given)!r} can't be written in {str(folder)!r} ({reason}): give another place"
        ) from None


def lock(folder: Path) -> FileLock:
    """Take ``folder`` for this process, as long as what is returned lives, or until its ``release()``.

    Raises:
        ValueError: another process has it, or this one has it already; one line with the folder and who.
        CannotWrite: the operating system refuses.
    """
    file = folder / _LOCK
    taken = FileLock(file)
    try:
        taken.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{str(folder)!r} is in use by {_holder(file)}: wait for its end, or stop it") from None
    except OSError as error:
        raise CannotWrite(file, error) from error
    with suppress(OSError):  # who it is, as filelock itself writes it where there are no locks but files
        file.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
    return taken


def _holder(file: Path) -> str:
    with suppress(OSError, ValueError):
        process, host, *_ = file.read_text().split()
        return f"process {process} on {host}"
    return "another process"
