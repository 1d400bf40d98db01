"""Keys that name fields: every field and file they name exists, and every value has its form.

RecBole takes a wrong name for nothing asked, a wrong type for nothing to do, or fails far from the cause; here each is
one line before anything is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from recbole_alt.data.columns import Columns, Header, columns_of
from recbole_alt.data.intervals import Interval, parse_intervals
from recbole_alt.data.naming import field_name, listed, lists_by_file, meant, names_in
from recbole_alt.kinds import is_number, is_whole

_NUMBERS = ("float", "float_seq")
_TOKENS = ("token", "token_seq")
_SEQUENCES = ("token_seq", "float_seq")
_ANY = (*_TOKENS, *_NUMBERS)
_COUNTS = ("user_inter_num_interval", "item_inter_num_interval")
_ALL = Interval(0.0, math.inf, True, False)
#: Keys that name a column of the interactions, and the name RecBole gives each.
_OPTIONAL = {"RATING_FIELD": "rating", "TIME_FIELD": "timestamp"}


def check_named_fields(config: Mapping[str, Any], headers: Mapping[str, Header]) -> None:
    """Refuse a key that names a field or a file there is not, or whose value has not its form.

    Args:
        config: a whole configuration.
        headers: suffix of each atomic file there is (user, item, inter, those of ``additional_feat_suffix``) →
            {column: type}, types being those of RecBole; "inter" is the first part of ``benchmark_filename``.

    Raises:
        ValueError: one line that names the key, the value, the file with what it has, and what to do.
    """
    columns = columns_of(config, headers)
    label = _check_roles(config, columns)
    _check_order(config, columns)
    _check_filters(config, columns)
    _check_numbers(config, columns, label)
    ids = [field_name(config, key) for key in ("USER_ID_FIELD", "ITEM_ID_FIELD")]
    for suffix, names in (lists_by_file(config, "unused_col", [*columns.loaded]) or {}).items():
        for name in names:
            columns.require(f"unused_col: {suffix}", name, _ANY, of=[suffix])
            if name in (*ids, label):
                raise ValueError(f"unused_col: {suffix} names {name!r}, an id or the label, which every run uses")
    for name, length in _mapping(config, "seq_len", "{genres: 5}").items():
        columns.require("seq_len", name, _SEQUENCES)
        if not (is_whole(length) and length >= 1):
            raise ValueError(f"seq_len: {name} must be a whole number, 1 or more, not {length!r}")
    _check_aliases(config, columns, ids)
    _check_weights(config, columns)


def _mapping(config: Mapping[str, Any], key: str, example: str) -> Mapping[Any, Any]:
    """A value ``{field: …}``; empty where the key is."""
    given = config.get(key)
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"{key} must be like {example}, not {given!r}")
    return given or {}


def _check_roles(config: Mapping[str, Any], columns: Columns) -> str:
    """The label's name; what names the label, the rating, the time and the threshold is there."""
    header = columns.headers["inter"]
    for key, usual in _OPTIONAL.items():
        name = field_name(config, key)
        if name not in (None, usual, *header):
            raise ValueError(
                f"{columns.file('inter')} has no field {name!r} ({key}); it has {listed(header)}{meant(name, header)}"
            )
    label = field_name(config, "LABEL_FIELD")
    if label is None:
        raise ValueError("LABEL_FIELD must name the field of clicks, or the one that threshold makes")
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
            f"{columns.file('inter')} has no field {label!r} (LABEL_FIELD); it has {listed(header)}: {mend}"
        )
    return label


