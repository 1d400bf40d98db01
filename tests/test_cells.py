"""Cells of frames: one text and one number for each value, the same wherever frames are read."""

from __future__ import annotations

import array
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_alt import from_frames
from recbole_alt.data.atomic import AtomicFile
from recbole_alt.data.cells import members, quantity, token
from recbole_alt.prediction.tables import TEXT, Form, read_columns

FORM = Form("\t", "utf-8", " ")
CELLS: list[tuple[Any, str | None, float | None]] = [
    ("a b", "a b", None), ("", None, np.nan), ("007", "007", 7.0), ("1_000", "1_000", None), ("１２", "１２", None),
    (None, None, np.nan), (pd.NA, None, np.nan), (pd.NaT, None, np.nan), (np.datetime64("NaT"), None, np.nan),
    (Decimal("NaN"), None, np.nan), (float("nan"), None, np.nan), (True, "true", 1.0), (np.bool_(False), "false", 0.0),
    (3, "3", 3.0), (np.uint64(2**63), "9223372036854775808", 2.0**63), (10**400, None, None),
    (2.0, "2", 2.0), (-0.0, "0", 0.0), (1e-7, "0.0000001", 1e-7), (np.float32(0.1), "0.1", float(np.float32(0.1))),
    (1e39, None, None), (Decimal("1.00"), "1", 1.0), (Decimal("2.50"), "2.5", 2.5), (Decimal("1E+3"), "1000", 1000.0),
    (date(2010, 3, 1), "2010-03-01", 1267401600.0), (datetime(2010, 3, 1, 5), "2010-03-01 05:00:00", 1267419600.0),
    (pd.Timestamp("2010-03-01 01:00", tz="Europe/Oslo"), "2010-03-01 01:00:00+01:00", 1267401600.0),
    (np.datetime64("2010-03-01"), "2010-03-01 00:00:00", 1267401600.0),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "text", "value"), CELLS, ids=lambda given: repr(given)[:30])
def test_a_cell_has_one_text_and_one_number(cell: Any, text: str | None, value: float | None) -> None:
    if value is not None or isinstance(cell, str):
        assert token(cell) == text
    read = quantity(cell)
    assert (read is None) == (value is None) and np.array_equal([read or 0.0], [value or 0.0], equal_nan=True)


@pytest.mark.parametrize("cell", [b"x", {"a", "b"}, {"a": 1}, ["a"], 1j, pd.Timedelta(1), np.array("x"), object])
def test_what_has_no_one_text_is_refused(cell: Any) -> None:
    with pytest.raises(TypeError, match=r"holds a value of type .*, which has no one text"):
        token(cell)
    assert quantity(cell) is None


@pytest.mark.parametrize("cell", [2.0**53, -(2.0**53), np.float64(1234567890123456789)])
def test_a_float_that_may_be_several_whole_numbers_is_refused(cell: float) -> None:
    with pytest.raises(ValueError, match="may have been another whole number"):
        token(cell)
    assert token(2.0**53 - 1) == "9007199254740991"


def test_members() -> None:
    numbers = [1.5, 2.5]
    for given in (numbers, tuple(numbers), np.array(numbers), pd.Series(numbers), pd.Index(numbers), pd.array(numbers),
                  array.array("d", numbers)):  # fmt: skip
        assert members(given) == numbers
    assert members(["a", None, np.nan, "b"]) == ["a", "b"] and members(None) == members(pd.NA, " ") == []
    assert members("a  b", " ") == ["a", "b"] and members(7, " ") == [7]
    for wrong in ("a b", 7, {"a"}, {"a": 1}, np.array("a")):
        with pytest.raises(TypeError, match="holds no list"):
            members(wrong)


