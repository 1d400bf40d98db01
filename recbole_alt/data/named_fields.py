"""Checks of the keys that name fields: the fields and files exist, and the values have their form.

RecBole ignores a wrong name or type, or fails far from the cause.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from recbole_alt.data.columns import OWNERS, Columns, Header, columns_of
from recbole_alt.data.naming import listed, lists_by_file, names_in
from recbole_alt.data.numbers import Interval, parse_intervals
from recbole_alt.kinds import is_number, whole

_NUMBERS = ("float", "float_seq")
_TOKENS = ("token", "token_seq")
_SEQUENCES = ("token_seq", "float_seq")
_ANY = (*_TOKENS, *_NUMBERS)
_COUNTS = ("user_inter_num_interval", "item_inter_num_interval")
_ALL: Interval = ("[", 0.0, math.inf, ")")
_AT_LEAST_ONE = whole(1)
#: Keys that name a column of the interactions, and RecBole's default for each.
_OPTIONAL = {"RATING_FIELD": "rating", "TIME_FIELD": "timestamp"}


def check_named_fields(config: Mapping[str, Any], headers: Mapping[str, Header]) -> Columns:
    """Refuse keys that name a field or a file that does not exist, or whose value has a wrong form.

    Args:
        config: a whole configuration.
        headers: see :func:`~recbole_alt.data.columns.columns_of`.

    Returns:
        The columns that are loaded.

    Raises:
        ValueError: one line that names the key, the value, the file with what it has, and what to do.
    """
    columns = columns_of(config, headers)
    label = _check_roles(config, columns)
    _check_order(config, columns)
    _check_filters(config, columns)
    _check_numbers(config, columns, label)
    ids = [config.get(key) for key in OWNERS.values()]
    for suffix, names in (lists_by_file(config, "unused_col", [*columns.loaded]) or {}).items():
        for name in names:
            columns.require(f"unused_col: {suffix}", name, _ANY, of=[suffix])
            if name in (*ids, label):
                raise ValueError(f"unused_col: {suffix} names {name!r}, an id or the label, which every run uses")
    for name, length in _mapping(config, "seq_len", "{genres: 5}").items():
        columns.require("seq_len", name, _SEQUENCES)
        _AT_LEAST_ONE.refuse(f"seq_len: {name}", length)
    _check_aliases(config, columns, ids)
    _check_weights(config, columns)
    return columns


def _mapping(config: Mapping[str, Any], key: str, example: str) -> Mapping[Any, Any]:
    """The value of a key such as ``example``, empty if the key is."""
    given = config.get(key)
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"{key} must be like {example}, not {given!r}")
    return given or {}


def _check_roles(config: Mapping[str, Any], columns: Columns) -> str:
    """Check the names of the label, the rating, the time and the threshold; returns the label's."""
    header = columns.headers["inter"]
    for key, usual in _OPTIONAL.items():
        if config.get(key) not in (None, usual):
            columns.require_in_file(key, config[key], "inter")
    label = config["LABEL_FIELD"]
    threshold = config.get("threshold")
    if threshold is not None:
        if not isinstance(threshold, Mapping) or len(threshold) != 1:
            raise ValueError(f"threshold must be {{field: number}}, such as {{rating: 4}}, not {threshold!r}")
        ((name, value),) = threshold.items()
        columns.require("threshold", name, ["float"], of=["inter"])
        if not (is_number(value) and math.isfinite(value)):
            raise ValueError(f"threshold: {name} must be a number, not {value!r}")
    elif label not in columns.loaded["inter"] and config["train_neg_sample_args"]["distribution"] == "none":
        mend = "set LABEL_FIELD to the column of clicks, or threshold: {rating: 4}"
        if label in header:
            raise ValueError(f"load_col: inter must hold {label!r} (LABEL_FIELD), or {mend}")
        raise ValueError(
            f"LABEL_FIELD: {columns.file('inter')} has no field {label!r}; it has {listed(header)}: {mend}"
        )
    return label


def _check_order(config: Mapping[str, Any], columns: Columns) -> None:
    """Check that the fields exist that ``eval_args`` needs; parts of ``benchmark_filename`` are not split again."""
    if config.get("benchmark_filename") is not None:
        return
    given = config["eval_args"]
    if given.get("order") == "TO":
        name = config.get("TIME_FIELD")
        if name is None:
            raise ValueError("eval_args: order: TO needs TIME_FIELD, which is empty: name the column of the time")
        columns.require("eval_args: order: TO needs a time: TIME_FIELD", name, ["float"], of=["inter"])
    split = given.get("split")
    by_user = {
        "group_by: user": given.get("group_by") == "user",
        "split: LS": isinstance(split, Mapping) and "LS" in split,
    }
    for part, needs in by_user.items():
        if needs and config.get("USER_ID_FIELD") is None:
            raise ValueError(f"eval_args: {part} needs USER_ID_FIELD, which is empty: write group_by: ~ and a split RS")


