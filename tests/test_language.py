"""The language side with real weights: states, pooling, layers, segments, and what stops with one clear line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MINILM
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from recbole_alt import checkpoints, pretrained
from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.model.language import LanguageModel, load_language_model
from recbole_alt.model.text_tower import TextTower

SENTENCES = ["age is 24.", "title is Toy Story. genre is Animation, Comedy.", "genre is Crime.", "gender is unknown."]


def tokenised(texts: list[str]) -> tuple[Tensor, Tensor]:
    encoded = pretrained.load_tokenizer(MINILM)(texts, padding=True, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"]


@pytest.fixture(scope="module")
def minilm() -> LanguageModel:
    return load_language_model(MINILM, layers=2).eval()


# -- states ------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("copies", [1, 70])  # 280 texts are encoded in several groups by length
def test_padding_never_changes_a_state(minilm: LanguageModel, copies: int) -> None:
    ids, mask = tokenised(SENTENCES)
    order = torch.randperm(len(ids) * copies, generator=torch.Generator().manual_seed(0)) % len(ids)
    states, pooled = minilm(ids[order], mask[order])
    assert states.shape == (len(order), ids.shape[1], 384)
    assert pooled.shape == (len(order), 384)
    for i, sentence in enumerate(SENTENCES):
        alone_states, alone_pooled = minilm(*tokenised([sentence]))
        length = alone_states.shape[1]
        mine = order == i
        torch.testing.assert_close(states[mine, :length], alone_states.expand(copies, -1, -1), atol=1e-5, rtol=0)
        torch.testing.assert_close(pooled[mine], alone_pooled.expand(copies, -1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_pooling() -> None:
    ids, mask = tokenised(SENTENCES)
    states, mean = load_language_model(MINILM, layers=1, pooling="mean").eval()(ids, mask)
    also, cls = load_language_model(MINILM, layers=1, pooling="cls").eval()(ids, mask)
    assert torch.equal(states, also)
    assert torch.equal(cls, states[:, 0])
    by_hand = torch.stack([s[: int(m.sum())].mean(0) for s, m in zip(states, mask, strict=True)])
    torch.testing.assert_close(mean, by_hand, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_first_layers_are_those_of_the_whole_model(minilm: LanguageModel) -> None:
    from transformers import AutoModel

    ids, mask = tokenised(SENTENCES)
    whole = AutoModel.from_pretrained(pretrained.resolve(MINILM)).eval()
    hidden = whole(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for layers, model in ((2, minilm), (6, load_language_model(MINILM).eval())):
        expected = hidden[layers] * mask.unsqueeze(-1)
        torch.testing.assert_close(model(ids, mask)[0] * mask.unsqueeze(-1), expected, atol=1e-5, rtol=0)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    ids, mask = tokenised(SENTENCES)
    gradients, activations = [], []
    for checkpointing in (False, True):
        model = load_language_model(MINILM, layers=2, gradient_checkpointing=checkpointing).train()
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            loss = model(ids, mask)[1].square().sum()
        loss.backward()
        activations.append(sum(kept))
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert activations[1] < 0.7 * activations[0]  # it is really on
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_texts_are_counted(minilm: LanguageModel) -> None:
    before = minilm.texts_encoded
    minilm(*tokenised(SENTENCES))
    minilm(*tokenised(SENTENCES[:1]))
    assert minilm.texts_encoded - before == len(SENTENCES) + 1


# -- several texts a row -----------------------------------------------------------------------------------


def segment(texts: list[str], row: list[int]) -> SegmentBatch:
    ids, mask = tokenised(texts)
    return SegmentBatch(
        ids,
        mask,
        torch.full_like(ids, -1),
        torch.tensor(row),
        torch.zeros(len(texts)).long(),
        "user",
        np.arange(len(texts))[:, None],
        mask.sum(1).numpy(),
    )


@torch.no_grad()
def test_text_tower_with_one_segment(minilm: LanguageModel) -> None:
    batch = segment(SENTENCES[:3], [2, 0, 0, 1])
    tower = TextTower(minilm, 1)
    segments = tower([batch])
    assert len(segments) == 1
    pooled = tower.fuse([segments[0].pooled[segments[0].row]])
    assert torch.equal(pooled, minilm(batch.input_ids, batch.attention_mask)[1][batch.row])


def test_text_tower_with_two_segments(minilm: LanguageModel) -> None:
    torch.manual_seed(0)
    tower = TextTower(minilm, 2)
    users, items = segment(SENTENCES[:2], [0, 1, 1, 0]), segment(SENTENCES[1:], [2, 0, 2, 2])
    before = minilm.texts_encoded
    segments = tower([users, items])
    assert minilm.texts_encoded - before == 5  # each distinct text once
    a, b = (s.pooled[s.row] for s in segments)
    pooled = tower.fuse([a, b])
    first, second = (m for m in tower.fusion.modules() if isinstance(m, nn.Linear))  # type: ignore[union-attr]
    hidden = nn.functional.gelu(first(torch.cat([a, b, a * b], 1)))
    torch.testing.assert_close(pooled, (a + b) / 2 + second(hidden))
    torch.testing.assert_close(pooled[0], pooled[3])  # the same user and item
    pooled.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in tower.fusion.parameters())  # type: ignore[union-attr]


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**31))
def test_scoring_is_the_head_on_the_pooled_state(n_segments: int, n_texts: int, rows: int, seed: int) -> None:
    torch.manual_seed(seed)
    no_encoder = SimpleNamespace(config=SimpleNamespace(hidden_size=6))
    tower = TextTower(LanguageModel(no_encoder), n_segments).double()
    head = nn.Linear(6, 1).double()
    texts = [(torch.randn(n_texts, 6).double(), torch.randint(n_texts, (rows,))) for _ in range(n_segments)]
    for states, _ in texts:
        states.requires_grad_()
    trained = [*tower.parameters(), *head.parameters(), *(states for states, _ in texts)]
    weight = torch.randn(rows).double()
    results = []
    for logits in (head(tower.fuse([states[row] for states, row in texts])).squeeze(-1), tower.score(texts, head)):
        assert logits.shape == (rows,)
        results.append([logits, *torch.autograd.grad((logits * weight).sum(), trained)])
    for slow, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow)


# -- finding weights ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(small_bert: str, tmp_path: Path) -> Path:
    copy = tmp_path / "language_model"
    shutil.copytree(small_bert, copy)
    return copy


def refused(name: str, **options: Any) -> str:
    """The message of the ValueError that loading ends in: one line."""
    with pytest.raises(ValueError) as caught:
        load_language_model(name, **options)
    message = str(caught.value)
    assert "\n" not in message.strip(), message
    assert "language_model" in message
    return message


@torch.no_grad()
def test_a_copied_folder_loads_the_same(minilm: LanguageModel, tmp_path: Path) -> None:
    copy = shutil.copytree(pretrained.resolve(MINILM), tmp_path / "copy of MiniLM")
    ids, mask = tokenised(SENTENCES)
    again = load_language_model(str(copy), layers=2).eval()
    assert torch.equal(again(ids, mask)[0], minilm(ids, mask)[0])
    assert pretrained.load_tokenizer(str(copy))(SENTENCES)["input_ids"] == [
        row[m.bool()].tolist() for row, m in zip(ids, mask, strict=True)
    ]


def test_unknown_name_without_network() -> None:
    message = refused("no-such-org/no-such-model")
    assert "no-such-org/no-such-model" in message
    assert "pip install" in message or "folder" in message


def test_missing_folder() -> None:
    assert "./not/here" in refused("./not/here")


def test_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    message = refused(str(folder))
    assert "config.json" in message
    assert str(folder) in message


def test_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    message = refused(str(folder))
    assert "model.safetensors" in message
    assert str(folder) in message


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_damaged_folder(folder: Path, file: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    assert str(folder) in refused(str(folder))


@pytest.mark.parametrize("layers", [0, 3, 99])
def test_impossible_number_of_layers(folder: Path, layers: int) -> None:
    message = refused(str(folder), layers=layers)
    assert "between 1 and 2" in message
    assert str(layers) in message


# -- nothing that comes with weights is run ----------------------------------------------------------------


class Malicious:
    """Unpickling it creates the file ``executed``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch executed",))


