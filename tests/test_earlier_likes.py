"""What a user liked before: of strictly earlier rows of the same user only, and by the items' own texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from earlier_likes import _weighed, main, summaries, surpluses_of
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

pytestmark = pytest.mark.usefixtures("one_thread")

VECTORS = np.array([[0, 0], [1, 0], [0, 1], [0.6, 0.8], [-1, 0]])
ROWS = st.lists(st.tuples(*(st.integers(0, n) for n in (2, 5, 4)), st.booleans()), min_size=1, max_size=30)


@given(ROWS, st.sampled_from([1, 3, 1024]))
def test_summaries_are_those_of_strictly_earlier_rows(rows: list[tuple[int, int, int, bool]], at_once: int) -> None:
    users, times, items, clicks = (np.asarray(column) for column in zip(*rows, strict=True))
    surpluses = clicks - 0.3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("earlier_likes._ROWS_AT_ONCE", at_once)
        found = summaries(users, times, items, surpluses, [VECTORS, csr_matrix(VECTORS)])
    for (user, time, item, _), got in zip(rows, found, strict=True):
        before = [(other, liked - 0.3) for of, at, other, liked in rows if of == user and at < time]
        likeness = [max(VECTORS[item] @ VECTORS[other], 0) ** 2 for other, _ in before]
        likes = sum(w * surplus for w, (_, surplus) in zip(likeness, before, strict=True)) / (sum(likeness) + 1)
        surplus = sum(surplus for _, surplus in before) / (len(before) + 5)
        assert got == pytest.approx([np.log1p(len(before)), surplus, likes, likes])


def test_a_surplus_is_the_click_less_the_rate_of_the_items_other_training_rows() -> None:
    items, clicks = np.array([1, 1, 1, 2, 1, 3]), np.array([1.0, 1, 0, 0, 1, 1])
    train = np.array([True, True, True, True, False, False])
    found = surpluses_of(items, clicks, train)
    drawn = 16 * 0.5  # half of the training rows are clicks
    rates = [(1 + drawn) / 18, (1 + drawn) / 18, (2 + drawn) / 18, drawn / 16, (2 + drawn) / 19, drawn / 16]
    assert found == pytest.approx(clicks - rates)


def test_items_with_the_same_rare_values_are_alike() -> None:
    values = np.array([[0, 0], [1, 2], [1, 2], [1, 3], [4, 3], [1, 0], [1, 0]])  # 1 is common
    cosines = (made := _weighed(values, 5)) @ made.T
    assert cosines[0].sum() == 0
    assert cosines[1, 2] == pytest.approx(1) == pytest.approx(cosines[5, 6])
    assert 0 < 2 * cosines[1, 3] < cosines[3, 4] < 1  # either pair shares one of two values


def test_the_files_are_the_same_with_columns_more(
    keys: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_time = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": None, "mode": "labeled"}
    for name, changes in {"time": {"eval_args": by_time}, "random": {}}.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(keys(**changes)))
    source = Path(keys()["data_path"], "tiny")
    command = ["earlier_likes", "tiny", "--out=out"]
    monkeypatch.setattr(sys, "argv", [*command, "--config_files=random.yaml"])
    assert main() == 2 and "needs a split by time" in capsys.readouterr().err and not Path("out/tiny").exists()
    monkeypatch.setattr(sys, "argv", [*command, "--config_files=time.yaml"])
    assert main() == 0, capsys.readouterr().err
    before, after = (pd.read_csv(folder / "tiny.inter", sep="\t", dtype=str) for folder in (source, Path("out/tiny")))
    more = [column.removesuffix(":float") for column in after if column not in before]
    assert more[:2] == ["earlier", "earlier_surplus"] and more[-3:] == [
        "text_likes",
        "words_likes",
        "others_text_likes",
    ]
    assert more[2:-3] and all(name.endswith("_likes") for name in more[2:-3]) and "item_id_likes" not in more
    pd.testing.assert_frame_equal(after[list(before)], before)
    for suffix in ("user", "item"):
        assert Path(f"out/tiny/tiny.{suffix}").read_bytes() == (source / f"tiny.{suffix}").read_bytes()
    own, others = (after[f"{name}:float"].astype(float) for name in ("text_likes", "others_text_likes"))
    assert own.abs().max() > 0 and not own.equals(others)
    for wrong, said in (
        ([f"--out={source.parent}"], "is where the data are, which would be overwritten"),
        (["--out=again", "--data_path=out"], "tiny.inter has a column 'earlier' already"),
    ):
        monkeypatch.setattr(sys, "argv", ["earlier_likes", "tiny", *wrong, "--config_files=time.yaml"])
        assert main() == 2 and said in capsys.readouterr().err
    assert list(pd.read_csv(source / "tiny.inter", sep="\t", dtype=str)) == list(before)
