"""Reads YAML safely: UTF-8, no key twice, and ``1e-4`` is a number, as in RecBole."""

from collections.abc import Hashable
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml
from recbole.config import Config


def read_yaml(file: str | Path, what: str = "config file") -> dict[str, Any]:
    """Read the ``key: value`` pairs of a YAML file, which errors call ``what``.

    Raises:
        ValueError: the file does not exist, is not UTF-8 or plain YAML, gives a key twice, or holds something else; one
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
        ValueError: it is not plain YAML, or gives a key twice in one mapping.
    """
    try:
        return deepcopy(_parse(text))
    except _DuplicateKey:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # of dates and of endless aliases, too
        raise ValueError(f"not plain YAML: {' '.join(str(error).split())}") from None


@lru_cache(maxsize=64)
def _parse(text: str) -> Any:
    """The same object for the same text: hundreds of configurations are made of a few files."""
    return yaml.load(text, Loader=_loader())


class _DuplicateKey(ValueError):
    """A key that is given twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; PyYAML itself takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                raise _DuplicateKey(f"{key.value} is given twice, in lines {lines[name]} and {line}: leave one")
            lines[name] = line
        return super().construct_mapping(node, deep)


@cache
def _loader() -> type[yaml.SafeLoader]:
    """The loader, with RecBole's pattern of a float."""
    source = Config._build_yaml_loader(None)
    for first, resolvers in source.yaml_implicit_resolvers.items():
        for tag, pattern in resolvers:
            if tag == "tag:yaml.org,2002:float":
                _Loader.add_implicit_resolver(tag, pattern, [first])
    return _Loader
