"""Sizes that follow from the number of training rows: within bounds, monotone, and numbers before anyone reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recbole.config import Config
from recbole.data import create_dataset, data_preparation

from recbole_alt import run_recbole_alt, sizes
from recbole_alt.experiment import Experiment
from recbole_alt.files import read_record
from recbole_alt.loading import load_data
from recbole_alt.sizes import alignment_steps_of, batch_size_of, epochs_of, held_out_of, measured_every

ROWS = st.integers(0, 10**9)


@given(rows=ROWS, more=ROWS)
def test_batch_sizes(rows: int, more: int) -> None:
    size = batch_size_of(rows)
    assert 128 <= size <= 4096 and size & (size - 1) == 0
    assert size <= batch_size_of(rows + more)
    assert size == 128 or rows // size >= 64
    assert size == 4096 or rows // (2 * size) < 64


@given(rows=ROWS, more=ROWS)
def test_epochs(rows: int, more: int) -> None:
    assert 10 <= epochs_of(rows + more) <= epochs_of(rows) <= 100
    assert epochs_of(rows) in (10, 100) or 0 <= epochs_of(rows) * rows - 2_400_000 < rows


@given(rows=ROWS, more=ROWS, of_step=st.floats(1, 1e5), bigger=st.floats(0, 1e5))
def test_alignment_steps(rows: int, more: int, of_step: float, bigger: float) -> None:
    steps = alignment_steps_of(rows, of_step)
    assert 100 <= steps <= 4000
    assert alignment_steps_of(rows, of_step + bigger) <= steps <= alignment_steps_of(rows + more, of_step)
    if steps not in (100, 4000):
        assert steps - 1 < min(7 * rows, 800_000) / of_step <= steps
    assert measured_every(steps) >= 1 and steps / measured_every(steps) <= 20


@given(rows=ROWS, more=ROWS)
def test_held_out_rows(rows: int, more: int) -> None:
    held_out = held_out_of(rows)
    assert 0 <= held_out <= min(4096, rows / 10)
    assert held_out <= held_out_of(rows + more)
    assert held_out >= min(512, rows // 10)


def test_data_that_were_measured_have_the_sizes_that_did_well() -> None:
    ml_100k, twentieth_of_ml_1m = 80_000, 40_000
    assert (batch_size_of(ml_100k), epochs_of(ml_100k), batch_size_of(twentieth_of_ml_1m)) == (1024, 30, 512)
    assert alignment_steps_of(ml_100k - held_out_of(ml_100k), 1900) == 289


LEFT_TO_DATA = {"train_batch_size": "auto", "epochs": "auto"}


def test_the_configuration_has_numbers_before_loaders_are_made(
    tiny: Callable[..., Any], keys: Callable[..., dict[str, Any]]
) -> None:
    modes = {"lm": {"epochs": "auto", "learning_rate": 1e-2}, "joint": {"epochs": 3}}
    own = {"finetune": modes} | LEFT_TO_DATA
    for config in (tiny(**own), Config("ALT_DCN", "tiny", None, keys() | own)):
        loader = data_preparation(config, create_dataset(config))[0]
        assert (config["train_batch_size"], config["epochs"]) == (128, 100) and loader._batch_size == 128
        assert config["finetune"]["lm"]["epochs"] == 100 and config["finetune"]["lm"]["learning_rate"] == 1e-2
        assert config["finetune"]["joint"]["epochs"] == 3
    given = tiny(train_batch_size=50, epochs=1)
    assert load_data(given)[1]._batch_size == 50 and given["epochs"] == 1


def test_a_run_keeps_its_sizes(keys: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "epochs_of", lambda rows: rows // 32)
    given = keys(finetune_modes=[], stopping_step=0, **LEFT_TO_DATA)
    result = run_recbole_alt("ALT_DCN", "tiny", None, given)
    for kept in (result["record"]["configuration"], read_record(Path(result["folder"]) / "config.json")):
        assert (kept["train_batch_size"], kept["epochs"]) == (128, 4)
    assert run_recbole_alt("ALT_DCN", "tiny", None, given | {"resume": "last"})["folder"] == result["folder"]
    with pytest.raises(ValueError, match=r"train_share was 1\.0 in .* and is 0\.5 now"):  # not the sizes it gives
        run_recbole_alt("ALT_DCN", "tiny", None, given | {"resume": "last", "train_share": 0.5})
    with pytest.raises(ValueError, match=r"resume: epochs was 4 in .* and is 99 now"):
        run_recbole_alt("ALT_DCN", "tiny", None, given | {"resume": "last", "epochs": 99})


def test_data_loaded_for_another_configuration_give_sizes_too(tiny: Callable[..., Any]) -> None:
    data, config = load_data(tiny()), tiny(**LEFT_TO_DATA)
    with Experiment(config, data):
        assert (config["train_batch_size"], config["epochs"]) == (128, 100)
