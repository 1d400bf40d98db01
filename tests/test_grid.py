"""The grid of a campaign: which combinations are tried, and under which names models know the keys."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_alt.config import ALTConfig
from recbole_alt.study.plan import as_override
from recbole_alt.study.ranges import combinations, read_grid


def choices(*sizes: int) -> dict[str, list[str]]:
    return {f"key{k}": [f"{k}.{v}" for v in range(size)] for k, size in enumerate(sizes)}


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), max_size=4), st.integers(1, 40))
def test_as_many_as_allowed_all_different_and_spread(sizes: list[int], most: int) -> None:
    tried = combinations(choices(*sizes), most)
    total = len(combinations(choices(*sizes), 4**4))
    assert len({tuple(one.values()) for one in tried}) == len(tried) == min(most, total)
    for name, values in choices(*sizes).items():
        times = Counter(one[name] for one in tried)
        often = [times[value] for value in values]
        assert max(often) - min(often) <= 2, name


def test_a_third_of_a_grid_is_a_latin_square() -> None:
    tried = combinations(choices(2, 3, 3), 6)
    for one, other in (("key0", "key1"), ("key0", "key2")):
        assert set(Counter((each[one], each[other]) for each in tried).values()) == {1}
    assert all(len({each["key2"] for each in tried if each["key1"] == value}) == 2 for value in ("1.0", "1.1", "1.2"))


def test_names_that_models_have_for_dropout() -> None:
    assert as_override("dropout_prob", 0.1, ALTConfig("ALT_EulerNet", "ml-100k")) == {"drop_ex": 0.1, "drop_im": 0.1}
    assert as_override("dropout_prob", 0.1, ALTConfig("ALT_AutoInt", "ml-100k"))["dropout_probs"] == [0.1, 0.1, 0.1]
    assert as_override("dropout_prob", 0.1, ALTConfig("ALT_LR", "ml-100k")) == {}


def test_keys_that_alignment_reads_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("mask_ratio choice [0.1, 0.2]")
    with pytest.raises(ValueError, match="mask_ratio is no key of finetuning"):
        read_grid(str(tmp_path / "bad"))
