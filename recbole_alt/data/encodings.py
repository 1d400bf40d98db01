"""Reads a file of any encoding as UTF-8."""

import codecs
from pathlib import Path

_PIECE = 1 << 24  # bytes decoded at a time


def read_as_utf8(path: str, encoding: str) -> bytes:
    """Read a file stored in ``encoding``; returns its text in UTF-8, without a byte order mark.

    Raises:
        ValueError: the file can't be read, or is in another encoding; names the file, the line and ``encoding:``.
    """
    try:
        content = Path(path).read_bytes()
        kind = codecs.lookup(encoding).name
        if kind not in ("utf-8", "utf-8-sig"):
            return content.decode(kind).removeprefix("\ufeff").encode()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ValueError(f"{path}, line 1: this is UTF-16, not {encoding}: set encoding: utf-16")
        pieces = (content[start : start + _PIECE] for start in range(0, len(content), _PIECE))
        try:
            for _ in codecs.iterdecode(pieces, "utf-8"):
                pass  # a piece at a time, since the whole text would need several times the memory
        except UnicodeDecodeError:
            content.decode("utf-8")  # fails with the position in the file
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
