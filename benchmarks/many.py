"""Data of many rows, made in seconds."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv
from setup import WORDS


@cache
def many(users: int, items: int, interactions: int) -> tuple[str, str]:
    """As :func:`setup.synthetic`, with times, each user and item met; and the same in a folder ``parquet``."""
    rng = np.random.default_rng(0)
    name, root = f"synthetic-many-{users}-{items}-{interactions}", Path(tempfile.mkdtemp())
    folder = root / name
    folder.mkdir()
    u, i = (np.concatenate([rng.permutation(n), _often(rng, n, interactions - n)]) for n in (users, items))
    words = np.array(WORDS)
    titles = [" ".join(words[chosen]) for chosen in rng.integers(0, len(words), (items, 4))]
    tables = {
        "inter": {
            "user_id:token": _named("u", u),
            "item_id:token": _named("i", i),
            "label:float": rng.integers(0, 2, interactions).astype(np.float64),
            "timestamp:float": rng.integers(946684800, 1041379200, interactions).astype(np.float64),
        },
        "user": {
            "user_id:token": _named("u", np.arange(users)),
            "age:token": rng.integers(18, 80, users).astype(str),
            "gender:token": np.array(["F", "M"])[rng.integers(0, 2, users)],
            "occupation:token": _named("job ", rng.integers(0, 20, users)),
        },
        "item": {
            "item_id:token": _named("i", np.arange(items)),
            "movie_title:token_seq": titles,
            "release_year:token": rng.integers(1930, 2001, items).astype(str),
            "class:token_seq": _named("genre ", rng.integers(0, 18, items)),
        },
    }
    for suffix, columns in tables.items():
        table = pa.table(columns)
        with open(folder / f"{name}.{suffix}", "wb") as file:
            file.write("\t".join(columns).encode() + b"\n")
            csv.write_csv(table, file, csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none"))
        lists = {c: pc.split_pattern(table[c], " ") if c.endswith("_seq") else table[c] for c in table.column_names}
        (folder / "parquet").mkdir(exist_ok=True)
        pq.write_table(pa.table(lists), folder / "parquet" / f"{name}.{suffix}.parquet")
    return name, str(root)


def _often(rng: np.random.Generator, count: int, draws: int) -> np.ndarray:
    """Draws of ``count`` things, a few of which are met often, as in life."""
    weight = 1 / np.arange(10, count + 10)
    return np.searchsorted(np.cumsum(weight / weight.sum()), rng.random(draws)).clip(max=count - 1)


def _named(what: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(what, pa.array(numbers).cast(pa.string()), "")
