"""From the words of a command line to the command that they name."""

import sys
from collections.abc import Sequence

from recbole_alt import __version__
from recbole_alt.arguments import parse_arguments
from recbole_alt.cli import compare, convert, export, extend, keys, predict, questions, run, tune
from recbole_alt.cli.command import Command
from recbole_alt.cli.parser import Parser

COMMANDS: dict[str, Command] = {
    "run": run.COMMAND,
    "tune": tune.COMMAND,
    "compare": compare.COMMAND,
    "convert": convert.COMMAND,
    "predict": predict.COMMAND,
    "extend": extend.COMMAND,
    "export": export.COMMAND,
    "probe": questions.PROBE,
    "unseen": questions.UNSEEN,
    "diagnose": questions.DIAGNOSE,
    "keys": keys.COMMAND,
}


def main(argv: Sequence[str] | None = None, command: str | None = None) -> int:
    """Run a command, and return its exit status; see :func:`recbole_alt.cli.errors.exit_status`.

    Args:
        argv: The words after the program's name; ``sys.argv``'s by default.
        command: A name from :data:`COMMANDS`. By default the first word names it, and ``run`` is meant where there is
            none, or where it is an option other than ``--help`` and ``--version``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if command is None and (not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"))):
        command = "run"
    parser = Parser(prog="recbole-alt", description="Align a language model with a CTR model, inside RecBole.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {name: subparsers.add_parser(name, help=one.about) for name, one in COMMANDS.items()}
    for name, one in COMMANDS.items():
        parsers[name].description = f"{one.about[0].upper()}{one.about[1:]}."
        if one.takes_keys:
            parsers[name].epilog = "Any key of the configuration: --key=value. `recbole-alt keys` lists them."
        one.add_options(parsers[name])
    options, rest = parser.parse_known_args(words if command is None else [command, *words])
    options.words = words if command else words[1:]
    chosen = COMMANDS[options.command]
    if rest and not chosen.takes_keys:
        parsers[options.command].error(f"{rest[0]!r} is not understood: see recbole-alt {options.command} --help")
    try:
        parse_arguments(rest)
    except ValueError as error:
        parsers[options.command].error(str(error))

    try:
        import recbole_alt.api  # noqa: F401  # before anything of RecBole's is used
    except ImportError as error:
        parser.exit(2, f"error: {error}\n")
    from recbole_alt.cli.errors import exit_status

    return exit_status(lambda: chosen.work(options, rest), chosen.stopped)
