"""Which splits, modes and metrics go together, checked before data are read.

RecBole merges ``eval_args`` with its own defaults and finds out during evaluation that a metric needs ranked items or
labelled rows (``recbole/config/configurator.py``, ``recbole/evaluator/register.py``); here it is one line at the start.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from recbole.evaluator.register import metric_types, metrics_dict
from recbole.utils import EvaluatorType

from recbole_alt.keys import ALIASES
from recbole_alt.kinds import is_number, is_whole

_PARTS = ("split", "order", "group_by", "mode")
_LEAVE_ONE_OUT = ("valid_and_test", "valid_only", "test_only")
_MODE = re.compile(r"labeled|full|(uni|pop)[1-9][0-9]*")
_SAMPLING = ("distribution", "sample_num", "alpha", "dynamic", "candidate_num")
_LABELED = "labeled"


def check_evaluation(values: Mapping[str, Any]) -> list[str]:
    """Refuse an ``eval_args``, ``metrics``, ``valid_metric`` or ``train_neg_sample_args`` that can't be meant.

    Args:
        values: a configuration before RecBole completes it.

    Returns:
        what RecBole fills in for parts of ``eval_args`` that are not given, to be said in the log.

    Raises:
        ValueError: an unknown part, a value outside its set, or metrics and modes that do not go together.
    """
    notes = _check_eval_args(values["eval_args"])
    _check_sampling(values.get("train_neg_sample_args"))
    kind = _check_metrics(values["metrics"])
    _check_topk(values.get("topk"))
    _check_valid_metric(values, kind)
    for part, mode in modes(values["eval_args"]).items():
        if kind == EvaluatorType.RANKING and mode == _LABELED:
            raise ValueError(
                f"metrics {values['metrics']} rank items, and eval_args: mode: labeled ({part}) scores given rows: use "
                "AUC and LogLoss, or mode: full, uniN or popN on data without labels"
            )
        if kind == EvaluatorType.VALUE and mode == "full":
            raise ValueError(
                f"eval_args: mode: full ({part}) ranks all items, and metrics {values['metrics']} score given rows: "
                "write mode: labeled, or metrics such as [Recall, NDCG]"
            )
    return notes


def modes(eval_args: Mapping[str, Any]) -> dict[str, str]:
    """``eval_args: mode`` of validation and test, as RecBole reads it."""
    mode = eval_args.get("mode", "full")
    if isinstance(mode, Mapping):
        either = mode.get("valid", mode.get("test", "full"))
        return {part: mode.get(part, either) for part in ("valid", "test")}
    return {"valid": mode, "test": mode}


def _check_eval_args(given: Any) -> list[str]:
    example = "{split: {RS: [0.8, 0.1, 0.1]}, order: RO, group_by: ~, mode: labeled}"
    if not isinstance(given, Mapping):
        raise ValueError(f"eval_args must be like {example}, not {given!r}")
    for part in given:
        if part not in _PARTS:
            near = difflib.get_close_matches(str(part), _PARTS, n=1)
            raise ValueError(
                f"eval_args: unknown part {part!r}: "
                + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_PARTS)}")
            )
    if "mode" not in given:
        raise ValueError(
            f"eval_args lacks mode, and RecBole would take mode: full, which ranks all items: write "
            f"eval_args: {example}"
        )
    mode = given["mode"]
    if isinstance(mode, Mapping) and (not mode or set(mode) - {"valid", "test"}):
        raise ValueError(f"eval_args: mode must be like {{valid: labeled, test: labeled}}, not {mode!r}")
    for name, one in modes(given).items():
        if not isinstance(one, str) or not _MODE.fullmatch(one):
            raise ValueError(f"eval_args: mode ({name}) must be one of labeled, full, uniN, popN, not {one!r}")
    if "split" in given:
        _check_split(given["split"])
    order = given.get("order", "RO")
    if order not in ("RO", "TO"):
        raise ValueError(f"eval_args: order must be RO (random) or TO (by time), not {order!r}")
    group_by = given.get("group_by")
    if group_by not in (None, "none", "None", "user"):
        raise ValueError(f"eval_args: group_by must be user or empty (~), not {group_by!r}")
    shares = (given.get("split") or {}).get("RS")
    unscored = ["eval_args: split leaves no test rows: no model is scored on any"] if shares and not shares[2] else []
    defaults = {"split": "{RS: [0.8, 0.1, 0.1]}", "order": "RO", "group_by": "user"}
    return unscored + [
        f"eval_args gives no {part}: RecBole takes {part}: {value}"
        for part, value in defaults.items()
        if part not in given
    ]


def _check_split(split: Any) -> None:
    example = "{RS: [0.8, 0.1, 0.1]}"
    if not isinstance(split, Mapping) or len(split) != 1:
        raise ValueError(f"eval_args: split must be like {example}, not {split!r}")
    ((name, value),) = split.items()
    if name == "LS":
        if value not in _LEAVE_ONE_OUT:
            raise ValueError(f"eval_args: split: LS must be one of {', '.join(_LEAVE_ONE_OUT)}, not {value!r}")
        return
    if name != "RS":
        raise ValueError(f"eval_args: split: {name!r} must be RS (by ratio) or LS (leave one out): {example}")
    shares = value if isinstance(value, (list, tuple)) else []
    if len(shares) != 3 or not all(is_number(one) and 0 <= one < float("inf") for one in shares):
        raise ValueError(
            f"eval_args: split: RS must be three shares, of training, validation and test ({example}; 0 for no "
            f"validation), not {value!r}"
        )
    if shares[0] <= 0 or sum(shares) <= 0:
        raise ValueError(f"eval_args: split: RS {value!r} leaves nothing to train on")


def _check_sampling(given: Any) -> None:
    if given in (None, "None"):
        return
    if not isinstance(given, Mapping):
        raise ValueError(
            f"train_neg_sample_args must be like {{distribution: uniform, sample_num: 1}} or empty, not {given!r}"
        )
    for part, value in given.items():
        if part not in _SAMPLING:
            near = difflib.get_close_matches(str(part), _SAMPLING, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_SAMPLING)}"
            raise ValueError(f"train_neg_sample_args: unknown part {part!r}: {hint}")
        fine = {
            "distribution": value in (None, "none", "None", "uniform", "popularity"),
            "sample_num": value == "none" or (is_whole(value) and value >= 1),
            "alpha": value == "none" or (is_number(value) and value >= 0),
            "dynamic": isinstance(value, bool),
            "candidate_num": is_whole(value) and value >= 0,
        }
        if not fine[part]:
            says = {
                "distribution": "uniform, popularity or none",
                "sample_num": "a whole number, 1 or more",
                "alpha": "a number, 0 or more",
                "dynamic": "true or false",
                "candidate_num": "a whole number, 0 or more",
            }
            raise ValueError(f"train_neg_sample_args: {part} must be {says[part]}, not {value!r}")


def _check_metrics(given: Any) -> EvaluatorType:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"metrics must be a list such as [AUC, LogLoss], not {given!r}")
    for name in names:
        if name.lower() not in metric_types:
            raise ValueError(f"metrics: {name!r} is no metric of RecBole{_near_metric(name)}")
    if len({name.lower() for name in names}) < len(names):
        raise ValueError(f"metrics: {list(names)!r} names a metric twice")
    kinds = {metric_types[name.lower()] for name in names}
    if len(kinds) > 1:
        ranking = [name for name in names if metric_types[name.lower()] == EvaluatorType.RANKING]
        raise ValueError(
            f"metrics: {', '.join(ranking)} rank items and the others of {list(names)!r} score given rows: "
            "choose one kind"
        )
    return kinds.pop()


def _check_topk(topk: Any) -> None:
    depths = topk if isinstance(topk, (list, tuple)) else [topk]
    if not depths or not all(is_whole(k) and k >= 1 for k in depths):
        raise ValueError(f"topk must be a whole number, 1 or more, or a list of these, not {topk!r}")


def _check_valid_metric(values: Mapping[str, Any], kind: EvaluatorType) -> None:
    given = values["valid_metric"]
    name, at, k = given.partition("@") if isinstance(given, str) else ("", "", "")
    metrics = [values["metrics"]] if isinstance(values["metrics"], str) else list(values["metrics"])
    if name.lower() not in metric_types:
        raise ValueError(f"valid_metric: {given!r} is no metric of RecBole{_near_metric(name)}")
    always = ("auc", "logloss") if kind == EvaluatorType.VALUE else ()
    if name.lower() not in {one.lower() for one in metrics} | set(always):
        raise ValueError(f"valid_metric: {given!r} is not among metrics {metrics!r}: add {name} to metrics")
    topk = values.get("topk")
    depths = [str(one) for one in (topk if isinstance(topk, (list, tuple)) else [topk])]
    if kind == EvaluatorType.RANKING and name.lower() != "gauc" and k not in depths:
        raise ValueError(f"valid_metric: {given!r} needs a depth of topk {depths}: write {name}@{depths[0]}")
    if kind == EvaluatorType.VALUE and at:
        raise ValueError(f"valid_metric: {given!r} has a depth, which {name} has not: write {name}")


def _near_metric(name: str) -> str:
    known = {one.lower(): cls.__name__ for one, cls in metrics_dict.items()}
    near = difflib.get_close_matches(name.lower(), known, n=1)
    right = f": did you mean {known[near[0]]!r}?" if near else ""
    return right or f": choose from {', '.join(sorted(known[m] for m in metric_types))}" + (
        f" (write {ALIASES[name]})" if name in ALIASES else ""
    )
