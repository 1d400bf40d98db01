"""The linear probe: finds what texts say, finds nothing where they say nothing, and learns no text by heart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_alt import checkpoints, run_recbole_alt
from recbole_alt.cli import main
from recbole_alt.loading import load_data
from recbole_alt.metrics import auc
from recbole_alt.questions.probe import ask, principal_components, probe

pytestmark = pytest.mark.usefixtures("one_thread")

Keys = Callable[..., dict[str, Any]]


def rows(texts: int = 300, each: int = 20, width: int = 8, *, said: float, own: float) -> tuple[np.ndarray, ...]:
    """Logits, clicks, states and text of rows whose clicks depend on the logit, on the text's states, on the text."""
    rng = np.random.default_rng(7)
    states, of = rng.normal(size=(texts, width)), np.repeat(np.arange(texts), each)
    logits, of_text = rng.normal(size=len(of)), rng.normal(size=texts)
    truth = logits + said * states[of, 0] + own * of_text[of]
    return logits, rng.random(len(of)) < 1 / (1 + np.exp(-truth)), states, of


def test_what_texts_say_is_found() -> None:
    logits, clicks, states, of = rows(said=1.0, own=0.0)
    found = ask("plain", "item", logits, clicks, states, of, seed=1)
    assert found.auc == auc(clicks, logits)
    best = auc(clicks, logits + states[of, 0])
    assert best is not None
    assert max(found.with_others) < found.auc + 0.005 < best - 0.05
    assert best - 0.01 < found.with_texts < best + 0.005
    assert (found.texts, found.rows) == (300, 6000)


def test_no_text_is_learned_by_heart() -> None:
    """Each text has a rate of clicks of its own, and there are enough components to tell half of the texts apart."""
    logits, clicks, states, of = rows(texts=60, each=100, width=40, said=0.0, own=1.5)
    found = ask("plain", "item", logits, clicks, states, of, seed=1)
    by_heart = np.asarray([clicks[of == text].mean() for text in range(60)])[of]
    reached = auc(clicks, logits + 3 * by_heart)
    assert reached is not None and reached > found.auc + 0.05
    for with_probe in (found.with_texts, *found.with_others):
        assert found.auc - 0.005 < with_probe < found.auc + 0.02  # where there is nothing to follow, it stays


@pytest.mark.parametrize("texts", [1, 2, 4])
def test_few_texts(texts: int) -> None:
    found = ask("plain", "user", *rows(texts, each=200, said=0.0, own=0.0), seed=1)
    assert abs(found.with_texts - found.auc) < 0.05
    assert texts > 1 or found.with_texts == found.auc == found.with_others[0]


def test_components() -> None:
    states = np.random.default_rng(1).normal(size=(50, 3)) @ np.random.default_rng(2).normal(size=(3, 40)) + 5
    components = principal_components(states)
    assert components.shape == (50, 3)  # no more than there are
    assert np.allclose(components.T @ components / 50, np.eye(3)) and np.allclose(components.mean(0), 0)
    assert principal_components(np.ones((50, 4))).shape == (50, 0)


def test_every_model_of_a_run(keys: Keys, capsys: Any) -> None:
    result = run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=["ctr", "lm", "joint"]))
    folder, reached = Path(result["folder"]), result["record"]["results"]
    assert main(["probe", str(folder), "--json=probe.json"]) == 0
    printed, kept = capsys.readouterr().out, json.loads(Path("probe.json").read_text())
    assert {(one["stage"], one["segment"]) for one in kept} == {
        (stage, segment) for stage in ("plain", "ctr", "lm", "joint") for segment in ("user", "item", "context")
    }
    for one in kept:  # the models are those of the run, and the rows all of its validation
        assert one["auc"] == pytest.approx(reached[one["stage"]]["valid"]["auc"], abs=1e-5)
        assert f"{one['with_texts']:.4f}" in printed
    assert main(["probe", str(folder / "lm.pth"), "--json=lm.json"]) == 0
    assert json.loads(Path("lm.json").read_text()) == [one for one in kept if one["stage"] == "lm"]
    assert main(["probe", str(folder / "pretrain.pth")]) == 2
    assert "pretrain.pth' holds no finetuned model: it has no 'state_dict'" in capsys.readouterr().err


def test_bad_input(keys: Keys, capsys: Any) -> None:
    given = keys(finetune_modes=[])
    folder = Path(run_recbole_alt("ALT_DCN", "tiny", None, given)["folder"])
    assert main(["probe", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 'nowhere' holds no finetuned model") and error.count("\n") == 1
    config = checkpoints.load(folder / "plain.pth")["config"]
    config["load_col"] = {
        "inter": ["user_id", "item_id", "rating", "timestamp"],
        "user": ["user_id", "age"],
        "item": ["item_id", "year"],
    }
    with pytest.raises(ValueError, match=r"plain\.pth' was made from other data"):
        probe(folder, load_data(config))
    logits, clicks, states, of = rows(said=0.0, own=0.0)
    with pytest.raises(ValueError, match="one class only"):
        ask("plain", "item", logits, clicks | True, states, of, seed=1)
