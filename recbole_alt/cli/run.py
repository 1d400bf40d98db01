"""``recbole-alt run``: one run."""

from argparse import Namespace

from recbole_alt.cli.command import Command, add_config_options


def _work(options: Namespace, keys: list[str]) -> None:
    from recbole_alt.quick_start import run_recbole_alt

    given = {name: getattr(options, name) for name in ("model", "dataset", "config_files")}
    arguments = [f"--{name}={value}" for name, value in given.items() if value]
    run_recbole_alt(arguments=[*arguments, *keys])


COMMAND = Command(
    "align a language model with a CTR model, finetune, and compare with the plain one",
    add_config_options,
    _work,
    takes_keys=True,
)
