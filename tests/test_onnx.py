"""A run's models in ONNX: raw values in, the scores of ``predict`` out, with numpy and ONNX Runtime only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_predict import EVERYTHING, renamed, rows

from recbole_alt import load_data_and_model, predict, run_recbole_alt
from recbole_alt.cli import main
from recbole_alt.model.captures import CAPTURES
from recbole_alt.prediction.tables import Form, read_columns
from recbole_alt.serving import exporting, to_onnx
from recbole_alt.serving import folder as folder_module
from recbole_alt.serving import texts as texts_module
from recbole_alt.serving.inputs import raw_inputs

pytest.importorskip("onnxscript", reason="the export needs the extra onnx")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="the comparison needs the extra onnx")

pytestmark = pytest.mark.usefixtures("one_thread")
Keys = Callable[..., dict[str, Any]]


def trained(keys: Keys, model: str = "ALT_DCN", **changes: Any) -> Path:
    return Path(
        run_recbole_alt(model, "tiny", None, keys(**{"epochs": 1, "unseen_values": "zero"} | changes))["folder"]
    )


def served(folder: str, frame: pd.DataFrame, **further: np.ndarray) -> np.ndarray:
    """The scores of raw rows, as a program has them that finds only the folder."""
    about = json.loads(Path(folder, "ids.json").read_text())
    tables = {side: dict(np.load(Path(folder, f"{side}.npz"))) for side in about["tables"]}
    kinds = {name: one["kind"] for name, one in about["inputs"].items() if one["of"] == "context"}
    kinds |= dict.fromkeys(about["tables"].values(), "token")
    kinds = {name: kind for name, kind in kinds.items() if kind != "vector"}
    raw = read_columns(frame, "rows", kinds, Form("\t", None, " "))
    session = onnxruntime.InferenceSession(Path(folder, "model.onnx"))
    return session.run(None, raw_inputs(about, tables, raw) | further)[0]


@pytest.mark.parametrize("stage", ["plain", "ctr"])
def test_raw_rows_score_as_in_predict(stage: str, keys: Keys) -> None:
    folder = trained(keys, "ALT_DeepFM", finetune_modes=["ctr"], **EVERYTHING)
    written = to_onnx(folder / f"{stage}.pth", "served")
    assert {file.name for file in written.files} == {"model.onnx", "ids.json", "user.npz", "item.npz"}
    (worst,) = written.differences.values()
    assert worst is not None and worst <= 1e-5
    frame = renamed(rows(3), i5="x5")
    found, expected = served("served", frame), predict(folder, frame, mode=stage)
    assert expected.new_values == {"item_id": {"rows": 12, "values": 1}}
    np.testing.assert_allclose(found, expected.scores, rtol=0, atol=1e-5)
    assert 0.001 < found.min() < found.max() < 0.999  # none of which hides what differs
    for size in (1, 7):
        np.testing.assert_allclose(served("served", frame[:size]), found[:size], rtol=0, atol=1e-6)
    about = json.loads(Path("served/ids.json").read_text())
    assert about["opset"] == exporting.OPSET and about["inputs"]["item_id"]["unknown"] == "zeros"
    assert about["inputs"]["device"]["unknown"] == "as missing"  # the data have gaps there
    assert about["ids"]["genre"].keys() >= {"Comedy", "Crime"}


@pytest.mark.slow
@pytest.mark.parametrize("model", CAPTURES)
def test_every_backbone(model: str, keys: Keys) -> None:
    given = {"mlp_hidden_size": [8, 8]} | EVERYTHING
    if model == "KD_DAGFM":
        given |= {"phase": "teacher_training"}
    folder = trained(keys, f"ALT_{model}", finetune_modes=[], **given)
    to_onnx(folder / "plain.pth", "served")
    np.testing.assert_allclose(served("served", rows(3)), predict(folder, rows(3)).scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stage", ["lm", "joint"])
def test_texts_go_in_as_vectors(stage: str, keys: Keys) -> None:
    folder = trained(keys, finetune_modes=["lm", "joint"], plain_baseline=False, **EVERYTHING)
    written = to_onnx(folder / f"{stage}.pth", "served")
    assert set(written.differences) == {"model.onnx", "text.onnx"}
    assert Path("served/model.onnx").stat().st_size < 1e6  # without the language model
    from transformers import AutoTokenizer

    about = json.loads(Path("served/ids.json").read_text())
    tokenizer, frame = AutoTokenizer.from_pretrained("served/tokenizer"), rows(1)
    context = next(text for text in about["texts"] if text["name"] == "context")
    (device, dwell) = context["clauses"]
    spoken = ["unknown" if isinstance(value, float) else f"{float(value):.4g}" for value in frame["dwell"]]
    texts = [
        "".join(c["before"] + str(value) + c["after"] for c, value in zip((device, dwell), values, strict=True))
        for values in zip(frame["device"].fillna("unknown"), spoken, strict=True)
    ]
    tokens = tokenizer(texts, padding=True, return_tensors="np")
    session = onnxruntime.InferenceSession("served/text.onnx")
    given = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    _, pooled = session.run(None, given)
    found = served("served", frame, text_of_context=pooled)
    np.testing.assert_allclose(found, predict(folder, frame, mode=stage).scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "last", "mean"])
def test_the_text_tower_pools_as_the_run_does(pooling: str, keys: Keys) -> None:
    folder = trained(keys, finetune_modes=["lm"], plain_baseline=False, pooling=pooling)
    to_onnx(folder / "pretrain.pth", "aligned")
    assert {file.name for file in Path("aligned").iterdir()} == {"text.onnx", "tokenizer"}
    to_onnx(folder / "lm.pth", "served")
    model = load_data_and_model(folder / "lm.pth")[1].eval().text.language_model
    ids, lengths = torch.arange(40).view(4, 10) + 1000, torch.tensor([3, 10, 1, 7])
    mask = (torch.arange(10) < lengths[:, None]).long()
    session = onnxruntime.InferenceSession("served/text.onnx")
    states, pooled = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    with torch.no_grad():
        expected = model.encode_padded(ids, mask)
    np.testing.assert_allclose(pooled, expected[1].numpy(), rtol=0, atol=1e-5)
    real = mask.bool().numpy()
    np.testing.assert_allclose(states[real], expected[0].numpy()[real], rtol=0, atol=1e-5)


def test_text_fields(keys: Keys) -> None:
    folder = trained(keys, finetune_modes=[], text_field=["item"])
    to_onnx(folder / "plain.pth", "served")
    np.testing.assert_allclose(served("served", rows(1)), predict(folder, rows(1)).scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("stage", "graph"), [("joint", "model.onnx"), ("joint", "text.onnx"), ("pretrain", "text.onnx")]
)
def test_a_refused_export_leaves_the_folder_as_it_was(
    stage: str, graph: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained(keys, finetune_modes=["joint"], plain_baseline=False)
    real, off = exporting.difference, {"model.onnx": folder_module, "text.onnx": texts_module}[graph]

    def refusing(*given: Any) -> float | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporting, "TOLERANCE", -1.0)
            return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(off, "difference", refusing)
        with pytest.raises(ValueError, match=rf"^onnx: {graph} is .* off PyTorch"):
            to_onnx(folder / f"{stage}.pth", "served")
        assert not Path("served").exists()
        Path("served/tokenizer").mkdir(parents=True)
        old = {Path("served/model.onnx"): b"old", Path("served/tokenizer/notes"): b"mine"}
        for file, content in old.items():
            file.write_bytes(content)
        with pytest.raises(ValueError, match="off PyTorch"):
            to_onnx(folder / f"{stage}.pth", "served")
        assert {file: file.read_bytes() for file in Path("served").rglob("*") if file.is_file()} == old
    written = to_onnx(folder / f"{stage}.pth", "served")
    assert all(file.exists() for file in written.files) and Path("served/tokenizer/notes").read_bytes() == b"mine"
    assert {file.name for file in Path("served").iterdir()} == {file.name for file in written.files} | {"model.onnx"}


def test_command_line(keys: Keys, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained(keys, finetune_modes=[])
    assert main(["export", str(folder), "--onnx=served"]) == 0
    printed = capsys.readouterr().out
    assert "Written: served/model.onnx" in printed and "model.onnx (opset 18): differs from PyTorch by" in printed
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    assert main(["export", str(folder), "--onnx=served"]) == 2
    assert "off PyTorch, more than" in capsys.readouterr().err
    monkeypatch.setattr(exporting, "is_installed", lambda name: name != "onnxruntime")
    assert main(["export", str(folder), "--onnx=served"]) == 0
    assert "not compared with PyTorch, as onnxruntime is not installed" in capsys.readouterr().out
    monkeypatch.setattr(exporting, "is_installed", lambda name: False)
    assert main(["export", str(folder), "--onnx=served"]) == 2
    assert capsys.readouterr().err == "error: onnx: the export needs onnx: pip install 'recbole_alt[onnx]'\n"
