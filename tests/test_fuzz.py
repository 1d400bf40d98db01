"""Whatever stands in a file or under a key: it is read as it stands, or refused in one line.

``FUZZ_EXAMPLES=5000 pytest tests/test_fuzz.py tests/test_reading.py`` tries more examples than CI does;
docs/reliability.md has the counts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_alt import checkpoints
from recbole_alt.config import ALTConfig, properties_dir
from recbole_alt.data.dataset import ALTDataset
from recbole_alt.keys import KEYS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

INTER = (
    "user_id:token\titem_id:token\tlabel:float\tplace:token\tamount:float\n"
    "u1\ti1\t1\tOslo\t1.5\nu2\ti2\t0\tNA\t\nu1\ti3\t0\t\t3\nu3\ti1\t1\tRome\t2e3\nu2\ti1\t1\tOslo\t-7\n"
)
ITEM = "item_id:token\tname:token\ttags:token_seq\tprice:float\ni1\tA\tx y\t3\ni2\tNone\t\t\ni3\tC\tz\t1e-3\n"
LOADED = {"inter": ["user_id", "item_id", "label", "place", "amount"], "item": ["item_id", "name", "tags", "price"]}


@pytest.fixture
def configure() -> Callable[..., ALTConfig]:
    """``configure(**keys)`` → a configuration for the dataset ``d`` of this folder."""
    _write({"inter": INTER.encode(), "item": ITEM.encode()})
    base = {"data_path": ".", "load_col": LOADED, "state": "critical", "numerical_features": ["amount", "price"]}
    return lambda **keys: ALTConfig("ALT_DCN", "d", None, {**base, **keys})


def _write(files: dict[str, bytes]) -> None:
    shutil.rmtree("d", ignore_errors=True)
    Path("d").mkdir()
    for suffix, content in files.items():
        (Path("d") / f"d.{suffix}").write_bytes(content)


def refusal(work: Callable[[], Any]) -> str | None:
    """The line that ``work`` is refused with, None where it ends well; any other error is a fault of ours."""
    try:
        work()
    except ValueError as error:
        assert "\n" not in str(error)
        assert str(error)
        return str(error)
    return None


# -- atomic files --------------------------------------------------------------------------------------------

ODD = [
    b"\t",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b'"',
    b" ",
    b"\xe9",
    b"\xef\xbb\xbf",
    b"\xc2\x85",
    b"-",
    b"1,5",
    b"inf",
    b":",
    b"NA",
]
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(ODD)), min_size=1, max_size=3)


def edited(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """``content`` with some bytes replaced, each at a share of its length."""
    for share, cut, put in changes:
        at = int(share * len(content))
        content = content[:at] + put + content[at + cut :]
    return content


def plainly(content: bytes) -> list[dict[str, str]]:
    """Rows of an atomic file, read by hand."""
    lines = [line.removesuffix("\r") for line in content.decode("utf-8-sig").split("\n")]
    names = [typed.split(":")[0] for typed in lines[0].split("\t")]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines[1:] if line]


@fuzz
@given(in_inter=edits, in_item=edits)
def test_an_edited_file_is_read_as_it_stands_or_refused(
    configure: Callable[..., ALTConfig], in_inter: list[Any], in_item: list[Any]
) -> None:
    inter, item = edited(INTER.encode(), in_inter), edited(ITEM.encode(), in_item)
    for files in ({"inter": inter, "item": ITEM.encode()}, {"inter": INTER.encode(), "item": item}):
        _write(files)
        built: list[ALTDataset] = []
        if refusal(lambda built=built: built.append(ALTDataset(configure()))) is not None:
            continue
        rows = [row for row in plainly(files["inter"]) if row["user_id"] and row["item_id"]]
        known = {row["item_id"] for row in plainly(files["item"])}
        rows = [row for row in rows if row["item_id"] in known]
        feat, tokens = built[0].inter_feat, built[0].field2id_token
        for name in ("user_id", "item_id"):
            assert [str(tokens[name][i]) for i in feat[name].astype(int)] == [row[name] for row in rows]
        assert feat["label"].tolist() == [float(row["label"]) for row in rows]
        places = [str(tokens["place"][i]) if i else "" for i in feat["place"].astype(int)]
        assert places == [row["place"] for row in rows]


# -- keys and YAML -------------------------------------------------------------------------------------------

names = st.sampled_from(
    ["user_id", "item_id", "label", "amount", "tags", "nobody", "user", "item", "inter", "RS", "mode"]
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 5), st.floats(allow_nan=True), names, st.text(max_size=4),
    st.sampled_from(["[1,5]", "(0,inf)", "ctr", "all", "auto", "labeled", "uni3", "first", "utf-16", "AUC"]),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=5,
)
free = [name for name in KEYS if name not in ("gpu_id", "data_path", "dataset", "worker", "config_files", "state")]


@fuzz
@given(key=st.sampled_from(free), value=anything)
def test_any_value_of_any_key_is_used_or_refused(configure: Callable[..., ALTConfig], key: str, value: Any) -> None:
    refusal(lambda: ALTDataset(configure(**{key: value})).build())


PIECES = ["\n", ":", " ", "- ", "{", "]", "'", "&a", "~", "é", "\t"]
property_files = st.sampled_from(sorted((properties_dir() / "dataset").glob("*.yaml")))


@fuzz
@given(
    file=property_files,
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from(PIECES)), min_size=1, max_size=3),
)
def test_an_edited_yaml_file_means_what_yaml_says_or_is_refused(
    file: Path, changes: list[tuple[float, int, str]]
) -> None:
    text = file.read_text(encoding="utf-8")
    for share, cut, put in changes:
        at = int(share * len(text))
        text = text[:at] + put + text[at + cut :]
    Path("edited.yaml").write_text(text, encoding="utf-8")
    made: list[ALTConfig] = []
    if refusal(lambda: made.append(ALTConfig("ALT_DCN", "d", ["edited.yaml"]))) is not None:
        return
    for key, value in (yaml.safe_load(text) or {}).items():
        if key not in ("finetune", "metrics", "eval_args", "data_path", "train_neg_sample_args", "gpu_id", "dataset"):
            given_number = isinstance(value, str) and value.replace("e-", "").replace(".", "").isdigit()  # 3e-3
            assert made[0][key] == (float(value) if given_number else value), key


# -- checkpoints ---------------------------------------------------------------------------------------------


@fuzz
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=9)), min_size=1, max_size=3))
def test_an_edited_checkpoint_is_refused_or_the_same(changes: list[tuple[float, int, bytes]]) -> None:
    state = {"state_dict": {"weight": torch.arange(6.0)}, "epoch": 3, "seconds": 1.5}
    checkpoints.save(state, "whole.pth")
    content = edited(Path("whole.pth").read_bytes(), [(share, cut, put) for share, cut, put in changes])
    Path("edited.pth").write_bytes(content)
    read: list[dict[str, Any]] = []
    if refusal(lambda: read.append(checkpoints.load("edited.pth"))) is None:
        assert torch.equal(read[0]["state_dict"]["weight"], torch.arange(6.0))
        assert (read[0]["epoch"], read[0]["seconds"]) == (3, 1.5)
