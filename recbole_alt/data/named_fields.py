"""Checks of the keys that name fields: the fields and files exist, and the values have their form.

RecBole ignores a wrong name or type, or fails far from the cause.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from recbole_alt.data.columns import OWNERS, Columns, Header, listed, lists_by_file, names_in
from recbole_alt.data.numbers import parse_intervals
from recbole_alt.kinds import number, whole

_NUMBERS = ("float", "float_seq")
_TOKENS = ("token", "token_seq")


def check_named_fields(
    config: Mapping[str, Any], headers: Mapping[str, Header], files: Mapping[str, str] | None = None
) -> Columns:
    """The columns that a whole configuration loads; ``headers`` and ``files`` are those of :class:`Columns`.

    Raises:
        ValueError: a key names a field or a file that does not exist, or its value has a wrong form: one line that
            names the key, the value, the file with what it has, and what to do.
    """
    columns = Columns(config, headers, files)
    label = config["LABEL_FIELD"]
    ids = [config.get(key) for key in OWNERS.values()]
    _check_roles(config, columns, label)
    _check_order(config, columns)
    _check_filters(config, columns)
    _check_numbers(config, columns, label)
    for suffix, names in (lists_by_file(config, "unused_col", [*columns.loaded]) or {}).items():
        for name in names:
            columns.require(f"unused_col: {suffix}", name, (*_TOKENS, *_NUMBERS), of=[suffix])
            if name in (*ids, label):
                raise ValueError(f"unused_col: {suffix} names {name!r}, an id or the label, which every run uses")
    for name, length in _by_field(config, columns, "seq_len", "{genres: 5}", ("token_seq", "float_seq")).items():
        whole(1).refuse(f"seq_len: {name}", length)
    _check_aliases(config, columns, ids)
    _check_weights(config, columns)
    return columns


def _by_field(
    config: Mapping[str, Any], columns: Columns, key: str, example: str, kinds: Collection[str] = ()
) -> Mapping[Any, Any]:
    """The value of a key such as ``example``, empty if the key is; its fields must be of ``kinds``, if given."""
    given = config.get(key)
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"{key} must be like {example}, not {given!r}")
    for name in given or {}:
        if kinds:
            columns.require(key, name, kinds)
    return given or {}


def _check_roles(config: Mapping[str, Any], columns: Columns, label: str) -> None:
    """Check the names of the label, the rating, the time and the threshold."""
    for key, usual in (("RATING_FIELD", "rating"), ("TIME_FIELD", "timestamp")):  # RecBole's defaults may be absent
        if config.get(key) not in (None, usual):
            columns.require_in_file(key, config[key], "inter")
    threshold, header = config.get("threshold"), columns.headers["inter"]
    if threshold is not None:
        if not isinstance(threshold, Mapping) or len(threshold) != 1:
            raise ValueError(f"threshold must be {{field: number}}, such as {{rating: 4}}, not {threshold!r}")
        ((name, value),) = threshold.items()
        columns.require("threshold", name, ["float"], of=["inter"])
        number().refuse(f"threshold: {name}", value)
    elif label not in columns.loaded["inter"] and config["train_neg_sample_args"]["distribution"] == "none":
        mend = "set LABEL_FIELD to the column of clicks, or threshold: {rating: 4}"
        if label in header:
            raise ValueError(f"load_col: inter must hold {label!r} (LABEL_FIELD), or {mend}")
        has = listed(header)
        raise ValueError(f"LABEL_FIELD: {columns.file('inter')} has no field {label!r}; it has {has}: {mend}")


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
    if config.get("USER_ID_FIELD") is None:
        split = given.get("split")
        by_group, by_split = given.get("group_by") == "user", isinstance(split, Mapping) and "LS" in split
        if by_group or by_split:
            part = "group_by: user" if by_group else "split: LS"
            raise ValueError(f"eval_args: {part} needs USER_ID_FIELD, which is empty: write group_by: ~ and a split RS")


def _check_filters(config: Mapping[str, Any], columns: Columns) -> None:
    """Check the keys that leave out rows."""
    for name, wanted in _by_field(config, columns, "val_interval", '{rating: "[1,5]"}').items():
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
    for key in ("user_inter_num_interval", "item_inter_num_interval"):
        if config.get(key) is not None:
            intervals = parse_intervals(config[key], key)
            if len(intervals) > 1 or intervals[0][1] < 0:
                raise ValueError(f'{key} must be one interval of 0 or more, such as "[5,inf)", not {config[key]!r}')
            if intervals != [("[", 0.0, math.inf, ")")]:
                active.append(key)
    for key in active:
        if key != "val_interval" and config.get("USER_ID_FIELD") is None:
            raise ValueError(f"{key} needs USER_ID_FIELD and ITEM_ID_FIELD, which are empty: leave it out")
        if config.get("benchmark_filename") is not None:
            raise ValueError(f"{key}: the parts of benchmark_filename are taken as they are: leave it out ({key}: ~)")
    time = config.get("TIME_FIELD")
    if "rm_dup_inter" in active and time is not None and columns.loaded["inter"].get(time) != "float":
        raise ValueError(
            f"rm_dup_inter: {config['rm_dup_inter']} needs a time: load TIME_FIELD {time!r} of type float from "
            f"{columns.file('inter')}, or write TIME_FIELD: ~ to go by the order of its lines"
        )


def _check_numbers(config: Mapping[str, Any], columns: Columns, label: str) -> None:
    """Check the keys that make features of numbers."""
    spent = [name for name in config.get("threshold") or {} if name != label]
    normalised = config.get("normalize_field")
    numerical = names_in(config.get("numerical_features", []), "numerical_features")
    for key, names, taken in (
        ("numerical_features", numerical, [*spent, label]),
        ("normalize_field", [] if normalised is None else names_in(normalised, "normalize_field"), spent),
    ):
        for name in names:
            columns.require(key, name, _NUMBERS)
            if name in taken:
                raise ValueError(f"{key} names {name!r}, which is the label or what threshold makes it from")
    if config.get("normalize_all") and normalised is not None:
        raise ValueError("normalize_field and normalize_all: give one; normalize_all: false leaves normalize_field")
    example = "{price: {method: ED, bucket: 10}}"
    for name, how in _by_field(config, columns, "discretization", example, _NUMBERS).items():
        if name not in numerical:
            raise ValueError(f"discretization names {name!r}, which numerical_features does not: add it there")
        given = dict(how) if isinstance(how, Mapping) else {}
        if given != {"method": "LD"} and not (
            given.keys() == {"method", "bucket"} and given["method"] == "ED" and whole(1).accepts(given["bucket"])
        ):
            raise ValueError(
                f"discretization: {name} must be {{method: ED, bucket: 10}}, with a bucket of 1 or more, or "
                f"{{method: LD}}, not {how!r}"
            )


def _check_aliases(config: Mapping[str, Any], columns: Columns, ids: Collection[str | None]) -> None:
    owner: dict[str, str] = {}
    for key in sorted(key for key in config if str(key).startswith("alias_of_") and config[key] is not None):
        given = config[key]
        if isinstance(given, tuple):  # RecBole adds it to a list
            raise ValueError(f"{key} must be a list such as [{', '.join(map(str, given))}], not {given!r}")
        names = names_in(given, key)
        of = f"{key.removeprefix('alias_of_').upper()}_FIELD"
        if of in OWNERS.values() and names and config.get(of) is None:
            raise ValueError(f"{key} needs {of}, which is empty: leave it out")
        for name in names:
            columns.require(key, name, _TOKENS)
            if name in ids:
                raise ValueError(f"{key} names {name!r}, which is an id itself: name fields that hold its values")
            if owner.setdefault(name, key) != key:
                raise ValueError(f"{key} names {name!r}, which {owner[name]} names, too: leave it to one of them")


def _check_weights(config: Mapping[str, Any], columns: Columns) -> None:
    further = [suffix for suffix in columns.loaded if suffix not in ("inter", *OWNERS)]
    for name, weight in _by_field(config, columns, "preload_weight", "{entity_id: vector}").items():
        if not further:
            raise ValueError(f"preload_weight names {name!r}, but additional_feat_suffix names no file to hold it")
        columns.require("preload_weight", name, ["token"], of=further)
        home = next(suffix for suffix in further if name in columns.loaded[suffix])
        if not isinstance(weight, str):
            file = columns.file(home)
            raise ValueError(f"preload_weight: {name} must be the name of a field of {file}, not {weight!r}")
        columns.require(f"preload_weight: {name}", weight, _NUMBERS, of=[home])
