"""The alignment model as it is built from a configuration: who gets a gradient, and what the loss is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import MINILM, pooled_states
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed
from torch import Tensor

from recbole_alt.data.build import build_batches, build_masking
from recbole_alt.data.masking import step_generator
from recbole_alt.model.build import build_alignment
from recbole_alt.model.kept_texts import KeptTexts, TextsOfStep

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = ["contrastive", "masked_language", "masked_tabular"]


@pytest.fixture
def built(tiny: Callable[..., Any], small_bert: str) -> Callable[..., SimpleNamespace]:
    """``built(**keys)`` → the model, one batch of 32 training rows, its texts and masks."""

    def build(model: str = "ALT_DCN", **keys: Any) -> SimpleNamespace:
        keys = {"language_model": small_bert, "mask_ratio": 0.4, "reg_weight": 0.3} | keys
        config = tiny(model, **keys)
        init_seed(3, True)
        dataset = data_preparation(config, create_dataset(config))[0]._dataset
        alignment = build_alignment(config, dataset, get_model(model.removeprefix("ALT_")))
        rows = dataset[build_batches(config, dataset, 32)(0)]
        texts = dataset.prompts.batches(rows)
        masks = build_masking(config, dataset.prompts, [f.name for f in alignment.backbone.fields]).draw(
            texts, len(rows), step_generator(1, 0, 0)
        )
        return SimpleNamespace(
            config=config, dataset=dataset, model=alignment, rows=rows, texts=texts, masks=masks,
            forward=lambda rows=rows: run(alignment, rows, texts, masks),
        )  # fmt: skip

    return build


def run(model: Any, rows: Any, texts: Any, masks: Any) -> Any:
    """One training forward, with the same dropout and noise each time."""
    torch.manual_seed(11)
    return model.train()(rows, texts, masks)


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    """Non-zero gradients by parameter name."""
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def parts(names: Iterator[str] | dict[str, Tensor]) -> set[str]:
    """``backbone``, ``text``, or ``objectives.<name>`` of each parameter."""
    return {".".join(n.split(".")[:2]) if n.startswith("objectives") else n.split(".")[0] for n in names}


# -- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_each_loss_reaches_its_towers_and_no_other_head(scope: str, built: Callable[..., Any]) -> None:
    b = built(prompt_scope=scope, objectives=ALL)
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
def test_a_single_objective_builds_only_what_it_needs(name: str, built: Callable[..., Any]) -> None:
    b = built(objectives=[name])
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


def test_the_complete_text_is_encoded_once_for_both_that_read_it(built: Callable[..., Any]) -> None:
    b = built(objectives=ALL)
    b.forward()
    distinct = sum(len(t.input_ids) for t in b.texts)
    with_mask = sum(int(m.any(1).sum()) for m in b.masks.tokens)
    assert b.model.text.language_model.texts_encoded == distinct + with_mask


# -- the sum -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["ALT_DCN", "ALT_DeepFM", "ALT_xDeepFM"])
def test_loss_is_the_weighted_sum_and_the_regulariser(model: str, built: Callable[..., Any]) -> None:
    weights = {"contrastive": 0.5, "masked_tabular": 3.0}
    b = built(model, objectives=ALL, objective_weights=weights)
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


def test_a_weight_of_zero_takes_an_objective_out(built: Callable[..., Any]) -> None:
    b = built(objectives=ALL, objective_weights={"contrastive": 0.0, "masked_language": 0.0})
    assert not {"objectives.contrastive", "objectives.masked_language"} & parts(gradients(b.model, b.forward().loss))


def test_weights_of_unknown_objectives_are_refused(built: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"objective_weights.*masked_language"):
        built(objectives=["contrastive"], objective_weights={"masked_language": 2.0})
    with pytest.raises(ValueError, match="objectives"):
        built(objectives=[])


# -- labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_labels_change_nothing(scope: str, built: Callable[..., Any]) -> None:
    b = built(prompt_scope=scope, objectives=ALL)
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
def test_every_kind_of_mask(masking: dict[str, Any], scope: str, built: Callable[..., Any]) -> None:
    b = built(prompt_scope=scope, objectives=ALL, **masking)
    output = b.forward()
    assert torch.isfinite(output.loss)
    assert all(loss.item() > 0 for loss in output.losses.values())
    assert parts(gradients(b.model, output.loss)) == {"backbone", "text", *(f"objectives.{name}" for name in ALL)}


def test_rows_without_masks_give_finite_losses(built: Callable[..., Any]) -> None:
    b = built(objectives=ALL)
    for tokens in b.masks.tokens:
        tokens.zero_()
    b.masks.table.zero_()
    output = b.forward()
    assert output.losses["masked_language"].item() == output.losses["masked_tabular"].item() == 0
    assert parts(gradients(b.model, output.losses["masked_language"])) == set()
    assert parts(gradients(b.model, output.losses["masked_tabular"])) == set()
    assert torch.isfinite(output.loss)


@pytest.mark.parametrize("loss", ["nce", "sampled_softmax", "full_softmax"])
def test_every_masked_tabular_loss_learns(loss: str, built: Callable[..., Any]) -> None:
    b = built(objectives=["masked_tabular"], masked_tabular_loss=loss, reg_weight=0.0, mask_ratio=0.5)
    optimizer = torch.optim.AdamW(b.model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        output = b.forward()
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.losses["masked_tabular"].item())
    assert losses[-1] < 0.8 * losses[0]
    assert 0 <= output.report["value_accuracy"] <= 1


@pytest.mark.parametrize("vocabulary", ["prompts", "full"])
def test_the_vocabulary_holds_every_masked_token(vocabulary: str, built: Callable[..., Any]) -> None:
    b = built(objectives=["masked_language"], masked_language_vocabulary=vocabulary, prompt_scope="interaction")
    classes = set(b.model.objectives["masked_language"].token_ids.tolist())
    values = set()
    for text in b.dataset.prompts.batches(b.dataset[:]):
        values |= set(text.input_ids[text.field_ids >= 0].tolist())
    assert values <= classes
    assert len(classes) == (30522 if vocabulary == "full" else len(b.dataset.prompts.value_token_ids))
    assert b.forward().losses["masked_language"].item() < 3 * torch.tensor(float(len(classes))).log()


def test_with_real_weights(built: Callable[..., Any]) -> None:
    b = built(language_model=MINILM, objectives=ALL)
    output = b.forward()
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert b.model.text.language_model.encoder.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_no_gradient_depends_on_the_order_of_threads(tiny: Callable[..., Any]) -> None:
    """Indexing with repeated rows adds gradients in an order that changes from run to run (``IndexBackward``)."""
    config = tiny()
    init_seed(1, True)
    dataset = data_preparation(config, create_dataset(config))[0]._dataset
    model = build_alignment(config, dataset, get_model("DCN"))
    texts = dataset.prompts.batches(dataset[:32])
    masks = build_masking(config, dataset.prompts, [f.name for f in model.backbone.fields]).draw(
        texts, 32, torch.Generator().manual_seed(1)
    )
    pending, seen, repeated = [model(dataset[:32], texts, masks).loss.grad_fn], set(), []
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


# -- texts that are kept -------------------------------------------------------------------------------------


def keep(b: Any, *, texts: int = 1000, memory: float | None = None) -> int:
    """Keep the states of all texts, as for a training that reads ``texts`` of either kind; how many were encoded."""
    language_model = b.model.text.language_model
    before = language_model.texts_encoded
    prompts = b.dataset.prompts
    masking = build_masking(b.config, prompts, [field.name for field in b.model.backbone.fields])
    b.model.kept_texts = KeptTexts(language_model, prompts.special.mask, b.config["device"])
    step = TextsOfStep(texts // 10, texts // 10)
    b.model.kept_texts.fill(prompts.distinct(b.dataset[:]), masking, step, 10, memory=memory)
    return language_model.texts_encoded - before


@pytest.mark.parametrize(
    "masking", [{}, {"mask_ratio": 0.15}, {"mask_fields": "shared"}, {"mask_level": "token"}], ids=str
)
@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_kept_texts_change_no_loss_and_no_gradient(
    scope: str, masking: dict[str, Any], built: Callable[..., Any]
) -> None:
    b = built(frozen_layers="all", objectives=ALL, prompt_scope=scope, **masking)
    fresh = b.forward()
    expected = gradients(b.model, fresh.loss)
    assert keep(b) > 0
    before = b.model.text.language_model.texts_encoded
    output = b.forward()
    encoded = b.model.text.language_model.texts_encoded - before
    assert encoded == (sum(int(m.any(1).sum()) for m in b.masks.tokens) if "mask_level" in masking else 0)
    for name, loss in fresh.losses.items():
        torch.testing.assert_close(output.losses[name], loss, atol=1e-5, rtol=1e-5)
    got = gradients(b.model, output.loss)
    assert got.keys() == expected.keys() and not any("language_model" in name for name in got)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_texts_are_kept_where_that_is_less_work_and_fits(built: Callable[..., Any]) -> None:
    b = built(frozen_layers="all", objectives=ALL, mask_ratio=0.15)
    texts = b.dataset.prompts.distinct(b.dataset[:])
    distinct = sum(len(part.pieces) for part in texts)
    assert keep(b, memory=0) == 0 and torch.isfinite(b.forward().loss)
    assert keep(b, texts=distinct // 10 * 10 - 10) == 0 and torch.isfinite(b.forward().loss)
    everything = keep(b)
    assert distinct < everything <= sum(len(part.pieces) * (1 + len(part.segment.fields)) for part in texts)
    tokens = sum(int(part.segment.total_lengths(part.pieces).sum()) for part in texts)
    assert keep(b, memory=tokens * 4 * b.model.text.hidden_size) == distinct


# -- reading no more than is needed --------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_losses_are_those_of_reading_every_table_and_text(scope: str, built: Callable[..., Any]) -> None:
    b = built(objectives=["contrastive", "masked_language"], prompt_scope=scope, contrast_rows=5)
    model = b.model.eval()
    output = model(b.rows, b.texts, b.masks)
    table = model.backbone(b.rows).representation
    pooled = pooled_states(model.text, b.texts)
    contrast, _ = model.objectives["contrastive"](table[:5], pooled[:5])
    states, tables, targets = [], [], []
    for batch, hidden in zip(b.texts, b.masks.tokens, strict=True):
        for text in range(len(batch.input_ids)):
            masked = batch.input_ids[text].masked_fill(hidden[text], model.mask_id)
            read, _ = model.text.language_model(masked[None], batch.attention_mask[text][None])
            states.append(read[0, hidden[text]])
            tables.append(table[batch.owner[text]].expand(int(hidden[text].sum()), -1))
            targets.append(batch.input_ids[text][hidden[text]])
    language, _ = model.objectives["masked_language"](torch.cat(states), torch.cat(tables), torch.cat(targets))
    torch.testing.assert_close(output.losses["contrastive"], contrast, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.losses["masked_language"], language, atol=1e-4, rtol=1e-4)


def test_a_table_is_read_where_an_objective_asks_for_it(
    built: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows_read(**keys: Any) -> list[int]:
        b, read = built(**keys), []
        forward = type(b.model.backbone).forward
        monkeypatch.setattr(
            type(b.model.backbone), "forward", lambda self, rows: (read.append(len(rows)), forward(self, rows))[1]
        )
        b.forward()
        monkeypatch.undo()
        return read

    assert rows_read(objectives=["contrastive"], contrast_rows=5) == [5]
    assert rows_read(objectives=["contrastive"], contrast_rows=None) == [32]
    assert rows_read(objectives=["masked_tabular"]) == [32]
    (complete, masked) = rows_read(objectives=ALL, contrast_rows=5)
    assert 5 <= complete < masked == 32
