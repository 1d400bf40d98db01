"""Align, finetune and compare: ``python -m recbole_alt --model=ALT_DCN --dataset=ml-100k``."""

from __future__ import annotations

import sys

from recbole_alt.cli.parser import Parser


def main() -> int:
    """Run; exit statuses as of :func:`recbole_alt.console.run`."""
    parser = Parser(
        description="Align a language model with a CTR model, finetune, and compare with the plain one.",
        epilog="Any key of the YAML files: --key=value.",
    )
    parser.add_argument("--model", help="ALT_<backbone> (default: the YAML files', else ALT_DCN)")
    parser.add_argument("--dataset", help="name of the atomic files (default: the YAML files', else ml-100k)")
    parser.add_argument("--config_files", default="", help="YAML files, separated by spaces")
    options, keys = parser.parse_with_keys()
    files = options.config_files.split()
    arguments = [f"--{name}={value}" for name, value in vars(options).items() if value] + keys

    from recbole_alt import console, run_recbole_alt

    return console.run(lambda: run_recbole_alt(config_file_list=files, arguments=arguments))


if __name__ == "__main__":
    sys.exit(main())
