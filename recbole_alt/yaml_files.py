"""YAML as it is written: safe, no key twice, UTF-8, and ``1e-4`` a number as in RecBole."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from recbole.config import Config


def read_yaml(file: str | Path, what: str = "config file") -> dict[str, Any]:
    """The ``key: value`` pairs of a YAML file.

    Args:
        file: the file.
        what: what an error calls it.

    Raises:
        ValueError: no such file, another encoding than UTF-8, no plain YAML, a key given twice, or no mapping; one line
            that names the file and, where there is one, the line.
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
    """The text of a file in UTF-8, without a byte order mark.

    Args:
        file: the file.
        what: what an error calls it.

    Raises:
        ValueError: no such file, or another encoding; one line that names the file and the line.
    """
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
        ValueError: no plain YAML, or a key given twice in one mapping.
    """
    try:
        return yaml.load(text, Loader=_loader())
    except _DuplicateKey as error:
        raise ValueError(str(error)) from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # of dates and of endless aliases, too
        raise ValueError(f"not plain YAML: {' '.join(str(error).split())}") from None


class _DuplicateKey(ValueError):
    pass


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, where YAML's own takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    raise _DuplicateKey(f"{key.value} is given twice, in lines {lines[name]} and {line}: leave one")
                lines[name] = line
        return super().construct_mapping(node, deep)


@cache
def _loader() -> type[yaml.SafeLoader]:
    """The loader, with RecBole's notion of a float."""
    source = Config._build_yaml_loader(None)
    for first, resolvers in source.yaml_implicit_resolvers.items():
        for tag, pattern in resolvers:
            if tag == "tag:yaml.org,2002:float":
                _Loader.add_implicit_resolver(tag, pattern, [first])
    return _Loader
