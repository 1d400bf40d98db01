"""The words of a row: those of the files, whatever RecBole does to the values, wherever the row goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MINILM
from recbole.data import create_dataset, data_preparation
from rows import SOME, WITH_DWELL, built, everything, expected_words, records, words_of

from recbole_alt.config import ALTConfig
from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.data.wording import read_template
from recbole_alt.pretrained import load_tokenizer

Tiny = Callable[..., ALTConfig]
Own = Callable[..., ALTConfig]


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_words_are_those_of_the_files(tiny: Tiny, data_path: Path, scope: str) -> None:
    dataset = built(tiny(prompt_scope=scope, **WITH_DWELL))
    assert everything(dataset) == expected_words(data_path)
    assert [s.name for s in dataset.prompts.segments] == (
        ["user", "item", "context"] if scope == "entity" else ["prompt"]
    )


def test_template_of_the_configuration_is_used(tiny: Tiny) -> None:
    template = {
        "exclude": ["user_id", "item_id", "device", "year"],
        "order": ["gender", "genre"],
        "fields": {"title": "called {value}"},
        "values": {"gender": {"M": "a man", "F": "a woman"}},
        "join": {"genre": " and "},
        "missing": "not given",
        "separator": "; ",
        "prefix": {"prompt": "Row:"},
    }
    dataset = built(tiny(prompt_scope="interaction", template=template))
    batch = dataset.prompts.batches(dataset[:5])[0]
    expected = "Row: gender is a man.; genre is Animation and Comedy.; age is 24.; called Toy Story"
    tokens = load_tokenizer(MINILM)(expected)["input_ids"]
    first = int(batch.row[0])
    assert batch.input_ids[first][batch.attention_mask[first] == 1].tolist() == tokens
    assert everything(dataset)[2]["genre"] == "notgiven"


@pytest.mark.parametrize(
    "keys",
    [
        {"normalize_all": True},
        {"normalize_field": ["height", "dwell"]},
        {"numerical_features": ["height", "dwell"]},
        {"numerical_features": ["height"], "discretization": {"height": {"method": "ED", "bucket": 3}}},
        {"numerical_features": ["dwell"], "discretization": {"dwell": {"method": "LD"}}},
    ],
    ids=["normalize_all", "normalize_field", "numerical", "equal-distance", "logarithm"],
)
def test_numbers_are_those_of_the_file_whatever_the_ctr_model_gets(
    tiny: Tiny, data_path: Path, keys: dict[str, Any]
) -> None:
    dataset = built(tiny(**WITH_DWELL, **keys))
    said, expected = everything(dataset), expected_words(data_path)
    for name in ("height", "dwell"):
        assert [row[name] for row in said] == [row[name] for row in expected]
        assert any(row[name] == "unknown" for row in said)


@pytest.mark.parametrize("how", ["loaded", "prompt_only"])
@pytest.mark.parametrize("order", ["RO", "TO"])
def test_a_rows_words_stay_with_it_through_shuffle_and_split(tiny: Tiny, data_path: Path, how: str, order: str) -> None:
    keys = WITH_DWELL if how == "loaded" else {"prompt_only": {"inter": ["dwell"], "item": ["title"]}}
    split = {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": order, "mode": "labeled"}
    config = tiny(eval_args=split, **keys)
    parts = data_preparation(config, create_dataset(config))
    by_time = {int(row["timestamp"]): row for row in records(data_path / "tiny" / "tiny.inter")}
    assert len(by_time) == 160
    seen = []
    for part in parts:
        dataset = part._dataset
        for row, time in zip(everything(dataset), dataset[:]["timestamp"].tolist(), strict=True):
            dwell = by_time[int(time)]["dwell"]
            said = f"{float(dwell):.4g}" if dwell and how == "loaded" else dwell
            assert row["dwell"] == (said or "unknown")
            assert row["device"] == (by_time[int(time)]["device"] or "unknown")
            seen.append(int(time))
    assert sorted(seen) == sorted(by_time)
    times = parts[0]._dataset[:]["timestamp"].tolist()
    assert times != sorted(times)  # rows did move


def test_batches_of_the_loader_have_their_rows_words(tiny: Tiny, data_path: Path) -> None:
    config = tiny(**WITH_DWELL)
    train, _, _ = data_preparation(config, create_dataset(config))
    lines = records(data_path / "tiny" / "tiny.inter")
    expected = {int(line["timestamp"]): said for line, said in zip(lines, expected_words(data_path), strict=True)}
    count = 0
    for batch in train:
        said = words_of(train._dataset, batch)
        assert said == [expected[int(time)] for time in batch["timestamp"].tolist()]
        count += len(said)
    assert count == len(train._dataset)


def test_users_and_items_without_a_line_of_their_own_are_unknown(own: Own) -> None:
    users = "user_id:token\tage:token\theight:float\nu0\t20\t1.5\nu9\t99\t1.9\n"
    items = "item_id:token\tgenre:token_seq\ttitle:token\ni1\tCrime War\tHeat\n"
    keys = {"filter_inter_by_user_or_item": False}
    dataset = built(own("gaps", inter=SOME, user=users, item=items, template={"exclude": []}, **keys))
    for n, row in enumerate(everything(dataset)):
        assert row["user_id"] == f"u{n % 5}"
        assert row["item_id"] == f"i{1 + n % 3}"
        assert (row["age"], row["height"]) == (("20", "1.5") if n % 5 == 0 else ("unknown", "unknown"))
        assert (row["genre"], row["title"]) == (("crime,war", "heat") if n % 3 == 0 else ("unknown", "unknown"))


def test_rows_that_recbole_filters_out_take_their_words_with_them(tiny: Tiny, data_path: Path) -> None:
    config = tiny(val_interval={"timestamp": "[1040,1100]"}, prompt_only={"inter": ["dwell"], "item": ["title"]})
    dataset = built(config)
    by_time = {int(row["timestamp"]): row["dwell"] for row in records(data_path / "tiny" / "tiny.inter")}
    times = dataset[:]["timestamp"].tolist()
    assert 0 < len(times) < 160
    assert [row["dwell"] for row in everything(dataset)] == [by_time[int(time)] or "unknown" for time in times]


def test_data_without_users_and_items_have_prompts(own: Own) -> None:
    lines = [f"{n % 2}\tad {n % 4}\t{n / 4}\ta b{n % 3}\tnote {n}" for n in range(40)]
    inter = "label:float\tad:token\tprice:float\ttags:token_seq\tnote:token\n" + "\n".join(lines) + "\n"
    load = {"inter": ["label", "ad", "price", "tags"]}
    keys = {"USER_ID_FIELD": None, "ITEM_ID_FIELD": None, "load_col": load, "prompt_only": {"inter": ["note"]}}
    keys["valid_metric"] = "LogLoss"  # of four rows, which may be of one label
    for scope in ("entity", "interaction"):
        config = own(f"ads-{scope}", inter=inter, prompt_scope=scope, **keys)
        parts = data_preparation(config, create_dataset(config))
        said = [row for part in parts for row in everything(part._dataset)]
        assert {row["note"] for row in said} == {f"note{n}" for n in range(40)}
        for row in said:
            n = int(row["note"].removeprefix("note"))
            assert row == {"ad": f"ad{n % 4}", "price": f"{n / 4:.4g}", "tags": f"a,b{n % 3}", "note": f"note{n}"}


def test_float_sequences_are_numbers_joined(own: Own) -> None:
    inter = "user_id:token\titem_id:token\tlabel:float\tv:float_seq\n" + "".join(
        f"u{n % 5}\ti{n % 3}\t{n % 2}\t{'' if n == 4 else f'1.23456 {n}'}\n" for n in range(30)
    )
    said = everything(built(own("vectors", inter=inter)))
    assert [row["v"] for row in said] == ["unknown" if n == 4 else f"1.235,{n}" for n in range(30)]


def test_scopes_give_a_field_the_same_tokens(tiny: Tiny) -> None:
    def tokens(scope: str) -> list[dict[str, list[int]]]:
        dataset = built(tiny(prompt_scope=scope, **WITH_DWELL))
        out: list[dict[str, list[int]]] = [{} for _ in range(len(dataset))]
        batches: list[SegmentBatch] = dataset.prompts.batches(dataset[:])
        for segment, batch in zip(dataset.prompts.segments, batches, strict=True):
            for i, text in enumerate(batch.row.tolist()):
                for name in segment.fields:
                    at = batch.field_ids[text] == dataset.prompts.fields.index(name)
                    out[i][name] = batch.input_ids[text][at].tolist()
        return out

    entity = tokens("entity")
    assert entity == tokens("interaction")
    assert all(ids for row in entity for ids in row.values())


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_unused_columns_are_in_neither_the_model_nor_the_prompts(tiny: Tiny, scope: str) -> None:
    config = tiny(unused_col={"inter": ["device"], "user": ["age"]}, prompt_scope=scope, show_progress=False)
    train, _, _ = data_preparation(config, create_dataset(config))
    dataset = train._dataset
    assert not {"device", "age"} & {*dataset[:].columns, *dataset.prompts.fields}
    assert read_template(config).fields == dataset.prompts.fields
    assert all({*said} == {*dataset.prompts.fields} for said in everything(dataset))


def test_unused_columns_leave_the_wording_that_we_ship() -> None:
    whole = ALTConfig("ALT_DCN", "ml-100k")["template"]
    less = ALTConfig("ALT_DCN", "ml-100k", None, {"unused_col": {"item": ["release_year"]}})["template"]
    assert "release_year" in whole["fields"]
    assert less["fields"] == {name: said for name, said in whole["fields"].items() if name != "release_year"}
    assert ALTConfig("ALT_DCN", "ml-100k", None, {"template": None})["template"] is None
