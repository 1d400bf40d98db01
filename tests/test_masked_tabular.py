"""Masked tabular modelling: each loss against one written out by hand, and what must hold whatever the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recbole_alt.model.attention import SegmentStates, attend
from recbole_alt.model.objectives.masked_tabular import MaskedTabularObjective
from recbole_alt.model.objectives.value_scorer import nce_loss, sampled_softmax_loss
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
    for target, scorer in zip(objective.targets, objective.values, strict=True):
        q = unigram(target.counts.tolist())
        seen = q > 0
        log_model = scorer.bias.detach().double().numpy() - scorer.norm_term
        np.testing.assert_allclose(np.exp(log_model)[seen], q[seen], rtol=1e-3)
        value = torch.tensor([v for v in range(len(q)) if seen[v]])
        losses, _ = scorer(torch.zeros(len(value), 4), value, "nce", k)
        expected = -np.log(1 / (1 + k)) - k * np.log(1 - 1 / (1 + k))
        np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-4)


def test_nce_of_a_batch_against_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole objective, noise as drawn, every score and probability computed by hand."""
    drawn: list[np.ndarray] = []
    real = torch.multinomial

    def keep(*args: object, **kwargs: object) -> Tensor:
        sample = real(*args, **kwargs)  # type: ignore[arg-type]
        drawn.append(sample.numpy())
        return sample

    monkeypatch.setattr(torch, "multinomial", keep)
    objective = masked_tabular("nce")
    table, segments, values = batch()
    mask = torch.zeros(5, 3, dtype=torch.bool)
    mask[[0, 2], 0] = True  # field a, values 1 and 4
    mask[[0, 1], 1] = True  # field s, members 1 5 2 and 3
    loss, report = objective(table, segments, objective.hidden_values(mask, values))
    vectors = vectors_of(objective, table, segments).detach().double().numpy()
    assert [len(d.ravel()) for d in drawn] == [2 * 6, 4 * 6]  # 6 noise values for each masked value
    total, hits = 0.0, 0.0
    wanted = [
        (0, [(0, 1, 1.0), (2, 4, 1.0)], drawn[0]),
        (2, [(0, v, 1 / 3) for v in (1, 5, 2)] + [(1, 3, 1)], drawn[1]),
    ]
    for field, members, noise in wanted:
        scorer, q = objective.values[field], unigram(objective.targets[field].counts.tolist())
        embedding, bias = scorer.embedding.weight.detach().double().numpy(), scorer.bias.detach().double().numpy()
        for (row, value, share), others in zip(members, noise.reshape(len(members), 6), strict=True):
            score = embedding @ vectors[row, field] + bias
            log_p = score - objective.norm_term
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
    scorer = objective.values[1]  # unigram 2:2:4
    with torch.no_grad():
        scorer.embedding.weight.zero_()
        scorer.embedding.weight[3, 0] = 50.0
    vector = torch.tensor([[1.0, 0, 0, 0]], requires_grad=True)
    loss, first = scorer(vector, torch.tensor([3]), "sampled_softmax", 400)
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
    scorer = objective.values[0]
    score = vectors @ scorer.embedding.weight.detach().double().numpy().T + scorer.bias.detach().double().numpy()
    log_p = log_softmax(score[[0, 1, 4], 1:])  # values 1..4 only: value 0 has no share
    assert loss.item() == pytest.approx(-log_p[np.arange(3), [0, 1, 0]].mean(), rel=1e-4)
    assert report["value_accuracy"] == pytest.approx((log_p.argmax(1) == [0, 1, 0]).mean())
    with torch.no_grad():
        scorer.bias[0] = 1e6
    assert objective(table, segments, objective.hidden_values(mask, values))[0].item() == loss.item()


def test_members_of_a_sequence_share_one_unit() -> None:
    """A row with members 1, 5, 2 counts as much as a row with member 3, and as the mean of its own."""
    objective = masked_tabular("full_softmax")
    table, segments, values = batch()
    mask = torch.zeros(5, 3, dtype=torch.bool)
    mask[:2, 1] = True
    loss, _ = objective(table, segments, objective.hidden_values(mask, values))
    vectors = vectors_of(objective, table, segments).detach().double().numpy()[:2, 2]
    scorer = objective.values[2]
    score = vectors @ scorer.embedding.weight.detach().double().numpy().T + scorer.bias.detach().double().numpy()
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
@given(counts=st.lists(st.integers(0, 50), min_size=2, max_size=30), seed=st.integers(0, 99))
def test_noise_never_draws_missing(counts: list[int], seed: int) -> None:
    drawn: list[Tensor] = []
    real = torch.multinomial
    objective = MaskedTabularObjective(3, 4, [TargetField("a", 0, torch.tensor(counts))], n_noise=200, size=2)
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", lambda *a, **k: drawn.append(real(*a, **k)) or drawn[-1])
        losses, _ = objective.values[0](torch.randn(2, 2), torch.tensor([1, len(counts) - 1]), "nce", 200)
    assert drawn
    assert drawn[0].min() > 0
    assert torch.isfinite(losses).all()
