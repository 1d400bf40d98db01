"""What lets a GPU work without a break, tried on a processor: packed texts, batches made ahead, values read late."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gradients
from language_models import TINY
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_alt.data.moving import Arriving, MadeAhead, moved
from recbole_alt.families import FAMILIES
from recbole_alt.model import packed_attention
from recbole_alt.model.language import LanguageModel, load_language_model
from recbole_alt.model.machine import repeat_exactly

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
PACKING = [name for name, family in FAMILIES.items() if family.packs]
LENGTHS = np.array([5, 9, 1, 12, 7])


# -- packed texts ------------------------------------------------------------------------------------------


def texts(model: LanguageModel) -> tuple[Tensor, Tensor]:
    """Token ids and mask, each [5, 12], of texts of :data:`LENGTHS`."""
    vocabulary, padding = model.encoder.config.vocab_size, model.encoder.config.pad_token_id
    ids = torch.randint(8, vocabulary, (len(LENGTHS), 12), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(12) < torch.from_numpy(LENGTHS)[:, None]).long()
    return ids.masked_fill(mask == 0, padding or 0), mask


@pytest.mark.parametrize("family", PACKING)
def test_packed_texts_have_the_states_and_gradients_of_padded_ones(family: str, tmp_path: Any) -> None:
    model = load_language_model(TINY[family].save(tmp_path), pooling="mean").eval()
    ids, mask = texts(model)
    weight = torch.randn(*ids.shape, 1, generator=torch.Generator().manual_seed(2)) * mask.unsqueeze(-1)
    padded = model(ids, mask)[0]
    expected = gradients(model, (padded * weight).sum())
    assert packed_attention.set_attention(model.encoder)
    packed = model._encode_packed(ids, LENGTHS)
    torch.testing.assert_close(packed[mask > 0], padded[mask > 0], atol=1e-5, rtol=1e-4)
    assert not packed[mask == 0].any()
    found = gradients(model, (packed * weight).sum())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-3, rtol=1e-3, msg=name)
    again = model(ids, mask)[0]  # what is not packed is padded as before
    torch.testing.assert_close(again[mask > 0], padded[mask > 0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["mpnet", "deberta-v2", "modernbert"])
def test_families_with_positions_of_their_own_are_not_packed(family: str, tmp_path: Any) -> None:
    assert not packed_attention.set_attention(load_language_model(TINY[family].save(tmp_path), pooling="mean").encoder)


def test_a_mask_is_made_without_asking_whether_it_is_needed(small_bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_language_model(small_bert).eval()
    packed_attention.set_attention(model.encoder)
    seen = []
    monkeypatch.setattr(
        packed_attention,
        "sdpa_attention_forward",
        lambda *given, **_: seen.append(given[4]) or (given[1].transpose(1, 2), None),
    )
    model(torch.full((2, 6), 9), torch.ones(2, 6, dtype=torch.long))
    assert seen and all(mask is not None for mask in seen)  # by default there is none where nothing is padded


def test_compiled_layers_have_the_weights_and_states_of_others(
    small_bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda self, **given: compiled.append((self, given)))
    compiled: list[Any] = []
    model = load_language_model(small_bert)
    before = list(model.state_dict())
    model.compile_layers()
    assert [layer for layer, _ in compiled] == list(model.encoder.encoder.layer)
    assert all(given == {"dynamic": True} for _, given in compiled)  # one shape after another would be compiled
    assert list(model.state_dict()) == before


@pytest.mark.parametrize(("key", "count"), [(True, 1), (False, 0)])
def test_layers_are_compiled_where_the_language_model_is_trained(
    key: bool, count: int, tiny: Callable[..., Any], small_bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[LanguageModel] = []
    monkeypatch.setattr(LanguageModel, "compile_layers", lambda self: calls.append(self))
    from recbole_alt.experiment import Experiment

    for frozen, expected in ((None, count), ("all", 0)):
        calls.clear()
        given = {"compile_language_model": key, "frozen_layers": frozen, "pretrain_steps": 1, "epochs": 1}
        with Experiment(tiny(language_model=small_bert, freeze_language_model=True, **given)) as run:
            run.pretrain()
            run.finetune("joint")  # in which the language model is frozen
        assert len(calls) == expected


# -- a batch on its way ------------------------------------------------------------------------------------


@dataclass
class Parts:
    numbers: Tensor
    names: list[Any]
    count: np.ndarray


def test_all_tensors_are_moved_and_nothing_else() -> None:
    device = torch.device("meta")
    count = np.arange(3)
    parts = Parts(torch.ones(2), [{"a": torch.ones(1)}, (torch.ones(3), "word")], count)
    there: Any = moved({"parts": parts, "rows": Interaction({"x": torch.arange(2)}), "none": None}, device)
    assert there["parts"].numbers.device == device == there["rows"]["x"].device
    assert there["parts"].names[0]["a"].device == there["parts"].names[1][0].device == device
    assert there["parts"].names[1][1] == "word" and there["parts"].count is count and there["none"] is None
    assert parts.numbers.device == CPU and parts.names[0]["a"].device == CPU  # what was given stays


@pytest.mark.parametrize("thread", [False, True])
def test_what_is_made_ahead_is_that_of_its_step(thread: bool) -> None:
    made: list[tuple[int, int]] = []

    def make(step: int) -> int:
        made.append((step, threading.get_ident()))
        return step * 10

    ahead = MadeAhead(make, thread=thread)
    assert ahead.get(0) == 0  # nothing was begun
    ahead.begin(1)
    assert ahead.get(1) == 10
    ahead.begin(2)
    assert ahead.get(7) == 70  # another than was begun
    assert ahead.get(2) == 20
    ahead.close()
    here = threading.get_ident()
    assert [step for step, where in made if where == here] == ([0, 7, 2] if thread else [0, 1, 7, 2])
    assert [step for step, where in made if where != here] == ([1, 2] if thread else [])


def test_an_error_comes_with_its_step_and_an_end_stops_the_thread() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("of step 2")
        return step

    threads, ahead = threading.active_count(), MadeAhead(make, thread=True)
    ahead.begin(1)
    assert ahead.get(1) == 1
    ahead.begin(2)
    with pytest.raises(ValueError, match="of step 2"):
        ahead.get(2)
    assert threading.active_count() == threads + 1
    ahead.begin(3)
    ahead.close()
    assert threading.active_count() == threads
    assert ahead.get(3) == 3
    ahead.begin(4)  # again
    assert ahead.get(4) == 4
    ahead.close()


def test_values_arrive_as_they_were() -> None:
    loss = torch.tensor(1.5, requires_grad=True)
    assert Arriving({"loss": loss, "hits": torch.tensor(0.25, dtype=torch.float64)}).read() == {
        "loss": 1.5,
        "hits": 0.25,
    }


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("asked", [True, False])
def test_a_gpu_repeats_exactly_where_asked(device: str, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", calls.append)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "as it was")
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    repeat_exactly({"device": torch.device(device), "reproducibility": asked})
    assert calls == [True] * (asked and device == "cuda")
    assert torch.backends.cudnn.allow_tf32 == (device == "cpu")
