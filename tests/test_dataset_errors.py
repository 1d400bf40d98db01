"""What the dataset refuses: a label in a prompt, and data or keys that make no sense, named in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.data import create_dataset
from rows import WITH_DWELL, built, refused

from recbole_alt.config import ALTConfig

Tiny = Callable[..., ALTConfig]
Own = Callable[..., ALTConfig]

# -- no label in any prompt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rating", "timestamp", "label"])
@pytest.mark.parametrize("part", ["order", "fields"])
def test_a_template_may_not_ask_for_label_rating_or_timestamp(tiny: Tiny, name: str, part: str) -> None:
    template = {"order": [name]} if part == "order" else {"fields": {name: "it is {value}"}}
    with pytest.raises(ValueError, match=f"template.{part}.*'{name}'"):
        create_dataset(tiny(template=template))


def test_a_template_may_not_word_a_column_that_is_set_aside(tiny: Tiny) -> None:
    template = {"fields": {"year": "made in {value}"}}
    refused(r"template\.fields names 'year'.*in unused_col", tiny(template=template, unused_col={"item": ["year"]}))


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"LABEL_FIELD": "dwell", "threshold": {"dwell": 5}}, ("dwell", "rating", "timestamp")),
        ({"threshold": {"dwell": 5}}, ("dwell", "rating", "timestamp")),
        ({"TIME_FIELD": "dwell"}, ("dwell", "rating")),
        ({"RATING_FIELD": "dwell"}, ("dwell", "rating", "timestamp")),
    ],
    ids=["label", "threshold", "time", "rating"],
)
def test_whatever_tells_the_label_is_in_no_prompt_under_any_name(
    tiny: Tiny, keys: dict[str, Any], names: tuple[str, ...]
) -> None:
    keys = keys | {"val_interval": {"dwell": "[0,inf)"}}  # without the rows that have none
    config = tiny(**WITH_DWELL, **keys)
    assert not set(names) & set(built(config).prompts.fields)
    with pytest.raises(ValueError, match=r"template\.order.*'dwell'"):
        create_dataset(tiny(template={"order": ["dwell"]}, **WITH_DWELL, **keys))


def test_a_rating_for_the_prompt_alone_is_refused_or_left_out(tiny: Tiny) -> None:
    load = {"inter": ["user_id", "item_id", "dwell"], "user": ["user_id", "age"], "item": ["item_id"]}
    keys = {"threshold": {"dwell": 5}, "val_interval": {"dwell": "[0,inf)"}}
    config = tiny(prompt_only={"inter": ["rating"]}, load_col=load, **keys)
    try:
        dataset = create_dataset(config)
    except ValueError as error:
        assert "'rating'" in str(error)
    else:
        assert dataset.prompts.fields == ("age",)


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
        for name in ("input_ids", "attention_mask", "field_ids", "row", "owner"):
            assert torch.equal(getattr(left, name), getattr(right, name))


# -- refused in one line -------------------------------------------------------------------------------------


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
