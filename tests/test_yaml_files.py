"""YAML files: keys given twice, encodings, and what is no YAML, each in one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_alt.config import ALTConfig
from recbole_alt.study.ranges import read_ranges
from recbole_alt.yaml_files import parse_yaml, read_yaml


def refused(file: Path, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        read_yaml(file)
    assert "\n" not in str(caught.value)
    assert file.name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("epochs: 1\nseed: 2\nepochs: 3\n", "epochs is given twice, in lines 1 and 3"),
        ("template:\n  fields:\n    city: a\n    city: b\n", "city is given twice, in lines 3 and 4"),
        ("finetune: {ctr: {epochs: 1}, ctr: {epochs: 2}}\n", "ctr is given twice, in lines 1 and 1"),
        ("a: {2001: c, 0x7d1: d}\n", "2001, also as 0x7d1, is given twice, in lines 1 and 1"),
        ("a:\n  1: c\n  1.0: d\n", "1, also as 1.0, is given twice, in lines 2 and 3"),
        ("seed: 1\ntrain_batch_size: 0100\n", "0100 in line 2 is YAML's octal for 64: write 100, or '0100' in quotes"),
        ("seed: -0_10\n", "-0_10 in line 1 is YAML's octal for -8: write -10"),
        ("threshold: {rating: 010}\n", "010 in line 1.*write 10"),
        ("threshold: {010: rating}\n", "010 in line 1.*write 10"),
        ("epochs: 1:30\n", "1:30 in line 1 is YAML's base 60 for 90: write 90, or '1:30' in quotes"),
        ("epochs: 1:30.5\n", "1:30.5 in line 1 is YAML's base 60 for 90.5"),
        ("- a\n", "must hold 'key: value' pairs, not a list"),
        ("epochs: [1,\nseed: }", "not plain YAML"),
        ("seed: !!python/object/apply:os.mkdir [made]\n", "not plain YAML"),
        ("1: a\n", "key 1 must be text"),
        ("when: 2020-13-45\n", "not plain YAML"),
    ],
)
def test_what_can_not_be_meant_is_refused(tmp_path: Path, text: str, match: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    refused(file, match)


def test_numbers_that_are_what_they_look_like_are_read() -> None:
    text = "[0, 10, -3, 0x10, 0.5, 00.5, 1e-4, 0e0, '010', \"1:30\", 08, 1_000]"
    assert parse_yaml(text) == [0, 10, -3, 16, 0.5, 0.5, 1e-4, 0.0, "010", "1:30", "08", 1000]
    assert parse_yaml("{1: a, '1': b}") == {1: "a", "1": "b"}


def test_another_encoding_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes("seed: 1\nwandb_project: née\n".encode("latin-1"))
    refused(file, "line 2.*0xe9 is not UTF-8")


def test_other_files_in_another_encoding_are_named_too(tmp_path: Path) -> None:
    ranges, campaign = tmp_path / "mine.hyper", tmp_path / "campaign.yaml"
    ranges.write_bytes(b"\xff\xfe")
    campaign.write_bytes(b"models: [DCN]\nmodels: [FM]\n")
    with pytest.raises(ValueError, match=r"params_file .*mine\.hyper', line 1: byte 0xff is not UTF-8"):
        read_ranges(ranges)
    with pytest.raises(ValueError, match=r"campaign .*campaign\.yaml': models is given twice, in lines 1 and 2"):
        read_yaml(str(campaign), "campaign")


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xef\xbb\xbfseed: 1\n")
    assert read_yaml(file) == {"seed": 1}


def test_an_empty_file_has_no_keys_and_merge_keys_are_no_duplicates(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("")
    assert read_yaml(file) == {}
    assert parse_yaml("base: &b {a: 1, c: 2}\nmore: {<<: *b, a: 3}\n")["more"] == {"a": 3, "c": 2}


def test_files_do_not_name_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("config_files: other.yaml\n")
    with pytest.raises(ValueError, match=r"config_files can't be named inside a file.*--config_files"):
        ALTConfig("ALT_DCN", "anything", [str(file)])


@given(st.text(alphabet="ab:{}[],-&*!<\n \t'\"#1e.~|>?@%\x00\x85é"))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        parse_yaml(text)
    except ValueError as error:
        assert "\n" not in str(error)


def test_what_was_read_is_the_readers_own() -> None:
    text = "finetune: {ctr: {epochs: 1}}\nmetrics: [AUC]\n"
    first = parse_yaml(text)
    first["finetune"]["ctr"]["epochs"] = 2
    first["metrics"].append("LogLoss")
    assert parse_yaml(text) == {"finetune": {"ctr": {"epochs": 1}}, "metrics": ["AUC"]}
