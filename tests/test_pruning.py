"""A pruned word embedding learns what the whole one learns, and nobody who reads its file can tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MINILM
from torch import nn

from recbole_alt import checkpoints, run_recbole_alt
from recbole_alt.model.language import load_language_model
from recbole_alt.model.pruning import PrunedEmbedding, prune_vocabulary
from recbole_alt.pretrained import load_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
SENTENCES = ["age is 24.", "title is Toy Story. genre is Animation, Comedy."]


def tokenised() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    encoded = load_tokenizer(MINILM)(SENTENCES, padding=True, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"], np.unique([*encoded["input_ids"].flatten(), 103])


def test_it_learns_what_the_whole_one_learns() -> None:
    ids, mask, kept = tokenised()
    whole, pruned = (load_language_model(MINILM, layers=1).eval() for _ in range(2))
    prune_vocabulary(pruned.encoder, kept)
    assert pruned.encoder.get_input_embeddings().weight.shape == (len(kept), 384)
    before = whole.encoder.get_input_embeddings().weight.detach().clone()
    for model in (whole, pruned):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        for _ in range(3):
            optimizer.zero_grad()
            model(ids, mask)[0][:, 1:3].square().mean().backward()
            optimizer.step()
    states = [model.state_dict() for model in (whole, pruned)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, atol=1e-6, rtol=1e-4, msg=name)
    table = states[1]["encoder.embeddings.word_embeddings.weight"]
    others = np.setdiff1d(np.arange(len(table)), kept)
    assert torch.equal(table[others], before[others])
    assert not torch.equal(table[kept], before[kept])
    again = load_language_model(MINILM, layers=1)
    prune_vocabulary(again.encoder, kept[:5])
    again.load_state_dict(states[1])  # whichever rows it keeps
    assert torch.equal(again.state_dict()["encoder.embeddings.word_embeddings.weight"], table)
    assert torch.equal(again.encoder.get_input_embeddings().weight, table[kept[:5]])


def test_a_token_that_was_not_kept_is_an_error() -> None:
    embedding = PrunedEmbedding(torch.randn(10, 4), torch.tensor([2, 7]))
    assert embedding(torch.tensor([[7, 2]])).shape == (1, 2, 4)
    with pytest.raises(IndexError):
        embedding(torch.tensor([[7, 3]]))


def test_frozen_embeddings_are_left_alone() -> None:
    model = load_language_model(MINILM, layers=1, frozen_layers=0)
    prune_vocabulary(model.encoder, np.arange(5))
    assert type(model.encoder.get_input_embeddings()) is nn.Embedding


def test_a_run_leaves_the_whole_table(keys: Callable[..., dict[str, Any]]) -> None:
    files = {}
    for choice in ("prompts", "full"):
        run = run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=["joint"], language_model_vocabulary=choice))
        files[choice] = checkpoints.load(Path(run["folder"]) / "pretrain.pth")
    name = "language_model.encoder.embeddings.word_embeddings.weight"
    assert files["prompts"]["text"][name].shape == files["full"]["text"][name].shape
    sizes = {
        choice: sum(v.numel() for state in file["optimizer"]["state"].values() for v in state.values())
        for choice, file in files.items()
    }
    assert sizes["prompts"] < 0.2 * sizes["full"]  # the optimiser holds the kept rows alone
