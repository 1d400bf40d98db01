"""The plan of a campaign: its runs, their configurations and names, and bad input."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interruptions import counted

from recbole_alt import compare
from recbole_alt.cli import main
from recbole_alt.cli.compare import COMMAND
from recbole_alt.config import ALTConfig
from recbole_alt.files import read_record, write_record
from recbole_alt.reporting.runs import COMPLETE, Run
from recbole_alt.study import ABLATIONS, Campaign, comparison, run_campaign
from recbole_alt.study.arms import check_arms
from recbole_alt.study.axes import DataSpec
from recbole_alt.study.axis_values import read_axes
from recbole_alt.trainer.pretrain import ALTPretrainTrainer
from recbole_alt.yaml_files import parse_yaml

pytestmark = pytest.mark.usefixtures("one_thread")

Made = Callable[..., Campaign]


def test_variants_have_the_parameters_of_what_they_vary(campaign: Made) -> None:
    variants = {name: {"text_field": ["item"], "finetune_modes": ["plain"]} for name in ("field", "wide_field")}
    axes = campaign(models=["DCN"], modes=["ctr"], variants=variants, controls=["all"], tuned_alone=["field"])
    tuned = {(run.variant, run.stage): axes.tuned_as(run) for run in axes.runs()}
    assert {run: (cell.variant, cell.stage) for run, cell in tuned.items() if cell} == {
        ("plain", "plain"): ("plain", "plain"),
        (COMPLETE, "ctr"): (COMPLETE, "ctr"),
        ("ALT_shuffled", "ctr"): (COMPLETE, "ctr"),
        ("field", "plain"): ("field", "plain"),
        ("field_shuffled", "plain"): ("field", "plain"),
        ("wide_field", "plain"): ("plain", "plain"),
        ("wide_field_shuffled", "plain"): ("plain", "plain"),
    }
    alone = campaign(models=["DCN"], modes=["ctr"], controls=["ALT"], tuned_alone=["all"])
    assert {cell.variant for run in alone.runs() if (cell := alone.tuned_as(run))} == {
        "plain", COMPLETE, "ALT_shuffled"
    }  # fmt: skip


def test_a_variant_may_be_given_as_the_control_of_another(campaign: Made) -> None:
    variants = {"mine": {"transfer": "embeddings"}, "mine_shuffled": {"transfer": "all"}}
    axes = campaign(models=["DCN"], modes=["ctr"], variants=variants, controls=["all"], tuned_alone=["mine"])
    assert axes.changes["mine_shuffled"] == {"transfer": "all"} and axes.controls == [COMPLETE, "mine"]
    run = next(run for run in axes.runs() if run.variant == "mine")
    assert run.bases["vs_others"].variant == "mine_shuffled"
    control = next(run for run in axes.runs() if run.variant == "mine_shuffled")
    assert axes.tuned_as(control) == axes.tuned_as(run) and axes.config(control, {})["shuffle_texts"] is None


def test_names_that_models_have_for_dropout(campaign: Made) -> None:
    Path("dropout").write_text("dropout_prob uniform 0,0.5\n")
    axes = campaign(models=["LR", "AutoInt"], modes=["ctr"], params_file="dropout")
    linear, attention = (next(run for run in axes.runs() if run.model == model) for model in axes.models)
    assert axes.reads(attention, "dropout_prob") and not axes.reads(linear, "dropout_prob")
    assert not axes.reads(linear, "grounding_rate")
    config = axes.config(attention, {"dropout_prob": 0.1})
    assert config["finetune"]["plain"]["dropout_probs"] == [0.1, 0.1, 0.1]


def test_records_are_named_in_full(campaign: Made) -> None:
    axes = campaign(models=["DCN"], seeds=1, modes=["ctr"], train_shares=[0.05])
    compared = comparison.Comparison(Path("out"), axes)
    files = {compared._file(run, {"learning_rate": rate}) for run in axes.runs() for rate in (0.1, 0.2)}
    assert len(files) == 4 and all("_0.05_" in file.name and file.suffix == ".json" for file in files)


def test_ablations_change_the_stated_keys_only(campaign: Made) -> None:
    axes = campaign(ablations=list(ABLATIONS), budgets=[7], train_shares=[0.05, 1.0], modes=["ctr", "lm"])
    spec = axes.datasets[0].label
    base = axes.config(Run(spec, 1.0, "DCN", None, COMPLETE, "lm", 2020), {}).final_config_dict
    given = ALTConfig("ALT_DCN", "tiny", None, axes.keys).final_config_dict
    differing = {key for key, value in base.items() if given[key] != value}
    assert differing == {
        "split_seed",
        "finetune_modes",
        "plain_baseline",
        "finetune",
    }  # finetune: other modes' are gone
    assert base["finetune"] == {"lm": given["finetune"]["lm"]}
    for name, changes in {**ABLATIONS, "steps_7": {"pretrain_steps": 7}}.items():
        base, other = (
            axes.config(Run(spec, 1.0, "DCN", None, variant, "lm", 2020), {}) for variant in (COMPLETE, name)
        )
        differing = {k for k, v in base.final_config_dict.items() if other.final_config_dict.get(k) != v}
        differing |= other.final_config_dict.keys() - base.final_config_dict.keys()
        assert differing == changes.keys() - {"finetune_modes"}, name
        assert all(other[key] == changes[key] for key in differing)
    stages = {variant: {run.stage for run in axes.runs() if run.variant == variant} for variant in axes.changes}
    assert stages["language_model_alone"] == {"lm"} and stages["contrast_only"] == {"ctr", "lm"}
    assert len({run.slug for run in axes.runs()}) == len(axes.runs()) == 2 * 2 * 2 * (1 + 10 * 2 - 1)
    plain = [run for run in axes.runs() if run.stage == "plain"]
    assert {one.seed for run in plain for one in axes.tuned_with(run)} == {2020} and len(plain) == 2 * 2 * 2


def test_datasets_and_bad_input(campaign: Made, tmp_path: Path) -> None:
    (tmp_path / "tiny-dropped.yaml").write_text("val_interval: {rating: '[1,2];[4,5]'}")
    axes = campaign(datasets=["tiny@time", "tiny:tiny-dropped.yaml"], split=["random", "time"])
    assert [d.label for d in axes.datasets] == ["tiny-time", "tiny-dropped-random", "tiny-dropped-time"]
    config = axes.config(Run(axes.datasets[2].label, 1.0, "DCN", None, COMPLETE, "ctr", 2021), {})
    assert config["eval_args"]["order"] == "TO" and config["val_interval"] == {"rating": "[1,2];[4,5]"}
    assert (config["split_seed"], config["seed"]) == (2020, 2021)
    assert Campaign.from_mapping(axes.to_json()) == axes
    for wrong, said in (
        ({"models": ["DNC"]}, "DNC"),
        ({"ablations": ["x"]}, "x"),
        ({"datasets": ["tiny@week"]}, "week"),
        ({"datasets": ["tiny:no.yaml"]}, "no.yaml"),
        ({"modles": []}, "modles"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "twice"),
        ({"keys": {"seed": 1}}, "seed"),
        ({"keys": {"learning_rate": 1}}, "learning_rate"),
        ({"keys": {"split_seed": None}}, "split_seed"),
        ({"variants": {"ALT": {}}}, "'ALT' is taken"),
        ({"variants": {"a b": {}}}, "'a b' is taken, or no word"),
        ({"variants": {"steps_5": {}}}, "'steps_5' is taken"),
        ({"variants": {"mine_shuffled": {}}}, "'mine_shuffled' is the control of 'mine', which must be a variant"),
        ({"controls": ["mine"]}, "controls must be among ALT, not 'mine'"),
        ({"variants": "more"}, "variants must be .*, not 'more'"),
        ({"tuning_seeds": 3}, "between 1 and the 2 seeds, not 3"),
        ({"tuned_alone": ["no_contrast"]}, "tuned_alone must be among .*, not 'no_contrast'"),
        ({"variants": {"more": 1}}, "more must hold"),
        ({"variants": {"more": {"seed": 1}}}, "seed is what the campaign"),
        ({"variants": {"more": {"learning_rate": 0.1}}}, "learning_rate is tuned"),
        ({"keys": {"language_model": "a"}, "language_models": ["b"]}, "language_model"),
    ):
        with pytest.raises(ValueError, match=said):
            campaign(**wrong)
    assert DataSpec.parse("ml-100k").label == "ml-100k"


def test_a_text_is_the_list_that_it_is_on_a_command_line() -> None:
    given = {"models": "DCN", "datasets": "tiny,other", "ablations": "contrast_only", "controls": "[all]"}
    read = read_axes(given | {"language_models": "NAME", "modes": None, "train_shares": (0.5, 1)})
    assert read == {
        "models": ["DCN"],
        "datasets": ["tiny", "other"],
        "ablations": ["contrast_only"],
        "controls": ["all"],
        "language_models": ["NAME"],
        "train_shares": [0.5, 1],
    }


def test_seeds_are_counted_alike_in_a_file_and_on_the_command_line() -> None:
    parser = ArgumentParser()
    COMMAND.add_options(parser)
    for text, seeds in (("2", [2020, 2021]), ("100", list(range(2020, 2120))), ("[2020]", [2020]), ("7,8", [7, 8])):
        assert read_axes({"seeds": parse_yaml(text if "," not in text else f"[{text}]")}) == {"seeds": seeds}
        assert read_axes({"seeds": parser.parse_args(["--out=out", f"--seeds={text}"]).seeds}) == {"seeds": seeds}
    for many in (2020, parser.parse_args(["--out=out", "--seeds=2020"]).seeds):
        with pytest.raises(ValueError, match=r"seeds: 2020 would be that many seeds, .* give \[2020\] for one seed"):
            read_axes({"seeds": many})


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("datasets", (5, [5], [{"tiny": "base.yaml"}], [None])),
        ("models", (5, [5], {"DCN": 1}, True)),
        ("language_models", (5, [5])),
        ("keys", ("a", ["a"], {1: 2})),
        ("variants", ([], {True: {"transfer": "all"}}, {"mine": [1]}, {"mine": {1: 2}})),
        ("train_shares", (0.5, "0.5", ["0.5"], [0], [1.5])),
        ("budgets", (60, "60", ["60"], [-1], [1.5])),
        ("seeds", (0, 2.0, {"a": 1}, ["1", "2"], True, "7,8", [-1])),
        ("tuning_seeds", ("1", 0, 1.5)),
        ("tuning_trials", ("2", 0, 1.5, True)),
        ("params_file", (False, ["a"], 5)),
        ("widenings", ("2", -1, 1.5)),
        ("split", (5, [5])),
    ],
)
def test_values_of_the_wrong_kind_are_refused_by_axis_and_value(
    campaign: Made, axis: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^{axis}[: ].*must") as refused:
            campaign(**{axis: value})
        inner = value["mine"] if isinstance(value, dict) and "mine" in value else value
        assert str(inner) in str(refused.value) or "seeds must be at least one" in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"config_files": "own.yaml"}, "config_files is not read here: .*--datasets=tiny:own.yaml"),
        ({"eval_args": {"order": "RO"}}, "eval_args would be replaced by the split of datasets: tiny@time; leave one"),
        ({"finetune": {"ctr": {"learning_rate": 0.5}}}, "finetune: ctr: learning_rate is tuned, and given"),
        ({"dropout_probs": [0.1] * 3}, "dropout_probs is tuned by dropout_prob, and given"),
        ({"finetune": {"joint": {"drop_ex": 0.1}}}, "finetune: joint: drop_ex is tuned by dropout_prob, and given"),
        ({"train_share": 0.1}, "train_share is what the campaign itself sets; leave it out, and give train_shares"),
        ({"language_model": "b"}, "language_model is what the campaign .* and give language_models"),
    ],
)
def test_keys_that_the_campaign_would_override_are_refused(campaign: Made, given: dict[str, Any], said: str) -> None:
    Path("two").write_text("learning_rate choice [1e-3, 1e-2]\ndropout_prob uniform 0,0.5\n")
    axes = {"params_file": "two", "datasets": ["tiny@time"], "language_models": ["a"]}
    with pytest.raises(ValueError, match=f"^{said}"):
        campaign(**axes, keys=given)
    with pytest.raises(ValueError, match=f"^variants: mine: {said}"):
        campaign(**axes, keys={}, variants={"mine": given})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train_share: 0.1", "train_share is what the campaign itself sets; leave it out, and give train_shares"),
        ("pretrained_checkpoint: a.pth", "pretrained_checkpoint is what the campaign itself sets; leave it out$"),
        ("resume: last", "resume is what the campaign itself sets"),
        ("dataset: other", "dataset is .* and give datasets"),
        ("split_seed: ~", "split_seed: paired runs share one split"),
    ],
)
def test_the_file_of_a_dataset_does_not_say_what_the_campaign_sets(campaign: Made, line: str, said: str) -> None:
    Path("few.yaml").write_text(f"threshold: {{rating: 4}}\n{line}\n")
    with pytest.raises(ValueError, match=f"^datasets: few.yaml: {said}"):
        campaign(datasets=["tiny:few.yaml"])


def test_what_the_file_of_a_dataset_says_for_single_runs_is_passed_over_and_told(campaign: Made) -> None:
    Path("own.yaml").write_text("model: ALT_FM\nseed: 3\nfinetune_modes: [lm]\nplain_baseline: false\n")
    axes = campaign(models=["DCN"], modes=["ctr"], datasets=["tiny:own.yaml"], keys={})
    runs = axes.runs()
    assert {(run.model, run.stage) for run in runs} == {("DCN", "plain"), ("DCN", "ctr")}
    assert {axes.config(run, {})["seed"] for run in runs} == set(axes.seeds) and 3 not in axes.seeds
    assert [note.split(" is ")[0] for note in axes.notes] == [
        f"datasets: own.yaml: {key}" for key in ("model", "seed", "finetune_modes", "plain_baseline")
    ]


def test_a_split_that_replaces_the_one_of_the_datasets_file_is_told(campaign: Made) -> None:
    Path("own.yaml").write_text("eval_args: {order: RO}\n")
    assert campaign(datasets=["tiny:own.yaml"], keys={}).notes == []
    axes = campaign(datasets=["tiny:own.yaml@time"], keys={})
    assert axes.notes == ["datasets: own.yaml: eval_args is replaced by the split time"]
    assert {axes.config(run, {})["eval_args"]["order"] for run in axes.runs()} == {"TO"}


def test_a_key_that_no_run_reads_is_told_and_of_a_variant_refused(campaign: Made) -> None:
    given = {"keys": {"cross_layer_num": 2}, "params_file": "none"}
    assert campaign(models=["DeepFM", "DCN"], **given).notes == []
    told = campaign(models=["DeepFM"], **given).notes
    assert told == ["cross_layer_num is given, and not read here: DeepFM has no such key"]
    alone = {"few": {"objectives": ["contrastive"], "mask_ratio": 0.3}}
    with pytest.raises(ValueError, match=r"^variants: few: mask_ratio changes nothing: only masked_language"):
        campaign(models=["DCN"], keys={}, variants=alone)
    campaign(models=["DCN"], keys={"mask_ratio": 0.3}, variants={"few": {"objectives": ["contrastive"]}})


def test_the_split_seed_of_a_datasets_file_holds(campaign: Made) -> None:
    Path("other.yaml").write_text("split_seed: 7\ndataset: tiny\n")
    axes = campaign(datasets=["tiny:other.yaml", "tiny"])
    seeds = {run.data: axes.config(run, {})["split_seed"] for run in axes.runs()}
    assert seeds == {"tiny-other": 7, "tiny": 2020}


def test_a_dropout_is_not_tuned_twice(campaign: Made) -> None:
    Path("both").write_text("dropout_probs choice [[0.1, 0.1, 0.1]]\ndropout_prob uniform 0,0.5\n")
    with pytest.raises(ValueError, match=r"^both, line 1: .*_probs is tuned by dropout_prob, too \(both, line 2"):
        campaign(params_file="both")


def test_a_value_of_a_range_is_refused_with_its_line(campaign: Made) -> None:
    Path("bad").write_text("# rates\nlearning_rate choice [-1.0]\n")
    with pytest.raises(ValueError, match=r"^bad, line 2: learning_rate must be"):
        campaign(params_file="bad")


def test_language_models_with_one_name_are_refused_as_their_searches_would_be_one(campaign: Made) -> None:
    given = {"keys": {}, "models": ["DCN"]}
    with pytest.raises(ValueError, match=r"^language_models: two are called small, as runs would be"):
        campaign(**given, language_models=["first/small", "second/small"])
    slugs = {run.slug for run in campaign(**given, modes=["ctr"], seeds=1, language_models=["a/x", "a/y"]).runs()}
    assert slugs == {"tiny_DCN_plain_2020", "tiny_DCN_x_ALT_ctr_2020", "tiny_DCN_y_ALT_ctr_2020"}


def test_a_campaign_goes_on_only_where_names_stand_for_the_same(campaign: Made, tmp_path: Path) -> None:
    def begin(rating: int, **variants: Any) -> None:
        Path("few.yaml").write_text(f"threshold: {{rating: {rating}}}\nshow_progress: {str(rating > 3).lower()}\n")
        comparison._open(campaign(datasets=["tiny:few.yaml"], variants=variants), tmp_path)

    begin(3, mine={"mask_ratio": 0.2})
    begin(3, mine={"mask_ratio": 0.2}, more={"mask_ratio": 0.3})  # names may come
    with pytest.raises(
        ValueError, match=r"^out: datasets: tiny-few: threshold was {'rating': 3} in .* {'rating': 4} now"
    ):
        begin(4)
    begin(3)  # and go,
    with pytest.raises(ValueError, match=r"^out: variants: mine: mask_ratio was 0\.2 in '.*' and is 0\.5 now: give"):
        begin(3, mine={"mask_ratio": 0.5})  # but not come back as something else
    with pytest.raises(ValueError, match=r"variants: more: transfer was None in '.*' and is 'embeddings' now"):
        begin(3, more={"mask_ratio": 0.3, "transfer": "embeddings"})


def test_a_campaign_of_before_definitions_were_kept_goes_on(campaign: Made, tmp_path: Path) -> None:
    comparison._open(campaign(variants={"mine": {"mask_ratio": 0.2, "show_progress": True}}), tmp_path)
    kept = read_record(tmp_path / "campaign.json")
    del kept["defined"]
    write_record(tmp_path / "campaign.json", kept)
    with pytest.raises(ValueError, match="variants: mine: mask_ratio was 0"):
        comparison._open(campaign(variants={"mine": {"mask_ratio": 0.5}}), tmp_path)
    comparison._open(campaign(variants={"mine": {"mask_ratio": 0.2}}), tmp_path)
    assert "datasets: tiny" in read_record(tmp_path / "campaign.json")["defined"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"split_seed": 1}, "split_seed"),
        ({"threshold": {"rating": 5}}, "threshold"),
        ({"val_interval": {"rating": "[1,2]"}}, "val_interval"),
        ({"eval_args": {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": None, "mode": "labeled"}}, "eval_args"),
        ({"user_inter_num_interval": "[2,inf)"}, "user_inter_num_interval"),
        ({"load_col": {"inter": ["user_id", "item_id"], "user": ["user_id"], "item": ["item_id"]}}, "load_col without"),
    ],
)
def test_a_variant_with_other_rows_is_refused_before_any_training(
    campaign: Made, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], key: str
) -> None:
    aligned = counted(monkeypatch, ALTPretrainTrainer, "fit")
    with pytest.raises(ValueError, match=f"^variants: mine: {key}.* makes other rows than plain has, "):
        run_campaign(campaign(variants={"mine": changes}), Path("out"))
    assert not aligned and not list(Path("out").rglob("*.json"))


def test_columns_that_no_rule_reads_may_come_and_go(campaign: Made) -> None:
    axes = campaign()
    inter = axes.config(axes.runs()[0], {})["load_col"]["inter"]
    kept = [column for column in inter if column != "timestamp"]  # the split is random
    for columns in (kept, [*inter, "likes"]):
        check_arms(campaign(variants={"mine": {"load_col": {"inter": columns}}}))


@pytest.mark.parametrize(
    ("axes", "name"),
    [
        ({"variants": {"mine": {}}}, "mine"),
        ({"variants": {"mine": {"finetune_modes": ["plain"]}}}, "mine"),
        ({"variants": {"mine": {"pretrain_steps": 2, "show_progress": True}}}, "mine"),
        ({"budgets": [2, 3]}, "steps_2"),
    ],
)
def test_an_arm_that_is_another_one_is_refused(campaign: Made, axes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is the complete method, or plain"):
        check_arms(campaign(**axes))


def test_a_variant_that_differs_in_one_mode_is_an_arm(campaign: Made) -> None:
    check_arms(campaign(variants={"mine": {"finetune": {"joint": {"epochs": 2}}}}))  # in ctr it is the complete method


def test_the_configured_language_model_is_not_compared_with_itself(campaign: Made) -> None:
    keys = {key: value for key, value in campaign().keys.items() if key != "language_model"}
    axes = campaign(keys=keys, language_models=[None, "other"])
    check_arms(axes)
    complete = next(run for run in axes.runs() if run.variant == COMPLETE and run.language_model is None)
    with pytest.raises(ValueError, match=r"^language_models: '.*' is the configured one"):
        check_arms(campaign(keys=keys, language_models=[None, axes.config(complete, {})["language_model"]]))


@pytest.mark.parametrize("text", ["", ":keys.yaml", "ml-100k:", "ml-100k@", "ml-100k:@time", "@time"])
def test_a_dataset_lacks_no_part(text: str) -> None:
    with pytest.raises(ValueError, match=r"datasets: .* lacks a part: write name, name:keys\.yaml"):
        DataSpec.parse(text)


def test_an_empty_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It would be the current one, full of runs."""
    assert main(["compare", "--models=DCN", "--datasets=tiny", "--out="]) == 2
    assert capsys.readouterr().err == "error: out must be text, not ''\n"
    with pytest.raises(ValueError, match="out must be text"):
        compare(["DCN"], ["tiny"], "")
