"""What every backbone must hold: RecBole's model to the last bit, with its representation beside it.

A subclass of :class:`BackboneContract` names its model and states its facts; ``tests/test_backbones.py`` has them.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed
from torch import Tensor, nn

from recbole_alt.data.masking import Masks, step_generator
from recbole_alt.data.steps import build_batches, build_masking
from recbole_alt.model.backbones import mask_table, select_rows
from recbole_alt.model.build import build_alignment, build_backbone
from recbole_alt.model.field_tables import field_tables, read_values
from recbole_alt.model.unseen import set_unseen_values
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.rowwise import lazy_rows, settle

Tiny = Callable[..., Any]
Built = Callable[..., SimpleNamespace]
Variant = Callable[..., dict[str, Any]]

#: Every kind of column from every side; ``rating``, ``timestamp``, ``income`` and ``price`` are loaded, not embedded.
DATA: dict[str, Any] = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating", "timestamp", "device", "dwell"],
        "user": ["user_id", "age", "gender", "height", "income", "visits"],
        "item": ["item_id", "year", "genre", "length", "price", "scores"],
    },
    "numerical_features": ["dwell", "height", "length", "visits", "scores"],
    "normalize_all": True,
}
DISCRETISED: dict[str, Any] = {
    "discretization": {name: {"method": "ED", "bucket": 5} for name in ("dwell", "height", "visits", "scores")}
}
KINDS = {
    **dict.fromkeys(("user_id", "item_id", "device", "age", "gender", "year"), "token"),
    "genre": "token_seq",
    **dict.fromkeys(("dwell", "height", "length"), "float"),
    **dict.fromkeys(("visits", "scores"), "float_seq"),
}
GROUPS = {
    0: ["genre", "item_id", "length", "scores", "year"],
    1: ["age", "gender", "height", "user_id", "visits"],
    2: ["device", "dwell"],
}
TABLES = tuple(f"{kind}_embedding_table" for kind in ("token", "token_seq", "float", "float_seq"))
OBJECTIVES = ["contrastive", "masked_language", "masked_tabular"]
EMBEDDING_SIZE = 8

also_discretised = pytest.mark.parametrize("data", [{}, DISCRETISED], ids=["values", "discretised"])
in_both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])

_configs: dict[str, Any] = {}
_datasets: dict[str, tuple[Any, Any]] = {}


def prepare(tiny: Tiny, model: str, keys: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Configuration, whole dataset and its training part, each made once; no model has a say in the datasets."""
    name = f"{model} {keys}"
    if name not in _configs:
        _configs[name] = tiny(f"ALT_{model}", **keys)
    config = _configs[name]
    data = str([config[name] for name in ("load_col", "numerical_features", "discretization")])
    if data not in _datasets:
        full = create_dataset(config)
        _datasets[data] = full, data_preparation(config, full)[0]._dataset
    return config, *_datasets[data]


def build(tiny: Tiny, model: str, **keys: Any) -> SimpleNamespace:
    """The configuration, the dataset, 16 training rows and the backbone of ``model``."""
    config, full, dataset = prepare(tiny, model, DATA | keys)
    init_seed(3, True)
    backbone = build_backbone(config, dataset, get_model(model))
    return SimpleNamespace(config=config, full=full, dataset=dataset, rows=dataset[:16], backbone=backbone)


def plain(b: SimpleNamespace) -> Any:
    """RecBole's own model with the backbone's weights."""
    model = type(b.backbone.model)(b.config, b.dataset)
    model.load_state_dict(copy.deepcopy(b.backbone.model.state_dict()))
    return model.train(b.backbone.training)


def hooks_of(module: nn.Module) -> int:
    """Hooks on the module and its parts, and methods replaced on it."""
    replaced = [name for name in vars(module) if callable(getattr(type(module), name, None))]
    return len(replaced) + sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@contextmanager
def forwards(model: nn.Module) -> Iterator[list[int]]:
    """For the while, the hooks on ``model`` at each call of its class's ``forward``."""
    seen: list[int] = []
    original = type(model).forward

    def forward(self: Any, interaction: Any) -> Any:
        seen.append(hooks_of(self))
        return original(self, interaction)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "forward", forward)
        yield seen


def seeded(call: Callable[..., Any], *args: Any) -> Any:
    torch.manual_seed(5)
    return call(*args)


