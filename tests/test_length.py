"""How long an alignment is: what is given holds exactly, and else it ends when it has stopped to improve."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interruptions import Stopped, stop_at
from recbole.utils import get_model

from recbole_alt import checkpoints, run_recbole_alt
from recbole_alt.files import read_record
from recbole_alt.loading import load_data
from recbole_alt.model.alignment import AlignmentModel
from recbole_alt.model.build import build_alignment
from recbole_alt.trainer import length, pretrain
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

pytestmark = pytest.mark.usefixtures("one_thread")
Keys = Callable[..., dict[str, Any]]
ONLY_ALIGNMENT: dict[str, Any] = {"finetune_modes": [], "plain_baseline": False}


@given(losses=st.lists(st.floats(0.01, 10), max_size=8), patience=st.integers(1, 4))
def test_falling_stops_where_no_loss_of_the_last_is_lower(losses: list[float], patience: int) -> None:
    stopped = length.has_stopped_falling(losses, patience)
    if len(losses) <= patience:
        assert not stopped
    else:
        before, last = losses[:-patience], losses[-patience:]
        if min(last) < 0.99 * min(before):
            assert not stopped
        if min(last) >= min(before):
            assert stopped
    lower = min(losses, default=1) / 2
    assert not length.has_stopped_falling([*losses, lower], patience)


def test_a_tenth_of_a_percent_is_no_improvement() -> None:
    assert length.has_stopped_falling([1.0, 0.9995, 0.9991], 2)
    assert not length.has_stopped_falling([1.0, 0.9995, 0.9989], 2)


@pytest.fixture
def trainer(tiny: Callable[..., Any], small_bert: str, tmp_path: Path) -> Callable[..., ALTPretrainTrainer]:
    """``trainer(**keys)`` → a trainer of the alignment on ``tiny``, whose 128 training rows come in shuffled 32."""

    def make(**keys: Any) -> ALTPretrainTrainer:
        given = {"language_model": small_bert, "batch_sampling": "shuffle", "pretrain_steps": "auto"} | keys
        config = tiny(**given)
        train = load_data(config)[1]._dataset
        model = build_alignment(config, train, get_model("DCN"))
        return ALTPretrainTrainer(config, model, train, tmp_path / "pretrain.pth")

    return make


@pytest.mark.parametrize(
    ("keys", "steps", "held_out"),
    [
        ({}, 100, 12),
        ({"pretrain_steps": None}, 100, 12),
        ({"pretrain_steps": 7}, 7, 0),
        ({"pretrain_steps": 7, "pretrain_epochs": 3}, 7, 0),
        ({"pretrain_epochs": 3}, 12, 0),
        ({"pretrain_steps": None, "pretrain_epochs": 3}, 12, 0),
        ({"pretrain_stopping_step": 0}, 100, 0),
        ({"pretrain_stopping_step": None}, 100, 0),
        ({"pretrain_steps": 7, "pretrain_stopping_step": 2}, 7, 12),
        ({"pretrain_steps": 0, "pretrain_stopping_step": 2}, 0, 0),
    ],
    ids=str,
)
def test_steps_and_epochs_hold_as_given(
    keys: dict[str, Any], steps: int, held_out: int, trainer: Callable[..., ALTPretrainTrainer]
) -> None:
    made = trainer(**keys)
    assert made.total_steps == steps
    assert len(made.dataset) == 128 - held_out
    assert (0 if made.held_out is None else len(made.held_out)) == held_out


def triplets(rows: Any) -> list[tuple[float, ...]]:
    return list(zip(*(rows[k].tolist() for k in ("user_id", "item_id", "timestamp")), strict=True))


def test_it_trains_on_no_row_that_it_is_measured_on(
    trainer: Callable[..., ALTPretrainTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, set[tuple[float, ...]]] = {True: set(), False: set()}
    masks: list[torch.Tensor] = []
    align = AlignmentModel.forward

    def forward(self: Any, batch: Any) -> Any:
        seen[self.training] |= set(triplets(batch.interaction))
        if not self.training:
            assert not torch.is_grad_enabled()
            masks.append(batch.table_mask)
        return align(self, batch)

    monkeypatch.setattr(AlignmentModel, "forward", forward)
    made = trainer(pretrain_steps=16, pretrain_stopping_step=99)
    made.fit(show_progress=False)
    train = triplets(made._all_rows[:])
    assert seen[True] | seen[False] == set(train) and len(seen[False]) == 12 and not seen[True] & seen[False]
    assert len(masks) == 16 and all(torch.equal(mask, masks[0]) for mask in masks)
    assert made.model.training


def test_measuring_changes_nothing_that_is_trained(trainer: Callable[..., ALTPretrainTrainer]) -> None:
    made = trainer()
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    states = torch.get_rng_state()
    losses = {length.held_out_loss(made.model, made.held_out, made.masking, 3, made.device) for _ in range(2)}
    assert len(losses) == 1
    assert torch.equal(torch.get_rng_state(), states)
    assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())
    for objective in made.model.objectives:
        made.model.weights[objective] = 2.0
    twice = length.held_out_loss(made.model, made.held_out, made.masking, 3, made.device)
    assert twice == pytest.approx(2 * losses.pop())


def test_an_alignment_that_stops_improving_ends_and_says_why(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = iter([3.0, 2.0, 2.5, 2.0, 2.1, 1.0])
    monkeypatch.setattr(pretrain, "held_out_loss", lambda *_: next(scripted))
    made = run_recbole_alt("ALT_DCN", "tiny", None, keys(pretrain_steps="auto", **ONLY_ALIGNMENT))
    kept = read_record(Path(made["folder"]) / "pretrain.json")["details"]
    expected = {"steps": 25, "planned_steps": 100, "ended_by": "held_out_loss", "held_out_rows": 12}
    expected["held_out_losses"] = [3.0, 2.0, 2.5, 2.0, 2.1]
    for details in (kept, made["record"]["stages"]["pretrain"]):
        assert {key: details[key] for key in expected} == expected
        assert details["final"].keys() >= {"loss/contrastive", "accuracy/retrieval"}
    state = checkpoints.load(Path(made["folder"]) / "pretrain.pth")
    assert (state["step"], state["total_steps"], state["ended_by"]) == (25, 100, "held_out_loss")
    whole = run_recbole_alt("ALT_DCN", "tiny", None, keys(**ONLY_ALIGNMENT))["record"]["stages"]["pretrain"]
    assert (whole["steps"], whole["planned_steps"], whole["ended_by"], whole["held_out_losses"]) == (4, 4, "steps", [])


@pytest.mark.parametrize("stopped", [*(pytest.param(step, marks=pytest.mark.slow) for step in (7, 12)), 11])
def test_an_alignment_that_ends_early_goes_on_as_if_never_stopped(
    stopped: int, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured after every second of 30 steps, it ends after 12: stopped before, just before and just after that."""
    monkeypatch.setattr(length, "_TOLERANCE", 0.9)  # nothing improves on the first loss
    monkeypatch.setattr(pretrain, "measured_every", lambda steps: 2)
    given = keys(pretrain_steps=30, pretrain_stopping_step=5, checkpoint_seconds=0, **ONLY_ALIGNMENT)
    whole = run_recbole_alt("ALT_DCN", "tiny", None, given)
    with monkeypatch.context() as patch:
        stop_at(patch, ALTPretrainTrainer, stopped)
        with pytest.raises(Stopped) if stopped < 12 else nullcontext():
            run_recbole_alt("ALT_DCN", "tiny", None, given | {"checkpoint_dir": "stopped"})
    for record in Path("stopped").glob("*/pretrain.json"):  # as if it had been stopped between weights and record
        record.unlink()
    with monkeypatch.context() as patch:
        done = stop_at(patch, ALTPretrainTrainer, None)
        resumed = run_recbole_alt("ALT_DCN", "tiny", None, given | {"checkpoint_dir": "stopped", "resume": "last"})
    assert done[0] == 12 - stopped
    one, two = (run["record"]["stages"]["pretrain"] for run in (whole, resumed))
    of_the_machine = {"seconds": 0, "peak_memory_mib": 0}
    assert one | of_the_machine == two | of_the_machine
    assert (one["steps"], len(one["held_out_losses"])) == (12, 6)
    states = [checkpoints.load(Path(run["folder"]) / "pretrain.pth") for run in (whole, resumed)]
    for part in ("backbone", "text", "objectives"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items()), part
