"""What the converters share: raw files read line by line, atomic files that appear whole or not at all."""

import gzip
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from recbole_alt.files import sync_folder
from recbole_alt.progress import progress

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # controls, and halves of characters
_LINES = 4096  # between two looks at how far the file is read


def clean(text: str) -> str:
    """The text on one line: tabs, line breaks and other control characters are spaces, and spaces are single."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def damaged(file: Path, line: int, why: str) -> ValueError:
    """The error for a line that is not as its format says."""
    return ValueError(f"{file}, line {line:,}: {why}; the file is damaged or not the official one, download it again")


class Table:
    """An atomic file being written; a value never breaks its row, whatever it holds."""

    def __init__(self, file: Path, columns: str):
        self.file, self.rows = file, 0
        self._columns = columns.split()
        self._stream: TextIO = file.open("w", encoding="utf-8", newline="\n")
        self._stream.write("\t".join(self._columns) + "\n")

    def add(self, *values: str) -> None:
        """One row; an empty value is a missing one."""
        if len(values) != len(self._columns):
            raise AssertionError(f"{self.file}: {len(values)} values for {len(self._columns)} columns")
        self._stream.write("\t".join([v if v.isalnum() else clean(v) for v in values]) + "\n")
        self.rows += 1

    def close(self) -> None:
        """Put what is left on disk."""
        if not self._stream.closed:
            with self._stream:
                self._stream.flush()
                os.fsync(self._stream.fileno())


class Conversion:
    """One dataset on its way from the raw files in ``raw`` to atomic files."""

    def __init__(self, raw: Path, out: Path, name: str, *, any_size: bool = False, progress: bool = True):
        self.raw = raw
        self._folder, self._name = out / name, name
        self._any_size, self._progress = any_size, progress
        self._tables: dict[str, Table] = {}
        self._notes: Counter[str] = Counter()

    def lines(self, file: Path, encoding: str) -> Iterator[tuple[int, str]]:
        """The lines of ``file`` with their numbers from 1, their line breaks kept; gzip by its name.

        Raises:
            ValueError: no such file, not readable, not gzip, cut off, or not in ``encoding``.
        """
        if not file.is_file():
            raise ValueError(f"there is no file {file}: give the folder of the unpacked download")
        try:
            source = file.open("rb")
        except OSError as error:
            raise ValueError(f"{file} can't be read: {error.strerror}") from None
        number, size = 0, file.stat().st_size
        bar = progress(title=file.name, total=size, unit="B", shown=self._progress)
        with source, bar:
            try:
                for number, line in enumerate(gzip.GzipFile(fileobj=source) if file.suffix == ".gz" else source, 1):
                    if number % _LINES == 0:
                        bar.update(source.tell() - bar.n)
                    yield number, line.decode(encoding)
            except UnicodeDecodeError as error:
                byte = error.object[error.start : error.start + 1]
                raise damaged(file, number, f"byte {byte!r} at position {error.start} is not {encoding}") from None
            except EOFError:
                raise damaged(file, number + 1, "the compressed file is cut off here") from None
            except (gzip.BadGzipFile, zlib.error) as error:
                raise damaged(file, number + 1, f"no valid gzip from here on ({error})") from None
            bar.update(source.tell() - bar.n)

    def check_count(self, file: Path, what: str, found: int, published: int | None) -> None:
        """Compare the rows of a raw file with the published number; None where none is known.

        Raises:
            ValueError: they differ and ``any_size`` was not given, or there is no row at all.
        """
        if found == 0:
            raise ValueError(f"{file} holds no {what}: download it again")
        if published is not None and found != published and not self._any_size:
            raise ValueError(
                f"{file} holds {found:,} {what}, the published number is {published:,}: it is cut off or not the "
                "official file, download it again; for a subset of your own give --any_size"
            )

    def table(self, suffix: str, columns: str) -> Table:
        """A new atomic file under a temporary name, of ``name:type`` columns with spaces between them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tables[suffix] = Table(self._folder / f".{self._name}.{suffix}.partial", columns)
        return self._tables[suffix]

    def note(self, what: str) -> None:
        """Count one change or omission, for the messages."""
        self._notes[what] += 1

    def number(self, text: str, low: float, high: float, what: str) -> str:
        """``text`` as it stands if it is a number from ``low`` to ``high``; else missing, and noted unless empty."""
        text = text.strip()
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) and low <= float(text) <= high:
            return text
        if text:
            self.note(f"{what} made missing: not a number from {low:g} to {high:g}")
        return ""

    def messages(self) -> list[str]:
        """What was written, and each kind of change with its count."""
        written = [f"Written: {self._final(s)}, {table.rows:,} rows" for s, table in self._tables.items()]
        return written + [f"{count:,} {what}" for what, count in self._notes.items()]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Put the tables in place when the block ends, and after an error none of them."""
        if not self.raw.is_dir():
            raise ValueError(f"there is no folder {self.raw}: give the folder of the unpacked download")
        try:
            yield
            for table in self._tables.values():
                table.close()
            for suffix, table in self._tables.items():
                os.replace(table.file, self._final(suffix))
            sync_folder(self._folder)
        finally:
            for table in self._tables.values():
                with suppress(OSError):  # a full disk
                    table.close()
                table.file.unlink(missing_ok=True)
            if self._tables and not any(self._folder.iterdir()):
                self._folder.rmdir()

    def _final(self, suffix: str) -> Path:
        return self._folder / f"{self._name}.{suffix}"
