"""Kinds of values: what a key accepts, in code and in the words of its error."""

import codecs
import difflib
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True)
class Kind:
    """A set of values.

    Attributes:
        says: the set in words, as in "must be <says>".
        accepts: returns True for a value in the set.
        choices: the values, if they can be listed.
    """

    says: str
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()

    def refuse(self, key: str, value: Any, *, empty: bool = False) -> None:
        """Raise a ValueError that names ``key``, ``value`` and what it must be, if the value is not of this kind.

        An ``empty`` key may also be None.
        """
        if (value is None and empty) or (value is not None and self.accepts(value)):
            return
        given = value if isinstance(value, (list, tuple)) else [value]
        misspelt = [one for one in given if isinstance(one, str) and one not in self.choices]
        hint = next(filter(None, (did_you_mean(one, self.choices) for one in misspelt)), "")
        raise ValueError(f"{key} must be {self.says}{' or empty' if empty else ''}, not {value!r}{hint}")


def did_you_mean(name: Any, known: Collection[str], otherwise: str = "", *, cutoff: float = 0.6) -> str:
    """The end of an error about an unknown ``name``: the known one that is closest, or ``otherwise`` if none is."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)
    return f": did you mean {near[0]!r}?" if near else otherwise


def is_whole(value: Any) -> TypeGuard[int]:
    """True if ``value`` is an integer and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """True if ``value`` is a number, neither NaN nor a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def whole(least: int, most: int | None = None) -> Kind:
    """Whole numbers of at least ``least`` and at most ``most``."""
    says = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
    return Kind(says, lambda value: is_whole(value) and value >= least and (most is None or value <= most))


def number(*, above: float | None = None, least: float | None = None, below: float | None = None,
           most: float | None = None) -> Kind:  # fmt: skip
    """Finite numbers within bounds; ``above`` and ``below`` are not part of the set."""
    bounds: list[tuple[str, float | None, Callable[[float, float], bool]]] = [
        ("above", above, operator.gt),
        ("at least", least, operator.ge),
        ("below", below, operator.lt),
        ("at most", most, operator.le),
    ]
    given = [(word, bound, holds) for word, bound, holds in bounds if bound is not None]
    says = " and ".join(f"{word} {bound:g}" for word, bound, _ in given)

    def accepts(value: Any) -> bool:
        return is_number(value) and math.isfinite(value) and all(holds(value, bound) for _, bound, holds in given)

    return Kind(f"a number {says}".strip(), accepts)


def choice(*values: str) -> Kind:
    """One of ``values``."""
    return Kind(f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values, values)


def choices(*values: str) -> Kind:
    """A list of some of ``values``, each at most once."""

    def accepts(value: Any) -> bool:
        is_list = isinstance(value, (list, tuple))
        return is_list and all(one in values for one in value) and len(set(value)) == len(value)

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


def parts(known: Mapping[str, Kind], *, example: str, needs: Collection[str] = ()) -> Kind:
    """A mapping with all keys of ``needs`` and others of ``known``, whose values are of their kinds."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, Mapping) or any(key not in value for key in needs):
            return False
        return all(key in known and known[key].accepts(value[key]) for key in value)

    within = "; ".join(f"{key}{', needed' if key in needs else ''}: {kind.says}" for key, kind in known.items())
    return Kind(f"like {example} ({within})", accepts)


def _is_encoding(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(codecs.lookup(value)._is_text_encoding)
    except LookupError:
        return False


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("text", lambda value: isinstance(value, str) and bool(value.strip()))
FIELD = Kind("the name of a field", TEXT.accepts)
SEPARATOR = Kind("text of at least one character", lambda value: isinstance(value, str) and value != "")
ENCODING = Kind("the name of a text encoding such as utf-8 or latin-1", _is_encoding)
SHARE = number(above=0, most=1)
DROPOUT = number(least=0, below=1)
#: Values that are checked by the module that knows the files or models they are about.
ANY = Kind("anything", lambda value: True)
