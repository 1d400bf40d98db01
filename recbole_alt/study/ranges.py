"""Ranges of the tuned keys: RecBole's ``.hyper`` format, read without evaluating it, as distributions of Optuna."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil, exp, isclose, isfinite, log, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_alt.config import ALTConfig, properties_dir
from recbole_alt.keys import KEYS, check_values
from recbole_alt.values import show
from recbole_alt.yaml_files import read_utf8

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: The kinds of ranges, each with an example of its values.
KINDS = {"choice": "[1e-3, 1e-4]", "uniform": "0,0.5", "quniform": "16,64,16", "loguniform": "-9,-3"}


@dataclass(frozen=True)
class Range:
    """The values that one key is tuned over."""

    name: str
    kind: str  #: One of :data:`KINDS`.
    values: tuple[Any, ...]  #: The choices, or the bounds (of ``loguniform`` their natural logarithms) and the step.
    where: str  #: File and line.

    @property
    def distribution(self) -> BaseDistribution:
        """What Optuna draws: the position of a choice, the multiple of a step, or the value itself."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # late: it is slow

        if self.kind == "choice":
            return CategoricalDistribution(range(len(self.values)))
        low, high, *step = self.values
        if step:
            return IntDistribution(round(low / step[0]), round(high / step[0]))
        if self.kind == "loguniform":
            return FloatDistribution(exp(low), exp(high), log=True)
        return FloatDistribution(low, high)

    def decode(self, drawn: Any) -> Any:
        """The value of the key for what :attr:`distribution` gave."""
        if self.kind == "choice":
            return self.values[drawn]
        if self.kind != "quniform":
            return drawn
        whole = all(float(value).is_integer() for value in self.values)
        return round(drawn * self.values[2]) if whole else float(f"{drawn * self.values[2]:.12g}")

    def end_at(self, value: Any) -> int:
        """-1 or 1 for a number at the low or the high end, in the outer tenth of an interval; 0 for all others.

        0 as well at an end beyond which the key can have no values.
        """
        if len(self.samples) < 2 or not all(type(one) in (int, float) for one in self.samples):
            return 0
        low, high, at = min(self.samples), max(self.samples), value
        if self.kind == "loguniform":
            low, high, at = log(low), log(high), log(at)
        margin = 0.0 if self.kind == "choice" else (high - low) / 10
        end = -1 if at <= low + margin else 1 if at >= high - margin else 0
        return end if end and self.beyond(end) else 0

    def beyond(self, end: int) -> Range | None:
        """The numbers next to the low end, -1, or the high end, 1: half an interval, or one more choice.

        None where the key can have no values there.
        """
        if self.kind == "choice":
            *others, inner, outer = sorted(self.values, reverse=end < 0)
            evenly = bool(others) and isclose(outer - inner, inner - others[-1])
            found = [(2 * outer - inner,)]
            if inner > 0 and outer > 0 and not evenly:  # as far in a geometric series
                found.insert(0, (outer * outer / inner,))
            whole = all(isinstance(value, int) for value in self.values)
            found = [(round(value) if whole else float(f"{value:.12g}"),) for (value,) in found]
        else:
            inner, outer = sorted(self.values[:2], reverse=end < 0)
            step = self.values[2] if self.kind == "quniform" else 0
            half = ceil((outer - inner) * end / 2 / step) * step if step else (outer - inner) * end / 2
            found = [(*sorted((outer + end * step, outer + end * half)), *self.values[2:])]
        for wider in (replace(self, values=values) for values in found):
            with suppress(ValueError):
                for value in wider.samples:
                    check_values({self.name: value})
                return wider
        return None

    def joined(self, other: Range) -> Range:
        """This range and what :meth:`beyond` gave, as one."""
        if self.kind == "choice":
            return replace(self, values=self.values + other.values)
        ends = (*self.values[:2], *other.values[:2])
        return replace(self, values=(min(ends), max(ends), *self.values[2:]))

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one of the choices, or between the ends."""
        return value in self.values if self.kind == "choice" else self.samples[0] <= value <= self.samples[1]

    @property
    def samples(self) -> list[Any]:
        """Every choice, or both ends."""
        if self.kind == "choice":
            return list(self.values)
        ends: Any = self.distribution
        return [self.decode(ends.low), self.decode(ends.high)]

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}): {(', ' if self.kind == 'choice' else ' to ').join(map(show, self.samples))}"


def read_ranges(name: str) -> list[Range]:
    """Read lines ``key kind values`` from the file ``name``, or ``<name>.hyper`` of our ``properties/hyper/``.

    Blank lines and what follows ``#`` don't count. A ``ValueError`` names a line and what to write.
    """
    ours = properties_dir() / "hyper"
    file = next(filter(Path.is_file, (Path(name), ours / f"{name}.hyper")), None)
    if file is None:
        known = ", ".join(sorted(file.stem for file in ours.glob("*.hyper")))
        raise ValueError(f"params_file: {name!r} is neither a file nor one of {known}")
    ranges: dict[str, Range] = {}
    for number, line in enumerate(read_utf8(file, "params_file").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where, parts = f"{file}, line {number}", line.split(maxsplit=2)
        if len(parts) < 3 or parts[1] not in KINDS:
            raise ValueError(f"{where}: {line.strip()!r} is not 'key kind values' with a kind of {', '.join(KINDS)}")
        name, kind, text = parts
        if name in ranges:
            raise ValueError(f"{where}: {name} has a range already ({ranges[name].where}); leave one")
        if name in KEYS and not KEYS[name].tunable:
            raise ValueError(f"{where}: {name} can't be tuned: trials that differ in it can't be compared")
        try:
            values = _read_choices(text) if kind == "choice" else _read_bounds(kind, text)
        except ValueError as error:
            raise ValueError(f"{where}: {text!r} ({error}); write {name} {kind} {KINDS[kind]}") from None
        ranges[name] = Range(name, kind, values, where)
    if not ranges:
        raise ValueError(f"{file} has no ranges; write lines such as: learning_rate choice [1e-3, 1e-4]")
    return list(ranges.values())


def _read_choices(text: str) -> tuple[Any, ...]:
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError("not a list in Python's notation, with text in quotes") from None
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError("not a list with values")
    for number, value in enumerate(values):
        if any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values[:number]):
            raise ValueError(f"{value!r} twice")
    try:
        return tuple(json.loads(json.dumps(values)))  # as in the trials' records
    except TypeError:
        raise ValueError("values must be numbers, text, truth values, None, lists or dictionaries") from None


def _read_bounds(kind: str, text: str) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in text.partition("#")[0].split(","))
    if len(numbers) != (count := KINDS[kind].count(",") + 1):
        raise ValueError(f"{len(numbers)} number(s), not {count}")
    if not all(map(isfinite, numbers)) or numbers[0] >= numbers[1]:
        raise ValueError("the first number must be below the second")
    if kind == "quniform" and numbers[2] <= 0:
        raise ValueError("the step must be above 0")
    return numbers


def check_ranges(ranges: Sequence[Range], config: ALTConfig, unread: Mapping[str, str]) -> None:
    """Refuse a misspelt key, a value out of range, and a key that an argument fixes or that is ``unread``, and why."""
    allowed = {"allow_unknown_keys": True} if config["allow_unknown_keys"] else {}
    for tuned in ranges:
        name = tuned.name
        if name in config.cmd_config_dict:
            raise ValueError(f"{tuned.where}: {name} is tuned, and --{name} fixes it; leave one")
        if name in unread:
            raise ValueError(f"{tuned.where}: {name} changes nothing: {unread[name]}")
        try:
            ALTConfig(config["model"], config["dataset"], None, {name: tuned.samples[0], **allowed})
            for value in tuned.samples:
                check_values({**config.final_config_dict, name: value})
        except ValueError as error:
            raise ValueError(f"{tuned.where}: {error}") from None


def widen(ranges: Sequence[Range], chosen: Sequence[Mapping[str, Any]]) -> list[Range]:
    """All ranges, those at whose ends a value was chosen made wider."""
    wider = list(ranges)
    for i, one in enumerate(ranges):
        ends = [end for parameters in chosen if one.name in parameters and (end := one.end_at(parameters[one.name]))]
        if ends and (new := one.beyond(ends[0])):
            wider[i] = one.joined(new)
    return wider


def lies_within(parameters: Mapping[str, Any], ranges: Sequence[Range]) -> bool:
    """Whether ``ranges`` hold every value of ``parameters``; False where there are none."""
    return bool(ranges) and all(one.holds(parameters[one.name]) for one in ranges)


def count_combinations(ranges: Sequence[Range], tried: Sequence[Range] = ()) -> int | None:
    """How many combinations of choices there are outside the ranges ``tried``; None where a range is no choice."""
    if any(one.kind != "choice" for one in ranges):
        return None
    return prod(len(one.values) for one in ranges) - (prod(len(one.values) for one in tried) if tried else 0)


def count_trials(ranges: Sequence[Range], algo: str, max_evals: int | None) -> int:
    """The most trials there can be; a ``ValueError`` if exhaustive search can't make them, or is to make fewer."""
    if algo != "exhaustive":
        return 100 if max_evals is None else max_evals
    for tuned in ranges:
        if tuned.kind != "choice":
            raise ValueError(
                f"{tuned.where}: exhaustive search can't try every value of a {tuned.kind} range: write "
                f"{tuned.name} choice [...], or give --algo=random or --algo=bayes"
            )
    total = prod(len(tuned.values) for tuned in ranges)
    if max_evals is not None:
        raise ValueError(f"max_evals: exhaustive search makes all {total} trials; leave it out, or give --algo=random")
    return total
