"""A context-aware model of the user's own as the tabular side."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.data import create_dataset, data_preparation

import recbole_alt
from recbole_alt import make_config, run_recbole_alt
from recbole_alt.config import ALTConfig
from recbole_alt.model.build import build_backbone
from recbole_alt.model.captures import CAPTURES, FIELD_EMBEDDINGS, CapturePoint

pytestmark = pytest.mark.usefixtures("one_thread")

SOURCE = '''
import torch
from torch import nn
from recbole.model.abstract_recommender import ContextRecommender
from recbole_alt.model.captures import CapturePoint, Captures


class Found(ContextRecommender):
    """A linear layer with one output, whatever its name."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.body = nn.Linear(self.num_feature_field * self.embedding_size, 6)
        self.unused = nn.Linear(6, 1)
        self.score = nn.Linear(6, 1)
        self.loss = nn.BCEWithLogitsLoss()

    def forward(self, interaction):
        x = self.concat_embed_input_fields(interaction).flatten(1)
        return self.score(torch.tanh(self.body(x))).squeeze(-1)

    def calculate_loss(self, interaction):
        return self.loss(self.forward(interaction), interaction[self.LABEL])

    def predict(self, interaction):
        return self.forward(interaction).sigmoid()


class Declared(Found):
    captures = Captures((CapturePoint("body", "output"),))


class Broken(Found):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.second = nn.Linear(config["mlp_hidden_size"][9], 1)


class Fallback(Found):
    def forward(self, interaction):
        return self.concat_embed_input_fields(interaction).sum((1, 2))


class Probabilities(Found):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.loss = nn.BCELoss()

    def forward(self, interaction):
        return super().forward(interaction).sigmoid()

    def predict(self, interaction):
        return self.forward(interaction)


class Nothing(Found):
    def forward(self, interaction):
        return self.first_order_linear(interaction).squeeze(-1)


class Column(Found):
    """Logits [B, 1]."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.weight = config["reg_weight"]

    def forward(self, interaction):
        return super().forward(interaction).unsqueeze(-1)

    def calculate_loss(self, interaction):
        loss = self.loss(self.forward(interaction).squeeze(-1), interaction[self.LABEL])
        return loss + self.weight * self.body.weight.norm()

    def predict(self, interaction):
        return self.forward(interaction).sigmoid().squeeze(-1)


class ProbabilityColumn(Column):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.loss = nn.BCELoss()

    def forward(self, interaction):
        return super().forward(interaction).sigmoid()

    def predict(self, interaction):
        return self.forward(interaction)


class Elsewhere(Found):
    """Embeds its fields by another method of RecBole's."""

    def forward(self, interaction):
        x = torch.cat(self.embed_input_fields(interaction)[:1], 1).flatten(1)
        return self.score(torch.tanh(self.body(x))).squeeze(-1)


class HiddenLogit(Probabilities):
    def forward(self, interaction):
        return (2 * super(Probabilities, self).forward(interaction)).sigmoid()


class OwnLossOnly(Found):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        del self.loss

    def calculate_loss(self, interaction):
        return nn.functional.binary_cross_entropy_with_logits(self.forward(interaction), interaction[self.LABEL])
