"""Texts are encoded once while the language model stands still, and never remembered when it has moved."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from conftest import pooled_states
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed

from recbole_alt.data.prompts import PromptTable
from recbole_alt.model import text_cache
from recbole_alt.model.encoding import padded_length
from recbole_alt.model.fingerprint import fingerprint
from recbole_alt.model.state_store import StateStore
from recbole_alt.model.text_cache import TextCache


def build(config: Any) -> tuple[Any, Any]:
    """A recommender in ``config``'s mode, and the training dataset."""
    init_seed(1, True)
    train = data_preparation(config, create_dataset(config))[0]._dataset
    return get_model("ALT_DCN")(config, train), train


def uncached(model: Any, rows: Any) -> torch.Tensor:
    """Click probabilities of ``rows`` with every text encoded now."""
    texts = model.prompts.batches(rows)
    logits = model.lm_predict_layer(pooled_states(model.text, texts)).squeeze(-1)
    if model.backbone is not None:
        logits = model._mix(model.backbone(rows).logits, logits)
    return logits.sigmoid()


@pytest.mark.parametrize("mode", ["lm", "joint"])
@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_scores_are_those_of_encoding_everything(tiny: Any, mode: str, scope: str) -> None:
    model, train = build(tiny(finetune_mode=mode, prompt_scope=scope))
    model.eval()
    with torch.no_grad():
        for rows in (train[:7], train[3:40], train[:40]):
            torch.testing.assert_close(model.predict(rows), uncached(model, rows), atol=1e-5, rtol=1e-4)


def test_each_distinct_text_is_encoded_once(tiny: Any) -> None:
    model, train = build(tiny(finetune_mode="lm"))
    model.eval()
    distinct = sum(len(texts.pieces) for texts in model.prompts.distinct(train[:]))
    with torch.no_grad():
        for start in range(0, len(train), 16):
            model.predict(train[start : start + 16])
        model.predict(train[:])
    assert model.texts_encoded == distinct < len(train)


def test_nothing_is_remembered_across_an_update(tiny: Any) -> None:
    model, train = build(tiny(finetune_mode="joint"))
    rows = train[:20]
    with torch.no_grad():
        before = model.eval().predict(rows)
        model.train()
        for parameter in model.text.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        after = model.eval().predict(rows)
        torch.testing.assert_close(after, uncached(model, rows), atol=1e-5, rtol=1e-4)
    assert not torch.equal(before, after)


def test_nothing_is_remembered_across_loading(tiny: Any) -> None:
    config = tiny(finetune_mode="lm")
    model, train = build(config)
    other, _ = build(config)
    for parameter in other.parameters():
        parameter.data += 0.01
    rows = train[:20]
    with torch.no_grad():
        model.eval().predict(rows)
        model.load_state_dict(other.state_dict())
        torch.testing.assert_close(model.predict(rows), uncached(model, rows), atol=1e-5, rtol=1e-4)
        model.load_towers({"text": build(config)[0].text.state_dict()})
        torch.testing.assert_close(model.predict(rows), uncached(model, rows), atol=1e-5, rtol=1e-4)


def test_training_with_gradients_never_reads_the_cache(tiny: Any) -> None:
    model, train = build(tiny(finetune_mode="lm"))
    model.eval()
    with torch.no_grad():
        model.predict(train[:20])
    model.calculate_loss(train[:20]).backward()  # evaluation mode, yet with gradients
    assert model.text.language_model.encoder.embeddings.word_embeddings.weight.grad is not None


@pytest.mark.parametrize("mode", ["lm", "joint"])
def test_a_frozen_language_model_stands_still(tiny: Any, mode: str) -> None:
    model, train = build(tiny(finetune_mode=mode, freeze_language_model=True))
    model.train()
    assert not model.text.language_model.training and model.text.fusion.training
    before = {name: value.clone() for name, value in model.text.language_model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        losses = model.calculate_loss(train[:20])
        sum(losses if isinstance(losses, tuple) else [losses]).backward()
        optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in model.text.language_model.state_dict().items())
    assert model.text.fusion[0].weight.grad.abs().sum() > 0
    distinct: PromptTable = model.prompts
    assert model.texts_encoded == sum(len(texts.pieces) for texts in distinct.distinct(train[:20]))


def test_what_another_process_is_encoding_is_left_to_it(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_cache, "_MANY", 2)
    frozen = {"frozen_layers": "all", "freeze_language_model": True, "text_cache_dir": str(tmp_path / "kept")}
    model, train = build(tiny(finetune_mode="lm", **frozen))
    language_model, cpu = model.text.language_model, torch.device("cpu")
    texts = next(texts for texts in model.prompts.distinct(train[:]) if texts.segment.name == "item")
    written = text_cache._token_bytes(texts)
    lengths = [padded_length(text) for text in written]
    theirs = [text for text, length in zip(written, lengths, strict=True) if length == max(lengths)]
    assert 0 < len(theirs) < len(written)

    found: list[torch.Tensor] = []
    reader = Thread(target=lambda: found.append(TextCache(language_model).pooled(texts, cpu)))
    other = StateStore(language_model.state_folder, fingerprint(language_model, cpu))
    with other.claimed(str(max(lengths)), wait=True) as is_mine:
        assert is_mine
        reader.start()
        while language_model.texts_encoded < len(written) - len(theirs):
            time.sleep(0.01)
        other.write("pooled-mean", {text: torch.full((1, language_model.hidden_size), 7.0) for text in theirs})
        assert reader.is_alive() and not found
    reader.join()
    assert language_model.texts_encoded == len(written) - len(theirs)
    for text, state in zip(written, found[0], strict=True):
        assert bool((state == 7).all()) == (text in theirs)

    with other.claimed("4", wait=False) as first, other.claimed("4", wait=False) as second:
        assert first and not second
