"""Whole runs: the plain stage is RecBole's, runs repeat bit for bit, and a stopped run ends as an unstopped one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import Stopped, stop_at
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model import layers
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed
from torch import Tensor

from recbole_alt import checkpoints, run_recbole_alt
from recbole_alt.config import ALTConfig
from recbole_alt.experiment import Experiment
from recbole_alt.model.alignment import AlignmentModel
from recbole_alt.model.recommender import ALTRecommender
from recbole_alt.trainer import finetune, pretrain
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

Keys = Callable[..., dict[str, Any]]


def run(given: dict[str, Any]) -> dict[str, Any]:
    return run_recbole_alt("ALT_DCN", "tiny", None, given)


def weights(folder: str | Path, stage: str) -> dict[str, Tensor]:
    state = checkpoints.load(Path(folder) / f"{stage}.pth")
    if stage != "pretrain":
        return state["state_dict"]
    return {f"{part}.{k}": v for part in ("backbone", "text", "objectives") for k, v in state[part].items()}


def differing(one: dict[str, Tensor], two: dict[str, Tensor]) -> list[str]:
    assert one.keys() == two.keys()
    return [key for key in one if not torch.equal(one[key], two[key])]


STAGES = ("pretrain", "ctr", "lm", "joint", "plain")

# -- as RecBole, and again ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["DCN", "DeepFM", "xDeepFM"])
def test_the_plain_stage_is_stock_recbole(
    name: str, tiny: Callable[..., Any], data_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same configuration, data, losses of all steps, weights and results as RecBole's model, dataset and trainer."""
    losses: list[float] = []
    real = get_model(name).calculate_loss
    monkeypatch.setattr(get_model(name), "calculate_loss", lambda *a: losses.append(real(*a)) or losses[-1])
    ours = tiny(f"ALT_{name}", learner="adam", epochs=3, finetune_modes=[], weight_decay=0.0, train_batch_size=32)
    experiment = Experiment(ours)
    experiment.finetune("plain")
    of_ours = [losses.pop(0) for _ in range(len(losses))]
    monkeypatch.setattr(layers, "nn", torch.nn)  # as released

    same = ("load_col", "threshold", "embedding_size", "mlp_hidden_size", "train_batch_size", "epochs", "learner")
    same += ("learning_rate", "weight_decay", "metrics", "valid_metric", "metric_decimal_place", "eval_batch_size")
    same += ("stopping_step", "eval_args", "seed")
    unquoted = Path("stock") / "tiny"  # RecBole reads no quotation marks
    unquoted.mkdir(parents=True)
    for file in (data_path / "tiny").iterdir():
        (unquoted / file.name).write_text(file.read_text().replace('"', ""))
    given = {"data_path": "stock", "show_progress": False, "state": "ERROR"} | {key: ours[key] for key in same}
    config = Config(name, "tiny", None, given)
    for key in ("reg_weight", "dropout_prob", "cross_layer_num", "cin_layer_size"):
        assert config[key] == ours[key], key
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(name)(config, train._dataset)
    best: list[dict[str, Tensor]] = []
    trainer = Trainer(config, model)
    trainer._save_checkpoint = lambda *a, **k: best.append({n: v.clone() for n, v in model.state_dict().items()})
    score, result = trainer.fit(train, valid, saved=True)

    assert of_ours == losses and len(losses) == 12
    mine = {key.removeprefix("backbone.model."): v for key, v in weights(experiment.folder, "plain").items()}
    assert differing(mine, best[-1]) == []
    stage = experiment.stages["plain"]
    assert stage.valid == dict(result)
    assert stage.valid["auc"] == score
    model.load_state_dict(best[-1])
    assert stage.test == dict(trainer.evaluate(test, load_best_model=False))
    assert stage.texts_encoded == 0


