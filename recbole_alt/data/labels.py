"""Checks of labels: their keys go together, their values are 0 and 1, and every part of the split has both."""

from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from typing import Any

import numpy as np
import pandas as pd

#: Tells the place of a row of the interactions, as ``<file>, line <number>``.
Place = Callable[[int], str]

_COARSE = 1e-3  # of the span of all times: steps above it order too little


def check_label_keys(config: Any, columns: Mapping[str, str], file: Any) -> None:
    """Refuse keys about labels that contradict one another or the loaded ``columns`` of ``file``, the interactions."""
    label, threshold = config["LABEL_FIELD"], config["threshold"]
    distribution = config["train_neg_sample_args"]["distribution"]
    if threshold and label in columns and label not in threshold:
        raise ValueError(
            f"threshold: {threshold} would replace the label {label!r} that is loaded from {file}: leave threshold "
            f"out, or take {label!r} out of load_col"
        )
    if not threshold and label in columns and columns[label] != "float":
        raise ValueError(
            f"{file.head}: the label {label!r} is of type {columns[label]}: write {label}:float with values 0 and 1"
            ", or make it from a float column with threshold"
        )
    labelled = bool(threshold) or label in columns
    ignored = f"would be a click, whatever its label {label!r} says"
    if labelled and distribution != "none":
        raise ValueError(
            f"train_neg_sample_args: with distribution: {distribution} every row of {file} {ignored}: leave it out, or "
            "load no label and no threshold"
        )
    for part, mode in config["eval_args"]["mode"].items():
        if labelled and mode != "labeled":
            raise ValueError(
                f"eval_args: with mode: {mode} every row of the {part} part {ignored}: write mode: labeled, or load no "
                "label and no threshold"
            )
        if not labelled and mode == "labeled":
            raise ValueError(f"eval_args: mode: labeled needs a label, and {file} has none loaded: write mode: full")


def check_label_values(config: Any, rows: pd.DataFrame, place: Place) -> None:
    """Refuse interactions without a label of 0 or 1, or without a timestamp that orders them where it is to.

    ``rows`` are the interactions that filters left, before missing values are filled.
    """
    label, threshold, time = config["LABEL_FIELD"], config["threshold"], config["TIME_FIELD"]
    if threshold:
        (field,) = threshold
        check_filled(rows, field, place, "the threshold makes the label from it: fill it", "(-inf,inf)")
    elif label in rows:
        check_filled(rows, label, place, "it is the label: write 0 or 1", "[0,1]")
        values = rows[label].to_numpy()
        wrong = np.flatnonzero((values != 0) & (values != 1))
        if len(wrong):
            found = [f"{value:g}" for value in np.unique(values)]
            shown = ", ".join(found if len(found) <= 8 else [*found[:4], "…", *found[-4:]])
            raise ValueError(
                f"{place(wrong[0])}: the label {label!r} must be 0 or 1, and it is {values[wrong[0]]:g} ({len(wrong)} "
                f"of {len(values)} rows are neither; values found: {shown}): make clicks of it with threshold: "
                f"{{{label}: …}}"
            )
    if config["benchmark_filename"] is None and config["eval_args"]["order"] == "TO" and time in rows:
        check_filled(rows, time, place, "eval_args: order: TO goes by it: fill it", "(-inf,inf)")
        if not config["normalize_all"] and time not in (config["normalize_field"] or ()):  # which make it 0 to 1 first
            _check_steps(rows, time, place)


def _check_steps(rows: pd.DataFrame, time: str, place: Place) -> None:
    """Refuse different times that are one in 32 bits, in which RecBole sorts, if the steps there are coarse."""
    times = rows[time].to_numpy()
    farthest, span = int(np.abs(times).argmax()), float(times.max() - times.min())
    step = float(np.spacing(np.float32(abs(times[farthest]))))
    if step <= _COARSE * span:
        return
    distinct = np.unique(times)
    lost = len(distinct) - len(np.unique(distinct.astype(np.float32)))
    if lost:
        raise ValueError(
            f"{place(farthest)}: column {time!r} is {times[farthest]:.15g}, where eval_args: order: TO orders in steps "
            f"of {step:.15g}, as RecBole does in 32 bits, and all times span {span:.15g}: {lost} of {len(distinct)} "
            "different times would equal another: subtract the least of them, or give days or seconds "
            "since the first"
        )


def check_filled(rows: pd.DataFrame, field: str, place: Place, why: str, interval: str = "") -> None:
    """Refuse interactions without a value of ``field``, saying ``why``, and the ``val_interval`` that has no gaps."""
    empty = np.flatnonzero(rows[field].isna())
    if len(empty):
        count = f" (so in {len(empty)} rows)" if len(empty) > 1 else ""
        leave = f"leave such rows out with val_interval: {{{field}: {interval!r}}}" if interval else "take them out"
        raise ValueError(f"{place(empty[0])}: column {field!r} is empty{count}, and {why}, or {leave}")


def check_parts(config: Any, parts: Sequence[Any]) -> None:
    """Refuse training on fewer than two rows or only one label, and validation whose AUC is undefined if it chooses.

    ``parts`` are the datasets of training, validation and test; RecBole's ``config`` has the metric that chooses.
    """
    label, rows = config["LABEL_FIELD"], len(parts[0].inter_feat)
    if rows < 2:
        too_few = "1 training row is" if rows else "0 training rows are"
        raise ValueError(f"{too_few} too few: give more interactions, or another split (eval_args)")
    for name, part in zip(("training", "validation", "test"), parts, strict=False):
        count = len(part.inter_feat)
        values = part.inter_feat[label].unique().tolist() if label in part.inter_feat else []
        if len(values) != 1:
            continue
        said = f"{f'all {count} {name} labels are' if count > 1 else f'the only {name} label is'} {values[0]:g}"
        if name == "training":
            raise ValueError(f"{said}: training needs both 0 and 1; see LABEL_FIELD, threshold and eval_args")
        if name == "validation" and str(config["valid_metric"]).upper() == "AUC" and config["eval_step"] > 0:
            raise ValueError(
                f"{said}: their AUC, the valid_metric, is undefined; give more interactions, another split (eval_args)"
                ", or valid_metric: LogLoss"
            )
        getLogger().warning(f"{said}: their AUC is undefined and is left out")
