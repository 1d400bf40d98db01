"""``recbole-alt predict``: scores of any rows by a finished run."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from recbole_alt.cli.command import Command
from recbole_alt.files import check_file, replacing

_FORMATS = (".csv", ".parquet")


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", help="folder of a run: saved/ALT_DCN-ml-100k-..., or a .pth file in it")
    parser.add_argument("rows", help="rows to score: a file .inter, .csv or .parquet")
    parser.add_argument("--out", required=True, metavar="FILE", help="write ids and scores there: .csv or .parquet")
    parser.add_argument("--mode", help="plain, ctr, lm or joint (default: the best on validation)")
    parser.add_argument("--user", metavar="FILE", help="describes new users: .user, .csv or .parquet")
    parser.add_argument("--item", metavar="FILE", help="describes new items: .item, .csv or .parquet")


def _refuse_input(options: Namespace) -> None:
    """Refuse to write over a file that is read."""
    for name in ("rows", "user", "item"):
        files = [file for file in (getattr(options, name), options.out) if file is not None and os.path.exists(file)]
        if len(files) == 2 and os.path.samefile(*files):
            raise ValueError(f"out: {options.out!r} is the file of {name}, which is read: give another file")


def _work(options: Namespace, _: list[str]) -> None:
    from recbole_alt.data.parquet import require_parquet
    from recbole_alt.prediction import predict

    out = Path(options.out)
    if out.suffix not in _FORMATS:
        raise ValueError(f"out: the name of {options.out!r} must end in one of {', '.join(_FORMATS)}")
    if out.suffix == ".parquet":
        require_parquet()
    check_file("out", out)
    _refuse_input(options)
    found = predict(options.run, options.rows, mode=options.mode, users=options.user, items=options.item)
    with replacing(out) as stream:
        if out.suffix == ".csv":
            found.frame.to_csv(stream, index=False)
        else:
            found.frame.to_parquet(stream, index=False)
    print(f"{found.summary()}\nWritten: {out}")


COMMAND = Command("score any rows by a finished run, new users and items included", _add_options, _work)
