"""An encoder in 8 bits has states that are near, of each text by itself; one line says what is missing for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_alt import run_recbole_alt
from recbole_alt.model import eight_bits
from recbole_alt.model.eight_bits import EightBitEncoder
from recbole_alt.model.encoding import encode_each
from recbole_alt.model.language import LanguageModel, load_language_model

pytestmark = pytest.mark.usefixtures("one_thread")
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in eight_bits._PACKAGES), reason="needs recbole_alt[onnx]"
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
def test_states_are_near_and_of_one_text_only(frozen: LanguageModel) -> None:
    runtime = EightBitEncoder(frozen.encoder, "", None)
    eight = states(frozen, TEXTS, runtime)
    for whole, near in zip(states(frozen, TEXTS), eight, strict=True):
        assert torch.cosine_similarity(whole, near).min() > 0.98 and not torch.equal(whole, near)
    for text, expected in zip(TEXTS, eight, strict=True):
        assert torch.equal(states(frozen, [text], runtime)[0], expected)
    assert frozen.encoder.config._attn_implementation == "sdpa"


@needs_onnx
def test_it_is_exported_once(frozen: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = EightBitEncoder(frozen.encoder, "one", tmp_path)(TEXTS)
    exported, real = [], eight_bits._export
    monkeypatch.setattr(eight_bits, "_export", lambda encoder: (exported.append(1), real(encoder))[1])
    again = EightBitEncoder(frozen.encoder, "one", tmp_path)(TEXTS)
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True)) and not exported
    EightBitEncoder(frozen.encoder, "another", tmp_path)
    assert len(exported) == 1
    for file in tmp_path.glob("*/*.onnx"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    again = EightBitEncoder(frozen.encoder, "one", tmp_path)(TEXTS)
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True)) and len(exported) == 2


@needs_onnx
def test_a_run_in_8_bits(keys: Callable[..., dict[str, Any]]) -> None:
    given = keys(frozen_layers="all", freeze_language_model=True, finetune_modes=["lm"], plain_baseline=False)
    eight = run_recbole_alt("ALT_DCN", "tiny", None, given | {"encoder_runtime": "onnx-int8"})
    again = run_recbole_alt("ALT_DCN", "tiny", None, given | {"encoder_runtime": "onnx-int8"})
    other = run_recbole_alt("ALT_DCN", "tiny", None, given)
    assert eight["record"]["results"] == again["record"]["results"] != other["record"]["results"]
    texts = [made["record"]["stages"]["pretrain"]["texts_encoded"] for made in (eight, again, other)]
    assert texts[0] == texts[2] > 0 == texts[1]  # states in 8 bits are not those of torch


def test_a_missing_package_and_a_trained_encoder_are_one_line(
    alignment: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"^encoder_runtime: onnx-int8 can't train .* set frozen_layers: all$"):
        alignment(encoder_runtime="onnx-int8")
    monkeypatch.setattr(eight_bits, "_PACKAGES", ("no-such-package",))
    with pytest.raises(ValueError, match=r"^encoder_runtime: .* no-such-package: pip install 'recbole_alt\[onnx\]'"):
        alignment(encoder_runtime="onnx-int8", frozen_layers="all")
