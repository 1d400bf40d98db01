"""Plain values of a campaign's axes, as of a YAML file, the command line or Python: what each accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_alt.keys import KEYS
from recbole_alt.kinds import SHARE, TEXT, Kind, is_whole, list_of, whole

#: The most seeds that a number of them may ask for: a larger one is a seed.
_MOST_SEEDS, _FIRST_SEED = 100, 2020

_NAME_OR_NONE = Kind("text, or null for the configured one", lambda value: value is None or TEXT.accepts(value))
_PAIRS = Kind(
    "'name: value' pairs whose names are text",
    lambda value: isinstance(value, Mapping) and all(isinstance(name, str) for name in value),
)


def _names(example: str, kind: Kind = TEXT) -> Kind:
    return list_of(kind, least=0, example=example)


_LISTS_OF_NAMES = {
    "models": _names("[DCN, DeepFM]"),
    "datasets": _names("[ml-100k, 'ml-1m:keys.yaml@time']"),
    "split": _names("[random, time]"),
    "language_models": _names("[sentence-transformers/all-MiniLM-L6-v2]", _NAME_OR_NONE),
    "modes": _names("[ctr, joint]"),
    "ablations": _names("[contrast_only]"),
    "controls": _names("[ALT]"),
    "tuned_alone": _names("[contrast_only]"),
}
_KINDS = _LISTS_OF_NAMES | {
    "seeds": list_of(KEYS["seed"].kind, least=0, example="[2020, 2021]"),
    "budgets": list_of(whole(0), least=0, example="[60, 300]"),
    "train_shares": list_of(SHARE, least=0, example="[0.05, 1.0]"),
    "variants": _PAIRS,
    "keys": _PAIRS,
    "params_file": Kind("the name of ranges, a file, or none (as text: quote it)", TEXT.accepts),
    "tuning_trials": whole(1),
    "tuning_seeds": whole(1),
    "widenings": whole(0),
}


def split_list(text: str) -> list[str]:
    """The parts of ``a,b`` or ``[a, b]``, as lists stand on a command line."""
    return [part.strip() for part in text.strip("[]").split(",") if part.strip()]


def read_axes(given: Mapping[str, Any]) -> dict[str, Any]:
    """The axes in ``given``, of the right kinds; those that are None are left out.

    A text where a list of names is wanted is read as on a command line; ``seeds`` may be a number of seeds, counted
    from 2020.

    Raises:
        ValueError: An unknown axis, or a value of the wrong kind; names the axis, the value, and what is wanted.
    """
    axes = {}
    for axis, value in given.items():
        if axis not in _KINDS:
            raise ValueError(f"{axis!r} must be one of {', '.join(_KINDS)}")
        if value is not None:
            axes[axis] = _read(axis, value)
    return axes


def _read(axis: str, value: Any) -> Any:
    if axis in _LISTS_OF_NAMES and isinstance(value, str):
        value = split_list(value)
    if axis == "seeds" and is_whole(value):
        value = _count_seeds(value)
    _KINDS[axis].refuse(axis, value)
    return list(value) if isinstance(value, tuple) else value


def _count_seeds(number: int) -> list[int]:
    if number > _MOST_SEEDS:
        raise ValueError(
            f"seeds: {number} would be that many seeds, and {_MOST_SEEDS} are the most: give [{number}] for one seed"
        )
    if number < 1:
        raise ValueError(f"seeds must be at least one, or a list such as [2020, 2021], not {number}")
    return list(range(_FIRST_SEED, _FIRST_SEED + number))
