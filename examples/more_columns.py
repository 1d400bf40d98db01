"""Read the interactions of a dataset as they are written, and write a copy of it that has more columns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from csv import QUOTE_NONE
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pandas as pd

from recbole_alt import make_config
from recbole_alt.cli.errors import exit_status
from recbole_alt.cli.parser import Parser
from recbole_alt.config import ALTConfig
from recbole_alt.files import check_folder, replacing


def read_rows(config: ALTConfig) -> pd.DataFrame:
    """The rows of ``.inter``, all of them and in the file's order, as text; its columns have their names alone.

    Raises:
        ValueError: the dataset has no such file, but another form of it.
    """
    rows = _read(config)
    return rows.set_axis([column.partition(":")[0] for column in rows], axis="columns")


def require_new(config: ALTConfig, rows: pd.DataFrame, names: Collection[str]) -> None:
    """Refuse to add columns of these names, if there is one already.

    Raises:
        ValueError: names it.
    """
    if known := [name for name in names if name in rows]:
        raise ValueError(f"{config['dataset']}.inter has a column {known[0]!r} already: give the data without it")


def pairs(dataset: Any, train: Any, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """A number for each pair of a user and an item: of the training rows [n], and of all ``rows`` [N]."""
    fields = (dataset.uid_field, dataset.iid_field)
    tokens = (dataset.field2id_token[field][np.asarray(train.inter_feat[field])] for field in fields)
    return _number(*tokens), _number(*(rows[field].to_numpy() for field in fields))


def _number(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    of_users, of_items = (pd.util.hash_array(tokens.astype(object)) for tokens in (users, items))
    return ((of_users * np.uint64(31) + of_items) >> np.uint64(1)).astype(np.int64)


def write_copy(config: ALTConfig, out: Path, rows: pd.DataFrame, columns: Mapping[str, np.ndarray]) -> Path:
    """Write the files of the dataset into ``out/NAME/``, and return that folder.

    Args:
        rows: what :func:`read_rows` returned.
        columns: what ``.inter`` has more, by name: numbers, [n] in the order of its rows.
    """
    name, folder = config["dataset"], Path(config["data_path"])
    target = out / name
    more = {f"{column}:float": [f"{value:.6g}" for value in values] for column, values in columns.items()}
    rows = rows.set_axis(_read(config, nrows=0).columns, axis="columns").assign(**more)
    target.mkdir(parents=True, exist_ok=True)
    with replacing(target / f"{name}.inter") as stream:
        text = rows.to_csv(sep=config["field_separator"], index=False, lineterminator="\n", quoting=QUOTE_NONE)
        stream.write(text.encode(config["encoding"]))
    for file in (folder / f"{name}.{suffix}" for suffix in ("user", "item")):
        if file.is_file():
            copyfile(file, target / file.name)
    return target


def run(description: str, add_columns: Callable[[ALTConfig, Path], Path]) -> int:
    """Do it as the command line says; exit statuses as of :func:`recbole_alt.cli.errors.exit_status`.

    Refused is, besides what ``add_columns`` refuses, an ``--out`` that is where the data are.
    """
    parser = Parser(description=description)
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, required=True, help="write OUT/DATASET/ there")
    options, keys = parser.parse_known_args(sys.argv[1:])

    def work() -> None:
        out: Path = options.out
        check_folder("out", out)
        config = make_config("ALT_DCN", options.dataset, arguments=keys)
        if (out / config["dataset"]).resolve() == Path(config["data_path"]).resolve():
            raise ValueError(
                f"out: {str(out)!r} is where the data are, which would be overwritten: give another folder"
            )
        print(f"Written: {add_columns(config, out)}")

    return exit_status(work)


def _read(config: ALTConfig, nrows: int | None = None) -> pd.DataFrame:
    file = Path(config["data_path"], f"{config['dataset']}.inter")
    if not file.is_file():
        raise ValueError(f"{str(file)!r} is missing: columns are added to atomic files of text only")
    return pd.read_csv(
        file,
        sep=config["field_separator"],
        encoding=config["encoding"],
        quoting=QUOTE_NONE,
        dtype=str,
        keep_default_na=False,
        nrows=nrows,
    )
