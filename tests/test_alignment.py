"""The alignment model as it is built from a configuration: who gets a gradient, and what the loss is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import MINILM, gradients
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed
from torch import Tensor

from recbole_alt.data.steps import build_masking
from recbole_alt.model.build import build_alignment

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = ["contrastive", "masked_language", "masked_tabular"]


def parts(names: Iterator[str] | dict[str, Tensor]) -> set[str]:
    """``backbone``, ``text``, or ``objectives.<name>`` of each parameter."""
    return {".".join(n.split(".")[:2]) if n.startswith("objectives") else n.split(".")[0] for n in names}


# -- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_each_loss_reaches_its_towers_and_no_other_head(scope: str, alignment: Callable[..., Any]) -> None:
    b = alignment(prompt_scope=scope, objectives=ALL)
    output = b.forward()
    assert set(output.losses) == set(ALL)
    parameters = [name for name, _ in b.model.named_parameters()]
    for name, loss in output.losses.items():
        reached = gradients(b.model, loss)
        assert parts(reached) == {"backbone", "text", f"objectives.{name}"}
        heads = [n for n in parameters if n.startswith(f"objectives.{name}.")]
        unreached = [n for n in heads if n not in reached]
        assert not unreached, unreached
        assert "backbone.model.token_embedding_table.embedding.weight" in reached
        assert "text.language_model.encoder.embeddings.word_embeddings.weight" in reached
        fused = any("text.fusion" in n for n in reached)
        assert fused == (name == "contrastive" and scope == "entity")  # only the pooled state passes the fusion
        unread = [n for n in parameters if n.startswith("text.language_model") and n not in reached]
        assert all(n.endswith("key.bias") for n in unread), unread  # softmax does not see a key's bias


@pytest.mark.parametrize("name", ALL)
def test_a_single_objective_builds_only_what_it_needs(name: str, alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=[name])
    assert list(b.model.objectives) == [name]
    before = b.model.text.language_model.texts_encoded
    output = b.forward()
    encoded = b.model.text.language_model.texts_encoded - before
    distinct = sum(len(t.input_ids) for t in b.texts)
    with_mask = sum(int(m.any(1).sum()) for m in b.masks.tokens)
    assert encoded == (with_mask if name == "masked_language" else distinct)
    assert set(output.losses) == {name}
    alone = b.forward().losses[name].item()
    assert alone == output.losses[name].item()


def test_the_complete_text_is_encoded_once_for_both_that_read_it(alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=ALL)
    b.forward()
    distinct = sum(len(t.input_ids) for t in b.texts)
    with_mask = sum(int(m.any(1).sum()) for m in b.masks.tokens)
    assert b.model.text.language_model.texts_encoded == distinct + with_mask


# -- the sum -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["ALT_DCN", "ALT_DeepFM", "ALT_xDeepFM"])
def test_loss_is_the_weighted_sum_and_the_regulariser(model: str, alignment: Callable[..., Any]) -> None:
    weights = {"contrastive": 0.5, "masked_tabular": 3.0}
    b = alignment(model, objectives=ALL, objective_weights=weights)
    output = b.forward()
    table = b.model.backbone(b.rows)
    expected = b.model.backbone.regulariser(b.rows, table)
    for name, loss in output.losses.items():
        expected = expected + weights.get(name, 1.0) * loss
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    together = gradients(b.model, output.loss)
    separate = {n: torch.zeros_like(p) for n, p in b.model.named_parameters()}
    for name, loss in output.losses.items():
        for n, gradient in gradients(b.model, loss).items():
            separate[n] += weights.get(name, 1.0) * gradient
    for n, gradient in gradients(
        b.model, expected - sum(weights.get(k, 1.0) * v for k, v in output.losses.items())
    ).items():
        separate[n] += gradient
    for n, gradient in separate.items():
        torch.testing.assert_close(together.get(n, torch.zeros_like(gradient)), gradient, atol=1e-5, rtol=1e-3, msg=n)


def test_a_weight_of_zero_takes_an_objective_out(alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=ALL, objective_weights={"contrastive": 0.0, "masked_language": 0.0})
    assert not {"objectives.contrastive", "objectives.masked_language"} & parts(gradients(b.model, b.forward().loss))


def test_weights_of_unknown_objectives_are_refused(alignment: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"objective_weights.*masked_language"):
        alignment(objectives=["contrastive"], objective_weights={"masked_language": 2.0})
    with pytest.raises(ValueError, match="objectives"):
        alignment(objectives=[])


# -- labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_labels_change_nothing(scope: str, alignment: Callable[..., Any]) -> None:
    b = alignment(prompt_scope=scope, objectives=ALL)
    first = b.forward()
    expected = gradients(b.model, first.loss)
    label = b.config["LABEL_FIELD"]
    for other in (1 - b.rows[label], torch.full_like(b.rows[label], torch.nan), None):
        rows = type(b.rows)(dict(b.rows.interaction))
        if other is None:
            del rows.interaction[label]
        else:
            rows.interaction[label] = other
        again = b.forward(rows)
        assert again.loss.item() == first.loss.item()
        got = gradients(b.model, again.loss)
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[n], expected[n]) for n in got)


# -- masks and variants ------------------------------------------------------------------------------------


@pytest.mark.parametrize("masking", [{"mask_level": "token"}, {"mask_fields": "shared"}, {"mask_ratio": 1.0}])
@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_every_kind_of_mask(masking: dict[str, Any], scope: str, alignment: Callable[..., Any]) -> None:
    b = alignment(prompt_scope=scope, objectives=ALL, **masking)
    output = b.forward()
    assert torch.isfinite(output.loss)
    assert all(loss.item() > 0 for loss in output.losses.values())
    assert parts(gradients(b.model, output.loss)) == {"backbone", "text", *(f"objectives.{name}" for name in ALL)}


def test_rows_without_masks_give_finite_losses(alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=ALL)
    for tokens in b.masks.tokens:
        tokens.zero_()
    b.masks.table.zero_()
    output = b.forward()
    assert output.losses["masked_language"].item() == output.losses["masked_tabular"].item() == 0
    assert parts(gradients(b.model, output.losses["masked_language"])) == set()
    assert parts(gradients(b.model, output.losses["masked_tabular"])) == set()
    assert torch.isfinite(output.loss)


@pytest.mark.parametrize("loss", ["nce", "sampled_softmax", "full_softmax"])
def test_every_masked_tabular_loss_learns(loss: str, alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=["masked_tabular"], masked_tabular_loss=loss, reg_weight=0.0, mask_ratio=0.5)
    optimizer = torch.optim.AdamW(b.model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        output = b.forward()
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.losses["masked_tabular"].item())
    assert losses[-1] < 0.8 * losses[0]
    assert 0 <= output.metrics["value_accuracy"] <= 1


@pytest.mark.parametrize("vocabulary", ["prompts", "full"])
def test_the_vocabulary_holds_every_masked_token(vocabulary: str, alignment: Callable[..., Any]) -> None:
    b = alignment(objectives=["masked_language"], masked_language_vocabulary=vocabulary, prompt_scope="interaction")
    classes = set(b.model.objectives["masked_language"].token_ids.tolist())
    values = set()
    for text in b.dataset.prompts.batches(b.dataset[:]):
        values |= set(text.input_ids[text.field_ids >= 0].tolist())
    assert values <= classes
    assert len(classes) == (30522 if vocabulary == "full" else len(b.dataset.prompts.value_token_ids))
    assert b.forward().losses["masked_language"].item() < 3 * torch.tensor(float(len(classes))).log()


@pytest.mark.parametrize("most", [1, 7, 10**6])
def test_of_many_masked_tokens_some_are_predicted(most: int, alignment: Callable[..., Any]) -> None:
    every, some = (
        alignment(objectives=["masked_language"], masked_language_positions=number, reg_weight=0.0)
        for number in (None, most)
    )
    prepared = [b.model.eval().prepare(b.rows, b.texts, b.masks) for b in (every, some)]
    (all_of, rows, tokens, _), (scored, row, token, _) = (batch.prepared["masked_language"] for batch in prepared)
    assert len(all_of) > 10 and torch.equal(all_of, torch.arange(len(all_of)))
    assert (
        len(scored) == min(most, len(all_of)) and torch.equal(row, rows[scored]) and torch.equal(token, tokens[scored])
    )
    assert scored.diff().max() - scored.diff().min() <= 1 if most == 7 else len(set(scored.tolist())) == len(scored)
    objective = every.model.objectives["masked_language"]
    seen: list[Any] = []
    handle = objective.register_forward_pre_hook(lambda module, given: seen.append(given))
    every.model(prepared[0])
    handle.remove()
    states, table, target = seen[0]
    expected = objective(states[scored], table[scored], target[scored])[0]
    assert some.model(prepared[1]).losses["masked_language"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_with_real_weights(alignment: Callable[..., Any]) -> None:
    b = alignment(language_model=MINILM, objectives=ALL)
    output = b.forward()
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert b.model.text.language_model.encoder.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_no_gradient_depends_on_the_order_of_threads(tiny: Callable[..., Any]) -> None:
    """Indexing with repeated rows adds gradients in an order that changes from run to run (``IndexBackward``)."""
    config = tiny(objectives=[*ALL, "field_contrastive", "field_prediction"])
    init_seed(1, True)
    dataset = data_preparation(config, create_dataset(config))[0]._dataset
    model = build_alignment(config, dataset, get_model("DCN"))
    texts = dataset.prompts.batches(dataset[:32])
    masks = build_masking(config, dataset.prompts, [f.name for f in model.backbone.fields]).draw(
        texts, 32, torch.Generator().manual_seed(1)
    )
    pending, seen, repeated = [model(model.prepare(dataset[:32], texts, masks)).loss.grad_fn], set(), []
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__.startswith("IndexBackward"):
            indices = [index for index in node._saved_indices if index is not None]
            flat = torch.stack(
                [i.expand(torch.broadcast_shapes(*(j.shape for j in indices))).flatten() for i in indices]
            )
            if flat.dtype != torch.bool and flat.unique(dim=1).shape[1] < flat.shape[1]:
                repeated.append(node)
        pending.extend(parent for parent, _ in node.next_functions)
    assert not repeated