FRAMES: dict[str, tuple[list[Any], str, dict[str, str]]] = {
    "truth": ([True, False, True], "token", {}),
    "truth with gaps": ([True, None, False], "token", {}),
    "numbers in lists": ([[1.0, 2.0], [3.0], None], "token_seq", {"x": "token_seq"}),
    "truth in lists": ([[True], [False, True], []], "token_seq", {}),
    "times": (list(pd.to_datetime(["2010-03-01 00:00", "2011-01-01 05:00", None])), "float", {}),
    "times as tokens": (list(pd.to_datetime(["2010-03-01", "2011-01-01", None])), "token", {"x": "token"}),
    "days": ([date(2010, 3, 1), None, date(2011, 1, 1)], "float", {}),
    "decimals": ([Decimal("1.50"), None, Decimal("2")], "float", {}),
    "fractions beside nothing": ([1.5, None, 2], "float", {}),
    "whole numbers beside nothing": ([1, None, 2], "token", {"x": "token"}),
    "floats of 32 bits": (list(np.array([0.1, 1.5, 2], np.float32)), "float", {}),
    "floats of 32 bits as tokens": (list(np.array([0.1, 1.5, 2], np.float32)), "token", {"x": "token"}),
    "floats as tokens": ([1.0, None, 0.25], "token", {"x": "token"}),
}


@pytest.mark.parametrize(("cells", "kind", "types"), FRAMES.values(), ids=FRAMES)
def test_new_rows_are_read_as_from_frames_wrote_them(
    cells: list[Any], kind: str, types: dict[str, str], tmp_path: Path
) -> None:
    """Else a value of a training row is taken for another one in a row to be scored."""
    column = pd.Series(
        cells, dtype=object if kind.endswith("seq") else "float32" if type(cells[0]) is np.float32 else None
    )
    if kind == "token" and cells[0] is True:
        column = column.astype("boolean")
    frame = pd.DataFrame({"item_id": ["a", "b", "c"], "x": column})
    inter = pd.DataFrame({"user_id": ["1"], "item_id": ["a"], "label": [1.0]})
    data = from_frames(inter, items=frame, types=types, folder=tmp_path)
    file = AtomicFile(str(data.files[1]), "\t", "utf-8", data.keys["seq_separator"])
    assert file.header()["x"] == kind
    form = Form("\t", "utf-8", data.keys["seq_separator"])
    for of_kind, written in ((kind, file.read(["x"])), *([(TEXT, file.read([], ["x"]))] if kind != "float" else [])):
        read = read_columns(frame, "items", {"x": of_kind}, form)
        for one, other in zip(read["x"], written["x"], strict=True):
            if kind == "float":  # as models hold them
                one, other = np.float32(one), np.float32(other)
            assert np.array_equal(one, other) if of_kind.endswith("seq") else one == other or one != one != other


@pytest.mark.parametrize(
    ("cells", "types", "said"),
    [
        (["a b", ["a", "b"]], {}, "items, row 0, column 'x' holds no list: 'a b'; give lists"),
        ([[1], 5], {"x": "token_seq"}, "items, row 1, column 'x' holds no list: 5"),
        (["1 2", "3"], {"x": "float_seq"}, "items, row 0, column 'x' holds no list: '1 2'"),
        ([b"a", b"b"], {}, "items, row 0, column 'x' holds a value of type bytes"),
        ([{"a"}, {"b"}], {}, "items, row 0, column 'x' holds a value of type set"),
        ([["a"], [["b"]]], {}, "items, row 1, column 'x' holds a value of type list"),
        ([1, None], {}, "items: column 'x' holds whole numbers"),
        (["1_000", "2"], {"x": "float"}, "items, row 0, column 'x' holds no finite number: '1_000'"),
        (["a", "\ud800"], {}, r"items, row 1, column 'x' holds '\\ud800', which UTF-8 can't write"),
        ([1234567890123456789.0, None], {"x": "token"}, "items, row 0, column 'x' holds .*another whole number"),
    ],
)
def test_what_from_frames_refuses(cells: list[Any], types: dict[str, str], said: str) -> None:
    inter = pd.DataFrame({"user_id": ["1"], "item_id": ["a"], "label": [1.0]})
    items = pd.DataFrame({"item_id": ["a", "b"], "x": pd.Series(cells, dtype=object)})
    with pytest.raises(ValueError, match=said):
        from_frames(inter, items=items, types=types)


