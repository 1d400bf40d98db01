"""ONNX Runtime makes the states of PyTorch, of each text by itself; one line says what is missing for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from recbole_alt import run_recbole_alt
from recbole_alt.model import onnx_runtime
from recbole_alt.model.encoding import encode_each
from recbole_alt.model.language import LanguageModel, load_language_model
from recbole_alt.model.onnx_runtime import OnnxEncoder

pytestmark = pytest.mark.usefixtures("one_thread")
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in onnx_runtime._PACKAGES), reason="needs recbole_alt[onnx]"
)
TEXTS = [np.arange(1000, 1000 + length).tobytes() for length in (2, 5, 8, 8, 9, 31, 70)]


@pytest.fixture
def frozen(small_bert: str) -> LanguageModel:
    return load_language_model(small_bert, frozen_layers="all")


def states(model: LanguageModel, texts: list[bytes], runtime: Any = None) -> list[torch.Tensor]:
    found = {}
    for made in encode_each(model, texts, torch.device("cpu"), runtime):
        lengths = made.attention_mask.sum(1).tolist()
        found |= {text: made.states[i, : lengths[i]] for i, text in enumerate(made.texts)}
    return [found[text] for text in texts]


@needs_onnx
def test_states_are_those_of_torch_and_of_one_text_only(frozen: LanguageModel) -> None:
    runtime = OnnxEncoder(frozen.encoder)
    made = states(frozen, TEXTS, runtime)
    for ours, expected in zip(made, states(frozen, TEXTS), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert not all(torch.equal(ours, expected) for ours, expected in zip(made, states(frozen, TEXTS), strict=True))
    for text, expected in zip(TEXTS, made, strict=True):
        assert torch.equal(states(frozen, [text], runtime)[0], expected)
    assert frozen.encoder.config._attn_implementation == "sdpa"


@needs_onnx
def test_a_run(keys: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    given = keys(
        frozen_layers="all", freeze_language_model=True, finetune_modes=["lm"], plain_baseline=False, show_plan=True
    )
    exported, real = [], onnx_runtime._export
    monkeypatch.setattr(onnx_runtime, "_export", lambda *of: (exported.append(1), real(*of))[1])
    made = run_recbole_alt("ALT_DCN", "tiny", None, given | {"encoder_runtime": "onnx"})
    assert len(exported) > 1  # for the plan and the alignment
    again = run_recbole_alt("ALT_DCN", "tiny", None, given | {"encoder_runtime": "onnx", "show_plan": False})
    other = run_recbole_alt("ALT_DCN", "tiny", None, given)
    assert made["record"]["results"] == again["record"]["results"]
    assert made["test_result"] == pytest.approx(other["test_result"], abs=1e-3)
    texts = [one["record"]["stages"]["pretrain"]["texts_encoded"] for one in (made, again, other)]
    assert texts[0] == texts[2] > 0 == texts[1]  # states of ONNX Runtime are not mistaken for those of torch


def test_a_missing_package_and_a_trained_encoder_are_one_line(
    alignment: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"^encoder_runtime: onnx can't train .* set frozen_layers: all$"):
        alignment(encoder_runtime="onnx")
    monkeypatch.setattr(onnx_runtime, "_PACKAGES", ("no-such-package",))
    with pytest.raises(ValueError, match=r"^encoder_runtime: .* no-such-package: pip install 'recbole_alt\[onnx\]'"):
        alignment(encoder_runtime="onnx", frozen_layers="all")
