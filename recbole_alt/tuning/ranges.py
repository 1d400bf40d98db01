"""Ranges of the tuned keys: RecBole's line format, read without evaluating it, for hyperopt and for Ray."""

from __future__ import annotations

import ast
import importlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_alt.config import ALTConfig, properties_dir
from recbole_alt.keys import KEYS, check_values
from recbole_alt.yaml_files import read_utf8

KINDS = {"choice": "[1e-3, 1e-4]", "uniform": "0,0.5", "quniform": "16,64,16", "loguniform": "-9,-3"}


@dataclass(frozen=True)
class Range:
    """What one key is drawn from.

    Attributes:
        name: the key.
        kind: one of :data:`KINDS`.
        values: the choices; for the others low, high and, for ``quniform``, the step. ``loguniform`` has natural
            logarithms, as in RecBole.
        where: file and line.
    """

    name: str
    kind: str
    values: tuple[Any, ...]
    where: str

    def decode(self, drawn: Any) -> Any:
        """The key's value. A choice is drawn as its position: hyperopt would turn lists into tuples."""
        if self.kind == "choice":
            return self.values[int(drawn)]
        if self.kind != "quniform":
            return float(drawn)
        whole = all(float(value).is_integer() for value in self.values)
        return round(drawn) if whole else float(f"{drawn:.12g}")

    def hyperopt(self) -> Any:
        """This range as a node of hyperopt."""
        hp = needed("hyperopt.hp")
        values = [list(range(len(self.values)))] if self.kind == "choice" else self.values
        return getattr(hp, self.kind)(self.name, *values)

    def ray(self, grid: bool) -> Any:
        """This range for Ray Tune; with ``grid`` every choice in turn."""
        tune = needed("ray.tune")
        if self.kind == "choice":
            return (tune.grid_search if grid else tune.choice)(list(range(len(self.values))))
        bounds = [math.exp(value) for value in self.values] if self.kind == "loguniform" else self.values
        return getattr(tune, self.kind)(*bounds)

    def __str__(self) -> str:
        if self.kind == "choice":
            return f"{self.name}: one of {', '.join(map(str, self.values))}"
        low, high = (math.exp(v) if self.kind == "loguniform" else v for v in self.values[:2])
        step = {"quniform": f" in steps of {self.values[-1]:g}", "loguniform": ", on a logarithmic scale"}
        return f"{self.name}: {low:.4g} to {high:.4g}{step.get(self.kind, '')}"


def needed(module: str) -> Any:
    """Import what only tuning needs.

    Raises:
        ValueError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hyperopt's and ray's imports warn of what becomes of pkg_resources
            return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"tuning needs {module.split('.')[0]} ({error}): pip install 'recbole_alt[tune]'") from None


def find_ranges(name: str) -> Path:
    """The file ``name``, or ``<name>.hyper`` of our ``properties/hyper/``.

    Raises:
        ValueError: neither exists.
    """
    ours = properties_dir() / "hyper"
    for file in (Path(name), ours / f"{name}.hyper"):
        if file.is_file():
            return file
    known = ", ".join(sorted(file.stem for file in ours.glob("*.hyper")))
    raise ValueError(f"params_file: {name!r} is neither a file nor one of {known}")


def read_ranges(file: Path) -> list[Range]:
    """The ranges of a file of lines ``key kind values``; blank lines and what follows ``#`` don't count.

    Raises:
        ValueError: names the line and what to write.
    """
    ranges: dict[str, Range] = {}
    for number, line in enumerate(read_utf8(file, "params_file").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{file}, line {number}"
        parts = line.split(maxsplit=2)
        if len(parts) < 3 or parts[1] not in KINDS:
            raise ValueError(f"{where}: {line.strip()!r} is not 'key kind values' with a kind of {', '.join(KINDS)}")
        name, kind, text = parts
        if name in ranges:
            raise ValueError(f"{where}: {name} has a range already ({ranges[name].where}); leave one")
        if name in KEYS and not KEYS[name].tunable:
            raise ValueError(f"{where}: {name} can't be tuned: trials that differ in it can't be compared")
        try:
            values = _choices(text) if kind == "choice" else _bounds(kind, text)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{where}: {text!r} ({_one_line(error)}); write {name} {kind} {KINDS[kind]}") from None
        ranges[name] = Range(name, kind, values, where)
    if not ranges:
        raise ValueError(f"{file} has no ranges; write lines such as: learning_rate choice [1e-3, 1e-4]")
    return list(ranges.values())


def _choices(text: str) -> tuple[Any, ...]:
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ValueError("not a list in Python's notation, with text in quotes") from None
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError("not a list with values")
    written = [repr(value) for value in values]
    if twice := {value for value in written if written.count(value) > 1}:
        raise ValueError(f"{', '.join(sorted(twice))} twice")
    try:
        return tuple(json.loads(json.dumps(values)))  # as trials' files will have them
    except TypeError:
        raise ValueError("values must be numbers, text, truth values, None, lists or dictionaries") from None


def _bounds(kind: str, text: str) -> tuple[Any, ...]:
    parts = text.partition("#")[0].split(",")
    count = 3 if kind == "quniform" else 2
    if len(parts) != count:
        raise ValueError(f"{len(parts)} number(s), not {count}")
    numbers = tuple(float(part) for part in parts)
    if not all(map(math.isfinite, numbers)) or numbers[0] >= numbers[1]:
        raise ValueError("the first number must be below the second")
    if kind == "quniform" and numbers[2] <= 0:
        raise ValueError("the step must be above 0")
    return numbers


def check_ranges(ranges: Sequence[Range], config: Any, stage: str, unread: Mapping[str, str]) -> None:
    """Refuse a range before anything is trained.

    Args:
        ranges: what is tuned.
        config: the configuration that all trials share.
        stage: what is tuned: ``plain``, ``ctr``, ``lm`` or ``joint``.
        unread: keys that this tuning does not read, with the reason.

    Raises:
        ValueError: misspelt key, value out of range, key that changes nothing, or that the command line fixes.
    """
    allowed = {"allow_unknown_keys": True} if config["allow_unknown_keys"] else {}
    for tuned in ranges:
        name = tuned.name
        if name in config.cmd_config_dict:
            raise ValueError(f"{tuned.where}: {name} is tuned, and --{name} fixes it; leave one")
        if name in unread:
            raise ValueError(f"{tuned.where}: {name} changes nothing: {unread[name]}")
        drawn = range(len(tuned.values)) if tuned.kind == "choice" else tuned.values[:2]
        values = [math.exp(value) if tuned.kind == "loguniform" else tuned.decode(value) for value in drawn]
        try:
            ALTConfig(config["model"], config["dataset"], None, {name: values[0], **allowed})
            for value in values:
                check_values({**config.final_config_dict, name: value})
        except ValueError as error:
            raise ValueError(f"{tuned.where}: {error}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
