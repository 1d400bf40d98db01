"""``recbole-alt tune``: a search for the best parameters of one stage."""

from argparse import ArgumentParser, Namespace

from recbole_alt.cli.command import Command, add_config_options


def _add_options(parser: ArgumentParser) -> None:
    add_config_options(parser)
    add = parser.add_argument
    add("--params_file", default="finetune", help="ranges: a file, finetune or pretrain (default %(default)s)")
    add("--stage", help="plain, ctr, lm or joint (default: the first of finetune_modes)")
    add("--algo", default="exhaustive", help="exhaustive, random or bayes (default %(default)s)")
    add("--max_evals", type=int, help="most trials of random and bayes (default 100)")
    add("--early_stop", type=int, help="trials without improvement that end random and bayes (default 10)")
    add("--resume", help="folder of a tuning that was stopped, or that another process is at work on; or last")


def _work(options: Namespace, keys: list[str]) -> None:
    from recbole_alt.study import run_hyper_alt

    given = {name: value for name, value in vars(options).items() if name not in ("command", "words", "config_files")}
    run_hyper_alt(**given, config_file_list=(options.config_files or "").split(), arguments=keys)


COMMAND = Command("tune one finetuning mode, or the plain backbone, on validation data", _add_options, _work, True)
