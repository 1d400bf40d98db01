"""Each containment of a fault of RecBole's: the fault without it, and what holds with it."""

from __future__ import annotations

import copy
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data import create_dataset
from recbole.data.dataset import Dataset
from recbole.data.dataset import dataset as datasets
from recbole.model import layers
from recbole.model.abstract_recommender import ContextRecommender
from recbole.model.context_aware_recommender import dssm
from recbole.model.context_aware_recommender.dssm import DSSM
from recbole.model.context_aware_recommender.fignn import FiGNN
from recbole.model.context_aware_recommender.fwfm import FwFM
from recbole.model.context_aware_recommender.kd_dagfm import KD_DAGFM
from recbole.model.layers import MLPLayers
from recbole.utils import init_seed

from recbole_alt import checkpoints, compat, load_data_and_model, run_recbole_alt
from recbole_alt.data.dataset import ALTDataset

pytest.register_assert_rewrite("backbone_contract")

from backbone_contract import DATA, GROUPS, prepare  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SEQUENCES = {"numerical_features": ["visits", "scores"]}
PLAIN = {"numerical_features": []}
GAPS = """user_id:token\titem_id:token\tlabel:float\tdevice:token\tdwell:float\ttags:token_seq\tmarks:float_seq
u1\ti1\t1\tphone\t3\ta b\t2 7 1.5
u2\ti1\t0\t\t\t\t
u1\ti2\t0\ttablet\t6\tb\t4 1
u3\ti2\t1\tphone\t\tc a\t
\ti1\t1\tphone\t9\tb\t5
"""
TEACHER = {"phase": "teacher_training", "t_depth": 2, "depth": 2, "t_cin": [6, 5]}

Make = Callable[..., SimpleNamespace]


@pytest.fixture
def make(tiny: Callable[..., Any]) -> Make:
    """``make(FwFM, **keys)`` → RecBole's model and 16 training rows."""

    def build(model_class: type, **keys: Any) -> SimpleNamespace:
        base = next(c.__name__ for c in model_class.__mro__ if c.__module__.startswith("recbole.model.context_aware"))
        config, _, dataset = prepare(tiny, base, DATA | keys)
        init_seed(3, True)
        return SimpleNamespace(model=model_class(config, dataset), rows=dataset[:16], one=dataset[:1], dataset=dataset)

    return build


@pytest.fixture
def undo(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], None]:
    """``undo(FwFM, "__init__")`` puts RecBole's own method back."""
    return lambda owner, name: monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)


@pytest.fixture
def as_pandas_3() -> Iterator[None]:
    """Columns are copies, and texts have a type of their own, also with pandas 2."""
    if int(pd.__version__.split(".")[0]) > 2:
        yield
        return
    with pd.option_context("mode.copy_on_write", True, "future.infer_string", True):
        yield


def changed(rows: Any, *names: str) -> Any:
    """``rows`` with every value of these columns another one that exists."""
    other = {name: rows[name].roll(1, 0) for name in names}
    return type(rows)({**rows.interaction, **other})


def test_containments_are_put_in_place_once() -> None:
    before = [ContextRecommender.__init__, FwFM.__init__, KD_DAGFM.predict]
    compat.install()
    assert [ContextRecommender.__init__, FwFM.__init__, KD_DAGFM.predict] == before
    assert not any(hasattr(method.__wrapped__, "__wrapped__") for method in before)  # type: ignore[attr-defined]


# -- data ---------------------------------------------------------------------------------------------------


def test_logarithmic_buckets_leave_row_0_to_missing_values(tiny: Callable[..., Any], undo: Any) -> None:
    how = {name: {"method": "LD"} for name in ("dwell", "visits")}
    config = tiny("ALT_FwFM", **DATA | {"numerical_features": list(how), "discretization": how})

    def buckets(name: str) -> tuple[torch.Tensor, int]:
        dataset = create_dataset(config)
        dataset._change_feat_format()
        return dataset[:][name][..., 1].unique(), dataset.num(name)

    mended = {name: buckets(name) for name in ("dwell", "visits")}
    assert mended["dwell"][0].tolist() == list(range(1, mended["dwell"][1]))
    assert mended["visits"][0].tolist() == list(range(mended["visits"][1]))  # 0 is padding
    undo(Dataset, "_discretization")
    for name, (values, count) in mended.items():
        assert (buckets(name)[0].max() + 1, buckets(name)[1] + 1) == (values.max(), count)
    assert buckets("dwell")[0].min() == 0


