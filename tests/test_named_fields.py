"""Keys that name fields: what every key accepts does what it says, and a name or form that is wrong is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from rows import SOME, records

from recbole_alt.config import ALTConfig
from recbole_alt.data.columns import check_forms
from recbole_alt.data.dataset import ALTDataset
from recbole_alt.data.files import atomic_files, headers_of
from recbole_alt.data.named_fields import check_named_fields
from recbole_alt.data.numbers import parse_intervals
from recbole_alt.keys import check_values

Configure = Callable[..., ALTConfig]

HEADERS = {
    "inter": {"user_id": "token", "item_id": "token", "click": "float", "label": "float", "timestamp": "float",
              "rating": "float", "device": "token", "dwell": "float", "seen": "token_seq"},
    "user": {"user_id": "token", "city": "token", "age": "float"},
    "item": {"item_id": "token", "tags": "token_seq", "title": "token", "price": "float", "vector": "float_seq"},
    "emb": {"iid": "token", "vec": "float_seq"},
}  # fmt: skip
LOAD = {
    "inter": ["user_id", "item_id", "label", "timestamp", "rating", "device", "dwell", "seen"],
    "user": ["user_id", "city", "age"],
    "item": ["item_id", "tags", "price", "vector"],
}
CONFIG: dict[str, Any] = {
    "dataset": "d", "data_path": "data/d", "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id",
    "LABEL_FIELD": "label", "TIME_FIELD": "timestamp", "RATING_FIELD": "rating", "load_col": LOAD,
    "prompt_only": {"item": ["title"]}, "numerical_features": [], "filter_inter_by_user_or_item": True,
    "user_inter_num_interval": "[0,inf)", "item_inter_num_interval": "[0,inf)", "normalize_all": None,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": None},
    "train_neg_sample_args": {"distribution": "none"},
}  # fmt: skip
NO_IDS: dict[str, Any] = {
    "USER_ID_FIELD": None, "ITEM_ID_FIELD": None, "load_col": {"inter": ["label", "device"]}, "prompt_only": None
}  # fmt: skip
EMB: dict[str, Any] = {"additional_feat_suffix": ["emb"], "load_col": LOAD | {"emb": ["iid", "vec"]}}
BENCHMARK = {"benchmark_filename": ["train", "valid", "test"]}


def load(**sides: Any) -> dict[str, Any]:
    return {"load_col": LOAD | sides}


def check(changes: dict[str, Any], without: str = "") -> None:
    check_values(CONFIG | changes)
    check_named_fields(CONFIG | changes, {suffix: header for suffix, header in HEADERS.items() if suffix != without})


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"load_col": None, "prompt_only": None},
    {"load_col": None, "prompt_only": None, "unload_col": {"item": ["title"], "inter": ["click"]}},
    {"load_col": None, "unload_col": {"item": ["title"]}},
    {"load_col": None, "prompt_only": None, "unload_col": {"user": ["user_id", "city", "age"]}},
    {**load(inter="*"), "unload_col": {"inter": ["click"]}},
    {"load_col": {"inter": LOAD["inter"]}, "prompt_only": None, "unload_col": {"user": []}},
    load(user=[]),
    NO_IDS | {"alias_of_user_id": [], "val_interval": {"device": ["phone"]}},
    {"prompt_only": {"item": ["title"], "inter": [], "user": []}},
    {"unused_col": {"inter": ["timestamp", "rating"], "item": ["price"]}, "threshold": {"rating": 4}},
    {"seq_len": {"tags": 3, "seen": 1, "vector": 2}},
    {"numerical_features": ["age", "vector"], "normalize_all": True},
    {"normalize_field": ["label"]},
    {"numerical_features": ("dwell",), "normalize_field": ["dwell", "price"], "normalize_all": False},
    {"numerical_features": ["age", "price"], "discretization": {"age": {"method": "ED", "bucket": 1},
                                                               "price": {"method": "LD"}}},
    {"val_interval": {"rating": "[1,2];(3 , 5]", "timestamp": "[1000000, 1005000]", "dwell": [1, 5]}},
    {"val_interval": {"city": ["Oslo", "1995"], "title": ["Heat"], "user_id": ["u1"]}},
    {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": [0, 10]},
    {"user_inter_num_interval": None, "rm_dup_inter": "first"},
    {"rm_dup_inter": "last", "TIME_FIELD": None},
    {"threshold": {"rating": 3.5}},
    {"threshold": {"label": 1}},
    {"alias_of_item_id": ["seen"], "alias_of_user_id": ["device"], "alias_of_entity_id": None},
    {**EMB, "alias_of_item_id": ["iid"], "preload_weight": {"iid": "vec"}},
    {"load_col": None, "prompt_only": None, "additional_feat_suffix": ["emb"]},
    BENCHMARK | {"eval_args": {"order": "TO"}, "TIME_FIELD": None},
    {"eval_args": {"order": "TO", "group_by": "user", "split": {"LS": "valid_and_test"}}},
    {"train_neg_sample_args": {"distribution": "uniform"}, "LABEL_FIELD": "made"},
    {"RATING_FIELD": None, "TIME_FIELD": None},
]  # fmt: skip


@pytest.mark.parametrize("changes", ACCEPTED)
def test_what_is_right_passes(changes: dict[str, Any]) -> None:
    check(changes)


def test_the_usual_names_of_rating_and_time_need_not_be_there() -> None:
    inter = {"user_id": "token", "item_id": "token", "label": "float"}
    check_named_fields(CONFIG | {"load_col": None, "prompt_only": None}, {"inter": inter})


REFUSED: list[tuple[dict[str, Any], str]] = [
    # files and columns
    ({"load_col": ["user_id"]}, r"load_col must be like \{inter: .*not \['user_id'\]"),
    ({"load_col": {"inters": LOAD["inter"]}}, "load_col: unknown file 'inters'; known are inter, user, item.*'inter'"),
    (load(emb=["iid"]), "load_col: unknown file 'emb'"),
    (load(user="user_id"), r"load_col: user must be a list such as \[user_id\], not 'user_id'"),
    (load(user=None), "load_col: user must be a list.*None"),
    (load(user=["user_id", ""]), "load_col: user: '' is no name"),
    (load(user=["user_id", 5]), "load_col: user: 5 is no name.*quote"),
    (load(user=["user_id", "city", "city"]), "load_col: user names 'city' twice"),
    (load(item=["item_id", "tag"]), "load_col: d.item has no field 'tag'; it has item_id, tags,.*mean 'tags'"),
    (load(item=["tags"]), "load_col: item must hold 'item_id'"),
    (load(user=["city"]), "load_col: user must hold 'user_id'"),
    (load(inter=["item_id", "label"]), "load_col: inter must hold 'user_id'"),
    ({"load_col": {"item": ["item_id"]}}, "load_col: inter must hold 'user_id'"),
    ({"load_col": {}}, "load_col: inter must hold 'user_id'"),
    (NO_IDS | {"load_col": {"inter": []}}, "load_col: inter loads no column of d.inter; it has user_id"),
    (NO_IDS | {"load_col": {"inter": ["label"], "user": ["city"]}}, "USER_ID_FIELD is empty.*d.user"),
    (NO_IDS | {"load_col": None}, "USER_ID_FIELD is empty.*d.user"),
    ({"unload_col": {"item": ["title"]}}, "unload_col names columns of item.*load_col: ~"),
    ({"load_col": {"inter": LOAD["inter"]}, "prompt_only": None, "unload_col": {"item": ["title"]}},
     "unload_col names columns of item.*load_col: ~"),
    ({"load_col": None, "unload_col": {"item": ["titel"]}}, "unload_col: d.item has no field 'titel'.*'title'"),
    ({"load_col": None, "unload_col": {"item": "*"}}, "unload_col: item must be a list"),
    ({"load_col": None, "unload_col": {"item": ["*"]}}, r"unload_col: d.item has no field '\*'"),
    ({"load_col": None, "unload_col": {"item": "title"}}, r"unload_col: item must be a list such as \[title\]"),
    ({"load_col": None, "prompt_only": None, "unload_col": {"user": ["user_id"]}}, "unload_col: user must leave"),
    ({"additional_feat_suffix": "emb"}, r"additional_feat_suffix must be a list such as \[emb\]"),
    ({"additional_feat_suffix": ["net"]}, "additional_feat_suffix names net, but there is no d.net"),
    ({"additional_feat_suffix": ["item"]}, "additional_feat_suffix: 'item'"),
    ({"additional_feat_suffix": ["emb"]}, "additional_feat_suffix names emb, but load_col.*emb: .iid, vec"),
    ({"prompt_only": ["title"]}, "prompt_only must be like"),
    ({"prompt_only": {"items": ["title"]}}, "prompt_only: unknown file 'items'.*'item'"),
    ({"prompt_only": {"item": "title"}}, r"prompt_only: item must be a list such as \[title\]"),
    ({"prompt_only": {"item": ["title", "title"]}}, "prompt_only: item names 'title' twice"),
    ({"prompt_only": {"item": ["titel"]}}, "prompt_only: d.item has no field 'titel'.*'title'"),
    ({"prompt_only": {"item": ["tags"]}}, "'tags' is loaded .load_col. and in prompt_only"),
    ({"load_col": {"inter": LOAD["inter"]}}, "prompt_only: load the id of d.item"),
    ({"unused_col": {"inter": ["devise"]}}, "unused_col: inter names 'devise'.*'device'"),
    ({"unused_col": {"inter": ["city"]}}, "unused_col: inter names 'city', which is no loaded field of d.inter"),
    ({"unused_col": {"item": ["title"]}}, "unused_col: item names 'title', which prompt_only keeps"),
    ({"unused_col": ["device"]}, "unused_col must be like"),
    ({"unused_col": {"inter": ["item_id"]}}, "unused_col: inter names 'item_id', an id"),
    ({"unused_col": {"inter": ["label"]}}, "unused_col: inter names 'label'"),
    # fields with a part of their own
    ({"USER_ID_FIELD": "uid"}, r"^USER_ID_FIELD: d.inter has no field 'uid'; it has user_id, .*'user_id'"),
    ({"LABEL_FIELD": ""}, "LABEL_FIELD must be the name of a field.*not ''"),
    ({"ITEM_ID_FIELD": ["item_id"]}, "ITEM_ID_FIELD must be the name of a field.*not .'item_id'"),
    ({"USER_ID_FIELD": "device", **load(user=["city"])}, r"^USER_ID_FIELD: d.user has no field 'device'; it has us"),
    ({"TIME_FIELD": "time"}, r"^TIME_FIELD: d.inter has no field 'time'; it has .*timestamp"),
    ({"RATING_FIELD": "ratings"}, r"^RATING_FIELD: d.inter has no field 'ratings'.*'rating'"),
    ({"LABEL_FIELD": "labels"}, r"^LABEL_FIELD: d.inter has no field 'labels'; it has .*threshold"),
    ({"LABEL_FIELD": "click"}, r"load_col: inter must hold 'click' \(LABEL_FIELD\)"),
    ({"LABEL_FIELD": None, "threshold": {"rating": 4}}, "LABEL_FIELD must be the name of a field, not None"),
    ({"eval_args": {"order": "TO"}, "TIME_FIELD": None}, "eval_args: order: TO needs TIME_FIELD"),
    ({"eval_args": {"order": "TO"}, "TIME_FIELD": "device"}, "order: TO.*'device', which is token in d.inter.*float"),
    ({"eval_args": {"order": "TO"}, **load(inter=["user_id", "item_id", "label"])}, "order: TO.*'timestamp'.*leaves"),
    (NO_IDS | {"eval_args": {"group_by": "user"}}, "eval_args: group_by: user needs USER_ID_FIELD"),
    (NO_IDS | {"eval_args": {"split": {"LS": "valid_only"}}}, "eval_args: split: LS needs USER_ID_FIELD"),
    ({"threshold": 4}, r"threshold must be \{field: number\}.*not 4"),
    ({"threshold": {"rating": 4, "dwell": 2}}, r"threshold must be \{field: number\}"),
    ({"threshold": {"ratings": 4}}, "threshold names 'ratings'.*'rating'"),
    ({"threshold": {"device": 4}}, "threshold names 'device', which is token"),
    ({"threshold": {"price": 4}}, "threshold names 'price', which is no loaded field of d.inter"),
    ({"threshold": {"click": 1}}, "threshold names 'click', which d.inter has but load_col"),
    *(({"threshold": {"rating": bad}}, "threshold: rating must be a number") for bad in ("4", True, None, math.nan)),
    # rows
    ({"val_interval": "[1,5]"}, "val_interval must be like"),
    ({"val_interval": {"ratings": "[1,5]"}}, "val_interval names 'ratings'.*'rating'"),
    ({"val_interval": {"vector": "[1,5]"}}, "val_interval names 'vector', which is float_seq"),
    ({"val_interval": {"tags": ["new"]}}, "val_interval names 'tags', which is token_seq"),
    ({"val_interval": {"rating": 4}}, r"val_interval: rating must be a text such as \"\[1,5\]\".*not 4"),
    ({"val_interval": {"city": "Oslo"}}, "val_interval: city is a token field.*list of texts.*not 'Oslo'"),
    ({"val_interval": {"city": [1995]}}, "val_interval: city is a token field.*list of texts.*1995"),
    ({"val_interval": {"city": []}}, "val_interval: city"),
    ({"user_inter_num_interval": 5}, "user_inter_num_interval must be.*not 5"),
    ({"item_inter_num_interval": "[-1,5]"}, "item_inter_num_interval must be.*0 or more"),
    ({"item_inter_num_interval": "[9,5]"}, r"item_inter_num_interval: '\[9,5\]' holds no number"),
    ({"user_inter_num_interval": "[1,2];[4,5]"}, "user_inter_num_interval must be one interval"),
    (NO_IDS | {"user_inter_num_interval": "[5,inf)"}, "user_inter_num_interval needs USER_ID_FIELD"),
    *(({"rm_dup_inter": bad}, "rm_dup_inter must be one of first, last") for bad in ("none", False, True, 1)),
    (NO_IDS | {"rm_dup_inter": "first"}, "rm_dup_inter needs USER_ID_FIELD"),
    ({"rm_dup_inter": "first", **load(inter=["user_id", "item_id", "label"])}, "rm_dup_inter: first.*'timestamp'"),
    ({"rm_dup_inter": "first", "TIME_FIELD": "device"}, "rm_dup_inter: first.*'device' of type float"),
    *(({"filter_inter_by_user_or_item": bad}, "filter_inter_by_user_or_item must be") for bad in (None, "maybe", 1)),
    *(({"benchmark_filename": bad}, "benchmark_filename must be a list of three names")
      for bad in (["train", "test"], "train", ["train", "valid", "test", "more"], [1, 2, 3], 5)),
    (BENCHMARK | {"USER_ID_FIELD": "uid"}, "USER_ID_FIELD: d.train.inter has no field 'uid'"),
    *((BENCHMARK | filtered, f"{next(iter(filtered))}: the parts of benchmark_filename")
      for filtered in ({"val_interval": {"rating": "[1,5]"}}, {"rm_dup_inter": "last"},
                       {"user_inter_num_interval": "[5,inf)"})),
    # numbers, sequences and ids
    ({"seq_len": 3}, "seq_len must be like"),
    ({"seq_len": {"tag": 1}}, "seq_len names 'tag', which is no loaded field.*tags"),
    ({"seq_len": {"city": 1}}, "seq_len names 'city', which is token in d.user: it must be token_seq or float_seq"),
    *(({"seq_len": {"tags": bad}}, "seq_len: tags must be a whole number") for bad in (0, -1, 2.0, "2", True, None)),
    ({"numerical_features": "age"}, r"numerical_features must be a list such as \[age\]"),
    ({"numerical_features": None}, "numerical_features must be a list"),
    ({"numerical_features": ["aeg"]}, "numerical_features names 'aeg'.*'age'"),
    ({"numerical_features": ["click"]}, "numerical_features names 'click', which d.inter has but load_col"),
    ({"numerical_features": ["city"]}, "numerical_features names 'city', which is token in d.user"),
    ({"numerical_features": ["age", "age"]}, "numerical_features names 'age' twice"),
    ({"numerical_features": ["label"]}, "numerical_features names 'label', which is the label"),
    ({"numerical_features": ["rating"], "threshold": {"rating": 4}}, "numerical_features names 'rating'.*threshold"),
    ({"normalize_field": ["rating"], "threshold": {"rating": 4}}, "normalize_field names 'rating'.*threshold"),
    ({"normalize_field": "age"}, r"normalize_field must be a list such as \[age\]"),
    ({"normalize_field": ["city"]}, "normalize_field names 'city', which is token"),
    ({"normalize_all": "maybe"}, "normalize_all must be true or false or empty"),
    ({"normalize_all": True, "normalize_field": ["age"]}, "normalize_field and normalize_all: give one"),
    ({"discretization": ["age"]}, "discretization must be like"),
    ({"discretization": {"age": {"method": "LD"}}}, "discretization names 'age', which numerical_features does not"),
    *(({"numerical_features": ["age"], "discretization": {"age": bad}}, f"discretization: age.*{word}")
      for bad, word in (("ED", "method"), ({"method": "XD"}, "method"), ({"bucket": 3}, "method"),
                        ({"method": "ED"}, "bucket"), ({"method": "ED", "bucket": 0}, "bucket"),
                        ({"method": "ED", "bucket": "5"}, "bucket"), ({"method": "ED", "bucket": True}, "bucket"),
                        ({"method": "LD", "bucket": 5}, "'bucket'"),
                        ({"method": "ED", "bucket": 5, "buckets": 5}, "'buckets'"))),
    ({"alias_of_item_id": ["histt"]}, "alias_of_item_id names 'histt'"),
    ({"alias_of_item_id": "seen"}, r"alias_of_item_id must be a list such as \[seen\]"),
    ({"alias_of_item_id": ("seen",)}, r"alias_of_item_id must be a list such as \[seen\]"),
    ({"alias_of_item_id": ["price"]}, "alias_of_item_id names 'price', which is float"),
    ({"alias_of_item_id": ["item_id"]}, "alias_of_item_id names 'item_id', which is an id itself"),
    ({"alias_of_user_id": ["seen"], "alias_of_item_id": ["seen"]}, "alias_of_user_id names 'seen'.*alias_of_item_id"),
    ({"alias_of_entity_id": ["nothing"]}, "alias_of_entity_id names 'nothing'"),
    (NO_IDS | {"alias_of_user_id": ["device"]}, "alias_of_user_id needs USER_ID_FIELD"),
    (EMB | {"preload_weight": ["iid"]}, "preload_weight must be like"),
    (EMB | {"preload_weight": {"item_id": "vec"}}, "preload_weight names 'item_id', which is no loaded field of d.emb"),
    (EMB | {"preload_weight": {"iid": "vector"}}, "preload_weight: iid names 'vector', which is no loaded field"),
    (EMB | {"preload_weight": {"iid": ["vec"]}}, "preload_weight: iid must be the name"),
    ({"preload_weight": {"iid": "vec"}}, "preload_weight.*additional_feat_suffix"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "match"), REFUSED)
def test_what_is_wrong_is_refused_in_one_line(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        check(changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("without", "changes", "match"),
    [
        ("user", {}, "load_col names user, but there is no d.user"),
        ("user", load(user="*"), "load_col names user, but there is no d.user"),
        (
            "item",
            {"load_col": None, "unload_col": {"item": ["title"]}},
            "unload_col names item, but there is no d.item",
        ),
        ("item", {"load_col": None}, "prompt_only names item, but there is no d.item"),
        ("inter", {}, "there is no d.inter in 'data/d'"),
        ("inter", BENCHMARK, "there is no d.train.inter in 'data/d'"),
        ("emb", EMB, "additional_feat_suffix names emb, but there is no d.emb in 'data/d'"),
    ],
)
def test_a_file_that_is_named_must_be_there(without: str, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check(changes, without)


def test_a_file_that_nobody_names_need_not_be_there() -> None:
    check({"load_col": {"inter": LOAD["inter"]}, "prompt_only": None}, without="user")
    check({"load_col": None, "prompt_only": {"user": []}, "unload_col": {"user": []}}, without="user")
    check(load(user=[]), without="user")


def test_an_error_lists_no_more_than_a_screen() -> None:
    inter = HEADERS["inter"] | {f"column{n}": "float" for n in range(500)}
    with pytest.raises(ValueError, match=r"509 in all") as caught:
        check_named_fields(CONFIG | {"USER_ID_FIELD": "nobody"}, HEADERS | {"inter": inter})
    assert len(str(caught.value)) < 500


# -- intervals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "[1,5]",
        "(0,3];[5,inf)",
        " [ 1 , 5 ) ;  (6,7] ",
        "[-inf,-1.5)",
        "[1e3,.5e4]",
        "[3,3]",
        [1, 5],
        (0, 2.5),
        "(1,+2)",
    ],
)
def test_an_interval_is_what_recbole_reads(given: Any) -> None:
    theirs = Dataset._parse_intervals_str(SimpleNamespace(logger=None), given)
    assert parse_intervals(given, "key") == theirs


@pytest.mark.parametrize(
    "given",
    ["", "1,5", "[1,5", "[1;5]", "[1,2,3]", "[a,5]", "[1,5];", "[5,1]", "(3,3]", "[3,3)", "[nan,5]", "[1_000,5]",
     "[1 5]", "]1,5[", "[inf,inf]", [1, "inf"], [True, 5], 5, None, {1: 5}, "[1,5] [6,7]", "[٣,5]"],
)  # fmt: skip
def test_no_interval_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"^key"):
        parse_intervals(given, "key")


# -- through the dataset -------------------------------------------------------------------------------------


def test_the_files_are_looked_at_before_any_is_loaded(tiny: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ALTDataset, "_load_feat", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=r"seq_len names 'genres'.*'genre'"):
        create_dataset(tiny(seq_len={"genres": 1}))


@pytest.mark.parametrize("every", ["*", ["*"], ("*",)])
def test_a_star_loads_every_column(tiny: Configure, every: Any) -> None:
    sides = {"user": ["user_id", "age"], "item": every}
    dataset = create_dataset(tiny(load_col={"inter": every} | sides, prompt_only=None))
    assert {"dwell", "device", "timestamp", "age", "title", "genre"} <= set(dataset.field2type)
    assert "gender" not in dataset.field2type


@pytest.mark.parametrize("model", ["ALT_DCN"])
def test_recboles_own_dataset_passes(model: str) -> None:
    config = ALTConfig(model, "ml-100k").final_config_dict
    headers = headers_of(atomic_files(config))
    assert headers["item"]["class"] == "token_seq" and set(headers) == {"inter", "user", "item"}
    check_named_fields(config, headers)


def test_headers_are_read_with_the_encoding_and_separator_of_the_files(own: Configure, tmp_path: Path) -> None:
    config = own("latin", inter="", field_separator="|", encoding="latin-1", additional_feat_suffix=["größe"])
    (tmp_path / "latin" / "latin.inter").write_bytes("user_id:token|größe:float\r\nu|1\r\n".encode("latin-1"))
    (tmp_path / "latin" / "latin.größe").write_bytes(b"iid:token|vec:float_seq\n1|2\n")
    headers = headers_of(atomic_files(config.final_config_dict))
    assert headers["inter"] == {"user_id": "token", "größe": "float"}
    assert headers["größe"] == {"iid": "token", "vec": "float_seq"}
    (tmp_path / "latin" / "latin.inter").write_bytes("\ufeffuser_id:token|a:float\nu|1\n".encode())
    assert list(headers_of(atomic_files(config.final_config_dict | {"encoding": None}))["inter"]) == ["user_id", "a"]


@pytest.mark.parametrize(
    ("keys", "stays"),
    [
        ({"val_interval": {"timestamp": "[1020, 1063]"}}, lambda row: 1020 <= int(row["timestamp"]) <= 1063),
        ({"val_interval": {"timestamp": "(1020, 1063);[1150, inf)"}},
         lambda row: 1020 < int(row["timestamp"]) < 1063 or int(row["timestamp"]) >= 1150),
        ({"val_interval": {"timestamp": [1020, 1063]}}, lambda row: 1020 <= int(row["timestamp"]) <= 1063),
        ({"val_interval": {"device": ["phone"]}}, lambda row: row["device"] == "phone"),
        ({"val_interval": {"user_id": ["u1", "u3"]}}, lambda row: row["user_id"] in ("u1", "u3")),
        ({"val_interval": {"title": ["Se7en"]}, "prompt_only": {"item": ["title"]}},
         lambda row: row["item_id"] == "i4"),
    ],
    ids=["spaces", "two", "list", "token", "id", "prompt-only"],
)  # fmt: skip
def test_val_interval_keeps_exactly_its_rows(
    tiny: Configure, data_path: Path, keys: dict[str, Any], stays: Callable[[dict[str, str]], bool]
) -> None:
    dataset = create_dataset(tiny(**keys))
    kept = dataset.inter_feat
    seen = [
        (dataset.field2id_token["user_id"][u], dataset.field2id_token["item_id"][i], int(time))
        for u, i, time in zip(kept["user_id"], kept["item_id"], kept["timestamp"], strict=True)
    ]
    rows = [row for row in records(data_path / "tiny" / "tiny.inter") if stays(row)]
    assert seen == [(row["user_id"], row["item_id"], int(row["timestamp"])) for row in rows] and rows


@pytest.mark.parametrize("given", ["[6, 100]", "'[6,inf)'", "(5,100)"])
def test_a_number_of_interactions_given_as_an_argument_is_that(own: Configure, given: str) -> None:
    few = "".join(f"u9\ti{1 + n % 3}\t1\n" for n in range(5))
    dataset = create_dataset(own("counted", inter=SOME + few, arguments=[f"--user_inter_num_interval={given}"]))
    assert sorted(dataset.field2id_token["user_id"][1:]) == ["u0", "u1", "u2", "u3", "u4"]
    assert len(dataset.inter_feat) == 30


def test_parts_given_beforehand_are_the_splits(own: Configure, tmp_path: Path) -> None:
    header, *lines = SOME.splitlines(keepends=True)
    config = own("parts", inter=SOME, benchmark_filename=["a", "b", "c"])
    for part, (start, end) in zip("abc", itertools.pairwise((0, 17, 22, 30)), strict=True):
        (tmp_path / "parts" / f"parts.{part}.inter").write_text(header + "".join(lines[start:end]))
    (tmp_path / "parts" / "parts.inter").unlink()
    splits = data_preparation(config, create_dataset(config))
    assert [len(split.dataset) for split in splits] == [17, 5, 8]
    (tmp_path / "parts" / "parts.c.inter").unlink()
    with pytest.raises(ValueError, match=r"benchmark_filename names c, but there is no .*parts\.c\.inter"):
        create_dataset(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("benchmark_filename", 5),
        ("benchmark_filename", "train"),
        ("additional_feat_suffix", 5),
        ("additional_feat_suffix", ["item"]),
        ("load_col", ["user_id"]),
        ("unload_col", {"inter": "label"}),
        ("unused_col", "label"),
        ("prompt_only", {"inters": []}),
    ],
)
def test_forms_are_looked_at_before_any_file(tiny: Configure, key: str, value: Any) -> None:
    config = tiny(**{key: value}).final_config_dict
    with pytest.raises(ValueError, match=f"^{key}"):
        check_forms(config)
    with pytest.raises(ValueError, match=f"^{key}"):
        create_dataset(tiny(**{key: value}))


def test_the_first_in_the_order_of_lines_stays_where_there_is_no_time(own: Configure) -> None:
    inter = "user_id:token\titem_id:token\tlabel:float\nu\ti\t1\nu\tj\t0\nu\ti\t0\n"
    with pytest.raises(ValueError, match=r"rm_dup_inter: first needs a time.*TIME_FIELD: ~"):
        create_dataset(own("timeless", inter=inter, rm_dup_inter="first"))
    config = ALTConfig("ALT_DCN", "timeless", None, {"data_path": "./", "load_col": None, "TIME_FIELD": None,
                                                    "rm_dup_inter": "last", "state": "ERROR",
                                                    "finetune_modes": []})  # fmt: skip
    assert create_dataset(config).inter_feat["label"].tolist() == [0, 0]