def _check_order(config: Mapping[str, Any], columns: Columns) -> None:
    """``eval_args`` has the fields it needs; parts of ``benchmark_filename`` are not split again."""
    given = config["eval_args"]
    if config.get("benchmark_filename") is not None:
        return
    if given.get("order") == "TO":
        name = field_name(config, "TIME_FIELD")
        if name is None:
            raise ValueError("eval_args: order: TO needs TIME_FIELD, which is empty: name the column of the time")
        columns.require("eval_args: order: TO needs a time: TIME_FIELD", name, ["float"], of=["inter"])
    split = given.get("split")
    by_user = {
        "group_by: user": given.get("group_by") == "user",
        "split: LS": isinstance(split, Mapping) and "LS" in split,
    }
    for part, needs in by_user.items():
        if needs and field_name(config, "USER_ID_FIELD") is None:
            raise ValueError(f"eval_args: {part} needs USER_ID_FIELD, which is empty: write group_by: ~ and a split RS")


def _check_filters(config: Mapping[str, Any], columns: Columns) -> None:
    """Which rows stay."""
    has_ids = field_name(config, "USER_ID_FIELD") is not None
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
            if len(intervals) > 1 or intervals[0].lower < 0:
                raise ValueError(f'{key} must be one interval of 0 or more, such as "[5,inf)", not {config[key]!r}')
            if intervals != [_ALL]:
                active.append(key)
    duplicates = config.get("rm_dup_inter")
    if duplicates not in (None, "first", "last"):
        raise ValueError(f"rm_dup_inter must be one of first, last, or empty, not {duplicates!r}")
    for key in active:
        if key != "val_interval" and not has_ids:
            raise ValueError(f"{key} needs USER_ID_FIELD and ITEM_ID_FIELD, which are empty: leave it out")
        if config.get("benchmark_filename") is not None:
            raise ValueError(f"{key}: the parts of benchmark_filename are taken as they are: leave it out ({key}: ~)")
    time = field_name(config, "TIME_FIELD")
    if duplicates is not None and time is not None and columns.loaded["inter"].get(time) != "float":
        raise ValueError(
            f"rm_dup_inter: {duplicates} needs a time: load TIME_FIELD {time!r} of type float from "
            f"{columns.file('inter')}, or write TIME_FIELD: ~ to go by the order of its lines"
        )
    if not isinstance(config.get("filter_inter_by_user_or_item", True), bool):
        raise ValueError(
            f"filter_inter_by_user_or_item must be true or false, not {config['filter_inter_by_user_or_item']!r}"
        )


def _check_numbers(config: Mapping[str, Any], columns: Columns, label: str) -> None:
    """What becomes of numbers."""
    spent = [name for name in config.get("threshold") or {} if name != label]
    lists = {}
    for key in ("numerical_features", "normalize_field"):
        given = config.get(key, [])
        lists[key] = [] if given is None and key == "normalize_field" else names_in(given, key)
        for name in lists[key]:
            columns.require(key, name, _NUMBERS)
            if name in spent or (name == label and key == "numerical_features"):
                raise ValueError(f"{key} names {name!r}, which is the label or what threshold makes it from")
    normalize_all = config.get("normalize_all")
    if normalize_all is not None and not isinstance(normalize_all, bool):
        raise ValueError(f"normalize_all must be true, false or empty, not {normalize_all!r}")
    if normalize_all and config.get("normalize_field") is not None:
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
            raise ValueError(f"{where}: {key!r} is no part of method {how['method']}: known are {', '.join(known)}")
    bucket = how.get("bucket")
    if how["method"] == "ED" and not (is_whole(bucket) and bucket >= 1):
        raise ValueError(f"{where}: bucket must be a whole number, 1 or more, not {bucket!r}")


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
        if of in ("user_id", "item_id") and names and field_name(config, f"{of.upper()}_FIELD") is None:
            raise ValueError(f"{key} needs {of.upper()}_FIELD, which is empty: leave it out")
        for name in names:
            columns.require(key, name, _TOKENS)
            if name in ids:
                raise ValueError(f"{key} names {name!r}, which is an id itself: name fields that hold its values")
            if name in owner:
                raise ValueError(f"{key} names {name!r}, which {owner[name]} names, too: leave it to one of them")
            owner[name] = key


def _check_weights(config: Mapping[str, Any], columns: Columns) -> None:
    further = [suffix for suffix in columns.loaded if suffix not in ("inter", "user", "item")]
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