'''


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module above, importable as ``own_models``."""
    (tmp_path / "own_models.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    import own_models  # type: ignore[import-not-found]

    return own_models


def built(config: Any, model_class: type) -> tuple[Any, Any]:
    train = data_preparation(config, create_dataset(config))[0]._dataset
    return build_backbone(config, train, model_class), train[:12]


@pytest.mark.parametrize(
    ("name", "points", "size"),
    [
        ("Found", (CapturePoint("score"),), 6),
        ("Declared", (CapturePoint("body", "output"),), 6),
        ("Fallback", (FIELD_EMBEDDINGS,), 7 * 8),
        ("Probabilities", (CapturePoint("score"),), 6),
        ("OwnLossOnly", (CapturePoint("score"),), 6),
        ("Column", (CapturePoint("score"),), 6),
        ("ProbabilityColumn", (CapturePoint("score"),), 6),
        ("Elsewhere", (CapturePoint("score"),), 6),
    ],
)
def test_representation_is_declared_found_or_the_embeddings(
    name: str, points: tuple[CapturePoint, ...], size: int, models: Any, tiny: Callable[..., Any]
) -> None:
    model_class = getattr(models, name)
    recbole_alt.register(model_class)
    backbone, rows = built(tiny(f"ALT_{name}", reg_weight=0.3), model_class)
    assert backbone.captures.representation == points
    assert backbone.representation_size == size
    output = backbone.eval()(rows)
    assert output.representation.shape == (12, size)
    assert output.logits.shape == (12,)
    assert torch.equal(backbone.score(rows), output.logits)
    torch.testing.assert_close(output.logits.sigmoid(), backbone.model.predict(rows).view(-1))
    torch.testing.assert_close(backbone.loss(rows, output), backbone.model.calculate_loss(rows))
    assert "concat_embed_input_fields" not in vars(backbone.model)  # the method is itself again
    added = 0.3 * backbone.model.body.weight.norm() if name.endswith("Column") else torch.zeros(())
    torch.testing.assert_close(backbone.regulariser(rows, output), added)


@pytest.mark.parametrize("name", ["Found", "Declared", "Column", "ProbabilityColumn"])
def test_field_embeddings_are_joined_where_asked(name: str, models: Any, tiny: Callable[..., Any]) -> None:
    model_class = getattr(models, name)
    recbole_alt.register(model_class)
    backbone, rows = built(tiny(f"ALT_{name}", join_field_embeddings=True), model_class)
    assert backbone.representation_size == 6 + 7 * 8
    expected = backbone.model.concat_embed_input_fields(rows).flatten(1)
    assert torch.equal(backbone(rows).representation[:, 6:], expected)


def test_field_embeddings_that_are_the_representation_are_not_joined_again(
    models: Any, tiny: Callable[..., Any]
) -> None:
    recbole_alt.register(models.Fallback)
    assert built(tiny("ALT_Fallback", join_field_embeddings=True), models.Fallback)[0].representation_size == 7 * 8


def test_field_embeddings_no_forward_asks_for_are_not_joined(models: Any, tiny: Callable[..., Any]) -> None:
    recbole_alt.register(models.Elsewhere)
    with pytest.raises(ValueError, match=r"join_field_embeddings: Elsewhere .*leave it empty"):
        built(tiny("ALT_Elsewhere", join_field_embeddings=True), models.Elsewhere)


def test_a_model_that_can_not_be_built_is_one_line(models: Any, tiny: Callable[..., Any]) -> None:
    config = tiny(state="ERROR")
    dataset = data_preparation(config, create_dataset(config))[0]._dataset
    with pytest.raises(ValueError, match=r"Broken can't be built .*IndexError.*docs/keys\.md") as caught:
        build_backbone(config, dataset, models.Broken)
    assert isinstance(caught.value.__cause__, IndexError)  # which the log of --state=debug shows


@pytest.mark.parametrize("model", [None, "ALT_DCN"])
def test_a_class_of_ones_own_beside_another_model_is_refused(model: str | None) -> None:
    with pytest.raises(ValueError, match=r"backbone needs --model=ALT: .*ALT_DCN, 'no.such.Class'"):
        ALTConfig(model, "anything", None, {"backbone": "no.such.Class"})


def test_nothing_found_says_what_to_declare(models: Any, tiny: Callable[..., Any]) -> None:
    for name, missing in (("Nothing", "captures = Captures("), ("HiddenLogit", "logits=CapturePoint(")):
        recbole_alt.register(getattr(models, name))
        with pytest.raises(ValueError, match=name) as caught:
            built(tiny(f"ALT_{name}"), getattr(models, name))
        assert missing in str(caught.value)
        assert name == "HiddenLogit" or all(known in str(caught.value) for known in CAPTURES)


def test_whole_job_by_import_path(models: Any, keys: Callable[..., dict[str, Any]]) -> None:
    given = keys(finetune_modes=["ctr", "joint"]) | {"backbone": "own_models.Found"}
    result = run_recbole_alt("ALT", "tiny", None, given)
    assert set(result["record"]["results"]) == {"ctr", "joint", "plain"}
    assert result["table"].startswith("| Found |")
    _, model, *_ = recbole_alt.load_data_and_model(Path(result["folder"]) / "ctr.pth")
    assert isinstance(model.backbone.model, models.Found)


def test_a_file_of_an_unregistered_model_runs_no_code(
    models: Any, keys: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_recbole_alt("ALT", "tiny", None, keys(finetune_modes=[]) | {"backbone": "own_models.Declared"})
    monkeypatch.delitem(sys.modules, "recbole.model.context_aware_recommender.alt_declared")
    monkeypatch.delitem(sys.modules, "own_models")
    with pytest.raises(ValueError, match="register"):
        recbole_alt.load_data_and_model(Path(result["folder"]) / "plain.pth")
    assert "own_models" not in sys.modules


@pytest.mark.parametrize("path", ["own_models.Missing", "no_such_module.Found", "Found", "torch.nn.Linear"])
def test_bad_paths_are_named(path: str, models: Any, keys: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=path.replace(".", r"\.")):
        make_config("ALT", "tiny", None, keys() | {"backbone": path})


def test_model_alt_needs_a_backbone(keys: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="--backbone="):
        make_config("ALT", "tiny", None, keys())


@pytest.mark.parametrize("place", ["file", "dictionary", "arguments"])
def test_model_alt_is_registered_before_the_configuration_is_made(
    place: str, models: Any, keys: Callable[..., dict[str, Any]]
) -> None:
    own = {"model": "ALT", "backbone": "own_models.Found"}
    Path("own.yaml").write_text("".join(f"{key}: {value}\n" for key, value in own.items()))
    files = ["own.yaml"] if place == "file" else []
    given = keys() | (own if place == "dictionary" else {})
    arguments = [f"--{key}={value}" for key, value in own.items()] if place == "arguments" else []
    config = make_config(None, "tiny", files, given, arguments)
    assert config["model"] == "ALT_Found" and config.model_class.backbone_class is models.Found


def test_a_configuration_of_its_own_says_how_to_register(models: Any, keys: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"own_models\.Found.*make_config.*recbole_alt\.register\(Class\)") as caught:
        ALTConfig("ALT", "tiny", None, keys() | {"backbone": "own_models.Found"})
    assert "\n" not in str(caught.value)
