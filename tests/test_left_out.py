"""Rows that are not used are the right ones, and are counted by reason, said, and written beside the results."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recbole.data import create_dataset
from rows import refused

from recbole_alt import run_recbole_alt
from recbole_alt.config import ALTConfig
from recbole_alt.data.dataset import ALTDataset

Own = Callable[..., ALTConfig]

HEADER = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float\n"
USERS = "user_id:token\tage:float\n" + "".join(f"u{n}\t{20 + n}\n" for n in range(5))
ITEMS = "item_id:token\tyear:token\n" + "".join(f"i{n}\t{1990 + n}\n" for n in range(6))


def file_of(rows: list[tuple[str, str]]) -> str:
    """Interactions of these users and items; each row's timestamp is its number."""
    return HEADER + "".join(f"{user}\t{item}\t{n % 2}\t{n}\n" for n, (user, item) in enumerate(rows))


ALL = [(f"u{user}", f"i{item}") for item in range(6) for user in range(5)]  # 30 rows


def numbers(dataset: ALTDataset) -> list[int]:
    """Numbers of the rows that are left; each must still have its own user and label."""
    users = dataset.field2id_token["user_id"][dataset.inter_feat["user_id"]]
    rows = dataset.inter_feat["timestamp"].astype(int).tolist()
    assert [f"u{row % 5}" for row in rows] == users.tolist()
    assert [row % 2 for row in rows] == dataset.inter_feat["label"].tolist()
    return rows


def without(rows: dict[int, tuple[str | None, str | None]]) -> list[tuple[str, str]]:
    """``ALL``, with other ids in some rows where these are given."""
    return [tuple(new if new is not None else old for old, new in zip(ALL[n], rows.get(n, (None, None)), strict=True))
            for n in range(len(ALL))]  # type: ignore[misc]  # fmt: skip


def test_rows_without_an_id_go_and_no_others(own: Own) -> None:
    inter = file_of(without({3: ("", None), 7: (None, ""), 8: ("", ""), 20: ("", None), 29: (None, "")}))
    dataset = create_dataset(own("d", inter=inter, user=USERS + "\t99\n", item=ITEMS))
    assert numbers(dataset) == [n for n in range(30) if n not in (3, 7, 8, 20, 29)]
    assert dataset.left_out == {
        "d.inter: having no user_id": 3,
        "d.inter: having no item_id": 2,
        "d.user: having no user_id": 1,
    }
    assert dict(zip(dataset.field2id_token["user_id"], dataset.user_feat["age"], strict=True))["u4"] == 24


def test_words_for_missing_values_are_ids(own: Own) -> None:
    names = {"u0": "None", "u1": "NA", "u2": "null", "u3": "nan", "u4": ""}
    inter = file_of([(names[user], item) for user, item in ALL])
    dataset = create_dataset(own("d", inter=inter))
    assert list(dataset.field2id_token["user_id"]) == ["[PAD]", "None", "NA", "null", "nan"]
    assert dataset.left_out == {"d.inter: having no user_id": 6}


def test_of_rows_that_repeat_an_id_the_first_stays(own: Own, caplog: Any) -> None:
    item = "item_id:token\tyear:token\ni1\t1\n\t0\ni0\t2\ni1\t3\n\t0\n" + "".join(f"i{n}\t9\n" for n in range(2, 6))
    dataset = create_dataset(own("d", inter=file_of(ALL), item=item))
    years = dict(zip(dataset.field2id_token["item_id"], dataset.item_feat["year"].astype(int), strict=True))
    assert [dataset.field2id_token["year"][years[i]] for i in ("i0", "i1", "i2")] == ["2", "1", "9"]
    assert dataset.left_out == {"d.item: having no item_id": 2, "d.item: repeating the item_id of a row before": 1}
    assert "d.item: 1 of 7 rows repeat the item_id of a row before; the first is kept" in caplog.text


