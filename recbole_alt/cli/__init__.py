"""The command line, which is all that reads ``sys.argv``.

Each command is a :class:`~recbole_alt.cli.command.Command`. What a command needs beyond its options it imports when it
runs: torch and RecBole take seconds to import, and ``--help`` should not.
"""

from recbole_alt.cli.dispatch import main

__all__ = ["main"]
