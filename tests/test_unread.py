"""Arguments that would change nothing in a run are refused; in files and dictionaries they are told."""

import pytest

from recbole_alt.key_table import KEYS, OBJECTIVES
from recbole_alt.quick_start import plan_recbole_alt, run_recbole_alt
from recbole_alt.registry import make_config
from recbole_alt.unread import refuse_unread, unread_keys


@pytest.mark.parametrize(
    ("model", "arguments", "why"),
    [
        ("DeepFM", ["--cross_layer_num=3"], "DeepFM has no such key"),
        ("AutoInt", ["--dropout_prob=0.1"], "AutoInt has no such key"),
        ("DCN", ["--aligned_fields=['item_id']"], "only field_contrastive and field_prediction can read it"),
        ("DCN", ["--objectives=['contrastive']", "--mask_ratio=0.1"], "only masked_language and masked_tabular can"),
        ("DCN", ["--masked_tabular_loss=full_softmax", "--masked_tabular_noise=9"], "draws no noise"),
        ("DCN", ["--lora_alpha=2"], "lora_rank is empty"),
        ("DCN", ["--grounding_rate=1"], "nothing is grounded"),
        ("DCN", ["--finetune_modes=['ctr']", "--text_batch_size=64"], "ctr and plain do not read it"),
        (
            "DCN",
            ["--finetune_modes=['ctr']", "--frozen_layers=all", "--freeze_language_model=false"],
            "ctr and plain do not read it",
        ),
        ("DCN", ["--finetune_modes=[]", "--transfer=all"], "plain does not read it"),
        ("DCN", ["--finetune_modes=[]", "--pretrain_steps=64"], "the plain backbone is not pretrained"),
        ("DCN", ["--finetune_modes=[]", "--plain_baseline=false", "--epochs=3"], "nothing is finetuned"),
        (
            "DCN",
            ["--pretrained_checkpoint=a.pth", "--pretrain_steps=3"],
            "pretrained_checkpoint brings the pretraining",
        ),
    ],
)
def test_an_argument_that_nothing_reads_is_refused(model: str, arguments: list[str], why: str) -> None:
    name = arguments[-1].partition("=")[0]
    for start in (run_recbole_alt, plan_recbole_alt):
        with pytest.raises(ValueError, match=f"^{name} changes nothing here: .*{why}.*; leave it out$"):
            start(f"ALT_{model}", "tiny", arguments=arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model=ALT_DeepFM", "--dataset=tiny", "--seed=3", "--dropout_prob=0.1", "--embedding_size=8"],
        ["--objectives=['field_contrastive']", "--field_temperature=0.1", "--aligned_fields=['item_id']"],
        ["--objectives=['field_prediction']", "--masked_tabular_noise=9"],
        ["--finetune_modes=['lm']", "--text_batch_size=64", "--pretrain_steps=64", "--lora_rank=2", "--lora_alpha=4"],
        ["--finetune_modes=[]", "--epochs=3", "--language_model_layers=2", "--text_field=['item']"],
        ["--finetune_modes=[]", "--plain_baseline=false", "--pretrain_steps=3"],
        ["--finetune_modes=['ctr']", "--freeze_language_model=false"],  # alignment trains it then, too
        ["--grounded=['item']", "--grounding_rate=1"],
        ["--finetune={ctr: {grounded: [item]}}", "--grounding_rate=1"],
        ["--pretrained_checkpoint=a.pth", "--epochs=3", "--transfer=all", "--batch_sampling=block"],
    ],
)
def test_an_argument_that_something_reads_is_not(arguments: list[str]) -> None:
    refuse_unread(make_config(None, None, arguments=arguments))


def test_keys_of_files_and_of_python_are_told() -> None:
    config = make_config("ALT_DeepFM", "tiny", None, {"cross_layer_num": 2, "epochs": 3})
    refuse_unread(config)
    assert config.notes == ["given, and not read here: cross_layer_num (DeepFM has no such key)"]


def test_every_key_of_alignment_is_read_with_all_objectives() -> None:
    config = make_config(
        "ALT_DCN", "tiny", None, {"objectives": list(OBJECTIVES), "lora_rank": 2, "grounded": ["item"]}
    )
    unread = unread_keys(config, ["pretrain", "ctr", "lm", "joint", "plain"])
    assert all(why == "DCN has no such key" for why in unread.values())
    for name, key in KEYS.items():
        assert key.belongs == "alignment" or not key.objectives, name
        assert set(key.objectives) <= OBJECTIVES.keys(), name
