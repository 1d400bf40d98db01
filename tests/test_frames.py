"""Datasets of pandas frames: the atomic files that they become, whole runs on them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_alt import FrameDataset, compare, export, from_frames, plan_recbole_alt, predict, run_recbole_alt
from recbole_alt.loading import load_data
from recbole_alt.registry import make_config

pytestmark = pytest.mark.usefixtures("one_thread")
Keys = Callable[..., dict[str, Any]]

USERS = pd.DataFrame(
    {"user": range(1, 13), "age": [20 + n for n in range(11)] + [None], "city": ["Oslo", None, "São"] * 4}
)
ITEMS = pd.DataFrame(
    {
        "item": [f"i{n}" for n in range(8)],
        "genres": [["Science Fiction", "War"], [], None, ["War"]] * 2,
        "sizes": [[0.1, 2], [3.5]] * 4,
        "price": np.array([0.1, 1e-7, 3, np.nan, 12.5, 7, 7, 1 / 3]),
        "title": [f'The "{n}"th | part' for n in range(8)],
    }
)
CLICKS = pd.DataFrame(
    {
        "user": [1 + n % 12 for n in range(96)],
        "item": [f"i{(n * n + n // 12) % 8}" for n in range(96)],
        "clicked": [n % 3 == 0 for n in range(96)],
        "at": pd.date_range("2024-01-01T00:00:00.5", periods=96, freq="h", tz="Europe/Oslo"),
    }
)
NAMES: dict[str, Any] = {"user": "user", "item": "item", "label": "clicked", "time": "at", "texts": ["title"]}


def made(clicks: pd.DataFrame = CLICKS, users: Any = USERS, items: Any = ITEMS, **given: Any) -> FrameDataset:
    return from_frames(clicks, users, items, **NAMES | {"folder": "data"} | given)


def test_the_files() -> None:
    data = made(name="shop", types={"age": "token"})
    assert [file.relative_to("data/shop").name for file in data.files] == ["shop.inter", "shop.user", "shop.item"]
    inter, users, items = (file.read_text(encoding="utf-8").splitlines() for file in data.files)
    assert inter[:2] == ["user:token\titem:token\tclicked:float\tat:float", "1\ti0\t1\t1704063600.5"]
    assert users[0] == "user:token\tage:token\tcity:token" and users[2] == "2\t21\t" and users[12] == "12\t\tSão"
    assert items[0] == "item:token\tgenres:token_seq\tsizes:float_seq\tprice:float\ttitle:token"
    assert items[1] == 'i0\tScience Fiction|War\t0.1|2\t0.1\tThe "0"th | part'
    assert items[2] == 'i1\t\t3.5\t1e-07\tThe "1"th | part' and items[4].split("\t")[3] == ""
    assert data.keys["seq_separator"] == "|" and data.keys["prompt_only"] == {"item": ["title"]}


def test_the_dataset_holds_what_the_frames_hold(keys: Keys) -> None:
    data = made(template={"fields": {"title": "title is {value}."}})
    config = make_config("ALT_DCN", data.name, None, keys() | data.keys | {"threshold": None})
    dataset = load_data(config)[0]
    tokens, feat = dataset.field2id_token, dataset.item_feat
    assert set(tokens["genres"][1:]) == {"Science Fiction", "War"} and set(tokens["city"][1:]) == {"Oslo", "São"}
    order = [list(ITEMS["item"]).index(name) for name in tokens["item"][1:]]
    low, high = np.nanmin(ITEMS["price"]), np.nanmax(ITEMS["price"])
    filled = ITEMS["price"].fillna(ITEMS["price"].mean())
    expected = ((filled - low) / (high - low)).to_numpy()[order]
    assert np.allclose(feat["price"][1:, 0].numpy(), expected, atol=1e-6)
    assert dataset.inter_feat["clicked"].sum() == CLICKS["clicked"].sum()
    texts = dataset.prompts.texts(dataset.inter_feat)
    assert any('title is the " 3 " th | part.' in text for side in texts for text in side)


def test_equal_frames_are_one_dataset_and_others_another() -> None:
    first, again = made(types={"age": "float"}), made(types={"age": "float"})
    assert first == again and str(first) == first.name
    other = made(CLICKS.assign(clicked=~CLICKS["clicked"]), types={"age": "float"})
    assert other.name != first.name and other.files[0].is_file() and first.files[0].is_file()
    made(name="shop", types={"age": "float"})
    with pytest.raises(ValueError, match=r"name: '.*shop.user' holds other data: give another name"):
        made(name="shop", types={"age": "token"})


def test_from_frames_to_scores(keys: Keys) -> None:
    given = {
        key: value for key, value in keys().items() if key not in ("load_col", "threshold", "data_path", "template")
    }
    given |= {"prompt_only": {"item": ["title"]}, "finetune_modes": ["ctr"]}
    data = made(types={"age": "float"})
    assert plan_recbole_alt("ALT_DCN", data, config_dict=given | {"show_plan": False}).stages
    result = run_recbole_alt("ALT_DCN", data, config_dict=given)
    assert {"ctr", "plain"} <= set(result["record"]["results"])
    found = predict(result["folder"], CLICKS[["user", "item"]].head(3).assign(item=["i0", "i1", "new"]))
    assert found.scores.shape == (3,) and found.new_values == {"item": {"rows": 1, "values": 1}}


@pytest.mark.slow
def test_comparing_and_exporting_in_python(keys: Keys) -> None:
    names = ("language_model", "embedding_size", "pretrain_steps", "pretrain_batch_size")
    given = {"epochs": 1} | {name: value for name, value in keys().items() if name in names}
    data = made(types={"age": "float"})
    table = compare(["DCN"], [data], "campaign", keys=given, seeds=2, modes=["ctr"], params_file="none")
    assert list(table["stage"]) == ["plain", "ctr"] and list(table["data"]) == [data.name] * 2
    assert Path("campaign/report/report.html").is_file()
    with pytest.raises(ValueError, match="is made of frames, whose keys hold for all runs: compare it alone"):
        compare(["DCN"], [data, "ml-100k"], "campaign")
    folder = run_recbole_alt("ALT_DCN", data, config_dict=given | {"finetune_modes": ["joint"]})["folder"]
    found = export(folder, mode="joint", recbole="dcn.pth", huggingface="encoder")
    assert found.files == [Path("dcn.pth"), Path("dcn.pth.yaml"), Path("encoder")]
    assert all(file.exists() for file in found.files)
    with pytest.raises(ValueError, match="nothing to do"):
        export(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"users": USERS.assign(age=range(12))},
            r"users: column 'age' holds whole numbers.*types=\{'age': 'token'\} or 'float'",
        ),
        (
            {"clicks": CLICKS.drop(columns="user")},
            "inter: there is no column 'user'; there are item, clicked, at: give user=...",
        ),
        (
            {"eval_args": {"order": "TO"}, "time": "when"},
            "inter: there is no column 'when'; there are user, item, clicked, at: give time=...",
        ),
        ({"items": ITEMS.drop(columns="item")}, "items: there is no column 'item'"),
        ({"items": ITEMS.assign(**{"a:b": 1.0})}, "items: a column can't be called 'a:b'"),
        ({"items": pd.concat([ITEMS, ITEMS["title"]], axis=1)}, "items: two columns are called 'title'"),
        ({"items": ITEMS.assign(title=["a\tb"] * 8)}, r"items, row 0, column 'title': 'a\\tb' has a tab"),
        (
            {"items": ITEMS.assign(price=[1.0] * 7 + [np.inf])},
            "items, row 7, column 'price' holds no finite number: inf",
        ),
        ({"clicks": CLICKS.assign(clicked="yes")}, "inter, row 0, column 'clicked' holds no finite number: 'yes'"),
        ({"items": ITEMS.assign(genres=[["a b|c;d,e"]] * 8)}, "sequences: every one of"),
        ({"texts": ["plot"]}, "texts: no frame has a column 'plot'; there are user, item"),
        ({"types": {"agee": "token"}}, "types: no frame has a column 'agee'"),
        ({"types": {"age": "int"}}, "types: age must be one of token, float, token_seq, float_seq, not 'int'"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = ({} if "users" in changes else {"types": {"age": "float"}}) | changes
    with pytest.raises(ValueError, match=said) as error:
        made(**given)
    assert "\n" not in str(error.value) and not Path("data").exists()
