"""The atomic files of a dataset: finds those that exist, and checks that they go together."""

import os
from collections.abc import Collection, Mapping
from logging import getLogger
from typing import Any

from recbole_alt.data.atomic import AtomicFile
from recbole_alt.data.columns import OWNERS, Header, listed, loaded_columns
from recbole_alt.data.parquet import ParquetFile

#: A file, as text or in Parquet.
DataFile = AtomicFile | ParquetFile
#: The atomic files by suffix; ``inter`` has several if ``benchmark_filename`` names them.
Files = Mapping[str, list[DataFile]]

_PARQUET = ".parquet"


def atomic_files(config: Mapping[str, Any]) -> dict[str, list[DataFile]]:
    """The files that exist, by suffix, as text or with ``.parquet`` behind their names; none is opened yet.

    Raises:
        ValueError: there is no ``.inter`` file, or not every one that ``benchmark_filename`` names, or there is a file
            both as text and in Parquet.
    """
    folder, name, parts = config["data_path"], config["dataset"], config["benchmark_filename"]
    names = {"inter": [f"{name}.inter"] if parts is None else [f"{name}.{part}.inter" for part in parts]}
    names |= {suffix: [f"{name}.{suffix}"] for suffix in ("user", "item", *(config["additional_feat_suffix"] or []))}
    form = config["field_separator"], config["encoding"], config["seq_separator"]
    files = {}
    for suffix, of_suffix in names.items():
        paths = [os.path.join(folder, file) for file in of_suffix]
        found = [_file(path, form, config.get("field_types")) for path in paths]
        absent = next((i for i, file in enumerate(found) if file is None), None)
        if absent is None:
            files[suffix] = [file for file in found if file is not None]
        elif suffix == "inter" and parts is None:
            raise ValueError(f"{paths[0]} does not exist: put the interactions there")
        elif suffix == "inter":
            raise ValueError(f"benchmark_filename names {parts[absent]}, but there is no {of_suffix[absent]}")
    return files


def _file(path: str, form: tuple[str, str, str], types: Mapping[str, str] | None) -> DataFile | None:
    is_text, is_parquet = os.path.isfile(path), os.path.isfile(path + _PARQUET)
    if is_text and is_parquet:
        raise ValueError(f"{path} is there as text and as {path}{_PARQUET}: take one of them out of the folder")
    if is_parquet:
        return ParquetFile(path + _PARQUET, types, form[2])
    return AtomicFile(path, *form) if is_text else None


def headers_of(files: Files) -> dict[str, Header]:
    """The columns of each file by suffix: name → type; see :meth:`AtomicFile.header`."""
    return {suffix: of_suffix[0].header() for suffix, of_suffix in files.items()}


def check_files(config: Mapping[str, Any], files: Files) -> None:
    """Refuse files that do not go together, or whose rows do not have the cells that their first lines name.

    Rows of a ``.user`` or ``.item`` file that all end with one separator too many are read without it.

    Raises:
        ValueError: names the file, the line or column, the key, and what to do.
    """
    _check_types(config, files)
    _check_parts(config, files["inter"])
    every = [(suffix, file) for suffix, of_suffix in files.items() for file in of_suffix]
    columns = {(suffix, file): loaded_columns(config, suffix, file.header()) for suffix, file in every}
    loaded = {key: names for key, names in columns.items() if names}
    _check_columns(config, loaded)
    _check_cells(config, loaded)


def _check_types(config: Mapping[str, Any], files: Files) -> None:
    """``field_types`` names columns of Parquet files that have no type in their names."""
    untyped = [file.untyped() for of_suffix in files.values() for file in of_suffix if isinstance(file, ParquetFile)]
    known = set().union(*untyped)
    for name in config.get("field_types") or {}:
        if name not in known:
            has = f"those are {listed(sorted(known))}" if known else "there is none"
            raise ValueError(f"field_types: {name!r} is no column of a Parquet file without a type in its name: {has}")


def _check_parts(config: Mapping[str, Any], parts: list[DataFile]) -> None:
    first = parts[0].header()
    for part in parts[1:]:
        header = part.header()
        for name in loaded_columns(config, "inter", first | header):
            if first.get(name) != header.get(name):
                raise ValueError(
                    f"benchmark_filename: column {name!r} is {first.get(name) or 'not there'} in {parts[0]} and "
                    f"{header.get(name) or 'not there'} in {part}: give both the same columns"
                )


def _check_columns(config: Mapping[str, Any], loaded: Mapping[tuple[str, DataFile], Header]) -> None:
    """Ids are token columns, and only ids are in two files: in ``.inter`` and in that of their side."""
    ids = {config[key]: (side, key) for side, key in OWNERS.items() if config[key] is not None}
    for suffix, file in loaded:
        for field, (side, key) in ids.items():
            kind = file.header().get(field)
            if suffix in (side, "inter") and kind not in (None, "token"):
                must = f"{key} must be a token column: write {field}:token"
                raise ValueError(f"{file.head}: column {field!r} is of type {kind}; {must}")
    owner: dict[str, tuple[str, DataFile]] = {}
    for (suffix, file), columns in loaded.items():
        for name in columns:
            first, before = owner.setdefault(name, (suffix, file))
            if first != suffix and (name not in ids or {first, suffix} != {"inter", ids[name][0]}):
                mend = "load one of them (load_col, unload_col), or rename one"
                raise ValueError(f"column {name!r} is in {before} and in {file}: {mend}")


def _check_cells(config: Mapping[str, Any], loaded: Collection[tuple[str, DataFile]]) -> None:
    faulty = [(suffix, file) for suffix, file in loaded if file.fault() is not None]
    if not all(suffix in OWNERS and file.trails() for suffix, file in faulty):
        raise ValueError(
            f"{'; '.join(str(file.fault()) for _, file in faulty)}: give each row one cell per column, separated by "
            f"{config['field_separator']!r} (field_separator); quotation marks protect no separator"
        )
    for _, file in faulty:
        getLogger().warning(f"{file}: each row ends with a separator more than the first line has; it is left out")
