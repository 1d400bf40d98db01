"""Align, finetune and compare: ``python -m recbole_alt --model=ALT_DCN --dataset=ml-100k``."""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    """Run; exit statuses as of :func:`recbole_alt.console.run`."""
    parser = argparse.ArgumentParser(
        description="Align a language model with a CTR model, finetune, and compare with the plain one.",
        epilog="Any key of the YAML files: --key=value.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", help="ALT_<backbone> (default: the YAML files', else ALT_DCN)")
    parser.add_argument("--dataset", help="name of the atomic files (default: the YAML files', else ml-100k)")
    parser.add_argument("--config_files", default="", help="YAML files, separated by spaces")
    arguments, others = parser.parse_known_args()
    for other in others:
        if not other.startswith("--") or "=" not in other:
            parser.error(f"{other!r} is not understood: write --key=value")

    from recbole_alt import console, run_recbole_alt

    return console.run(lambda: run_recbole_alt(arguments.model, arguments.dataset, arguments.config_files.split()))


if __name__ == "__main__":
    sys.exit(main())
