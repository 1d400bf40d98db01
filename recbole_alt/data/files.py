"""The atomic files of a dataset: which are read, and whether they go together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from logging import getLogger
from typing import Any

from recbole_alt.data.atomic import AtomicFile

#: The atomic files by suffix; ``inter`` has several where ``benchmark_filename`` names them.
Files = Mapping[str, list[AtomicFile]]

_ID_KEYS = {"user": "USER_ID_FIELD", "item": "ITEM_ID_FIELD"}


def atomic_files(config: Any) -> dict[str, list[AtomicFile]]:
    """The files that exist by suffix, none of them opened yet.

    Raises:
        ValueError: no ``.inter`` file, or another that a key names and that isn't there.
    """
    folder, name = config["data_path"], config["dataset"]
    parts = config["benchmark_filename"]
    names = {"inter": [f"{name}.inter"] if parts is None else [f"{name}.{part}.inter" for part in parts]}
    names |= {suffix: [f"{name}.{suffix}"] for suffix in ("user", "item", *(config["additional_feat_suffix"] or []))}
    files = {}
    for suffix, of_suffix in names.items():
        paths = [os.path.join(folder, file) for file in of_suffix]
        absent = next((path for path in paths if not os.path.isfile(path)), None)
        if absent is None:
            files[suffix] = [_file(config, path) for path in paths]
            continue
        key = _asks_for(config, suffix)
        if key:
            raise ValueError(f"{absent} does not exist: put it there, or take {suffix} out of {key}")
        if suffix == "inter":
            also = "" if parts is None else f", or name the files there are in benchmark_filename: {parts}"
            raise ValueError(f"{absent} does not exist: put the interactions there{also}")
    return files


def _file(config: Any, path: str) -> AtomicFile:
    for key in ("field_separator", "seq_separator"):
        if not isinstance(config[key], str) or not config[key]:
            raise ValueError(f"{key} must be one or more characters, not {config[key]!r}")
    return AtomicFile(path, config["field_separator"], config["encoding"], config["seq_separator"])


def _asks_for(config: Any, suffix: str) -> str | None:
    """The key, if any, that makes no sense without the file of ``suffix``."""
    if suffix in ("user", "item"):
        return next((key for key in ("load_col", "prompt_only") if (config[key] or {}).get(suffix)), None)
    return None if suffix == "inter" else "additional_feat_suffix"


def headers_of(config: Any) -> dict[str, dict[str, str]]:
    """Type of each column by its name, in the file's order, for each suffix of which there is a file.

    Raises:
        ValueError: a file that isn't there or isn't an atomic file; see :meth:`AtomicFile.header`.
    """
    return headers(atomic_files(config))


def headers(files: Files) -> dict[str, dict[str, str]]:
    """As :func:`headers_of`, of files that are at hand."""
    return {suffix: of_suffix[0].header() for suffix, of_suffix in files.items()}


def loaded(config: Any, suffix: str, header: Mapping[str, str]) -> list[str]:
    """Columns of ``header`` that ``load_col`` and ``unload_col`` leave for the CTR model."""
    load = "*" if config["load_col"] is None else config["load_col"].get(suffix) or ()
    unload = (config["unload_col"] or {}).get(suffix) or ()
    return [name for name in header if (load == "*" or name in load) and name not in unload]


def check_files(config: Any, files: Files) -> None:
    """Refuse files that do not go together, or whose rows have not the cells that their first lines name.

    Rows of a ``.user`` or ``.item`` file that all end with one separator too many are read without it.

    Raises:
        ValueError: names the file, the line or column, the key, and what to do.
    """
    _check_parts(config, files["inter"])
    _check_ids(config, files)
    _check_owners(config, files)
    _check_cells(config, files)


def _read(config: Any, files: Files) -> Iterator[tuple[str, AtomicFile, list[str]]]:
    """Suffix, file, and the columns that are loaded of it, for every file that is read."""
    for suffix, of_suffix in files.items():
        for file in of_suffix:
            columns = loaded(config, suffix, file.header())
            if columns:
                yield suffix, file, columns


def _check_parts(config: Any, parts: list[AtomicFile]) -> None:
    first = parts[0].header()
    for part in parts[1:]:
        header = part.header()
        for name in loaded(config, "inter", first | header):
            if first.get(name) != header.get(name):
                raise ValueError(
                    f"benchmark_filename: column {name!r} is {first.get(name) or 'not there'} in {parts[0]} and "
                    f"{header.get(name) or 'not there'} in {part}: give both the same columns"
                )


def _check_ids(config: Any, files: Files) -> None:
    for suffix, file, columns in _read(config, files):
        for side, key in _ID_KEYS.items():
            field, header = config[key], file.header()
            if suffix not in (side, "inter"):
                continue
            if field is None:
                if suffix == side:
                    raise ValueError(f"{file} is loaded, but {key} is empty: name its column of ids")
                continue
            if field not in header:
                raise ValueError(
                    f"{file} has no column {field!r}, which {key} names; it has {', '.join(header)}: set {key} to the "
                    "column of ids"
                )
            if field not in columns:
                raise ValueError(f"load_col: {suffix} must name {field!r}, which {key} says are the ids of {file}")
            if header[field] != "token":
                raise ValueError(
                    f"{file}, line 1: column {field!r} is of type {header[field]}; {key} must be a token column: write "
                    f"{field}:token"
                )


def _check_owners(config: Any, files: Files) -> None:
    """A column may be in one file alone, save for ids, which ``.inter`` and their owner share."""
    owner: dict[str, tuple[str, AtomicFile]] = {}
    shared = {config[key]: {"inter", side} for side, key in _ID_KEYS.items() if config[key] is not None}
    for suffix, file, columns in _read(config, files):
        for name in columns:
            first, before = owner.setdefault(name, (suffix, file))
            if first != suffix and {first, suffix} != shared.get(name) and suffix != "link":
                raise ValueError(
                    f"column {name!r} is in {before} and in {file}: load one of them (load_col, unload_col), or rename "
                    "one"
                )


def _check_cells(config: Any, files: Files) -> None:
    faults, mended, refused = [], [], False
    for suffix, file, _ in _read(config, files):
        fault = file.fault()
        if fault is None:
            continue
        faults.append(fault)
        if suffix in ("user", "item") and file.trails():
            mended.append(file)
        else:
            refused = True
    if refused:
        raise ValueError(
            f"{'; '.join(faults)}: give each row one cell per column, separated by "
            f"{config['field_separator']!r} (field_separator); quotation marks protect no separator"
        )
    for file in mended:
        getLogger().warning(f"{file}: each row ends with a separator more than the first line has; it is left out")
