"""Columns that tell how often a user, an item, … was clicked: of training rows only, and never of the row itself."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click_rates import log_odds, main, rates
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit

from recbole_alt.loading import load_data
from recbole_alt.registry import make_config

ROWS = st.lists(
    st.tuples(st.lists(st.integers(0, 3), min_size=2, max_size=2), st.booleans(), st.integers(0, 19)), min_size=2
)


@given(ROWS)
def test_a_row_has_the_rates_of_other_folds(rows: list[tuple[list[int], bool, int]]) -> None:
    values, clicks, folds = (np.asarray(column) for column in zip(*rows, strict=True))
    if clicks.all() or not clicks.any():
        return
    odds, overall = log_odds(values, clicks, folds, 4), clicks.mean()

    def expected(of: list[int], others: np.ndarray) -> float:
        found = []
        for value in filter(None, of):
            has = (values[others] == value).sum(1)
            rate = ((has * clicks[others]).sum() + 16 * overall) / (has.sum() + 16)
            found.append(logit(rate) - logit(overall))
        return float(np.mean(found)) if found else 0.0

    own = [expected(of, folds != fold) for of, _, fold in rows]
    assert rates(odds, values, folds) == pytest.approx(own)
    new = [expected(of, folds >= 0) for of, *_ in rows]
    assert rates(odds, values, np.full(len(rows), 20)) == pytest.approx(new)


@pytest.fixture
def written(keys: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """``written(*arguments, out="out")`` → the interactions of the copy, as text; what is refused is raised."""
    Path("keys.yaml").write_text(yaml.safe_dump(keys()))

    def write(*arguments: str, out: str = "out") -> pd.DataFrame:
        monkeypatch.setattr(
            sys, "argv", ["click_rates", "tiny", "--config_files=keys.yaml", f"--out={out}", *arguments]
        )
        status = main()
        if status:
            assert status == 2
            raise ValueError(capsys.readouterr().err)
        return pd.read_csv("out/tiny/tiny.inter", sep="\t", dtype=str, keep_default_na=False)

    return write


def test_the_files_are_the_same_with_columns_more(keys: Any, written: Any) -> None:
    source = Path(keys()["data_path"], "tiny")
    before, after = pd.read_csv(source / "tiny.inter", sep="\t", dtype=str, keep_default_na=False), written()
    fields = ["user_id", "item_id", "device", "gender", "genre"]
    assert {f"{name}_clicks:float" for name in fields} <= set(after) - set(before)
    pd.testing.assert_frame_equal(after[list(before)], before)
    for suffix in ("user", "item"):
        assert Path(f"out/tiny/tiny.{suffix}").read_bytes() == (source / f"tiny.{suffix}").read_bytes()
    with pytest.raises(ValueError, match="is where the data are, which would be overwritten"):
        written(out=str(source.parent))
    with pytest.raises(ValueError, match=r"tiny\.inter has a column 'user_id_clicks' already"):
        written("--data_path=out", out="again")


def test_labels_of_held_out_rows_are_not_told(keys: Any, written: Any) -> None:
    before = written("--train_share=0.2")
    config = make_config("ALT_DCN", "tiny", None, keys(train_share=0.2))
    dataset, train, *_ = load_data(config)
    key = [dataset.field2id_token[name][np.asarray(train._dataset.inter_feat[name])] for name in ("user_id", "item_id")]
    trained = set(zip(*key, strict=True))
    copytree(keys()["data_path"], "flipped")
    file = Path("flipped/tiny/tiny.inter")
    rows = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
    names = ("user_id:token", "item_id:token")
    flipped = [pair not in trained for pair in zip(*(rows[name] for name in names), strict=True)]
    assert any(flipped) and not all(flipped)
    rows.loc[flipped, "rating:float"] = [str(6 - float(r)) for r in rows.loc[flipped, "rating:float"]]
    rows.to_csv(file, sep="\t", index=False)
    after = written("--train_share=0.2", "--data_path=flipped")
    assert not after["rating:float"].equals(before["rating:float"])
    added = [name for name in before if name.endswith("_clicks:float")]
    pd.testing.assert_frame_equal(after[added], before[added])
    known, new = (before[of].groupby("user_id:token")["user_id_clicks:float"] for of in (~np.array(flipped), flipped))
    assert new.nunique().max() == 1 < known.nunique().max()  # what a training row does not count for itself


def test_a_model_reads_them(keys: Any, written: Any) -> None:
    after = written()
    names = [name.partition(":")[0] for name in after if name.endswith("_clicks:float")]
    load_col = keys()["load_col"]
    changes = {"data_path": "out", "numerical_features": names, "load_col": load_col}
    load_col["inter"] = [*load_col["inter"], *names]
    _, train, *_ = load_data(make_config("ALT_LR", "tiny", None, keys(**changes)))
    rows = train._dataset[:5]
    assert all(name in rows for name in names)
