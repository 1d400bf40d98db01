"""Keys on a command line, each as ``--key=value``."""

from collections.abc import Sequence


def parse_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """Split ``--key=value`` arguments into keys and their values, which may hold further ``=``.

    Raises:
        ValueError: an argument of another form, or a key with two values.
    """
    given: dict[str, str] = {}
    for number, argument in enumerate(arguments):
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals:
            following = arguments[number + 1] if number + 1 < len(arguments) else "value"
            write = f"{argument}={following}" if argument.startswith("--") and key else "--key=value"
            raise ValueError(f"{argument!r} is not understood: write {write}")
        if given.setdefault(key, value) != value:
            raise ValueError(f"--{key} is given twice: {given[key]!r} and {value!r}")
    return given
