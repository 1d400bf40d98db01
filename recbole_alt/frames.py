"""Data in pandas frames: written once as atomic files, with the keys that say what their columns are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_alt.data.cells import as_seconds, cells_of, is_list, members, quantity, token
from recbole_alt.files import replacing

_TYPES = ("token", "float", "token_seq", "float_seq")
_SEPARATORS = (" ", "|", ";", ",")  # of the members of a sequence: the first that is in none of them
_BREAKS = ("\t", "\n", "\r")
_FRACTIONS = ("floating", "decimal", "mixed-integer-float")  # as pandas calls what a column holds
_TIMES = ("datetime", "datetime64", "date")


@dataclass(frozen=True)
class FrameDataset:
    """A dataset made of frames, which stands where the name of a dataset may.

    Attributes:
        name: of the dataset, and of its folder.
        keys: of the configuration: where the files are, which columns are loaded, and what they are.
        files: the atomic files.
    """

    name: str
    keys: dict[str, Any]
    files: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        return self.name


def from_frames(
    inter: pd.DataFrame,
    users: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    *,
    user: str = "user_id",
    item: str = "item_id",
    label: str = "label",
    time: str = "timestamp",
    texts: Collection[str] = (),
    types: Mapping[str, str] | None = None,
    template: Mapping[str, Any] | None = None,
    name: str | None = None,
    folder: str | Path = "dataset",
    **keys: Any,
) -> FrameDataset:
    """Make a dataset of frames, for :func:`~recbole_alt.run_recbole_alt` and the like.

    Texts, categories and ids become ``token``, numbers with decimals and points of time ``float`` (seconds since 1970),
    and lists ``token_seq`` or ``float_seq``. Whole numbers may be categories or quantities, so ``types`` must say
    which, but for ids, the label and the time. Quantities are ``numerical_features`` of the CTR model, normalised.

    Args:
        inter: a row for each interaction, with columns ``user``, ``item`` and ``label`` (0 or 1; or, with the key
            ``threshold``, what labels are made from).
        users: a row for each user, with its id.
        items: a row for each item, with its id.
        user: name of the column with the user's id.
        item: name of the column with the item's id.
        label: name of the column with the label.
        time: name of the column with the point of time, which may be missing, unless ``eval_args`` splits by time.
        texts: columns that only the language model reads, such as titles and descriptions.
        types: column → ``token``, ``float``, ``token_seq`` or ``float_seq``, where it is not what is said above.
        template: the key ``template``, with the wording of the prompts.
        name: of the dataset; by default made from the content, so that equal frames are the same dataset.
        folder: where the folder of the dataset is made.
        **keys: further keys of the configuration, such as ``eval_args`` or ``threshold``.

    Raises:
        ValueError: a column is missing, is there twice, or has a type or a value that can't be written; the frame, the
            column, the row and the value are named.

    Example:
        >>> data = from_frames(clicks, users, items, texts=["title"], types={"age": "float"})
        >>> run_recbole_alt("ALT_DCN", data)
    """
    frames = {"inter": inter, "user": users, "item": items}
    given = {suffix: _Frame(suffix, frame, types or {}) for suffix, frame in frames.items() if frame is not None}
    evaluation = keys.get("eval_args")
    by_time = isinstance(evaluation, Mapping) and evaluation.get("order") == "TO"
    for suffix, columns in {"inter": ("user", "item", "time"), "user": ("user",), "item": ("item",)}.items():
        for argument in columns if suffix in given else ():
            if argument != "time" or by_time:
                given[suffix].require({"user": user, "item": item, "time": time}[argument], argument)
    quantities = set(keys.get("threshold") or {}) | {label, time}
    of_all = [column for frame in given.values() for column in frame.names]
    for what, named in (("texts", texts), ("types", types or {})):
        for column in named:
            if column not in of_all:
                raise ValueError(f"{what}: no frame has a column {column!r}; there are {', '.join(of_all)}")
    separator = next((s for s in _SEPARATORS if not any(frame.holds(s) for frame in given.values())), None)
    if separator is None:
        raise ValueError(f"sequences: every one of {_SEPARATORS} is in some member: replace one in all of them")
    for frame in given.values():
        frame.write(separator, ids={user, item}, quantities=quantities, texts=set(texts))
    name = name or f"frames-{hashlib.sha256(b''.join(f.content for f in given.values())).hexdigest()[:12]}"
    files = [frame.save(Path(folder) / name / f"{name}.{suffix}") for suffix, frame in given.items()]
    of_no_feature = {*texts, *quantities}
    kinds = {column: kind for frame in given.values() for column, kind in frame.kinds.items()}
    floats = [column for column, kind in kinds.items() if kind.startswith("float") and column not in of_no_feature]
    made: dict[str, Any] = {
        "data_path": str(folder),
        "USER_ID_FIELD": user,
        "ITEM_ID_FIELD": item,
        "LABEL_FIELD": label,
        "TIME_FIELD": time,
        "seq_separator": separator,
        "load_col": {suffix: [c for c in frame.names if c not in texts] for suffix, frame in given.items()},
        "prompt_only": {s: own for s, f in given.items() if (own := [c for c in f.names if c in texts])} or None,
        "numerical_features": floats,
        "normalize_field": floats or None,
    }
    made |= {"template": dict(template)} if template is not None else {}
    return FrameDataset(name, made | keys, files)


class _Frame:
    """A frame on its way to an atomic file; its rows are counted from 0 in errors."""

    def __init__(self, suffix: str, frame: pd.DataFrame, types: Mapping[str, str]):
        self.where = {"inter": "inter", "user": "users", "item": "items"}[suffix]
        self._frame, self._types, self.names = frame, types, [str(column) for column in frame]
        self.kinds: dict[str, str] = {}
        self.content = b""
        for name in self.names:
            if self.names.count(name) > 1:
                raise ValueError(f"{self.where}: two columns are called {name!r}: rename one, or take it out")
            if ":" in name or any(character in name for character in _BREAKS) or not name:
                raise ValueError(f"{self.where}: a column can't be called {name!r}: leave out colons and line breaks")
            if (given := types.get(name)) not in (None, *_TYPES):
                raise ValueError(f"types: {name} must be one of {', '.join(_TYPES)}, not {given!r}")
        self._columns = dict(zip(self.names, (frame.iloc[:, n] for n in range(len(self.names))), strict=True))

    def require(self, column: str, argument: str) -> None:
        """Refuse a frame without this column, which ``argument`` names."""
        if column not in self.names:
            there = ", ".join(self.names)
            raise ValueError(f"{self.where}: there is no column {column!r}; there are {there}: give {argument}=...")

    def holds(self, character: str) -> bool:
        """True if some member of a sequence has this character."""
        sequences = (column for column in self._columns.values() if _is_sequence(column))
        lists = (cell for column in sequences for cell in column if is_list(cell))
        return any(character in str(member) for cell in lists for member in members(cell))

    def write(self, separator: str, ids: set[str], quantities: set[str], texts: set[str]) -> None:
        """Make the content of the atomic file.

        Args:
            separator: of the members of a sequence.
            ids: columns that are ``token``, whatever they hold.
            quantities: columns that are ``float``.
            texts: columns whose whole numbers are text.
        """
        cells = []
        for name, column in self._columns.items():
            kind = "token" if name in ids else self._types.get(name) or self._kind(name, column, quantities, texts)
            self.kinds[name] = kind
            cells.append(self._texts(name, column, kind, separator))
        header = "\t".join(f"{name}:{kind}" for name, kind in self.kinds.items())
        rows = map("\t".join, zip(*cells, strict=True))
        self.content = "".join(f"{line}\n" for line in (header, *rows)).encode()

    def save(self, file: Path) -> Path:
        """Write the file; one with the same content stays as it is, and another is refused."""
        if not file.is_file():
            with replacing(file) as stream:
                stream.write(self.content)
        elif file.read_bytes() != self.content:
            raise ValueError(f"name: {str(file)!r} holds other data: give another name, or none")
        return file

    def _kind(self, name: str, column: pd.Series, quantities: set[str], texts: set[str]) -> str:
        if _is_sequence(column):
            values = [member for cell in column if is_list(cell) for member in members(cell)]
            return "float_seq" if values and all(map(_is_number, values)) else "token_seq"
        holds = pd.api.types.infer_dtype(column, skipna=True)
        if name in quantities or holds in _FRACTIONS or (holds in _TIMES and name not in texts):
            return "float"
        if holds.startswith("integer") and name not in texts:
            raise ValueError(
                f"{self.where}: column {name!r} holds whole numbers, which may be categories or quantities: say "
                f"types={{{name!r}: 'token'}} or 'float'"
            )
        return "token"

    def _texts(self, name: str, column: pd.Series, kind: str, separator: str) -> list[str]:
        """The cells of a column as they stand in the file, empty where missing."""
        write: Callable[[Any], str] = _number if kind.startswith("float") else lambda cell: token(cell) or ""
        made = write if not kind.endswith("_seq") else lambda cell: separator.join(map(write, members(cell)))
        texts = []
        for row, cell in enumerate(cells_of(as_seconds(column) if kind == "float" else column)):
            try:
                text = made(cell)
                text.encode()
            except (TypeError, ValueError) as error:
                why = f"holds {text!r}, which UTF-8 can't write" if isinstance(error, UnicodeError) else error
                raise ValueError(f"{self.where}, row {row:,}, column {name!r} {why}") from None
            if any(character in text for character in _BREAKS):
                raise ValueError(
                    f"{self.where}, row {row:,}, column {name!r}: {text!r} has a tab or a line break: replace it, as "
                    f"by frame[{name!r}].str.split().str.join(' ')"
                )
            texts.append(text)
        return texts


def _is_sequence(column: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(column) and any(map(is_list, column))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _number(cell: Any) -> str:
    """A finite number with all its digits; empty where it is missing."""
    value = quantity(cell)
    if value is None:
        raise ValueError(f"holds no finite number: {cell!r}")
    return "" if value != value else str(int(value)) if value.is_integer() else repr(value)
