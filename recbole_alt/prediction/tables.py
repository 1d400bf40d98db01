"""Columns of a file or a frame, read as the columns of a run's atomic files are."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from recbole_alt.data.atomic import KINDS, AtomicFile
from recbole_alt.data.cells import as_seconds, cells_of, is_list, members, quantity, token
from recbole_alt.data.columns import listed
from recbole_alt.data.numbers import fit
from recbole_alt.data.parquet import require_parquet
from recbole_alt.kinds import did_you_mean

#: What is read: a file, or a frame in memory.
Source: TypeAlias = str | os.PathLike[str] | pd.DataFrame

#: The kind of a column that is only read as text, whatever its type is.
TEXT = "text"

_ATOMIC = (".inter", ".user", ".item")


@dataclass(frozen=True)
class Form:
    """How a run writes its atomic files: the separators of cells and of the members of a sequence, and the encoding."""

    separator: str
    encoding: str | None
    seq_separator: str

    @classmethod
    def of(cls, config: Any) -> Form:
        """The form that a configuration says."""
        return cls(config["field_separator"], config["encoding"], config["seq_separator"])


def read_columns(source: Source, what: str, kinds: Mapping[str, str], form: Form) -> pd.DataFrame:
    """Read the columns in ``kinds``.

    Args:
        source: a frame, or a file that ends in ``.inter``, ``.user`` or ``.item`` (atomic, with types in its first
            line), ``.csv`` (with commas and a first line of names) or ``.parquet``. Members of a sequence are a list,
            or a text with ``seq_separator`` between them.
        what: says in errors what a frame is of.
        kinds: name → ``token``, ``float``, ``token_seq`` or ``float_seq``, as the run has it, or :data:`TEXT`.

    Returns:
        [rows, columns] with texts, float64, and an array for each sequence; what is missing is NaN, a missing sequence
        an array of length 0.

    Raises:
        ValueError: no such file, a column that is missing or of another type, or a cell without the number that it
            must hold; names the file, the row and the column.
    """
    opened = _open(source, what, form)
    if isinstance(opened, AtomicFile):
        return _read_atomic(opened, kinds)
    where = f"the frame of {what}" if isinstance(source, pd.DataFrame) else str(Path(source))
    return _parsed(opened, where, kinds, form)


def column_names(source: Source, what: str, form: Form) -> list[str]:
    """The names of all columns of what :func:`read_columns` reads; the same errors."""
    opened = _open(source, what, form)
    return list(opened.header()) if isinstance(opened, AtomicFile) else [str(name) for name in opened]


def place_of(source: Source, what: str, form: Form) -> Callable[[int], str]:
    """From the position of a row in what :func:`read_columns` returns to its file and line, for errors."""
    if isinstance(source, pd.DataFrame):
        return lambda row: f"the frame of {what}, row {row + 1}"
    opened = _open(source, what, form) if Path(source).suffix in _ATOMIC else None
    if isinstance(opened, AtomicFile):
        return lambda row: f"{opened}, line {opened.lines[row]}"
    return lambda row: f"{Path(source)}, row {row + 1}"


def _open(source: Source, what: str, form: Form) -> AtomicFile | pd.DataFrame:
    """An atomic file, or a frame of cells of any type."""
    if isinstance(source, pd.DataFrame):
        return source
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{what}: {str(path)!r} does not exist" + (": it is a folder" if path.is_dir() else ""))
    if path.suffix in _ATOMIC:
        return AtomicFile(str(path), form.separator, form.encoding, form.seq_separator)
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        known = ", ".join([*_ATOMIC, *readers])
        raise ValueError(f"{what}: the name of {str(path)!r} must end in one of {known}")
    return readers[path.suffix](path)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            names = next((cells for cells in lines if cells), [])
            rows = []
            for cells in filter(None, lines):  # without empty lines
                if len(cells) != len(names):
                    raise ValueError(
                        f"{path}, line {lines.line_num}: the first line names {len(names)} columns, and here are "
                        f"{len(cells)} cells: give each row one cell per column, and quote those with commas"
                    )
                rows.append(cells)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} can't be read as UTF-8 text with commas ({_line(error)})") from None
    if not names:
        raise ValueError(f"{str(path)!r} is empty: its first line must name the columns")
    return pd.DataFrame(rows, columns=names, dtype=object)


def _read_parquet(path: Path) -> pd.DataFrame:
    require_parquet()
    import pyarrow as pa
    from pyarrow import parquet

    exact = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.bool_(): pd.BooleanDtype()}  # beside nulls
    try:
        table = parquet.ParquetFile(path).read()
        frame = table.to_pandas(ignore_metadata=True, types_mapper=exact.get)
    except Exception as error:  # of pyarrow, of almost any type
        raise ValueError(f"{str(path)!r} can't be read as Parquet ({_line(error)})") from None
    parts = [name.partition(":") for name in table.column_names]
    return frame.set_axis([name if kind in KINDS else name + colon + kind for name, colon, kind in parts], axis=1)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _require(names: Mapping[str, str], has: list[str], where: str) -> None:
    for name in names:
        if name not in has:
            hint = did_you_mean(name, has, ": add it")
            raise ValueError(f"{where} has no column {name!r}, which the run reads; it has {listed(has)}{hint}")


def _read_atomic(file: AtomicFile, kinds: Mapping[str, str]) -> pd.DataFrame:
    header = file.header()
    _require(kinds, list(header), str(file))
    for name, kind in kinds.items():
        if kind not in (TEXT, header[name]):
            raise ValueError(
                f"{file}, line 1: column {name!r} is of type {header[name]}, and {kind} in the run: write {name}:{kind}"
            )
    if (fault := file.fault()) is not None and not file.trails():
        raise ValueError(f"{fault}: give each row one cell per column")
    texts = [name for name, kind in kinds.items() if kind == TEXT]
    frame = file.read([name for name in kinds if name not in texts], texts)
    file.release()
    return frame


# -- cells -------------------------------------------------------------------------------------------------


def _parsed(frame: pd.DataFrame, where: str, kinds: Mapping[str, str], form: Form) -> pd.DataFrame:
    """The columns in ``kinds`` of a frame whose cells may be of any type."""
    frame = frame.set_axis([str(name) for name in frame], axis=1)
    _require(kinds, list(frame), where)
    read: dict[str, Any] = {}
    for name, kind in kinds.items():
        column = frame[name]
        if isinstance(column, pd.DataFrame):
            raise ValueError(f"{where} has two columns that are called {name!r}: rename one, or take it out")
        read[name] = _column(column, kind, where, form.seq_separator)
    return pd.DataFrame(read)


def _column(column: pd.Series, kind: str, where: str, separator: str) -> Any:
    """The cells [n] of a column as texts, as numbers, or as arrays of these."""
    if kind == "token" and pd.api.types.is_integer_dtype(column) and not column.hasnans:
        return column.astype(str).to_numpy(dtype=object)
    column = as_seconds(column) if kind == "float" else column
    if kind == "float" and pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if fit(values):
            return values

    read: dict[str, Callable[[Any], Any]] = {
        TEXT: lambda cell: (separator.join(_texts(cell)) if is_list(cell) else token(cell)) or np.nan,
        "token": lambda cell: token(cell) or np.nan,
        "float": _finite,
        "token_seq": lambda cell: np.array(_texts(cell, separator), dtype=object),
        "float_seq": lambda cell: _numbers(members(cell, separator)),
    }
    made = []
    for row, cell in enumerate(cells_of(column)):
        try:
            made.append(read[kind](cell))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}, row {row + 1}: column {column.name!r} {error}") from None
    return made if kind.endswith("_seq") else np.array(made, dtype=np.float64 if kind == "float" else object)


def _texts(cell: Any, separator: str | None = None) -> list[str]:
    return [text for member in members(cell, separator) if (text := token(member)) is not None]


def _numbers(cells: Iterable[Any]) -> np.ndarray:
    """The numbers of a sequence without its empty members."""
    values = np.array([_finite(cell) for cell in cells], dtype=np.float64)
    return values[~np.isnan(values)]


def _finite(cell: Any) -> float:
    value = quantity(cell)
    if value is None:
        said = f"holds no finite number: {str(cell)[:60]!r}"
        raise ValueError(f"{said}; write numbers such as 1234.5, or leave the cell empty")
    return value
