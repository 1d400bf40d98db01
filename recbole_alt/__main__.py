"""Align, finetune and compare: ``python -m recbole_alt --model=ALT_DCN --dataset=ml-100k``."""

from __future__ import annotations

import argparse
import logging
import sys


def main() -> int:
    """Run; 2 and one line on standard error for bad input."""
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

    from recbole_alt import run_recbole_alt

    try:
        run_recbole_alt(arguments.model, arguments.dataset, arguments.config_files.split())
    except ValueError as error:
        logging.getLogger().debug("where it happened", exc_info=True)  # --state=debug
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
