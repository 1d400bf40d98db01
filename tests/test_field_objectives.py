"""The objectives of single fields against values written out by hand, and what they do to embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gradients
from torch import Tensor, nn

from recbole_alt.model.attention import SegmentStates
from recbole_alt.model.backbones import TableField
from recbole_alt.model.field_tables import FieldTable
from recbole_alt.model.objectives.field_contrastive import FieldContrastiveObjective
from recbole_alt.model.objectives.field_prediction import FieldPredictionObjective
from recbole_alt.model.objectives.fields import AlignedField, ValuesAndTexts, standardised

pytestmark = pytest.mark.usefixtures("one_thread")
USERS_AND_ITEMS = ["title", "year", "genre", "item_id", "user_id", "age", "gender"]
BOTH = ["field_contrastive", "field_prediction"]


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def table_of(kind: str, size: int = 9, offset: int = 2) -> FieldTable:
    torch.manual_seed(0)
    return FieldTable(TableField("field", kind, size), (nn.Embedding(20, 3), nn.Embedding(20, 2)), offset, False)


def read(kind: str, column: Tensor, row: list[int], rows: int | None = None) -> ValuesAndTexts:
    """What a batch of one segment with 4 texts, read by ``row``, and this column holds."""
    batch: Any = SimpleNamespace(complete=[SimpleNamespace(row=torch.tensor(row))], interaction={"field": column})
    return ValuesAndTexts.of(batch, AlignedField(table_of(kind).field, 0, 5), rows)


def states(held: ValuesAndTexts) -> Tensor:
    """Those of 4 texts that it names, [T, 6]."""
    pooled = torch.arange(24.0).view(4, 6).sin()
    return held.states(SegmentStates(pooled.unsqueeze(1), torch.ones(4, 1), pooled, torch.zeros(0)))


def test_values_and_texts_are_distinct_and_missing_values_left_out() -> None:
    found = read("token", torch.tensor([5, 3, 5, 0, 3, 5, 7]), [2, 0, 2, 1, 0, 0, 2])
    assert found.values.tolist() == [3, 5, 7]
    assert found.positive.tolist() == [[True, False], [True, True], [False, True]]  # with texts 0 and 2
    pooled = torch.arange(24.0).view(4, 6).sin()[[0, 2]]
    torch.testing.assert_close(states(found), standardised(pooled))
    assert found.texts.tolist() == [0, 2]
    assert read("token", torch.tensor([5, 3, 5, 0, 3, 5, 7]), [2, 0, 2, 1, 0, 0, 2], rows=3).values.tolist() == [3, 5]


def test_members_and_bins_are_values() -> None:
    found = read("token_seq", torch.tensor([[4, 2, 0], [2, 2, 0], [0, 0, 0]]), [1, 3, 0])
    assert found.values.tolist() == [2, 4] and found.positive.tolist() == [[True, True], [True, False]]
    bins = torch.tensor([[[1.0, 6.0]], [[1.0, 2.0]]])  # as RecBole has them: value, and row of the table
    found = read("float", bins, [3, 0])
    assert found.values.tolist() == [2, 6] and found.positive.tolist() == [[True, False], [False, True]]


def test_embeddings_lie_side_by_side_at_the_offset() -> None:
    table = table_of("token")
    expected = torch.cat([table.tables[0].weight[[5, 3]], table.tables[1].weight[[5, 3]]], 1)
    assert torch.equal(table(torch.tensor([3, 1])), expected) and table.width == 5


def test_standardised_vectors_have_no_mean_and_a_mean_square_length_of_one() -> None:
    vectors = standardised(torch.randn(7, 4).double() * 30 + 100)
    assert vectors.mean(0).abs().max() < 1e-12 and vectors.square().sum(1).mean().item() == pytest.approx(1)
    assert not standardised(torch.ones(3, 4)).any()


def contrastive(width: int = 5, **options: Any) -> FieldContrastiveObjective:
    torch.manual_seed(1)
    return FieldContrastiveObjective([AlignedField(TableField("field", "token", 9), 0, width)], 6, **options)


def test_field_contrast_is_bilinear_info_nce_over_values_and_texts() -> None:
    found, objective = read("token", torch.tensor([5, 3, 5, 8]), [2, 0, 0, 1]), contrastive(temperature=0.3)
    embedded = table_of("token")(found.values)
    loss, retrieval = objective(0, embedded, states(found), found.positive)
    weight = objective.heads[0].weight.detach().double()
    e, t = (x.detach().double() for x in (standardised(embedded), states(found)))
    similarity = (e @ (weight @ t.T) / 0.3).numpy()  # values 3, 5, 8; texts 0, 1, 2
    rows, columns = log_softmax(similarity), log_softmax(similarity.T)
    of_values = [rows[0, 0], (rows[1, 0] + rows[1, 2]) / 2, rows[2, 1]]
    of_texts = [(columns[0, 0] + columns[0, 1]) / 2, columns[1, 2], columns[2, 1]]
    assert loss.item() == pytest.approx(-(np.mean(of_values) + np.mean(of_texts)) / 2, rel=1e-5)
    nearest = similarity.argmax(0)
    assert retrieval.item() == pytest.approx(np.mean([nearest[0] in (0, 1), nearest[1] == 2, nearest[2] == 1]))


@pytest.mark.parametrize("loss", ["nce", "sampled_softmax", "full_softmax"])
def test_field_prediction_scores_by_the_models_own_embeddings(loss: str) -> None:
    counts = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5])
    torch.manual_seed(1)
    objective = FieldPredictionObjective(
        [AlignedField(TableField("field", "token_seq", 9), 0, 5)], [counts], 6, loss=loss, n_noise=4
    )
    found, table = read("token_seq", torch.tensor([[5, 3], [8, 0], [5, 0]]), [2, 1, 2]), table_of("token_seq")
    torch.manual_seed(2)
    got, first = objective(0, table, found, states(found))
    assert 0 <= first.item() <= 1
    if loss == "full_softmax":
        scores = objective.heads[0](states(found)) @ table(torch.arange(9)).T + objective.scorers[0].bias
        scores[:, 0] = -torch.inf
        lines = scores.log_softmax(1)  # of texts 1 and 2
        expected = -(lines[0, 8] + (lines[1, 3] + lines[1, 5]) / 2) / 2
        assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    for part in table.tables:
        part.weight.grad = None
    got.backward()
    for part in table.tables:
        assert part.weight.grad is not None
        taught = part.weight.grad.any(1).nonzero()[:, 0] - table.offset
        assert {3, 5, 8} <= set(taught.tolist()) <= set(range(1, 9))  # never padding, nor another field


# -- in an alignment ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_repeated_rows_change_nothing(scope: str, alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=BOTH, masked_tabular_loss="full_softmax", prompt_scope=scope)
    twice = b.dataset[np.arange(64) % 32]
    once = b.dataset[np.arange(32)]
    first, second = (
        b.model.eval()(b.model.prepare(rows, b.dataset.prompts.batches(rows), b.masks)) for rows in (once, twice)
    )
    for name in BOTH:
        assert second.losses[name].item() == pytest.approx(first.losses[name].item(), rel=1e-4)


def test_what_is_read_is_the_fields_side(alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=BOTH)
    names = [segment.name for segment in b.dataset.prompts.segments]
    sides = {field.name: names[field.segment] for field in b.model.objectives["field_contrastive"].fields}
    users, items = dict.fromkeys(("user_id", "age", "gender"), "user"), dict.fromkeys(("item_id", "year", "genre"))
    assert sides == users | dict.fromkeys(items, "item") | {"device": "context"}
    chosen = alignment(objectives=BOTH, aligned_fields=["genre", "item_id"])
    for name in BOTH:
        assert {field.name for field in chosen.model.objectives[name].fields} == {"item_id", "genre"}
    output = chosen.forward()
    table = chosen.model.backbone.model.token_embedding_table.embedding.weight
    offset = int(chosen.model.backbone.model.token_embedding_table.offsets[1])
    for loss in output.losses.values():
        taught = gradients(chosen.model, loss)["backbone.model.token_embedding_table.embedding.weight"].any(1).nonzero()
        assert len(taught) and taught.min() > offset and taught.max() < offset + 6 < len(table)  # 5 items after [PAD]


def test_fields_that_cannot_be_aligned_are_refused(alignment: Callable[..., Any]) -> None:
    for wrong in ("title", "nobody"):
        with pytest.raises(ValueError, match=rf"^aligned_fields: '{wrong}' must be one of user_id, item_id, .*genre$"):
            alignment(objectives=BOTH, aligned_fields=["item_id", wrong])
    without = {"exclude": ["title", "year", "genre", "item_id", "device"]}  # items and interactions have no text
    b = alignment(objectives=BOTH, template=without)
    assert {field.name for field in b.model.objectives["field_contrastive"].fields} == {"user_id", "age", "gender"}
    with pytest.raises(ValueError, match=r"^aligned_fields: 'item_id' must be one of user_id, age, gender$"):
        alignment(objectives=BOTH, template=without, aligned_fields=["item_id"])
    with pytest.raises(ValueError, match=r"^objectives: no field .* leave out field_contrastive and field_prediction$"):
        alignment("ALT_DSSM", objectives=BOTH, template={"exclude": USERS_AND_ITEMS})  # it reads no device


def test_nothing_to_tell_apart_is_zero_with_zero_gradient(alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=BOTH, aligned_fields=["device"])
    rows = b.dataset[(b.dataset.inter_feat["device"] == 0).nonzero()[:4, 0]]  # nobody knows with which
    output = b.model.train()(b.model.prepare(rows, b.dataset.prompts.batches(rows), b.masks))
    assert all(loss.item() == 0 and not gradients(b.model, loss) for loss in output.losses.values())
    assert all(math.isnan(value) for value in output.metrics.values()) and len(output.metrics) == 2


@pytest.mark.parametrize("name", BOTH)
def test_like_texts_get_like_embeddings(name: str) -> None:
    """20 values whose texts say one of 4 things: what the embeddings, and not only the heads, have learned."""
    torch.manual_seed(0)
    group = torch.arange(20) % 4
    texts = standardised(torch.randn(4, 6)[group] + 0.1 * torch.randn(20, 6))
    table = FieldTable(TableField("field", "token", 21), (nn.Embedding(21, 8),), 0, False)
    nn.init.xavier_normal_(table.tables[0].weight)
    found = ValuesAndTexts(torch.arange(1, 21), *[torch.arange(20)] * 3)
    field = AlignedField(table.field, 0, 8)
    objective: Any = (
        FieldContrastiveObjective([field], 6)
        if name == "field_contrastive"
        else FieldPredictionObjective([field], [torch.ones(21).long()], 6)
    )
    optimizer = torch.optim.AdamW([*objective.parameters(), table.tables[0].weight], lr=1e-2)

    def likeness() -> float:
        """The mean cosine of embeddings within a group, less that between groups."""
        vectors = nn.functional.normalize(standardised(table(found.values).detach()), dim=1)
        cosines, same = vectors @ vectors.T, group.unsqueeze(1) == group
        return float(cosines[same & ~torch.eye(20, dtype=torch.bool)].mean() - cosines[~same].mean())

    before = likeness()
    for _ in range(100):
        embedded = (table(found.values), texts, found.positive)
        loss, _ = objective(0, *embedded) if name == "field_contrastive" else objective(0, table, found, texts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(before) < 0.2 and likeness() > 0.5


def test_a_single_text_has_a_gradient_of_zero() -> None:
    vectors = torch.ones(1, 4, requires_grad=True)
    standardised(vectors).sum().backward()
    assert vectors.grad is not None and not vectors.grad.any()
