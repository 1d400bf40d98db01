"""What stage 2 takes over from stage 1, and where its weight decay pulls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recbole_alt import checkpoints, run_recbole_alt
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.optim import decay_towards

pytestmark = pytest.mark.usefixtures("one_thread")
Keys = Callable[..., dict[str, Any]]


@settings(deadline=None)
@given(value=st.floats(-2, 2), anchor=st.floats(-2, 2), rate=st.floats(1e-3, 0.5), decay=st.floats(0, 1))
def test_decay_pulls_to_the_anchor_and_without_one_to_zero(
    value: float, anchor: float, rate: float, decay: float
) -> None:
    anchored, free = nn.Parameter(torch.tensor([value])), nn.Parameter(torch.tensor([value]))
    optimizer = torch.optim.AdamW([anchored, free], lr=rate, weight_decay=decay)
    decay_towards(optimizer, {anchored: torch.tensor([anchor])})
    anchored.grad = free.grad = torch.zeros(1)  # nothing but decay moves them
    optimizer.step()
    assert anchored.item() == pytest.approx(value - rate * decay * (value - anchor), abs=1e-5)
    assert free.item() == pytest.approx(value - rate * decay * value, abs=1e-5)


def started(monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]) -> tuple[Path, dict[str, torch.Tensor]]:
    """The folder of a run, and the CTR model as the first step of ``ctr`` found it."""
    start: dict[str, torch.Tensor] = {}
    real = ALTTrainer._train_step

    def step(self: Any, *args: Any) -> Any:
        if not start:
            start.update({name: value.clone() for name, value in self.model.backbone.state_dict().items()})
        return real(self, *args)

    monkeypatch.setattr(ALTTrainer, "_train_step", step)
    made = run_recbole_alt("ALT_DCN", "tiny", None, keys)
    return Path(made["folder"]), start


def test_embeddings_alone_are_taken_over(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    given = keys(finetune_modes=["ctr"], plain_baseline=False)
    folder, whole = started(monkeypatch, given)
    _, partly = started(monkeypatch, given | {"transfer": "embeddings"})
    _, fresh = started(monkeypatch, given | {"finetune_modes": [], "plain_baseline": True})
    aligned = checkpoints.load(folder / "pretrain.pth")["backbone"]
    for name, value in aligned.items():
        assert torch.equal(whole[name], value), name
        assert torch.equal(partly[name], value if "embedding" in name else fresh[name]), name
    learned = {name for name, value in aligned.items() if not torch.equal(value, fresh[name])}
    assert {"embedding" in name for name in learned} == {True, False}


def test_decay_towards_aligned_stays_near_them(keys: Keys) -> None:
    given = keys(finetune_modes=["ctr"], plain_baseline=False, weight_decay=500.0, learning_rate=1e-3, epochs=4)

    def distance(**changes: Any) -> float:
        folder = Path(run_recbole_alt("ALT_DCN", "tiny", None, given | changes)["folder"])
        aligned = checkpoints.load(folder / "pretrain.pth")["backbone"]
        finetuned = checkpoints.load(folder / "ctr.pth")["state_dict"]
        weights = [name for name in aligned if name.endswith("weight")]
        return sum(float((finetuned[f"backbone.{name}"] - aligned[name]).norm()) for name in weights)

    assert distance(decay_towards="aligned") < 0.5 * distance()
    with pytest.raises(ValueError, match=r"decay_towards.*adamw.*sgd"):
        distance(decay_towards="aligned", learner="sgd")


def test_unseen_values_are_hidden_where_asked(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    given = keys(finetune_modes=["ctr"], plain_baseline=False, train_share=0.05, split_seed=1)
    _, as_learned = started(monkeypatch, given | {"unseen_values": "initial"})
    _, hidden = started(monkeypatch, given | {"unseen_values": "hidden"})
    changed = [name for name in as_learned if not torch.equal(as_learned[name], hidden[name])]
    assert changed
    assert all("token_embedding_table" in name for name in changed)


def test_unseen_values_are_zero_by_default_in_the_plain_model_too(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    given = keys(finetune_modes=[], train_share=0.05, split_seed=1)
    _, initial = started(monkeypatch, given | {"unseen_values": "initial"})
    folder, zero = started(monkeypatch, given)
    changed = {name: initial[name] != zero[name] for name in initial if not torch.equal(initial[name], zero[name])}
    assert changed and all("token_embedding_table" in name for name in changed)
    trained = checkpoints.load(folder / "plain.pth")["state_dict"]
    for name, where in changed.items():
        assert not zero[name][where].any() and not trained[f"backbone.{name}"][where].any(), name
    _, hidden = started(monkeypatch, given | {"unseen_values": "hidden"})
    assert all(torch.equal(initial[name], hidden[name]) for name in initial)  # nothing is hidden without stage 1
