"""The table of keys: every default is allowed, every kind refuses what is outside, and unknown keys are answered."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recbole
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recbole_alt import registry
from recbole_alt.aliases import ALIASES
from recbole_alt.config import ALTConfig, properties_dir
from recbole_alt.key_table import DERIVED, EVALUATION, FINETUNING, REPORTING, RUN
from recbole_alt.keys import ALIGNMENT, FREE, KEYS, NOT_OF_ALIGNMENT, STAGES, check_stages, check_values, keys_of
from recbole_alt.kinds import FLAG, TEXT
from recbole_alt.model.captures import CAPTURES

RECBOLE = Path(recbole.__file__).parent / "properties"
PICKLED = {"save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path"}


def configure(**keys: Any) -> ALTConfig:
    return ALTConfig("ALT_DCN", "anything", None, keys)


def refused(match: str, **keys: Any) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        configure(**keys)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backbone", CAPTURES)
def test_the_table_knows_every_key_that_a_configuration_has_and_allows_its_default(backbone: str) -> None:
    values = ALTConfig(f"ALT_{backbone}", "ml-100k").final_config_dict
    assert set(values) - set(KEYS) - DERIVED - PICKLED == set()
    check_values(values)


@pytest.mark.parametrize("file", sorted((properties_dir() / "dataset").glob("*.yaml")), ids=lambda file: file.stem)
def test_our_own_files_are_allowed(file: Path) -> None:
    ALTConfig("ALT_DCN", "anything", [str(file)])


def test_every_key_of_ours_has_a_default_and_is_said_to_be_for_something() -> None:
    ours = yaml.safe_load((properties_dir() / "overall.yaml").read_text())
    assert not set(ours) - set(KEYS)
    assert all(key.about for key in KEYS.values())
    assert all(
        key.belongs in {ALIGNMENT, FINETUNING, EVALUATION, REPORTING, RUN, "data", "towers"} for key in KEYS.values()
    )


@pytest.mark.parametrize(
    "name", [name for name, key in KEYS.items() if key.kind.says.startswith(("a whole", "a number"))]
)
@pytest.mark.parametrize("value", [-1, "abc", "1", math.nan, math.inf, True, [1]])
def test_numbers_out_of_range_and_what_is_no_number_are_refused_by_name(name: str, value: object) -> None:
    refused(
        f"{name} must be", **{name: [value] if isinstance(value, list) else value} if value != "1" else {name: "'1'"}
    )


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.kind is FLAG])
def test_truth_values_are_true_or_false(name: str) -> None:
    refused(f"{name} must be true or false.*'maybe'", **{name: "maybe"})
    refused(f"{name} must be true or false.*not 1", **{name: 1})


@pytest.mark.parametrize("name", [n for n, k in KEYS.items() if k.kind.choices and n not in ("objective_weights",)])
def test_choices_are_listed(name: str) -> None:
    refused(f"{name} must be.*{KEYS[name].kind.choices[0]}.*'elsewise'", **{name: "elsewise"})


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if not key.empty and key.kind in (FLAG, TEXT)])
def test_what_must_not_be_empty_is_refused_where_it_is(name: str) -> None:
    if name in ("model", "dataset"):  # empty means the default
        return
    refused(f"{name} must be", **{name: None})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mask_ratio", 0), ("mask_ratio", 1.1), ("warmup_ratio", 2), ("pretrain_warmup_ratio", -0.1),
        ("train_share", 0), ("embedding_size", 0), ("contrast_temperature", 0), ("contrast_rows", 1),
        ("pretrain_batch_size", 1), ("masked_tabular_noise", 0), ("dropout_prob", 1.0), ("learning_rate", 0),
        ("epochs", 1.5), ("seed", 2**32),
        ("mlp_hidden_size", []), ("mlp_hidden_size", [0]), ("mlp_hidden_size", 64), ("encoding", "utf-9"),
        ("clip_grad_norm", {"max_nrom": 1}), ("clip_grad_norm", 1.0),
        ("clip_grad_norm", {"norm_type": 2}), ("clip_grad_norm", {}), ("objective_weights", {"contrastive": -1}),
        ("objective_weights", {"contrast": 1}),
        ("objective_weights", {"contrastive": 0, "masked_language": 0, "masked_tabular": 0}),
        ("objectives", []), ("frozen_layers", "none"), ("state", "loud"),
        ("language_model", ""), ("rm_dup_inter", "yes"), ("field_separator", ""), ("transform", "crop"),
        ("num_heads", 3), ("dropout_probs", [0.1]), ("seq_separator", 5),
        ("finetune_modes", 5), ("finetune_modes", {"ctr": 1}), ("encoding", 5), ("language_model", 5),
        ("pooling", np.array(["cls", "mean"])),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(key: str, value: object) -> None:
    match = rf"{key}( must|: .* leaves no)"
    model = "ALT_AutoInt" if key in ("num_heads", "dropout_probs") else "ALT_DCN"
    with pytest.raises(ValueError, match=match):
        ALTConfig(model, "anything", None, {key: value})


@pytest.mark.parametrize(("written", "right"), [*ALIASES.items(), ("LR", "learning_rate")])
def test_what_people_write_is_answered_with_the_right_name(written: str, right: str) -> None:
    with pytest.raises(ValueError) as caught:
        configure(**{written: 1})
    assert str(caught.value) == f"unknown key {written!r}: write {right}"
    assert right in KEYS or "eval_args" in right or "clip_grad_norm" in right or right == "use_gpu and gpu_id"


@pytest.mark.parametrize(("written", "right"), [("mask_ration", "mask_ratio"), ("Learning_rate", "learning_rate")])
def test_a_misspelt_key_is_answered_with_the_one_it_is_like(written: str, right: str) -> None:
    refused(f"unknown key '{written}'.*'{right}'", **{written: 1})


def test_unknown_keys_are_passed_on_only_where_asked() -> None:
    refused("unknown key 'my_own_thing'.*allow_unknown_keys", my_own_thing=3)
    assert configure(my_own_thing=3, allow_unknown_keys=True)["my_own_thing"] == 3
    stages = {"ctr": {"my_own_thing": 3}}
    assert configure(finetune=stages, allow_unknown_keys=True)["finetune"]["ctr"] == {"my_own_thing": 3}


def test_values_that_must_fit_each_other_are_allowed_where_one_is_absent() -> None:
    check_values({"num_heads": 3})
    check_values({"attention_size": 16})
    check_values({"num_heads": 2, "attention_size": 16, "dropout_probs": [0.1, 0.2, 0.3]})


@pytest.mark.parametrize("value", [0, 2, "all", None])
def test_frozen_layers_are_a_number_or_all(value: object) -> None:
    check_values({"frozen_layers": value})


def test_an_empty_local_rank_is_no_launch_of_several_processes() -> None:
    assert configure(local_rank=None)["single_spec"] is True


def test_derived_keys_can_not_be_given() -> None:
    refused("eval_type follows from other keys", eval_type="VALUE")


@pytest.mark.parametrize("name", sorted(PICKLED))
def test_recboles_pickled_data_are_refused(name: str) -> None:
    refused(f"{name}: RecBole's pickled data would run code", **{name: "somewhere"})


def test_a_backbone_of_ones_own_declares_its_keys() -> None:
    from recbole.model.context_aware_recommender import DCN

    class Towered(DCN):  # type: ignore[misc]
        keys = ("tower_width",)

    registry.register(Towered)
    assert ALTConfig("ALT_Towered", "anything", None, {"tower_width": 3})["tower_width"] == 3
    stages = {"plain": {"tower_width": 4}}
    assert ALTConfig("ALT_Towered", "anything", None, {"finetune": stages})["finetune"]["plain"] == {"tower_width": 4}
    with pytest.raises(ValueError, match=r"unknown key 'tower_widht'.*'tower_width'"):
        ALTConfig("ALT_Towered", "anything", None, {"tower_widht": 3})
    refused("unknown key 'tower_width'", tower_width=3)


# -- overrides by stage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "match"),
    [
        ({"jiont": {}}, "'jiont' must be one of plain, ctr, lm, joint"),
        ({"joint": {"embedding_size": 8}}, "finetune: joint: embedding_size changes nothing there.*top level"),
        ({"joint": {"pretrain_steps": 9}}, "finetune: joint: pretrain_steps changes nothing there"),
        (
            {"ctr": {"language_learning_rate": 1e-5}},
            "finetune: ctr: language_learning_rate.*only lm and joint can have it: leave it out$",
        ),
        ({"plain": {"transfer": "all"}}, "finetune: plain: transfer.*only ctr and joint"),
        ({"ctr": {"metrics": ["AUC"]}}, "finetune: ctr: metrics.*same for all stages"),
        ({"ctr": {"seed": 3}}, "finetune: ctr: seed.*same for all stages"),
        ({"ctr": {"plain_baseline": False}}, "plain_baseline.*the same for all stages: leave it out$"),
        ({"ctr": {None: 3}}, "finetune: ctr: unknown key None"),
        ({"ctr": {"lr": 3}}, "finetune: ctr: unknown key 'lr': write learning_rate"),
        ({"ctr": {"epochs": -3}}, "finetune: ctr: epochs must be a whole number.*-3"),
    ],
)
def test_an_override_that_changes_nothing_is_refused(stages: dict[str, dict[str, Any]], match: str) -> None:
    refused(match, finetune=stages)


def test_overrides_that_count_are_allowed() -> None:
    check_stages(
        {stage: {"epochs": 3, "learning_rate": 1e-3, "dropout_prob": 0.1} for stage in STAGES if stage != "lm"}
    )
    check_stages({"lm": {"epochs": 3, "block_users": 8, "language_learning_rate": 1e-5}})


# -- what follows from the table -----------------------------------------------------------------------------


def test_no_stage_may_change_what_it_shares_with_the_others() -> None:
    for name, key in KEYS.items():
        if key.belongs in ("data", EVALUATION, REPORTING, RUN, ALIGNMENT):
            assert key.stages == (), name


def test_a_continuation_may_differ_in_what_changes_no_score() -> None:
    assert {"resume", "result_file", "show_progress", "data_path", "gpu_id", "device"} <= FREE
    assert not FREE & keys_of("data", "towers", ALIGNMENT, FINETUNING, EVALUATION, RUN) - {"device"}


def test_an_alignment_depends_on_data_towers_and_itself() -> None:
    assert {"learning_rate", "epochs", "finetune_modes", "metrics", "unseen_values"} <= NOT_OF_ALIGNMENT
    assert not {"seed", "embedding_size", "mask_ratio", "template", "load_col", "batch_sampling"} & NOT_OF_ALIGNMENT


@given(
    st.sampled_from(sorted(KEYS)),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())),
)
def test_any_value_is_allowed_or_refused_in_one_line(name: str, value: Any) -> None:
    try:
        check_values({name: value})
    except ValueError as error:
        assert name in str(error)
        assert "\n" not in str(error)