@pytest.mark.parametrize("model_type", ["bert", "malicious"])
def test_code_in_a_model_folder_is_not_run(folder: Path, model_type: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    config["model_type"] = model_type
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("open('executed', 'w').close()\nclass Model: pass\nclass Config: pass\n")
    if model_type == "bert":
        assert type(load_language_model(str(folder)).encoder).__name__ == "BertModel"  # the library's own
    else:
        assert str(folder) in refused(str(folder))
    assert not Path("executed").exists()


def test_a_pickle_in_a_model_folder_is_not_run(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Malicious()}, folder / "pytorch_model.bin")
    assert str(folder) in refused(str(folder))
    assert not Path("executed").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_checkpoint_is_not_run(zipped: bool) -> None:
    torch.save({"state_dict": Malicious()}, "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.pth"):
        checkpoints.load("evil.pth")
    assert not Path("executed").exists()
    torch.load("evil.pth", weights_only=False)
    assert Path("executed").exists()  # it would have been


def test_damaged_checkpoints_are_named() -> None:
    checkpoints.save({"a": torch.arange(1000)}, "whole.pth")
    assert torch.equal(checkpoints.load("whole.pth")["a"], torch.arange(1000))
    whole = Path("whole.pth").read_bytes()
    for content in (
        b"",
        b".",
        b"hello\n",
        b"\x80\x02.",
        b"\x80\x04",
        bytes(range(256)),
        *(whole[: len(whole) * i // 7] for i in range(1, 7)),
    ):
        Path("bad.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.pth") as caught:
            checkpoints.load("bad.pth")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"not-there\.pth"):
        checkpoints.load("not-there.pth")
