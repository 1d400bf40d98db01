"""The finetuned recommender in each mode, its parameter groups, and the learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import pooled_states
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed
from torch import nn

from recbole_alt.model.build import build_backbone, build_text
from recbole_alt.model.language import LanguageModel
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.optim import GROUPS, load_optimizer, parameter_groups, schedule_factor, scheduler

pytestmark = pytest.mark.usefixtures("one_thread")
SCHEDULES = ("constant", "cosine", "linear")


@pytest.fixture
def built(tiny: Callable[..., Any], small_bert: str) -> Callable[..., SimpleNamespace]:
    """``built(mode)`` → configuration, 12 rows, their labels and the recommender."""

    def build(mode: str, model: str = "ALT_DCN", **keys: Any) -> SimpleNamespace:
        config = tiny(model, **({"language_model": small_bert, "reg_weight": 0.3, "finetune_mode": mode} | keys))
        init_seed(3, True)
        dataset = data_preparation(config, create_dataset(config))[0]._dataset
        recommender = get_model(model)(config, dataset)
        rows = dataset[20:32]
        return SimpleNamespace(config=config, dataset=dataset, rows=rows, label=rows["label"], model=recommender)

    return build


def seeded(call: Callable[..., Any], *args: Any) -> Any:
    torch.manual_seed(5)
    return call(*args)


# -- losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["ALT_DCN", "ALT_DeepFM", "ALT_xDeepFM"])
def test_ctr_is_the_plain_model(model: str, built: Callable[..., Any]) -> None:
    b = built("ctr", model)
    backbone = get_model(model.removeprefix("ALT_"))(b.config, b.dataset)
    assert {key.removeprefix("backbone.model.") for key in b.model.state_dict()} == backbone.state_dict().keys()
    assert all(key.startswith("backbone.model.") for key in b.model.state_dict())
    assert not any(isinstance(part, LanguageModel) for part in b.model.modules())
    backbone.load_state_dict({k.removeprefix("backbone.model."): v.clone() for k, v in b.model.state_dict().items()})
    assert torch.equal(seeded(b.model.calculate_loss, b.rows), seeded(backbone.calculate_loss, b.rows))
    assert torch.equal(b.model.eval().predict(b.rows), backbone.eval().predict(b.rows))
    assert b.model.texts_encoded == 0


def test_lm_is_a_linear_layer_on_the_pooled_text(built: Callable[..., Any]) -> None:
    b = built("lm")
    b.model.eval()
    assert b.model.backbone is None
    assert not any("backbone" in key or "alpha" in key for key in b.model.state_dict())
    pooled = pooled_states(b.model.text, b.dataset.prompts.batches(b.rows))
    logits = pooled @ b.model.lm_predict_layer.weight[0] + b.model.lm_predict_layer.bias
    torch.testing.assert_close(b.model.forward(b.rows), logits)
    by_hand = -(b.label * logits.sigmoid().log() + (1 - b.label) * (1 - logits.sigmoid()).log()).mean()
    torch.testing.assert_close(b.model.calculate_loss(b.rows), by_hand)


@pytest.mark.parametrize("model", ["ALT_DCN", "ALT_DeepFM", "ALT_xDeepFM"])
def test_joint_loss_by_hand(model: str, built: Callable[..., Any]) -> None:
    b = built("joint", model)
    b.model.eval()
    with torch.no_grad():
        b.model.alpha.fill_(0.3)
    z_ctr = b.model.backbone.model.forward(b.rows)
    pooled = pooled_states(b.model.text, b.dataset.prompts.batches(b.rows))
    z_lm = b.model.lm_predict_layer(pooled).squeeze(-1)
    mixed = 0.3 * z_ctr + 0.7 * z_lm
    torch.testing.assert_close(b.model.predict(b.rows), torch.sigmoid(mixed))
    loss = b.model.calculate_loss(b.rows)
    expected = (
        F.binary_cross_entropy_with_logits(mixed, b.label),
        b.model.backbone.model.calculate_loss(b.rows),  # the regulariser with it
        F.binary_cross_entropy_with_logits(z_lm, b.label),
    )
    torch.testing.assert_close(sum(loss), sum(expected), rtol=1e-5, atol=1e-5)
    sum(loss).backward()
    residual = (torch.sigmoid(mixed) - b.label) / len(b.label)
    torch.testing.assert_close(b.model.alpha.grad, (residual * (z_ctr - z_lm)).sum(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["ctr", "lm", "joint"])
def test_predictions_are_probabilities_and_repeatable(mode: str, built: Callable[..., Any]) -> None:
    b = built(mode)
    b.model.eval()
    first, again = b.model.predict(b.rows), b.model.predict(b.rows)
    assert first.shape == (12,)
    assert torch.equal(first, again)
    assert first.min() >= 0
    assert first.max() <= 1
    order = torch.randperm(12)
    shuffled = b.model.predict(type(b.rows)({key: value[order] for key, value in b.rows.interaction.items()}))
    torch.testing.assert_close(shuffled, first[order], atol=1e-6, rtol=1e-5)


def test_mode_defaults_to_the_first_of_the_modes(built: Callable[..., Any]) -> None:
    assert built(None, finetune_modes=["lm", "joint"]).model.mode == "lm"
    with pytest.raises(ValueError, match="finetune_mode"):
        built("jiont")


# -- towers ------------------------------------------------------------------------------------------------


def towers_of(b: SimpleNamespace, model: str = "DCN", **keys: Any) -> dict[str, Any]:
    config = b.config
    for key, value in keys.items():
        config[key] = value
    torch.manual_seed(99)
    backbone = build_backbone(config, b.dataset, get_model(model))
    return {"backbone": backbone.state_dict(), "text": build_text(config, b.dataset.prompts).state_dict()}


@pytest.mark.parametrize("mode", ["ctr", "lm", "joint"])
def test_towers_are_loaded(mode: str, built: Callable[..., Any]) -> None:
    b = built(mode)
    towers = towers_of(b)
    b.model.load_towers(towers)
    state = b.model.state_dict()
    for name in {"ctr": ["backbone"], "lm": ["text"], "joint": ["backbone", "text"]}[mode]:
        for key, value in towers[name].items():
            assert torch.equal(state[f"{name}.{key}"], value), key


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda b: towers_of(b, "DeepFM"), "backbone"),
        (lambda b: towers_of(b, embedding_size=6), "backbone"),
        (lambda b: towers_of(b, language_model_layers=2), "text"),
        (lambda b: {"backbone": towers_of(b)["backbone"]}, "text"),
        (lambda b: {"state_dict": b.model.state_dict()}, "pretrain"),  # a finetuned checkpoint
    ],
    ids=["model", "size", "layers", "tower missing", "finetuned"],
)
def test_misfit_towers_are_refused_in_one_line(wrong: Any, named: str, built: Callable[..., Any]) -> None:
    b = built("joint")
    with pytest.raises(ValueError, match=named) as caught:
        b.model.load_towers(wrong(b))
    assert "\n" not in str(caught.value)


# -- optimiser ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["ctr", "lm", "joint"])
def test_every_trainable_parameter_is_in_its_group(mode: str, built: Callable[..., Any]) -> None:
    b = built(mode)
    frozen = next(b.model.parameters())
    frozen.requires_grad_(False)
    groups = parameter_groups(b.model, dict.fromkeys(GROUPS, 1.0), dict.fromkeys(GROUPS, 0.0))
    group_of: dict[nn.Parameter, str] = {}
    for group in groups:
        assert group["params"]
        for parameter in group["params"]:
            assert parameter not in group_of
            group_of[parameter] = group["name"]
    assert set(group_of) == {p for p in b.model.parameters() if p.requires_grad}
    for name, parameter in b.model.named_parameters():
        if parameter is frozen:
            continue
        if name.startswith("text.language_model."):
            expected = "language"
        else:
            expected = (
                "embedding" if "embedding" in name or ("first_order_linear" in name and "weight" in name) else "rest"
            )
        assert group_of[parameter] == expected + "_undecayed" * (parameter.ndim < 2), name


def test_weight_decay_spares_biases_and_norms() -> None:
    model = nn.Module()
    model.bias = nn.ParameterList([nn.Parameter(torch.ones(3, 1))])  # as DCNV2's
    model.norm, model.bias_layer = nn.LayerNorm([2, 3]), nn.Linear(3, 2)
    model.table, model.scale = nn.Embedding(4, 1), nn.Parameter(torch.ones(()))
    named = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, dict.fromkeys(GROUPS, 1.0), dict.fromkeys(GROUPS, 0.5))
    decays = {named[parameter]: group["weight_decay"] for group in groups for parameter in group["params"]}
    decayed = {"bias_layer.weight": 0.5, "table.weight": 0.5}
    spared = ("bias.0", "norm.weight", "norm.bias", "bias_layer.bias", "scale")
    assert decays == decayed | dict.fromkeys(spared, 0.0)


@pytest.mark.parametrize("old", [1, 2])
def test_an_optimizer_with_other_groups_is_refused_in_one_line(old: int) -> None:
    model = nn.Linear(2, 2)
    ours = torch.optim.AdamW(parameter_groups(model, dict.fromkeys(GROUPS, 1.0), dict.fromkeys(GROUPS, 0.5)))
    parts = [list(model.parameters())] if old == 1 else [[model.bias], [model.weight]]
    theirs = torch.optim.AdamW([{"params": part} for part in parts])
    with pytest.raises(ValueError, match=r"^'run/ctr-last\.pth' groups .* another version of .* start a new run$"):
        load_optimizer(ours, theirs.state_dict(), "run/ctr-last.pth")


def test_the_trainer_gives_each_group_its_rate(built: Callable[..., Any]) -> None:
    keys = {"learning_rate": 0.3, "weight_decay": 0.01, "language_learning_rate": 0.2, "language_weight_decay": 0.05}
    b = built("joint", **keys)
    groups = {g["name"]: (g["lr"], g["weight_decay"]) for g in ALTTrainer(b.config, b.model).optimizer.param_groups}
    expected = {"language": (0.2, 0.05), "embedding": (0.3, 0.01), "rest": (0.3, 0.01)}  # empty = the rest's
    assert groups == expected | {"language_undecayed": (0.2, 0.0), "rest_undecayed": (0.3, 0.0)}
    b = built("joint", **keys, embedding_learning_rate=0.0, embedding_weight_decay=0.0)
    groups = {g["name"]: (g["lr"], g["weight_decay"]) for g in ALTTrainer(b.config, b.model).optimizer.param_groups}
    assert groups["embedding"] == (0.0, 0.0)


@settings(deadline=None)
@given(schedule=st.sampled_from(SCHEDULES), total=st.integers(2, 500), ratio=st.floats(0, 0.9, allow_nan=False))
def test_schedules(schedule: str, total: int, ratio: float) -> None:
    warmup = int(total * ratio)
    factors = [schedule_factor(schedule, step, total, warmup) for step in range(total + 1)]
    rising, after = factors[: warmup + 1], factors[warmup:]
    assert rising[0] > 0
    assert all(a < b for a, b in pairwise(rising))
    assert after[0] == 1
    assert all(0 <= factor <= 1 for factor in factors)
    if schedule == "constant":
        assert set(after) == {1.0}
    else:
        assert all(a > b for a, b in pairwise(after))
        assert after[-1] == pytest.approx(0, abs=1e-12)
        assert schedule_factor(schedule, total + 3, total, warmup) == pytest.approx(0, abs=1e-12)
        middle = (after[len(after) // 2] if len(after) % 2 else 0.5, 0.5)
        assert middle[0] == pytest.approx(middle[1])


def test_scheduler_moves_every_group_and_resumes() -> None:
    def make() -> tuple[Any, Any]:
        optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (1.0, 0.1)])
        return optimizer, scheduler(optimizer, "linear", 10, 0.2)

    optimizer, schedule = make()
    rates = []
    for _ in range(10):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert [r[0] for r in rates] == pytest.approx([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert [r[1] for r in rates] == pytest.approx([r[0] / 10 for r in rates])
