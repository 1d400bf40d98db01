"""A service over the folder that ``recbole-alt export RUN --mode=ctr --onnx=served`` wrote.

``pip install fastapi uvicorn numpy onnxruntime``, and no PyTorch and no RecBole:
``SERVED=served uvicorn serve:app --app-dir=examples``, then
``curl localhost:8000/score --json '{"user_id": ["196", "196"], "item_id": ["242", "99999"]}'``.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException

Rows = dict[str, list[Any]]  #: Column → its raw values, as many as there are rows.

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_LARGEST = float(np.finfo(np.float32).max)  # that the model can hold


def token(value: Any) -> str | None:
    """The text of a raw value as ``recbole-alt predict`` reads it, None where it is missing."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, (list, dict)):
        raise ValueError("is no single value")
    if isinstance(value, float):
        value = None if value != value else int(value) if value.is_integer() else value
    return None if value is None else str(value).lower()


def number(value: Any) -> float:
    """A raw number, NaN where it is missing."""
    text = token(value)
    if text is None:
        return np.nan
    text = {"true": "1", "false": "0"}.get(text.lower(), text)
    if _NUMBER.fullmatch(text) is None or abs(float(text)) > _LARGEST:
        raise ValueError("is no finite number")
    return float(text)


def members(value: Any, read: Callable[[Any], Any]) -> list[Any]:
    """The members of a sequence, without those that are missing."""
    if value is not None and not isinstance(value, list):
        raise ValueError("is no list")
    return [read(member) for member in value or () if token(member) is not None]


def read_each(name: str, values: list[Any], read: Callable[[Any], Any]) -> list[Any]:
    """``read`` of each value; a ValueError names column, row and value."""
    made: list[Any] = []
    for row, value in enumerate(values, 1):
        try:
            made.append(read(value))
        except ValueError as error:
            raise ValueError(f"column {name!r}, row {row}: {value!r:.60} {error}") from None
    return made


class Served:
    """The model in ``folder``, which scores rows on one thread; several workers use several cores."""

    def __init__(self, folder: Path):
        about = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        self.inputs, self.ids = about["inputs"], about["ids"]
        self.known = {field: dict(np.load(folder / f"{side}.npz")) for side, field in about["tables"].items()}
        self.columns = [name for name, of in self.inputs.items() if not any(name in t for t in self.known.values())]
        self.columns = list(dict.fromkeys([*self.known, *self.columns]))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])

    def score(self, rows: Rows) -> tuple[list[float], dict[str, int]]:
        """Click probabilities, and column → how many values are new to the model; ValueError for a bad request."""
        given: dict[str, np.ndarray] = {}
        new: dict[str, int] = {}
        size = max(len(rows.get(name, ())) for name in self.columns)
        for name in self.columns:
            if not size or len(rows.get(name, ())) != size:
                raise ValueError(f"every column of {self.columns} needs a value for each row, and {name!r} has not")
            values, new[name] = self._input(name, rows[name])
            given |= {name: values} if name in self.inputs else {}
            for column, table in self.known.get(name, {}).items():
                given[column] = table[values]
        return self.session.run(None, given)[0].tolist(), {name: count for name, count in new.items() if count}

    def _input(self, name: str, values: list[Any]) -> tuple[np.ndarray, int]:
        """A column as the model reads it, and how many values are new; of users and items, missing ones are, too."""
        ids, read = self.ids.get(name), number if name not in self.ids else token
        if self.inputs.get(name, {}).get("kind", "token") in ("token", "float"):
            made = read_each(name, values, read)
            if ids is None:
                return np.array(made), 0
            new = sum(text not in ids and (text is not None or name in self.known) for text in made)
            return np.array([ids.get(text, 0) for text in made]), new
        made = read_each(name, values, lambda value: members(value, read))
        new = 0 if ids is None else sum(text not in ids for row in made for text in row)
        if ids is not None:
            made = [[ids[text] for text in row if text in ids] for row in made]
        made = [row[: self.inputs[name]["longest"]] for row in made]
        empty, longest = np.nan if ids is None else 0, max(1, *map(len, made))  # behind the last member
        return np.array([[*row, *[empty] * (longest - len(row))] for row in made]), new


served, app = Served(Path(os.environ.get("SERVED", "served"))), FastAPI(title="Click probabilities")


@app.post("/score")
def score(rows: Rows) -> dict[str, Any]:
    """Click probabilities of rows, and how many values of each column are new to the model."""
    try:
        probability, new = served.score(rows)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    return {"probability": probability, "new": new}
