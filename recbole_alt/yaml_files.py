"""Reads YAML safely: UTF-8, no key twice, and numbers are what they look like; ``1e-4`` is one, as in RecBole."""

import re
from collections.abc import Hashable
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from recbole.config import Config

_Number = TypeVar("_Number", int, float)


def read_yaml(file: str | Path, what: str = "config file") -> dict[str, Any]:
    """Read the ``key: value`` pairs of a YAML file, which errors call ``what``.

    Raises:
        ValueError: the file does not exist, is not UTF-8 or what :func:`parse_yaml` reads, or holds something else; one
            line that names the file and, where there is one, the line.
    """
    name = f"{what} {str(file)!r}"
    text = read_utf8(file, what)
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{name} must hold 'key: value' pairs, not a {type(content).__name__}")
    for key in content:
        if not isinstance(key, str):
            raise ValueError(f"{name}: the key {key!r} must be text: quote it")
    return content


def read_utf8(file: str | Path, what: str) -> str:
    """Read a UTF-8 file, skipping a byte order mark; see :func:`read_yaml`."""
    path, name = Path(file), f"{what} {str(file)!r}"
    if not path.is_file():
        raise ValueError(f"{name} does not exist" + (": it is a folder" if path.is_dir() else ""))
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise ValueError(f"{name}, line {line}: byte {byte:#04x} is not UTF-8: save the file as UTF-8") from None


def parse_yaml(text: str) -> Any:
    """The content of a YAML document.

    Raises:
        ValueError: it is not plain YAML, gives a key twice in one mapping, or holds a number in octal (``010``) or
            base 60 (``1:30``).
    """
    try:
        return deepcopy(_parse(text))
    except _NotMeant:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # of dates and of endless aliases, too
        raise ValueError(f"not plain YAML: {' '.join(str(error).split())}") from None


@lru_cache(maxsize=64)
def _parse(text: str) -> Any:
    """The same object for the same text: hundreds of configurations are made of a few files."""
    return yaml.load(text, Loader=_loader())


class _NotMeant(ValueError):
    """What YAML allows and nobody means."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which PyYAML takes the last value, and YAML 1.1's surprising numbers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        given: dict[Hashable, yaml.ScalarNode] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            before = given.setdefault(self.construct_object(key, deep=True), key)
            if before is not key:
                twice = f"{key.value} is" if key.value == before.value else f"{before.value}, also as {key.value}, is"
                raise _NotMeant(f"{twice} given twice, in lines {_line(before)} and {_line(key)}: leave one")
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return self._refuse_surprise(node, super().construct_yaml_int(node))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return self._refuse_surprise(node, super().construct_yaml_float(node))

    @staticmethod
    def _refuse_surprise(node: yaml.ScalarNode, value: _Number) -> _Number:
        text = node.value.replace("_", "")
        octal = re.fullmatch(r"([-+]?)0+([0-7]+)", text)
        if octal or ":" in text:
            base, meant = ("octal", octal[1] + octal[2]) if octal else ("base 60", value)
            raise _NotMeant(
                f"{node.value} in line {_line(node)} is YAML's {base} for {value}: write {meant}, or {node.value!r} in "
                "quotes if it is a text"
            )
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


@cache
def _loader() -> type[yaml.SafeLoader]:
    """The loader, with RecBole's pattern of a float."""
    source = Config._build_yaml_loader(None)
    for first, resolvers in source.yaml_implicit_resolvers.items():
        for tag, pattern in resolvers:
            if tag == "tag:yaml.org,2002:float":
                _Loader.add_implicit_resolver(tag, pattern, [first])
    return _Loader
