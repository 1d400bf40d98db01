"""Masked tabular modelling: each loss against one written out by hand, and what must hold whatever the data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from recbole_alt.model.attention import SegmentStates, attend
from recbole_alt.model.objectives.masked_tabular import MaskedTabularObjective
from recbole_alt.model.objectives.value_scorer import FieldValues, ValueScorer, nce_loss, sampled_softmax_loss
from recbole_alt.model.targets import TargetField

LOSSES = ("nce", "sampled_softmax", "full_softmax")


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def masked_tabular(loss: str = "nce", n_noise: int = 6, seed: int = 0) -> MaskedTabularObjective:
    """Three fields: 5 values, 4 values, a sequence of 6 values; columns 0, 2 and 1 of the mask."""
    torch.manual_seed(seed)
    targets = [
        TargetField("a", 0, torch.tensor([7, 3, 1, 0, 4])),
        TargetField("b", 2, torch.tensor([0, 2, 2, 4])),
        TargetField("s", 1, torch.tensor([9, 1, 2, 3, 4, 5])),
    ]
    return MaskedTabularObjective(6, 8, targets, loss=loss, n_noise=n_noise, size=4)


def batch(rows: int = 5) -> tuple[Tensor, list[SegmentStates], list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(3, 4, 8, generator=generator)
    row = torch.tensor([0, 2, 1, 1, 0])[:rows]
    segments = [SegmentStates(states, torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]), states[:, 0], row)]
    values = [
        torch.tensor([1, 2, 4, 0, 1]),
        torch.tensor([3, 1, 2, 3, 0]),
        torch.tensor([[1, 5, 2], [3, 0, 0], [0, 0, 0], [4, 4, 0], [2, 1, 0]]),
    ]
    return torch.randn(rows, 6, generator=generator), segments, [v[:rows] for v in values]


def vectors_of(objective: MaskedTabularObjective, table: Tensor, segments: list[SegmentStates]) -> Tensor:
    """[B, fields, D] the vectors that score values: v̂ through norm, query, attention and Linear."""
    table = objective.table_norm(table)
    attended = attend(objective.query(table), segments)
    return objective.vectors(torch.cat([table, attended], 1)).view(len(table), len(objective.targets), -1)


def own(objective: MaskedTabularObjective, field: int, of_all: Tensor) -> np.ndarray:
    """The rows of a field's values in a tensor that has one for each value of all fields."""
    return of_all.detach().double().split(objective.scorer.sizes)[field].numpy()


def unigram(counts: list[int]) -> np.ndarray:
    q = np.array(counts, dtype=np.float64)
    q[0] = 0
    return q / q.sum()


def test_nce_written_out() -> None:
    """−log σ(Δ(true)) − Σ log σ(−Δ(noise)) with Δ(x) = log p_model(x) − log(k q(x))."""
    rng = np.random.default_rng(0)
    true, noise = rng.normal(size=(3, 1)), rng.normal(size=(3, 4))
    q_true, q_noise = rng.uniform(0.05, 0.5, (3, 1)), rng.uniform(0.05, 0.5, (3, 4))
    delta_true, delta_noise = true - np.log(4 * q_true), noise - np.log(4 * q_noise)
    expected = -np.log(sigmoid(delta_true))[:, 0] - np.log(sigmoid(-delta_noise)).sum(1)
    got = nce_loss(*(torch.tensor(x) for x in (true, noise, np.log(q_true), np.log(q_noise))))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("k", [1, 6, 25])
def test_nce_bias_starts_where_the_model_is_the_noise(k: int) -> None:
    """With zero vectors p_model = q, so Δ = −log k for every value, whichever noise is drawn."""
    objective = masked_tabular("nce", n_noise=k)
    scorer, embed = objective.scorer, objective.embeddings
    for i, target in enumerate(objective.targets):
        q = unigram(target.counts.tolist())
        seen = q > 0
        log_model = own(objective, i, scorer.bias) - scorer.norm_term
        np.testing.assert_allclose(np.exp(log_model)[seen], q[seen], rtol=1e-3)
        value = torch.tensor([v for v in range(len(q)) if seen[v]])
        values = FieldValues(value + scorer.first[i], torch.full_like(value, i), len(value))
        losses, _ = scorer.measure(torch.zeros(len(value), 4), values, embed, "nce", k)
        expected = -np.log(1 / (1 + k)) - k * np.log(1 - 1 / (1 + k))
        np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-4)