def test_rows_of_unknown_users_and_items_go(own: Own, caplog: Any) -> None:
    users, items = USERS.replace("u3", "x3"), ITEMS.replace("i2", "x2").replace("i5", "x5")
    dataset = create_dataset(own("d", inter=file_of(ALL), user=users, item=items))
    assert numbers(dataset) == [n for n in range(30) if n % 5 != 3 and n // 5 not in (2, 5)]
    assert dataset.left_out == {
        "d.inter: having no row in d.user (filter_inter_by_user_or_item)": 6,
        "d.inter: having no row in d.item (filter_inter_by_user_or_item)": 8,
    }
    (said,) = [record for record in caplog.records if "rows are left out" in record.message]
    assert said.levelno == logging.WARNING
    assert said.message.startswith("d.inter: 14 of 30 rows are left out: 6 for having no row in d.user (filter_")


def test_rows_of_unknown_users_stay_where_asked(own: Own) -> None:
    keys = {"user": USERS.replace("u3", "x3"), "filter_inter_by_user_or_item": False}
    dataset = create_dataset(own("d", inter=file_of(ALL), **keys))
    assert numbers(dataset) == list(range(30)) and dataset.left_out == {}


@pytest.mark.parametrize(("rows", "level"), [(1, logging.INFO), (2, logging.WARNING)])
def test_many_rows_are_a_warning(own: Own, caplog: Any, rows: int, level: int) -> None:
    caplog.set_level(logging.INFO)
    create_dataset(own("d", inter=file_of(without(dict.fromkeys(range(rows), ("", None))))))
    (said,) = [record for record in caplog.records if "rows are left out" in record.message]
    message = f"d.inter: {rows} of 30 rows are left out: {rows} for having no user_id"
    assert (said.levelno, said.message) == (level, message)


def test_filters_by_value_and_number_are_counted(own: Own) -> None:
    rows = [*ALL, ("u0", "i9"), ("u1", "i8")]
    keys = {"val_interval": {"timestamp": "[3,31]", "age": "[20,23]"}, "item_inter_num_interval": "(2,inf)"}
    dataset = create_dataset(own("d", inter=file_of(rows), user=USERS, **keys))
    users = dataset.field2id_token["user_id"][dataset.inter_feat["user_id"]]
    assert set(users) == {"u0", "u1", "u2", "u3"}
    assert dataset.left_out == {
        "d.inter: val_interval of timestamp, age": 3,
        "d.user: val_interval of timestamp, age": 1,
        "d.inter: having no row in d.user (filter_inter_by_user_or_item)": 6,
        "d.inter: user_inter_num_interval and item_inter_num_interval": 3,  # i0 is left with u3; i8 and i9
    }
    assert numbers(dataset) == [n for n in range(5, 30) if n % 5 != 4]


@pytest.mark.parametrize("keep", ["first", "last"])
def test_of_repeated_pairs_the_first_or_last_in_time_stays(own: Own, keep: str) -> None:
    lines = file_of(ALL[:5] + ALL[:5] + ALL[5:10]).splitlines(keepends=True)
    again = "".join([lines[0], *reversed(lines[1:])])  # the file runs against time
    dataset = create_dataset(own("d", inter=again, rm_dup_inter=keep))
    rest = list(range(10, 15))
    assert numbers(dataset) == ([0, 1, 2, 3, 4, *rest] if keep == "first" else [5, 6, 7, 8, 9, *rest])
    assert dataset.left_out == {f"d.inter: repeating a user and an item (rm_dup_inter: {keep})": 5}


def test_ids_that_differ_behind_a_nul_are_different(own: Own) -> None:
    names = {f"u{n}": f"u\0{n}" for n in range(5)}
    inter = file_of([(names[user], item) for user, item in ALL + ALL[:1]])
    user = USERS.replace("u0", "u\0" + "0").replace("\nu", "\nu\0").replace("u\0\0", "u\0")
    dataset = create_dataset(own("d", inter=inter, user=user, rm_dup_inter="first"))
    assert list(dataset.field2id_token["user_id"]) == ["[PAD]", *(f"u\0{n}" for n in range(5))]
    assert dataset.user_feat["age"].tolist()[1:] == [20, 21, 22, 23, 24]
    assert len(dataset) == 30 and sum(dataset.left_out.values()) == 1


def test_files_split_beforehand_lose_their_rows_without_ids_each(own: Own, tmp_path: Path) -> None:
    config = own("d", benchmark_filename=["train", "valid", "test"], user=USERS)
    parts = {"train": ALL[:20], "valid": ALL[20:25], "test": [("", "i1"), *ALL[25:30]]}
    for name, rows in parts.items():
        (tmp_path / "d" / f"d.{name}.inter").write_text(file_of(rows))
    dataset = create_dataset(config)
    assert dataset.left_out == {"d.test.inter: having no user_id": 1}
    assert [len(part) for part in dataset.build()] == [20, 5, 5]
    text = (tmp_path / "d" / "d.valid.inter").read_text()
    (tmp_path / "d" / "d.valid.inter").write_text(text.replace("i4\t1", "i4\t3"))
    refused(r"d\.valid\.inter, line 3: the label 'label' must be 0 or 1, and it is 3", config)
    (tmp_path / "d" / "d.valid.inter").write_text(text.replace("label:float", "label:token"))
    refused("benchmark_filename: column 'label' is float in .*d.train.inter and token in .*d.valid.inter", config)


@pytest.mark.parametrize("filtered", [True, False])
def test_sides_that_know_nobody_are_refused(own: Own, filtered: bool) -> None:
    keys = {"user": USERS.replace("\nu", "\n"), "filter_inter_by_user_or_item": filtered}
    refused("no user_id of d.inter is in d.user, as 'u0' there and '0' here", own("d", inter=file_of(ALL), **keys))


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"val_interval": {"timestamp": "[100,200]"}}, "no row is left: d.inter: 30 of 30.*val_interval of timestamp"),
        ({"user_inter_num_interval": "(9,inf)"}, "no row is left: d.inter: 30 of 30.*user_inter_num_interval"),
        ({"inter": file_of([("", item) for _, item in ALL])}, "no row is left: d.inter: 30 of 30.*no user_id"),
    ],
)
def test_filters_that_leave_nothing_are_named(own: Own, keys: dict[str, Any], match: str) -> None:
    refused(match, own("d", **({"inter": file_of(ALL)} | keys)))


