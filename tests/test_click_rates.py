"""The reference that counts clicks: what it finds, and that no row knows its own label."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from recbole.utils import FeatureType

from recbole_alt.click_rates import _column, _distinct, _holds, _log_odds, _places, click_rates
from recbole_alt.loading import load_data

Loaders = tuple[Any, Any, Any]


@pytest.fixture
def loaders(tiny: Callable[..., Any]) -> Loaders:
    return load_data(tiny())[1:]


def labels(loader: Any) -> Any:
    return loader._dataset.inter_feat[loader._dataset.label_field]


def test_rates_of_known_rows() -> None:
    ids = [np.array([1, 1, 1, 2]), np.array([1, 2, 3])]
    clicked = [np.array([True, True, False, False]), np.array([False, False, False])]
    # four rows of the overall rate, a half
    train, others = _log_odds(ids, np.arange(4)[:, None], clicked, slice(None, None, 2))[4]
    rate = [(2 - 1 + 2) / (3 - 1 + 4), (2 + 2) / (3 - 1 + 4)]  # every other row
    assert np.exp(train) / (1 + np.exp(train)) == pytest.approx(rate)
    rate = [(2 + 2) / (3 + 4), (0 + 2) / (1 + 4), 1 / 2]
    assert np.exp(others) / (1 + np.exp(others)) == pytest.approx(rate)


def test_a_sequence_has_the_mean_of_its_members() -> None:
    values = _distinct(np.array([[0, 0, 0], [2, 1, 1], [1, 0, 0]]))
    assert [sorted(row[row >= 0].tolist()) for row in values] == [[], [1, 2], [1]]
    places = [np.array([1, 1, 2, 0]), np.array([1, 2, 0])]
    clicked = [np.array([True, False, False, True]), np.zeros(3, dtype=bool)]
    train, others = _log_odds(places, values, clicked, slice(None))[4]  # four rows of the overall rate, a half
    odds = {rate: np.log(rate / (1 - rate)) for rate in (2 / 6, 3 / 6, 3 / 7, 2 / 5, 3 / 5)}
    assert train[0] == pytest.approx((odds[2 / 6] + odds[2 / 5]) / 2)  # without itself: none of two, and none of one
    assert train[1] == pytest.approx((odds[3 / 6] + odds[3 / 5]) / 2)
    assert train[3] == 0
    assert others == pytest.approx([(odds[3 / 7] + 0) / 2, odds[3 / 7], 0])


def test_what_users_decide_is_found(loaders: Loaders) -> None:
    for loader in loaders:
        user = loader._dataset.inter_feat[loader._dataset.uid_field]
        labels(loader)[:] = (user % 2).float()
    found = click_rates(loaders)
    assert found["valid"] and found["valid"] > 0.95 and found["test"] and found["test"] > 0.95


def test_nothing_is_found_in_labels_at_random(loaders: Loaders) -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(20):
        for loader in loaders:
            labels(loader)[:] = labels(loader).new_tensor(rng.integers(0, 2, len(labels(loader))))
        found += click_rates(loaders).values()
    assert np.mean([value for value in found if value is not None]) == pytest.approx(0.5, abs=0.1)


def test_columns_are_those_of_recboles_join(loaders: Loaders) -> None:
    data = loaders[1]._dataset
    joined = data.join(data.inter_feat)
    for name in ("user_id", "item_id", "gender", "year", "device"):
        assert _holds(data, name) and np.array_equal(_column(data, name), joined[name])
    assert not _holds(data, "title")
    for name in ("genre",):
        parts = [loader._dataset for loader in loaders]
        places, values = _places(parts, name)
        for part, place in zip(parts, places, strict=True):
            joined = np.asarray(part.join(part.inter_feat)[name])
            for members, ids in zip(joined, values[place], strict=True):
                assert set(members[members > 0]) == set(ids[ids >= 0])


def test_sequences_of_interactions_are_read_by_row() -> None:
    parts: list[Any] = [
        SimpleNamespace(
            field2type={"tags": FeatureType.TOKEN_SEQ},
            inter_feat={"tags": np.array(tags)},
            user_feat=None,
            item_feat=None,
            uid_field="user_id",
            iid_field="item_id",
        )
        for tags in ([[1, 2], [3, 0]], [[2, 2]])
    ]
    places, values = _places(parts, "tags")
    assert [set(row[row >= 0]) for row in values[np.concatenate(places)]] == [{1, 2}, {3}, {2}]
    assert [len(place) for place in places] == [2, 1]


def test_data_without_token_fields(loaders: Loaders) -> None:
    loaders[0]._dataset.field2type = {}
    assert click_rates(loaders) == {"valid": None, "test": None}


def test_labels_of_one_class(loaders: Loaders) -> None:
    labels(loaders[0])[:] = 1
    assert click_rates(loaders) == {"valid": None, "test": None}
