"""Convert raw files: ``python -m recbole_alt.convert goodreads RAW --genre=poetry --out=dataset``."""

from __future__ import annotations

import sys
from typing import Any

from recbole_alt import console
from recbole_alt.cli.parser import Parser
from recbole_alt.convert import CONVERTERS, convert
from recbole_alt.convert.goodreads import EXTRAS, GENRES


def main() -> int:
    """Convert; exit statuses as of :func:`recbole_alt.console.run`."""
    parser = Parser(description="Write RecBole atomic files from a data set's official raw files.")
    parser.add_argument("dataset", choices=list(CONVERTERS))
    parser.add_argument("raw", help="folder of the unpacked download")
    parser.add_argument("--out", default="dataset", help="RecBole's data_path (default %(default)s)")
    parser.add_argument(
        "--any_size", action="store_true", help="accept other row counts than the published: a subset of your own"
    )
    parser.add_argument("--genre", choices=list(GENRES), help="goodreads: one genre (default: all books)")
    parser.add_argument(
        "--without", action="append", default=[], choices=list(EXTRAS), help="goodreads: a file you do not have"
    )
    arguments = parser.parse_args()
    options: dict[str, Any] = {}
    if arguments.dataset == "goodreads":
        options = {"genre": arguments.genre, "without": tuple(arguments.without)}
    elif arguments.genre or arguments.without:
        parser.error(f"--genre and --without are of goodreads, not of {arguments.dataset}")

    def work() -> None:
        lines = convert(arguments.dataset, arguments.raw, arguments.out, any_size=arguments.any_size, **options)
        print("\n".join(lines))

    return console.run(work, stopped="nothing written")


if __name__ == "__main__":
    sys.exit(main())
