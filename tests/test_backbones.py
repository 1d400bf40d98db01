"""The contract for each of RecBole's CTR models and its variants.

CI runs it for models that stand for all ways of reaching a representation; ``-m slow`` runs it for the others.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from recbole.model import context_aware_recommender
from recbole.model.abstract_recommender import ContextRecommender
from recbole.utils import get_model, init_seed
from torch import Tensor

pytest.register_assert_rewrite("backbone_contract")

from backbone_contract import (  # noqa: E402
    DATA,
    DISCRETISED,
    EMBEDDING_SIZE,
    GROUPS,
    KINDS,
    TABLES,
    BackboneContract,
    Tiny,
    Variant,
    build,
    hooks_of,
    prepare,
)

from recbole_alt import checkpoints  # noqa: E402
from recbole_alt.model.backbones import Backbone, mask_table  # noqa: E402
from recbole_alt.model.captures import CAPTURES, CapturePoint, Captures  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
class TestAFM(BackboneContract):
    model = "AFM"
    regularised = True
    width = EMBEDDING_SIZE
    joined = True


class TestAutoInt(BackboneContract):
    model = "AutoInt"
    random: ClassVar = {}  # as it comes
    last_layers = ("attn_fc", "deep_predict_layer")


class TestDCN(BackboneContract):
    model = "DCN"
    regularised = True
    last_layers = ("predict_layer",)


class TestDCNV2(BackboneContract):
    model = "DCNV2"
    probabilities = True
    regularised = True
    last_layers = ("predict_layer",)
    logit_hooks = 1


@pytest.mark.slow
class TestDCNV2Parallel(TestDCNV2):
    keys: ClassVar = {"structure": "parallel"}


@pytest.mark.slow
class TestDCNV2Mixed(TestDCNV2):
    keys: ClassVar = {"mixed": True, "expert_num": 2, "low_rank": 4}


class TestDeepFM(BackboneContract):
    model = "DeepFM"
    last_layers = ("deep_predict_layer",)


class TestDSSM(BackboneContract):
    model = "DSSM"
    fields: ClassVar = {name: kind for name, kind in KINDS.items() if name not in ("device", "dwell")}
    width = 2 * 8


@pytest.mark.slow
class TestEulerNet(BackboneContract):
    model = "EulerNet"
    keys: ClassVar = {"order_list": [4]}
    random: ClassVar = {}
    regularised = True
    last_layers = ("reg", "reg")  # called twice


class TestFFM(BackboneContract):
    model = "FFM"
    random = None
    width = EMBEDDING_SIZE
    joined = True
    learns = tuple(f"ffm.{kind}_embeddings" for kind in ("token", "token_seq", "float", "float_seq"))

    def field_embeddings(self, model: Any, rows: Any) -> Tensor:
        """Products of every pair, of which the representation is the sum."""
        pairs = model.ffm(model.get_ffm_input(rows))
        assert pairs.shape == (len(rows), 12 * 11 / 2, EMBEDDING_SIZE)
        return pairs.flatten(1)


@pytest.mark.slow
class TestFFMInGroups(TestFFM):
    keys: ClassVar = {"fields": GROUPS}


@pytest.mark.slow
class TestFiGNN(BackboneContract):
    model = "FiGNN"
    last_layers = ("mlp2",)


@pytest.mark.slow
class TestFM(BackboneContract):
    model = "FM"
    random = None
    width = EMBEDDING_SIZE
    joined = True


@pytest.mark.slow
class TestFNN(BackboneContract):
    model = "FNN"
    last_layers = ("predict_layer",)


@pytest.mark.slow
class TestFwFM(BackboneContract):
    model = "FwFM"
    width = EMBEDDING_SIZE
    joined = True
    learns = (*TABLES, "weight")


class TestFwFMInGroups(TestFwFM):
    keys: ClassVar = {"fields": GROUPS}


class TestLR(BackboneContract):
    model = "LR"
    random = None
    width = len(KINDS)
    joined = None
    learns = tuple(f"first_order_linear.{table}" for table in TABLES)

    @pytest.mark.parametrize("data", [{}, DISCRETISED], ids=["values", "discretised"])
    def test_representation_adds_up_to_the_logit(self, data: dict[str, Any], tiny: Tiny) -> None:
        b = build(tiny, "LR", **data)
        torch.nn.init.constant_(b.backbone.model.first_order_linear.bias, 0.3)
        output = b.backbone(b.rows)
        torch.testing.assert_close(output.representation.sum(1) + 0.3, output.logits)

    @pytest.mark.parametrize("data", [{}, DISCRETISED], ids=["values", "discretised"])
    def test_each_number_is_its_fields(self, data: dict[str, Any], tiny: Tiny) -> None:
        b = build(tiny, "LR", **data)
        whole = b.backbone(b.rows).representation
        for i in range(len(b.backbone.fields)):
            mask = torch.zeros(16, len(KINDS), dtype=torch.bool)
            mask[:, i] = True
            changed = b.backbone(mask_table(b.rows, b.backbone.fields, mask)).representation != whole
            assert changed.any(0).nonzero().flatten().tolist() == [i]


@pytest.mark.slow
class TestNFM(BackboneContract):
    model = "NFM"
    last_layers = ("predict_layer",)


@pytest.mark.slow
class TestPNN(BackboneContract):
    model = "PNN"
    regularised = True
    last_layers = ("predict_layer",)


class TestPNNOuter(TestPNN):
    keys: ClassVar = {"use_inner": False, "use_outer": True}


class TestPNNBoth(TestPNN):
    keys: ClassVar = {"use_inner": True, "use_outer": True}


@pytest.mark.slow
class TestWideDeep(BackboneContract):
    model = "WideDeep"
    last_layers = ("deep_predict_layer",)


class TestXDeepFM(BackboneContract):
    model = "xDeepFM"
    keys: ClassVar = {"cin_layer_size": [6, 4]}
    regularised = True
    last_layers = ("cin_linear",)
    width = 8  # and what the last layer of the MLP scores


# -- KD_DAGFM: a teacher, then a student of it ------------------------------------------------------------------


class TestKDDAGFMTeacher(BackboneContract):
    model = "KD_DAGFM"
    keys: ClassVar = {"t_depth": 2, "depth": 2, "t_cin": [6, 5]}
    probabilities = True
    random = None
    last_layers = ("teacher_network.linear",)


@pytest.mark.slow
class TestKDDAGFMTeacherCIN(TestKDDAGFMTeacher):
    keys: ClassVar = {**TestKDDAGFMTeacher.keys, "teacher": "CIN"}
    last_layers = ()
    width = 6 + 5


class TestKDDAGFMStudent(TestKDDAGFMTeacher):
    student: ClassVar[Mapping[str, Any]] = {"phase": "finetuning", "type": "outer"}
    last_layers = ("student_network.linear",)
    joined = True
    learns = (*TABLES, "student_network.p", "student_network.q")
    keeps = ("teacher_network",)

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("teachers")

    @pytest.fixture
    def variant(self, tiny: Tiny, folder: Path) -> Variant:
        """With the weights of a teacher, as a run in mode ``ctr`` writes them."""

        def make(**keys: Any) -> dict[str, Any]:
            given = DATA | {**self.keys, **self.student}
            file = folder / ("discretised.pth" if "discretization" in keys else "values.pth")
            if not file.exists():
                trained = given | keys | {"phase": "teacher_training", "finetune_mode": "ctr"}
                config, _, dataset = prepare(tiny, "KD_DAGFM", trained)
                init_seed(4, True)
                checkpoints.save({"state_dict": get_model("ALT_KD_DAGFM")(config, dataset).state_dict()}, file)
            return given | keys | {"warm_up": str(file)}

        return make


@pytest.mark.slow
class TestKDDAGFMStudentInner(TestKDDAGFMStudent):
    student: ClassVar = {"phase": "finetuning", "type": "inner"}
    learns = (*TABLES, "student_network.p")


@pytest.mark.slow
class TestKDDAGFMStudentOfCIN(TestKDDAGFMStudent):
    keys: ClassVar = TestKDDAGFMTeacherCIN.keys


@pytest.mark.slow
class TestKDDAGFMDistillation(TestKDDAGFMStudent):
    """The exception: RecBole keeps the embeddings as the teacher left them, and so does alignment."""

    student: ClassVar = {"phase": "distillation", "type": "outer"}
    learns = ("student_network.p", "student_network.q")
    keeps = (*TABLES, "teacher_network")
    loss_in_eval = False  # only a training forward asks the teacher

    def regulariser(self, b: Any) -> Tensor:
        """What is beside the cross-entropy is the distillation, which is no regulariser."""
        return torch.zeros(())


class TestKDDAGFMDistillationInner(TestKDDAGFMDistillation):
    student: ClassVar = {"phase": "distillation", "type": "inner"}
    learns = ("student_network.p",)


# -- all of them ------------------------------------------------------------------------------------------------


def test_every_model_of_recbole_has_a_contract() -> None:
    modules = [
        import_module(f"{context_aware_recommender.__name__}.{found.name}")
        for found in pkgutil.iter_modules(context_aware_recommender.__path__)
    ]
    theirs = {
        name
        for module in modules
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, ContextRecommender) and member.__module__ == module.__name__
    }
    mine = {c.model for c in globals().values() if inspect.isclass(c) and issubclass(c, BackboneContract)
            and c is not BackboneContract}  # fmt: skip
    assert theirs == mine == set(CAPTURES)
    assert len(theirs) == 18


def test_a_capture_point_never_reached_is_named(tiny: Tiny) -> None:
    b = build(tiny, "DCN")
    with pytest.raises(ValueError, match="sigmoid"):
        Backbone(b.backbone.model, b.rows, Captures((CapturePoint("predict_layer"), CapturePoint("sigmoid"))))
    assert hooks_of(b.backbone.model) == 0
