"""The stages of a run, and the configuration of one stage of finetuning."""

import copy
from collections.abc import Mapping
from typing import Any

from recbole_alt.keys import check_values


def stages_of(config: Any) -> list[str]:
    """The stages of a run in their order: ``pretrain``, the modes of finetuning, ``plain``."""
    modes = list(dict.fromkeys(config["finetune_modes"] or []))
    aligns = (modes or not config["plain_baseline"]) and not config["pretrained_checkpoint"]
    return [*(["pretrain"] if aligns else []), *modes, *(["plain"] if config["plain_baseline"] else [])]


def stage_config(config: Any, stage: str) -> Any:
    """``config`` with the overrides of ``finetune: {stage: ...}``, as a copy; of a result it makes the same again.

    Args:
        config: RecBole's configuration of a whole run.
        stage: ``ctr``, ``lm``, ``joint``, or ``plain``, whose ``finetune_mode`` is ``ctr``.

    Raises:
        ValueError: a value that is out of range together with the others.
    """
    overrides = (config["finetune"] or {}).get(stage) or {}
    own = copy.copy(config)
    own.final_config_dict = {**config.final_config_dict, **overrides}
    own["finetune"] = {stage: overrides}
    own["finetune_mode"] = "ctr" if stage == "plain" else stage
    check_values(own.final_config_dict)
    return own


def override(finetune: Mapping[str, Any] | None, stage: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``finetune: {stage: ...}`` with the tuned values in place of overrides, which would win over them."""
    overrides = (finetune or {}).get(stage) or {}
    return {**(finetune or {}), stage: {key: parameters.get(key, value) for key, value in overrides.items()}}
