"""What a user liked before: of strictly earlier rows of the same user only, and by the items' own texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from earlier_likes import COLUMNS, main, summaries
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("one_thread")

VECTORS = np.array([[0, 0], [1, 0], [0, 1], [0.6, 0.8], [-1, 0]])
ROWS = st.lists(st.tuples(*(st.integers(0, n) for n in (2, 5, 4)), st.booleans()), min_size=1, max_size=30)


def columns_of(rows: list[tuple[int, int, int, bool]]) -> list[np.ndarray]:
    """Users, times, items and clicks."""
    return [np.asarray(column) for column in zip(*rows, strict=True)]


@given(ROWS)
def test_summaries_are_those_of_strictly_earlier_rows(rows: list[tuple[int, int, int, bool]]) -> None:
    found = summaries(*columns_of(rows), VECTORS, 0.4)
    for (user, time, item, _), got in zip(rows, found, strict=True):
        before = [(other, liked) for of, at, other, liked in rows if of == user and at < time]
        liked, disliked = (
            [VECTORS[item] @ VECTORS[o] for o, is_liked in before if is_liked == w] for w in (True, False)
        )
        clicks = (len(liked) + 5 * 0.4) / (len(before) + 5)
        expected = [np.log1p(len(before)), clicks, sum(liked) / (len(liked) + 3), sum(disliked) / (len(disliked) + 3)]
        assert got == pytest.approx(expected)


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
    assert list(after) == [*before, *(f"{name}:float" for name in COLUMNS)]
    pd.testing.assert_frame_equal(after[list(before)], before)
    for suffix in ("user", "item"):
        assert Path(f"out/tiny/tiny.{suffix}").read_bytes() == (source / f"tiny.{suffix}").read_bytes()
    own, others = (after[f"{name}:float"].astype(float) for name in ("liked_texts", "liked_others_texts"))
    assert own.abs().max() > 0 and not own.equals(others)
    for wrong, said in (
        ([f"--out={source.parent}"], "is where the data are, which would be overwritten"),
        (["--out=again", "--data_path=out"], "tiny.inter has a column 'earlier' already"),
    ):
        monkeypatch.setattr(sys, "argv", ["earlier_likes", "tiny", *wrong, "--config_files=time.yaml"])
        assert main() == 2 and said in capsys.readouterr().err
    assert list(pd.read_csv(source / "tiny.inter", sep="\t", dtype=str)) == list(before)