def _check_filters(config: Mapping[str, Any], columns: Columns) -> None:
    """Check the keys that leave out rows."""
    has_ids = config.get("USER_ID_FIELD") is not None
    for name, wanted in _mapping(config, "val_interval", '{rating: "[1,5]"}').items():
        text = any(name in names for names in columns.prompt_only.values())
        kind = "token" if text else columns.require("val_interval", name, ["float", "token"])
        if kind == "float":
            parse_intervals(wanted, f"val_interval: {name}")
        elif not isinstance(wanted, (list, tuple)) or not wanted or not all(isinstance(one, str) for one in wanted):
            raise ValueError(
                f"val_interval: {name} is a token field, so its value must be a list of texts such as ['a', '1995'], "
                f"not {wanted!r}; intervals are for float fields"
            )
    active = [key for key in ("val_interval", "rm_dup_inter") if config.get(key) is not None]
    for key in _COUNTS:
        if config.get(key) is not None:
            intervals = parse_intervals(config[key], key)
            if len(intervals) > 1 or intervals[0][1] < 0:
                raise ValueError(f'{key} must be one interval of 0 or more, such as "[5,inf)", not {config[key]!r}')
            if intervals != [_ALL]:
                active.append(key)
    duplicates = config.get("rm_dup_inter")
    for key in active:
        if key != "val_interval" and not has_ids:
            raise ValueError(f"{key} needs USER_ID_FIELD and ITEM_ID_FIELD, which are empty: leave it out")
        if config.get("benchmark_filename") is not None:
            raise ValueError(f"{key}: the parts of benchmark_filename are taken as they are: leave it out ({key}: ~)")
    time = config.get("TIME_FIELD")
    if duplicates is not None and time is not None and columns.loaded["inter"].get(time) != "float":
        raise ValueError(
            f"rm_dup_inter: {duplicates} needs a time: load TIME_FIELD {time!r} of type float from "
            f"{columns.file('inter')}, or write TIME_FIELD: ~ to go by the order of its lines"
        )


def _check_numbers(config: Mapping[str, Any], columns: Columns, label: str) -> None:
    """Check the keys that make features of numbers."""
    spent = [name for name in config.get("threshold") or {} if name != label]
    lists = {}
    for key in ("numerical_features", "normalize_field"):
        given = config.get(key, [])
        lists[key] = [] if given is None and key == "normalize_field" else names_in(given, key)
        for name in lists[key]:
            columns.require(key, name, _NUMBERS)
            if name in spent or (name == label and key == "numerical_features"):
                raise ValueError(f"{key} names {name!r}, which is the label or what threshold makes it from")
    if config.get("normalize_all") and config.get("normalize_field") is not None:
        raise ValueError("normalize_field and normalize_all: give one; normalize_all: false leaves normalize_field")
    for name, how in _mapping(config, "discretization", "{price: {method: ED, bucket: 10}}").items():
        columns.require("discretization", name, _NUMBERS)
        if name not in lists["numerical_features"]:
            raise ValueError(f"discretization names {name!r}, which numerical_features does not: add it there")
        _check_buckets(name, how)


def _check_buckets(name: str, how: Any) -> None:
    where = f"discretization: {name}"
    if not isinstance(how, Mapping) or how.get("method") not in ("ED", "LD"):
        raise ValueError(f"{where} must be {{method: ED, bucket: 10}} or {{method: LD}}, not {how!r}")
    known = ("method", "bucket") if how["method"] == "ED" else ("method",)
    for key in how:
        if key not in known:
            raise ValueError(f"{where}: {key!r} is no part of method {how['method']}: its parts are {', '.join(known)}")
    if how["method"] == "ED":
        _AT_LEAST_ONE.refuse(f"{where}: bucket", how.get("bucket"))


def _check_aliases(config: Mapping[str, Any], columns: Columns, ids: list[str | None]) -> None:
    owner: dict[str, str] = {}
    for key in sorted(key for key in config if str(key).startswith("alias_of_")):
        given = config[key]
        if given is None:
            continue
        if isinstance(given, tuple):  # RecBole adds it to a list
            raise ValueError(f"{key} must be a list such as [{', '.join(map(str, given))}], not {given!r}")
        names = names_in(given, key)
        of = key.removeprefix("alias_of_")
        if of in ("user_id", "item_id") and names and config.get(f"{of.upper()}_FIELD") is None:
            raise ValueError(f"{key} needs {of.upper()}_FIELD, which is empty: leave it out")
        for name in names:
            columns.require(key, name, _TOKENS)
            if name in ids:
                raise ValueError(f"{key} names {name!r}, which is an id itself: name fields that hold its values")
            if name in owner:
                raise ValueError(f"{key} names {name!r}, which {owner[name]} names, too: leave it to one of them")
            owner[name] = key


def _check_weights(config: Mapping[str, Any], columns: Columns) -> None:
    further = [suffix for suffix in columns.loaded if suffix not in ("inter", *OWNERS)]
    for name, weight in _mapping(config, "preload_weight", "{entity_id: vector}").items():
        if not further:
            raise ValueError(
                f"preload_weight names {name!r}, but additional_feat_suffix names no file that could hold it"
            )
        columns.require("preload_weight", name, ["token"], of=further)
        home = next(suffix for suffix in further if name in columns.loaded[suffix])
        if not isinstance(weight, str):
            raise ValueError(
                f"preload_weight: {name} must be the name of a field of {columns.file(home)}, not {weight!r}"
            )
        columns.require(f"preload_weight: {name}", weight, _NUMBERS, of=[home])
