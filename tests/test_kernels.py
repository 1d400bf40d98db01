"""Kernels that round otherwise than RecBole's: the same layers, and the same steps, except for rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.model.context_aware_recommender.dcn import DCN
from recbole.utils import get_model, init_seed
from torch import nn

from recbole_alt.data.steps import training_loader
from recbole_alt.model import kernels
from recbole_alt.model.captures import CAPTURES
from recbole_alt.model.kernels import FastLinear, cross_network, use_fast_kernels
from recbole_alt.trainer.finetune import ALTTrainer

pytestmark = pytest.mark.usefixtures("one_thread")
WITHOUT_LAYERS = ("AFM", "FFM", "FM", "FwFM", "KD_DAGFM", "LR")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_fast_layer_has_the_values_and_gradients_of_torchs(bias: bool, frozen: bool) -> None:
    torch.manual_seed(1)
    layer, single = nn.Linear(40, 30, bias=bias).requires_grad_(not frozen), nn.Linear(40, 1)
    found = []
    for fast in (False, True):
        if fast:
            use_fast_kernels(nn.ModuleList([layer, single]))
        rows = torch.randn(64, 40, generator=torch.Generator().manual_seed(2), requires_grad=True)
        layer.zero_grad()
        output = layer(rows)
        assert type(output.grad_fn).__name__ == (
            "_LinearBackward" if fast else "MmBackward0" if not bias else "AddmmBackward0"
        )
        output.square().sum().backward()
        found.append([output, rows.grad, *(p.grad for p in layer.parameters() if p.grad is not None)])
    assert isinstance(layer, FastLinear) and not isinstance(single, FastLinear)
    assert len(found[0]) == 2 + (not frozen) * (1 + bias)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_fast_layer_is_torchs_where_it_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_multiply", None)
    layer = nn.Linear(40, 30)
    rows = torch.randn(8, 6, 40)
    before = layer(rows), layer(rows[0]), layer(rows[:, 0, :][:0])
    use_fast_kernels(layer)
    assert torch.equal(layer(rows), before[0]) and torch.equal(layer(rows[0, :0]), before[2])
    with torch.no_grad():
        assert torch.equal(layer(rows[0]), before[1])
    assert torch.equal(layer.eval()(rows[0]), before[1])


@pytest.mark.parametrize("layers", [1, 2, 6])
def test_a_cross_network_in_one_product_is_recboles(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(layers)
    model = DCN.__new__(DCN)
    nn.Module.__init__(model)
    model.cross_layer_num = layers
    model.cross_layer_w, model.cross_layer_b = (
        nn.ParameterList(nn.Parameter(torch.randn(24, generator=draw) / 10) for _ in range(layers)) for _ in "wb"
    )
    rows = torch.randn(64, 24, generator=draw, requires_grad=True)
    found = []
    for fast in (False, True):
        if fast:
            use_fast_kernels(model)
            assert model.cross_network.__func__ is cross_network
        model.zero_grad()
        rows.grad = None
        output = model.cross_network(rows)
        output.square().sum().backward()
        found.append([output, rows.grad, *(one.grad for one in model.parameters())])
    assert not torch.equal(found[0][0], found[1][0]) and len(found[0]) == 2 + 2 * layers
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    with torch.no_grad():  # without training it is RecBole's, bit for bit
        assert torch.equal(model.cross_network(rows), found[0][0])
    assert torch.equal(model.eval().cross_network(rows), found[0][0])


@pytest.mark.parametrize("learner", ["adamw", "adam", "sgd", "adagrad", "rmsprop"])
def test_every_learner_makes_the_same_steps(learner: str, tiny: Any) -> None:
    same_steps(tiny, "DCN", learner=learner)


@pytest.mark.parametrize("name", sorted(CAPTURES))
def test_every_backbone_makes_the_same_steps(name: str, tiny: Any) -> None:
    same_steps(tiny, name)


def same_steps(tiny: Any, name: str, **keys: Any) -> None:
    """Without and with fast kernels, the losses of two epochs are the same except for rounding."""
    losses: list[list[float]] = []
    for fast in (False, True):
        config = tiny(f"ALT_{name}", finetune_mode="ctr", fast_kernels=fast, finetune={}, **keys)
        init_seed(3, True)
        train = data_preparation(config, create_dataset(config))[0]
        trainer = ALTTrainer(config, get_model(config["model"])(config, train._dataset))
        modules = list(trainer.model.modules())
        layers = [type(m) for m in modules if type(m) in (nn.Linear, FastLinear) and m.out_features > 1]
        assert set(layers) <= {FastLinear if fast else nn.Linear} and (layers or name in WITHOUT_LAYERS)
        assert all(
            bool(group.get("fused")) == (fast and config["learner"] != "rmsprop")
            for group in trainer.optimizer.param_groups
        )
        step, seen = trainer._train_step, []
        trainer._train_step = lambda *a, step=step, seen=seen: seen.append(step(*a)) or seen[-1]  # type: ignore[method-assign]
        trainer.fit(training_loader(config, train, encodes_texts=False), saved=False)
        losses.append([float((sum(loss) if isinstance(loss, tuple) else loss).detach()) for loss in seen])
    assert len(losses[0]) == 8 and len(set(losses[0])) == 8
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
