"""The dataset: the CTR model sees exactly what RecBole's own dataset gives it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.model.context_aware_recommender.dcn import DCN
from rows import SOME, WITH_DWELL, built, everything

from recbole_alt.config import ALTConfig
from recbole_alt.data.dataset import ROW_KEY

Tiny = Callable[..., ALTConfig]
Own = Callable[..., ALTConfig]

QUOTED = 'item_id:token\ttitle:token\tyear:token\ni1\t"Heat\t1995\ni2\tSe7en\t1996\ni3\tKolya"\t1997\n'


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


@pytest.fixture
def unquoted(tiny: Tiny, data_path: Path, tmp_path: Path) -> Tiny:
    """``tiny``, with titles RecBole can read: it looks for quotation marks in columns it doesn't load, too."""
    folder = tmp_path / "unquoted" / "tiny"
    shutil.copytree(data_path / "tiny", folder)
    file = folder / "tiny.item"
    file.write_text(file.read_text().replace('"', ""))
    return lambda **keys: tiny(data_path=str(folder.parent), **keys)


KEYS = [
    {},
    WITH_DWELL,
    WITH_DWELL | {"normalize_all": True, "seq_len": {"genre": 1}, "prompt_only": {"inter": []}},
    WITH_DWELL | {"numerical_features": ["dwell"], "discretization": {"dwell": {"method": "ED", "bucket": 4}}},
]


@pytest.mark.parametrize("keys", KEYS, ids=["tokens", "floats", "normalised", "discretised"])
def test_ctr_features_are_recboles(tiny: Tiny, unquoted: Tiny, keys: dict[str, Any]) -> None:
    theirs = Dataset(unquoted(**keys))
    theirs._change_feat_format()
    ours = built(tiny(**keys))
    same_features(ours, theirs)
    index = torch.tensor([3, 0, 7, 7])
    left, right = ours[index], theirs[index]
    assert all(torch.equal(left[column], right[column]) for column in right.columns)


@pytest.mark.parametrize("order", ["RO", "TO"])
def test_splits_are_recboles(tiny: Tiny, unquoted: Tiny, order: str) -> None:
    split = {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": order, "mode": "labeled"}
    keys = WITH_DWELL | {"eval_args": split}
    torch.manual_seed(0)
    ours = create_dataset(tiny(**keys)).build()
    torch.manual_seed(0)
    theirs = Dataset(unquoted(**keys)).build()
    for left, right in zip(ours, theirs, strict=True):
        same_features(left, right)


def test_a_title_that_starts_with_a_quotation_mark_is_read_as_written(own: Own) -> None:
    config = own("quotes", inter=SOME, item=QUOTED)
    theirs = Dataset(config)
    assert list(theirs.field2id_token["title"]) == ["[PAD]", "Heat\t1995\ni2\tSe7en\t1996\ni3\tKolya"]
    ours = built(config)
    assert list(ours.field2id_token["title"]) == ["[PAD]", '"Heat', "Se7en", 'Kolya"']
    assert list(ours.field2id_token["year"]) == ["[PAD]", "1995", "1996", "1997"]
    assert {row["title"] for row in everything(ours)} == {'"heat', "se7en", 'kolya"'}
    again = Dataset(config)  # the host's own reader is left as it was
    assert list(again.field2id_token["title"]) == list(theirs.field2id_token["title"])


def test_a_prompt_only_title_may_hold_quotation_marks(own: Own) -> None:
    load = {"inter": ["user_id", "item_id", "label"], "item": ["item_id", "year"]}
    dataset = built(own("quotes", inter=SOME, item=QUOTED, load_col=load, prompt_only={"item": ["title"]}))
    assert {row["title"] for row in everything(dataset)} == {'"heat', "se7en", 'kolya"'}


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