# -- today's libraries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["float_", "complex_", "unicode_", "long", "bool8"])
def test_numpy_aliases(alias: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(np, alias)
    if alias == "long":
        with pytest.raises(AttributeError, match="long"):
            make(FwFM)
    compat.install()
    kind = {"unicode_": "<U1", "long": int, "bool8": bool}.get(alias, alias.strip("_"))
    assert np.zeros(2, dtype=getattr(np, alias)).dtype == kind
    make(FwFM)


def gaps(config: Any, dataset_class: type) -> Any:
    dataset = dataset_class(config)
    dataset._change_feat_format()
    return dataset


@pytest.mark.usefixtures("as_pandas_3")
@pytest.mark.parametrize("dataset_class", [Dataset, ALTDataset])
def test_gaps_of_every_type_are_filled(dataset_class: type, own: Callable[..., Any], undo: Any) -> None:
    config = own("gaps", inter=GAPS, numerical_features=["marks"])
    dataset = gaps(config, dataset_class)
    rows = {name: values.tolist() for name, values in dataset.inter_feat.interaction.items()}
    assert rows["device"] == [1, 0, 2, 1]
    assert rows["dwell"] == [3, 4.5, 6, 4.5]  # the mean
    assert rows["tags"] == [[1, 2], [0, 0], [2, 0], [3, 1]]
    assert [[value for value, _ in row] for row in rows["marks"]] == [[2, 7, 1.5], [0, 0, 0], [4, 1, 0], [0, 0, 0]]
    assert {name: list(tokens) for name, tokens in dataset.field2id_token.items()} == {
        "user_id": ["[PAD]", "u1", "u2", "u3"],
        "item_id": ["[PAD]", "i1", "i2"],
        "device": ["[PAD]", "phone", "tablet"],
        "tags": ["[PAD]", "a", "b", "c"],
    }
    undo(Dataset, "_fill_nan")
    assert gaps(config, dataset_class).inter_feat["dwell"].isnan().tolist() == [False, True, False, True]


@pytest.mark.usefixtures("as_pandas_3")
def test_recboles_own_reader_reads_empty_sequences(own: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = own("gaps", inter=GAPS)
    assert [len(tags) for tags in Dataset(config).inter_feat["tags"]] == [2, 0, 1, 2]
    monkeypatch.setattr(datasets, "pd", pd)
    with pytest.raises(AttributeError, match="split"):
        Dataset(config)


@pytest.mark.usefixtures("as_pandas_3")
@pytest.mark.parametrize("how", [{"normalize_all": True}, {"discretization": {"marks": {"method": "ED", "bucket": 2}}}])
def test_numbers_of_sequences_stay_in_their_rows(
    how: dict[str, Any], own: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = own("gaps", inter=GAPS, numerical_features=["marks"], **how)
    size = [len(row[0]) for row in ALTDataset(config).inter_feat["marks"]]
    assert size == [3, 0, 2, 0]
    cells = pd.Series([np.zeros(3), np.zeros(0)])
    assert list(datasets.len(cells)) == list(cells.agg(datasets.len)) == [3, 0]
    assert datasets.len([1, 2]) == 2
    monkeypatch.delattr(datasets, "len")
    if int(pd.__version__.split(".")[0]) > 2:
        with pytest.raises(ValueError, match="length"):
            ALTDataset(config)


@pytest.mark.parametrize("category", [FutureWarning, pd.errors.ChainedAssignmentError])
def test_recboles_own_warnings_are_silent(category: type[Warning]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        compat.install()
        warnings.warn_explicit("chained", category, "dataset.py", 1, module="recbole.data.dataset.dataset")
        message = "The given NumPy array is not writable, and PyTorch does not support non-writable tensors."
        warnings.warn_explicit(message, UserWarning, "dataset.py", 1, module="recbole.data.dataset.dataset")
        assert not seen
        warnings.warn_explicit("mine", category, "mine.py", 1, module="mine")
        warnings.warn_explicit(message, UserWarning, "mine.py", 1, module="mine")
        assert len(seen) == 2


def test_a_download_waits_for_no_other_process() -> None:
    barrier = torch.distributed.barrier
    with pytest.raises((ValueError, RuntimeError)):
        torch.distributed.barrier()
    with compat.barrier_without_processes():
        torch.distributed.barrier()
    assert torch.distributed.barrier is barrier


# -- two towers ---------------------------------------------------------------------------------------------


class OwnTowers(DSSM):
    """A model of the user's own that asks for two towers by itself."""

    def __init__(self, config: Any, dataset: Any):
        config["double_tower"] = True
        super().__init__(config, dataset)


@pytest.mark.parametrize("model_class", [DSSM, OwnTowers])
def test_a_tower_depends_on_its_own_side_only(model_class: type, make: Make, undo: Any) -> None:
    def sides(b: SimpleNamespace, rows: Any) -> tuple[Any, Any]:
        first, second, third, fourth = b.model.double_tower_embed_input_fields(rows)
        return torch.cat([first, second], 1), torch.cat([third, fourth], 1)

    users, items = ("height", "visits", "age", "user_id"), ("length", "scores", "genre", "year", "item_id")
    b = make(model_class)
    user, item = sides(b, b.rows)
    assert user.shape[1] == len((*users, "gender"))
    assert item.shape[1] == len(items)
    for name in users:
        after = sides(b, changed(b.rows, name))
        assert not torch.equal(after[0], user), name
        assert torch.equal(after[1], item), name
    for name in items:
        after = sides(b, changed(b.rows, name))
        assert torch.equal(after[0], user), name
        assert not torch.equal(after[1], item), name

    undo(ContextRecommender, "double_tower_embed_input_fields")
    user, _ = sides(b, b.rows)
    assert not torch.equal(sides(b, changed(b.rows, "scores"))[0], user)  # an item's scores in the users' tower


def test_a_tower_without_numbers(make: Make) -> None:
    b = make(DSSM, numerical_features=["scores", "length"])
    assert (b.model.user_float_field_num, b.model.item_float_field_num) == (0, 2)
    assert b.model(b.rows).shape == (16,)
    b = make(DSSM, **PLAIN)
    assert b.model.double_tower_embed_input_fields(b.rows)[1::2] == (None, None)
    assert b.model(b.rows).shape == (16,)


def test_numbers_that_are_not_embedded_have_no_place_in_a_tower(make: Make, undo: Any) -> None:
    assert "price" in make(DSSM).rows.columns
    undo(ContextRecommender, "__init__")
    b = make(DSSM)
    with pytest.raises(RuntimeError):
        b.model(b.rows)


def test_dssm_scores_a_single_row(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    b = make(DSSM)
    b.model.eval()
    assert b.model(b.one).shape == (1,)
    assert torch.isfinite(b.model.calculate_loss(b.one))
    torch.testing.assert_close(b.model(b.one), b.model(b.rows)[:1])
    monkeypatch.setattr(dssm, "torch", torch)
    assert b.model(b.one).shape == ()
    with pytest.raises(ValueError, match="size"):
        b.model.calculate_loss(b.one)


# -- FwFM ---------------------------------------------------------------------------------------------------


def test_fwfm_trains_and_saves_its_field_weights(make: Make, undo: Any) -> None:
    b = make(FwFM)
    assert "weight" in b.model.state_dict()
    b.model.calculate_loss(b.rows).backward()
    assert b.model.weight.grad.any()
    assert "weight" in dict(b.model.named_parameters())
    assert b.model.double().weight.dtype == torch.float64

    undo(FwFM, "__init__")
    theirs = make(FwFM, **PLAIN).model
    assert "weight" not in theirs.state_dict()
    assert "weight" not in dict(theirs.named_parameters())
    assert theirs.double().weight.dtype == torch.float32
    ours = make(FwFM, **PLAIN).model
    assert torch.equal(ours.weight, theirs.weight)  # the same draws


def test_fwfm_embeds_sequences_of_numbers(make: Make, undo: Any) -> None:
    b = make(FwFM, **SEQUENCES)
    assert b.model(b.rows).shape == (16,)
    undo(FwFM, "_get_feature2field")
    b = make(FwFM, **SEQUENCES)
    with pytest.raises(KeyError):
        b.model(b.rows)


def test_fwfm_weighs_the_fields_of_a_group(make: Make, undo: Any) -> None:
    """Where only pairs within group 1 have weight, no other field has a part in the interactions."""

    def parts(b: SimpleNamespace) -> set[str]:
        with torch.no_grad():
            b.model.weight.zero_()
            b.model.weight[1, 1] = 1
        fields = [name for names in GROUPS.values() for name in names if name not in ("dwell", "visits", "scores")]

        def layer(rows: Any) -> Any:
            return b.model.fwfm_layer(b.model.concat_embed_input_fields(rows))

        whole = layer(b.rows)
        return {name for name in fields if not torch.allclose(layer(changed(b.rows, name)), whole, atol=1e-7)}

    keys = {"fields": GROUPS, "numerical_features": ["height", "length"]}
    assert parts(make(FwFM, **keys)) == {"age", "gender", "height", "user_id"}
    undo(FwFM, "_get_feature2field")
    assert parts(make(FwFM, **keys)) != {"age", "gender", "height", "user_id"}


# -- KD_DAGFM -----------------------------------------------------------------------------------------------


def test_kd_dagfm_predicts_one_number_a_row(make: Make, undo: Any) -> None:
    b = make(KD_DAGFM, **TEACHER)
    assert b.model.predict(b.rows).shape == (16,)
    assert torch.equal(b.model.predict(b.rows), b.model(b.rows).view(-1))
    undo(KD_DAGFM, "predict")
    assert b.model.predict(b.rows).shape == (16, 1)


def test_kd_dagfm_learns_from_a_single_row(make: Make, undo: Any) -> None:
    b = make(KD_DAGFM, **TEACHER)
    ours, of_one = b.model.calculate_loss(b.rows), b.model.calculate_loss(b.one)
    expected = torch.nn.functional.binary_cross_entropy(b.model.predict(b.one), b.one["label"])
    torch.testing.assert_close(of_one, expected)
    undo(KD_DAGFM, "calculate_loss")
    assert torch.equal(b.model.calculate_loss(b.rows), ours)
    with pytest.raises(ValueError, match="size"):
        b.model.calculate_loss(b.one)


def test_the_name_of_a_teacher_is_no_code(tiny: Callable[..., Any], undo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "__import__('pathlib').Path('ran').touch() or CrossNet"
    config, _, dataset = prepare(tiny, "KD_DAGFM", DATA | TEACHER)
    for key, value in (("teacher", code), ("phase", "learning"), ("type", "both")):
        with monkeypatch.context() as patch:  # behind the back of the configuration's own check
            patch.setitem(config.final_config_dict, key, value)
            with pytest.raises(ValueError, match=rf"{key} must be one of"):
                KD_DAGFM(config, dataset)
    assert not Path("ran").exists()
    undo(KD_DAGFM, "__init__")
    monkeypatch.setitem(config.final_config_dict, "teacher", code)
    KD_DAGFM(config, dataset)
    assert Path("ran").exists()


def test_a_student_starts_from_the_files_of_our_runs(keys: Callable[..., dict[str, Any]]) -> None:
    small = {"t_depth": 2, "depth": 2, "t_cin": [6, 5], "finetune_modes": ["ctr"]}
    teacher = run_recbole_alt("ALT_KD_DAGFM", "tiny", None, keys(phase="teacher_training", **small))
    folder = Path(teacher["folder"])
    assert set(teacher["record"]["results"]) == {"ctr", "plain"}
    for name in ("plain", "ctr"):
        file = folder / f"{name}.pth"
        warm_up = shutil.copy(file, "warm_up.pth")
        student = run_recbole_alt("ALT_KD_DAGFM", "tiny", None, keys(phase="finetuning", warm_up=warm_up, **small))
        Path(warm_up).unlink()
        load_data_and_model(Path(student["folder"]) / f"{name}.pth")  # its own file is enough
        first, last = (checkpoints.load(f)["state_dict"] for f in (file, Path(student["folder"]) / f"{name}.pth"))
        taught = {key for key in first if "teacher_network" in key}
        assert {key for key in first if torch.equal(first[key], last[key])} >= taught  # a student leaves its teacher be
        assert any("student_network" in key and not torch.equal(first[key], last[key]) for key in first)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
def test_a_warm_up_file_runs_no_code(make: Make, undo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("bad.pth").write_bytes(pickle.dumps({"state_dict": Payload()}, protocol=2))
    torch.save({"state_dict": Payload()}, "worse.pth")
    torch.save({"weights": {}}, "other.pth")
    student = TEACHER | {"phase": "finetuning"}
    for file in ("bad.pth", "worse.pth", "other.pth", "missing.pth", ""):
        with pytest.raises(ValueError, match=r"warm_up.*plain\.pth or ctr\.pth"):
            make(KD_DAGFM, **student, warm_up=file)
    assert not Path("ran").exists()

    undo(KD_DAGFM, "__init__")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as torch was until 2.6
    with pytest.raises(Exception, match=r"state_dict|PosixPath|None"):
        make(KD_DAGFM, **student, warm_up="worse.pth")
    assert Path("ran").exists()


def test_warm_up_reads_prefixed_weights(make: Make, undo: Any) -> None:
    weights = make(KD_DAGFM, **TEACHER).model.state_dict()
    checkpoints.save({"state_dict": {f"backbone.model.{k}": v + 1 for k, v in weights.items()}}, "ctr.pth")
    student = TEACHER | {"phase": "finetuning", "warm_up": "ctr.pth"}
    for key, value in make(KD_DAGFM, **student).model.state_dict().items():
        assert torch.equal(value, weights[key] + 1), key
    undo(KD_DAGFM, "__init__")
    with pytest.raises(RuntimeError, match="Missing key"):
        make(KD_DAGFM, **student)


def test_the_graph_of_fields_moves_with_its_model(make: Make, undo: Any) -> None:
    b = make(KD_DAGFM, **TEACHER)
    network = b.model.student_network
    assert not [key for key in b.model.state_dict() if "adj_matrix" in key]
    assert network.adj_matrix[:, :, 0].equal(torch.ones(12, 12).triu())
    assert b.model.double().student_network.adj_matrix.dtype == torch.float64
    assert b.model.to("meta").student_network.adj_matrix.device.type == "meta"
    undo(KD_DAGFM, "__init__")
    theirs = make(KD_DAGFM, **TEACHER).model
    assert theirs.state_dict().keys() == b.model.state_dict().keys()
    assert theirs.double().student_network.adj_matrix.dtype == torch.float32
    assert theirs.to("meta").student_network.adj_matrix.device.type == "cpu"


@pytest.mark.parametrize(("model_class", "keys"), [(FiGNN, {}), (KD_DAGFM, TEACHER)])
def test_a_model_can_be_copied_after_a_forward(model_class: type, keys: dict[str, Any], make: Make) -> None:
    b = make(model_class, **keys)
    before = b.model.eval()(b.rows)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(b.model)
    compat.drop_activations(b.model)
    assert torch.equal(copy.deepcopy(b.model)(b.rows), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_dropout_draws_and_scales_as_torchs(p: float, dtype: torch.dtype) -> None:
    """The same values, gradients and state of the generator, bit for bit, also of tensors that are not contiguous."""
    whole = torch.randn(37, 50, dtype=dtype)
    for rows in (whole, whole.t(), whole[:, ::2], whole[:0]):
        for training in (True, False):
            found = []
            for module in (layers.nn.Dropout(p), torch.nn.Dropout(p)):
                torch.manual_seed(5)
                leaf = rows.detach().requires_grad_()
                dropped = module.train(training)(leaf)
                (dropped * dropped.detach()).sum().backward()
                found.append((dropped, leaf.grad, torch.get_rng_state()))
            assert all(map(torch.equal, *found))
    assert MLPLayers([4, 2], dropout=p).mlp_layers[0]._get_name() == "_Dropout"


def test_dropout_is_torchs_where_it_draws_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_draws_alike", lambda: False)
    monkeypatch.setattr(torch, "rand_like", None)
    assert layers.nn.Dropout(0.5)(torch.ones(1000)).unique().tolist() == [0.0, 2.0]
