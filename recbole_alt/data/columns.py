"""The columns of the atomic files that a configuration loads, for the CTR model or only for the prompt.

RecBole silently ignores names in ``load_col`` that a file does not have, and files that do not exist
(``recbole/data/dataset/dataset.py``, ``_load_feat``).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from recbole_alt.kinds import did_you_mean

#: The columns of a file in their order: name → type.
Header = Mapping[str, str]

_SIDES = ("inter", "user", "item")
#: Files whose rows belong to a user or an item, and the key that names its id.
OWNERS = {"user": "USER_ID_FIELD", "item": "ITEM_ID_FIELD"}
_SHOWN = 20  # columns of a file that an error lists


class Columns:
    """The columns that are loaded.

    Args:
        config: ``load_col``, ``unload_col``, ``prompt_only``, ``additional_feat_suffix``, ``benchmark_filename``,
            ``USER_ID_FIELD`` and ``ITEM_ID_FIELD``.
        headers: suffix → columns of each atomic file that exists; "inter" is the first part of
            ``benchmark_filename`` if that is given.
        files: suffix → name of the file, where it is not ``<dataset>.<suffix>``.

    Attributes:
        headers: suffix → columns of each file that is used.
        loaded: suffix → columns for the CTR model; files of which none is loaded are absent.
        prompt_only: suffix → names of the columns for the prompt only.

    Raises:
        ValueError: a file or a column does not exist, a value has another form, or a file is loaded without its id.
    """

    def __init__(
        self, config: Mapping[str, Any], headers: Mapping[str, Header], files: Mapping[str, str] | None = None
    ):
        self._config, self._inter, self._names = config, _first_part(config), files or {}
        self._files = [*_SIDES, *_further(config)]
        self.headers = {suffix: headers[suffix] for suffix in self._files if suffix in headers}
        for suffix in self._files:
            if suffix not in headers and suffix not in OWNERS:
                key = "" if suffix == "inter" else f"additional_feat_suffix names {suffix}, but "
                raise ValueError(f"{key}there is no {self.file(suffix)} in {config['data_path']!r}")
        for key in OWNERS.values():
            if config.get(key) is not None:
                self.require_in_file(key, config[key], "inter")
        self.loaded = self._loaded()
        for side, key in OWNERS.items():
            self._check_owner(side, key)
        if "inter" not in self.loaded:
            has = listed(headers["inter"])
            raise ValueError(f"load_col: inter loads no column of {self.file('inter')}; it has {has}")
        self.prompt_only = self._prompt_only()

    def file(self, suffix: str) -> str:
        """The name of a file."""
        usual = f"{self._config['dataset']}.{self._inter if suffix == 'inter' else suffix}"
        return self._names.get(suffix, usual)

    def require(self, key: str, name: Any, kinds: Collection[str], *, of: Collection[str] | None = None) -> str:
        """The type of the loaded column ``name`` that ``key`` names.

        Raises:
            ValueError: no such column is loaded, or its type is not among ``kinds``, or its file not among ``of``.
        """
        loaded = {suffix: header for suffix, header in self.loaded.items() if of is None or suffix in of}
        types, start = " or ".join(kinds), f"{key} names {name!r}, which"
        for suffix, header in loaded.items():
            if header.get(name) in kinds:
                return header[name]
            if name in header:
                raise ValueError(f"{start} is {header[name]} in {self.file(suffix)}: it must be {types}")
        for suffix, names in self.prompt_only.items():
            if name in names:
                raise ValueError(
                    f"{start} prompt_only keeps for the prompt of {self.file(suffix)}: move it to load_col"
                )
        for suffix, header in self.headers.items():
            if name in header and (of is None or suffix in of):
                raise ValueError(
                    f"{start} {self.file(suffix)} has but load_col or unload_col leaves out: load it with load_col: "
                    f"{suffix}"
                )
        known = list(dict.fromkeys(n for header in loaded.values() for n, kind in header.items() if kind in kinds))
        has = f"its fields of type {types} are {listed(known)}" if known else f"none is {types}"
        files = ", ".join(map(self.file, loaded))
        raise ValueError(f"{start} is no loaded field of {files}: {has}{did_you_mean(name, known)}")

    def require_in_file(self, key: str, name: str, suffix: str) -> None:
        """Refuse a ``name`` given by ``key`` that the file does not have, whether loaded or not."""
        has = self.headers[suffix]
        if name not in has:
            hint = did_you_mean(name, has)
            raise ValueError(f"{key}: {self.file(suffix)} has no field {name!r}; it has {listed(has)}{hint}")

    def _existing(self, key: str, files: Sequence[str]) -> dict[str, list[str]] | None:
        """The value of a key such as ``{inter: [user_id]}`` of files and columns that exist; None if it is empty."""
        given = lists_by_file(self._config, key, files)
        for suffix, names in (given or {}).items():
            if names and suffix not in self.headers:
                raise ValueError(f"{key} names {suffix}, but there is no {self.file(suffix)}: leave {suffix} out")
            for name in names:
                if (key, name) != ("load_col", "*"):
                    self.require_in_file(key, name, suffix)
        return given

    def _loaded(self) -> dict[str, Header]:
        load, unload = (self._existing(key, self._files) for key in ("load_col", "unload_col"))
        for suffix, names in (unload or {}).items():
            if names and load is not None and load.get(suffix) != ["*"]:
                raise ValueError(
                    f"unload_col names columns of {suffix}, which has no effect beside load_col: write load_col: ~ to "
                    "load everything else, or leave unload_col out"
                )
        loaded = {suffix: loaded_columns(self._config, suffix, header) for suffix, header in self.headers.items()}
        for suffix in self._files:
            if suffix not in _SIDES and not loaded[suffix]:
                raise ValueError(
                    f"additional_feat_suffix names {suffix}, but load_col loads no column of {self.file(suffix)}: add "
                    f"{suffix}: [{listed(self.headers[suffix])}] to load_col"
                )
        return {suffix: columns for suffix, columns in loaded.items() if columns}

    def _check_owner(self, side: str, key: str) -> None:
        """Refuse interactions, and rows of a user or item file, that are loaded without the id that ``key`` names."""
        name = self._config.get(key)
        if name is None and side in self.loaded:
            mend = f"name its id, or leave {side} out of load_col"
            raise ValueError(f"{key} is empty, so nobody owns the rows of {self.file(side)}: {mend}")
        for suffix in ("inter", side) if side in self.loaded else ("inter",):
            if name is None or name in self.loaded.get(suffix, {}):
                continue
            self.require_in_file(key, name, suffix)
            if self._config.get("load_col") is None:
                raise ValueError(f"unload_col: {suffix} must leave {name!r} ({key}) in")
            raise ValueError(
                f"load_col: {suffix} must hold {name!r} ({key}): list the columns of every file, for the last load_col "
                "given replaces the others as a whole"
            )

    def _prompt_only(self) -> dict[str, list[str]]:
        given = self._existing("prompt_only", _SIDES) or {}
        for suffix, names in given.items():
            for name in names:
                if name in self.loaded.get(suffix, {}):
                    raise ValueError(
                        f"{name!r} is loaded (load_col) and in prompt_only: the CTR model sees the first; drop one, "
                        "with unload_col where load_col is empty"
                    )
            if names and suffix not in self.loaded:
                raise ValueError(
                    f"prompt_only: load the id of {self.file(suffix)} with load_col, so that {names[0]!r} has an owner"
                )
        return given


def loaded_columns(config: Mapping[str, Any], suffix: str, header: Header) -> dict[str, str]:
    """The columns of ``header`` that ``load_col`` and ``unload_col`` leave for the CTR model."""
    load, unload = config.get("load_col"), (config.get("unload_col") or {}).get(suffix) or ()
    wanted = "*" if load is None else load.get(suffix) or ()
    every = list(wanted) == ["*"]
    return {name: kind for name, kind in header.items() if (every or name in wanted) and name not in unload}


def check_forms(config: Mapping[str, Any]) -> None:
    """Refuse keys that name files and columns in a wrong form; no file is opened."""
    _first_part(config)
    files = [*_SIDES, *_further(config)]
    for key in ("load_col", "unload_col", "unused_col", "prompt_only"):
        lists_by_file(config, key, _SIDES if key == "prompt_only" else files)


def names_in(given: Any, where: str) -> list[str]:
    """A list of different names; anything else is a ValueError about the key ``where``."""
    if not isinstance(given, (list, tuple)):
        example = given if isinstance(given, str) else "a, b"
        raise ValueError(f"{where} must be a list such as [{example}], not {given!r}")
    for name in given:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where}: {name!r} is no name; quote a name that YAML reads as a number or a truth value")
        if given.count(name) > 1:
            raise ValueError(f"{where} names {name!r} twice")
    return list(given)


def lists_by_file(config: Mapping[str, Any], key: str, files: Sequence[str]) -> dict[str, list[str]] | None:
    """The value of a key such as ``{inter: [user_id, item_id]}``; None if it is empty.

    Raises:
        ValueError: it has another form, or names a file that is none of ``files``.
    """
    given = config.get(key)
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ValueError(f"{key} must be like {{inter: [user_id, item_id]}}, not {given!r}")
    lists = {}
    for suffix, names in given.items():
        if suffix not in files:
            hint = did_you_mean(suffix, files)
            raise ValueError(f"{key}: unknown file {suffix!r}; known are {', '.join(files)}{hint}")
        lists[suffix] = ["*"] if key == "load_col" and names == "*" else names_in(names, f"{key}: {suffix}")
    return lists


def listed(names: Collection[str]) -> str:
    """Names separated by commas; only the first of many."""
    shown = ", ".join(list(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, … ({len(names)} in all)"


def _further(config: Mapping[str, Any]) -> list[str]:
    given = config.get("additional_feat_suffix")
    names = [] if given is None else names_in(given, "additional_feat_suffix")
    for suffix in names:
        if suffix in (*_SIDES, "link"):  # RecBole loads the sides itself and gives "link" no types
            raise ValueError(f"additional_feat_suffix: {suffix!r} is a file of RecBole's own: name only further files")
    return names


def _first_part(config: Mapping[str, Any]) -> str:
    """The suffix of the file whose first line names the columns of the interactions."""
    given = config.get("benchmark_filename")
    if given is None:
        return "inter"
    if not isinstance(given, (list, tuple)) or len(given) != 3 or not all(isinstance(name, str) for name in given):
        raise ValueError(
            f"benchmark_filename must be a list of three names, such as [train, valid, test], not {given!r}"
        )
    return f"{given[0]}.inter"
