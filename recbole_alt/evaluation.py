"""Checks of splits, modes, metrics and negative sampling, made before data are read.

RecBole merges ``eval_args`` with its own defaults and finds out only during evaluation that a metric needs ranked items
or labelled rows (``recbole/config/configurator.py``, ``recbole/evaluator/register.py``).
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from recbole.evaluator.register import metric_types, metrics_dict
from recbole.utils import EvaluatorType

from recbole_alt.aliases import ALIASES
from recbole_alt.kinds import FLAG, Kind, choice, did_you_mean, either, is_number, is_whole, number, whole

_EVAL_ARGS = "{split: {RS: [0.8, 0.1, 0.1]}, order: RO, group_by: ~, mode: labeled}"
_DEFAULTS = {"split": "{RS: [0.8, 0.1, 0.1]}", "order": "RO", "group_by": "user"}  # RecBole's
_MODE = re.compile(r"labeled|full|(uni|pop)[1-9][0-9]*")
_DISTRIBUTIONS = ("uniform", "popularity", "none", "None")
_SAMPLING = {
    "distribution": Kind("one of uniform, popularity, none", lambda value: value in _DISTRIBUTIONS),
    "sample_num": either(whole(1), "none"),
    "alpha": either(number(least=0), "none"),
    "dynamic": FLAG,
    "candidate_num": whole(0),
}


def check_evaluation(values: Mapping[str, Any]) -> list[str]:
    """Check ``eval_args``, ``metrics``, ``topk``, ``valid_metric`` and ``train_neg_sample_args``.

    Args:
        values: a configuration before RecBole completes it.

    Returns:
        Notes for the log: what RecBole fills in for parts of ``eval_args`` that are not given.

    Raises:
        ValueError: an unknown part, a value outside its set, or metrics and modes that do not go together.
    """
    notes = _check_eval_args(values["eval_args"])
    _check_sampling(values.get("train_neg_sample_args"))
    metrics, topk = _listed(values["metrics"]), _listed(values.get("topk"))
    kind = _check_metrics(metrics)
    if not topk or not all(is_whole(k) and k >= 1 for k in topk):
        raise ValueError(f"topk must be a whole number, 1 or more, or a list of these, not {values.get('topk')!r}")
    _check_valid_metric(values["valid_metric"], metrics, kind, topk)
    for part, mode in modes(values["eval_args"]).items():
        if kind == EvaluatorType.RANKING and mode == "labeled":
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


def check_direction(metric: str, bigger: bool | None) -> None:
    """Refuse a ``valid_metric_bigger``, if one is given, against the metric's own direction, which RecBole follows."""
    own = not metrics_dict[metric.partition("@")[0].lower()].smaller
    if bigger is not None and bigger != own:
        better = "more" if own else "less"
        raise ValueError(f"valid_metric_bigger: {bigger!r} is not read, as {better} {metric} is better: leave it out")


def modes(eval_args: Mapping[str, Any]) -> dict[str, str]:
    """``eval_args: mode`` of validation and test, as RecBole reads it."""
    mode = eval_args.get("mode", "full")
    if isinstance(mode, Mapping):
        either_part = mode.get("valid", mode.get("test", "full"))
        return {part: mode.get(part, either_part) for part in ("valid", "test")}
    return {"valid": mode, "test": mode}


def _listed(given: Any) -> Sequence[Any]:
    return given if isinstance(given, (list, tuple)) else [given]


