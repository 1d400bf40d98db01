"""``recbole-alt convert``: official raw files to RecBole's atomic files."""

from argparse import ArgumentParser, Namespace

from recbole_alt.cli.command import Command
from recbole_alt.convert import CONVERTERS, convert
from recbole_alt.convert.goodreads import EXTRAS, GENRES


def _add_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("dataset", choices=list(CONVERTERS))
    add("raw", help="folder of the unpacked download")
    add("--out", default="dataset", help="RecBole's data_path (default %(default)s)")
    add("--any_size", action="store_true", help="accept other row counts than the published: a subset of your own")
    add("--genre", choices=list(GENRES), help="goodreads: one genre (default: all books)")
    add("--without", action="append", default=[], choices=list(EXTRAS), help="goodreads: a file you do not have")


def _work(options: Namespace, _: list[str]) -> None:
    of_goodreads = {"genre": options.genre, "without": tuple(options.without)}
    if options.dataset != "goodreads" and any(of_goodreads.values()):
        raise ValueError(f"--genre and --without are of goodreads, not of {options.dataset}")
    given = of_goodreads if options.dataset == "goodreads" else {}
    print("\n".join(convert(options.dataset, options.raw, options.out, any_size=options.any_size, **given)))


COMMAND = Command(
    "write RecBole's atomic files from a dataset's official raw files", _add_options, _work, stopped="nothing written"
)
