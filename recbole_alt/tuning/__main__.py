"""Tune one stage: ``python -m recbole_alt.tuning --model=ALT_DCN --dataset=ml-100k --params_file=finetune``."""

from __future__ import annotations

import sys

from recbole_alt.cli.parser import Parser


def main() -> int:
    """Run; exit statuses as of :func:`recbole_alt.console.run`."""
    parser = Parser(
        description="Tune one finetuning mode, or the plain backbone, on validation data.",
        epilog="Any key of the YAML files: --key=value.",
    )
    parser.add_argument("--model", help="ALT_<backbone> (default: the YAML files', else ALT_DCN)")
    parser.add_argument("--dataset", help="name of the atomic files (default: the YAML files', else ml-100k)")
    parser.add_argument("--config_files", default="", help="YAML files, separated by spaces")
    parser.add_argument(
        "--params_file", default="finetune", help="ranges: a file, finetune or pretrain (default %(default)s)"
    )
    parser.add_argument("--stage", help="plain, ctr, lm or joint (default: the first of finetune_modes)")
    parser.add_argument("--algo", default="exhaustive", help="exhaustive, random or bayes (default %(default)s)")
    parser.add_argument("--max_evals", type=int, help="most trials of random and bayes (default 100)")
    parser.add_argument(
        "--early_stop", type=int, help="trials without improvement that end random and bayes (default 10)"
    )
    parser.add_argument("--resume", help="folder of a stopped tuning, or last")
    arguments, others = parser.parse_with_keys()

    from recbole_alt import console
    from recbole_alt.study import run_hyper_alt

    given = vars(arguments) | {"arguments": others}
    given["config_file_list"] = given.pop("config_files").split()
    return console.run(lambda: run_hyper_alt(**given))


if __name__ == "__main__":
    sys.exit(main())
