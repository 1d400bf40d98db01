"""A service over the folder that ``recbole-alt export RUN --mode=ctr --onnx=served`` wrote.

``pip install fastapi uvicorn numpy onnxruntime``, and no PyTorch and no RecBole:
``SERVED=served uvicorn serve:app --app-dir=examples``, then
``curl localhost:8000/score --json '{"user_id": ["196", "196"], "item_id": ["242", "99999"]}'``.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException

Rows = dict[str, list[Any]]  #: Column → its raw values, as many as there are rows.


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
        """Click probabilities, and column → how many values are new to the model; ValueError if a column is missing."""
        given: dict[str, np.ndarray] = {}
        new: dict[str, int] = {}
        size = max(map(len, rows.values()), default=0)
        for name in self.columns:
            if not size or len(rows.get(name, ())) != size:
                raise ValueError(f"every column of {self.columns} needs a value for each row, and {name!r} has not")
            values = self._input(name, rows[name])
            if name in self.ids:
                new[name] = int((values == 0).sum())
            given |= {name: values} if name in self.inputs else {}
            for column, table in self.known.get(name, {}).items():
                given[column] = table[values]
        return self.session.run(None, given)[0].tolist(), {name: count for name, count in new.items() if count}

    def _input(self, name: str, values: list[Any]) -> np.ndarray:
        kind, ids = self.inputs.get(name, {}).get("kind", "token"), self.ids.get(name)
        if kind in ("token", "float"):
            return np.array([ids.get(str(v), 0) for v in values] if ids else values, dtype=None if ids else float)
        empty = 0 if ids else np.nan  # behind the last member of a sequence
        made = [[ids.get(str(m), 0) for m in v] if ids else v for v in values]
        return np.array([[*row, *[empty] * (max(1, *map(len, made)) - len(row))] for row in made])


served, app = Served(Path(os.environ.get("SERVED", "served"))), FastAPI(title="Click probabilities")


@app.post("/score")
def score(rows: Rows) -> dict[str, Any]:
    """Click probabilities of rows, and how many values of each column are new to the model."""
    try:
        probability, new = served.score(rows)
    except (ValueError, TypeError, AttributeError) as error:
        raise HTTPException(422, str(error)) from None
    return {"probability": probability, "new": new}
