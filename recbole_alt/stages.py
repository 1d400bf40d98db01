"""The configuration of one stage of finetuning."""

import copy
from typing import Any

from recbole_alt.keys import check_values


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
