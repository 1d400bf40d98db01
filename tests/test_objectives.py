"""The contrastive and the masked-language objective against values written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_alt.model.objectives.contrastive import ContrastiveObjective, info_nce
from recbole_alt.model.objectives.masked_language import MaskedLanguageObjective


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


# -- contrastive -------------------------------------------------------------------------------------------


def symmetric_info_nce(similarity: np.ndarray) -> float:
    rows, columns = log_softmax(similarity), log_softmax(similarity.T)
    return float(-(np.diag(rows).mean() + np.diag(columns).mean()) / 2)


def test_info_nce_is_the_symmetric_cross_entropy() -> None:
    similarity = np.array([[2.0, 0.5, -1.0], [0.0, 1.0, 3.0], [0.3, -0.2, 0.1]])
    loss, report = info_nce(torch.tensor(similarity))
    assert loss.item() == pytest.approx(symmetric_info_nce(similarity))
    assert loss.item() == pytest.approx(info_nce(torch.tensor(similarity.T.copy()))[0].item())
    assert report["retrieval"] == pytest.approx(1 / 3)  # only row 0 is nearest to its own


def projections(rows: int, texts: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random tables [rows, 6], the random texts [rows, 6] of ``texts``, and these numbers."""
    generator = torch.Generator().manual_seed(seed)
    table, distinct = torch.randn(rows, 6, generator=generator), torch.randn(max(texts) + 1, 6, generator=generator)
    return table.double(), distinct[texts].double(), torch.tensor(texts)


def same(texts: Tensor | None) -> Tensor | None:
    """bool [B, B], where rows have the same number."""
    return None if texts is None else texts.unsqueeze(1) == texts


def test_numbers_of_distinct_texts_change_nothing() -> None:
    table, text, _ = projections(50, list(range(50)))
    numbers = torch.randperm(50, generator=torch.Generator().manual_seed(1)) * 3
    for given in (None, numbers):
        similarity = (table @ text.T).requires_grad_()
        loss, metrics = info_nce(similarity, same(given))
        plain = (F.cross_entropy(similarity, torch.arange(50)) + F.cross_entropy(similarity.T, torch.arange(50))) / 2
        torch.testing.assert_close(loss, plain)
        (gradient,) = torch.autograd.grad(loss, similarity, retain_graph=True)
        torch.testing.assert_close(gradient, torch.autograd.grad(plain, similarity)[0])
        assert metrics["retrieval"] == pytest.approx((similarity.argmax(1) == torch.arange(50)).double().mean().item())


def test_soft_targets_are_spread_over_equal_texts_in_both_directions() -> None:
    texts = [0, 1, 0, 2, 0, 1]
    similarity = torch.randn(6, 6, generator=torch.Generator().manual_seed(2)).double()
    rows, columns = log_softmax(similarity.numpy()), log_softmax(similarity.numpy().T)
    expected = [
        -np.mean([line[i, j] for j in range(6) if texts[j] == texts[i]]) for line in (rows, columns) for i in range(6)
    ]
    assert info_nce(similarity, same(torch.tensor(texts)))[0].item() == pytest.approx(np.mean(expected))


def test_a_perfect_alignment_of_equal_texts_reaches_the_entropy_and_rests_there() -> None:
    texts = torch.tensor([0, 1, 0, 2, 0, 1])
    vectors = torch.eye(3).double()[texts]
    table, text = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    loss, metrics = info_nce(table @ text.T * 60, same(texts))
    entropy = sum(math.log(n) * n for n in (3, 2, 1)) / 6
    assert loss.item() == pytest.approx(entropy, abs=1e-9) and metrics["retrieval"] == 1
    for gradient in torch.autograd.grad(loss, [table, text]):
        assert gradient.abs().max() < 1e-9
    assert info_nce(torch.eye(6).double() * 60, same(texts))[0] > entropy + 10  # told apart, though they say the same


def test_equal_texts_are_not_pushed_apart_where_dropout_makes_their_projections_differ() -> None:
    text = torch.tensor([[1.0, 0.6], [1.0, -0.6], [-1.0, 0.0]])  # the first two are one text
    table = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]], requires_grad=True)

    def apart(number: Tensor | None) -> float:
        """How much further apart a step down the gradient takes the first two tables."""
        (gradient,) = torch.autograd.grad(info_nce(table @ text.T, same(number))[0], table)
        return float(gradient[1, 1] - gradient[0, 1])

    assert apart(torch.tensor([0, 0, 1])) < 0 < apart(None)


def test_equal_projections_of_equal_texts_have_the_loss_of_one_positive() -> None:
    table, text, texts = projections(7, [0, 1, 0, 2, 0, 1, 3])
    table.requires_grad_()
    soft, hard = (info_nce(table @ text.T, same(number))[0] for number in (texts, None))
    assert soft.item() == pytest.approx(hard.item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(soft, table)[0], torch.autograd.grad(hard, table)[0])


