"""The example of a service on runs of ``tiny``: the scores of ``predict``, new values counted, bad requests refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
    return lambda columns: client.post("/score", json=columns)


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
