"""``recbole-alt extend``: new users and items for a finished run."""

from argparse import ArgumentParser, Namespace

from recbole_alt.cli.command import Command


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", help="folder of a run: saved/ALT_DCN-ml-100k-...")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="write the extended run there")
    parser.add_argument("--item", metavar="FILE", help="describes new items: .item, .csv or .parquet")
    parser.add_argument("--user", metavar="FILE", help="describes new users: .user, .csv or .parquet")
    parser.add_argument("--neighbours", type=int, default=10, help="known ids to ask (default %(default)s)")


def _work(options: Namespace, _: list[str]) -> None:
    from recbole_alt.extending import extend

    found = extend(options.run, options.out, item=options.item, user=options.user, neighbours=options.neighbours)
    print(found.summary())


COMMAND = Command("add new users and items to a finished run, by their texts", _add_options, _work)
