"""The programs of the pages about what follows a run, as they stand; those that name a run, on one of ``tiny``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import DOCS, blocks
from test_predict import rows

from recbole_alt import predict, run_recbole_alt
from recbole_alt.serving import to_onnx

pytestmark = pytest.mark.usefixtures("one_thread")
ONLY_IDS = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating", "timestamp"],
        "user": ["user_id", "age", "height"],
        "item": ["item_id", "year", "genre", "scores"],
    },
    "numerical_features": ["height", "scores"],
    "normalize_field": ["scores"],
    "unseen_values": "zero",
}


def program(page: str, *files: str, **changes: str) -> dict[str, Any]:
    """Execute programs of a page one after the other, changed so; their names."""
    names: dict[str, Any] = {}
    for name in files:
        (block,) = (block for block in blocks(DOCS / page) if block.file == name)
        text = block.text
        for before, after in changes.items():
            assert before in text
            text = text.replace(before, after)
        exec(compile(text, name, "exec"), names)
    return names


def test_predict_in_python(keys: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=[], epochs=1, **ONLY_IDS))["folder"]
    changes = {"saved/ALT_DCN-ml-100k-…": folder, "196, 1": '"u1", "u2"', "242": '"i1"'}
    found = program("scoring.md", "predict.py", **changes)["found"]
    assert found.new_values == {"item_id": {"rows": 1, "values": 1}}
    assert "{'item_id': {'rows': 1, 'values': 1}}" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["plain", "joint"])
def test_ten_lines_of_numpy(stage: str, keys: Callable[..., dict[str, Any]]) -> None:
    pytest.importorskip("onnxscript", reason="the export needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="the program needs onnxruntime")
    modes = [] if stage == "plain" else [stage]
    folder = Path(run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=modes, epochs=1, **ONLY_IDS))["folder"])
    to_onnx(folder / f"{stage}.pth", "served")
    frame = rows(1)[["user_id", "item_id"]].replace({"item_id": {"i5": "no such item"}})
    found = program("serving.md", "score.py")["score"]({name: frame[name].tolist() for name in frame})
    np.testing.assert_allclose(found, predict(folder, frame, mode=stage).scores, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_from_frames_to_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    budget = '{"epochs": 2, "pretrain_steps": 10}'
    small = '{"epochs": 1, "pretrain_steps": 2, "language_model_layers": 1, "show_plan": False}'
    names = program("python.md", "frames.py", "frames.py, continued", **{budget: small})
    assert names["found"].new_values == {"item_id": {"rows": 1, "values": 1}}
    assert "extended: 1 item added to" in capsys.readouterr().out
    assert Path("encoder", "README.md").is_file()
    assert list(names["table"]["stage"]) == ["plain", "ctr"]
