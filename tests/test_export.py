"""A run's models outside this package: plain RecBole scores the same, AutoModel encodes the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed

from recbole_alt import load_data_and_model, pretrained, run_recbole_alt
from recbole_alt.cli import main
from recbole_alt.exporting import to_huggingface, to_recbole

pytestmark = pytest.mark.usefixtures("one_thread")
SENTENCES = ["age is 24.", "title is Toy Story. genre is Animation, Comedy."]


@pytest.mark.parametrize(("model", "split_seed"), [("ALT_DCN", 7), ("ALT_FwFM", None)])
def test_plain_recbole_scores_the_same(
    model: str, split_seed: int | None, keys: Callable[..., dict[str, Any]], data_path: Path, tmp_path: Path
) -> None:
    items = shutil.copytree(data_path, tmp_path / "data") / "tiny" / "tiny.item"
    items.write_text(items.read_text().replace('"', ""))  # which plain RecBole can't read
    changes = {"data_path": str(tmp_path / "data"), "split_seed": split_seed}
    given = keys(finetune_modes=["ctr", "joint"], epochs=1, plain_baseline=False, **changes)
    run = run_recbole_alt(model, "tiny", None, given)
    folder = Path(run["folder"])
    for name in ("ctr", "joint", "pretrain"):
        to_recbole(folder / f"{name}.pth", "plain.pth")
    to_recbole(folder / "ctr.pth", "plain.pth")
    config = Config(config_file_list=["plain.pth.yaml"])  # stock RecBole
    assert config["model"] == model.removeprefix("ALT_")
    init_seed(config["seed"], config["reproducibility"])
    train, _, test = data_preparation(config, create_dataset(config))
    plain = get_model(config["model"])(config, train._dataset)
    trainer = Trainer(config, plain)
    trainer.eval_collector.data_collect(train)
    theirs = trainer.evaluate(test, model_file="plain.pth")
    _, ours, *_ = load_data_and_model(folder / "ctr.pth")
    rows = test._dataset[:]
    assert torch.equal(plain.eval().predict(rows), ours.eval().predict(rows))
    assert theirs == pytest.approx(run["record"]["results"]["ctr"]["test"], abs=1e-6)  # of the same rows


@pytest.mark.parametrize(
    ("stage", "lora_rank"),
    [
        ("pretrain", 2),
        ("joint", None),
        pytest.param("pretrain", None, marks=pytest.mark.slow),
        pytest.param("joint", 2, marks=pytest.mark.slow),
    ],
)
def test_auto_model_encodes_the_same(
    stage: str, lora_rank: int | None, keys: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    given = keys(finetune_modes=["joint"], epochs=1, plain_baseline=False, lora_rank=lora_rank)
    result = run_recbole_alt("ALT_DCN", "tiny", None, given | {"language_model_layers": 1})
    file = Path(result["folder"]) / f"{stage}.pth"
    to_huggingface(file, tmp_path / "exported")
    encoder = AutoModel.from_pretrained(tmp_path / "exported").eval()
    encoded = AutoTokenizer.from_pretrained(tmp_path / "exported")(SENTENCES, padding=True, return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    if stage == "joint":
        with torch.no_grad():
            expected = load_data_and_model(file)[1].eval().text.language_model(ids, mask)[0]
            exported = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(exported, expected)
    untrained = pretrained.load_encoder(given["language_model"])
    assert encoder.config.num_hidden_layers == 1
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(encoder.state_dict()[name], untrained.state_dict()[name])  # what was trained is in it


def test_what_is_not_there_is_named(keys: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    folder = Path(run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=["lm"], epochs=1))["folder"])
    with pytest.raises(ValueError, match=r"lm\.pth.* holds no CTR model"):
        to_recbole(folder / "lm.pth", tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"plain\.pth.* holds no language model"):
        to_huggingface(folder / "plain.pth", tmp_path / "x")


def test_command_line(keys: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=[], epochs=1))["folder"]
    assert main(["export", f"{folder}/plain.pth", "--recbole=out/dcn.pth"]) == 0
    assert Path("out/dcn.pth").is_file()
    assert main(["export", f"{folder}/none.pth", "--huggingface=out"]) == 2
    assert "none.pth" in capsys.readouterr().err
    assert main(["export", f"{folder}/plain.pth"]) == 2
    assert capsys.readouterr().err == (
        "error: nothing to do: give --recbole=FILE, --huggingface=FOLDER, --onnx=FOLDER, or several of them\n"
    )
