"""What is left to the machine is found once, and kept for whoever goes on with a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_alt import run_recbole_alt
from recbole_alt.files import read_record, write_json
from recbole_alt.model import machine, precision
from recbole_alt.model.build import load_configured_language_model

pytestmark = pytest.mark.usefixtures("one_thread")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
AUTO = {"frozen_layers": "auto", "lora_rank": None, "freeze_language_model": True, "finetune": {}, "precision": "fp32"}
AUTO |= {"reproducibility": False}


@pytest.mark.parametrize(
    ("device", "given", "found"),
    [
        (CPU, {}, "all"),
        (GPU, {}, None),
        (CPU, {"frozen_layers": None}, None),
        (CPU, {"frozen_layers": 2}, 2),
        (GPU, {"frozen_layers": "all"}, "all"),
        (CPU, {"lora_rank": 4}, None),
        (CPU, {"freeze_language_model": False}, None),
        (CPU, {"finetune": {"ctr": {}, "joint": {"freeze_language_model": False}}}, None),
    ],
    ids=str,
)
def test_frozen_layers_fit_the_machine_and_what_is_asked_for(
    device: torch.device, given: dict[str, Any], found: object, tmp_path: Path
) -> None:
    config = AUTO | {"device": device} | given
    assert machine.frozen_layers_of(config) == found
    for _ in range(2):  # as found, and as kept
        settled = dict(config)
        machine.settle_machine(settled, tmp_path / "machine.json")
        assert settled == config | {"frozen_layers": found}


def test_what_one_machine_found_holds_on_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "machine.json"
    machine.settle_machine(AUTO | {"device": GPU}, file)
    monkeypatch.setattr(precision, "fastest_precision", lambda device: "bf16")
    first = AUTO | {"device": CPU, "precision": "auto"}  # of a study: one variant leaves less to the machine
    machine.settle_machine(first, file)
    assert (first["frozen_layers"], first["precision"]) == (None, "bf16")
    assert read_record(file) == {"frozen_layers": None, "precision": "bf16"}
    for key, value, said in (("precision", "bf17", "fp32, bf16, fp16"), ("frozen_layers", "some", "a whole number")):
        write_json(file, {key: value})
        with pytest.raises(ValueError, match=f"machine.json' is damaged: {key} must be .*{said}.* not '{value}'"):
            machine.settle_machine(AUTO | {"device": CPU, "precision": "auto"}, file)


def test_lora_trains_where_the_rest_is_left_to_the_machine(tiny: Callable[..., Any], small_bert: str) -> None:
    pytest.importorskip("peft")
    keys = {"language_model": small_bert, "freeze_language_model": True}
    assert load_configured_language_model(tiny(**keys)).is_fixed
    assert not load_configured_language_model(tiny(**keys, lora_rank=2)).is_fixed
    assert not load_configured_language_model(tiny(**keys, frozen_layers=None)).is_fixed


def test_a_resumed_run_keeps_what_its_machine_found(
    keys: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = keys(precision="auto", finetune_modes=["joint"], plain_baseline=False, freeze_language_model=True)
    monkeypatch.setattr(precision, "fastest_precision", lambda device: "bf16")
    monkeypatch.setattr(machine, "_frozen_layers_on", lambda device: None)
    whole = run_recbole_alt("ALT_DCN", "tiny", None, given)
    folder, found = Path(whole["folder"]), {"precision": "bf16", "frozen_layers": None}
    assert read_record(folder / "machine.json") == found
    for configuration in (read_record(folder / "config.json"), whole["record"]["configuration"]):
        assert {key: configuration[key] for key in found} == found
    (folder / "joint.json").unlink()  # as if it had been stopped before
    (folder / "joint.pth").unlink()
    monkeypatch.setattr(precision, "fastest_precision", lambda device: pytest.fail("measured again"))
    monkeypatch.setattr(machine, "_frozen_layers_on", lambda device: pytest.fail("found again"))
    again = run_recbole_alt("ALT_DCN", "tiny", None, given | {"resume": str(folder)})
    assert again["record"]["results"] == whole["record"]["results"]
    monkeypatch.setattr(machine, "_frozen_layers_on", lambda device: "all")
    for bits in ("bf16", "fp32"):
        monkeypatch.setattr(precision, "fastest_precision", lambda device, bits=bits: bits)
        other = run_recbole_alt("ALT_DCN", "tiny", None, given)
        assert other["record"]["results"] != whole["record"]["results"]
