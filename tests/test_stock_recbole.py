"""RecBole's own entry points with our models, and RecBole's own models beside ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import recbole_alt

pytestmark = pytest.mark.usefixtures("one_thread")

try:
    from recbole.quick_start import load_data_and_model, run_recbole
except (ImportError, AttributeError) as error:  # RecBole's quick_start imports ray, which breaks with other packages
    pytest.skip(f"recbole.quick_start can't be imported here: {error}", allow_module_level=True)


def predictions(loaded: tuple[Any, ...]) -> torch.Tensor:
    _, model, *_, test = loaded
    model.eval()
    with torch.no_grad():
        return torch.cat([model.predict(batch[0]) for batch in test])


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        ("ALT_DCN", "joint"),
        ("ALT_DCN", "lm"),
        ("ALT_xDeepFM", "ctr"),
        pytest.param("ALT_DCN", "ctr", marks=pytest.mark.slow),
        pytest.param("ALT_xDeepFM", "joint", marks=pytest.mark.slow),
        pytest.param("ALT_DeepFM", "ctr", marks=pytest.mark.slow),
        pytest.param("ALT_DeepFM", "joint", marks=pytest.mark.slow),
    ],
)
def test_stock_recbole_trains_tests_and_loads(
    model: str, mode: str, keys: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import recbole.quick_start.quick_start as stock

    counted: list[float] = []
    real = stock.get_flops
    monkeypatch.setattr(stock, "get_flops", lambda *a, **k: counted.append(real(*a, **k)) or counted[-1])
    result = run_recbole(model=model, dataset="tiny", config_dict=keys(finetune_mode=mode))
    assert set(result["best_valid_result"]) == set(result["test_result"]) == {"auc", "logloss"}
    assert result["best_valid_score"] == result["best_valid_result"]["auc"]
    assert counted[0] > 0

    (file,) = (f for f in Path("saved").glob(f"{model}-*.pth") if "-last" not in f.stem and "-pretrain" not in f.stem)
    torch.load(file, weights_only=True)
    theirs, ours = load_data_and_model(str(file)), recbole_alt.load_data_and_model(file)
    assert theirs[1].mode == ours[1].mode == mode
    scores = predictions(theirs)
    assert len(scores) == 16
    assert torch.equal(scores, predictions(ours))
    label = torch.cat([batch[0]["label"] for batch in theirs[-1]])
    logloss = torch.nn.functional.binary_cross_entropy(scores.clamp(1e-15, 1 - 1e-7).double(), label.double())
    assert logloss.item() == pytest.approx(result["test_result"]["logloss"], abs=1e-3)  # the weights that were scored


def test_alignment_comes_first(keys: Callable[..., dict[str, Any]]) -> None:
    run_recbole(model="ALT_DCN", dataset="tiny", config_dict=keys(finetune_mode="ctr", epochs=0))
    (towers,) = Path("saved").glob("*-pretrain.pth")
    (file,) = (f for f in Path("saved").glob("*.pth") if "-last" not in f.stem and "-pretrain" not in f.stem)
    aligned, model = torch.load(towers, weights_only=True), torch.load(file, weights_only=True)
    assert aligned["step"] == 4
    for key, value in aligned["backbone"].items():
        assert torch.equal(model["state_dict"][f"backbone.{key}"], value), key


@pytest.mark.parametrize("mode", ["joint", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("lm", "ctr"))])
def test_unseen_values_start_as_asked_without_alignment_too(mode: str, keys: Callable[..., dict[str, Any]]) -> None:
    states = {}
    for unseen in ("initial", "zero", "hidden"):
        few = {"train_share": 0.05, "split_seed": 1}
        given = keys(finetune_mode=mode, pretrain_steps=0, epochs=0, unseen_values=unseen, **few)
        run_recbole(model="ALT_DCN", dataset="tiny", config_dict=given | {"checkpoint_dir": unseen})
        (file,) = (f for f in Path(unseen).glob("*.pth") if "-last" not in f.stem and "-pretrain" not in f.stem)
        states[unseen] = torch.load(file, weights_only=True)["state_dict"]
    initial = states.pop("initial")
    for unseen, state in states.items():
        changed = {name: state[name][state[name] != initial[name]] for name in initial}
        changed = {name: values for name, values in changed.items() if len(values)}
        assert bool(changed) == (mode != "lm")  # which has no embeddings of values
        for name, values in changed.items():
            assert "token_embedding_table" in name and bool(values.any()) == (unseen == "hidden"), name


OVERRIDES = {  # no stage may train by another one's, nor by the keys of the run
    "ctr": {"learning_rate": 3e-3, "train_batch_size": 16, "dropout_prob": 0.1},
    "lm": {"learning_rate": 1e-3, "epochs": 3, "text_batch_size": 24},  # and the blocks that are our default
    "joint": {"language_learning_rate": 1e-4, "epochs": 3, "reg_weight": 0.2, "block_users": 2, "block_items": 3},
}


FROZEN = {"frozen_layers": "all", "freeze_language_model": True}
VECTORS = {"text_field": ["item"], "grounded": ["item"]}


@pytest.mark.parametrize(
    ("modes", "how"),
    [(["ctr", "lm", "joint"], {}), pytest.param(["joint"], FROZEN, marks=pytest.mark.slow), (["ctr"], VECTORS)],
    ids=str,
)
def test_stock_recbole_trains_what_our_command_trains(
    modes: list[str], how: dict[str, Any], keys: Callable[..., dict[str, Any]]
) -> None:
    given = keys(finetune=OVERRIDES, plain_baseline=False, epochs=2, checkpoint_dir="ours", dropout_prob=0.2)
    given |= {"finetune_modes": modes} | how
    ours = recbole_alt.run_recbole_alt("ALT_DCN", "tiny", None, given)
    folder = Path(ours["folder"])
    for mode in modes:
        theirs = run_recbole(
            model="ALT_DCN", dataset="tiny", config_dict=given | {"finetune_mode": mode, "checkpoint_dir": mode}
        )
        own = json.loads((folder / f"{mode}.json").read_text())
        assert theirs["best_valid_result"] == own["valid"] and theirs["test_result"] == own["test"]
        (last,) = Path(mode).glob("*-last.pth")
        (towers,) = Path(mode).glob("*-pretrain.pth")
        (best,) = (file for file in Path(mode).glob("*.pth") if file not in (last, towers))
        for file, other, part in ((towers, "pretrain", "objectives"), (best, mode, "state_dict")):
            found, expected = (torch.load(f, weights_only=True) for f in (file, folder / f"{other}.pth"))
            assert all(torch.equal(found[part][name], value) for name, value in expected[part].items()), other
        losses = torch.load(last, weights_only=True)["train_loss_dict"]
        assert len(losses) == OVERRIDES[mode].get("epochs", 2)


def test_stock_recbole_refuses_overrides_that_change_nothing(keys: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"finetune: ctr: text_batch_size changes nothing"):
        run_recbole(
            model="ALT_DCN",
            dataset="tiny",
            config_dict=keys(finetune_mode="ctr") | {"finetune": {"ctr": {"text_batch_size": 8}}},
        )


def test_stages_of_a_run_load(keys: Callable[..., dict[str, Any]]) -> None:
    result = recbole_alt.run_recbole_alt("ALT_DCN", "tiny", None, keys())
    for stage in ("plain", "ctr", "lm", "joint"):
        file = Path(result["folder"]) / f"{stage}.pth"
        theirs, ours = load_data_and_model(str(file)), recbole_alt.load_data_and_model(file)
        assert torch.equal(predictions(theirs), predictions(ours))
        assert ours[1].mode == ("ctr" if stage == "plain" else stage)
    with pytest.raises(ValueError, match="towers"):
        recbole_alt.load_data_and_model(Path(result["folder"]) / "pretrain.pth")
    with pytest.raises(ValueError, match="does not exist"):
        recbole_alt.load_data_and_model("nowhere.pth")


# -- RecBole's own models ----------------------------------------------------------------------------------

_PLAIN = """
import json, sys
import numpy as np
removed = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "long": np.int_, "bool8": np.bool_}
for name, target in removed.items():
    name in np.__dict__ or setattr(np, name, target)
