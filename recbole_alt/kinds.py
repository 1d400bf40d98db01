"""What the value of a key may be: kinds that say in words what they accept."""

from __future__ import annotations

import codecs
import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True)
class Kind:
    """A set of values.

    Attributes:
        says: the set in words, as in "must be <says>".
        accepts: whether a value is in the set.
        choices: the values, where they can be listed.
    """

    says: str
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()

    def refuse(self, key: str, value: Any, *, empty: bool = False) -> None:
        """Raise an error if ``value`` is not of this kind.

        Args:
            key: the key, as the error names it.
            value: its value.
            empty: whether the key may be empty.

        Raises:
            ValueError: names the key, the value and what it must be.
        """
        if (value is None and empty) or (value is not None and self.accepts(value)):
            return
        raise ValueError(f"{key} must be {self.says}{' or empty' if empty else ''}, not {value!r}{self._near(value)}")

    def _near(self, value: Any) -> str:
        given = [one for one in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(one, str)]
        for one in given:
            near = difflib.get_close_matches(one, self.choices, n=1)
            if one not in self.choices and near:
                return f": did you mean {near[0]!r}?"
        return ""


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether ``value`` is an integer, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a number other than NaN, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def whole(least: int, most: int | None = None) -> Kind:
    """Whole numbers of at least ``least`` and at most ``most``."""
    says = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
    return Kind(says, lambda value: is_whole(value) and value >= least and (most is None or value <= most))


def number(*, above: float | None = None, least: float | None = None, below: float | None = None,
           most: float | None = None) -> Kind:  # fmt: skip
    """Finite numbers within bounds; ``above`` and ``below`` are not part of the set."""
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("above", above), ("at least", least), ("below", below), ("at most", most))
        if bound is not None
    ]

    def accepts(value: Any) -> bool:
        return (
            is_number(value)
            and math.isfinite(value)
            and (above is None or value > above)
            and (least is None or value >= least)
            and (below is None or value < below)
            and (most is None or value <= most)
        )

    return Kind(" ".join(["a number", " and ".join(bounds)]).strip(), accepts)


def choice(*values: str) -> Kind:
    """One of ``values``."""
    return Kind(f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values, values)


def choices(*values: str) -> Kind:
    """A list of some of ``values``, each at most once."""

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and all(one in values for one in value)
            and len(set(value)) == len(value)
        )  # fmt: skip

    return Kind(f"a list of different values of {', '.join(values)}, such as [{values[0]}]", accepts, values)


def list_of(kind: Kind, *, least: int = 1, example: str) -> Kind:
    """A list of at least ``least`` values of ``kind``."""

    def accepts(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) >= least and all(map(kind.accepts, value))

    return Kind(f"a list such as {example}, each {kind.says}", accepts)


def either(kind: Kind, *values: Any) -> Kind:
    """A value of ``kind``, or one of ``values``."""
    others = " or ".join(map(str, values))
    return Kind(f"{kind.says}, or {others}", lambda value: value in values or kind.accepts(value), kind.choices)


def parts(known: Mapping[str, Kind], *, example: str) -> Kind:
    """A mapping whose keys are among ``known``, with values of their kinds."""

    def accepts(value: Any) -> bool:
        return isinstance(value, Mapping) and all(key in known and known[key].accepts(value[key]) for key in value)

    within = "; ".join(f"{key}: {kind.says}" for key, kind in known.items())
    return Kind(f"like {example} ({within})", accepts)


def _is_encoding(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(codecs.lookup(value)._is_text_encoding)
    except LookupError:
        return False


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("text", lambda value: isinstance(value, str) and bool(value.strip()))
SEPARATOR = Kind("text of at least one character", lambda value: isinstance(value, str) and value != "")
ENCODING = Kind("the name of a text encoding such as utf-8 or latin-1", _is_encoding)
SHARE = number(above=0, most=1)
DROPOUT = number(least=0, below=1)
#: Values whose form another module checks, where it knows the files or the models they are about.
ANY = Kind("anything", lambda value: True)
