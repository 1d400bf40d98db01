"""Command lines: options of our own, and any key as ``--key=value``."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """``argparse``'s parser, whose errors read as all others do and which takes no abbreviation for a key."""

    def __init__(self, **options: Any):
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Print the usage and one line ``error: …``, and exit with status 2."""
        self.print_usage(sys.stderr)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)

    def parse_with_keys(self) -> tuple[argparse.Namespace, list[str]]:
        """The options, and what is left: keys of the configuration, each as ``--key=value``."""
        arguments, others = self.parse_known_args()
        for number, other in enumerate(others):
            if other.startswith("--") and "=" in other[2:]:
                continue
            value = others[number + 1] if number + 1 < len(others) else "value"
            write = f"{other}={value}" if other.startswith("--") and len(other) > 2 else "--key=value"
            self.error(f"{other!r} is not understood: write {write}")
        return arguments, others
