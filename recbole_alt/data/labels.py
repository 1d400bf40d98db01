"""What is a label: keys that go together, values that are 0 and 1, and both of them in every part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from typing import Any

import numpy as np
import pandas as pd

#: The place of a row of the interactions, as ``<file>, line <number>``.
Place = Callable[[int], str]


def check_label_keys(config: Any, columns: Mapping[str, str], file: str) -> None:
    """Refuse keys about labels and their order that contradict one another or the interactions.

    Args:
        config: RecBole's.
        columns: the loaded columns of the interactions: name → type.
        file: that they are loaded from.

    Raises:
        ValueError: names the key, the field and what to do.
    """
    label, threshold = config["LABEL_FIELD"], config["threshold"]
    distribution = config["train_neg_sample_args"]["distribution"]
    if threshold is not None:
        _check_threshold(threshold, label, columns, file)
    elif label in columns and columns[label] != "float":
        raise ValueError(
            f"{file}, line 1: the label {label!r} is of type {columns[label]}: write {label}:float with values 0 and 1"
            ", or make it from a float column with threshold"
        )
    labelled = threshold is not None or label in columns
    if not labelled and distribution == "none":
        raise ValueError(
            f"dataset {config['dataset']!r} has neither a field {label!r} (loaded with load_col) nor a "
            "threshold: set LABEL_FIELD to the column of clicks, or threshold: {rating: 4}"
        )
    if labelled and distribution != "none":
        raise ValueError(
            f"train_neg_sample_args: with distribution: {distribution} every row of {file} would be a click, whatever "
            f"its label {label!r} says: leave it out, or load no label and no threshold"
        )
    for part, mode in config["eval_args"]["mode"].items():
        if labelled and mode != "labeled":
            raise ValueError(
                f"eval_args: with mode: {mode} every row of the {part} part would be a click, whatever its label "
                f"{label!r} says: write mode: labeled, or load no label and no threshold"
            )
        if not labelled and mode == "labeled":
            raise ValueError(f"eval_args: mode: labeled needs a label, and {file} has none loaded: write mode: full")
    _check_time(config, columns, file)


def _check_threshold(threshold: Any, label: str, columns: Mapping[str, str], file: str) -> None:
    if not isinstance(threshold, Mapping) or len(threshold) != 1:
        raise ValueError(f"threshold must be one field and one number such as {{rating: 4}}, not {threshold!r}")
    ((field, least),) = threshold.items()
    if isinstance(least, bool) or not isinstance(least, (int, float)):
        raise ValueError(f"threshold must be a field and a number such as {{{field}: 4}}, not {threshold!r}")
    if field not in columns:
        raise ValueError(f"threshold: {file} has no loaded column {field!r}; it has {', '.join(columns)}")
    if columns[field] != "float":
        raise ValueError(
            f"threshold: column {field!r} of {file} is of type {columns[field]}: only a float column has a threshold; "
            f"write {field}:float in its first line"
        )
    if label in columns and label != field:
        raise ValueError(
            f"threshold: {{{field}: {least}}} would replace the label {label!r} that is loaded from {file}: leave "
            f"threshold out, or take {label!r} out of load_col"
        )


def _check_time(config: Any, columns: Mapping[str, str], file: str) -> None:
    uses = time_uses(config)
    time = config["TIME_FIELD"]
    if uses and columns.get(time) != "float" and (uses != "rm_dup_inter" or time in columns):
        found = f"of type {columns[time]}" if time in columns else "not loaded"
        raise ValueError(
            f"{uses} needs TIME_FIELD to be a float column of {file}; {time!r} is {found}: load it as {time}:float, or "
            "set TIME_FIELD"
        )


def time_uses(config: Any) -> str | None:
    """The key that makes the order of rows depend on their timestamps, if any."""
    if config["benchmark_filename"] is not None:
        return None
    if config["eval_args"]["order"] == "TO":
        return "eval_args: order: TO"
    if "TS" in (config["eval_args"]["split"] or {}):
        return "eval_args: split: TS"
    return "rm_dup_inter" if config["rm_dup_inter"] is not None else None


def check_label_values(config: Any, rows: pd.DataFrame, place: Place) -> None:
    """Refuse interactions without a label of 0 or 1, or without the timestamp that orders them.

    Args:
        config: RecBole's.
        rows: the interactions that filters left, with their gaps.
        place: of each.

    Raises:
        ValueError: names the first row's place, the field, how many rows, and what to do.
    """
    label, threshold, time = config["LABEL_FIELD"], config["threshold"], config["TIME_FIELD"]
    if threshold:
        (field,) = threshold
        check_filled(rows, field, place, f"and the threshold makes the label from it: fill it, or leave such rows out "
                      f"with val_interval: {{{field}: '(-inf,inf)'}}")  # fmt: skip
    elif label in rows:
        check_filled(rows, label, place, f"and it is the label: write 0 or 1, or leave such rows out with "
                      f"val_interval: {{{label}: '[0,1]'}}")  # fmt: skip
        _check_binary(rows, label, place)
    uses = time_uses(config)
    if uses and time in rows:
        check_filled(rows, time, place, f"and {uses} goes by it: fill it, or leave such rows out with "
                      f"val_interval: {{{time}: '(-inf,inf)'}}")  # fmt: skip


def check_filled(rows: pd.DataFrame, field: str, place: Place, what: str) -> None:
    """Refuse interactions without a value of ``field``; ``what`` ends the message."""
    empty = np.flatnonzero(rows[field].isna())
    if len(empty):
        count = f" (so in {len(empty)} rows)" if len(empty) > 1 else ""
        raise ValueError(f"{place(empty[0])}: column {field!r} is empty{count}, {what}")


def _check_binary(rows: pd.DataFrame, label: str, place: Place) -> None:
    values = rows[label].to_numpy()
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        found = [f"{value:g}" for value in np.unique(values)]
        shown = ", ".join(found if len(found) <= 8 else [*found[:4], "…", *found[-4:]])
        raise ValueError(
            f"{place(wrong[0])}: the label {label!r} must be 0 or 1, and it is {values[wrong[0]]:g} ({len(wrong)} of "
            f"{len(values)} rows are neither; values found: {shown}): make clicks of it with threshold: {{{label}: …}}"
        )


def check_parts(config: Any, parts: Sequence[Any]) -> None:
    """Refuse a training part that teaches nothing, and a validation part that chooses nothing.

    Args:
        config: RecBole's.
        parts: the split's datasets: training, validation, test.

    Raises:
        ValueError: fewer than two training rows; one label alone in training, or in validation by AUC.
    """
    names, label = ("training", "validation", "test"), config["LABEL_FIELD"]
    rows = len(parts[0].inter_feat)
    if rows < 2:
        raise ValueError(
            f"{rows} training row{'s are' if rows != 1 else ' is'} too few: give more interactions, or another split "
            "(eval_args)"
        )
    for name, part in zip(names, parts, strict=False):
        if label not in part.inter_feat or not len(part.inter_feat):
            continue
        values = part.inter_feat[label].unique()
        if len(values) > 1:
            continue
        count = len(part.inter_feat)
        said = f"all {count} {name} labels are" if count > 1 else f"the only {name} label is"
        said += f" {values[0]:g}"
        if name == "training":
            raise ValueError(f"{said}: training needs both 0 and 1; see LABEL_FIELD, threshold and eval_args")
        if name == "validation" and str(config["valid_metric"]).upper() == "AUC" and config["eval_step"] > 0:
            raise ValueError(
                f"{said}: their AUC, the valid_metric, is undefined; give more interactions, another split (eval_args)"
                ", or valid_metric: LogLoss"
            )
        getLogger().warning(f"{said}: their AUC is undefined and is left out")
