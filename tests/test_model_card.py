"""The model card of an exported language model: what it says is the run's, and its program makes the run's vectors."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from recbole.data import create_dataset

from recbole_alt import load_data_and_model, run_recbole_alt
from recbole_alt.data.wording import read_template
from recbole_alt.exporting import to_huggingface

pytestmark = pytest.mark.usefixtures("one_thread")
Keys = Callable[..., dict[str, Any]]


def vectors_by_the_card(folder: Path, texts: list[str]) -> torch.Tensor:
    """What the program in the card makes of ``texts``, in a process that has only it."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    code += f"\nimport json\nprint(json.dumps([len(vectors), encode({texts!r}).tolist()]))\n"
    found = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    number, vectors = json.loads(found.stdout.splitlines()[-1])
    assert number == 2  # of the card's own texts
    return torch.tensor(vectors)


def test_a_readme_that_is_no_card_is_kept(keys: Keys, tmp_path: Path) -> None:
    file = Path(run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=["lm"], epochs=1))["folder"]) / "lm.pth"
    readme = tmp_path / "README.md"
    for text in ("# My shop\n", "---\ntags:\n- bert\n---\nMade with recbole_alt.\n"):
        readme.write_text(text)
        with pytest.raises(ValueError, match=r"README\.md' is no model card.*give another folder"):
            to_huggingface(file, tmp_path)
        assert readme.read_text() == text and not (tmp_path / "config.json").exists()
    readme.unlink()
    to_huggingface(file, tmp_path)
    card = readme.read_text()
    readme.write_text(card.replace("# license: fill in", "license: mit  #"))
    to_huggingface(file, tmp_path)  # a card is written anew
    assert readme.read_text() == card


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_card_loads_the_model_of_the_run(pooling: str, keys: Keys, tmp_path: Path) -> None:
    given = keys(finetune_modes=["joint"], epochs=1, pooling=pooling, lora_rank=None)
    file = Path(run_recbole_alt("ALT_DCN", "tiny", None, given)["folder"]) / "joint.pth"
    to_huggingface(file, tmp_path / "exported")
    _, model, _, train, *_ = load_data_and_model(file)
    segment = train._dataset.prompts.segments[1]
    texts = train._dataset.prompts.distinct_of(segment, {"item_id": torch.arange(6)})
    expected = model.eval().text_cache.pooled(texts, model.device)
    words = [train._dataset.prompts._tokenizer.decode(t, skip_special_tokens=True) for t in texts.join().input_ids]
    torch.testing.assert_close(vectors_by_the_card(tmp_path / "exported", words), expected, rtol=1e-4, atol=1e-5)


def test_the_card_says_what_the_run_recorded(keys: Keys, tmp_path: Path) -> None:
    result = run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=["lm"], epochs=1))
    to_huggingface(Path(result["folder"]) / "lm.pth", tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "transformers" and front["pipeline_tag"] == "feature-extraction"
    assert front["datasets"] == ["tiny"] and "license" not in front and "base_model" not in front  # of a folder
    assert "# license: fill in" in card and "# base_model: fill in" in card
    assert str(tmp_path) not in card and os.sep + "small_bert" not in card
    for part in ("Data", "Texts", "Training", "Results", "How to load it", "What it is not good for"):
        assert f"\n## {part}\n" in card
    reached = {mode: of["test"]["auc"] for mode, of in result["record"]["results"].items()}
    gain = re.escape(f"{reached['lm'] - reached['plain']:+.4f}")
    assert re.search(rf"\| lm +\| +{reached['lm']:.4f} \| +{gain} \|", card)
    aligned = result["record"]["stages"]["pretrain"]
    assert f"- alignment, steps: {aligned['steps']}\n" in card
    assert "| item    | `title is {value}. year is {value}. genre is {value}.` |" in card
    assert "- train interactions: 128\n" in card and "- a click: `rating` of 3 or more\n" in card
    assert "was trained" in card and "They are those of the base model" not in card


def test_what_is_not_known_is_not_said(keys: Keys, data_path: Path, tmp_path: Path) -> None:
    """A frozen language model, without the record and the data of its run."""
    shutil.copytree(data_path, tmp_path / "data")
    changes = {"freeze_language_model": True, "frozen_layers": "all", "data_path": str(tmp_path / "data")}
    folder = Path(run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=["lm"], epochs=1, **changes))["folder"])
    (folder / "result.json").unlink()
    shutil.rmtree(tmp_path / "data")
    to_huggingface(folder / "lm.pth", tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "was not trained" in card and "The run has left no result." in card
    assert "Their wording is in the run's configuration" in card


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_the_wording_is_that_of_the_dataset(scope: str, tiny: Any) -> None:
    for given in ({}, {"template": {"exclude": []}}, {"template": {"order": ["genre", "age"]}}):
        config = tiny(prompt_scope=scope, **given)
        assert read_template(config) == create_dataset(config).template
