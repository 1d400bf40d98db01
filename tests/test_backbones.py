"""The contract of every backbone: RecBole's model to the last bit, with its representation beside it."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed
from torch import Tensor, nn

from recbole_alt.model.backbones import Backbone, mask_table
from recbole_alt.model.build import build_backbone
from recbole_alt.model.captures import CAPTURES, CapturePoint, Captures
from recbole_alt.model.targets import TableTargets

pytestmark = pytest.mark.usefixtures("one_thread")
LOAD_COL = {
    "inter": ["user_id", "item_id", "rating", "timestamp", "device", "dwell"],
    "user": ["user_id", "age", "gender", "height"],
    "item": ["item_id", "year", "genre"],
}

#: Facts of RecBole's models that the contract depends on.
USER_AND_ITEM_FIELDS_ONLY = {"DSSM"}
NO_DROPOUT = {"FM", "FFM"}
REGULARISED = {"AFM", "DCN", "DCNV2", "EulerNet", "PNN", "xDeepFM"}
#: The layer whose input is the representation, where it is one layer.
LAST_LAYER = {
    **dict.fromkeys(("DCN", "DCNV2", "FNN", "NFM", "PNN"), "predict_layer"),
    **dict.fromkeys(("DeepFM", "WideDeep"), "deep_predict_layer"),
    "FiGNN": "mlp2",
}


@pytest.fixture
def built(tiny: Callable[..., Any]) -> Callable[..., SimpleNamespace]:
    """``built("DCN")`` → config, the training dataset, 16 rows of it and the backbone."""

    def build(name: str, **keys: Any) -> SimpleNamespace:
        config = tiny(f"ALT_{name}", load_col=LOAD_COL, numerical_features=["dwell", "height"], **keys)
        init_seed(3, True)
        full = create_dataset(config)
        dataset = data_preparation(config, full)[0]._dataset
        backbone = build_backbone(config, dataset, get_model(name))
        return SimpleNamespace(config=config, full=full, dataset=dataset, rows=dataset[:16], backbone=backbone)

    return build


def plain(b: SimpleNamespace, name: str) -> Any:
    """RecBole's own model with the backbone's weights."""
    model = get_model(name)(b.config, b.dataset)
    model.load_state_dict(copy.deepcopy(b.backbone.model.state_dict()))
    return model.train(b.backbone.training)


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize("name", list(CAPTURES))
class TestContract:
    def test_fields_cover_every_kind(self, name: str, built: Callable[..., Any]) -> None:
        backbone = built(name).backbone
        kinds = {field.name: field.kind for field in backbone.fields}
        expected = {
            **dict.fromkeys(("user_id", "item_id", "device", "age", "gender", "year"), "token"),
            **{"genre": "token_seq", "dwell": "float", "height": "float"},
        }
        if name in USER_AND_ITEM_FIELDS_ONLY:
            del expected["device"], expected["dwell"]
        assert kinds == expected

    @pytest.mark.parametrize("training", [True, False])
    def test_representation_has_the_size_known_before_training(
        self, name: str, training: bool, built: Callable[..., Any]
    ) -> None:
        b = built(name)
        output = b.backbone.train(training)(b.rows)
        assert output.representation.shape == (16, b.backbone.representation_size)
        assert output.logits.shape == (16,)
        if name in LAST_LAYER:
            assert b.backbone.representation_size == getattr(b.backbone.model, LAST_LAYER[name]).in_features
        if name == "xDeepFM":  # what both of its last layers score
            linear = b.backbone.model.cin_linear.in_features
            assert b.backbone.representation_size == linear + b.config["mlp_hidden_size"][-1]
        tables = [module.weight for module in b.backbone.modules() if isinstance(module, nn.Embedding)]
        gradients = torch.autograd.grad(output.representation.square().sum(), tables, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in gradients)

    @pytest.mark.parametrize("training", [True, False])
    def test_logits_are_those_of_the_plain_model(self, name: str, training: bool, built: Callable[..., Any]) -> None:
        b = built(name, **({} if name == "AutoInt" else {"dropout_prob": 0.3}))
        b.backbone.train(training)
        model = plain(b, name)
        torch.manual_seed(5)
        ours = b.backbone(b.rows)
        torch.manual_seed(5)
        theirs = model.forward(b.rows)
        assert torch.equal(ours.returned, theirs)
        assert torch.equal(ours.logits.sigmoid(), theirs if name == "DCNV2" else theirs.sigmoid())
        for key, value in model.state_dict().items():  # running statistics moved alike
            assert torch.equal(value, b.backbone.model.state_dict()[key]), key
        if training and name not in NO_DROPOUT:  # and there was something random in it
            train = b.backbone(b.rows).representation
            assert not torch.equal(train, b.backbone.eval()(b.rows).representation)

    def test_loss_is_the_models_own_from_one_forward(self, name: str, built: Callable[..., Any]) -> None:
        b = built(name, reg_weight=0.3)
        b.backbone.train()
        model = plain(b, name)
        calls: list[int] = []
        handle = b.backbone.model.token_embedding_table.register_forward_hook(lambda *_: calls.append(1))
        torch.manual_seed(5)
        ours = b.backbone.loss(b.rows, b.backbone(b.rows))
        handle.remove()
        torch.manual_seed(5)
        theirs = model.calculate_loss(b.rows)
        plain_calls: list[int] = []
        model.token_embedding_table.register_forward_hook(lambda *_: plain_calls.append(1))
        model.forward(b.rows)
        assert len(calls) == len(plain_calls)  # as often as one forward of RecBole's
        assert torch.equal(ours, theirs)
        ours.backward()
        theirs.backward()
        for (key, p), q in zip(b.backbone.model.named_parameters(), model.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), key
            assert p.grad is None or torch.equal(p.grad, q.grad), key

    def test_regulariser_is_the_loss_less_cross_entropy(self, name: str, built: Callable[..., Any]) -> None:
        b = built(name, reg_weight=0.3)
        b.backbone.eval().double()
        for key, value in b.rows.interaction.items():
            b.rows.interaction[key] = value.double() if value.is_floating_point() else value
        parameters = list(b.backbone.model.parameters())
        unlabelled = copy.copy(b.rows)
        unlabelled.interaction = {k: v for k, v in b.rows.interaction.items() if k != b.config["LABEL_FIELD"]}
        got = b.backbone.regulariser(unlabelled, b.backbone(unlabelled))
        returned = b.backbone.model.forward(b.rows)
        label = b.rows[b.config["LABEL_FIELD"]]
        entropy = F.binary_cross_entropy if name == "DCNV2" else F.binary_cross_entropy_with_logits
        expected = b.backbone.model.calculate_loss(b.rows) - entropy(returned, label)
        assert got.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
        assert (got.item() > 1e-3) == (name in REGULARISED)
        theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
        ours = torch.autograd.grad(got, parameters, allow_unused=True) if got.requires_grad else [None] * len(theirs)
        for parameter, mine, own in zip(parameters, ours, theirs, strict=True):
            zero = torch.zeros_like(parameter)
            torch.testing.assert_close(
                zero if mine is None else mine, zero if own is None else own, atol=1e-9, rtol=1e-7
            )

    def test_masking_any_field_changes_the_representation(self, name: str, built: Callable[..., Any]) -> None:
        b = built(name)
        b.backbone.eval()
        fields = b.backbone.fields
        before = {key: value.clone() for key, value in b.rows.interaction.items()}
        whole = b.backbone(b.rows).representation
        nothing = torch.zeros(16, len(fields), dtype=torch.bool)
        assert torch.equal(b.backbone(mask_table(b.rows, fields, nothing)).representation, whole)
        for i, field in enumerate(fields):
            mask = nothing.clone()
            mask[::2, i] = True
            masked = mask_table(b.rows, fields, mask)
            changed = (b.backbone(masked).representation != whole).any(1)
            present = (
                masked[field.name].flatten(1).ne(b.rows[field.name].flatten(1)).any(1)
                if field.kind != "token"
                else b.rows[field.name] > 0
            )
            assert torch.equal(changed, present & mask[:, i]), field.name
            assert changed.any(), field.name
        for key, value in before.items():
            assert torch.equal(b.rows[key], value), key

    def test_masked_values_are_those_no_row_has(self, name: str, built: Callable[..., Any]) -> None:
        b = built(name)
        fields = b.backbone.fields
        hidden = mask_table(b.rows, fields, torch.ones(16, len(fields), dtype=torch.bool))
        for field in fields:
            if field.kind == "float":
                assert not hidden[field.name][..., 1].any()
                assert b.dataset[:][field.name][..., 1].min() > 0
            else:
                assert not hidden[field.name].any()
        representation = b.backbone.eval()(hidden).representation
        assert torch.equal(representation, representation[:1].expand_as(representation))  # nothing left to see

    def test_weights_go_to_plain_recbole_and_back(self, name: str, built: Callable[..., Any]) -> None:
        b = built(name)
        b.backbone.eval()
        file = io.BytesIO()
        torch.save(b.backbone.model.state_dict(), file)
        model = get_model(name)(b.config, b.dataset)
        file.seek(0)
        model.load_state_dict(torch.load(file))
        assert torch.equal(model.eval().predict(b.rows), torch.sigmoid(b.backbone(b.rows).logits))

    @pytest.mark.parametrize("how", ["deepcopy", "pickle"])
    def test_copies_are_sound_and_independent(self, name: str, how: str, built: Callable[..., Any]) -> None:
        b = built(name)
        b.backbone.loss(b.rows, b.backbone(b.rows)).backward()
        assert hooks_of(b.backbone) == 0
        assert "forward" not in vars(b.backbone.model)
        b.backbone.zero_grad()
        b.backbone.eval()
        if how == "deepcopy":
            twin = copy.deepcopy(b.backbone)
        else:
            file = io.BytesIO()
            torch.save(b.backbone, file)
            file.seek(0)
            twin = torch.load(file, weights_only=False)
        before = b.backbone(b.rows).representation
        assert torch.equal(twin(b.rows).representation, before)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(1)
        assert torch.equal(b.backbone(b.rows).representation, before)
        assert not torch.equal(twin(b.rows).representation, before)
        assert hooks_of(twin) == 0

    def test_a_failing_forward_leaves_no_hook(self, name: str, built: Callable[..., Any]) -> None:
        b = built(name)
        broken = copy.copy(b.rows)
        broken.interaction = {k: v for k, v in b.rows.interaction.items() if k != "age"}
        with pytest.raises(KeyError):
            b.backbone(broken)
        assert hooks_of(b.backbone) == 0


def test_an_unknown_model_names_the_known_ones(built: Callable[..., Any]) -> None:
    b = built("DCN")
    lr = get_model("LR")(b.config, b.dataset)
    with pytest.raises(ValueError, match="LR") as caught:
        Backbone(lr, b.rows)
    assert all(name in str(caught.value) for name in CAPTURES)


def test_a_capture_point_never_reached_is_named(built: Callable[..., Any]) -> None:
    b = built("DCN")
    with pytest.raises(ValueError, match="sigmoid"):
        Backbone(b.backbone.model, b.rows, Captures((CapturePoint("predict_layer"), CapturePoint("sigmoid"))))
    assert hooks_of(b.backbone) == 0


# -- targets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discretised", [False, True])
def test_targets_are_in_range_and_count_training_rows_only(discretised: bool, built: Callable[..., Any]) -> None:
    keys = {"discretization": {"dwell": {"method": "ED", "bucket": 5}}} if discretised else {}
    b = built("DCN", **keys)
    train = b.dataset[:]
    targets = TableTargets(train, b.backbone.fields, bins=4)
    everything: list[Tensor] = targets.read(b.full[:])
    assert [f.name for f in targets.fields] == [f.name for f in b.backbone.fields]
    for field, values, seen in zip(targets.fields, everything, targets.read(train), strict=True):
        assert b.backbone.fields[field.column].name == field.name
        assert not values.is_floating_point()
        assert values.min() >= 0
        assert values.max() < len(field.counts), field.name
        assert torch.equal(field.counts, torch.bincount(seen.flatten(), minlength=len(field.counts)))
        if field.name in ("user_id", "genre"):
            assert torch.equal(values, b.full[:][field.name])
    by_name = dict(zip((f.name for f in targets.fields), everything, strict=True))
    dwell = b.full[:]["dwell"]
    if discretised:
        assert torch.equal(by_name["dwell"], dwell[:, 1].long())
        assert by_name["dwell"].max() <= 5
    else:
        assert by_name["dwell"].unique().tolist() == [1, 2, 3, 4]
        order = dwell[:, 0].argsort()
        assert by_name["dwell"][order].diff().min() >= 0  # bins rise with the value


def test_float_bins_hold_like_many_training_rows(built: Callable[..., Any]) -> None:
    b = built("DCN")
    rows = copy.copy(b.dataset[:])
    rows.interaction = dict(rows.interaction)
    rows.interaction["dwell"] = torch.stack([torch.randperm(128).float(), torch.ones(128)], 1)
    targets = TableTargets(rows, b.backbone.fields, bins=4)
    counts = next(f.counts for f in targets.fields if f.name == "dwell")
    assert counts.tolist() == [0, 32, 32, 32, 32]
    far = copy.copy(rows)
    far.interaction = dict(rows.interaction, dwell=torch.tensor([[-1e9, 1], [1e9, 1]]))
    read = dict(zip((f.name for f in targets.fields), targets.read(far), strict=True))["dwell"]
    assert read.tolist() == [1, 4]  # values beyond training go to the outer bins
