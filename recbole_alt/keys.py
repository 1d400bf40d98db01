"""Checks of keys and values against the table :data:`~recbole_alt.key_table.KEYS`."""

from collections.abc import Collection, Mapping
from typing import Any

from recbole_alt.aliases import ALIASES
from recbole_alt.key_table import (
    ALIGNMENT,
    DERIVED,
    EVALUATION,
    FINETUNING,
    KEYS,
    MODES,
    OBJECTIVES,
    REPORTING,
    RUN,
    STAGES,
)  # fmt: skip
from recbole_alt.kinds import did_you_mean

__all__ = ["ALIGNMENT", "KEYS", "MODES", "STAGES"]

_PICKLED = ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")


def keys_of(*belongs: str) -> frozenset[str]:
    """The keys that belong to any of ``belongs``, such as :data:`~recbole_alt.key_table.DATA`."""
    return frozenset(name for name, key in KEYS.items() if key.belongs in belongs)


#: Keys that may differ between a run and its continuation.
FREE = keys_of(REPORTING) | {"device"}
#: Keys that an alignment does not depend on: runs that differ only in these share one.
NOT_OF_ALIGNMENT = keys_of(REPORTING, FINETUNING, EVALUATION, RUN) | {"device", "eval_type"}


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse values of the wrong kind or out of range, by key, value and what it must be; keys may be absent."""
    for name, value in values.items():
        if key := KEYS.get(name):
            key.kind.refuse(name, value, empty=key.empty)
    if not values.get("objectives", True):
        raise ValueError(f"objectives must name at least one of {', '.join(OBJECTIVES)}; [] would align nothing")
    _check_together(values)
    for name in _PICKLED:
        if values.get(name):
            raise ValueError(
                f"{name}: RecBole's pickled data would run code when loaded, and would not notice a changed "
                "template: leave it out; prompts are made in seconds"
            )


def _check_together(values: Mapping[str, Any]) -> None:
    """Refuse values that are allowed by themselves but not together."""
    weights = values.get("objective_weights") or {}
    objectives = values.get("objectives") or ()
    if objectives and all(weights.get(name, 1) == 0 for name in objectives):
        raise ValueError(
            f"objective_weights: {dict(weights)!r} leaves no objective above 0: alignment would do nothing"
        )
    if values.get("embedding_optimizer") == "rowwise" and values.get("learner", "adamw") != "adamw":
        raise ValueError(f"embedding_optimizer: rowwise needs learner: adamw, not {values['learner']}")
    size, heads = values.get("attention_size"), values.get("num_heads")
    if size is not None and heads is not None and size % heads:
        raise ValueError(f"num_heads must divide attention_size, {size}; {heads} does not")
    dropouts = values.get("dropout_probs")
    if dropouts is not None and len(dropouts) != 3:
        raise ValueError(f"dropout_probs must have three values (RecBole's AutoInt), not {dropouts!r}")


def check_names(given: Collection[str], known: Collection[str]) -> None:
    """Refuse keys that are neither in the table nor ``known``, and name the closest that are."""
    for name in given:
        if name in DERIVED - {"device"}:
            raise ValueError(f"{name} follows from other keys: leave it out")
        if name not in KEYS and name not in known:
            raise ValueError(f"unknown key {name!r}{meant(name, known)}")


def meant(key: Any, known: Collection[str] = ()) -> str:
    """The end of an error about an unknown key: what to write instead."""
    name = str(key)  # YAML reads ~ as None
    if right := ALIASES.get(name.lower()):
        return f": write {right}"
    otherwise = ": leave it out, or give --allow_unknown_keys=true if code of your own reads it"
    return did_you_mean(name, [*KEYS, *known], otherwise, cutoff=0.7)


def check_stages(stages: Mapping[str, Mapping[str, Any]], own: Collection[str] = (), strict: bool = True) -> None:
    """Refuse overrides under ``finetune`` of an unknown stage, without effect in their stage, or out of range.

    Args:
        stages: ``{stage: {key: value}}``.
        own: keys of a backbone of the user's own, which every stage may override.
        strict: True if unknown keys are refused.
    """
    for stage, overrides in stages.items():
        if stage not in STAGES:
            raise ValueError(f"finetune: {stage!r} must be one of {', '.join(STAGES)}")
        for name in overrides:
            key = KEYS.get(name)
            if name in own or (key is None and not strict):
                continue
            if key is None:
                raise ValueError(f"finetune: {stage}: unknown key {name!r}{meant(name)}")
            if stage not in key.stages:
                only = " and ".join(key.stages)
                where = f"only {only} can have it" if only else "it is the same for all stages"
                instead = "" if key.stages or key.belongs == RUN else f", or give {name} at the top level"
                raise ValueError(f"finetune: {stage}: {name} changes nothing there, {where}: leave it out{instead}")
        try:
            check_values(overrides)
        except ValueError as error:
            raise ValueError(f"finetune: {stage}: {error}") from None
