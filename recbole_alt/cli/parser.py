"""The parser of every command: options of its own, and any key of the configuration as ``--key=value``."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from recbole_alt.arguments import parse_arguments


class _Once(argparse.Action):
    """Stores the value of an option, which may be given again only with the same value."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, option: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest)
        if before not in (self.default, value):
            parser.error(f"{option} is given twice: {before!r} and {value!r}")
        setattr(namespace, self.dest, value)


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors look like all other errors, and which never abbreviates a key."""

    def __init__(self, **options: Any):
        super().__init__(**{"allow_abbrev": False, **options})
        self.register("action", None, _Once)

    def error(self, message: str) -> NoReturn:
        """Print the usage and one line ``error: …``, and exit with status 2."""
        self.print_usage(sys.stderr)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)

    def parse_with_keys(self, arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
        """Parse the options; what is left over are keys of the configuration, each as ``--key=value``."""
        options, keys = self.parse_known_args(arguments)
        try:
            parse_arguments(keys)
        except ValueError as error:
            self.error(str(error))
        return options, keys
