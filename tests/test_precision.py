"""What is measured about the machine is measured once, and kept for whoever goes on with a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_alt import experiment, run_recbole_alt
from recbole_alt.model import precision

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("fp32", "bf16", "faster"), [(1.0, 0.5, True), (1.0, 0.99, False), (1.0, 3.0, False)])
def test_the_faster_one_is_chosen(fp32: float, bf16: float, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_time", lambda layer, texts, narrow: bf16 if narrow else fp32)
    measure = precision.bf16_is_faster.__wrapped__  # without what this process measured before
    assert measure(torch.device("cpu")) == faster


def test_measuring_draws_no_random_number() -> None:
    state = torch.get_rng_state()
    with torch.no_grad():  # as when scoring
        precision.bf16_is_faster.__wrapped__(torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_resumed_run_keeps_its_precision(
    keys: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = keys(precision="auto", finetune_modes=["joint"], plain_baseline=False)
    monkeypatch.setattr(experiment, "bf16_is_faster", lambda device: True)
    whole = run_recbole_alt("ALT_DCN", "tiny", None, given)
    folder = Path(whole["folder"])
    assert json.loads((folder / "precision.json").read_text()) == "bf16"
    (folder / "joint.json").unlink()  # as if it had been stopped before
    (folder / "joint.pth").unlink()
    monkeypatch.setattr(experiment, "bf16_is_faster", lambda device: pytest.fail("measured again"))
    again = run_recbole_alt("ALT_DCN", "tiny", None, given | {"resume": str(folder)})
    assert again["record"]["results"] == whole["record"]["results"]
    monkeypatch.setattr(experiment, "bf16_is_faster", lambda device: False)
    other = run_recbole_alt("ALT_DCN", "tiny", None, given)
    assert other["record"]["results"] != whole["record"]["results"]