def _check_parts(key: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for part in given:
        if part not in known:
            hint = did_you_mean(part, known, f": known are {', '.join(known)}")
            raise ValueError(f"{key}: unknown part {part!r}{hint}")


def _check_eval_args(given: Any) -> list[str]:
    if not isinstance(given, Mapping):
        raise ValueError(f"eval_args must be like {_EVAL_ARGS}, not {given!r}")
    _check_parts("eval_args", given, ("split", "order", "group_by", "mode"))
    if "mode" not in given:
        would = "RecBole would take mode: full, which ranks all items"
        raise ValueError(f"eval_args lacks mode, and {would}: write eval_args: {_EVAL_ARGS}")
    mode = given["mode"]
    if isinstance(mode, Mapping) and (not mode or set(mode) - {"valid", "test"}):
        raise ValueError(f"eval_args: mode must be like {{valid: labeled, test: labeled}}, not {mode!r}")
    for name, one in modes(given).items():
        if not isinstance(one, str) or not _MODE.fullmatch(one):
            raise ValueError(f"eval_args: mode ({name}) must be one of labeled, full, uniN, popN, not {one!r}")
    if "split" in given:
        _check_split(given["split"])
    order, group_by = given.get("order", "RO"), given.get("group_by")
    if order not in ("RO", "TO"):
        raise ValueError(f"eval_args: order must be one of RO (random), TO (by time), not {order!r}")
    if group_by not in (None, "none", "None", "user"):
        raise ValueError(f"eval_args: group_by must be user or empty (~), not {group_by!r}")
    shares = (given.get("split") or {}).get("RS")
    notes = ["eval_args: split leaves no test rows: no model is scored on any"] if shares and not shares[2] else []
    filled = {part: value for part, value in _DEFAULTS.items() if part not in given}
    return notes + [f"eval_args gives no {part}: RecBole takes {part}: {value}" for part, value in filled.items()]


def _check_split(split: Any) -> None:
    example = _DEFAULTS["split"]
    if not isinstance(split, Mapping) or len(split) != 1:
        raise ValueError(f"eval_args: split must be like {example}, not {split!r}")
    ((name, value),) = split.items()
    if name == "LS":
        choice("valid_and_test", "valid_only", "test_only").refuse("eval_args: split: LS", value)
        return
    if name != "RS":
        raise ValueError(f"eval_args: split: {name!r} must be one of RS (by ratio), LS (leave one out): {example}")
    shares = value if isinstance(value, (list, tuple)) else []
    if len(shares) != 3 or not all(is_number(one) and 0 <= one < float("inf") for one in shares):
        says = f"three shares, of training, validation and test ({example}; 0 for no validation)"
        raise ValueError(f"eval_args: split: RS must be {says}, not {value!r}")
    if shares[0] <= 0:
        raise ValueError(f"eval_args: split: RS {value!r} leaves nothing to train on")


def _check_sampling(given: Any) -> None:
    if given in (None, "None"):
        return
    if not isinstance(given, Mapping):
        example = "{distribution: uniform, sample_num: 1}"
        raise ValueError(f"train_neg_sample_args must be like {example} or empty, not {given!r}")
    _check_parts("train_neg_sample_args", given, tuple(_SAMPLING))
    for part, value in given.items():
        _SAMPLING[part].refuse(f"train_neg_sample_args: {part}", value, empty=part == "distribution")


def _check_metrics(names: Sequence[Any]) -> EvaluatorType:
    """The kind that all metrics are of."""
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"metrics must be a list such as [AUC, LogLoss], not {names!r}")
    for name in names:
        if name.lower() not in metric_types:
            raise ValueError(f"metrics: {name!r} is no metric of RecBole{_near_metric(name)}")
    if len({name.lower() for name in names}) < len(names):
        raise ValueError(f"metrics: {list(names)!r} names a metric twice")
    kinds = {metric_types[name.lower()] for name in names}
    if len(kinds) > 1:
        ranking = ", ".join(name for name in names if metric_types[name.lower()] == EvaluatorType.RANKING)
        raise ValueError(
            f"metrics: {ranking} rank items, the others of {list(names)!r} score given rows: choose one kind"
        )
    return kinds.pop()


def _check_valid_metric(given: Any, metrics: Sequence[str], kind: EvaluatorType, topk: Sequence[int]) -> None:
    name, at, k = given.partition("@") if isinstance(given, str) else ("", "", "")
    if name.lower() not in metric_types:
        raise ValueError(f"valid_metric: {given!r} is no metric of RecBole{_near_metric(name)}")
    always = ("auc", "logloss") if kind == EvaluatorType.VALUE else ()
    if name.lower() not in (*map(str.lower, metrics), *always):
        raise ValueError(f"valid_metric: {given!r} is not among metrics {list(metrics)!r}: add {name} to metrics")
    depths = [str(one) for one in topk]
    if kind == EvaluatorType.RANKING and name.lower() != "gauc" and k not in depths:
        raise ValueError(f"valid_metric: {given!r} needs a depth of topk {depths}: write {name}@{depths[0]}")
    if kind == EvaluatorType.VALUE and at:
        raise ValueError(f"valid_metric: {given!r} has a depth, which {name} has not: write {name}")


def _near_metric(name: str) -> str:
    known = {one.lower(): cls.__name__ for one, cls in metrics_dict.items()}
    near = difflib.get_close_matches(name.lower(), known, n=1)
    if near:
        return f": did you mean {known[near[0]]!r}?"
    write = f" (write {ALIASES[name]})" if name in ALIASES else ""
    return f": choose from {', '.join(sorted(known[m] for m in metric_types))}{write}"
