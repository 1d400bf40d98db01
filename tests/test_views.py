"""Objectives declare the views they read, and only those are made; a further objective is a file and a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from conftest import gradients
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed
from torch import Tensor, nn
from typing_extensions import Self

from recbole_alt.key_table import OBJECTIVES
from recbole_alt.model.alignment import AlignmentModel, AlignmentOutput
from recbole_alt.model.build import build_alignment
from recbole_alt.model.objectives.batch import AlignmentBatch
from recbole_alt.model.objectives.contrastive import text_numbers
from recbole_alt.model.objectives.objective import Objective, View, Views
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


class TextToTable(Objective):
    """A fourth objective: the complete text foretells the representation of its row's table; squared error."""

    reads: ClassVar[frozenset[View]] = frozenset({"complete_table", "complete_texts"})
    seen: ClassVar[list[Views]] = []

    def __init__(self, text_size: int, table_size: int):
        super().__init__()
        self.head = nn.Linear(text_size, table_size)

    @classmethod
    def build(cls, config: Any, backbone: Any, text: Any, dataset: Any) -> Self:
        return cls(text.hidden_size, backbone.representation_size)

    def measure(self, views: Views, prepared: Any) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen.append(views)
        error = (self.head(views.pooled(len(views.batch.interaction))) - views.complete_table.representation).square()
        return error.mean(), {"furthest": error.detach().max()}


class TextOnly(TextToTable):
    """One that reads no table."""

    reads = frozenset({"complete_texts"})

    def measure(self, views: Views, prepared: Any) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen.append(views)
        return self.head(views.pooled(len(views.batch.interaction))).square().mean(), {}


@pytest.fixture
def aligned(
    tiny: Callable[..., Any], small_bert: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[type, list[str]], ALTPretrainTrainer]:
    """``aligned(objective, names)`` → the trainer of an alignment with ``names``, in which ``fourth`` is a line."""

    def make(objective: type, names: list[str]) -> ALTPretrainTrainer:
        monkeypatch.setitem(OBJECTIVES, "fourth", f"{__name__}.{objective.__name__}")
        monkeypatch.setattr(objective, "seen", [])
        config = tiny(
            language_model=small_bert, pretrain_learning_rate=1e-2, reg_weight=0.1, pretrain_schedule="constant"
        )
        init_seed(1, True)
        dataset = data_preparation(config, create_dataset(config))[0]._dataset
        config["objectives"] = names  # whose names a line in the source would have added to the keys
        model = build_alignment(config, dataset, get_model("DCN"))
        return ALTPretrainTrainer(config, model, dataset, "pretrain.pth")

    return make


@pytest.mark.parametrize("others", [[], ["contrastive", "masked_language", "masked_tabular"]])
def test_a_fourth_objective_is_trained(others: list[str], aligned: Callable[..., ALTPretrainTrainer]) -> None:
    trainer = aligned(TextToTable, [*others, "fourth"])
    model: AlignmentModel = trainer.model
    assert list(model.objectives) == [*others, "fourth"]
    head = model.objectives["fourth"].head.weight.detach().clone()
    output = step(trainer)
    assert set(output.losses) == {*others, "fourth"} and output.metrics["furthest"] > 0
    assert not torch.equal(head, model.objectives["fourth"].head.weight)
    (views,) = TextToTable.seen
    assert torch.equal(views.rows, torch.arange(len(views.batch.interaction)))
    reached = gradients(model, model(batch(trainer)).losses["fourth"])
    assert {name.split(".")[0] for name in reached} == {"backbone", "text", "objectives"}
    assert {name for name in reached if name.startswith("objectives")} == {
        "objectives.fourth.head.weight",
        "objectives.fourth.head.bias",
    }
    first = output.losses["fourth"].item()
    assert min(step(trainer).losses["fourth"].item() for _ in range(20)) < first
    trainer.save()
    trainer.resume()


def batch(trainer: ALTPretrainTrainer) -> AlignmentBatch:
    rows = trainer.dataset[trainer.batches(0)]
    texts = trainer.dataset.prompts.batches(rows)
    masks = trainer.masking.draw(texts, len(rows), torch.Generator().manual_seed(1))
    return trainer.model.prepare(rows, texts, masks)


def step(trainer: ALTPretrainTrainer) -> AlignmentOutput:
    return trainer._train_step(trainer._batch(0))


@pytest.mark.parametrize("name", ["contrastive", "masked_language", "masked_tabular", "fourth"])
def test_views_that_no_objective_reads_are_not_made(
    name: str, aligned: Callable[..., ALTPretrainTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = aligned(TextToTable, [name])
    (objective,) = trainer.model.objectives.values()
    seen: list[Views] = []
    measure = type(objective).measure
    monkeypatch.setattr(
        type(objective), "measure", lambda self, *given: (seen.append(given[0]), measure(self, *given))[1]
    )
    trainer.model(batch(trainer))
    (views,) = seen
    made = {*views.tables, *(["complete_texts"] if views.complete_texts else [])}
    made |= {"masked_texts"} if views.masked_texts else set()
    assert made == objective.reads == trainer.model.reads


def test_an_objective_of_texts_only_can_be_trained(aligned: Callable[..., ALTPretrainTrainer]) -> None:
    output = step(aligned(TextOnly, ["fourth"]))
    assert torch.isfinite(output.loss) and output.loss > output.losses["fourth"]  # with the CTR model's regulariser


def test_rows_have_one_number_where_all_their_texts_are_equal(aligned: Callable[..., ALTPretrainTrainer]) -> None:
    trainer = aligned(TextToTable, ["fourth"])
    rows = trainer.dataset[trainer.batches(0)]
    segments = trainer.dataset.prompts.batches(rows)
    written, found = trainer.dataset.prompts.texts(rows), text_numbers(segments)
    assert len(found) == len(rows) > len({*map(tuple, written)}) > 1
    equal = torch.tensor([[a == b for a in written] for b in written])
    assert torch.equal(found.unsqueeze(1) == found, equal)
    first = text_numbers(segments, 5)
    assert torch.equal(first.unsqueeze(1) == first, equal[:5, :5])
