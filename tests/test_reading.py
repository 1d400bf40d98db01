"""Whatever characters a file holds, its rows, labels and words are those of a reading in plain Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_alt.config import ALTConfig
from recbole_alt.data.dataset import ALTDataset

Own = Callable[..., ALTConfig]

ODD = "ab01\0\r\"'\\,;|#{}[]%:\v\f\x1c\x85\u2028\u200b\ufeff\xa0 éß漢🙂"
WORDS = ["NA", "None", "null", "nan", "", "-", "True", "1e5", "01", "[PAD]", "\ufeff", "\0", "x\0", "x\0y", '"', '""']

cells = st.one_of(st.sampled_from(WORDS), st.text(ODD, max_size=5))
ids = st.sampled_from(["a", "NA", "", "a\0", "a\0b", "\ufeffa", "1", "01", "1.0", '"a"', "a\r b", " "])
numbers = st.sampled_from(["", "1", "-2.5", " 3", "1e-3", ".5", "+7", "16777217", "0.1"])
lists = st.lists(st.sampled_from(["x", "NA", "y\0", "y", "\ufeff"]), max_size=3).map(" ".join)
vectors = st.lists(st.sampled_from(["1", "-2.5", "3e2"]), max_size=3).map("  ".join)
ends = st.sampled_from(["\n", "\r\n", "\n\n", "\n\r\n"])

COLUMNS = {
    "inter": {"user_id:token": ids, "item_id:token": ids, "label:float": st.sampled_from(["0", "1", "1.0", "False"]),
              "place:token": cells, "amount:float": numbers},
    "item": {"item_id:token": ids, "name:token": cells, "tags:token_seq": lists, "price:float": numbers,
             "sizes:float_seq": vectors, "title:token": cells},
}  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> dict[str, str]:
    """Text of an ``.inter`` and an ``.item`` file, whose columns stand in any order."""
    made = {}
    for suffix, columns in COLUMNS.items():
        names = draw(st.permutations(list(columns)))
        rows = [[draw(columns[name]) for name in names] for _ in range(draw(st.integers(1, 6)))]
        lines = ["\t".join(row) + draw(ends) for row in [names, *rows]]
        made[suffix] = draw(st.sampled_from(["", "\ufeff"])) + "".join(lines).rstrip("\n")
    return made


def plainly(text: str) -> list[dict[str, str]]:
    """The rows of a file by column, read the simplest way."""
    header, *lines = (line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n"))
    names = [column.split(":")[0] for column in header.split("\t")]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines if line]


def number(cell: str) -> float | None:
    return {"": None, "False": 0.0, "True": 1.0}[cell] if cell in ("", "False", "True") else float(cell)


def words(cell: str) -> str:
    return " ".join(cell.split()) or "unknown"


@pytest.fixture
def config(own: Own) -> ALTConfig:
    load = {suffix: [name.split(":")[0] for name in names] for suffix, names in COLUMNS.items()}
    load["item"].remove("title")
    keys = {"prompt_only": {"item": ["title"]}, "template": {"exclude": []}, "filter_inter_by_user_or_item": False}
    return own("d", load_col=load, **keys)


@settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "200")), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(texts=files())
def test_a_dataset_is_what_its_files_say(config: ALTConfig, texts: dict[str, str]) -> None:
    for suffix, text in texts.items():
        (Path("d") / f"d.{suffix}").write_bytes(text.encode())
    items: dict[str, dict[str, str]] = {}
    for row in plainly(texts["item"]):
        items.setdefault(row["item_id"], row)
    items.pop("", None)
    expected = [row for row in plainly(texts["inter"]) if row["user_id"] and row["item_id"]]
    if not expected or not items or not {row["item_id"] for row in expected} & set(items):
        with pytest.raises(ValueError, match=r"no row is left|no item_id of d\.inter is in d\.item"):
            ALTDataset(config)
        return
    dataset = ALTDataset(config)
    assert sum(dataset.left_out.values()) == (
        len(plainly(texts["inter"])) - len(expected) + len(plainly(texts["item"])) - len(items)
    )
    check(dataset, expected, items)


def check(dataset: ALTDataset, expected: list[dict[str, str]], items: dict[str, dict[str, str]]) -> None:
    feat = dataset.inter_feat
    assert len(feat) == len(expected)
    assert feat["label"].tolist() == [number(row["label"]) for row in expected]
    for name in ("user_id", "item_id", "place"):
        tokens = dataset.field2id_token[name]
        assert [tokens[i] if i else "" for i in feat[name].astype(int)] == [row[name] for row in expected]
        assert len(set(tokens)) == len(tokens) or "[PAD]" in tokens[1:]
    amounts = [number(row["amount"]) for row in expected]
    known = [amount for amount in amounts if amount is not None]
    mean = np.mean(known) if known else np.nan
    filled = [mean if amount is None else amount for amount in amounts]
    np.testing.assert_allclose(feat["amount"], filled, rtol=1e-12)
    for row, index in zip(expected, range(len(expected)), strict=True):
        one = {name: word(dataset, name, index) for name in dataset._field_words}
        item = items.get(row["item_id"], dict.fromkeys(("name", "tags", "price", "sizes", "title"), ""))
        price, amount = number(item["price"]), number(row["amount"])
        assert one == {
            "user_id": words(row["user_id"]),
            "item_id": words(row["item_id"]),
            "place": words(row["place"]),
            "amount": "unknown" if amount is None else shown(amount),
            "name": words(item["name"]),
            "title": words(item["title"]),
            "tags": ", ".join(words(tag) for tag in item["tags"].split(" ") if tag) or "unknown",
            "price": "unknown" if price is None else shown(price),
            "sizes": ", ".join(shown(float(size)) for size in item["sizes"].split()) or "unknown",
        }


def shown(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def word(dataset: ALTDataset, name: str, row: int) -> str:
    """The words of a prompt field of an interaction."""
    field: Any = dataset._field_words[name]
    key = row if field.key == "alt_row" else int(dataset.inter_feat[field.key].iloc[row])
    return str(field.words[key if field.entry_of is None else field.entry_of[key]])