def test_a_run_repeats_bit_for_bit_and_chains(keys: Keys) -> None:
    first = run(keys())
    again = run(keys())
    assert first["folder"] != again["folder"]
    for stage in STAGES:
        assert differing(weights(first["folder"], stage), weights(again["folder"], stage)) == [], stage
    assert first["record"]["results"] == again["record"]["results"]

    other = run(keys(seed=7, finetune_modes=["joint"], plain_baseline=False))
    assert differing(weights(first["folder"], "pretrain"), weights(other["folder"], "pretrain"))
    assert differing(weights(first["folder"], "joint"), weights(other["folder"], "joint"))

    # finetuning from the file of a run's pretraining is finetuning within that run
    file = str(Path(first["folder"]) / "pretrain.pth")
    chained = run(keys(pretrained_checkpoint=file, finetune_modes=["joint", "ctr"], plain_baseline=False))
    for stage in ("joint", "ctr"):
        assert differing(weights(first["folder"], stage), weights(chained["folder"], stage)) == [], stage
        assert chained["record"]["results"][stage] == first["record"]["results"][stage]
    assert "pretrain" not in chained["record"]["stages"]
    with pytest.raises(ValueError, match="pretrain"):  # a finetuned model is no pair of aligned towers
        run(keys(pretrained_checkpoint=str(Path(first["folder"]) / "ctr.pth"), finetune_modes=["joint"]))
    with pytest.raises(ValueError, match=r"nowhere\.pth"):
        run(keys(pretrained_checkpoint="nowhere.pth", finetune_modes=["ctr"]))
    for key, was, now in (("pooling", "mean", "cls"), ("language_model_weights", "pretrained", "random")):
        with pytest.raises(ValueError, match=f"^{key}: {now}, and it was {was} in alignment"):
            run(keys(pretrained_checkpoint=file, finetune_modes=["lm"], **{key: now}))


# -- stopped and resumed -----------------------------------------------------------------------------------


def test_a_language_model_that_is_not_trained_reads_each_text_once(keys: Keys) -> None:
    def encoded(steps: int, objective: str) -> int:
        given = keys(frozen_layers="all", pretrain_steps=steps, finetune_modes=[], plain_baseline=False)
        made = run(given | {"objectives": [objective], "text_cache_dir": None})
        return made["record"]["stages"]["pretrain"]["texts_encoded"]

    assert encoded(10, "contrastive") == encoded(20, "contrastive") > 0
    few, many, all_forms = (encoded(steps, "masked_language") for steps in (1, 40, 60))
    assert 0 < few < many == all_forms


def test_a_later_run_encodes_nothing_again_and_ends_with_the_same_bits(keys: Keys) -> None:
    given = keys(frozen_layers="all", freeze_language_model=True, finetune_modes=["lm"], plain_baseline=False)
    stages = ("pretrain", "lm")

    def texts_encoded(made: dict[str, Any]) -> list[int]:
        return [made["record"]["stages"][stage]["texts_encoded"] for stage in stages]

    alone = run(given | {"text_cache_dir": None})
    half = run(given | {"prompt_only": None})  # the same texts of users, other ones of items
    cold, warm = run(given), run(given)
    assert min(texts_encoded(alone)) > 0 and 0 < texts_encoded(cold)[0] < texts_encoded(alone)[0]
    assert texts_encoded(half)[0] > 0 and texts_encoded(warm) == [0, 0] == [texts_encoded(cold)[1], 0]
    for made in (cold, warm):
        for stage in stages:
            assert differing(weights(alone["folder"], stage), weights(made["folder"], stage)) == [], stage
        assert made["record"]["results"] == alone["record"]["results"]
    other = run_recbole_alt("ALT_DeepFM", "tiny", None, given)
    assert texts_encoded(other) == [0, 0]
    assert not list(Path("cache").glob("recbole_alt/*/*.partial"))


def test_loader_workers_change_nothing(keys: Keys) -> None:
    stages = ("pretrain", "ctr", "joint")
    given = keys(finetune_modes=["ctr", "joint"], plain_baseline=False, freeze_language_model=True)
    none, two = run(given), run(given | {"worker": 2})
    for stage in stages:
        assert not differing(weights(none["folder"], stage), weights(two["folder"], stage)), stage


def final_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Tensor]]:
    """Filled with each stage's weights at the end of its training, which need not be its best ones."""
    real, final = ALTTrainer.fit, {}

    def fit(self: Any, *args: Any, **options: Any) -> Any:
        result = real(self, *args, **options)
        final[Path(self.saved_model_file).stem] = {k: v.clone() for k, v in self.model.state_dict().items()}
        return result

    monkeypatch.setattr(ALTTrainer, "fit", fit)
    return final


def overflowing_scaler(device: torch.device, *, enabled: bool) -> torch.amp.GradScaler:
    """Its first step overflows and is left out, as all that follow would be if it were begun anew."""
    return torch.amp.GradScaler(device.type, init_scale=2.0**60, backoff_factor=2.0**-50, enabled=enabled)


CUTS = [(ALTPretrainTrainer, None, 1, 4), (ALTPretrainTrainer, None, 3, 4), (ALTTrainer, "plain", 5, 12)]
CUTS += [
    (ALTTrainer, "ctr", 4, 12),
    (ALTTrainer, "ctr", 6, 12),
    (ALTTrainer, "joint", 1, 12),
    (ALTTrainer, "joint", 8, 12),
]


