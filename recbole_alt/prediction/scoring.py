"""Scores of any rows by a finished run: ``recbole-alt predict RUN rows.csv --out=scores.parquet``."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_alt import checkpoints
from recbole_alt.data.template import ITEM, USER
from recbole_alt.finished import finetuned_file
from recbole_alt.loading import Data, load_data_of
from recbole_alt.model.backbones import select_rows
from recbole_alt.model.unseen import RowsOfNoValue, zero_unknown
from recbole_alt.prediction.refusals import refuse_no_source
from recbole_alt.prediction.rows import NewRows
from recbole_alt.prediction.tables import Source
from recbole_alt.progress import progress
from recbole_alt.quick_start import load_model

_ROWS_AT_ONCE = 100_000  # whose features are made at once


@dataclass
class Prediction:
    """What :func:`predict` found.

    Attributes:
        file: the checkpoint that scored.
        frame: the ids of the rows as they were given, and their ``score``, a click probability of 32 bits.
        new_values: field → how many ``values`` of it are new to the run, and in how many ``rows``; those without any
            are left out.
        described: ``user`` and ``item`` → how many new ones were described.
        without_id: name of an id → in how many rows it is empty; those without any are left out.
    """

    file: str
    frame: pd.DataFrame
    new_values: dict[str, dict[str, int]] = field(default_factory=dict)
    described: dict[str, int] = field(default_factory=dict)
    without_id: dict[str, int] = field(default_factory=dict)

    @property
    def scores(self) -> np.ndarray:
        """The scores, [N], 32 bits."""
        return self.frame["score"].to_numpy()

    def summary(self) -> str:
        """What was scored, and what was new to the run, a line each."""
        lines = [f"{len(self.frame):,} rows scored by {self.file}"]
        for name, count in self.new_values.items():
            lines.append(f"{name}: {count['rows']:,} rows with values that are new to the run ({count['values']:,})")
        lines += [f"{name}: {count:,} rows without an id" for name, count in self.without_id.items()]
        lines += [f"new {side}s that are described: {count:,}" for side, count in self.described.items()]
        return "\n".join(lines)


def predict(
    run: str | os.PathLike[str],
    rows: Source,
    *,
    mode: str | None = None,
    users: Source | None = None,
    items: Source | None = None,
    data: Data | None = None,
    show_progress: bool = True,
) -> Prediction:
    """Score rows, whether or not a run has seen their users, items and other values.

    Values that are new to the run, and ids that are empty, are scored as its ``unseen_values`` says: with an embedding
    of zeros, or (``hidden`` and ``initial``) as a missing value. In a sequence they are left out. With ``zero``, a
    missing value has an embedding of zeros, too, in fields without gaps in the run's data, from which nothing was
    learned of it.

    Args:
        run: folder of a run, or one of its checkpoints.
        rows: a frame, or a file that ends in ``.inter``, ``.csv`` or ``.parquet``: the ids, and the columns of the
            interactions that the model reads. Other columns are passed over.
        mode: ``plain``, ``ctr``, ``lm`` or ``joint``; by default the one that is best on validation.
        users: describes new ones, as the run's ``.user`` file did; a frame or a file.
        items: the same for items.
        data: what :func:`~recbole_alt.loading.load_data` made for the run, so as not to read it again.

    Raises:
        ValueError: no finished run, its data are other ones now, there is no row, a file lacks a column or a number, or
            an argument is neither a file nor a frame.
    """
    described = {name: source for name, source in (("users", users), ("items", items)) if source is not None}
    refuse_no_source(rows=rows, **described)
    file = finetuned_file(run, mode)
    state = checkpoints.load(file)
    parts = [loader._dataset for loader in load_data_of(state, file, data)[1:] if loader is not None]
    model = load_model(state, parts[0], file).eval()
    as_zeros = state["config"]["unseen_values"] == "zero" and model.backbone is not None
    zeroed = zero_unknown(model.backbone, parts) if as_zeros else {}
    new = NewRows(model, parts[0], rows, {USER: users, ITEM: items})
    scores, counts = _score(model, new, zeroed, state["config"]["eval_batch_size"], show_progress)
    frame = new.frame[[side.field for side in new.sides]].assign(score=scores)
    found = Prediction(
        str(file), frame, counts,
        described={side.side: side.described for side in new.sides if side.is_given},
        without_id={side.field: side.without_id for side in new.sides if side.without_id},
    )  # fmt: skip
    getLogger().info(found.summary())
    return found


@torch.no_grad()
def _score(
    model: Any, new: NewRows, zeroed: Mapping[str, RowsOfNoValue], size: int, show_progress: bool
) -> tuple[np.ndarray, dict[str, dict[str, int]]]:
    """Scores [N], and the new values of each field as :class:`Prediction` counts them.

    Batches are those of the run's own evaluation; rows in which the same fields of ``zeroed`` have new values make
    batches of their own, for which the rows of embedding tables there are zeros.
    """
    scores = np.empty(len(new), dtype=np.float32)
    rows: Counter[str] = Counter()
    values: defaultdict[str, set[str]] = defaultdict(set)
    at_once = max(1, _ROWS_AT_ONCE // size) * size
    with progress(title="Score rows", total=len(new), shown=show_progress, unit=" rows") as bar:
        for start in range(0, len(new), at_once):
            batch, found = new.part(start, min(start + at_once, len(new)))
            model.keep_texts(batch)
            for name, is_new in found.unknown.items():
                rows[name] += int(is_new.sum())
                values[name] |= found.new_values[name]
            new_ones = {name: found.unknown[name] for name in zeroed if name in found.unknown}
            for names, part in _alike(new_ones, len(batch)):
                with _as_zeros([table_row for name in names for table_row in zeroed[name]]):
                    for begin in range(0, len(part), size):
                        some = part[begin : begin + size]
                        score = model.predict(select_rows(batch, torch.from_numpy(some)).to(model.device))
                        scores[start + some] = score.reshape(-1).float().cpu().numpy()
                        bar.update(len(some))
    return scores, {name: {"rows": n, "values": len(values[name])} for name, n in rows.items() if n}


def _alike(unknown: Mapping[str, np.ndarray], size: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """The rows, of ``size``, in which the same fields are unknown: the fields, and the positions of the rows."""
    if not any(of.any() for of in unknown.values()):
        yield [], np.arange(size)
        return
    patterns, which = np.unique(np.stack(list(unknown.values()), 1), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        names = [name for name, is_unknown in zip(unknown, pattern, strict=True) if is_unknown]
        yield names, np.flatnonzero(which.reshape(-1) == number)


@contextmanager
def _as_zeros(rows: RowsOfNoValue) -> Iterator[None]:
    """For the while, these rows of embedding tables are zeros."""
    kept = [table.weight[row].clone() for table, row in rows]
    for table, row in rows:
        table.weight[row] = 0
    try:
        yield
    finally:
        for (table, row), weight in zip(rows, kept, strict=True):
            table.weight[row] = weight