def test_nce_of_a_batch_against_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole objective, noise as drawn, every score and probability computed by hand."""
    drawn: list[np.ndarray] = []
    real = ValueScorer.noise

    def keep(*args: Any) -> Tensor:
        drawn.append(real(*args).numpy())
        return torch.from_numpy(drawn[-1])

    monkeypatch.setattr(ValueScorer, "noise", keep)
    objective = masked_tabular("nce")
    table, segments, values = batch()
    mask = torch.zeros(5, 3, dtype=torch.bool)
    mask[[0, 2], 0] = True  # field a, values 1 and 4
    mask[[0, 1], 1] = True  # field s, members 1 5 2 and 3
    loss, report = objective(table, segments, objective.hidden_values(mask, values))
    vectors = vectors_of(objective, table, segments).detach().double().numpy()
    (noise,) = drawn
    assert noise.shape == (6, 6)  # 6 noise values for each masked value
    total, hits = 0.0, 0.0
    wanted = [(0, 0, 1, 1.0), *((0, 2, v, 1 / 3) for v in (1, 5, 2)), (1, 2, 3, 1.0), (2, 0, 4, 1.0)]  # row by row
    for (row, field, value, share), numbers in zip(wanted, noise, strict=True):
        others, q = numbers - objective.scorer.first[field], unigram(objective.targets[field].counts.tolist())
        assert others.min() > 0 and others.max() < len(q)
        embedding, bias = (
            own(objective, field, objective.embeddings.weight),
            own(objective, field, objective.scorer.bias),
        )
        score = embedding @ vectors[row, field] + bias
        log_p = score - objective.scorer.norm_term
        true = -np.log(sigmoid(log_p[value] - np.log(6 * q[value])))
        total += share * (true - np.log(sigmoid(-(log_p[others] - np.log(6 * q[others])))).sum())
        hits += share * all(score[value] > score[o] for o in others if o != value)
    assert loss.item() == pytest.approx(total / 4, rel=1e-3)  # 2 of field a, 2 rows of field s
    assert report["value_accuracy"] == pytest.approx(hits / 4)


def test_sampled_softmax_removes_accidental_hits() -> None:
    score = np.array([[1.0, 0.2, -0.5]])
    noise = np.array([[0.3, 0.2, 0.1]])
    full = sampled_softmax_loss(
        *(torch.tensor(x) for x in (score[:, :1], score[:, 1:], np.log(noise[:, :1]), np.log(noise[:, 1:])))
    )
    corrected = score - np.log(noise)
    assert full.item() == pytest.approx(-log_softmax(corrected)[0, 0])

    # a value the vector is certain of has loss 0, although the noise holds it 200 times over
    objective = masked_tabular("sampled_softmax", n_noise=400)
    number = torch.tensor([objective.scorer.first[1] + 3])  # of field b, unigram 2:2:4
    with torch.no_grad():
        objective.embeddings.weight.zero_()
        objective.embeddings.weight[number, 0] = 50.0
    vector = torch.tensor([[1.0, 0, 0, 0]], requires_grad=True)
    values = FieldValues(number, torch.tensor([1]), 1)
    loss, first = objective.scorer.measure(vector, values, objective.embeddings, "sampled_softmax", 400)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert bool(first)
    assert torch.isfinite(vector.grad).all()


def test_full_softmax_against_numpy_without_mass_on_missing() -> None:
    objective = masked_tabular("full_softmax")
    table, segments, values = batch()
    mask = torch.zeros(5, 3, dtype=torch.bool)
    mask[[0, 1, 4], 0] = True
    loss, report = objective(table, segments, objective.hidden_values(mask, values))
    vectors = vectors_of(objective, table, segments).detach().double().numpy()[:, 0]
    score = vectors @ own(objective, 0, objective.embeddings.weight).T + own(objective, 0, objective.scorer.bias)
    log_p = log_softmax(score[[0, 1, 4], 1:])  # values 1..4 only: value 0 has no share
    assert loss.item() == pytest.approx(-log_p[np.arange(3), [0, 1, 0]].mean(), rel=1e-4)
    assert report["value_accuracy"] == pytest.approx((log_p.argmax(1) == [0, 1, 0]).mean())
    with torch.no_grad():
        objective.scorer.bias[0] = 1e6
    assert objective(table, segments, objective.hidden_values(mask, values))[0].item() == loss.item()


def test_members_of_a_sequence_share_one_unit() -> None:
    """A row with members 1, 5, 2 counts as much as a row with member 3, and as the mean of its own."""
    objective = masked_tabular("full_softmax")
    table, segments, values = batch()
    mask = torch.zeros(5, 3, dtype=torch.bool)
    mask[:2, 1] = True
    loss, _ = objective(table, segments, objective.hidden_values(mask, values))
    vectors = vectors_of(objective, table, segments).detach().double().numpy()[:2, 2]
    score = vectors @ own(objective, 2, objective.embeddings.weight).T + own(objective, 2, objective.scorer.bias)
    log_p = np.insert(log_softmax(score[:, 1:]), 0, 0, axis=1)
    assert loss.item() == pytest.approx((-log_p[0, [1, 5, 2]].mean() - log_p[1, 3]) / 2, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_missing_values_are_never_targets(loss: str) -> None:
    objective = masked_tabular(loss)
    table, segments, values = batch()
    mask = torch.zeros(5, 3, dtype=torch.bool)
    mask[3, 0] = mask[4, 2] = mask[2, 1] = True  # all missing
    total, report = objective(table.requires_grad_(), segments, objective.hidden_values(mask, values))
    assert total.item() == 0
    assert math.isnan(report["value_accuracy"])
    total.backward()
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())


@pytest.mark.parametrize("loss", LOSSES)
def test_an_empty_mask_gives_zero_and_zero_gradient(loss: str) -> None:
    objective = masked_tabular(loss)
    table, segments, values = batch()
    table.requires_grad_()
    total, _ = objective(table, segments, objective.hidden_values(torch.zeros(5, 3, dtype=torch.bool), values))
    total.backward()
    assert total.item() == 0
    assert not table.grad.any()
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_not_masked_does_not_matter(data: st.DataObject) -> None:
    """Unmasked values, and the tables of rows without any mask, never change the loss."""
    objective = masked_tabular("full_softmax")
    table, segments, values = batch()
    mask = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=5, max_size=5)))
    before, report = objective(table, segments, objective.hidden_values(mask, values))
    changed = [value.clone() for value in values]
    for i, target in enumerate(objective.targets):
        free = ~mask[:, target.column]
        changed[i][free] = torch.randint(0, len(target.counts), changed[i][free].shape)
    table = table.clone()
    table[~mask.any(1)] += 5.0
    after, again = objective(table, segments, objective.hidden_values(mask, changed))
    assert before.item() == pytest.approx(after.item(), abs=1e-6)
    assert str(report) == str(again)
    if mask.any(0)[0] and values[0][mask[:, 0]].any():  # and what is masked does matter
        table[mask[:, 0]] += torch.randn(6)
        assert objective(table, segments, objective.hidden_values(mask, changed))[0].item() != pytest.approx(
            after.item(), abs=1e-6
        )


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=30), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_noise_is_of_the_values_own_field_and_never_missing(counts: list[list[int]], seed: int) -> None:
    scorer = ValueScorer([torch.tensor(of_field) for of_field in counts], 1.0)
    field = torch.tensor([i for i, of_field in enumerate(counts) if len(of_field) > 1] or [0])
    assume(len(counts[field[0]]) > 1)  # where no field has a value, none is ever masked
    torch.manual_seed(seed)
    noise = scorer.noise(FieldValues(torch.zeros_like(field), field, len(field)), 200)
    for i, numbers in zip(field.tolist(), noise, strict=True):
        assert numbers.min() > scorer.first[i] and numbers.max() < scorer.first[i] + len(counts[i])


def test_noise_has_the_unigram_distribution() -> None:
    """Of two fields: each value is drawn as often as its share of the training rows says."""
    counts = [torch.tensor([5, 1, 0, 7, 2]), torch.tensor([0, 3, 97])]
    torch.manual_seed(0)
    drawn = 40_000
    noise = ValueScorer(counts, 1.0).noise(FieldValues(torch.tensor([1, 6]), torch.tensor([0, 1]), 2), drawn)
    for field, first, numbers in zip(counts, (0, 5), noise, strict=True):
        q = unigram(field.tolist())
        seen = np.bincount(numbers.numpy() - first, minlength=len(q)) / drawn
        np.testing.assert_allclose(seen, q, atol=4 * np.sqrt(0.25 / drawn))


def test_the_noise_of_many_values_adds_up_to_one() -> None:
    counts = [torch.randint(1, 9, (10_001,), generator=torch.Generator().manual_seed(n)) for n in range(3)]
    ends = ValueScorer(counts, 1.0)._cumulative[torch.tensor([10_000, 20_001, 30_002])]
    assert ends.tolist() == [1, 2, 3]


def test_the_extremes_of_what_is_drawn_stay_in_their_field(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = ValueScorer([torch.tensor([0, 1, 1])] * 50, 1.0)
    field = torch.arange(50)
    for extreme in (0.0, np.nextafter(1.0, 0.0)):
        monkeypatch.setattr(torch, "rand", lambda *size, x=extreme, **_: torch.full(size, x, dtype=torch.float64))
        noise = scorer.noise(FieldValues(field, field, 50), 1).squeeze(1)
        assert (noise - 3 * field).tolist() == [1 if extreme == 0 else 2] * 50
