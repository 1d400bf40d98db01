"""What is said of a run: nothing moved where nothing was trained, and every number is of the rows it names."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.utils import get_model

from recbole_alt import checkpoints, run_recbole_alt
from recbole_alt.cli import main
from recbole_alt.config import ALTConfig
from recbole_alt.experiment import load_data
from recbole_alt.model.backbones import mask_table
from recbole_alt.questions.diagnose import build_seeded, diagnose, field_embeddings, pairwise_cosines

pytestmark = pytest.mark.usefixtures("one_thread")

Keys = Callable[..., dict[str, Any]]
TOKENS = {"user_id", "item_id", "age", "gender", "year", "device"}


def run(keys: Keys, model: str = "ALT_DCN", **changes: Any) -> Path:
    return Path(run_recbole_alt(model, "tiny", None, keys(finetune_modes=["ctr"], **changes))["folder"])


def test_nothing_moved_where_nothing_was_trained(keys: Keys) -> None:
    found = diagnose(run(keys, pretrain_steps=0, epochs=0))
    assert TOKENS <= found.embeddings.keys() == found.values.keys()
    for line in found.embeddings.values():
        assert line["norm_initial"] == line["norm_aligned"] == line["norm_ctr"] == line["norm_plain"]
        assert line["moved_ctr"] == 0
    for line in found.likeness.values():
        assert len(set(line.values())) == 1


def test_each_stage_moves_what_it_trains(keys: Keys) -> None:
    aligned = diagnose(run(keys, epochs=0))
    for name in TOKENS:
        line = aligned.embeddings[name]
        assert line["norm_aligned"] != line["norm_initial"] == line["norm_plain"], name
        assert line["moved_ctr"] == 0 and line["cosine_ctr"] == pytest.approx(1, abs=1e-5), name
    finetuned = diagnose(run(keys))
    for name in TOKENS:
        line = finetuned.embeddings[name]
        assert line["norm_aligned"] == aligned.embeddings[name]["norm_aligned"]  # the same alignment
        assert line["moved_ctr"] > 0 and -1 <= line["cosine_ctr"] < 1 and line["norm_plain"] != line["norm_initial"]
        assert list(line)[-4:] == ["norm_ctr", "norm_plain", "moved_ctr", "cosine_ctr"]  # columns in order
    assert finetuned.alignment == aligned.alignment and finetuned.rows == aligned.rows


def test_held_out_rows_are_other_rows(keys: Keys) -> None:
    folder = run(keys)
    found = diagnose(folder)
    assert found.alignment["train"].keys() == found.alignment["valid"].keys()
    assert found.alignment["train"]["contrastive loss"] != found.alignment["valid"]["contrastive loss"]
    chance = {split: found.alignment[split]["retrieval by chance"] for split in found.rows}
    assert 1 / found.rows["train"] < 1 / 60 < chance["train"] < 2 / 60  # 60 texts, most of them of two or more rows
    assert 1 / found.rows["valid"] <= chance["valid"] < 2 / found.rows["valid"]
    assert all(math.isfinite(value) for line in found.alignment.values() for value in line.values())
    assert all(0 <= value <= 1 for line in found.values.values() for value in line.values())
    assert diagnose(folder) == found


def test_an_embedding_is_of_the_field_it_is_named_after(keys: Keys) -> None:
    columns = {
        "inter": ["user_id", "item_id", "rating", "timestamp", "device", "dwell"],
        "user": ["user_id", "age", "gender", "visits"],
        "item": ["item_id", "year", "genre", "length"],
    }
    floats = {"numerical_features": ["dwell", "visits", "length"]}
    config = ALTConfig("ALT_DCN", "tiny", None, keys(finetune_modes=["ctr"], load_col=columns, **floats))
    dataset = load_data(config)[1]._dataset
    backbone, rows = build_seeded(config, dataset, get_model("ALT_DCN").backbone_class), dataset[:]
    whole = field_embeddings(backbone, rows)
    assert {f.kind for f in backbone.fields} == {"token", "token_seq", "float", "float_seq"}
    assert whole.keys() == {f.name for f in backbone.fields}
    for column, field in enumerate(backbone.fields):
        hidden = torch.zeros(len(rows), len(backbone.fields), dtype=torch.bool)
        hidden[:, column] = True
        without = field_embeddings(backbone, mask_table(rows, backbone.fields, hidden))
        assert {name for name in whole if not torch.equal(whole[name], without[name])} == {field.name}


@pytest.mark.parametrize("model", ["ALT_LR", "ALT_FFM", "ALT_DSSM"])
def test_models_without_such_embeddings(model: str, keys: Keys) -> None:
    found = diagnose(run(keys, model, plain_baseline=False))
    assert found.embeddings == {} == found.likeness and found.alignment["valid"]


def test_texts_of_pairs_have_no_likeness(keys: Keys) -> None:
    found = diagnose(run(keys, prompt_scope="interaction", plain_baseline=False, objectives=["contrastive"]))
    assert found.likeness == {} == found.values and found.embeddings


def test_the_command(keys: Keys, capsys: Any) -> None:
    folder = run(keys, plain_baseline=False)
    assert main(["diagnose", str(folder), "--json=found.json"]) == 0
    printed, kept = capsys.readouterr().out, json.loads(Path("found.json").read_text())
    assert f"{kept['embeddings']['user_id']['moved_ctr']:.3f}" in printed and "item_id found again" in printed
    for wrong in ("nowhere", str(folder / "pretrain.pth")):
        assert main(["diagnose", wrong]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and wrong in error


def test_an_alignment_from_elsewhere(keys: Keys, tmp_path: Path) -> None:
    first = run(keys, epochs=0)
    second = run(keys, pretrained_checkpoint=str(first / "pretrain.pth"), plain_baseline=False)
    assert diagnose(second).alignment == diagnose(first).alignment
    state = checkpoints.load(first / "pretrain.pth")
    state["config"]["model"] = "ALT_Nobodys"
    checkpoints.save(state, tmp_path / "pretrain.pth")
    with pytest.raises(ValueError, match=r"pretrain\.pth' is of ALT_Nobodys, which is not registered"):
        diagnose(tmp_path)


def test_cosines_of_pairs() -> None:
    vectors = torch.randn(5, 3)
    expected = [
        float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))
        for i, a in enumerate(vectors.numpy())
        for b in vectors.numpy()[i + 1 :]
    ]
    assert pairwise_cosines(vectors) == pytest.approx(expected, abs=1e-6)
