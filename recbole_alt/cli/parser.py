"""The parser of every command, and of scripts that should speak like them."""

import sys
from argparse import Action, ArgumentParser, Namespace
from typing import Any, NoReturn


class Parser(ArgumentParser):
    """An ``ArgumentParser`` whose errors look like all other errors, and which never abbreviates a key."""

    def __init__(self, **options: Any):
        super().__init__(**{"allow_abbrev": False, **options})
        self.register("action", None, _Once)

    def error(self, message: str) -> NoReturn:
        """Print the usage and one line ``error: …``, and exit with status 2."""
        self.print_usage(sys.stderr)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


class _Once(Action):
    """Stores the value of an option, which may be given again only with the same value."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, value: Any, option: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        if before not in (self.default, value):
            parser.error(f"{option} is given twice: {before!r} and {value!r}")
        setattr(namespace, self.dest, value)