data, with_us = sys.argv[1:]
sys.argv = ["plain"]
if with_us == "yes":
    import recbole_alt
import torch
torch.set_num_threads(1)
from recbole.config import Config
from recbole.quick_start import run_recbole
given = {"data_path": data,
         "load_col": {"inter": ["user_id", "item_id", "rating", "device"], "user": ["user_id", "age"]},
         "threshold": {"rating": 3}, "embedding_size": 8, "mlp_hidden_size": [16, 8],
         "epochs": 2, "train_batch_size": 32,
         "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": None, "mode": "labeled"},
         "metrics": ["AUC", "LogLoss"], "valid_metric": "AUC", "show_progress": False, "state": "ERROR"}
config = Config("DCN", "tiny", config_dict=dict(given))
result = run_recbole(model="DCN", dataset="tiny", config_dict=dict(given), saved=False)
values = {key: str(value) for key, value in config.final_config_dict.items()}
print(json.dumps({"config": values, "result": {key: str(value) for key, value in result.items()}}))
"""


@pytest.mark.slow
def test_plain_models_are_unaffected_by_our_import(data_path: Path) -> None:
    outcomes = []
    for with_us in ("no", "yes"):
        command = [sys.executable, "-c", _PLAIN, str(data_path), with_us]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        outcomes.append(json.loads(done.stdout.splitlines()[-1]))
    assert outcomes[0] == outcomes[1]
    assert "objectives" not in outcomes[1]["config"]
    assert outcomes[0]["config"]["embedding_size"] == "8"
