"""Grounded embeddings: learned in two parts, saved and served as the plain model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from interruptions import Stopped, stop_at
from recbole.utils import get_model, init_seed
from torch import Tensor

from recbole_alt import checkpoints, load_data_and_model, run_recbole_alt
from recbole_alt.exporting import to_recbole
from recbole_alt.loading import load_data
from recbole_alt.model.build import build_backbone, ground_backbone, load_text_vectors
from recbole_alt.model.captures import CAPTURES
from recbole_alt.model.grounding import clear_unseen, ground, map_rate, merge, merged_state
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

Tiny = Callable[..., Any]
Keys = Callable[..., dict[str, Any]]
IN_CI = ("DCN", "DSSM", "FFM", "LR")
BACKBONES = [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in CAPTURES]


@pytest.fixture
def grounded(tiny: Tiny, small_bert: str) -> Callable[..., SimpleNamespace]:
    """``grounded(model, **keys)`` → a backbone whose items are grounded, with maps that are not zero, and its data."""

    def build(name: str = "DCN", maps: float = 0.3, **keys: Any) -> SimpleNamespace:
        config = tiny(f"ALT_{name}", language_model=small_bert, grounded=["item"], order_list=[4], **keys)
        train = load_data(config)[1]._dataset
        init_seed(3, True)
        backbone = build_backbone(config, train, get_model(name))
        ground_backbone(config, backbone, train)
        for weight in backbone.grounding.parameters():
            torch.nn.init.normal_(weight, std=maps)
        return SimpleNamespace(config=config, train=train, rows=train[:64], backbone=backbone.eval())

    return build


# -- the embeddings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_adding_both_parts_up_changes_no_score(name: str, grounded: Callable[..., Any]) -> None:
    b = grounded(name)
    with torch.no_grad():
        before = b.backbone(b.rows)
        state = merged_state(b.backbone, b.backbone.state_dict())
        plain = build_backbone(b.config, b.train, get_model(name)).eval()
        plain.load_state_dict(state)  # the plain model's own weights, and no others
        merge(b.backbone, "item")
        for merged in (plain, b.backbone):
            after = merged(b.rows)
            torch.testing.assert_close(after.logits, before.logits, atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(after.representation, before.representation, atol=1e-5, rtol=1e-5)
    assert not b.backbone.grounding and not any(part._forward_hooks for part in b.backbone.modules())


@pytest.mark.parametrize("name", BACKBONES)
def test_maps_learn_and_begin_as_the_plain_model(name: str, grounded: Callable[..., Any]) -> None:
    b = grounded(name, maps=0.0)
    plain = build_backbone(b.config, b.train, get_model(name)).eval()
    plain.load_state_dict({k: v for k, v in b.backbone.state_dict().items() if not k.startswith("grounding.")})
    assert torch.equal(plain.score(b.rows), b.backbone.score(b.rows))
    b.backbone.loss(b.rows).backward()
    maps = dict(b.backbone.grounding.named_parameters())
    assert maps
    still = [key for key, weight in maps.items() if not weight.grad.any()]
    assert len(still) == (name == "FFM")  # where no pair reads the table of the items with themselves


@pytest.mark.parametrize(("name", "table"), [("DeepFM", ""), ("LR", "first_order_linear.")])
def test_first_order_weights_are_grounded_where_there_is_nothing_else(
    name: str, table: str, grounded: Callable[..., Any]
) -> None:
    assert grounded(name).backbone.grounding["item"].tables == (f"{table}token_embedding_table.embedding",)


@pytest.mark.parametrize(("name", "rate"), [("DeepFM", 0.3), ("LR", 1.0)])
def test_maps_of_first_order_weights_learn_as_a_text_field_does(
    name: str, rate: float, grounded: Callable[..., Any]
) -> None:
    assert map_rate(grounded(name).backbone, None) == rate
    assert map_rate(grounded(name).backbone, 0.7) == 0.7


def test_a_field_that_is_not_embedded_is_refused(grounded: Callable[..., Any]) -> None:
    b = grounded("LR")
    with pytest.raises(ValueError, match="grounded: LR scores no embeddings of 'rating': leave item out"):
        ground(b.backbone, "item", "rating", b.backbone.grounding["item"].vectors, b.rows)


def test_only_rows_of_the_field_are_grounded(grounded: Callable[..., Any]) -> None:
    b = grounded()
    table = b.backbone.model.token_embedding_table.embedding
    ids = torch.arange(table.num_embeddings)
    added = (table(ids) - table.weight).detach()
    field = b.backbone.grounding["item"]
    vectors = load_text_vectors(b.config, b.train, "item", "grounded")
    first = field.first
    assert first > 0 and first + len(vectors) < len(added)
    torch.testing.assert_close(added[field.rows], vectors @ field.maps[0].T)
    assert not added[:first].any() and not added[first + len(vectors) :].any()
    assert not added[first].any()  # a hidden item has no text


def test_an_item_without_training_rows_starts_where_its_text_says(grounded: Callable[..., Any]) -> None:
    b = grounded()
    with torch.no_grad():
        b.backbone.grounding["item"].vectors[2] = b.backbone.grounding["item"].vectors[1]  # of equal texts
        table, first = b.backbone.model.token_embedding_table.embedding, b.backbone.grounding["item"].first
        before = table.weight.clone()
        clear_unseen(b.backbone, "item", torch.tensor([3, 4, 5]))
        changed = (table.weight != before).any(1).nonzero().flatten()
        assert changed.tolist() == [first + 1, first + 2]
        embedded = table(torch.tensor([first + 1, first + 2]))
    assert embedded.any()
    assert torch.equal(embedded[0], embedded[1])


def test_alignment_teaches_the_maps(alignment: Callable[..., Any]) -> None:
    b = alignment(grounded=["item", "user"])
    for loss in b.forward().losses.values():
        b.model.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        for key, weight in b.model.backbone.grounding.named_parameters():
            assert weight.grad.any(), key


# -- runs --------------------------------------------------------------------------------------------------


def weights(folder: str | Path, stage: str) -> dict[str, Tensor]:
    state = checkpoints.load(Path(folder) / f"{stage}.pth")
    return state["backbone"] if stage == "pretrain" else state["state_dict"]


def differing(one: dict[str, Tensor], two: dict[str, Tensor]) -> list[str]:
    assert one.keys() == two.keys()
    return [key for key in one if not torch.equal(one[key], two[key])]


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, float]]:
    """Filled with the learning rates of each stage that is trained, by group."""
    found: dict[str, dict[str, float]] = {}
    real = ALTTrainer.fit

    def fit(self: Any, *args: Any, **options: Any) -> Any:
        found[Path(self.saved_model_file).stem] = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        return real(self, *args, **options)

    monkeypatch.setattr(ALTTrainer, "fit", fit)
    return found


def test_checkpoints_are_the_plain_models(keys: Keys, rates: dict[str, dict[str, float]]) -> None:
    given = keys(finetune_modes=["ctr"], split_seed=1, train_share=0.1)  # some items have no training row
    plain = run_recbole_alt("ALT_DCN", "tiny", None, given)
    both = run_recbole_alt(
        "ALT_DCN", "tiny", None, given | {"grounded": ["item"], "finetune": {"ctr": {"grounding_rate": 2.0}}}
    )
    for stage, factor in (("ctr", 2.0), ("plain", 0.3)):
        assert rates[stage]["grounding"] == factor * rates[stage]["rest"]
        assert weights(both["folder"], stage).keys() == weights(plain["folder"], stage).keys()
        file = Path(both["folder"]) / f"{stage}.pth"
        _, model, *_, test = load_data_and_model(file)
        assert not model.backbone.grounding
        with torch.no_grad():
            scores = torch.cat([model.eval().predict(batch[0]) for batch in test])
        label = torch.cat([batch[0]["label"] for batch in test])
        logloss = torch.nn.functional.binary_cross_entropy(scores.double(), label.double())
        assert logloss.item() == pytest.approx(both["record"]["results"][stage]["test"]["logloss"], abs=1e-6)
        to_recbole(file, "model.pth")
    with pytest.raises(ValueError, match="in two parts: give"):
        to_recbole(Path(both["folder"]) / "pretrain.pth", "model.pth")


def test_stages_may_differ(keys: Keys, rates: dict[str, dict[str, float]]) -> None:
    """Grounded in alignment only, in finetuning only, and where nothing was aligned."""
    given = keys(finetune_modes=["ctr"], epochs=0)
    both = run_recbole_alt("ALT_DCN", "tiny", None, given | {"grounded": ["item"]})
    file = {"pretrained_checkpoint": str(Path(both["folder"]) / "pretrain.pth"), "plain_baseline": False}
    alone = run_recbole_alt("ALT_DCN", "tiny", None, given | {"finetune": {"ctr": {"grounded": []}}} | file)
    assert "grounding" not in rates["ctr"]
    one, two = weights(both["folder"], "ctr"), weights(alone["folder"], "ctr")
    assert differing(one, two) == []  # nothing was trained: both are the aligned model, added up
    aligned = weights(both["folder"], "pretrain")
    assert aligned["grounding.item.maps.0"].any()
    assert not torch.equal(one["backbone.model.token_embedding_table.embedding.weight"],
                           aligned["model.token_embedding_table.embedding.weight"])  # fmt: skip

    given = keys(finetune_modes=["ctr"])
    plain = run_recbole_alt("ALT_DCN", "tiny", None, given)
    later = given | {"finetune": {stage: {"grounded": ["item"]} for stage in ("plain", "ctr")}}
    late = run_recbole_alt("ALT_DCN", "tiny", None, later)
    assert differing(weights(plain["folder"], "pretrain"), weights(late["folder"], "pretrain")) == []
    for stage in ("plain", "ctr"):
        assert differing(weights(plain["folder"], stage), weights(late["folder"], stage))


CUTS = [
    (ALTPretrainTrainer, None, 2),
    pytest.param(ALTTrainer, "ctr", 6, marks=pytest.mark.slow),
    pytest.param(ALTTrainer, "plain", 5, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("trainer", "stage", "steps"), CUTS, ids=str)
def test_a_stopped_run_goes_on_as_if_never_stopped(
    trainer: type, stage: str | None, steps: int, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = keys(
        epochs=3,
        stopping_step=9,
        checkpoint_seconds=1e-9,
        finetune_modes=[] if stage == "plain" else ["ctr"],
        plain_baseline=stage == "plain",
        grounded=["user", "item"],
        text_field=["item"],
        weight_decay=0.1,
        dropout_prob=0.2,
    )
    whole = run_recbole_alt("ALT_DCN", "tiny", None, given)
    with monkeypatch.context() as patch:
        stop_at(patch, trainer, steps, stage)
        with pytest.raises(Stopped):
            run_recbole_alt("ALT_DCN", "tiny", None, given | {"checkpoint_dir": "stopped"})
    (folder,) = Path("stopped").glob("ALT_DCN-tiny-*")
    resumed = run_recbole_alt("ALT_DCN", "tiny", None, given | {"checkpoint_dir": "stopped", "resume": str(folder)})
    for name in whole["record"]["stages"]:
        assert differing(weights(whole["folder"], name), weights(folder, name)) == [], name
    assert resumed["record"]["results"] == whole["record"]["results"]
