"""``ParquetFile``: exact reading of an atomic file in Parquet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_alt.data.atomic import KINDS, short
from recbole_alt.data.cells import token
from recbole_alt.data.numbers import fit, numbers

_MEND = {
    "token": "texts or whole numbers (a number with a fraction can be written in several ways)",
    "float": "numbers",
}


def require_parquet() -> None:
    """Refuse to read or write Parquet where the package for it is missing."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ValueError("Parquet files need pyarrow: pip install 'recbole_alt[parquet]', or use text files") from None


class ParquetFile:
    """An atomic file in Parquet, read as :class:`~recbole_alt.data.atomic.AtomicFile` reads one with the same values.

    A column is called ``name:type``, or ``name`` if its type is in ``types`` or follows from what it holds: texts are
    ``token``, numbers with a fraction ``float``, lists of these ``token_seq`` and ``float_seq``. A null is a missing
    value, as is an empty text; one in a list is left out. Whole numbers may be tokens. A sequence may be a text, too.

    Args:
        path: the file.
        types: name → type of columns whose names have none.
        seq_separator: between the members of a sequence that is one text.
    """

    def __init__(self, path: str, types: Mapping[str, str] | None = None, seq_separator: str = " "):
        self.path = self.head = path
        self._types, self._seq_separator = types or {}, seq_separator
        self.is_plain = True  # False once a text with NUL was read; see AtomicFile

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """The name of the file without its folder."""
        return Path(self.path).name

    def release(self) -> None:
        """Do nothing: no content is kept."""

    def fault(self) -> None:
        """None, as each row has a cell in each column."""

    def trails(self) -> bool:
        """False, as there are no separators."""
        return False

    def place(self, row: int) -> str:
        """The file and the number, from 1, of a row, which is counted from 0."""
        return f"{self.path}, row {row + 1}"

    # -- columns -----------------------------------------------------------------------------------------

    @cached_property
    def _schema(self) -> Any:
        require_parquet()
        from pyarrow import parquet

        try:
            metadata = parquet.read_metadata(self.path)
            schema = metadata.schema.to_arrow_schema()
        except Exception as error:  # of pyarrow, of almost any type
            raise self._unreadable(error) from None
        if not metadata.num_rows:
            raise ValueError(f"{self.path} has no rows")
        return schema

    @cached_property
    def _columns(self) -> dict[str, tuple[str, str]]:
        """Name → type, and what the file calls the column."""
        columns: dict[str, tuple[str, str]] = {}
        for field in self._schema:
            name, typed, kind = field.name.partition(":")
            kind = kind if typed else self._types.get(name) or _kind_of(field.type) or ""
            if not name or kind not in KINDS:
                raise ValueError(
                    f"{self.path}: the type of column {field.name!r}, which holds {field.type}, is not known: call it "
                    f"name:type with a type of {', '.join(KINDS)}, or give it with field_types: {{{name}: token}}"
                )
            if name in columns:
                raise ValueError(f"{self.path}: two columns are called {name!r}: rename one, or take it out")
            columns[name] = kind, field.name
        return columns

    def header(self) -> dict[str, str]:
        """The columns in their order: name → type.

        Raises:
            ValueError: this is no Parquet file, a type is not known, two columns have one name, or there is no row.
        """
        return {name: kind for name, (kind, _) in self._columns.items()}

    def untyped(self) -> set[str]:
        """The columns whose names say no type."""
        return {name for name, (_, stored) in self._columns.items() if name == stored}

    # -- reading -----------------------------------------------------------------------------------------

    def read(self, names: Collection[str], as_text: Collection[str] = ()) -> pd.DataFrame:
        """Read columns, in the file's order; see :meth:`~recbole_alt.data.atomic.AtomicFile.read`.

        Raises:
            ValueError: a column holds something else than its type says, or a number that is not finite.
        """
        from pyarrow import parquet

        wanted = [name for name in self.header() if name in names or name in as_text]
        stored = [self._columns[name][1] for name in wanted]
        texts = [name for name in stored if _is_text(self._schema.field(name).type)]
        try:
            table = parquet.ParquetFile(self.path, read_dictionary=texts, memory_map=True).read(stored)
        except Exception as error:
            raise self._unreadable(error) from None
        read: Mapping[str, Callable[[str, Any], Any]] = {"token": self._tokens, "float": self._floats}
        frame = {}
        for name, column in zip(wanted, table.columns, strict=True):
            kind = self._columns[name][0]
            if name in as_text:
                frame[name] = self._texts(name, column)
            elif kind.endswith("_seq"):
                members = self._members(name, column, read[kind.removesuffix("_seq")])
                frame[name] = pd.Series(members, dtype=object)
            else:
                frame[name] = read[kind](name, column)
        return pd.DataFrame(frame, copy=False)

    def _tokens(self, name: str, column: Any, row_of: Any = None) -> np.ndarray:
        """The texts [n] of a column, NaN where there is none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        holds = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_integer(holds) or pa.types.is_boolean(holds):
            column, holds = column.cast(holds).cast(pa.string()), pa.string()
        if not _is_text(holds) and not pa.types.is_null(holds):
            raise self._refused(name, column.type, "token")
        chunked = pa.chunked_array(column.chunks if isinstance(column, pa.ChunkedArray) else [column])
        if not len(chunked) or pa.types.is_null(holds):
            return np.full(len(chunked), np.nan, dtype=object)
        chunks = chunked.dictionary_encode().unify_dictionaries().chunks
        texts = chunks[0].dictionary
        self.is_plain &= not pc.any(pc.match_substring(texts, "\0")).as_py()
        distinct = np.array([*(text or np.nan for text in texts.to_pylist()), np.nan], dtype=object)
        tokens, start = np.empty(len(chunked), dtype=object), 0
        for chunk in chunks:
            numbers_of = chunk.indices.fill_null(len(texts)).to_numpy()
            np.take(distinct, numbers_of, out=tokens[start : start + len(chunk)], mode="clip")
            start += len(chunk)
        return tokens

    def _floats(self, name: str, column: Any, row_of: np.ndarray | None = None) -> np.ndarray:
        """The numbers [n] of a column, NaN where there is none; ``row_of`` [n] are the rows, if not one each."""
        import pyarrow as pa

        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_fraction(kind) or pa.types.is_null(kind)):
            raise self._refused(name, kind, "float")
        if pa.types.is_boolean(kind):
            column = column.cast(pa.int8())
        values = np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
        if not fit(values) or int(np.isnan(values).sum()) > column.null_count:
            present = ~np.asarray(column.is_null())
            wrong = [i for i in np.flatnonzero(present) if np.isnan(values[i]) or not fit(values[i : i + 1])]
            row = int(wrong[0] if row_of is None else row_of[wrong[0]])
            count = "" if len(wrong) == 1 else f" (so do {len(wrong)} values)"
            raise ValueError(
                f"{self.place(row)}: column {name!r} holds no finite number that fits into 32 bits: {values[wrong[0]]}"
                f"{count}; write numbers such as 1234.5, or null for a missing one"
            )
        return values

    def _members(self, name: str, column: Any, read: Callable[..., np.ndarray]) -> list[np.ndarray]:
        """The sequences of a column, one array per row, whose members ``read`` reads."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not _is_list(column.type):
            texts = [cell if isinstance(cell, str) else "" for cell in self._tokens(name, column)]
            cells = [[word for word in text.split(self._seq_separator) if word] for text in texts]
            if read == self._tokens:
                return [np.array(words, dtype=object) for words in cells]
            return [self._numbers(name, row, words) for row, words in enumerate(cells)]
        lists = column.cast(pa.list_(column.type.value_type)).combine_chunks()
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
        row_of = np.repeat(np.arange(len(lengths)), lengths)
        values = read(name, pc.list_flatten(lists), row_of)
        present = ~pd.isna(values)
        kept = np.bincount(row_of[present], minlength=len(lengths))
        return np.split(values[present], np.cumsum(kept)[:-1])

    def _numbers(self, name: str, row: int, words: list[str]) -> np.ndarray:
        read = numbers(words)
        if read is None:
            why = f"holds no finite numbers separated by {self._seq_separator!r} (seq_separator)"
            raise ValueError(f"{self.place(row)}: column {name!r} {why}: {short(' '.join(words))}; write a list")
        return read

    def _texts(self, name: str, column: Any) -> np.ndarray:
        """The values [n] of a column as texts for prompts, NaN where there is none."""
        if not _is_list(column.type):
            return self._words(name, column)
        said = [self._seq_separator.join(words) or np.nan for words in self._members(name, column, self._words)]
        return np.array(said, dtype=object)

    def _words(self, name: str, column: Any, row_of: np.ndarray | None = None) -> np.ndarray:
        """As :meth:`_tokens`, but with numbers that have a fraction, as :func:`~recbole_alt.data.cells.token` does."""
        if not _is_fraction(column.type):
            return self._tokens(name, column, row_of)
        self._floats(name, column, row_of)  # which refuses those that are not finite
        cells = column.to_numpy(zero_copy_only=False)
        return np.array([np.nan if (text := token(cell)) is None else text for cell in cells], dtype=object)

    def _refused(self, name: str, holds: Any, kind: str) -> ValueError:
        return ValueError(
            f"{self.path}: column {name!r} is of type {self._columns[name][0]} and holds {holds}: it must hold "
            f"{_MEND[kind]}"
        )

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(f"{self.path} can't be read as Parquet: {' '.join(str(error).split())[:200]}")


def _kind_of(holds: Any) -> str | None:
    """The type of a column of which no type is given; None where it may be one or another."""
    if _is_list(holds):
        kind = _kind_of(holds.value_type)
        return kind and f"{kind}_seq"
    if _is_text(getattr(holds, "value_type", holds)):
        return "token"
    return "float" if _is_fraction(holds) else None


def _is_text(holds: Any) -> bool:
    from pyarrow import types

    return types.is_string(holds) or types.is_large_string(holds)


def _is_fraction(holds: Any) -> bool:
    from pyarrow import types

    return types.is_floating(holds) or types.is_decimal(holds)


def _is_list(holds: Any) -> bool:
    from pyarrow import types

    return types.is_list(holds) or types.is_large_list(holds) or types.is_fixed_size_list(holds)
