"""Parquet files give the same dataset as text files, to the last bit, or are refused by file, row, column and value."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ITEMS, USERS, interactions
from recbole.data import create_dataset

from recbole_alt.config import ALTConfig
from recbole_alt.data.atomic import AtomicFile
from recbole_alt.data.parquet import ParquetFile
from recbole_alt.extending.files import write_files

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
Own = Callable[..., ALTConfig]


@contextmanager
def refused(message: str) -> Iterator[None]:
    """A ValueError of one line."""
    with pytest.raises(ValueError, match=message) as error:
        yield
    assert "\n" not in str(error.value)


def to_parquet(text: Path, typed: bool = True, **options: Any) -> None:
    """Write a text file as Parquet beside itself, and delete it; numbers as numbers, sequences as lists."""
    file = AtomicFile(str(text))
    header = file.header()
    frame, columns = file.read(header), {}
    for name, kind in header.items():
        cells = [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in frame[name]]
        cells = [list(cell) if isinstance(cell, np.ndarray) else cell for cell in cells]
        if kind == "token" and all(cell is None or (cell.isdecimal() and str(int(cell)) == cell) for cell in cells):
            cells = [None if cell is None else int(cell) for cell in cells]
        columns[f"{name}:{kind}" if typed else name] = pa.array(cells)
    parquet.write_table(pa.table(columns), f"{text}.parquet", **options)
    text.unlink()


def same_data(one: Any, other: Any) -> None:
    """Two datasets have the same bits before their split, and after it."""
    assert one.left_out == {name.replace(".parquet", ""): n for name, n in other.left_out.items()}
    for name, tokens in one.field2id_token.items():
        assert list(tokens) == list(other.field2id_token[name]), name
    assert {name: (list(w.words), w.key) for name, w in one.field_words.items()} == {
        name: (list(w.words), w.key) for name, w in other.field_words.items()
    }
    for entry, entries in ((w.entry_of, other.field_words[name].entry_of) for name, w in one.field_words.items()):
        np.testing.assert_array_equal(entry, entries)
    for datasets in (one, other):
        torch.manual_seed(0)
        datasets.parts = datasets.build()
    for part, same in zip([one, *one.parts], [other, *other.parts], strict=True):
        for feat in ("inter_feat", "user_feat", "item_feat"):
            columns, others = (getattr(dataset, feat).interaction for dataset in (part, same))
            assert list(columns) == list(others)
            assert all(torch.equal(columns[name], others[name]) for name in columns), feat
    assert one.identity == other.identity


EVERYTHING = {
    "load_col": None,
    "prompt_only": {"item": ["title"]},
    "unload_col": {"item": ["title"]},
    "threshold": {"rating": 3},
    "numerical_features": ["dwell", "height", "length", "visits", "scores"],
    "template": {"exclude": []},
}


@pytest.mark.parametrize("options", [{}, {"row_group_size": 7}, {"use_dictionary": False}], ids=str)
def test_every_kind_of_column_is_that_of_the_text_files(own: Own, options: dict[str, Any]) -> None:
    texts = {"inter": interactions(), "user": USERS + "u1\t9\t\t\t\t\n\t1\t\t\t\t\n", "item": ITEMS}
    one = create_dataset(own("d", **texts, **EVERYTHING))
    config = own("e", **texts, **EVERYTHING)
    for suffix in texts:
        to_parquet(Path(f"e/e.{suffix}"), **options)
    same_data(one, _renamed(create_dataset(config)))


def _renamed(dataset: Any) -> Any:
    """Reasons to leave rows out name the file."""
    dataset._left_out = {name.replace("e.", "d."): reasons for name, reasons in dataset._left_out.items()}
    return dataset


def test_ml_100k_is_that_of_the_text_files(tmp_path: Path) -> None:
    quiet = {"show_progress": False, "state": "ERROR"}
    text = ALTConfig("ALT_DCN", "ml-100k", None, quiet)
    folder = tmp_path / "ml-100k"
    shutil.copytree(text["data_path"], folder)
    for file in [*folder.glob("*.inter"), *folder.glob("*.user"), *folder.glob("*.item")]:
        to_parquet(file)
    same_data(
        create_dataset(text),
        create_dataset(ALTConfig("ALT_DCN", "ml-100k", None, quiet | {"data_path": str(tmp_path)})),
    )


def file_of(columns: dict[str, Any], **options: Any) -> ParquetFile:
    parquet.write_table(pa.table(columns), "d.item.parquet")
    return ParquetFile("d.item.parquet", **options)


def read(columns: dict[str, Any], as_text: tuple[str, ...] = (), **options: Any) -> dict[str, list[Any]]:
    file = file_of(columns, **options)
    frame = file.read([name for name in file.header() if name not in as_text], as_text)
    cells = {
        str(name): [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in frame[name]] for name in frame
    }
    return {
        name: [None if isinstance(c, float) and math.isnan(c) else c for c in column] for name, column in cells.items()
    }


def test_a_type_follows_from_what_a_column_holds_or_is_given() -> None:
    columns = {
        "a": pa.array(["x", None]).dictionary_encode(),
        "b": [1.5, None],
        "c": [["x", "y"], None],
        "d": [[0.5], [2.0, None]],
        "e": [7, 8],
        "f": [7, 8],
        "g:token": [1, 2],
    }
    file = file_of(columns, types={"e": "token", "f": "float"})
    assert list(file.header().values()) == ["token", "float", "token_seq", "float_seq", "token", "float", "token"]
    assert file.untyped() == set("abcdef")
    lists = {"c": [["x", "y"], []], "d": [[0.5], [2.0]]}
    found = {"a": ["x", None], "b": [1.5, None]} | lists | {"e": ["7", "8"], "f": [7.0, 8.0], "g": ["1", "2"]}
    assert read(columns, types={"e": "token", "f": "float"}) == found


def test_nulls_and_empty_texts_are_missing_and_nothing_else_is() -> None:
    words = ["NA", "null", "nan", " ", "\0", "x\0y", '"', "\n", "\t"]
    cells = {"a:token": [*words, "", None], "b:token_seq": [["", "x", None, "y z"], [], None] + [["q"]] * 8}
    assert read(cells) == {"a": [*words, None, None], "b": [["x", "y z"], [], []] + [["q"]] * 8}
    file = file_of(cells)
    assert file.is_plain
    file.read(["a"])
    assert not file.is_plain


def test_sequences_may_be_texts_and_prompts_read_what_is_there() -> None:
    cells = {"a:token_seq": ["x  y", None], "b:float_seq": ["1  2.5", ""], "c:token_seq": [["x", "y"], []]}
    cells |= {"d:float": [9.0, 310.5], "e:float_seq": [[1.0, 0.25], None], "f:token": [3, None]}
    lists = {"a": [["x", "y"], []], "b": [[1.0, 2.5], []], "c": [["x", "y"], []]}
    assert read(cells) == lists | {"d": [9.0, 310.5], "e": [[1.0, 0.25], []], "f": ["3", None]}
    texts = {"a": ["x  y", None], "b": ["1  2.5", None], "c": ["x y", None], "d": ["9", "310.5"], "e": ["1 0.25", None]}
    assert read(cells, as_text=tuple("abcdef")) == texts | {"f": ["3", None]}
    cells = {"a:float": pa.array([0.1, 2.0], pa.float32()), "b:float_seq": pa.array([[0.1, 1.1], None])}
    cells |= {"c:token_seq": [["x", None, "", "y"], []], "d:token_seq": [[True, False], None]}
    texts = {"a": ["0.1", "2"], "b": ["0.1 1.1", None], "c": ["x y", None], "d": ["true false", None]}
    assert read(cells, as_text=tuple("abcd")) == texts


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.0, math.nan]), r"row 2: column 'a' holds no finite number .*: nan"),
        (pa.array([[0], [1]], pa.list_(pa.timestamp("s"))), r"column 'a' is of type token_seq and holds timestamp"),
        (pa.array([[b"x"], []], pa.list_(pa.binary())), r"column 'a' is of type token_seq and holds binary"),
        (pa.array([[["x"]], []]), r"column 'a' is of type token_seq and holds list"),
    ],
)
def test_prompts_read_nothing_that_has_no_one_text(column: Any, message: str) -> None:
    kind = "token_seq" if pa.types.is_list(column.type) else "float"
    with refused(message):
        file_of({f"a:{kind}": column}).read([], ["a"])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"a:float": [1.0, math.nan]}, r"d\.item\.parquet, row 2: column 'a' holds no finite number .*: nan; write .*null"),
    ({"a:float": [1.0, -math.inf, 1e39]}, r"row 2: column 'a' .*: -inf \(so do 2 values\)"),
    (
        {"a:float": ["1", "2"]},
        r"d\.item\.parquet: column 'a' is of type float and holds .*string.*: it must hold numbers",
    ),
    ({"a:float_seq": [[1.0, 0.5], None, [2.0, math.nan]]}, r"row 3: column 'a' holds no finite number"),
    ({"a:float_seq": ["1", "2 x"]}, r"row 2: column 'a' holds no finite numbers separated by ' '.*'2 x'"),
    ({"a:float_seq": [["x"]]}, r"column 'a' is of type float_seq and holds .*string.*numbers"),
    ({"a:token": [1.5, 2.0]}, r"column 'a' is of type token and holds double: it must hold texts or whole numbers"),
    ({"a:token_seq": [[1.5]]}, r"column 'a' is of type token_seq and holds double"),
    ({"a:token": [["x"]]}, r"column 'a' is of type token and holds list<.*it must hold texts"),
    ({"a": [1, 2]}, r"type of column 'a', which holds int64, is not known: .*field_types: \{a: token\}"),
    ({"a:text": ["x"]}, r"type of column 'a:text', which holds string, is not known: .*token, float, token_seq"),
    ({"a:token": ["x"], "a:float": [1.0]}, r"two columns are called 'a'"),
    ({"a:token": pa.array([], pa.string())}, r"d\.item\.parquet has no rows"),
]


@pytest.mark.parametrize(("columns", "message"), WRONG, ids=lambda given: str(given)[:40])
def test_what_a_type_does_not_say_is_refused(columns: dict[str, Any], message: str) -> None:
    with refused(message):
        file = file_of(columns)
        file.read(file.header())


def test_a_file_that_is_no_parquet_is_refused() -> None:
    Path("d.item.parquet").write_bytes(b"PAR1 a:token\nx\n")
    with refused(r"d\.item\.parquet can't be read as Parquet: "):
        ParquetFile("d.item.parquet").header()


INTER = {"user_id": ["u", "v", "u"], "item_id": ["i", "i", "j"], "label": [1.0, 0.0, 1.0]}


def test_a_dataset_is_refused_by_file_row_and_key(own: Own) -> None:
    config = own("d", inter="user_id:token\titem_id:token\tlabel:float\nu\ti\t1\n")
    with refused(r"d\.inter is there as text and as .*d\.inter\.parquet: take one"):
        parquet.write_table(pa.table(INTER), "d/d.inter.parquet")
        create_dataset(config)
    Path("d/d.inter").unlink()
    with refused(r"d\.inter\.parquet, row 3: the label 'label' must be 0 or 1, and it is 2"):
        parquet.write_table(pa.table(INTER | {"label": [1.0, 0.0, 2.0]}), "d/d.inter.parquet")
        create_dataset(config)
    with refused(r"d\.inter\.parquet: the label 'label' is of type token"):
        parquet.write_table(pa.table(INTER | {"label": ["1", "0", "1"]}), "d/d.inter.parquet")
        create_dataset(config)
    with refused(r"d\.inter\.parquet: column 'user_id' is of type float; USER_ID_FIELD must be a token column"):
        parquet.write_table(pa.table(INTER | {"user_id": [1.0, 2.0, 3.0]}), "d/d.inter.parquet")
        create_dataset(config)
    config["load_col"] = {"inter": ["user_id", "item_id", "lable"]}
    with refused(r"load_col: d\.inter\.parquet has no field 'lable'"):
        parquet.write_table(pa.table(INTER), "d/d.inter.parquet")
        create_dataset(config)


def test_types_are_given_of_columns_without_one(own: Own) -> None:
    config = own("d", inter="", field_types={"user_id": "token", "label": "float"})
    Path("d/d.inter").unlink()
    codes = {"user_id": [1, 2, 1], "label": [True, False, True], "item_id:token": [1, 1, 2]}
    parquet.write_table(pa.table(codes), "d/d.inter.parquet")
    dataset = create_dataset(config)
    assert list(dataset.field2id_token["user_id"]) == ["[PAD]", "1", "2"]
    assert dataset.inter_feat["label"].tolist() == [1, 0, 1]
    config["field_types"] = {"item_id": "token", "user_id": "token", "label": "float"}
    with refused(r"field_types: 'item_id' is no column .*: those are label, user_id"):
        create_dataset(config)
    with refused(r"field_types must be like \{user_id: token\}.*'text'"):
        own("e", inter="", field_types={"user_id": "text"})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_of({"a:token": ["x"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with refused(r"Parquet files need pyarrow: pip install 'recbole_alt\[parquet\]', or use text files"):
        file.header()


def test_a_run_on_parquet_is_not_extended(tmp_path: Path) -> None:
    file = file_of({"a:token": ["x"]})
    dataset: Any = SimpleNamespace(rows={"item": [(file, np.arange(1))]}, dataset_name="d")
    with refused(r"d\.item\.parquet: only runs on text files can be extended"):
        write_files(dataset, [], tmp_path)
