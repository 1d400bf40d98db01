"""Values given as text, on a command line or in a dictionary; values shown as text, and in fewer digits."""

import ast
from collections.abc import Mapping
from typing import Any

from recbole_alt.key_table import KEYS
from recbole_alt.kinds import TEXT
from recbole_alt.yaml_files import parse_yaml


def parse_value(key: str, text: str) -> Any:
    """A value given as text: a Python literal, a YAML list or mapping, a truth value, null, or the text itself.

    Where a key holds text, only null and what is in quotes are read otherwise: a folder may be called ``2020``. A list
    or mapping that is neither Python's nor YAML's, or with a key given twice, is a ValueError.
    """
    if text in ("~", "null", "None"):
        return None
    try:
        tree = ast.parse(text.strip(), mode="eval")
        literal = ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        pass
    else:
        for node in ast.walk(tree):
            names = [part.value for part in getattr(node, "keys", ()) if isinstance(part, ast.Constant)]
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{key}: {twice!r} is given twice in {text!r}: leave one")
        return text if key in KEYS and KEYS[key].kind is TEXT and not isinstance(literal, str) else literal
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text[:1] in ("[", "{"):
        try:
            return parse_yaml(text)
        except ValueError as error:
            if key.endswith("_num_interval"):  # [5,inf)
                return text
            raise ValueError(f"{key}: {text!r}: {error}") from None
    return text


def show(value: Any) -> str:
    """A value in few characters; parameters as ``name=value, …``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={show(one)}" for name, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rounded(value: Any, digits: int) -> Any:
    """``value`` with so many significant digits of every fraction in it, so that files of results stay small."""
    if isinstance(value, dict):
        return {name: rounded(part, digits) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part, digits) for part in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) and not value.is_integer() else value


def show_time(seconds: float) -> str:
    """A duration in seconds, minutes or hours, at least one and a half of the latter two."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