LORA = {"schedule": "cosine", "warmup_ratio": 0.2, "lora_rank": 2}
ROWWISE = {"embedding_optimizer": "rowwise", "weight_decay": 0.1, "schedule": "cosine", "decay_towards": "aligned"}
ROWWISE |= {"clip_grad_norm": {"max_norm": 0.5}, "fast_kernels": True, "grounded": ["item"], "precision": "fp16"}
FROZEN: dict[str, Any] = {"frozen_layers": "all", "text_cache_dir": None}
FROZEN_CUTS = [CUTS[0], CUTS[1], (ALTTrainer, "joint", 5, 12)]
#: With which keys a run is stopped where; of these only the cuts at the given positions in CI, the others are slow.
STOPS: list[tuple[dict[str, Any], list[Any], set[int]]] = [
    ({}, CUTS, {0, 2, 6}),
    (LORA, CUTS, {5}),
    ({"precision": "fp16"}, CUTS, {3}),
    (ROWWISE, [CUTS[1], CUTS[2], CUTS[4], CUTS[6]], {0, 3}),
    (FROZEN, FROZEN_CUTS, {2}),
    ({"fast_kernels": True}, CUTS[2:4], set()),
]


@pytest.mark.parametrize(
    ("trainer", "stage", "steps", "total", "how"),
    [
        pytest.param(*cut, how, marks=[] if number in in_ci else [pytest.mark.slow])
        for how, cuts, in_ci in STOPS
        for number, cut in enumerate(cuts)
    ],
    ids=str,
)
def test_a_stopped_run_goes_on_as_if_never_stopped(
    trainer: type,
    stage: str | None,
    steps: int,
    total: int,
    how: dict[str, Any],
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """4 steps of pretraining, 3 epochs of 4 steps; saved after every step."""
    for module in (pretrain, finetune):
        monkeypatch.setattr(module, "gradient_scaler", overflowing_scaler)
    modes = [stage] if stage in ("ctr", "joint") else ["ctr"]
    given = keys(
        epochs=3,
        stopping_step=9,
        checkpoint_seconds=1e-9,
        finetune_modes=modes,
        plain_baseline=stage == "plain",
        **how,
    )
    with monkeypatch.context() as patch:
        final = final_weights(patch)
        whole = run(given)
    with monkeypatch.context() as patch:
        stop_at(patch, trainer, steps, stage)
        with pytest.raises(Stopped):
            run(given | {"checkpoint_dir": "stopped"})
    (folder,) = Path("stopped").glob("ALT_DCN-tiny-*")
    kept = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.json")}
    with monkeypatch.context() as patch:
        done, again = stop_at(patch, trainer, None, stage), final_weights(patch)
        resumed = run(given | {"checkpoint_dir": "stopped", "resume": str(folder)})
    assert done[0] == total - steps  # no step twice, none left out
    assert Path(resumed["folder"]) == folder
    assert all((folder / name).stat().st_mtime_ns == before for name, before in kept.items())  # nor a stage
    for name in whole["record"]["stages"]:
        assert differing(weights(whole["folder"], name), weights(folder, name)) == [], name
    for name in again:
        assert differing(final[name], again[name]) == [], name
    assert resumed["record"]["results"] == whole["record"]["results"]
    for name, expected in whole["record"]["stages"].items():
        of_the_machine = {"seconds": 0, "peak_memory_mib": 0}
        again_expected = expected | of_the_machine
        if how is FROZEN:  # what was kept only in memory is encoded again
            again_expected["texts_encoded"] = resumed["record"]["stages"][name]["texts_encoded"]
            assert again_expected["texts_encoded"] >= expected["texts_encoded"]
        assert resumed["record"]["stages"][name] | of_the_machine == again_expected


@pytest.mark.parametrize(("trainer", "stage"), [(ALTPretrainTrainer, None), (ALTTrainer, "ctr")])
def test_checkpoint_seconds_0_saves_every_step(
    trainer: type, stage: str | None, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = keys(checkpoint_seconds=0, finetune_modes=["ctr"], plain_baseline=False)
    with monkeypatch.context() as patch:
        stop_at(patch, trainer, 3, stage)
        with pytest.raises(Stopped):
            run(given)
    (folder,) = Path("saved").glob("ALT_DCN-tiny-*")
    assert checkpoints.load(folder / ("pretrain.pth" if stage is None else "ctr-last.pth"))["step"] == 3


def test_resume_last_and_a_changed_configuration(keys: Keys) -> None:
    given = keys(finetune_modes=["ctr"], plain_baseline=False)
    whole = run(given)
    again = run(given | {"resume": "last"})
    assert again["record"]["results"] == whole["record"]["results"]
    for key, value in {"pretrain_steps": 5, "mask_ratio": 0.3, "embedding_size": 16}.items():
        with pytest.raises(ValueError, match=key):
            run(given | {"resume": whole["folder"], key: value})
    with pytest.raises(ValueError, match="resume"):
        run(given | {"resume": "not-a-run"})
    with pytest.raises(ValueError, match="resume"):
        run(given | {"resume": "last", "checkpoint_dir": "empty"})


# -- what is read, when ------------------------------------------------------------------------------------


def triplets(rows: Any) -> set[tuple[float, ...]]:
    return set(zip(*(rows[k].tolist() for k in ("user_id", "item_id", "timestamp")), strict=True))


def test_training_sees_training_interactions_only(
    keys: Keys, tiny: Callable[..., Any], small_bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[tuple[float, ...]]] = {"pretrain": set(), "held out": set(), "finetune": set()}
    align, finetune = AlignmentModel.forward, ALTRecommender.calculate_loss

    def forward(self: Any, batch: Any) -> Any:
        seen["pretrain" if self.training else "held out"] |= triplets(batch.interaction)
        return align(self, batch)

    def loss(self: Any, rows: Any) -> Any:
        seen["finetune"] |= triplets(rows)
        return finetune(self, rows)

    monkeypatch.setattr(AlignmentModel, "forward", forward)
    monkeypatch.setattr(ALTRecommender, "calculate_loss", loss)
    experiment = Experiment(tiny(language_model=small_bert, pretrain_steps=30, pretrain_stopping_step=99, epochs=2))
    experiment.pretrain()
    experiment.finetune("joint")
    experiment.finetune("ctr")
    parts = (experiment.train_data, experiment.valid_data, experiment.test_data)
    train, valid, test = (triplets(data._dataset[:]) for data in parts)
    assert not train & valid
    assert not train & test
    assert len(train) == 128
    for rows in seen.values():
        assert len(rows) > 100 or rows is seen["held out"]
        assert rows <= train
    assert len(seen["held out"]) == 12 and not seen["held out"] & seen["pretrain"]


def test_selection_on_validation_and_one_look_at_the_test_set(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[str, str]] = []
    real = Trainer.evaluate
    best = [0.5, 0.6, 0.7, 0.4, 0.4, 0.9, 0.9, 0.9]  # validation AUC by epoch: epoch 2 is the one to keep
    epochs: dict[str, list[dict[str, Tensor]]] = {}

    def evaluate(self: Any, data: Any, *args: Any, **options: Any) -> Any:
        stage = Path(self.saved_model_file).stem
        result = real(self, data, *args, **options)
        if data is experiment.test_data:
            looks.append((stage, "test"))
            assert differing(self.model.state_dict(), epochs[stage][2]) == []
            return result
        looks.append((stage, "valid"))
        epochs.setdefault(stage, []).append({k: v.clone() for k, v in self.model.state_dict().items()})
        return {**result, "auc": best[len(epochs[stage]) - 1]}

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    given = keys(epochs=8, stopping_step=1)
    experiment = Experiment(ALTConfig("ALT_DCN", "tiny", None, given))
    experiment.pretrain()
    for stage in ("plain", "joint"):
        experiment.finetune(stage)
        # two epochs without improvement (stopping_step 1), then stop; then once the test set
        assert [what for which, what in looks if which == stage] == ["valid"] * 5 + ["test"]
        assert experiment.stages[stage].valid["auc"] == 0.7
        assert experiment.stages[stage].details["epochs"] == 5


# -- what the log says -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "schedule", "said"),
    [
        ([0.7, 0.6, 0.5], "constant", True),
        ([0.7, 0.6, 0.5], "cosine", False),
        ([0.6, 0.7, 0.5], "constant", False),
        ([0.5, 0.6, 0.7], "constant", False),
        ([0.7], "constant", False),
    ],
)
def test_a_first_epoch_that_is_the_best_is_said(
    scores: list[float], schedule: str, said: bool, tiny: Callable[..., Any], monkeypatch: Any, caplog: Any
) -> None:
    valid = iter([(score, {"auc": score}) for score in scores])
    monkeypatch.setattr(ALTTrainer, "_valid_epoch", lambda *_, **__: next(valid))
    experiment = Experiment(tiny("ALT_DCN", epochs=len(scores), schedule=schedule))
    with caplog.at_level("INFO"):
        experiment.finetune("plain")
    assert ("--schedule=cosine --epochs=2 may be better" in caplog.text) == said
