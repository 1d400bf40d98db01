"""A file's text, by its encoding."""

from __future__ import annotations

import codecs
from pathlib import Path

_PIECE = 1 << 24  # bytes decoded at a time


def read_utf8(path: str, encoding: str) -> bytes:
    """The text of a file in UTF-8, without a byte order mark.

    Args:
        path: of the file.
        encoding: that it is stored in.

    Raises:
        ValueError: names the file, the line and ``encoding:`` where the two don't go together.
    """
    try:
        content = Path(path).read_bytes()
        kind = codecs.lookup(encoding).name
        if kind not in ("utf-8", "utf-8-sig"):
            return content.decode(kind).removeprefix("\ufeff").encode()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ValueError(f"{path}, line 1: this is UTF-16, not {encoding}: set encoding: utf-16")
        _check_utf8(content)
        return content.removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None
    except LookupError:
        raise ValueError(f"encoding: {encoding!r} is none that Python knows; utf-8 is the default") from None
    except UnicodeDecodeError as error:
        before = bytes(error.object[: error.start]).decode(error.encoding, "replace")
        raise ValueError(
            f"{path}, line {before.count(chr(10)) + 1}: byte 0x{error.object[error.start]:02x} can't be read as "
            f"{encoding}: set encoding: to that of the file, such as latin-1, or save it as UTF-8"
        ) from None
    except UnicodeError as error:
        raise ValueError(f"{path} can't be read as {encoding} ({error}): set encoding:") from None


def _check_utf8(content: bytes) -> None:
    """Raise UnicodeDecodeError, with ``content`` and the place, where it isn't UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(content), _PIECE):
            decoder.decode(content[start : start + _PIECE], start + _PIECE >= len(content))
    except UnicodeDecodeError:
        content.decode("utf-8")
