"""Configuration: which layer wins, what text becomes, what is refused, and what is saved."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recbole
import torch
import yaml
from recbole.config import Config

from recbole_alt.config import ALTConfig, base_model_name, properties_dir, require_registered
from recbole_alt.yaml_files import read_yaml

CONFIG = Callable[..., ALTConfig]
RECBOLE = Path(recbole.__file__).parent / "properties"


def given(*arguments: str) -> ALTConfig:
    """The configuration for a command line."""
    return ALTConfig("ALT_DCN", "anything", arguments=arguments)


def refused(match: str, **keys: Any) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        ALTConfig("ALT_DCN", "anything", None, keys)
    assert "\n" not in str(caught.value)


# -- layers --------------------------------------------------------------------------------------------------


def test_properties_are_where_the_package_looks() -> None:
    assert (properties_dir() / "overall.yaml").is_file()
    assert list((properties_dir() / "dataset").glob("*.yaml"))


@pytest.mark.parametrize("model", ["DCN", "DeepFM", "xDeepFM"])
def test_base_models_own_file_is_read(model: str) -> None:
    config = ALTConfig(f"ALT_{model}", "anything")
    theirs = yaml.load((RECBOLE / "model" / f"{model}.yaml").read_text(), Loader=config.yaml_loader)
    ours = yaml.safe_load((properties_dir() / "overall.yaml").read_text())
    assert theirs.keys() - ours.keys()
    for key in theirs.keys() - ours.keys():
        assert config[key] == theirs[key]
    assert base_model_name(f"ALT_{model}") == model
    assert base_model_name(model) is None


def test_our_defaults_win_over_recboles() -> None:
    config = ALTConfig("ALT_DCN", "anything")
    theirs = yaml.safe_load((RECBOLE / "overall.yaml").read_text())
    assert theirs["metric_decimal_place"] == 4
    assert config["metric_decimal_place"] == 6
    assert config["eval_args"]["split"] == theirs["eval_args"]["split"]  # and theirs stay where we have none
    assert config["weight_decay"] == 0.0


def test_dataset_file_is_read_and_wins_over_overall() -> None:
    config = ALTConfig("ALT_DCN", "ml-1m")
    assert config["threshold"] == {"rating": 4}
    assert config["prompt_only"] == {"item": ["movie_title"]}
    assert config["template"]["values"]["age"][18] == "18-24"
    assert ALTConfig("ALT_DCN", "anything")["template"] is None


def test_file_dictionary_arguments_win_in_this_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("epochs: 11\nstopping_step: 11\nmask_ratio: 0.11\npooling: cls\nwarmup_ratio: 0.11\n")
    second.write_text("stopping_step: 12\nmask_ratio: 0.12\npooling: cls\n")
    arguments = ["--pooling=mean", "--warmup_ratio=0.14"]
    keys = {"mask_ratio": 0.13, "pooling": "cls", "warmup_ratio": 0.13}
    config = ALTConfig("ALT_DCN", "anything", [str(first), str(second)], keys, arguments)
    got = [config[key] for key in ("epochs", "stopping_step", "mask_ratio", "pooling", "warmup_ratio")]
    assert got == [11, 12, 0.13, "mean", 0.14]
    assert keys == {"mask_ratio": 0.13, "pooling": "cls", "warmup_ratio": 0.13}  # the caller's stays as it was


def test_arguments_may_name_files(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"{number}.yaml").write_text(f"epochs: {number}\nseed: {number}\n")
    named = f"--config_files={tmp_path}/2.yaml {tmp_path}/3.yaml"
    config = ALTConfig("ALT_DCN", "anything", [str(tmp_path / "1.yaml")], None, [named, "--seed=4"])
    assert (config["epochs"], config["seed"]) == (3, 4)


def test_stock_config_reads_our_layers_for_our_models_only() -> None:
    assert Config("ALT_DCN", "anything")["mask_ratio"] == ALTConfig("ALT_DCN", "anything")["mask_ratio"]
    assert Config("DCN", "anything")["mask_ratio"] is None


# -- text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("--wandb_project=a=b", "wandb_project", "a=b"),
        ("--wandb_project=a==", "wandb_project", "a=="),
        ("--data_path=2020", "data_path", os.path.join("2020", "anything")),
        ("--wandb_project='2020'", "wandb_project", "2020"),
        ("--finetune_modes=[ctr, lm]", "finetune_modes", ["ctr", "lm"]),
        ("--finetune_modes=['ctr','lm']", "finetune_modes", ["ctr", "lm"]),
        ("--objectives=[contrastive]", "objectives", ["contrastive"]),
        ("--pretrain_learning_rate=1e-4", "pretrain_learning_rate", 1e-4),
        ("--pretrain_learning_rate=3E-5", "pretrain_learning_rate", 3e-5),
        ("--seed=7", "seed", 7),
        ("--show_progress=False", "show_progress", False),
        ("--show_progress=false", "show_progress", False),
        ("--template=~", "template", None),
        ("--pretrain_steps=None", "pretrain_steps", None),
        ("--threshold={'rating': 4}", "threshold", {"rating": 4}),
        ("--threshold={rating: 4}", "threshold", {"rating": 4}),
        ("--val_interval={'rating': '[1,2];[4,5]'}", "val_interval", {"rating": "[1,2];[4,5]"}),
        ("--user_inter_num_interval=[5,inf)", "user_inter_num_interval", "[5,inf)"),
        ("--language_model=org/some-model", "language_model", "org/some-model"),
    ],
)
def test_text_of_an_argument_becomes_a_value(argument: str, key: str, value: object) -> None:
    got = given(argument)[key]
    assert got == value
    assert type(got) is type(value)


def test_text_in_a_dictionary_and_numbers_in_a_file_are_read_alike(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("learning_rate: 1e-3\nlanguage_learning_rate: 5e-5\n")
    config = ALTConfig("ALT_DCN", "anything", [str(file)], {"pretrain_learning_rate": "1e-4", "finetune_modes": "[]"})
    assert config["learning_rate"] == 1e-3
    assert config["language_learning_rate"] == 5e-5
    assert config["pretrain_learning_rate"] == 1e-4
    assert config["finetune_modes"] == []


@pytest.mark.parametrize("text", ["__import__('os').mkdir('made')", "!!python/object/apply:os.mkdir [made]"])
@pytest.mark.parametrize("key", ["seed", "wandb_project"])
def test_nothing_given_is_evaluated(key: str, text: str) -> None:
    for make in (
        lambda: given(f"--{key}={text}"),
        lambda: ALTConfig("ALT_DCN", "anything", None, {key: text}),
    ):
        try:
            got = make()[key]
        except ValueError:
            pass
        else:
            assert got == text
        assert not os.path.exists("made")


def test_nothing_in_a_file_is_evaluated(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("seed: !!python/object/apply:os.mkdir [made]\n")
    with pytest.raises((ValueError, yaml.YAMLError)):
        ALTConfig("ALT_DCN", "anything", [str(file)])
    assert not os.path.exists("made")


# -- refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("mask_ration", 0.2, "'mask_ration'.*'mask_ratio'"),
        ("pretrain_step", 5, "'pretrain_step'.*'pretrain_steps'"),
        ("finetune_modes", ["ctrl"], "finetune_modes.*ctr, lm.*'ctrl'.*did you mean 'ctr'"),
        ("finetune_modes", ["ctr", "ctr"], "finetune_modes.*different"),
        ("finetune_modes", "ctr", "finetune_modes.*list.*'ctr'"),
        ("finetune_mode", "jiont", "finetune_mode.*'jiont'.*'joint'"),
        ("objectives", ["contrastive", "masked_langauge"], "objectives.*'masked_langauge'.*'masked_language'"),
        ("prompt_scope", "row", "prompt_scope.*entity.*'row'"),
        ("pooling", "max", "pooling.*mean.*'max'"),
        ("mask_level", "word", "mask_level.*token.*'word'"),
        ("precision", "fp8", "precision.*bf16.*'fp8'"),
        ("learner", "adamm", "learner.*'adamm'.*'adamw?'"),
        ("mask_ratio", 0, "mask_ratio.*0"),
        ("mask_ratio", -0.1, "mask_ratio.*-0.1"),
        ("mask_ratio", 1.5, "mask_ratio.*1.5"),
        ("mask_ratio", float("nan"), "mask_ratio.*nan"),
        ("mask_ratio", "high", "mask_ratio.*'high'"),
        ("mask_ratio", None, "mask_ratio.*None"),
        ("pretrain_steps", -1, "pretrain_steps.*-1"),
        ("pretrain_steps", 2.5, "pretrain_steps.*2.5"),
        ("pretrain_epochs", True, "pretrain_epochs.*True"),
        ("language_model_layers", "six", "language_model_layers.*'six'"),
        ("finetune", {"jiont": {"epochs": 1}}, "finetune.*'jiont'.*joint"),
        ("finetune", 5, "finetune must be like {joint: {epochs: 5}}, not 5"),
        ("finetune", {"joint": 5}, "finetune: joint must be like {epochs: 5}, not 5"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_right(key: str, value: object, match: str) -> None:
    refused(match, **{key: value})


@pytest.mark.parametrize("model", ["ALT_DNC", "DCN", "alt_dcn"])
def test_unknown_model_is_named_with_the_known_ones(model: str) -> None:
    with pytest.raises(ValueError, match=f"ALT_DCN.*ALT_DeepFM.*{model!r}"):
        ALTConfig(None, "anything", None, {"model": model})


def test_model_and_dataset_of_a_file_count_where_nothing_else_names_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: ALT_FM\ndataset: mine\n")
    config = ALTConfig(None, None, [str(file)])
    assert (config["model"], config["dataset"]) == ("ALT_FM", "mine")
    assert ALTConfig("ALT_DCN", None, [str(file)])["model"] == "ALT_DCN"
    assert (ALTConfig()["model"], ALTConfig()["dataset"]) == ("ALT_DCN", "ml-100k")


def test_a_dataset_that_is_no_text_is_to_be_quoted(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("dataset: 2020\n")
    with pytest.raises(ValueError, match="dataset must be the name of atomic files, not 2020: quote it"):
        ALTConfig("ALT_DCN", None, [str(file)])


@pytest.mark.parametrize("text", ["{'a': 1, 'a': 2}", "{a: 1, a: 2}"])
def test_a_key_given_twice_in_one_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"threshold.*a.* twice"):
        given(f"--threshold={text}")


def test_a_key_given_twice_with_two_values_is_refused() -> None:
    assert given("--seed=1", "--seed=1")["seed"] == 1
    with pytest.raises(ValueError, match=r"--seed.*twice.*'1'.*'2'"):
        given("--seed=1", "--seed=2")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--epochs", "5"], "'--epochs' is not understood: write --epochs=5"),
        (["--epochs"], "'--epochs' is not understood: write --epochs=value"),
        (["--epochs=5", "more"], "'more' is not understood: write --key=value"),
    ],
)
def test_an_argument_of_another_form_is_refused(arguments: list[str], remedy: str) -> None:
    with pytest.raises(ValueError, match=f"^{remedy}$"):
        given(*arguments)


def test_only_stock_recbole_reads_the_command_line_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--embedding_size=77"])
    assert ALTConfig("ALT_DCN", "anything")["embedding_size"] != 77
    assert Config("ALT_DCN", "anything")["embedding_size"] == 77


@pytest.mark.parametrize("content", [None, "- a\n- b\n", "epochs: [1,\nseed: }"], ids=["absent", "list", "syntax"])
def test_a_bad_file_is_named_in_one_line(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=r"mine\.yaml") as caught:
        ALTConfig("ALT_DCN", "anything", [str(file)])
    assert "\n" not in str(caught.value)


# -- saved ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ALTConfig, Config])
def test_snapshot_is_read_back_without_running_code(tmp_path: Path, kind: type[Config]) -> None:
    keys = {"data_path": "somewhere", "threshold": {"rating": 3}, "mlp_hidden_size": [8, 4], "template": None}
    config = kind("ALT_DCN", "anything", None, keys)
    file = tmp_path / "config.pth"
    torch.save({"config": ALTConfig.snapshot(config)}, file)
    again = torch.load(file, weights_only=True)["config"]
    assert isinstance(again, ALTConfig)
    assert again.final_config_dict == config.final_config_dict
    for key in ("MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "device"):
        assert config[key] is not None
        assert type(again[key]) is type(config[key])
    assert (again.model, again.dataset, again.model_class) == (config.model, config.dataset, config.model_class)
    again["seed"] = config["seed"] + 1  # a copy
    assert again["seed"] != config["seed"]


def test_snapshot_shares_nothing_with_the_configuration() -> None:
    config = ALTConfig("ALT_DCN", "anything", None, {"threshold": {"rating": 3}})
    copy = ALTConfig.snapshot(config)
    copy["threshold"]["rating"] = 9
    copy["mlp_hidden_size"].append(1)
    assert config["threshold"] == {"rating": 3}
    assert 1 not in config["mlp_hidden_size"]


@pytest.mark.parametrize(
    ("keys", "visible", "device", "then"),
    [
        ({}, None, "cuda", "0"),
        ({}, "3", "cuda", "3"),
        ({"gpu_id": "1"}, "3", "cuda", "1"),
        ({"use_gpu": False}, "3", "cpu", "3"),
        ({"use_gpu": False}, None, "cpu", None),
        ({"use_gpu": False, "gpu_id": "1"}, None, "cpu", None),
        ({"gpu_id": ""}, None, "cpu", ""),
        ({}, "", "cpu", ""),
    ],
    ids=str,
)
def test_the_gpu_that_is_used(
    keys: dict[str, Any],
    visible: str | None,
    device: str,
    then: str | None,
    tiny: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert tiny(**keys)["device"].type == device
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == then


def test_the_published_preset_has_every_setting_of_the_method_page() -> None:
    file = properties_dir() / "presets" / "published.yaml"
    page = (Path(__file__).parent.parent / "docs" / "method.md").read_text()
    differences = page.split("## Differences from the published procedure")[1]
    settings = [line.rsplit("|", 2)[1].strip(" `") for line in differences.splitlines() if line.startswith("| ")][1:]
    preset = read_yaml(file)
    assert len([setting for setting in settings if ":" in setting]) > 7
    for setting in settings:
        for key, value in (yaml.safe_load(setting) if ":" in setting else {}).items():
            assert preset[key] == value, key
    config = ALTConfig("ALT_DCNV2", "ml-1m", [str(file)], {"data_path": "nowhere"})
    wording = preset.pop("template")
    assert {key: config[key] for key in preset} == preset
    own = yaml.safe_load((properties_dir() / "dataset" / "ml-1m.yaml").read_text())["template"]
    assert config["template"] == {**own, **wording}  # the wording of the dataset stays


@pytest.mark.parametrize("model", [None, 5, "DCN", "ALT_Unknown"])
def test_a_file_of_a_model_that_nobody_registered_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=f"'theirs.pth' is of {model}, which is not registered"):
        require_registered(model, "theirs.pth")
    require_registered("ALT_DCN", "ours.pth")
