"""What values the keys of a configuration may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STAGES = ("plain", "ctr", "lm", "joint")
MODES = ("ctr", "lm", "joint")

#: Values a key may take; anything else stops the run before data are read.
CHOICES: dict[str, tuple[str, ...]] = {
    "finetune_modes": MODES,
    "finetune_mode": MODES,
    "objectives": ("contrastive", "masked_language", "masked_tabular"),
    "prompt_scope": ("entity", "interaction"),
    "pooling": ("mean", "cls", "last"),
    "language_model_weights": ("pretrained", "random"),
    "shuffle_texts": ("item", "user"),
    "batch_sampling": ("auto", "block", "shuffle"),
    "mask_level": ("field", "token"),
    "mask_fields": ("independent", "shared"),
    "contrast_head": ("batchnorm", "published"),
    "masked_tabular_loss": ("nce", "sampled_softmax", "full_softmax"),
    "masked_language_vocabulary": ("prompts", "full"),
    "language_model_vocabulary": ("prompts", "full"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "pretrain_schedule": ("constant", "cosine", "linear"),
    "schedule": ("constant", "cosine", "linear"),
    "transfer": ("all", "embeddings"),
    "decay_towards": ("zero", "aligned"),
    "unseen_values": ("initial", "zero", "hidden"),
    "learner": ("adam", "adamw", "sgd", "adagrad", "rmsprop"),
}

#: Keys that hold a list of these values.
_LISTS = ("finetune_modes", "objectives")

#: Shares: key → whether it may be empty.
_SHARES = {"mask_ratio": False, "train_share": True}

#: Whole numbers, or empty: key → the least.
_WHOLE = {
    **dict.fromkeys(("pretrain_steps", "pretrain_epochs", "language_model_layers", "split_seed"), 0),
    **dict.fromkeys(("lora_rank", "lora_alpha", "block_users", "block_items"), 1),
    "block_texts": 2,
}

_PICKLED = ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse a value outside :data:`CHOICES` or of the wrong kind; keys that are absent are not looked at.

    Raises:
        ValueError: names the key, the value and what is allowed.
    """
    for key, allowed in CHOICES.items():
        given = values.get(key)
        if given is None:
            continue
        if key in _LISTS and not isinstance(given, (list, tuple)):
            raise ValueError(f"{key} must be a list such as [{', '.join(allowed)}], not {given!r}")
        for value in given if key in _LISTS else [given]:
            if value not in allowed:
                raise ValueError(f"{key}: {value!r} is none of {', '.join(allowed)}")
    for key, may_be_empty in _SHARES.items():
        share = values.get(key)
        if key not in values or (share is None and may_be_empty):
            continue
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ValueError(f"{key} must be a number in (0, 1], not {share!r}")
    for key, least in _WHOLE.items():
        value = values.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(f"{key} must be a whole number, {least} or more, or empty, not {value!r}")
    frozen = values.get("frozen_layers")
    if frozen not in (None, "all") and (not isinstance(frozen, int) or isinstance(frozen, bool) or frozen < 0):
        raise ValueError(f"frozen_layers must be a whole number, 0 or more, all or empty, not {frozen!r}")
    joined = values.get("join_field_embeddings")
    if joined is not None and not isinstance(joined, bool):
        raise ValueError(f"join_field_embeddings must be true, false or empty, not {joined!r}")
    for key in _PICKLED:
        if values.get(key):
            raise ValueError(
                f"{key}: RecBole's pickled data would run code when loaded, and would not notice a changed "
                "template: leave it out; prompts are made in seconds"
            )
    for stage in values.get("finetune") or {}:
        if stage not in STAGES:
            raise ValueError(f"finetune: {stage!r} is none of {', '.join(STAGES)}")
