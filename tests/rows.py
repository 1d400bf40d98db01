"""What the tests of the dataset share: rows in words, read off the tokens, and read off the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import MINILM
from recbole.data import create_dataset

from recbole_alt.config import ALTConfig
from recbole_alt.data.dataset import ALTDataset
from recbole_alt.pretrained import load_tokenizer

#: Keys that load every column of ``tiny``.
WITH_DWELL = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating", "timestamp", "device", "dwell"],
        "user": ["user_id", "age", "gender", "height"],
        "item": ["item_id", "year", "genre"],
    }
}

#: An ``.inter`` file with labels.
SOME = "user_id:token\titem_id:token\tlabel:float\n" + "".join(
    f"u{n % 5}\ti{1 + n % 3}\t{n // 3 % 2}\n" for n in range(30)
)


def words_of(dataset: ALTDataset, rows: Any) -> list[dict[str, str]]:
    """Each row's prompt fields in words, read off the tokens, lower case and without spaces."""
    tokenizer = load_tokenizer(MINILM)
    batches = dataset.prompts.batches(rows)
    out: list[dict[str, str]] = [{} for _ in range(len(rows))]
    for segment, batch in zip(dataset.prompts.segments, batches, strict=True):
        for i, text in enumerate(batch.row.tolist()):
            for name in segment.fields:
                ids = batch.input_ids[text][batch.field_ids[text] == dataset.prompts.fields.index(name)]
                out[i][name] = squeezed(tokenizer.decode(ids))
    return out


def squeezed(words: str) -> str:
    return "".join(words.lower().split())


def built(config: ALTConfig) -> ALTDataset:
    dataset = create_dataset(config)
    assert isinstance(dataset, ALTDataset)
    dataset._change_feat_format()
    return dataset


def refused(match: str, config: ALTConfig) -> None:
    """Assert that no dataset, split or prompts are made of ``config``, and that one line says why."""
    with pytest.raises(ValueError, match=match) as caught:
        _ = built(config).prompts
    assert "\n" not in str(caught.value)


def everything(dataset: ALTDataset) -> list[dict[str, str]]:
    return words_of(dataset, dataset[:])


def records(file: Path) -> list[dict[str, str]]:
    header, *lines = file.read_text().splitlines()
    names = [column.split(":")[0] for column in header.split("\t")]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]


def expected_words(data_path: Path) -> list[dict[str, str]]:
    """What the prompt of each interaction must say, from the files alone."""
    folder = data_path / "tiny"
    users = {row["user_id"]: row for row in records(folder / "tiny.user")}
    items = {row["item_id"]: row for row in records(folder / "tiny.item")}
    out = []
    for row in records(folder / "tiny.inter"):
        user, item = users[row["user_id"]], items[row["item_id"]]
        said = {
            "age": user["age"],
            "gender": user["gender"],
            "height": f"{float(user['height']):.4g}" if user["height"] else "",
            "year": item["year"],
            "genre": ", ".join(item["genre"].split()),
            "title": item["title"],
            "device": row["device"],
            "dwell": f"{float(row['dwell']):.4g}" if row["dwell"] else "",
        }
        out.append({name: squeezed(words or "unknown") for name, words in said.items()})
    return out
