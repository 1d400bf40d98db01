"""Names of fields and files in the values of keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from recbole_alt.kinds import did_you_mean

_SHOWN = 20  # columns of a file that an error lists


def names_in(given: Any, where: str) -> list[str]:
    """A list of different names; ``where`` is the key, for the error.

    Raises:
        ValueError: it is no list, holds something else than text, or a name twice.
    """
    if not isinstance(given, (list, tuple)):
        raise ValueError(
            f"{where} must be a list such as [{given if isinstance(given, str) else 'a, b'}], not {given!r}"
        )
    for name in given:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where}: {name!r} is no name; quote a name that YAML reads as a number or a truth value")
        if list(given).count(name) > 1:
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
    for suffix in given:
        if suffix not in files:
            hint = did_you_mean(suffix, files)
            raise ValueError(f"{key}: unknown file {suffix!r}; known are {', '.join(files)}{hint}")
    return {
        suffix: ["*"] if key == "load_col" and names == "*" else names_in(names, f"{key}: {suffix}")
        for suffix, names in given.items()
    }


def listed(names: Collection[str]) -> str:
    """Names separated by commas; only the first of many."""
    shown = ", ".join(list(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, … ({len(names)} in all)"
