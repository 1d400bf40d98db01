"""Atomic files are read as they are written, or refused by file, line, column and value."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recbole.data import create_dataset
from rows import SOME, refused

from recbole_alt.config import ALTConfig
from recbole_alt.data.atomic import AtomicFile
from recbole_alt.data.files import atomic_files, headers_of

Own = Callable[..., ALTConfig]


def file_of(content: str | bytes, **keys: Any) -> AtomicFile:
    Path("d.item").write_bytes(content.encode() if isinstance(content, str) else content)
    return AtomicFile("d.item", **keys)


def values(content: str | bytes, **keys: Any) -> dict[str, list[Any]]:
    """The columns as plain values, None where one is missing."""
    file = file_of(content, **keys)
    frame = file.read(list(file.header()))

    def plain(cell: Any) -> Any:
        if isinstance(cell, np.ndarray):
            return cell.tolist()
        return None if isinstance(cell, float) and math.isnan(cell) else cell

    return {str(name): [plain(cell) for cell in frame[name]] for name in frame}


# -- lines and cells ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "open"])
def test_a_line_ends_with_a_line_feed_and_perhaps_a_carriage_return_before_it(end: str, last: bool) -> None:
    text = end.join(["a:token\tb:token", "1\tx", "2\ty"]) + (end if last else "")
    assert values(text) == {"a": ["1", "2"], "b": ["x", "y"]}


@pytest.mark.parametrize("odd", ["\r", "\0", "\v", "\f", "\x1c", "\x85", "\u2028", '"', "\ufeff", "#", "\\", " ", "'"])
def test_any_other_character_stays_in_its_value(odd: str) -> None:
    cells = [f"{odd}", f"x{odd}y", f"{odd}z{odd}"]
    text = "a:token\tb:token_seq\tc:token\n" + "".join(f"{cell}\t{cell}\t{n}\n" for n, cell in enumerate(cells))
    members = [[word for word in cell.split(" ") if word] for cell in cells]
    assert values(text) == {"a": cells, "b": members, "c": ["0", "1", "2"]}


def test_an_empty_line_is_no_row_and_counts_as_a_line() -> None:
    text = "a:token\tb:float\n\n1\t2\n\r\n\n3\tx\n\n"
    file = file_of(text)
    assert file.fault() is None
    assert file.lines.tolist() == [3, 6]
    assert values(text.replace("x", "4")) == {"a": ["1", "3"], "b": [2.0, 4.0]}
    with pytest.raises(ValueError, match=r"d\.item, line 6: column 'b'.*'x'"):
        file.read(["a", "b"])


def test_the_only_cell_of_a_row_may_be_white() -> None:
    assert values("a:token\nx\n \n\ny") == {"a": ["x", " ", "y"]}


def test_only_an_empty_cell_is_missing() -> None:
    words = ["NA", "N/A", "None", "null", "NULL", "nan", "NaN", "-nan", "#N/A", "<NA>", "n/a", "", "0", "False"]
    text = "a:token\tb:token\n" + "".join(f"{word}\t{n}\n" for n, word in enumerate(words))
    assert values(text)["a"] == [word or None for word in words]


@pytest.mark.parametrize("separator", ["\t", ",", "::", "|", " ", "¦", "||"])
def test_any_separator_is_taken_literally(separator: str) -> None:
    rows = [["a:token", "b:float_seq"], ["x.", "1;2.5"], ["", ""], ["z", "3"]]
    text = "\n".join(separator.join(row) for row in rows)
    assert values(text, separator=separator, seq_separator=";") == {"a": ["x.", None, "z"], "b": [[1, 2.5], [], [3]]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1\t2\t3", "1\t2", "\t\t\t", "1\t2\t3"], "line 3: 2 cells where the first line names 3 (so in 2 rows)"),
        (["1\t2\t3", "1", "1\t2\t3"], "line 3: 1 cell where the first line names 3"),
        (["1\t2\t3", "1\t2\t3\t"], "line 3: 4 cells where the first line names 3"),
        (["1\t2", "1\t2\t3\t4"], "line 2: 2 cells where the first line names 3 (so in 2 rows)"),  # as many on average
    ],
)
def test_a_row_of_another_length_is_found(rows: list[str], message: str) -> None:
    file = file_of("\n".join(["a:token\tb:token\tc:token", *rows, ""]))
    assert file.fault() == f"d.item, {message}"
    assert not file.trails()


# -- numbers -----------------------------------------------------------------------------------------------------


NUMBERS = {"1": 1, " 2 ": 2, "+1": 1, "-.5": -0.5, "5.": 5, "1e5": 1e5, "1E-3": 1e-3, "": None}
TRUTHS = {"True": 1, "false": 0, "TRUE": 1, "": None}


@pytest.mark.parametrize("known", [NUMBERS, TRUTHS, NUMBERS | TRUTHS], ids=["numbers", "truths", "both"])
@pytest.mark.parametrize("odd", ["", "\0"], ids=["plain", "exact"])
def test_a_number_is_read_as_it_is_written(known: dict[str, float | None], odd: str) -> None:
    text = "a:token\tb:float\n" + "".join(f"x{odd}\t{cell}\n" for cell in known)
    assert values(text)["b"] == list(known.values())


WRONG = ["-", "1,234", "2020-01-05", "NA", "None", "nan", "inf", "-Infinity", "1e39", "1e999", "1_0", "0x1", "２"]


@pytest.mark.parametrize("cell", WRONG)
@pytest.mark.parametrize("odd", ["", "\r"], ids=["plain", "exact"])
def test_what_is_no_number_is_refused(cell: str, odd: str) -> None:
    file = file_of(f"a:token\tb:float\nx{odd}\t1\ny\t{cell}\ny\t\nz\t{cell}\n")
    with pytest.raises(ValueError) as caught:
        file.read(["a", "b"])
    message = f"d.item, line 3: column 'b' holds no finite number: {cell!r} (so do 2 rows); write numbers"
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("cell", ["0.1,0.2", "1 x", "nan", "inf 1", "1_0", "２", "1 1e39", "True"])
def test_a_sequence_of_what_are_no_numbers_is_refused(cell: str) -> None:
    file = file_of(f"a:token\tb:float_seq\nx\t1 2\ny\t\nz\t{cell}\n")
    with pytest.raises(ValueError) as caught:
        file.read(["a", "b"])
    message = f"d.item, line 4: column 'b' holds no finite numbers separated by ' ' (seq_separator): {cell!r}; write"
    assert str(caught.value).startswith(message)


def test_sequences_hold_their_members() -> None:
    text = "a:token_seq\tb:float_seq\nx  y\t1  2.5 \n\t\nNA\t3\n"
    assert values(text) == {"a": [["x", "y"], [], ["NA"]], "b": [[1.0, 2.5], [], [3.0]]}


# -- characters --------------------------------------------------------------------------------------------------


TEXT = "a:token\tb:float\né\t1\nß\t2\n"


@pytest.mark.parametrize(
    ("stored", "encoding"),
    [("utf-8", None), ("utf-8-sig", None), ("utf-8-sig", "utf-8"), ("latin-1", "latin-1"), ("cp1252", "cp1252"),
     ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-8", "utf-8-sig")],
)  # fmt: skip
def test_a_file_is_read_by_its_encoding(stored: str, encoding: str | None) -> None:
    assert values(TEXT.encode(stored), encoding=encoding) == {"a": ["é", "ß"], "b": [1.0, 2.0]}


def test_a_byte_order_mark_is_skipped_once() -> None:
    assert values("\ufeffa:token\tb:token\n\ufeffx\ty\n") == {"a": ["\ufeffx"], "b": ["y"]}


def test_the_locale_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "latin-1")
    monkeypatch.setattr("locale.getencoding", lambda: "latin-1", raising=False)
    assert values(TEXT.encode()) == {"a": ["é", "ß"], "b": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("content", "encoding", "match"),
    [
        (TEXT.encode("latin-1"), None, "d.item, line 2: byte 0xe9 can't be read as utf-8: set encoding:"),
        (b"\n" * 20_000_000 + b"\xff", None, "d.item, line 20000001: byte 0xff"),
        (TEXT.encode("utf-16"), None, "d.item, line 1: this is UTF-16, not utf-8: set encoding: utf-16"),
        (TEXT.encode("utf-16-le")[:30], None, "d.item, line 1 has NUL characters.*set encoding: utf-16-le"),
        (TEXT.encode(), "ascii", "d.item, line 2: byte 0xc3 can't be read as ascii: set encoding:"),
        (TEXT.encode(), "utf-42", "encoding: 'utf-42' is none"),
        (TEXT.encode(), "rot13", "encoding: 'rot13' is none"),
    ],
)
def test_what_cannot_be_decoded_is_refused(content: bytes, encoding: str | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        file_of(content, encoding=encoding).header()


# -- first lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a:token\tb:token\ta:float\n1\t2\t3\n", "d.item, line 1: two columns are called 'a'"),
        ("a:token\tb\n1\t2\n", r"d.item: its first line.*name:type.*found 'b'"),
        ("a:token\t:float\n1\t2\n", r"name:type.*found ':float'"),
        ("a:token\tb:text\n1\t2\n", r"name:type.*token, float, token_seq, float_seq.*found 'b:text'"),
        ("a:token,b:token\n1,2\n", r"name:type.*'\\t' \(field_separator\); found 'a:token,b:token'"),
        ("a:token\rb:token\r1\r", r"name:type.*found"),
        ("a:token\n\n", "d.item has no rows"),
        ("", "name:type"),
    ],
)
def test_a_first_line_that_names_no_columns_is_refused(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        file_of(text).header()
    assert "\n" not in str(caught.value) and "\r" not in str(caught.value)


USERS = "user_id:token\tage:float\n" + "".join(f"u{n}\t{20 + n}\n" for n in range(5))
ITEMS = "item_id:token\tyear:token\tprice:float\n" + "".join(f"i{n}\t{1990 + n}\t{n}\n" for n in range(1, 4))


def test_headers_are_those_of_the_files_that_exist(own: Own) -> None:
    config = own("heads", inter="\ufeff" + SOME, item=ITEMS.replace("\n", "\r\n"))
    headers = headers_of(atomic_files(config.final_config_dict))
    assert headers == {
        "inter": {"user_id": "token", "item_id": "token", "label": "float"},
        "item": {"item_id": "token", "year": "token", "price": "float"},
    }
    assert list(headers["item"]) == ["item_id", "year", "price"]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"user": USERS.replace("user_id", "userid")}, r"USER_ID_FIELD: d\.user has no field 'user_id'; "
         r"it has userid, age"),
        ({"inter": SOME.replace("item_id", "item")}, r"ITEM_ID_FIELD: d\.inter has no field 'item_id'.*user_id, item"),
        ({"user": USERS.replace("user_id:token", "user_id:float")}, r"d\.user, line 1: column 'user_id' is.* float"),
        ({"inter": SOME.replace("item_id:token", "item_id:token_seq")}, r"d\.inter, line 1.*'item_id'.*token_seq"),
        ({"user": USERS.replace("age", "year")}, r"column 'year' is in \S*d\.user and in \S*d\.item"),
        ({"user": USERS.replace("age", "label")}, r"column 'label' is in \S*d\.inter and in \S*d\.user"),
        ({"load_col": {"inter": ["user_id", "item_id", "label"], "item": ["year"]}}, "load_col: item must.*'item_id'"),
        ({"load_col": {"inter": ["user_id", "label"]}}, "load_col: inter must hold 'item_id'"),
        ({"user": None, "load_col": {"inter": ["user_id", "item_id", "label"], "user": ["user_id", "age"]}},
         r"load_col names user, but there is no d\.user"),
        ({"user": None, "prompt_only": {"user": ["name"]}}, r"prompt_only names user, but there is no d\.user"),
        ({"inter": None}, r"d\.inter does not exist"),
        ({"USER_ID_FIELD": None, "ITEM_ID_FIELD": None}, r"USER_ID_FIELD is empty.*d\.user"),
    ],
)  # fmt: skip
def test_files_that_do_not_go_together_are_refused(own: Own, given: dict[str, Any], match: str) -> None:
    keys = {"inter": SOME, "user": USERS, "item": ITEMS} | given
    refused(match, own("d", **{key: keys[key] for key in keys if keys[key] is not None or key.endswith("FIELD")}))


def test_a_column_in_two_files_may_be_loaded_from_one(own: Own) -> None:
    load = {"inter": ["user_id", "item_id", "label"], "user": ["user_id"], "item": ["item_id", "year"]}
    dataset = create_dataset(own("d", inter=SOME, user=USERS.replace("age", "year"), item=ITEMS, load_col=load))
    assert list(dataset.field2id_token["year"]) == ["[PAD]", "1991", "1992", "1993"]


# -- separators too many ------------------------------------------------------------------------------------------


def trailing(text: str) -> str:
    header, *rows = text.splitlines()
    return "\n".join([header, *(f"{row}\t" for row in rows)]) + "\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_separator_behind_every_row_of_a_side_is_left_out_and_said(own: Own, caplog: Any, end: str) -> None:
    item = trailing(ITEMS).replace("\n", end)
    dataset = create_dataset(own("d", inter=SOME, user=trailing(USERS), item=item))
    assert list(dataset.field2id_token["year"]) == ["[PAD]", "1991", "1992", "1993"]
    assert dataset.item_feat["price"].tolist()[1:] == [1.0, 2.0, 3.0]
    assert dataset.user_feat["age"].tolist()[1:] == [20.0, 21.0, 22.0, 23.0, 24.0]
    said = [record.message for record in caplog.records if "separator more" in record.message]
    assert len(said) == 2 and "d.user" in said[0] and "d.item" in said[1]


def test_a_separator_behind_rows_of_interactions_is_refused_with_all_files_that_have_it(own: Own) -> None:
    config = own("d", inter=trailing(SOME), user=USERS, item=trailing(ITEMS))
    refused(r"d\.inter, line 2: 4 cells where the first line names 3 \(so in 30 rows\); \S*d\.item, line 2: 4 ", config)


@pytest.mark.parametrize("row", ["i3\t1993\t3\n", "i3\t1993\t3\tx\n"], ids=["not-behind-all", "not-empty"])
def test_a_cell_too_many_is_refused_where_it_is_no_mere_separator(own: Own, row: str) -> None:
    item = trailing(ITEMS).replace("i3\t1993\t3\t\n", row)
    assert row in item
    refused(r"d\.item, line 2: 4 cells where the first line names 3", own("d", inter=SOME, item=item))
