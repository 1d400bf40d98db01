"""Row-wise AdamW: equal to immediate steps on whole tables, at a cost that does not grow with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from recbole_alt import checkpoints, processes
from recbole_alt.trainer.optim import decay_towards, scheduler, update
from recbole_alt.trainer.rowwise import RowwiseAdamW, lazy_rows, settle

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS, WIDTH = 7, 3


class Immediate:
    """AdamW with one second moment per row, of the whole table in each step; what the lazy one must come to."""

    def __init__(self, weight: Tensor, lr: float, decay: float, anchor: Tensor | float = 0.0):
        self.weight, self.lr, self.decay, self.anchor = weight.clone().double(), lr, decay, anchor
        self.first, self.second, self.steps = torch.zeros_like(self.weight), torch.zeros(len(weight)).double(), 0

    def step(self, grad: Tensor, factor: float = 1.0) -> None:
        lr, grad = self.lr * factor, grad.double()
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * grad
        self.second = 0.999 * self.second + 0.001 * grad.square().mean(1)
        of_first, of_second = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        self.weight -= lr * self.decay * (self.weight - self.anchor)
        self.weight -= lr * self.first / of_first / ((self.second / of_second).sqrt() + 1e-8).unsqueeze(1)


def table(seed: int = 0, rows: int = ROWS) -> nn.Embedding:
    torch.manual_seed(seed)
    return nn.Embedding(rows, WIDTH)


def train(made: nn.Embedding, optimizer: Any, batches: list[list[int]], wanted: Tensor, schedule: Any = None) -> None:
    """Steps towards the rows ``wanted``, each on the ids of a batch."""
    with lazy_rows(optimizer):
        for ids in batches:
            optimizer.zero_grad()
            rows = torch.tensor(ids, dtype=torch.long)
            (made(rows) - wanted[rows]).square().sum().backward()
            optimizer.step()
            if schedule:
                schedule.step()


batch_lists = st.lists(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=4), min_size=1, max_size=60)


@settings(deadline=None, max_examples=40)
@given(batches=batch_lists, decay=st.sampled_from([0.0, 0.3]), schedule=st.sampled_from(["constant", "cosine"]))
def test_lazy_rows_are_those_of_immediate_steps(batches: list[list[int]], decay: float, schedule: str) -> None:
    made = table()
    wanted, anchor = torch.ones(ROWS, WIDTH), torch.full((ROWS, WIDTH), 0.5)
    expected = Immediate(made.weight.detach(), 0.05, decay, 0.5)
    optimizer = RowwiseAdamW([made.weight], [made], lr=0.05, weight_decay=decay)
    decay_towards(optimizer, {made.weight: anchor})
    rates = scheduler(optimizer, schedule, len(batches), 0.2)
    for ids in batches:
        grad, rate = torch.zeros(ROWS, WIDTH), optimizer.param_groups[0]["lr"]
        for i in ids:
            grad[i] += 2 * (expected.weight[i].float() - wanted[i])
        expected.lr = rate
        expected.step(grad)
        train(made, optimizer, [ids], wanted, rates)
    settle(optimizer)
    assert torch.allclose(made.weight.double(), expected.weight, atol=2e-5)


def test_a_row_is_made_up_for_when_it_is_read_and_not_before() -> None:
    made, wanted = table(), torch.ones(ROWS, WIDTH)
    optimizer = RowwiseAdamW([made.weight], [made], lr=0.05, weight_decay=0.1)
    train(made, optimizer, [[0, 1]] + 400 * [[1]], wanted)
    stale, unread = made.weight[0].clone(), made.weight[2].clone()
    with lazy_rows(optimizer):
        read = made(torch.tensor([0])).detach()
    assert not torch.equal(read[0], stale) and torch.equal(made.weight[0], read[0])
    assert torch.equal(made.weight[2], unread)
    settle(optimizer)
    assert torch.allclose(made.weight[2], unread * (1 - 0.05 * 0.1) ** 401)  # only decay moves what was never read
    before = made.weight.clone()
    settle(optimizer)
    assert torch.equal(made.weight, before)


def test_more_steps_than_a_row_moves_for_and_than_are_kept_at_once() -> None:
    made, wanted = table(), torch.full((ROWS, WIDTH), 3.0)
    expected = Immediate(made.weight.detach(), 1e-3, 0.01)
    optimizer = RowwiseAdamW([made.weight], [made], lr=1e-3, weight_decay=0.01)
    batches = [[0, 1] if i % 700 == 0 else [1] for i in range(2200)]
    for ids in batches:
        grad = torch.zeros(ROWS, WIDTH)
        grad[ids] = 2 * (expected.weight[ids].float() - wanted[ids])
        expected.step(grad)
    train(made, optimizer, batches, wanted)
    settle(optimizer)
    assert torch.allclose(made.weight.double(), expected.weight, atol=1e-4)


def test_state_has_one_second_moment_per_row_and_is_taken_back_exactly() -> None:
    wanted, first, second = torch.ones(ROWS, WIDTH), table(), table()
    batches = [[i % ROWS, (3 * i) % ROWS] for i in range(30)]
    whole = RowwiseAdamW([first.weight], [first], lr=0.05)
    train(first, whole, batches, wanted)
    begun = RowwiseAdamW([second.weight], [second], lr=0.05)
    train(second, begun, batches[:11], wanted)
    assert begun.state[second.weight]["exp_avg_sq"].shape == (ROWS,)
    checkpoints.save({"optimizer": begun.state_dict(), "weight": second.weight.detach()}, "stopped.pth")
    kept, resumed = checkpoints.load("stopped.pth"), table(1)
    resumed.weight.data.copy_(kept["weight"])
    other = RowwiseAdamW([resumed.weight], [resumed], lr=0.05)
    other.load_state_dict(kept["optimizer"])
    train(resumed, other, batches[11:], wanted)
    assert torch.equal(first.weight, resumed.weight)
    for name, value in whole.state[first.weight].items():
        again = other.state[resumed.weight][name]
        assert torch.equal(value, again) and value.dtype == again.dtype if torch.is_tensor(value) else value == again


def test_a_dense_gradient_reads_all_rows() -> None:
    made, wanted = table(), torch.ones(ROWS, WIDTH)
    expected = Immediate(made.weight.detach(), 0.05, 0.0)
    optimizer = RowwiseAdamW([made.weight], [made], lr=0.05, weight_decay=0.0)
    for i in range(5):
        rows = torch.tensor([i])
        with lazy_rows(optimizer):
            optimizer.zero_grad()
            ((made(rows) - wanted[rows]).square().sum() + 0.1 * made.weight.square().sum()).backward()
            optimizer.step()
        grad = 0.2 * expected.weight
        grad[i] += 2 * (expected.weight[i] - 1)
        expected.step(grad)
    assert torch.allclose(made.weight.double(), expected.weight, atol=1e-5)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
def test_the_norm_of_sparse_gradients_is_that_of_dense_ones(norm_type: float) -> None:
    made, other = table(), nn.Linear(WIDTH, 1)
    model, ids = nn.ModuleList([made, other]), torch.tensor([2, 2, 4])
    clip, scaler = {"max_norm": 0.01, "norm_type": norm_type}, torch.amp.GradScaler("cpu", enabled=False)
    other(made(ids)).sum().backward()
    clip_grad_norm_(model.parameters(), **clip)
    dense = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    made.sparse, kept = True, []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer.register_step_pre_hook(lambda *_: kept.extend(p.grad.to_dense().clone() for p in model.parameters()))
    update(model, other(made(ids)).sum(), optimizer, scaler, None, clip)
    for one, same in zip(dense, kept, strict=True):
        assert torch.allclose(one, same)


def test_a_step_that_a_scaler_skips_changes_nothing() -> None:
    made = table()
    optimizer, scaler = RowwiseAdamW([made.weight], [made], fused=True), torch.amp.GradScaler("cpu", init_scale=4.0)
    before, ids = made.weight.detach().clone(), torch.tensor([1, 1])
    with lazy_rows(optimizer):
        update(made, made(ids).sum() * math.inf, optimizer, scaler, None, None)
        assert torch.equal(made.weight, before) and not optimizer.state
        optimizer.zero_grad()
        update(made, made(ids).sum(), optimizer, scaler, None, None)
    unscaled = Immediate(before, 1e-3, 1e-2)
    grad = torch.zeros(ROWS, WIDTH)
    grad[1] = 2.0
    unscaled.step(grad)
    settle(optimizer)
    assert torch.allclose(made.weight.double(), unscaled.weight, atol=1e-6)


def test_no_hook_and_no_sparse_gradient_stays() -> None:
    made = table()
    with lazy_rows(RowwiseAdamW([made.weight], [made])):
        assert made.sparse
    assert not made.sparse and not made._forward_pre_hooks


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ValueError, match=r"embedding_optimizer: rowwise trains in one process"):
        RowwiseAdamW([table().weight], [])


def test_it_needs_adamw(tiny: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"embedding_optimizer: rowwise needs learner: adamw, not sgd"):
        tiny(embedding_optimizer="rowwise", learner="sgd")
