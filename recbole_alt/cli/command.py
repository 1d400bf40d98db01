"""What a subcommand of ``recbole-alt`` is made of."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        about: What it does, in one line.
        add_options: Adds its options to a parser.
        work: Does it, given the parsed options (``words``: all as given) and the keys of the configuration.
        takes_keys: True if keys of the configuration may follow as ``--key=value``.
        stopped: What to say after Ctrl-C.
    """

    about: str
    add_options: Callable[[ArgumentParser], object]
    work: Callable[[Namespace, list[str]], object]
    takes_keys: bool = False
    stopped: str = ""


def add_config_options(parser: ArgumentParser) -> None:
    """Add the options that say what a configuration is made of."""
    parser.add_argument("--model", help="ALT_<backbone> (default: the YAML files', else ALT_DCN)")
    parser.add_argument("--dataset", help="name of the atomic files (default: the YAML files', else ml-100k)")
    parser.add_argument("--config_files", help="YAML files, separated by spaces")
