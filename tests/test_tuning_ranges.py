"""Ranges of a tuning: what is read, refused by line and remedy, and understood as RecBole does."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from recbole.trainer import HyperTuning

import recbole_alt
from recbole_alt.config import ALTConfig, properties_dir
from recbole_alt.study.ranges import check_ranges, count_trials, read_ranges
from recbole_alt.unread import unread_keys

pytestmark = pytest.mark.usefixtures("one_thread")

Keys = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("learning_rate", "'learning_rate' is not 'key kind values'"),
        ("learning_rate choice", "is not 'key kind values'"),
        ("learning_rate normal 0,1", "choice, uniform, quniform, loguniform"),
        ("learner choice [adam, adamw]", "text in quotes"),
        ("learning_rate choice [open('x', 'w')]", "Python's notation"),
        ("learning_rate choice 1e-3", "not a list"),
        ("learning_rate choice []", "not a list with values"),
        ("learning_rate choice [1e-3, 0.001]", "0.001 twice"),
        ("weight_decay choice [1, 1.0]", "1.0 twice"),
        ("learning_rate choice [{1, 2}]", "must be numbers"),
        ("learning_rate uniform 0.1", "1 number"),
        ("learning_rate uniform 0.2,0.1", "below the second"),
        ("learning_rate uniform a,b", "could not convert"),
        ("learning_rate uniform 0,inf", "below the second"),
        ("embedding_size quniform 8,64,0", "above 0"),
        ("weight_decay choice [0.1]\nweight_decay choice [0.2]", "line 3: weight_decay has a range already"),
        ("learning_rat choice [1e-3]", "did you mean 'learning_rate'"),
        ("mask_ratio choice [0.2, 2]", r"mask_ratio must be a number above 0 and at most 1, not 2"),
        ("schedule choice ['constant', 'cosin']", "schedule must be one of.*'cosin'"),
        ("valid_metric choice ['AUC', 'LogLoss']", "valid_metric can't be tuned"),
        ("learning_rate uniform 1e-4,1e-2", "write learning_rate choice"),  # exhaustive
        ("# nothing", "has no ranges"),
    ],
)
def test_bad_ranges_name_line_and_remedy(line: str, named: str, tune: Any) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        tune("\n" + line)
    if line != "# nothing":
        assert "ranges, line " in str(refused.value) and "\n" not in str(refused.value)
    assert not Path("x").exists() and not list(Path().glob("saved/*"))


def test_a_fixed_key_is_not_tuned(tune: Any, keys: Keys) -> None:
    fixed = ["--learning_rate=0.5"]
    with pytest.raises(ValueError, match="line 1: learning_rate is tuned, and --learning_rate fixes it"):
        tune("learning_rate choice [1e-3, 1e-2]", arguments=fixed)
    with pytest.raises(ValueError, match="--learning_rate on the command line fixes it"):  # under stock HyperTuning
        given = keys() | {"model": "ALT_DCN", "dataset": "tiny"}
        recbole_alt.objective_function(given | {"learning_rate": 0.1}, arguments=fixed)
    with pytest.raises(ValueError, match="pretrained_checkpoint brings"):
        tune("mask_ratio choice [0.2, 0.3]", {"pretrained_checkpoint": "some.pth"})


@pytest.mark.parametrize(
    ("stage", "model", "line", "why"),
    [
        ("ctr", "DCN", "language_learning_rate choice [1e-3, 1e-4]", "ctr does not read it"),
        ("lm", "DCN", "unseen_values choice ['zero', 'initial']", "lm does not read it"),
        ("plain", "DCN", "transfer choice ['all', 'embeddings']", "plain does not read it"),
        ("plain", "DCN", "mask_ratio choice [0.2, 0.3]", "the plain backbone is not pretrained"),
        ("plain", "DCN", "lora_rank choice [1, 2]", "the plain backbone is not pretrained"),
        ("plain", "DCN", "block_texts choice [100, 200]", "plain does not read it"),
        ("joint", "DCN", "lora_alpha choice [1, 2]", "lora_rank is empty"),
        ("plain", "AutoInt", "dropout_prob choice [0.0, 0.2]", "AutoInt has no such key"),
        ("joint", "DeepFM", "cross_layer_num choice [1, 2]", "DeepFM has no such key"),
    ],
)
def test_a_key_that_nothing_reads_is_not_tuned(stage: str, model: str, line: str, why: str, keys: Keys) -> None:
    Path("ranges").write_text(line)
    with pytest.raises(ValueError, match=f"ranges, line 1: {line.split()[0]} changes nothing: .*{why}"):
        recbole_alt.run_hyper_alt(f"ALT_{model}", "tiny", None, keys(), params_file="ranges", stage=stage)


def test_an_argument_that_the_tuned_stage_does_not_read_is_refused(tune: Any) -> None:
    with pytest.raises(ValueError, match=r"^--text_batch_size changes nothing here: ctr does not read it"):
        tune("learning_rate choice [1e-3, 1e-2]", arguments=["--text_batch_size=8"], stage="ctr")


@pytest.mark.parametrize(
    ("stage", "tuned"),
    [
        ("plain", ["unseen_values", "dropout_prob", "cross_layer_num", "weight_decay"]),
        ("ctr", ["transfer", "batch_sampling", "lora_rank", "mask_ratio"]),
        ("lm", ["dropout_prob", "language_learning_rate"]),
        ("joint", ["lora_rank", "lora_alpha"]),
    ],
)
def test_a_key_that_is_read_may_be_tuned(stage: str, tuned: list[str]) -> None:
    stages = [stage] if stage == "plain" else ["pretrain", stage]
    assert not set(tuned) & unread_keys(ALTConfig("ALT_DCN", "anything"), stages, tuned).keys()


def test_ends_of_a_range_are_checked(tune: Any) -> None:
    with pytest.raises(ValueError, match=r"line 1: mask_ratio must be a number above 0 and at most 1, not 2"):
        tune("mask_ratio uniform 0.1,2", algo="random")


def test_whole_numbers_and_logarithms_as_recbole(tmp_path: Path) -> None:
    file = tmp_path / "r"
    file.write_text(
        "embedding_size quniform 8,64,8\nweight_decay quniform 0.1,0.5,0.1\nlearning_rate loguniform -8,-2\n"
        "mlp_hidden_size choice [[16, 8], [8]]\nreg_weight uniform 0.1,0.9\n"
    )
    size, decay, rate, width, weight = read_ranges(str(file))
    assert size.decode(3) == 24 and isinstance(size.decode(3), int)
    assert decay.decode(3) == 0.3
    assert str(rate) == "learning_rate (loguniform): 0.0003355 to 0.1353"
    for tuned, drawn in (
        (size, IntDistribution(1, 8)),  # times the step
        (decay, IntDistribution(1, 5)),
        (rate, FloatDistribution(math.exp(-8), math.exp(-2), log=True)),
        (width, CategoricalDistribution((0, 1))),  # positions
        (weight, FloatDistribution(0.1, 0.9)),
    ):
        assert tuned.distribution == drawn


def test_every_value_that_is_drawn_is_one_of_hyperopts(tmp_path: Path) -> None:
    stochastic = pytest.importorskip("hyperopt.pyll.stochastic", reason="pip install 'recbole_alt[hyperopt]'")
    file = tmp_path / "r"
    file.write_text("embedding_size quniform 10,60,16\nlearning_rate loguniform -8,-2\n")
    size, rate = read_ranges(str(file))
    theirs = HyperTuning._build_space_from_file(str(file))
    draws = [stochastic.sample(theirs, rng=np.random.default_rng(n)) for n in range(200)]
    low, high = size.distribution.low, size.distribution.high  # type: ignore[attr-defined]
    assert {size.decode(k) for k in range(low, high + 1)} == {int(draw["embedding_size"]) for draw in draws}
    bounds = rate.distribution
    assert all(bounds._contains(draw["learning_rate"]) for draw in draws)


@pytest.mark.parametrize("name", sorted(file.stem for file in (properties_dir() / "hyper").glob("*.hyper")))
def test_our_ranges_fit_our_keys_and_recbole_reads_them(name: str) -> None:
    ranges = read_ranges(name)
    check_ranges(ranges, ALTConfig("ALT_DCN", "ml-100k"), {})
    assert (
        name in ("compatibility", "few-clicks", "likes", "many-clicks")
        or count_trials(ranges, "exhaustive", None) <= 20
    )
    pytest.importorskip("hyperopt", reason="pip install 'recbole_alt[hyperopt]'")
    theirs = HyperTuning._build_space_from_file(str(properties_dir() / "hyper" / f"{name}.hyper"))
    assert list(theirs) == [tuned.name for tuned in ranges]
    with pytest.raises(
        ValueError, match="nor one of compatibility, cosine, few-clicks, finetune, likes, many-clicks, pretrain"
    ):
        read_ranges("finetun")


@pytest.mark.parametrize(
    ("line", "end", "next_to_it"),
    [
        ("dropout_prob choice [0.0, 0.2, 0.4]", 1, (0.6,)),  # evenly spread
        ("train_batch_size choice [256, 1024, 4096]", -1, (64,)),  # as a geometric series
        ("train_batch_size choice [256, 1024, 4096]", 1, (16384,)),
        ("weight_decay choice [0.0, 0.1, 0.5, 2.0]", 1, (8.0,)),
        ("dropout_prob choice [0.4, 0.8]", 1, None),  # 1.6 and 1.2 are none
        ("learning_rate uniform 0.1,0.2", 1, (0.2, 0.25)),
    ],
)
def test_what_lies_beyond_an_end(line: str, end: int, next_to_it: tuple[float, ...] | None) -> None:
    Path("one").write_text(line + "\n")
    found = read_ranges("one")[0].beyond(end)
    assert (found and found.values) == (next_to_it and pytest.approx(next_to_it))
