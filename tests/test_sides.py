"""A side that nothing describes has no text: what is said, what is refused, and a whole run with one text only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recbole.data import create_dataset
from rows import SOME, built, refused

from recbole_alt import run_recbole_alt
from recbole_alt.config import ALTConfig
from recbole_alt.exporting import to_huggingface, to_recbole
from recbole_alt.loading import load_data
from recbole_alt.questions.diagnose import diagnose
from recbole_alt.questions.probe import probe

Tiny = Callable[..., ALTConfig]

BARE = {"inter": ["user_id", "item_id", "rating", "timestamp"], "user": ["user_id"], "item": ["item_id"]}
#: Side → keys that describe nothing else.
DESCRIBED: dict[str, dict[str, Any]] = {
    "user": {"load_col": BARE | {"user": ["user_id", "age", "gender"]}, "prompt_only": None},
    "item": {"load_col": BARE | {"item": ["item_id", "year"]}, "prompt_only": {"item": ["title"]}},
    "context": {"load_col": BARE | {"inter": [*BARE["inter"], "device"]}, "prompt_only": None},
}


@pytest.mark.parametrize("scope", ["entity", "interaction"])
@pytest.mark.parametrize("side", DESCRIBED)
def test_a_side_that_nothing_describes_is_said_and_has_no_text(tiny: Tiny, caplog: Any, side: str, scope: str) -> None:
    caplog.set_level(logging.INFO)
    dataset = built(tiny(prompt_scope=scope, state="INFO", **DESCRIBED[side]))
    assert [segment.name for segment in dataset.prompts.segments] == [side if scope == "entity" else "prompt"]
    assert not {"user_id", "item_id"} & set(dataset.prompts.fields)
    said = [record.getMessage() for record in caplog.records if "have no text" in record.message]
    silent = [one for one in ("user", "item") if one != side]
    assert [line.split(" ")[1] for line in said] == [f"{one}s" for one in silent]
    assert all(f"prompt_only: {{{one}: [...]}}" in line for one, line in zip(silent, said, strict=True))
    caplog.clear()
    asked = built(tiny(template={"exclude": []}, prompt_scope=scope, state="INFO", **DESCRIBED[side]))
    assert {"user_id", "item_id"} < set(asked.prompts.fields)
    assert "have no text" not in caplog.text


@pytest.mark.parametrize(
    "keys", [{}, {"prompt_scope": "interaction"}, {"template": {"exclude": ["user_id", "item_id"]}}]
)
def test_without_any_text_only_the_plain_model_is_trained(own: Any, keys: dict[str, Any], tmp_path: Path) -> None:
    config = own("bare", inter=SOME, **{"template": None} | keys)
    match = "none of the loaded columns user_id, item_id, label .* load_col, or text with prompt_only"
    refused(match, config)
    with pytest.raises(ValueError, match=match):
        create_dataset(config)  # at once
    plain = {"template": None, "finetune_modes": [], "data_path": str(tmp_path)} | keys
    dataset = built(ALTConfig("ALT_DCN", "bare", None, {"load_col": None, "state": "ERROR"} | plain))
    assert len(dataset) == 30
    with pytest.raises(ValueError, match=match):
        _ = dataset.prompts  # as a probe asks for them


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("side", "changes"),
    [
        ("item", {}),
        pytest.param("user", {}, marks=pytest.mark.slow),
        pytest.param("item", {"frozen_layers": "all", "freeze_language_model": True}, marks=pytest.mark.slow),
    ],
    ids=["item", "user", "item-frozen"],
)
def test_a_run_with_one_text_a_row(keys: Any, side: str, changes: dict[str, Any], tmp_path: Path) -> None:
    given = keys(epochs=1, pretrain_steps=2, text_cache_dir=None, **DESCRIBED[side], **changes)
    result = run_recbole_alt("ALT_DCN", "tiny", None, given)
    stages, folder = result["record"]["stages"], Path(result["folder"])
    final = stages["pretrain"]["final"]
    assert {"loss/contrastive", "loss/masked_language", "loss/masked_tabular"} <= final.keys()
    assert all(stages[name]["texts_encoded"] > 0 for name in ("pretrain", "lm", "joint"))
    data = load_data(ALTConfig("ALT_DCN", "tiny", None, given))
    found = diagnose(folder, data)
    assert set(found.likeness) == {side} and all(value == value for value in found.alignment["valid"].values())
    assert {one.segment for one in probe(folder, data)} == {side}
    to_recbole(folder / "joint.pth", tmp_path / "plain.pth")
    to_huggingface(folder / "joint.pth", tmp_path / "exported")
    assert (tmp_path / "exported" / "config.json").is_file()