def test_retrieval_counts_distinct_texts_and_shares_ties() -> None:
    def retrieval(similarity: list[list[float]], texts: list[int]) -> float:
        return info_nce(torch.tensor(similarity), same(torch.tensor(texts)))[1]["retrieval"]

    nearest = [[0.0, 1, 0], [0, 1, 0], [0, 0, 1]]  # rows 0 and 1 are nearest to the text of row 1
    assert retrieval(nearest, [0, 1, 2]) == pytest.approx(2 / 3)
    assert retrieval(nearest, [7, 7, 2]) == 1
    assert retrieval([[1.0, 1, 1]] * 3, [0, 1, 2]) == pytest.approx(1 / 3)
    assert retrieval([[1.0, 1, 1]] * 3, [0, 0, 2]) == pytest.approx(1 / 2)  # of two texts, not of three rows


@pytest.mark.parametrize(("head", "temperature"), [("published", 0.7), ("batchnorm", 0.07)])
def test_contrastive_value_and_default_temperature(head: str, temperature: float) -> None:
    torch.manual_seed(0)
    objective = ContrastiveObjective(6, 5, size=4, head=head).eval()
    table, text = torch.randn(7, 6), torch.randn(7, 5)
    a, b = (h(x).detach().double().numpy() for h, x in ((objective.table_head, table), (objective.text_head, text)))
    loss, report = objective(table, text)
    similarity = a @ b.T / temperature
    assert loss.item() == pytest.approx(symmetric_info_nce(similarity), rel=1e-4)
    assert report["retrieval"] == pytest.approx((similarity.argmax(1) == np.arange(7)).mean())
    assert (np.linalg.norm(a, axis=1) == pytest.approx(1)) == (head == "batchnorm")  # the paper's has no L2 norm


def test_published_head_is_the_papers() -> None:
    """Linear→GELU→Linear→dropout→residual→LayerNorm, written out."""
    torch.manual_seed(0)
    head = ContrastiveObjective(6, 5, size=4, head="published").table_head.eval()
    x = torch.randn(3, 6)
    (w1, b1), (w2, b2) = [
        (m.weight.detach().numpy(), m.bias.detach().numpy()) for m in head.modules() if isinstance(m, torch.nn.Linear)
    ]
    projected = x.numpy() @ w1.T + b1
    gelu = np.vectorize(lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))))(projected)
    summed = projected + gelu @ w2.T + b2
    centred = summed - summed.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(head(x).detach().numpy(), expected, atol=1e-5)


def test_contrast_rows_takes_the_first_rows_only() -> None:
    torch.manual_seed(0)
    objective = ContrastiveObjective(6, 5, size=4, max_rows=4)
    table, text = torch.randn(9, 6), torch.randn(9, 5)
    whole = objective(table, text)[0]
    assert whole.item() == objective(table[:4], text[:4])[0].item()
    assert whole.item() != pytest.approx(ContrastiveObjective(6, 5, size=4)(table, text)[0].item())


def saddle_pairs(rows: int = 64) -> tuple[Tensor, Tensor]:
    """Both sides almost constant: tiny embeddings against a bias, a pooled state that hardly varies."""
    generator = torch.Generator().manual_seed(1)
    table = torch.ones(24) + 1e-3 * torch.randn(rows, 24, generator=generator)
    text = torch.linspace(-1, 1, 32) + 1e-2 * torch.randn(rows, 32, generator=generator)
    return table, text


def test_contrast_starts_from_the_saddle_with_the_default_head() -> None:
    torch.manual_seed(0)
    table, text = saddle_pairs()
    objective = ContrastiveObjective(24, 32)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    losses, retrieval = [], []
    for _ in range(60):
        loss, report = objective(table, text)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        retrieval.append(report["retrieval"])
    assert losses[-1] < 0.5 * math.log(len(table))
    assert retrieval[0] < 0.2
    assert retrieval[-1] > 0.8


# -- masked language ---------------------------------------------------------------------------------------


def test_masked_language_is_cross_entropy_over_the_prompts_tokens() -> None:
    torch.manual_seed(0)
    objective = MaskedLanguageObjective(6, 4, torch.tensor([70, 12, 45])).eval()  # classes 12, 45, 70
    states, table, target = torch.randn(5, 6), torch.randn(5, 4) * 50, torch.tensor([45, 12, 70, 70, 45])
    loss, report = objective(states, table, target)
    logits = objective.layers(torch.cat([states, objective.table_norm(table)], 1)).detach().double().numpy()
    assert logits.shape == (5, 3)
    own = np.array([1, 0, 2, 2, 1])
    assert loss.item() == pytest.approx(-log_softmax(logits)[np.arange(5), own].mean(), rel=1e-5)
    assert report["token_accuracy"] == pytest.approx((logits.argmax(1) == own).mean())


def test_masked_language_reads_the_table() -> None:
    torch.manual_seed(0)
    objective = MaskedLanguageObjective(6, 4, torch.arange(9)).eval()
    states, table, target = torch.randn(5, 6), torch.randn(5, 4, requires_grad=True), torch.arange(5)
    loss, _ = objective(states, table, target)
    (gradient,) = torch.autograd.grad(loss, table)
    assert gradient.abs().sum(1).min() > 0


def test_masked_language_of_nothing_is_zero_with_zero_gradient() -> None:
    objective = MaskedLanguageObjective(6, 4, torch.arange(9))
    states, table = torch.zeros(0, 6, requires_grad=True), torch.zeros(0, 4, requires_grad=True)
    loss, report = objective(states, table, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert math.isnan(report["token_accuracy"])
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())