def test_a_number_that_no_ctr_model_sees_is_said(own: Own, caplog: Any) -> None:
    item = ITEMS.replace("year:token", "year:token\tprice:float\tsizes:float_seq").replace("99", "99\t1\t2 3 ")
    item = "\n".join(line if line.count("\t") == 3 else line.replace("\t2 3", "") for line in item.splitlines())
    create_dataset(own("d", inter=file_of(ALL), user=USERS, item=item, numerical_features=["price"]))
    (said,) = [record.message for record in caplog.records if "numerical_features" in record.message]
    assert said == (
        "the CTR model doesn't see age, sizes: a float field is a feature only where numerical_features names it, as "
        "in numerical_features: [age, sizes]"
    )


@pytest.mark.usefixtures("one_thread")
def test_rows_left_out_stand_beside_the_results(keys: Any, own: Own) -> None:
    own("d", inter=file_of(without({0: ("", None)}) * 4).replace("\t3\n", "\t4\n"))
    given = {"load_col": None, "threshold": None, "prompt_only": None, "valid_metric": "LogLoss", "finetune_modes": []}
    record = run_recbole_alt("ALT_DCN", "d", None, keys(epochs=1) | given | {"data_path": "."})["record"]
    assert record["rows_left_out"] == {"d.inter: having no user_id": 4}