def reached(model: nn.Module, loss: Tensor) -> set[str]:
    """Names of the parameters that get a gradient other than zero."""
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.usefixtures("one_thread")
class BackboneContract:
    """The contract of one model, or of one of its variants.

    Attributes:
        model: RecBole's name.
        keys: configuration of the variant.
        fields: field → kind of what it embeds.
        probabilities: ``forward`` returns these, not logits.
        regularised: its loss has a term that ``reg_weight`` scales.
        random: keys that make its training random; None where nothing does.
        last_layers: layers whose inputs are the representation.
        width: size of the representation beyond these.
        joined: the field embeddings are part of the representation by default; None where they can't be.
        learns: parameters, by their first letters, that everything trained on the representation moves.
        keeps: parameters that nothing moves.
        logit_hooks: hooks it takes to read the logit.
        loss_in_eval: whether RecBole can compute its loss in evaluation mode.
    """

    model: ClassVar[str]
    keys: ClassVar[Mapping[str, Any]] = {}
    fields: ClassVar[Mapping[str, str]] = KINDS
    probabilities: ClassVar[bool] = False
    regularised: ClassVar[bool] = False
    random: ClassVar[Mapping[str, Any] | None] = {"dropout_prob": 0.3}
    last_layers: ClassVar[tuple[str, ...]] = ()
    width: ClassVar[int] = 0
    joined: ClassVar[bool | None] = False
    learns: ClassVar[tuple[str, ...]] = TABLES
    keeps: ClassVar[tuple[str, ...]] = ()
    logit_hooks: ClassVar[int] = 0
    loss_in_eval: ClassVar[bool] = True

    def field_embeddings(self, model: Any, rows: Any) -> Tensor:
        """What ``join_field_embeddings`` adds."""
        return model.concat_embed_input_fields(rows).flatten(1)

    @pytest.fixture
    def variant(self) -> Variant:
        """``variant(**keys)`` → these and the variant's own, some of which may have to be made first."""
        return lambda **keys: DATA | {**self.keys, **keys}

    @pytest.fixture
    def built(self, tiny: Tiny, variant: Variant) -> Built:
        """``built(**keys)`` → configuration, dataset, 16 training rows and the backbone."""
        return lambda **keys: build(tiny, self.model, **variant(**keys))

    def moved(self, names: set[str], prefix: str = "") -> None:
        """``names`` hold some of every part that learns, none of what is kept."""
        for part in self.learns:
            assert any(name.startswith(prefix + part) for name in names), part
        assert not [name for name in names for part in self.keeps if name.startswith(prefix + part)]

    # -- representation ------------------------------------------------------------------------------------

    def test_fields_cover_every_kind(self, built: Built) -> None:
        assert {field.name: field.kind for field in built().backbone.fields} == self.fields

    @also_discretised
    @in_both_modes
    def test_representation_has_the_size_known_before_training(
        self, training: bool, data: dict[str, Any], built: Built
    ) -> None:
        b = built(**data)
        output = b.backbone.train(training)(b.rows)
        assert output.representation.shape == (16, b.backbone.representation_size)
        assert output.logits.shape == (16,)
        size = self.width + sum(b.backbone.model.get_submodule(name).in_features for name in self.last_layers)
        joined = self.field_embeddings(b.backbone.model, b.rows).shape[1] if self.joined else 0
        assert b.backbone.representation_size == size + joined
        self.moved(reached(b.backbone.model, output.representation.square().sum()))

    def test_field_embeddings_are_joined_where_asked(self, built: Built) -> None:
        if self.joined is None:
            with pytest.raises(ValueError, match=f"join_field_embeddings.*{self.model}"):
                built(join_field_embeddings=True)
            built(join_field_embeddings=False)
            return
        without, joined, default = (built(join_field_embeddings=value) for value in (False, True, None))
        narrow, wide, left = (b.backbone.eval()(b.rows).representation for b in (without, joined, default))
        expected = self.field_embeddings(joined.backbone.model, joined.rows)
        assert torch.equal(wide, torch.cat([narrow, expected], 1))
        assert expected.shape[1] >= len(self.fields) * EMBEDDING_SIZE
        assert torch.equal(left, wide if self.joined else narrow)

    @also_discretised
    def test_masking_any_field_changes_the_representation(self, data: dict[str, Any], built: Built) -> None:
        b = built(**data)
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

    @also_discretised
    def test_masked_values_are_those_no_row_has(self, data: dict[str, Any], built: Built) -> None:
        b = built(**data)
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

    @also_discretised
    def test_a_value_never_met_scores_like_a_hidden_one_or_is_zero(self, data: dict[str, Any], built: Built) -> None:
        b = built(**data)
        b.backbone.eval()
        rows, fields = b.dataset[:], b.backbone.fields
        strangers = rows["user_id"] == rows["user_id"][0]
        met, unmet = select_rows(rows, (~strangers).nonzero()[:, 0]), select_rows(rows, strangers.nonzero()[:, 0])
        columns = torch.tensor([field.name == "user_id" for field in fields])
        nobody = mask_table(unmet, fields, columns.expand(len(unmet), -1))
        before = b.backbone.score(met)
        assert not torch.equal(b.backbone.score(unmet), b.backbone.score(nobody))
        assert set_unseen_values(b.backbone, met, "hidden") > 0
        assert torch.equal(b.backbone.score(met), before)
        assert torch.equal(b.backbone.score(unmet), b.backbone.score(nobody))
        hidden = copy.deepcopy(b.backbone.state_dict())
        assert set_unseen_values(b.backbone, met, "zero") > 0
        assert torch.equal(b.backbone.score(met), before)
        now = [value[value != hidden[name]] for name, value in b.backbone.state_dict().items()]
        assert sum(map(len, now)) > 0 and not any(changed.any() for changed in now)  # something did, and to zero
        assert hooks_of(b.backbone) == 0

    @also_discretised
    def test_a_values_embeddings_are_where_the_model_reads_them(self, data: dict[str, Any], built: Built) -> None:
        b = built(**data)
        b.backbone.eval()
        binned = data.get("discretization", {})
        kinds = {name: kind for name, kind in self.fields.items() if kind != "float_seq"}
        tables = field_tables(b.backbone)
        assert tables.keys() == {name for name, kind in kinds.items() if kind != "float" or name in binned}
        whole = b.backbone(b.rows).representation
        for name, table in tables.items():
            values = read_values(table.field, b.rows[name]).view(16, -1)
            before = table(values)
            assert before.shape == (*values.shape, table.width), name
            value = int(values[values > 0].mode().values)
            rows = [torch.tensor([value]), torch.arange(1, table.field.size)]
            for parts, row in [(table.tables, rows[0]), *(((part,), rows[1]) for part in table.tables)]:
                kept = [part.weight.detach().clone() for part in parts]
                with torch.no_grad():
                    for part in parts:
                        part.weight[table.offset + row] += 1
                changed = (b.backbone(b.rows).representation != whole).any(1)
                if len(row) == 1:
                    assert torch.equal(changed, (values == value).any(1)), name
                    assert torch.equal((table(values) != before).any(-1), values == value), name
                assert changed.any(), name  # no table is there in vain
                with torch.no_grad():
                    for part, weight in zip(parts, kept, strict=True):
                        part.weight.copy_(weight)

    # -- RecBole's own model -------------------------------------------------------------------------------

    @also_discretised
    @in_both_modes
    def test_logits_are_those_of_the_plain_model(self, training: bool, data: dict[str, Any], built: Built) -> None:
        b = built(**(self.random or {}), **data)
        b.backbone.train(training)
        model = plain(b)
        ours, theirs = seeded(b.backbone, b.rows), seeded(model.forward, b.rows)
        assert torch.equal(ours.returned, theirs)
        own = theirs if self.probabilities else theirs.sigmoid()
        assert torch.equal(ours.logits.sigmoid(), own.view(-1))
        for key, value in model.state_dict().items():  # running statistics moved alike
            assert torch.equal(value, b.backbone.model.state_dict()[key]), key
        if training and self.random is not None:  # and there was something random in it
            train = b.backbone(b.rows).representation
            assert not torch.equal(train, b.backbone.eval()(b.rows).representation)

    def test_loss_is_the_models_own_from_one_forward(self, built: Built) -> None:
        b = built(reg_weight=0.3)
        b.backbone.train()
        model = plain(b)
        with forwards(b.backbone.model) as calls:
            ours = seeded(lambda: b.backbone.loss(b.rows, b.backbone(b.rows)))
        assert len(calls) == 1
        theirs = seeded(model.calculate_loss, b.rows)
        assert torch.equal(ours, theirs)
        ours.backward()
        theirs.backward()
        for (key, p), q in zip(b.backbone.model.named_parameters(), model.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), key
            assert p.grad is None or torch.equal(p.grad, q.grad), key

    def regulariser(self, b: SimpleNamespace) -> Tensor:
        """What the model's own loss holds beside its cross-entropy."""
        label = b.rows[b.config["LABEL_FIELD"]]
        entropy = F.binary_cross_entropy if self.probabilities else F.binary_cross_entropy_with_logits
        return b.backbone.model.calculate_loss(b.rows) - entropy(b.backbone.model.forward(b.rows).view(-1), label)

    def test_regulariser_is_the_loss_less_cross_entropy(self, built: Built) -> None:
        b = built(reg_weight=0.3)
        b.backbone.eval().double()
        for key, value in b.rows.interaction.items():
            b.rows.interaction[key] = value.double() if value.is_floating_point() else value
        parameters = list(b.backbone.model.parameters())
        unlabelled = copy.copy(b.rows)
        unlabelled.interaction = {k: v for k, v in b.rows.interaction.items() if k != b.config["LABEL_FIELD"]}
        got = b.backbone.regulariser(unlabelled, b.backbone(unlabelled))
        expected = self.regulariser(b)
        assert got.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
        assert (got.item() > 1e-3) == self.regularised
        theirs = torch.autograd.grad(expected, parameters, allow_unused=True) if expected.requires_grad else [None]
        ours = torch.autograd.grad(got, parameters, allow_unused=True) if got.requires_grad else [None] * len(theirs)
        for parameter, mine, own in zip(parameters, ours, theirs, strict=expected.requires_grad):
            zero = torch.zeros_like(parameter)
            torch.testing.assert_close(
                zero if mine is None else mine, zero if own is None else own, atol=1e-9, rtol=1e-7
            )

    @in_both_modes
    def test_a_score_costs_what_the_plain_model_costs(self, training: bool, built: Built) -> None:
        b = built(**(self.random or {}))
        b.backbone.train(training)
        logits = seeded(b.backbone, b.rows).logits
        with forwards(b.backbone.model) as hooks:
            assert torch.equal(seeded(b.backbone.score, b.rows), logits)
        assert hooks == [self.logit_hooks]

    def test_one_row_is_as_good_as_many(self, built: Built) -> None:
        b = built()
        b.backbone.eval()
        one = b.dataset[:1]
        torch.testing.assert_close(b.backbone.score(one), b.backbone.score(b.rows)[:1])
        whole = b.backbone(b.rows).representation[:1]
        torch.testing.assert_close(b.backbone(one).representation, whole, atol=1e-5, rtol=1e-5)
        b.backbone.train(not self.loss_in_eval)
        loss = b.backbone.loss(one)
        assert loss.shape == ()
        assert torch.isfinite(loss)
        assert torch.equal(b.backbone.loss(one, b.backbone(one)), loss)
        assert torch.equal(plain(b).calculate_loss(one), loss)

    def test_weights_go_to_plain_recbole_and_back(self, built: Built) -> None:
        b = built()
        b.backbone.eval()
        file = io.BytesIO()
        torch.save(b.backbone.model.state_dict(), file)
        model = get_model(self.model)(b.config, b.dataset)
        file.seek(0)
        model.load_state_dict(torch.load(file))
        assert torch.equal(model.eval().predict(b.rows), torch.sigmoid(b.backbone(b.rows).logits))

    # -- copies --------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("how", ["deepcopy", "pickle"])
    def test_copies_are_sound_and_independent(self, how: str, built: Built) -> None:
        b = built()
        b.backbone.loss(b.rows, b.backbone(b.rows)).backward()
        assert hooks_of(b.backbone.model) == 0
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
        assert hooks_of(twin.model) == 0

    def test_a_failing_forward_leaves_no_hook(self, built: Built) -> None:
        b = built()
        broken = copy.copy(b.rows)
        broken.interaction = {k: v for k, v in b.rows.interaction.items() if k != "age"}
        for call in (b.backbone, b.backbone.score):
            with pytest.raises(KeyError):
                call(broken)
            assert hooks_of(b.backbone.model) == 0

    # -- both stages ---------------------------------------------------------------------------------------

    def test_every_objective_teaches_the_model(self, tiny: Tiny, variant: Variant, small_bert: str) -> None:
        given = {"language_model": small_bert, "mask_ratio": 0.4, "reg_weight": 0.3, "objectives": OBJECTIVES}
        config, _, dataset = prepare(tiny, self.model, variant(**given))
        init_seed(3, True)
        alignment = build_alignment(config, dataset, get_model(self.model)).train()
        rows = dataset[build_batches(config, dataset, 32)(0)]
        texts = dataset.prompts.batches(rows)
        fields = [field.name for field in alignment.backbone.fields]
        masks = build_masking(config, dataset.prompts, fields).draw(texts, len(rows), step_generator(1, 0, 0))
        output = alignment(alignment.prepare(rows, texts, masks))
        assert torch.isfinite(output.loss)
        assert list(output.losses) == OBJECTIVES
        for loss in output.losses.values():
            names = reached(alignment, loss)
            self.moved(names, "backbone.model.")
            assert any(name.startswith("text.") for name in names)
        self.moved(reached(alignment, output.loss), "backbone.model.")

    def test_field_objectives_teach_the_embeddings(self, tiny: Tiny, variant: Variant, small_bert: str) -> None:
        given = {"language_model": small_bert, "objectives": ["field_contrastive", "field_prediction"]}
        config, _, dataset = prepare(tiny, self.model, variant(**given, **DISCRETISED))
        init_seed(3, True)
        alignment = build_alignment(config, dataset, get_model(self.model)).train()
        rows = dataset[:32]
        texts = dataset.prompts.batches(rows)
        output = alignment(alignment.prepare(rows, texts, Masks([], torch.zeros(0))))
        parts = {id(table): name for name, table in alignment.backbone.model.named_modules()}
        taught = {f"{parts[id(part)]}.weight" for t in field_tables(alignment.backbone).values() for part in t.tables}
        for name, loss in output.losses.items():
            names = reached(alignment, loss)
            in_model = {n.removeprefix("backbone.model.") for n in names if n.startswith("backbone.")}
            assert in_model == (set() if set(TABLES) <= set(self.keeps) else taught), name
            assert any(n.startswith("text.language_model.") for n in names)

    @pytest.mark.parametrize("mode", ["ctr", "lm", "joint"])
    def test_a_step_of_finetuning(self, mode: str, tiny: Tiny, variant: Variant, small_bert: str) -> None:
        given = {"language_model": small_bert, "finetune_mode": mode}
        config, _, dataset = prepare(tiny, self.model, variant(**given))
        init_seed(3, True)
        model = get_model(f"ALT_{self.model}")(config, dataset)
        rows = dataset[:16]
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        first = model.eval().predict(rows)
        loss = model.train().calculate_loss(rows)
        (sum(loss) if isinstance(loss, tuple) else loss).backward()
        torch.optim.Adam(model.parameters(), lr=1e-3).step()
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        towers = {"ctr": {"backbone"}, "lm": {"text", "lm_predict_layer"}}
        towers["joint"] = {*towers["ctr"], *towers["lm"], "alpha"}
        assert {name.split(".")[0] for name in changed} == towers[mode]
        if mode != "lm":
            self.moved(changed, "backbone.model.")
        second = model.eval().predict(rows)
        assert second.shape == (16,)
        assert second.min() >= 0
        assert second.max() <= 1
        assert not torch.equal(second, first)

    def test_lazy_steps_of_embeddings_are_those_of_whole_tables(self, tiny: Tiny, variant: Variant) -> None:
        given = {"finetune_mode": "ctr", "embedding_optimizer": "rowwise", "weight_decay": 0.1, "reg_weight": 0.1}
        config, _, dataset = prepare(tiny, self.model, variant(**given))

        def trained(lazily: bool) -> dict[str, Tensor]:
            init_seed(3, True)
            model = get_model(f"ALT_{self.model}")(config, dataset).train()
            trainer = ALTTrainer(config, model)
            with lazy_rows(trainer.optimizer) if lazily else nullcontext():
                for step in range(6):
                    trainer._train_step(dataset[torch.arange(step, 90, 23)], model.calculate_loss)
            settle(trainer.optimizer)
            return model.state_dict()

        lazy, whole = trained(True), trained(False)
        for name in (name for name in lazy if "embedding" in name):  # Adam blows up rounding errors of other parameters
            assert torch.allclose(lazy[name], whole[name], atol=5e-5), name
