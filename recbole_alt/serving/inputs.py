"""What stands beside a graph: the ids of raw values, and the inputs of each known user and item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence

from recbole_alt.data.template import ITEM, USER
from recbole_alt.model.text_vectors import field_name
from recbole_alt.serving.graph import VECTOR, Input

#: A user's, or an item's, inputs by id: name → [n, ...].
Table = dict[str, np.ndarray]


def ids_of(dataset: Any, name: str) -> dict[str, int]:
    """Raw value → id, without the padding id 0, which also stands for an unknown value."""
    return {str(token): number for number, token in enumerate(dataset.field2id_token[name]) if number}


def describe(dataset: Any, inputs: Sequence[Input], as_zeros: Sequence[str]) -> dict[str, Any]:
    """What a program needs that serves the graph.

    Returns:
        ``inputs``: name → ``kind``, ``of`` (user, item or another segment), of ids how an ``unknown`` one scores, and
        of a sequence how many members the run's ``longest`` has, to which others are cut;
        ``tables``: ``user`` and ``item`` → the name of the id; ``ids``: field → raw value → id; ``texts``: of each
        segment its prefix and clauses.
    """
    described: dict[str, dict[str, Any]] = {}
    for one in inputs:
        described[one.name] = {"kind": one.kind, "of": owner_of(dataset, one)}
        if "token" in one.kind:
            unknown = "left out" if one.kind == "token_seq" else "zeros" if one.name in as_zeros else "as missing"
            described[one.name]["unknown"] = unknown
        if one.kind.endswith("seq"):
            described[one.name]["longest"] = int(dataset.field2seqlen[one.name])
    tables = {side: field for side, field in ((USER, dataset.uid_field), (ITEM, dataset.iid_field)) if field}
    fields = dict.fromkeys([*tables.values(), *(one.name for one in inputs if "token" in one.kind)])
    return {
        "inputs": described,
        "tables": tables,
        "ids": {name: ids_of(dataset, name) for name in fields},
        "texts": [asdict(segment) for segment in dataset.template.segments],
    }


def owner_of(dataset: Any, one: Input) -> str:
    """``user``, ``item``, or another segment's name: whose an input is."""
    sides = {dataset.uid_field: USER, dataset.iid_field: ITEM} | {field_name(side): side for side in (USER, ITEM)}
    if one.name.startswith(VECTOR):
        return one.name.removeprefix(VECTOR)
    return sides.get(one.name) or dataset.column_of(one.name)[0]


def table_of(dataset: Any, side: str, inputs: Sequence[Input], pooled: Mapping[str, np.ndarray]) -> Table:
    """The inputs of every ``user``, or ``item``, that the run knows, by id; those of id 0 are missing.

    Args:
        pooled: input → the pooled states of the texts by id.
    """
    field = dataset.uid_field if side == USER else dataset.iid_field
    size, feat = len(dataset.field2id_token[field]), getattr(dataset, f"{side}_feat")
    wanted = [one for one in inputs if owner_of(dataset, one) == side and one.name != field]
    raw = None
    if any("float" in one.kind for one in wanted):
        frame = dataset.raw(side).dropna(subset=[field]).drop_duplicates(field).set_index(field)
        raw = frame.reindex([None, *dataset.field2id_token[field][1:]])
    table = {field: np.arange(size)} if any(one.name == field for one in inputs) else {}
    for one in wanted:
        if one.name in pooled:
            table[one.name] = pooled[one.name]
        elif one.kind == "vector":
            table[one.name] = (feat[one.name][..., 0] / one.size).numpy()
        elif "token" in one.kind:
            table[one.name] = feat[one.name].numpy()
        else:
            assert raw is not None
            table[one.name] = numbers_of(raw[one.name], one.kind, feat[one.name].shape[1])
    return table


def numbers_of(column: pd.Series, kind: str, longest: int) -> np.ndarray:
    """Numbers [n], or sequences [n, L] with NaN behind the last member."""
    if kind == "float":
        return column.to_numpy(dtype=np.float64)
    made = np.full((len(column), longest), np.nan)
    for row, members in enumerate(column):
        if isinstance(members, np.ndarray):
            made[row, : len(members)] = members[:longest]
    return made


def raw_inputs(about: Mapping[str, Any], tables: Mapping[str, Table], frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The inputs of raw rows, from what stands beside the graph only: what a program that serves it does.

    Args:
        about: what :func:`describe` returns.
        frame: raw columns, as :func:`~recbole_alt.prediction.tables.read_columns` reads them.
    """
    given: dict[str, np.ndarray] = {}
    for side, field in about["tables"].items():
        rows = np.array([about["ids"][field].get(value, 0) for value in frame[field]])
        given |= {name: column[rows] for name, column in tables[side].items()}
    for name, one in about["inputs"].items():
        if name in given or name not in frame:
            continue
        if one["kind"] == "token":
            given[name] = np.array([about["ids"][name].get(value, 0) for value in frame[name]])
        elif one["kind"] == "token_seq":
            ids = about["ids"][name]
            known = ([ids[value] for value in row if value in ids][: one["longest"]] for row in frame[name])
            found = [torch.tensor(row, dtype=torch.long) for row in known]
            given[name] = pad_sequence(found, batch_first=True).numpy()
        else:
            given[name] = numbers_of(frame[name], one["kind"], one.get("longest", 0))
    return given
