"""The example of a service on runs of ``tiny``: the scores of ``predict``, new values counted, bad requests refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_predict import EVERYTHING, rows
from test_serving_page import ONLY_IDS

from recbole_alt import predict, run_recbole_alt
from recbole_alt.serving import to_onnx

pytestmark = pytest.mark.usefixtures("one_thread")
Ask = Callable[[Any], Any]


def service(folder: str, stage: str, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Export the model of a stage, start the service over it; ``ask(columns)`` is the answer."""
    for package in ("onnxscript", "onnxruntime", "fastapi", "httpx"):
        pytest.importorskip(package)
    from fastapi.testclient import TestClient

    to_onnx(Path(folder) / f"{stage}.pth", "served")
    monkeypatch.setenv("SERVED", "served")
    spec = importlib.util.spec_from_file_location("serve", Path(__file__).parents[1] / "examples" / "serve.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    client = TestClient(module.app)
    headers = {"Content-Type": "application/json"}
    return lambda columns: client.post("/score", content=json.dumps(columns), headers=headers)  # with Infinity


def columns_of(frame: Any) -> dict[str, list[Any]]:
    """The columns of a frame as a request has them."""
    return {name: [None if v != v else v for v in frame[name]] for name in frame}


@pytest.mark.parametrize("stage", ["plain", "joint"])
def test_the_scores_of_predict(stage: str, keys: Callable[..., dict[str, Any]], monkeypatch: Any) -> None:
    modes = [] if stage == "plain" else [stage]
    folder = run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=modes, epochs=1, **ONLY_IDS))["folder"]
    ask = service(folder, stage, monkeypatch)
    frame = rows(1)[["user_id", "item_id"]].replace({"item_id": {"i5": "no such item"}})
    answer = ask(columns_of(frame))
    assert answer.status_code == 200, answer.text
    answer = answer.json()
    np.testing.assert_allclose(answer["probability"], predict(folder, frame, mode=stage).scores, rtol=0, atol=1e-5)
    assert answer["new"] == {"item_id": int((frame["item_id"] == "no such item").sum())} and answer["new"]["item_id"]


def test_fields_of_the_interaction(keys: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=[], epochs=1, **EVERYTHING))["folder"]
    ask = service(folder, "plain", monkeypatch)
    frame = rows(1)[["user_id", "item_id", "device", "dwell"]]
    answer = ask(columns_of(frame))
    assert answer.status_code == 200, answer.text
    expected = predict(folder, frame, mode="plain").scores
    np.testing.assert_allclose(answer.json()["probability"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"user_id": ["u1"]}, "'item_id' has not"),
        ({"user_id": ["u1", "u2"], "item_id": ["i1"]}, "'item_id' has not"),
        ({"user_id": [], "item_id": []}, "'user_id' has not"),
        ({}, "'user_id' has not"),
        ({"user_id": "u1", "item_id": "i1"}, "valid list"),
    ],
)
def test_bad_requests(
    columns: dict[str, Any], said: str, keys: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=[], epochs=1, **ONLY_IDS))["folder"]
    answer = service(folder, "plain", monkeypatch)(columns)
    assert answer.status_code == 422 and said in answer.text


def test_a_longer_column_that_is_not_read(keys: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=[], epochs=1, **ONLY_IDS))["folder"]
    answer = service(folder, "plain", monkeypatch)({"user_id": ["u1"], "item_id": ["i1"], "unread": [1, 2, 3]})
    assert answer.status_code == 200 and answer.json()["new"] == {}


# -- every kind of value -----------------------------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "user_id": ["u1", None, 1.0, True],
    "item_id": ["i1", "i2", "i3", "i99"],
    "device": ["phone", None, "tablet", ""],
    "dwell": ["2", None, 3.5, True],
    "tags": [[1.0, 2, 3], None, ["1", "red", None, 2], []],  # of two members at most are read
    "marks": [[2, None, 4, 9], None, ["1", 2.5], []],
}
BAD: list[tuple[str, Any]] = [
    *(("user_id", value) for value in (["u1"], {"id": "u1"})),
    *(("device", value) for value in (["phone"], {})),
    *(("dwell", value) for value in (1e39, float("inf"), "1_0", "nan", "much", 10**400, [2.5])),
    *(("tags", value) for value in ("red blue", 5, [["red"]])),
    *(("marks", value) for value in ("1 2", 2.5, [[2.5], [3]], [1e39], ["1_0"], [float("-inf")], [10**400])),
]


@pytest.fixture
def sequences(keys: Callable[..., dict[str, Any]], data_path: Path, tmp_path: Path) -> str:
    """The folder of a run whose interactions have sequences of their own."""
    file = shutil.copytree(data_path, tmp_path / "data") / "tiny" / "tiny.inter"
    header, *lines = file.read_text().splitlines()
    lines = [f"{line}\t{('1 2', '3')[n % 2]}\t{n % 5} 2.5" for n, line in enumerate(lines)]
    file.write_text("\n".join([f"{header}\ttags:token_seq\tmarks:float_seq", *lines]) + "\n")
    columns = EVERYTHING["load_col"] | {"inter": [*EVERYTHING["load_col"]["inter"], "tags", "marks"]}  # type: ignore
    numbers = {"numerical_features": ["dwell", "marks"], "normalize_field": ["dwell", "marks"]}
    numbers = {**numbers, "seq_len": {"tags": 2, "marks": 2}}
    given = keys(load_col=columns, **numbers, data_path=str(tmp_path / "data"), finetune_modes=[], epochs=1)
    return str(run_recbole_alt("ALT_DCN", "tiny", None, given)["folder"])


def test_every_kind_of_value(sequences: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are read as by ``predict``; of a bad one the answer names column, row and value."""
    ask = service(sequences, "plain", monkeypatch)
    answer = ask(VALUES)
    assert answer.status_code == 200, answer.text
    expected = predict(sequences, pd.DataFrame(VALUES, dtype=object), mode="plain").scores
    np.testing.assert_allclose(answer.json()["probability"], expected, rtol=0, atol=1e-5)
    assert answer.json()["new"] == {"user_id": 3, "item_id": 1, "tags": 1}
    assert ask(VALUES | {"device": ["watch", None, "", True]}).json()["new"]["device"] == 2
    for name, value in BAD:
        answer = ask(VALUES | {name: [*VALUES[name][:2], value, VALUES[name][3]]})
        said = f"column {name!r}, row 3: {value!r:.60} is no "
        assert answer.status_code == 422 and answer.json()["detail"].startswith(said), (name, value, answer.text)
