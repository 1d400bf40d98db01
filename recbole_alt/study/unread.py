"""Which tuned keys would change nothing in a stage, and why."""

from collections.abc import Collection
from typing import Any

from recbole_alt.config import ALTConfig
from recbole_alt.key_table import ALIGNMENT, FINETUNING, KEYS, TOWERS, Key
from recbole_alt.keys import keys_of

_ADAPTERS = ("lora_rank", "lora_alpha")


def unread_keys(config: ALTConfig, stage: str, tuned: Collection[str]) -> dict[str, str]:
    """The keys that neither ``stage`` nor its alignment reads → why; ``tuned`` are those that trials differ in."""
    unread = {name: f"{stage} does not read it" for name, key in KEYS.items() if not _reads(stage, key)}
    unread |= {name: why for name in KEYS if (why := _not_of_model(config, name))}
    if config["pretrained_checkpoint"]:
        unread |= dict.fromkeys(keys_of(ALIGNMENT), "pretrained_checkpoint brings the pretraining")
    if config["lora_rank"] is None and "lora_rank" not in tuned:
        unread["lora_alpha"] = "it is the scale of adapters, and lora_rank is empty"
    if stage == "plain":
        unread |= dict.fromkeys([*keys_of(ALIGNMENT), *_ADAPTERS], "the plain backbone is not pretrained")
    return unread


def _reads(stage: str, key: Key) -> bool:
    """Whether a stage reads a key; alignment comes before all but ``plain``, and reads what both towers have."""
    of_stage = key.belongs == FINETUNING or (stage == "plain" and bool(key.stages))
    return stage in key.stages or not of_stage


def _not_of_model(config: ALTConfig, name: str) -> str:
    """Why the model does not read a key of RecBole's other models; empty if it may, as a model of the user's own."""
    face: Any = config.model_class
    model = face.backbone_class
    theirs = KEYS[name].belongs == TOWERS and model.__module__.startswith("recbole")
    return f"{model.__name__} has no such key" if theirs and name not in config.internal_config_dict else ""
