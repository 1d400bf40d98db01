"""The columns of the atomic files that a configuration loads, for the CTR model or only for the prompt.

RecBole silently ignores names in ``load_col`` that a file does not have, and files that do not exist
(``recbole/data/dataset/dataset.py``, ``_load_feat``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recbole_alt.data.naming import listed, lists_by_file, names_in
from recbole_alt.kinds import did_you_mean

#: The columns of a file in their order: name → type.
Header = Mapping[str, str]

_SIDES = ("inter", "user", "item")
#: Files whose rows belong to a user or an item, and the key that names its id.
OWNERS = {"user": "USER_ID_FIELD", "item": "ITEM_ID_FIELD"}
_RESERVED = (*_SIDES, "link")  # RecBole loads the first three itself and gives the fourth no types


@dataclass(frozen=True)
class Columns:
    """The columns that are loaded.

    Attributes:
        dataset: the name that the files have in common.
        headers: suffix → columns of each file that exists.
        loaded: suffix → columns for the CTR model; files of which none is loaded are absent.
        prompt_only: suffix → names of the columns for the prompt only.
        inter: suffix of the file that stands for "inter": the first part of ``benchmark_filename``.
    """

    dataset: str
    headers: Mapping[str, Header]
    loaded: Mapping[str, Header]
    prompt_only: Mapping[str, Sequence[str]]
    inter: str

    def file(self, suffix: str) -> str:
        """The name of a file."""
        return f"{self.dataset}.{self.inter if suffix == 'inter' else suffix}"

    def require(self, key: str, name: Any, kinds: Collection[str], *, of: Collection[str] | None = None) -> str:
        """The type of the loaded column ``name`` that ``key`` names.

        Raises:
            ValueError: no such column is loaded, or its type is not among ``kinds``, or its file not among ``of``.
        """
        loaded = {suffix: header for suffix, header in self.loaded.items() if of is None or suffix in of}
        for suffix, header in loaded.items():
            if name in header:
                if header[name] not in kinds:
                    raise ValueError(
                        f"{key} names {name!r}, which is {header[name]} in {self.file(suffix)}: it must be "
                        f"{' or '.join(kinds)}"
                    )
                return header[name]
        for suffix, names in self.prompt_only.items():
            if name in names:
                raise ValueError(
                    f"{key} names {name!r}, which prompt_only keeps for the prompt of {self.file(suffix)}: load it "
                    "with load_col instead"
                )
        for suffix, header in self.headers.items():
            if name in header and (of is None or suffix in of):
                raise ValueError(
                    f"{key} names {name!r}, which {self.file(suffix)} has but load_col or unload_col leaves out: load "
                    f"it with load_col: {suffix}"
                )
        files = ", ".join(self.file(suffix) for suffix in loaded)
        known = list(dict.fromkeys(n for header in loaded.values() for n, kind in header.items() if kind in kinds))
        types = " or ".join(kinds)
        has = f"its fields of type {types} are {listed(known)}" if known else f"none is {types}"
        raise ValueError(f"{key} names {name!r}, which is no loaded field of {files}: {has}{did_you_mean(name, known)}")

    def require_in_file(self, key: str, name: str, suffix: str) -> None:
        """Refuse a ``name`` given by ``key`` that the file does not have, whether loaded or not."""
        header = self.headers[suffix]
        if name not in header:
            raise ValueError(
                f"{key}: {self.file(suffix)} has no field {name!r}; it has {listed(header)}{did_you_mean(name, header)}"
            )


def check_forms(config: Mapping[str, Any]) -> None:
    """Refuse keys that name files and columns in a wrong form; no file is opened."""
    _first_part(config)
    files = [*_SIDES, *_further(config)]
    for key in ("load_col", "unload_col", "unused_col"):
        lists_by_file(config, key, files)
    lists_by_file(config, "prompt_only", _SIDES)


def columns_of(config: Mapping[str, Any], headers: Mapping[str, Header]) -> Columns:
    """Check all keys that name files and their columns.

    Args:
        config: ``load_col``, ``unload_col``, ``prompt_only``, ``additional_feat_suffix``, ``benchmark_filename``,
            ``USER_ID_FIELD`` and ``ITEM_ID_FIELD``.
        headers: suffix → columns of each atomic file that exists; "inter" is the first part of
            ``benchmark_filename`` if that is given.

    Raises:
        ValueError: a file or a column does not exist, a value has another form, or a file is loaded without its id.
    """
    dataset = str(config["dataset"])
    files = [*_SIDES, *_further(config)]
    bare = Columns(dataset, {name: headers[name] for name in files if name in headers}, {}, {}, _first_part(config))
    for suffix in files:
        if suffix not in headers and suffix not in OWNERS:
            key = "" if suffix == "inter" else f"additional_feat_suffix names {suffix}, but "
            raise ValueError(f"{key}there is no {bare.file(suffix)} in {config['data_path']!r}")
    for key in OWNERS.values():
        if config.get(key) is not None:
            bare.require_in_file(key, config[key], "inter")
    loaded = _loaded(bare, config, files)
    for side, key in OWNERS.items():
        _check_owner(bare, config, loaded, side, key)
    if "inter" not in loaded:
        raise ValueError(f"load_col: inter loads no column of {bare.file('inter')}; it has {listed(headers['inter'])}")
    return replace(bare, loaded=loaded, prompt_only=_prompt_only(bare, config, loaded))


def _check_owner(
    columns: Columns, config: Mapping[str, Any], loaded: Mapping[str, Header], side: str, key: str
) -> None:
    """Refuse interactions, and rows of a user or item file, that are loaded without the id that ``key`` names."""
    name = config.get(key)
    if name is None and side in loaded:
        raise ValueError(
            f"{key} is empty, so nobody owns the rows of {columns.file(side)}: name its id, or leave {side} out of "
            "load_col"
        )
    for suffix in ("inter", side) if side in loaded else ("inter",):
        if name is None or name in loaded.get(suffix, {}):
            continue
        columns.require_in_file(key, name, suffix)
        if config.get("load_col") is None:
            raise ValueError(f"unload_col: {suffix} must leave {name!r} ({key}) in")
        raise ValueError(
            f"load_col: {suffix} must hold {name!r} ({key}): list the columns of every file, for the last load_col "
            "given replaces the others as a whole"
        )


def loaded_columns(config: Mapping[str, Any], suffix: str, header: Header) -> dict[str, str]:
    """The columns of ``header`` that ``load_col`` and ``unload_col`` leave for the CTR model."""
    load, unload = config.get("load_col"), (config.get("unload_col") or {}).get(suffix) or ()
    wanted = "*" if load is None else load.get(suffix) or ()
    every = list(wanted) == ["*"]
    return {name: kind for name, kind in header.items() if (every or name in wanted) and name not in unload}


def _existing(
    columns: Columns, config: Mapping[str, Any], key: str, files: Sequence[str]
) -> dict[str, list[str]] | None:
    """The value of a key such as ``{inter: [user_id]}``, whose files and columns must exist; None if it is empty."""
    given = lists_by_file(config, key, files)
    for suffix, names in (given or {}).items():
        if names and suffix not in columns.headers:
            raise ValueError(f"{key} names {suffix}, but there is no {columns.file(suffix)}: leave {suffix} out")
        for name in names:
            if (key, name) != ("load_col", "*"):
                columns.require_in_file(key, name, suffix)
    return given


def _loaded(columns: Columns, config: Mapping[str, Any], files: Sequence[str]) -> dict[str, Header]:
    load, unload = (_existing(columns, config, key, files) for key in ("load_col", "unload_col"))
    for suffix, names in (unload or {}).items():
        if names and load is not None and load.get(suffix) != ["*"]:
            raise ValueError(
                f"unload_col names columns of {suffix}, which has no effect beside load_col: write load_col: ~ to load "
                "everything else, or leave unload_col out"
            )
    loaded: dict[str, Header] = {}
    for suffix in files:
        header = columns.headers.get(suffix, {})
        kept = loaded_columns(config, suffix, header)
        if kept:
            loaded[suffix] = kept
        elif suffix not in _SIDES:
            raise ValueError(
                f"additional_feat_suffix names {suffix}, but load_col loads no column of {columns.file(suffix)}: add "
                f"{suffix}: [{listed(header)}] to load_col"
            )
    return loaded


def _prompt_only(columns: Columns, config: Mapping[str, Any], loaded: Mapping[str, Header]) -> dict[str, list[str]]:
    given = _existing(columns, config, "prompt_only", _SIDES) or {}
    for suffix, names in given.items():
        for name in names:
            if name in loaded.get(suffix, {}):
                raise ValueError(
                    f"{name!r} is loaded (load_col) and in prompt_only: the CTR model sees the first; drop one, with "
                    "unload_col where load_col is empty"
                )
        if names and suffix not in loaded:
            raise ValueError(
                f"prompt_only: load the id of {columns.file(suffix)} with load_col, so that {names[0]!r} has an owner"
            )
    return given


def _further(config: Mapping[str, Any]) -> list[str]:
    given = config.get("additional_feat_suffix")
    names = [] if given is None else names_in(given, "additional_feat_suffix")
    for suffix in names:
        if suffix in _RESERVED:
            raise ValueError(f"additional_feat_suffix: {suffix!r} is a file of RecBole's own: name only further files")
    return names


def _first_part(config: Mapping[str, Any]) -> str:
    """The suffix of the file whose first line names the columns of the interactions."""
    given = config.get("benchmark_filename")
    if given is None:
        return "inter"
    if not isinstance(given, (list, tuple)) or len(given) != 3 or not all(isinstance(name, str) for name in given):
        raise ValueError(
            "benchmark_filename must be a list of three names, of training, validation and test, such as "
            f"[train, valid, test] for {config['dataset']}.train.inter and so on, not {given!r}"
        )
    return f"{given[0]}.inter"
