"""``recbole-alt run``: one run."""

from argparse import ArgumentParser, Namespace

from recbole_alt.cli.command import Command, add_config_options


def _add_options(parser: ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument("--plan", action="store_true", help="say what the run would cost, and end")


def _work(options: Namespace, keys: list[str]) -> None:
    from recbole_alt.quick_start import plan_recbole_alt, run_recbole_alt

    given = {name: getattr(options, name) for name in ("model", "dataset", "config_files")}
    arguments = [f"--{name}={value}" for name, value in given.items() if value is not None]
    if options.plan:
        print(plan_recbole_alt(arguments=[*arguments, *keys]).table())
    else:
        run_recbole_alt(arguments=[*arguments, *keys])


COMMAND = Command(
    "align a language model with a CTR model, finetune, and compare with the plain one",
    _add_options,
    _work,
    takes_keys=True,
)
