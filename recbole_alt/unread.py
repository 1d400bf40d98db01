"""Which keys would change nothing in a run, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from recbole_alt.config import ALTConfig
from recbole_alt.key_table import ALIGNMENT, FINETUNING, KEYS, TOWERS
from recbole_alt.sizes import AUTO
from recbole_alt.stages import stages_of

_ADAPTERS = ("lora_rank", "lora_alpha")


def refuse_unread(config: ALTConfig, unread: Mapping[str, str] | None = None) -> None:
    """Refuse arguments that would change nothing, and note such keys of files and of Python for the log.

    A file may be made for several models, and for runs of other stages; an argument is given to this run.

    Args:
        config: of a run.
        unread: what :func:`unread_keys` found; by default for the stages of the run.

    Raises:
        ValueError: begins with the argument, and says why nothing reads it.
    """
    unread = unread_keys(config, stages_of(config)) if unread is None else unread
    for name in filter(unread.__contains__, config.cmd_config_dict):
        raise ValueError(f"--{name} changes nothing here: {unread[name]}; leave it out")
    given = [f"{name} ({unread[name]})" for name in config.external_config_dict if name in unread]
    if given:
        config.notes.append(f"given, and not read here: {'; '.join(given)}")


def unread_keys(config: ALTConfig, stages: Sequence[str], tuned: Collection[str] = ()) -> dict[str, str]:
    """The keys that none of ``stages`` reads → why.

    Args:
        config: of the whole run.
        stages: of the run, as :func:`~recbole_alt.stages.stages_of` has them.
        tuned: the keys that trials differ in; their values in ``config`` decide nothing.
    """
    return {name: why for name in KEYS if (why := _why_unread(config, name, stages, tuned))}


def _why_unread(config: ALTConfig, name: str, stages: Sequence[str], tuned: Collection[str]) -> str:
    if why := _not_of_model(config, name):
        return why
    key, aligns = KEYS[name], "pretrain" in stages
    finetuned = [stage for stage in stages if stage != "pretrain"]
    if not aligns and (key.belongs == ALIGNMENT or (name in _ADAPTERS and finetuned == ["plain"])):
        brought = config["pretrained_checkpoint"]
        return "pretrained_checkpoint brings the pretraining" if brought else "the plain backbone is not pretrained"
    objectives = config["objectives"] or []
    if key.objectives and "objectives" not in tuned and not set(key.objectives).intersection(objectives):
        return f"only {' and '.join(key.objectives)} can read it, and objectives are {', '.join(objectives)}"
    decides_alignment = name == "freeze_language_model" and aligns and config["frozen_layers"] == AUTO
    of_finetuning = (key.belongs == FINETUNING and not decides_alignment) or (bool(key.stages) and not aligns)
    if of_finetuning and not finetuned:
        return "nothing is finetuned"
    if of_finetuning and not set(key.stages).intersection(finetuned):
        return f"{' and '.join(finetuned)} {'do' if finetuned[1:] else 'does'} not read it"
    if name == "grounding_rate" and "grounded" not in tuned and not _grounds(config, finetuned):
        return "nothing is grounded"
    if name == "lora_alpha" and config["lora_rank"] is None and "lora_rank" not in tuned:
        return "it is the scale of adapters, and lora_rank is empty"
    if name == "masked_tabular_noise" and config[loss := "masked_tabular_loss"] == "full_softmax" and loss not in tuned:
        return f"{loss} is full_softmax, which draws no noise"
    return ""


def _grounds(config: ALTConfig, stages: Sequence[str]) -> bool:
    """Whether some side is grounded in alignment or in one of ``stages``."""
    own = [(config["finetune"] or {}).get(stage) or {} for stage in stages]
    return any([config["grounded"], *(of.get("grounded") for of in own)])


def _not_of_model(config: ALTConfig, name: str) -> str:
    """Why the model does not read a key of RecBole's other models; empty if it may, as a model of the user's own."""
    face: Any = config.model_class
    model = face.backbone_class
    theirs = KEYS[name].belongs == TOWERS and name != "model" and model.__module__.startswith("recbole")
    return f"{model.__name__} has no such key" if theirs and name not in config.internal_config_dict else ""