KINDS = {"user_id": "token", "item_id": "token"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user_id,item_id\n1,i1,\n2,i2,\n", "rows.csv, line 2: the first line names 2 columns, and here are 3 cells"),
        ("user_id,item_id\n1,i1\n2\n3,i3\n", "rows.csv, line 3: the first line names 2 columns, and here are 1 cells"),
        ("user_id,item_id,item_id\n1,i7,i1\n", "two columns that are called 'item_id'"),
        ('user_id,item_id\n1,"i1\n', "can't be read as UTF-8 text with commas"),
        ("\n\n", "is empty: its first line must name the columns"),
    ],
)
def test_a_csv_that_does_not_fit_its_header_is_refused(text: str, said: str) -> None:
    Path("rows.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_columns("rows.csv", "rows", KINDS, FORM)


def test_cells_of_a_csv() -> None:
    Path("rows.csv").write_bytes('\ufeffitem_id,x,user_id\r\n"a,""b""",,01\r\n\r\nb,,NA\r\n'.encode())
    assert read_columns("rows.csv", "rows", KINDS, FORM).values.tolist() == [["01", 'a,"b"'], ["NA", "b"]]
    Path("rows.csv").write_bytes(b"item_id,user_id\n1\0abc,1\n")
    if sys.version_info < (3, 11):
        with pytest.raises(ValueError, match="can't be read as UTF-8 text with commas"):
            read_columns("rows.csv", "rows", KINDS, FORM)
    else:
        assert read_columns("rows.csv", "rows", KINDS, FORM).values.tolist() == [["1", "1\0abc"]]


def test_empty_members_are_left_out() -> None:
    frame = pd.DataFrame({"a": [["1", "", None, 2.5], [np.nan]], "b": [["x", "", None], []]})
    read = read_columns(frame, "rows", {"a": "float_seq", "b": "token_seq"}, FORM)
    assert [cell.tolist() for cell in (*read["a"], *read["b"])] == [[1.0, 2.5], [], ["x"], []]


def test_cells_of_parquet() -> None:
    pa = pytest.importorskip("pyarrow", reason="pip install 'recbole_alt[parquet]'")
    from pyarrow import parquet

    large = [9007199254740993, None, 9007199254740995]
    cells = {
        "user_id:token": large, "item_id": pa.array([True, None, False]), "tags": [["a", None], None, []],
        "at": pa.array([0, None, 86400], pa.timestamp("s")), "price": pa.array([0.1, None, 2], pa.float32()),
    }  # fmt: skip
    parquet.write_table(pa.table(cells), "rows.parquet")
    read = read_columns("rows.parquet", "rows", KINDS | {"tags": "token_seq", "at": "float", "price": TEXT}, FORM)
    assert read["user_id"].fillna("").tolist() == ["9007199254740993", "", "9007199254740995"]
    assert read["item_id"].fillna("").tolist() == ["true", "", "false"] and read["tags"][0].tolist() == ["a"]
    assert read["at"].fillna(-1).tolist() == [0, -1, 86400] and read["price"].fillna("").tolist() == ["0.1", "", "2"]
    pd.DataFrame({"item_id": ["a"]}, index=pd.Index(["1"], name="user_id")).to_parquet("rows.parquet")
    assert read_columns("rows.parquet", "rows", KINDS, FORM).values.tolist() == [["1", "a"]]
    parquet.write_table(pa.Table.from_arrays([pa.array(["1"])] * 3, ["user_id", "item_id", "item_id"]), "rows.parquet")
    with pytest.raises(ValueError, match="two columns that are called 'item_id'"):
        read_columns("rows.parquet", "rows", KINDS, FORM)


def test_columns_may_be_called_by_numbers() -> None:
    assert read_columns(pd.DataFrame({2020: ["a"]}), "rows", {"2020": "token"}, FORM)["2020"].tolist() == ["a"]
