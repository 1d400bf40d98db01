"""New users or items as a file or a frame describes them, checked, and in the cells of an atomic file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from recbole_alt.data.columns import listed
from recbole_alt.data.template import USER
from recbole_alt.prediction.features import known_ids
from recbole_alt.prediction.refusals import refuse, refuse_empty, refuse_repeated
from recbole_alt.prediction.tables import TEXT, Form, Source, column_names, place_of, read_columns
from recbole_alt.prediction.texts import nameless

_BREAKS = "\n\r\0"  # characters that end a row of an atomic file, or hide its end


@dataclass
class NewEntities:
    """The n users, or items, that are added to a run.

    Attributes:
        side: ``user`` or ``item``.
        id_field: the name of the id.
        cells: column of the atomic file → the text of each cell, [n]; empty where nothing is said.
        new_values: token field → how many of its values are new to the run.
        left_out: what is not taken over as it was given, in words → how often.
        passed_over: the columns that the run does not read.
    """

    side: str
    id_field: str
    cells: dict[str, list[str]]
    new_values: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    passed_over: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.cells[self.id_field])


def read_entities(dataset: Any, side: str, source: Source) -> NewEntities:
    """Read the new users or items in ``source``, with the columns that the run reads of them.

    Members of a sequence that are new to the run are left out, and sequences are cut to the run's longest one.

    Args:
        dataset: of the run.
        side: ``user`` or ``item``.
        source: a frame, or a file that ends in ``.user``, ``.item``, ``.csv`` or ``.parquet``.

    Raises:
        ValueError: a column is missing, an id is missing, given twice or known, a value has no name in the template, a
            text can't be in an atomic file, a number would change those of the run, or an entity has no text: one line
            with the file, the row, the column and the value.
    """
    reader = _Reader(dataset, side, source)
    reader.check_ids()
    reader.check_texts()
    made = NewEntities(side, reader.field, {}, passed_over=reader.passed_over)
    for name, kind in reader.kinds.items():
        made.cells[name] = reader.cells(name, kind, made)
    return made


class _Reader:
    def __init__(self, dataset: Any, side: str, source: Source):
        self.dataset, self.side = dataset, side
        self.field = dataset.uid_field if side == USER else dataset.iid_field
        if self.field is None:
            raise ValueError(f"{side}: the run has no {side}s: leave it out")
        if getattr(dataset, f"{side}_feat") is None:
            raise ValueError(f"{side}: the run has read no .{side} file, so nothing tells what its {side}s are like")
        self.said = [name for name in dataset.field_words if name == self.field or self._is_of_side(name)]
        if not self.said:
            raise ValueError(f"{side}: the {side}s of the run have no text, so nothing tells what a new one is like")
        form = Form.of(dataset.config)
        has = column_names(source, f"{side}s", form)
        columns = dict(dataset._columns.loaded[side])
        columns |= dict.fromkeys(dataset._columns.prompt_only.get(side, ()), TEXT)
        optional = [name for name in columns if name not in self.said and name not in _features(dataset, side)]
        self.kinds = {name: kind for name, kind in columns.items() if name not in optional or name in has}
        self.passed_over = [name for name in has if name not in self.kinds]
        self.frame = read_columns(source, f"{side}s", self.kinds, form)
        self.place: Callable[[int], str] = place_of(source, f"{side}s", form)
        refuse_empty(source, f"{side}s", self.frame)
        self.separators = {form.separator, *_BREAKS}, form.seq_separator

    def _is_of_side(self, name: str) -> bool:
        return bool(self.dataset.column_of(name)[0] == self.side)

    def check_ids(self) -> None:
        ids = self.frame[self.field]
        self._refuse(ids.isna(), self.field, "is empty: give each row an id")
        refuse_repeated(self.place, ids)
        known = ids.isin(known_ids(self.dataset, self.field))
        self._refuse(known, self.field, "is an id that the run knows already: leave the row out", ids)

    def check_texts(self) -> None:
        """Every entity has some text, and every value that the template names has a name."""
        silent = pd.Series(True, index=self.frame.index)
        for name in self.said:
            column = self.frame[name]
            silent &= column.map(_is_silent)
            names = self.dataset.template.values.get(name)
            if names is not None and "float" not in self.kinds[name]:
                first = [next(iter(codes), None) for codes in nameless(names, self.kinds[name], column)]
                self._refuse(
                    pd.Series([one is not None for one in first]), name,
                    f"has no name in template.values.{name}: write one of {listed(names)}, or leave the cell empty",
                    pd.Series(first),
                )  # fmt: skip
        self._refuse(silent, self.field, f"has no text: fill {' or '.join(self.said)}", self.frame[self.field])

    def cells(self, name: str, kind: str, made: NewEntities) -> list[str]:
        """The cells of a column, in text."""
        column = self.frame[name]
        if kind == "token_seq":
            column = self._known_members(name, column, made)
        if kind == "token" and name != self.field:
            new = set(column.dropna()) - known_ids(self.dataset, name).keys()
            if new:
                made.new_values[name] = len(new)
        if "float" in kind and name in (self.dataset.config["numerical_features"] or []):
            column = self._numbers(name, kind, column, made)
        if kind.endswith("seq"):
            column = self._cut(name, column, made)
            members = [[_text(one) for one in cell] for cell in column]
            self._refuse_characters(name, members, {*self.separators[0], self.separators[1]})
            return [self.separators[1].join(cell) for cell in members]
        texts = [_text(cell) for cell in column]
        if kind == TEXT:  # whose words are read with single spaces
            texts = [" ".join(text.split()) for text in texts]
        self._refuse_characters(name, [[text] for text in texts], self.separators[0])
        return texts

    def _known_members(self, name: str, column: pd.Series, made: NewEntities) -> pd.Series:
        if name not in self.dataset.field2token_id:
            return column
        known = known_ids(self.dataset, name)
        new = {member for cell in column for member in cell if member not in known}
        if new:
            made.new_values[name] = len(new)
            made.left_out[f"members of {name}, which are new to the run"] = sum(
                member in new for cell in column for member in cell
            )
        return pd.Series([[member for member in cell if member in known] for cell in column], dtype=object)

    def _cut(self, name: str, column: pd.Series, made: NewEntities) -> pd.Series:
        longest = self.dataset.field2seqlen.get(name)
        if longest is None:
            return column
        cut = sum(max(0, len(cell) - longest) for cell in column)
        if cut:
            made.left_out[f"members of {name} behind the first {longest}, which the run's longest one has"] = cut
        return pd.Series([cell[:longest] for cell in column], dtype=object)

    def _numbers(self, name: str, kind: str, column: pd.Series, made: NewEntities) -> pd.Series:
        """Numbers by which no number of the run changes: within its range, and none where its gaps have their mean."""
        raw = self.dataset.raw(self.side).drop_duplicates(self.field).set_index(self.field)[name]
        raw = raw.reindex(self.dataset.field2id_token[self.field][1:])
        given = column.map(len) > 0 if kind.endswith("seq") else column.notna()
        if kind == "float" and raw.isna().any():
            self._refuse(
                given, name, "is a number, and gaps in the run's data have the mean of this column, which would be "
                "another one: leave the column empty", column,
            )  # fmt: skip
        if name not in self.dataset.number_ranges:
            return column
        known = np.unique(np.concatenate(raw.dropna().tolist()) if kind.endswith("seq") else raw.dropna())
        levels = known if name in self.dataset.number_levels else None
        moved = column.map(lambda cell: _within(cell, known, levels))
        changed = [not np.array_equal(one, other, equal_nan=True) for one, other in zip(column, moved, strict=True)]
        if any(changed):
            made.left_out[f"numbers of {name} beyond those of the run, which became the nearest of these"] = sum(
                changed
            )
        return moved

    def _refuse_characters(self, name: str, cells: Sequence[Sequence[str]], forbidden: set[str]) -> None:
        found = [next((text for text in cell if any(one in text for one in forbidden)), None) for cell in cells]
        self._refuse(
            pd.Series([text is not None for text in found]), name,
            "holds a separator or a line break, which an atomic file can't hold: write it without", pd.Series(found),
        )  # fmt: skip

    def _refuse(self, which: pd.Series, name: str, why: str, values: pd.Series | None = None) -> None:
        refuse(self.place, which, name, why, values)


def _features(dataset: Any, side: str) -> list[str]:
    """The columns of a side that the CTR model reads."""
    unused = (dataset.config["unused_col"] or {}).get(side) or ()
    numerical = dataset.config["numerical_features"] or []
    loaded: Mapping[str, str] = dataset._columns.loaded[side]
    return [name for name, kind in loaded.items() if name not in unused and ("token" in kind or name in numerical)]


def _is_silent(cell: Any) -> bool:
    """True of a missing value, of white space, and of a sequence of nothing else."""
    if isinstance(cell, np.ndarray):
        return all(map(_is_silent, cell))
    return bool(cell != cell) or not str(cell).strip()


def _within(cell: Any, known: np.ndarray, levels: np.ndarray | None) -> Any:
    """A number, or an array of numbers, in the range of those that are ``known``, or on one of the ``levels``."""
    values = np.clip(cell, known[0], known[-1])
    if levels is not None:
        values = np.where(np.isnan(values), values, levels[np.searchsorted(levels, values, side="right") - 1])
    return values if isinstance(cell, np.ndarray) else float(values)


def _text(cell: Any) -> str:
    if isinstance(cell, (float, np.floating)):
        return "" if cell != cell else repr(float(cell))
    return str(cell)
