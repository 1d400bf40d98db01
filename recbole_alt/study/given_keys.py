"""Keys that a campaign is given, by its own ``keys``, its variants, the files of its datasets and its ranges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from recbole_alt.keys import KEYS, check_values
from recbole_alt.study.axes import DataSpec
from recbole_alt.study.ranges import Range

#: Keys that a campaign sets itself, and the axis that says how.
OWN_KEYS = {
    "model": "models",
    "dataset": "datasets",
    "seed": "seeds",
    "train_share": "train_shares",
    "finetune_modes": "modes",
    "finetune_mode": "modes",
    "language_model": "language_models",
    "plain_baseline": None,
    "resume": None,
    "result_file": None,
    "pretrained_checkpoint": None,
}

#: Of these, what the file of a dataset may say for single runs.
OF_SINGLE_RUNS = ("model", "seed", "finetune_modes", "plain_baseline")


def tuned_names(name: str) -> list[str]:
    """The keys that ``name`` stands for when it is tuned: ``dropout_prob`` for those of all models."""
    return [key for key in KEYS if "drop" in key] if name == "dropout_prob" else [name]


def refuse_own(where: str, given: Mapping[str, Any], own: Collection[str]) -> None:
    """Refuse keys among ``own``, which the campaign sets itself; the error begins with ``where``."""
    for key in filter(own.__contains__, given):
        instead = f", and give {axis}" if (axis := OWN_KEYS[key]) else ""
        raise ValueError(f"{where}{key} is what the campaign itself sets; leave it out{instead}")
    if given.get("split_seed", 0) is None:
        raise ValueError(f"{where}split_seed: paired runs share one split; give a number, or leave it out")


def passed_over(where: str, given: Mapping[str, Any], split: str | None) -> list[str]:
    """What to say of keys that the file of a dataset gives for single runs, or that ``split`` replaces."""
    said = [f"{where}{key} is for single runs, and not read here" for key in OF_SINGLE_RUNS if key in given]
    if split and "eval_args" in given:
        said.append(f"{where}eval_args is replaced by the split {split}")
    return said


def refuse_without_effect(where: str, given: Mapping[str, Any], datasets: Sequence[DataSpec]) -> None:
    """Refuse keys that would change nothing: other files, and an evaluation that a dataset's split replaces."""
    if "config_files" in given:
        file = f"{datasets[0].name}:{given['config_files']}"
        raise ValueError(f"{where}config_files is not read here: give the file with the dataset: --datasets={file}")
    split = next((data for data in datasets if data.split), None)
    if split and "eval_args" in given:
        raise ValueError(f"{where}eval_args would be replaced by the split of datasets: {split}; leave one")


def refuse_tuned(where: str, given: Mapping[str, Any], ranges: Sequence[Range]) -> None:
    """Refuse keys that ``ranges`` tune, also under ``finetune``: the value chosen would win."""
    stages = given.get("finetune")
    named = [(key, key) for key in given]
    for stage, keys in stages.items() if isinstance(stages, Mapping) else ():
        named += [(key, f"finetune: {stage}: {key}") for key in (keys if isinstance(keys, Mapping) else ())]
    for key, said in named:
        if tuned := next((one for one in ranges if key in tuned_names(one.name)), None):
            by = "" if key == tuned.name else f" by {tuned.name}"
            raise ValueError(f"{where}{said} is tuned{by}, and given; leave one, or name other ranges in params_file")


def check_tuned(ranges: Sequence[Range]) -> None:
    """Refuse ranges of keys that are not of finetuning, of values out of range, and of one dropout under two names.

    Raises:
        ValueError: Begins with the file and the line.
    """
    for one in ranges:
        if one.name not in KEYS or not KEYS[one.name].stages:
            raise ValueError(
                f"{one.where}: {one.name} is no key of finetuning; only such keys are tuned, so that all modes "
                "share one alignment"
            )
        if by := next((other for other in ranges if other is not one and one.name in tuned_names(other.name)), None):
            raise ValueError(f"{one.where}: {one.name} is tuned by {by.name}, too ({by.where}); leave one")
        try:
            for value in one.samples:
                check_values({one.name: value})
        except ValueError as error:
            raise ValueError(f"{one.where}: {error}") from None
