"""Names of fields and files as keys give them: their form, and what a misspelt one was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

_SHOWN = 20  # columns of a file that an error lists


def names_in(given: Any, where: str) -> list[str]:
    """A list of different names.

    Raises:
        ValueError: no list, something in it that is not text, or a name twice.
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
    """``{file: [column]}``; None where the key is empty.

    Raises:
        ValueError: another form, or a file that is none of ``files``.
    """
    given = config.get(key)
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ValueError(f"{key} must be like {{inter: [user_id, item_id]}}, not {given!r}")
    for suffix in given:
        if suffix not in files:
            raise ValueError(f"{key}: unknown file {suffix!r}; known are {', '.join(files)}{meant(suffix, files)}")
    return {
        suffix: ["*"] if key == "load_col" and names == "*" else names_in(names, f"{key}: {suffix}")
        for suffix, names in given.items()
    }


def field_name(config: Mapping[str, Any], key: str) -> str | None:
    """The field that ``key`` names, or None.

    Raises:
        ValueError: something else than a name.
    """
    name = config.get(key)
    if name is not None and (not isinstance(name, str) or not name):
        raise ValueError(f"{key} must be the name of a field, or empty, not {name!r}")
    return name


def meant(name: Any, known: Collection[str]) -> str:
    """The known name closest to ``name`` as the end of an error, if one is close."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def listed(names: Collection[str]) -> str:
    """Names in a row, the first of many."""
    shown = ", ".join(list(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, … ({len(names)} in all)"
