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
from scipy.stats import spearmanr

from recbole_alt import checkpoints, run_recbole_alt
from recbole_alt.cli import main
from recbole_alt.config import ALTConfig
from recbole_alt.loading import load_data
from recbole_alt.model.backbones import mask_table
from recbole_alt.questions.diagnose import build_seeded, diagnose, field_embeddings
from recbole_alt.questions.likeness import compare, nearest

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
    for stages in found.likeness.values():
        assert stages.keys() == {"initial", "aligned", "ctr", "plain"}
        assert all(line == stages["initial"] for line in stages.values())


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


@pytest.mark.parametrize(
    "model", ["ALT_LR", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ALT_FFM", "ALT_DSSM"))]
)
def test_models_whose_forward_has_no_such_embeddings(model: str, keys: Keys) -> None:
    found = diagnose(run(keys, model, plain_baseline=False))
    assert found.embeddings == {} and found.alignment["valid"] and found.likeness.keys() == {"user", "item"}
    assert all(stages.keys() == {"initial", "aligned", "ctr"} for stages in found.likeness.values())


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
    assert error == f"error: {wrong!r} is a file: give the folder of the run\n"


def test_an_alignment_from_elsewhere(keys: Keys, tmp_path: Path) -> None:
    first = run(keys, epochs=0)
    second = run(keys, pretrained_checkpoint=str(first / "pretrain.pth"), plain_baseline=False)
    assert diagnose(second).alignment == diagnose(first).alignment
    state = checkpoints.load(first / "pretrain.pth")
    state["config"]["model"] = "ALT_Nobodys"
    checkpoints.save(state, tmp_path / "pretrain.pth")
    with pytest.raises(ValueError, match=r"pretrain\.pth' is of ALT_Nobodys, which is not registered"):
        diagnose(tmp_path)


def test_likeness_is_spearmans_over_pairs() -> None:
    texts, embeddings = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    pairs = [(i, j) for i in range(9) for j in range(i + 1, 9)]

    def cosine(vectors: torch.Tensor, i: int, j: int) -> float:
        a, b = vectors[i].numpy(), vectors[j].numpy()
        return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))

    said, learned = ([cosine(vectors, *pair) for pair in pairs] for vectors in (texts, embeddings))
    found = compare(texts, embeddings, 1)
    assert found.correlation == pytest.approx(spearmanr(said, learned).statistic)
    assert found == compare(texts, embeddings, 1) and found.nearest == found.nearest_by_chance == 1  # all 8 others


def test_likeness_of_the_right_texts_is_above_that_of_others() -> None:
    texts = torch.randn(200, 5, generator=torch.Generator().manual_seed(1))
    found = compare(texts, texts @ torch.diag(torch.tensor([1.0, 1.2, 0.8, 1.0, 1.0])), 1)
    assert found.correlation > 0.9 and found.nearest > 0.6 and abs(found.with_others) < 0.05
    assert found.nearest_by_chance == 10 / 199
    chance = compare(texts, torch.randn(200, 5, generator=torch.Generator().manual_seed(2)), 1)
    assert abs(chance.correlation) < 0.05 and chance.nearest == pytest.approx(chance.nearest_by_chance, abs=0.02)
    same = compare(torch.ones(200, 5), texts, 1)  # one text for all: nothing can be said
    assert math.isnan(same.correlation) and same.nearest == pytest.approx(same.nearest_by_chance)
    assert math.isnan(compare(texts[:2], texts[:2], 1).correlation)


def test_the_nearest_share_the_last_places_where_they_tie() -> None:
    similarity = np.array([[1, 0.5, 0.5, 0.5, 0.9], [0.5, 1, 0, 0.1, 0.2], *[[0.0] * 5] * 3])
    found = nearest(similarity, 2)
    assert found[0] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 1]) and found[1].tolist() == [1, 0, 0, 0, 1]
    assert found.sum(1) == pytest.approx([2] * 5) and not found.diagonal().any()
