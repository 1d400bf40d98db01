"""The dataset: RecBole's own for the CTR model, and words from the files for the prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MINILM
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.model.context_aware_recommender.dcn import DCN

from recbole_alt.config import ALTConfig
from recbole_alt.data.dataset import ROW_KEY, ALTDataset
from recbole_alt.data.prompts import SegmentBatch
from recbole_alt.pretrained import load_tokenizer

Tiny = Callable[..., ALTConfig]
Own = Callable[..., ALTConfig]

WITH_DWELL = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating", "timestamp", "device", "dwell"],
        "user": ["user_id", "age", "gender", "height"],
        "item": ["item_id", "year", "genre"],
    }
}


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """``own("name", inter=..., item=..., **keys)`` → configuration for a dataset of exactly these files."""

    def configure(
        name: str, inter: str | None = None, user: str | None = None, item: str | None = None, **keys: Any
    ) -> ALTConfig:
        folder = tmp_path / name
        folder.mkdir()
        for suffix, text in {"inter": inter, "user": user, "item": item}.items():
            if text is not None:
                (folder / f"{name}.{suffix}").write_text(text)
        base = {"data_path": str(tmp_path), "load_col": None, "language_model": MINILM, "state": "ERROR"}
        return ALTConfig("ALT_DCN", name, None, base | {"show_progress": False} | keys)

    return configure


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


# -- the CTR model sees RecBole's own data -------------------------------------------------------------------


def same_features(ours: Dataset, theirs: Dataset) -> None:
    assert list(ours.field2type.items()) == list(theirs.field2type.items())
    assert ours.field2source == theirs.field2source
    assert ours.field2seqlen == theirs.field2seqlen
    for name in ("inter_feat", "user_feat", "item_feat"):
        left, right = getattr(ours, name), getattr(theirs, name)
        assert set(left.columns) - {ROW_KEY} == set(right.columns)
        for column in right.columns:
            assert left[column].dtype == right[column].dtype
            assert torch.equal(left[column], right[column])
    for field, tokens in theirs.field2id_token.items():
        assert list(ours.field2id_token[field]) == list(tokens)
    assert set(ours.field2id_token) == set(theirs.field2id_token)


@pytest.mark.parametrize(
    "keys",
    [{}, WITH_DWELL, WITH_DWELL | {"prompt_only": {"item": ["title"]}, "normalize_all": True, "seq_len": {"genre": 1}}],
    ids=["tokens", "floats", "normalised"],
)
def test_ctr_features_are_recboles(tiny: Tiny, keys: dict[str, Any]) -> None:
    config = tiny(**keys)
    theirs = Dataset(config)
    theirs._change_feat_format()
    ours = built(config)
    same_features(ours, theirs)
    index = torch.tensor([3, 0, 7, 7])
    left, right = ours[index], theirs[index]
    assert all(torch.equal(left[column], right[column]) for column in right.columns)


def test_splits_are_recboles(tiny: Tiny) -> None:
    config = tiny(**WITH_DWELL)
    torch.manual_seed(0)
    ours = create_dataset(config).build()
    torch.manual_seed(0)
    theirs = Dataset(config).build()
    for left, right in zip(ours, theirs, strict=True):
        same_features(left, right)


QUOTED = 'item_id:token\ttitle:token\tyear:token\ni1\t"Heat\t1995\ni2\tSe7en\t1996\ni3\tKolya" etc.\t1997\n'
SOME = "user_id:token\titem_id:token\tlabel:float\n" + "".join(
    f"u{n % 5}\ti{1 + n % 3}\t{n // 3 % 2}\n" for n in range(30)
)


def test_a_title_that_starts_with_a_quotation_mark_is_read_as_written(own: Own) -> None:
    config = own("quotes", inter=SOME, item=QUOTED, template={"exclude": ["user_id", "item_id"]})
    theirs = Dataset(config)
    assert '"Heat' not in list(theirs.field2id_token["title"])  # the host swallows the lines up to the next mark
    ours = built(config)
    assert list(ours.field2id_token["title"]) == ["[PAD]", '"Heat', "Se7en", 'Kolya" etc.']
    assert list(ours.field2id_token["year"]) == ["[PAD]", "1995", "1996", "1997"]
    said = {row["title"] for row in everything(ours)}
    assert said == {'"heat', "se7en", 'kolya"etc.'}


def test_the_hosts_reader_is_left_as_it_was(own: Own) -> None:
    config = own("after", inter=SOME, item=QUOTED)
    before = list(Dataset(config).field2id_token["title"])
    create_dataset(config)
    assert list(Dataset(config).field2id_token["title"]) == before


def test_prompt_only_fields_are_no_feature(tiny: Tiny) -> None:
    config = tiny(prompt_only={"item": ["title"], "user": ["height"], "inter": ["dwell"]})
    train, valid, test = data_preparation(config, create_dataset(config))
    dataset = train._dataset
    for name in ("title", "height", "dwell"):
        for mapping in ("field2type", "field2source", "field2seqlen", "field2id_token", "field2token_id"):
            assert name not in getattr(dataset, mapping)
        for part in (train, valid, test):
            assert name not in part._dataset[:].columns
        assert name in dataset.prompts.fields
    assert ROW_KEY not in dataset.field2type
    model = DCN(config, dataset)
    seen = [*model.token_field_names, *model.float_field_names, *model.token_seq_field_names]
    assert sorted(seen) == sorted(["user_id", "item_id", "age", "gender", "year", "device", "genre"])


# -- words ---------------------------------------------------------------------------------------------------


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
    dataset = built(own("gaps", inter=SOME, user=users, item=items, prompt_only={}, template={"exclude": []}))
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


def test_fields_the_ctr_model_drops_as_unused_stay_in_the_prompt(tiny: Tiny, data_path: Path) -> None:
    config = tiny(unused_col={"inter": ["device"], "user": ["age"]})
    train, _, _ = data_preparation(config, create_dataset(config))
    dataset = train._dataset
    assert "device" not in dataset[:].columns
    said = everything(dataset)
    lines = records(data_path / "tiny" / "tiny.inter")
    expected = {int(line["timestamp"]): row for line, row in zip(lines, expected_words(data_path), strict=True)}
    for row, time in zip(said, dataset[:]["timestamp"].tolist(), strict=True):
        assert {name: row[name] for name in ("age", "device")} == {
            name: expected[int(time)][name] for name in ("age", "device")
        }


# -- no label in any prompt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rating", "timestamp", "label"])
@pytest.mark.parametrize("part", ["order", "fields"])
def test_a_template_may_not_ask_for_label_rating_or_timestamp(tiny: Tiny, name: str, part: str) -> None:
    template = {"order": [name]} if part == "order" else {"fields": {name: "it is {value}"}}
    with pytest.raises(ValueError, match=f"template.{part}.*'{name}'"):
        create_dataset(tiny(template=template))


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"LABEL_FIELD": "dwell", "threshold": None}, ("dwell", "rating", "timestamp")),
        ({"threshold": {"dwell": 5}}, ("dwell", "rating", "timestamp")),
        ({"TIME_FIELD": "dwell"}, ("dwell", "rating")),
        ({"RATING_FIELD": "dwell"}, ("dwell", "rating", "timestamp")),
    ],
    ids=["label", "threshold", "time", "rating"],
)
def test_whatever_tells_the_label_is_in_no_prompt_under_any_name(
    tiny: Tiny, keys: dict[str, Any], names: tuple[str, ...]
) -> None:
    config = tiny(**WITH_DWELL, **keys)
    assert not set(names) & set(create_dataset(config).prompts.fields)
    with pytest.raises(ValueError, match=r"template\.order.*'dwell'"):
        create_dataset(tiny(template={"order": ["dwell"]}, **WITH_DWELL, **keys))


def test_a_rating_for_the_prompt_alone_is_refused_or_left_out(tiny: Tiny) -> None:
    load = {"inter": ["user_id", "item_id", "dwell"], "user": ["user_id", "age"], "item": ["item_id"]}
    config = tiny(prompt_only={"inter": ["rating"]}, load_col=load, threshold={"dwell": 5})
    try:
        dataset = create_dataset(config)
    except ValueError as error:
        assert "'rating'" in str(error)
    else:
        assert dataset.prompts.fields == ("age", "item_id")


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_rows_that_differ_in_rating_and_time_alone_have_the_same_prompt(
    tiny: Tiny, data_path: Path, tmp_path: Path, scope: str
) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for suffix in ("user", "item"):
        (folder / f"tiny.{suffix}").write_text((data_path / "tiny" / f"tiny.{suffix}").read_text())
    header, *lines = (data_path / "tiny" / "tiny.inter").read_text().splitlines()
    changed = [line.split("\t") for line in lines]
    for n, row in enumerate(changed):
        row[2], row[3] = str(6 - int(row[2])), str(9_999 - n)
    (folder / "tiny.inter").write_text("\n".join([header, *("\t".join(row) for row in changed)]) + "\n")
    keys = WITH_DWELL | {"prompt_scope": scope}
    before, after = built(tiny(**keys)), built(tiny(data_path=str(tmp_path), **keys))
    assert not torch.equal(before[:]["label"], after[:]["label"])
    for left, right in zip(before.prompts.batches(before[:]), after.prompts.batches(after[:]), strict=True):
        for name in vars(left):
            assert torch.equal(getattr(left, name), getattr(right, name))


# -- refused in one line -------------------------------------------------------------------------------------


def refused(match: str, config: ALTConfig) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        _ = create_dataset(config).prompts
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"threshold": None}, "'label'.*LABEL_FIELD.*threshold"),
        ({"threshold": {"stars": 3}}, r"stars"),
        ({"template": {"order": ["titel"]}}, "'titel'.*title"),
        ({"template": {"fields": {"plot": "{value}"}}}, "'plot'.*load_col.*prompt_only"),
        ({"prompt_only": {"item": ["titel"]}}, r"prompt_only.*tiny\.item.*'titel'.*title"),
        ({"prompt_only": {"items": ["title"]}}, "prompt_only.*'items'.*item"),
        ({"prompt_only": {"item": ["genre"]}}, "'genre'.*load_col.*prompt_only"),
        ({"max_text_tokens": 5}, "max_text_tokens=5.*or more"),
        ({"template": {"values": {"gender": {"M": "male"}}}}, "gender.*'F'"),
        ({"language_model": "no-such-model-here"}, "language_model.*'no-such-model-here'"),
        ({"prompt_only": {"item": "title"}}, "prompt_only.*list"),
        ({"template": "short"}, "template.*'short'"),
        ({"template": {"fields": ["age"]}}, "template.fields"),
    ],
)
def test_a_wrong_key_is_named_with_what_to_do(tiny: Tiny, keys: dict[str, Any], match: str) -> None:
    refused(match, tiny(**keys))


@pytest.mark.parametrize("columns", ["", "\tx:token_seq"], ids=["plain", "sequence"])
def test_a_file_with_a_header_only_is_named(own: Own, columns: str) -> None:
    refused(r"rowless\.inter.*no rows", own("rowless", inter=f"user_id:token\titem_id:token\tlabel:float{columns}\n"))


@pytest.mark.parametrize("text", ["", "user_id\titem_id\tlabel\nu\ti\t1\n"], ids=["empty", "header-without-types"])
def test_a_file_without_a_typed_header_is_named(own: Own, text: str) -> None:
    refused(r"headless\.inter", own("headless", inter=text))


def test_a_missing_file_and_a_missing_folder_are_named(own: Own, tmp_path: Path) -> None:
    refused(r"nothing\.inter", own("nothing"))
    config = ALTConfig("ALT_DCN", "nowhere", None, {"data_path": str(tmp_path), "state": "ERROR"})
    refused(r"nowhere.*nowhere\.inter.*--data_path=", config)


def test_words_do_not_share_memory_with_numpy_views_of_features(tiny: Tiny) -> None:
    dataset = built(tiny())
    before = everything(dataset)
    for name in ("age", "gender"):
        dataset.user_feat[name][:] = 0
    assert everything(dataset) == before
    assert np.all(dataset.user_feat["age"].numpy() == 0)
